import Basics
import Glibc
import TestSupport
import Testing

/// `muster up` as somebody sees it who sits before it: the services' lines, and what Ctrl-C does.
@Suite(.serialized) struct ForegroundTests {
    private func up(_ stack: SmallStack, environment: [String: String] = [:]) throws -> Child {
        try Child(
            builtProgram("muster"), ["up", "s.yaml"], environment: environment, log: stack.folder + "/shown", folder: stack.folder)
    }

    private func end(_ child: Child) async {
        child.send(SIGTERM)
        if await child.end(within: .seconds(20)) == nil { await child.destroy() }
    }

    /// Each line with its replica's name, in the order of the writes and not file after file.
    @Test func linesComeInTheOrderInWhichTheyWereWritten() async throws {
        try await withSmallStack { stack in
            // They take turns: each writes when the other's number is there.
            try stack.put(
                "turns.sh",
                """
                i=$1
                while [ $i -lt 12 ]; do
                    while [ "$(cat turn 2>/dev/null)" != $i ]; do sleep 0.01; done
                    echo "line $i"
                    sleep 0.05
                    i=$((i + 2))
                    echo $((i - 1)) > turn.$1 && mv turn.$1 turn
                done
                exec sleep 1000
                """)
            try stack.put("turn", "0")
            try stack.put(
                "s.yaml",
                """
                stack: s
                services:
                  even: { command: [sh, turns.sh, 0], grace: 1s }
                  odd: { command: [sh, turns.sh, 1], grace: 1s }
                """)
            let child = try up(stack)
            let isShown = await eventually(.seconds(20)) { child.output.contains("line 11") }
            #expect(isShown)
            let lines = child.output.split(separator: "\n").filter { $0.contains(" | line ") }
            #expect(lines.map { $0.split(separator: " ").last.flatMap { Int($0) } } == Array(0..<12), "\(lines)")
            #expect(lines.enumerated().allSatisfy { $1.hasPrefix($0 % 2 == 0 ? "even/1" : "odd/1") }, "\(lines)")
            #expect(!child.output.contains("\u{1b}"))
            await end(child)
            #expect(child.output.hasSuffix("stopped\n"))
        }
    }

    /// What a log had before is not shown again; what comes last before the end is.
    @Test func onlyThisRunIsShown() async throws {
        try await withSmallStack { stack in
            try stack.put(
                "s.yaml",
                """
                stack: s
                services:
                  a:
                    command: [sh, -c, "trap 'echo goodbye $WHO; exit 0' TERM; echo hello $WHO; while :; do sleep 0.05; done"]
                    environment: { WHO: $WHO }
                    grace: 5s
                """)
            for who in ["first", "second"] {
                let child = try up(stack, environment: ["WHO": who])
                let isShown = await eventually(.seconds(20)) { child.output.contains("a/1 | hello \(who)") }
                #expect(isShown)
                await end(child)
                #expect(child.output.contains("a/1 | goodbye \(who)"))
                #expect(!child.output.contains("| hello first") || who == "first" || child.output.components("a/1 | hello first") == 1)
            }
        }
    }

    /// A terminal that stands still, or a pipe that nobody reads, stalls neither a service nor the supervisor.
    @Test func aReaderThatStandsStillHoldsNothingUp() async throws {
        try await withSmallStack { stack in
            let flood =
                "  flood:\n    command: [sh, -c, 'while :; do head -c 200000 /dev/zero | tr \"\\\\0\" x | fold -w 100; sleep 0.05; done']\n    grace: 1s\n"
            try stack.put("s.yaml", "stack: s\nservices:\n\(try stack.service())\(flood)\(stack.gateway())")
            // The pipe's reader sleeps: nothing that is written is taken.
            let child = try Child(
                try systemProgram("bash"), ["-c", "exec \(builtProgram("muster")) up s.yaml > >(exec sleep 1000) 2>&1"],
                log: stack.folder + "/shown", folder: stack.folder)
            let serves = await eventually(.seconds(20)) { (try? await stack.get().status) == 200 }
            #expect(serves)
            // More than the pipe takes has been written by then, and more by the supervisor: every death of a replica is told.
            for _ in 0..<5 {
                let row = try await stack.row("web/1")
                kill(row.pid, SIGKILL)
                let isBack = await eventually(.seconds(10)) {
                    guard let now = try? await stack.row("web/1") else { return false }
                    return now.state == "ready" && now.pid != row.pid
                }
                #expect(isBack)
            }
            #expect(try await stack.get().status == 200)
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            #expect(await child.end(within: .seconds(10)) != nil)
        }
    }

    @Test func aSecondInterruptEndsServicesAtOnce() async throws {
        try await withSmallStack { stack in
            try stack.put(
                "s.yaml",
                "stack: s\nservices: { deaf: { command: [sh, -c, \"trap '' TERM; echo ready; while :; do sleep 0.1; done\"], grace: 60s } }\n"
            )
            let child = try up(stack)
            let isReady = await eventually(.seconds(20)) {
                child.output.contains("deaf/1 | ready") && child.output.contains("everything is ready")
            }
            #expect(isReady)
            child.send(SIGINT)
            try await Task.sleep(for: .milliseconds(700))
            #expect(await child.end(within: .milliseconds(100)) == nil, "the grace is 60 s")
            child.send(SIGINT)
            #expect(await child.end(within: .seconds(10)) == 0)
            #expect(child.output.contains("stopping at once"))
        }
    }

    /// A terminal gets colours, unless NO_COLOR says otherwise.
    @Test(arguments: [false, true]) func coloursAreForTerminals(noColor: Bool) async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", "stack: s\nservices: { a: { command: [sh, -c, 'echo hello; exec sleep 1000'], grace: 1s } }\n")
            try stack.put("terminal.py", "import pty, sys\npty.spawn(sys.argv[1:])\n")
            let child = try Child(
                try systemProgram("python3"), ["terminal.py", builtProgram("muster"), "up", "s.yaml"],
                environment: ["TERM": "xterm"].merging(noColor ? ["NO_COLOR": "1"] : [:]) { $1 }, log: stack.folder + "/shown",
                folder: stack.folder)
            let isShown = await eventually(.seconds(20)) { child.output.contains("hello") }
            #expect(isShown)
            #expect(child.output.contains("\u{1b}[") != noColor, "\(child.output)")
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            await child.destroy()
        }
    }
}

extension String {
    fileprivate func components(_ word: String) -> Int { ranges(of: word).count }
}
