import Basics
import Glibc
import TestSupport
import Testing

/// Processes that leave their group: helpers in sessions of their own, daemons, and those that clear their environment.
@Suite(.serialized) struct ProcessEscapeTests {
    /// A worker with two helpers: one in a session of its own, one that is a daemon and has also cleared its environment.
    private static let file = """
        stack: s
        services:
          a:
            command: [/bin/sh, -c, "setsid sleep 1001 & (env -i setsid /bin/sleep 1002 &) ; exec sleep 1003"]
            grace: 1s

        """

    private func sleepers(_ stack: SmallStack) -> [String] {
        stack.processes.compactMap { pid in
            let words = (Files.text("/proc/\(pid)/cmdline") ?? "").split(separator: "\0")
            return words.first?.hasSuffix("sleep") == true ? words.last.map(String.init) : nil
        }.sorted()
    }

    private func areAll(_ stack: SmallStack, _ wanted: [String]) async -> Bool {
        await eventually(.seconds(10)) { sleepers(stack) == wanted }
    }

    @Test func helpersGoWithTheirReplicaAndWithTheStack() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", ProcessEscapeTests.file)
            try await stack.up()
            #expect(await areAll(stack, ["1001", "1002", "1003"]))
            // Started again: the helper goes with its replica, and there is one, not two.
            let first = stack.processes
            kill(try await stack.row("a/1").pid, SIGKILL)
            let isNew = await eventually(.seconds(10)) {
                Set(stack.processes).subtracting(first).count == 3 && sleepers(stack) == ["1001", "1002", "1002", "1003"]
            }
            #expect(isNew, "\(sleepers(stack))")
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            #expect(sleepers(stack).isEmpty)
        }
    }

    @Test func helpersAreFoundAfterTheSupervisorWasKilled() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", ProcessEscapeTests.file)
            try await stack.up()
            #expect(await areAll(stack, ["1001", "1002", "1003"]))
            // The supervisor alone: the next one ends them, but for the one without a mark, which goes at the end.
            kill(try stack.supervisor(of: try await stack.row("a/1")).supervisor, SIGKILL)
            #expect(await areAll(stack, ["1001", "1002", "1002", "1003"]), "\(sleepers(stack))")
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            #expect(sleepers(stack).isEmpty)
            // Both: 'down' finds what bears the mark.
            try await stack.up()
            #expect(await areAll(stack, ["1001", "1002", "1003"]))
            let (supervisor, watcher) = try stack.supervisor(of: try await stack.row("a/1"))
            kill(watcher, SIGKILL)
            kill(supervisor, SIGKILL)
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            #expect(sleepers(stack) == ["1002"], "the one that nothing tells of any more")
        }
    }

    /// A stack beside it, and a copy of its folder, are other stacks: their processes are left alone.
    @Test func onlyTheStacksOwnAreEnded() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", ProcessEscapeTests.file)
            try await stack.up()
            #expect(await areAll(stack, ["1001", "1002", "1003"]))
            try Files.makeFolder(stack.folder + "/copy")
            let copied = try await run(
                try systemProgram("cp"), ["-r", stack.folder + "/.muster", stack.folder + "/s.yaml", stack.folder + "/copy"])
            #expect(copied.status == 0, "\(copied.output)")
            // In the copy nothing runs; its list of processes names those of the original, which are not its own to end.
            #expect(Files.exists(stack.folder + "/copy/.muster/s/processes"))
            #expect(try await stack.muster("down", "copy/s.yaml").output.contains("was not running"))
            #expect(sleepers(stack) == ["1001", "1002", "1003"])
        }
    }

    /// Bytes that are no text pass as they are, also in the environment of a service; what is not on the list does not pass.
    @Test func inheritedBytesStayWhatTheyAre() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", "stack: s\nservices:\n" + (try stack.service()) + stack.gateway())
            let script = "LC_ODD=$(printf 'a\\377b') ODD=1 exec \(builtProgram("muster")) up -d s.yaml"
            #expect(try await run(try systemProgram("bash"), ["-c", script], folder: stack.folder).status == 0)
            #expect(try await stack.get("/env?name=LC_ODD").text == "61ff62")
            #expect(try await stack.get("/env?name=ODD").text == "")
            #expect(try await stack.get("/env?name=MUSTER_SUPERVISES").text == "")
        }
    }

    /// PORT is Muster's where it chooses the port, and the declared one where it does not; either is told.
    @Test func portInTheEnvironment() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", "stack: s\nservices:\n" + (try stack.service(environment: "PORT: 9")))
            let refused = try await stack.muster("up", "-d", "s.yaml")
            #expect(
                refused.status == 2
                    && refused.output.contains("services.web.environment.PORT: each replica of a service with http gets a port"),
                "\(refused.output)")
            try stack.put(
                "s.yaml", "stack: s\nservices: { w: { command: [sh, -c, 'echo port=$PORT; exec sleep 1000'], environment: { PORT: 9 } } }\n"
            )
            try await stack.up()
            let isSaid = try await eventually { try await stack.muster("logs", "w/1", "--stack", "s.yaml").output.contains("port=9\n") }
            #expect(isSaid)
            #expect(try await stack.row("w/1").port == nil)
        }
    }
}
