import Basics
import Glibc
import TestSupport
import Testing

/// `muster run`: a command in a service's environment, as if it had been started by hand there.
@Suite(.serialized) struct RunVerbTests {
    private static let file = """
        stack: s
        services:
          plain:
            command: [sleep, "1000"]
            environment: { WHO: "${WHO:-nobody}" }
            grace: 1s
          stored:
            command: [sleep, "1000"]
            uses: [state]
            grace: 1s
        stores: { state: { redis: { role: state } } }

        """

    private func shell(_ stack: SmallStack, _ script: String) async throws -> (status: Int32, output: String) {
        try await run(
            try systemProgram("bash"), ["-c", "M=\(builtProgram("muster"))\n\(script)"], folder: stack.folder, limit: .seconds(30))
    }

    /// Without the stack: what the file says, and the command's own input, output and status.
    @Test func aCommandHasTheServicesEnvironmentAndItsOwnStatus() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", Self.file)
            let (status, output) = try await stack.muster(
                "run", "plain", "--stack", "s.yaml", "--", "sh", "-c", "echo $WHO $MUSTER_SERVICE $HOST mark=$MUSTER_REPLICA; pwd; exit 7",
                environment: ["WHO": "me"])
            #expect(status == 7)
            #expect(output == "me plain 127.0.0.1 mark=\n\(Files.absolute(stack.folder))\n")
            let piped = try await shell(stack, "echo through | $M run plain --stack s.yaml -- cat")
            #expect(piped.status == 0 && piped.output == "through\n")
            // The status of a shell whose command a signal ended.
            #expect(try await shell(stack, "$M run plain --stack s.yaml -- sh -c 'kill -TERM $$'; exit $?").status == 128 + SIGTERM)
            // A broken pipe ends the command as it would end it anywhere.
            #expect(try await shell(stack, "$M run plain --stack s.yaml -- yes | head -1; exit ${PIPESTATUS[0]}").status == 128 + SIGPIPE)
            let help = try await stack.muster("run", "plain", "--stack", "s.yaml", "--", "sh", "-c", "echo $1", "sh", "--help")
            #expect(help.output == "--help\n", "\(help.output)")
        }
    }

    @Test func theTerminalIsTheCommands() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", Self.file)
            try stack.put("terminal.py", "import pty, sys, os\nos._exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))\n")
            let (status, output) = try await shell(
                stack, "python3 terminal.py $M run plain --stack s.yaml -- sh -c 'test -t 0 && test -t 1 && echo a-terminal; exit 3'")
            #expect(status == 3 && output.contains("a-terminal"), "\(output)")
        }
    }

    @Test func storesAreThoseOfTheRunningStack() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", Self.file)
            let early = try await stack.muster("run", "stored", "--stack", "s.yaml", "--", "true")
            #expect(early.status == 1 && early.output.contains("start the stack first"), "\(early.output)")
            try await stack.up()
            // redis-cli 7.0 takes an empty user of a URL for a user's name.
            let ping = "at=${REDIS_URL#redis://:} port=${REDIS_URL##*:}; redis-cli -p ${port%%/*} -a ${at%%@*} --no-auth-warning PING"
            let (status, output) = try await stack.muster("run", "stored", "--stack", "s.yaml", "--", "sh", "-c", ping)
            #expect(status == 0 && output == "PONG\n", "\(output)")
            #expect(try await stack.muster("run", "plain", "--stack", "s.yaml", "--", "sh", "-c", "echo [$REDIS_URL]").output == "[]\n")
            #expect(try await stack.muster("down", "s.yaml").status == 0)
        }
    }

    @Test func mistakesAreTold() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", Self.file)
            for (words, said) in [
                (["plian", "--", "true"], "did you mean 'plain'?"), (["plain"], "which command?"), (["--", "true"], "which service?"),
                (["plain", "--"], "a command is needed"), (["plain", "--", "no-such-program-here"], "there is no program"),
                (["plain", "more", "--", "true"], "too many arguments"),
            ] {
                let (status, output) = try await run(
                    builtProgram("muster"), ["run", "--stack", "s.yaml"] + words, folder: stack.folder, limit: .seconds(20))
                #expect(status == 2 && output.contains(said), "\(words): \(output)")
            }
        }
    }
}
