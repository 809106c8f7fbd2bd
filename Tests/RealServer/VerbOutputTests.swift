import Basics
import Glibc
import TestSupport
import Testing

@testable import Supervision

/// What verbs write: logs of any length, the right ones, and a status that says when nothing could be written.
@Suite(.serialized) struct VerbOutputTests {
    private func shell(_ stack: SmallStack, _ script: String, limit: Duration = .seconds(30)) async throws -> (
        status: Int32, output: String
    ) {
        try await run(try systemProgram("bash"), ["-c", "M=\(builtProgram("muster"))\n\(script)"], folder: stack.folder, limit: limit)
    }

    private static let two = """
        stack: s
        services:
          web: { command: [sh, -c, "echo from-web; exec sleep 1000"], grace: 1s }
          web-1: { command: [sh, -c, "echo from-web-1; exec sleep 1000"], grace: 1s, replicas: 2 }

        """

    @Test func logsAreThoseThatWereAskedFor() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", VerbOutputTests.two)
            try await stack.up()
            func logs(_ word: String) async throws -> (status: Int32, output: String) {
                try await stack.muster("logs", word, "--stack", "s.yaml")
            }
            let isThere = try await eventually { try await logs("web/1").output.contains("from-web\n") }
            #expect(isThere)
            #expect(try await logs("web/1").output == "web-1 | from-web\n")
            #expect(try await logs("web").output == "web-1 | from-web\n")
            #expect(try await logs("web-1").output == "web-1-1 | from-web-1\nweb-1-2 | from-web-1\n")
            #expect(try await logs("web-1/2").output == "web-1-2 | from-web-1\n")
            for (word, status) in [("web/2", 1), ("we", 1), ("web/", 2), ("/1", 2), ("web/1/1", 2)] as [(String, Int32)] {
                #expect(try await logs(word).status == status, "\(word)")
            }
            #expect(try await stack.muster("down", "s.yaml").status == 0)
        }
    }

    /// Lines longer than what is read at once, with and without an end, and a log that is emptied under the reader.
    @Test func logsGoOnAfterALongLine() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", "stack: s\nservices: { a: { command: [sleep, '1000'], grace: 1s } }\n")
            try await stack.up()
            let log = "\(stack.folder)/.muster/s/logs/a-1.log"
            let reader = try Child(
                builtProgram("muster"), ["logs", "a", "-f", "--stack", "s.yaml"], log: stack.folder + "/followed", folder: stack.folder)
            func append(_ text: String) throws {
                let fd = open(log, O_WRONLY | O_APPEND)
                defer { close(fd) }
                let bytes = Array(text.utf8)
                guard write(fd, bytes, bytes.count) == bytes.count else { throw SystemError("write \(log)") }
            }
            func shows(_ text: String) async -> Bool { await eventually(.seconds(10)) { reader.output.contains(text) } }
            try await Task.sleep(for: .milliseconds(500))
            try append(String(repeating: "A", count: 2_600_000) + "\nfirst\n")
            #expect(await shows("a-1 | first\n"))
            try append(String(repeating: "B", count: 1 << 20))
            #expect(await shows(String(repeating: "B", count: 1 << 20)))
            try append("end\nsecond\n")
            #expect(await shows("BBBend\na-1 | second\n"))
            truncate(log, 0)
            try await Task.sleep(for: .milliseconds(500))
            try append("third\n")
            #expect(await shows("a-1 | third\n"))
            #expect(reader.output.split(separator: "\n").count == 5)
            await reader.destroy()
            #expect(try await stack.muster("down", "s.yaml").status == 0)
        }
    }

    /// Status 1 and a word when the output could not be written, for every verb; 0 when only its reader has gone.
    @Test func whatCouldNotBeWrittenIsStatusOne() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", VerbOutputTests.two)
            try await stack.up()
            let verbs = [
                "schema", "--help", "ps --help", "ps s.yaml", "ps --json s.yaml", "why --stack s.yaml", "why --json --stack s.yaml",
                "logs supervisor --stack s.yaml", "up s.yaml", "replay --example",
            ]
            for verb in verbs {
                let full = try await shell(stack, "$M \(verb) > /dev/full")
                #expect(full.status == 1 && full.output.contains("the output could not be written: No space left"), "\(verb): \(full)")
                let gone = try await shell(stack, "{ sleep 0.3; $M \(verb); echo status=$? >&2; } | true")
                #expect(gone.output.contains("status=0"), "\(verb): \(gone)")
                let closed = try await shell(stack, "$M \(verb) >&-")
                #expect(closed.status == 1, "\(verb): \(closed)")
            }
            #expect(try await stack.muster("down", "s.yaml").status == 0)
        }
    }

    /// What waits holds as many descriptors after seconds as at the beginning.
    @Test func waitingVerbsLeakNothing() async throws {
        try await withSmallStack { stack in
            try stack.put(
                "s.yaml", "stack: s\nservices:\n" + (try stack.service(environment: "DELAY: 4", "replicas: 1..3", "start: 30s")))
            let script = "ulimit -n 48; $M up -d s.yaml && $M scale web=2 s.yaml && $M roll web s.yaml && $M down s.yaml"
            let (status, output) = try await shell(stack, script, limit: .seconds(60))
            #expect(status == 0, "\(output)")
        }
    }

    /// A log beyond what is read whole: its end is shown all the same.
    @Test func theLoudestCrasherKeepsItsReason() async throws {
        try await withSmallStack { stack in
            try stack.put(
                "s.yaml",
                "stack: s\nservices: { a: { command: [sh, -c, 'head -c 18000000 /dev/zero | tr \"\\\\0\" x; echo; echo the-reason; exit 3'], http: { port: 8000 } } }\n"
            )
            let (status, output) = try await stack.muster("up", "-d", "s.yaml")
            #expect(status == 1 && output.contains("| the-reason"), "\(output.suffix(500))")
        }
    }

    @Test func aLogThatCannotBeCopiedIsNotEmptied() async throws {
        try await withFolder { folder in
            let log = folder + "/a.log"
            try Files.replace(log, with: [UInt8](repeating: 120, count: 5000))
            // The copy has no place to go to.
            try Files.makeFolder(log + ".new")
            let troubles = LogRotation.rotate(folder, limit: 1000)
            #expect(troubles.count == 1 && troubles[0].contains("a.log"))
            #expect(try Files.size(log) == 5000)
            Files.remove(log + ".new")
            #expect(LogRotation.rotate(folder, limit: 1000).isEmpty)
            #expect(try Files.size(log) == 0 && Files.size(log + ".1") == 5000)
        }
    }

    /// Words for a person: a command that is one text, a worker's address, a path to try that the stack has.
    @Test func messagesSayWhatToDo() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", "stack: s\nservices: { a: { command: [python3 web.py] } }\n")
            let one = try await stack.muster("up", "-d", "s.yaml")
            #expect(one.status == 1 && one.output.contains("write the command as one line ('command: python3 web.py')"), "\(one.output)")
            try stack.put(
                "s.yaml",
                "stack: s\nservices:\n" + (try stack.service()) + "  w: { command: [sleep, '1000'], grace: 1s }\n"
                    + stack.gateway().replacing("path: /", with: "path: /api"))
            let (status, output) = try await stack.muster("up", "-d", "s.yaml")
            #expect(status == 0 && output.contains("curl http://127.0.0.1:\(stack.port)/api\n") && !output.contains("/health"), "\(output)")
            #expect(output.contains("SINCE (UTC)"))
            let worker = try required(output.split(separator: "\n").first { $0.hasPrefix("  w ") })
            #expect(worker.split(separator: " ")[4] == "-", "\(worker)")
            #expect(try await stack.muster("down", "s.yaml").status == 0)
        }
    }
}
