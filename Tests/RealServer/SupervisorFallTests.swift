import Basics
import Glibc
import TestSupport
import Testing

/// The supervisor itself dies, is hurried, or loses its terminal; replicas run on without it for a moment at most.
@Suite(.serialized) struct SupervisorFallTests {
    /// A worker, a service and a store; SIGTERM ends each.
    private func file(_ stack: SmallStack) throws -> String {
        "stack: s\nstores: { state: { redis: { role: state, memory: 32Mi } } }\nservices:\n"
            + (try stack.service("web", environment: "WHO: w", "replicas: 2"))
            + "  worker: { command: [sleep, '1000'], grace: 1s }\n" + stack.gateway()
    }

    @Test(arguments: [SIGKILL, SIGILL, SIGSEGV])
    func aCrashedSupervisorComesBackAndLeavesNothingBehind(signal: Int32) async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", try file(stack))
            try await stack.up()
            let before = try await stack.rows()
            let (supervisor, watcher) = try stack.supervisor(of: before[0])
            // Once: nothing holds it back, no report of the crash either.
            kill(supervisor, signal)
            let isDead = await eventually(.seconds(15)) { !isAlive(supervisor) }
            #expect(isDead)
            let isBack = try await eventually(.seconds(20)) {
                let rows = try await stack.rows()
                return rows.count == 4 && rows.allSatisfy { $0.state == "ready" }
                    && Set(rows.map(\.pid)).isDisjoint(with: before.map(\.pid))
            }
            let said = try await stack.muster("ps", "s.yaml").output
            #expect(isBack, "\(said)\n\(Files.text("\(stack.folder)/.muster/s/logs/supervisor.log") ?? "")")
            #expect(try await stack.get().text == "w")
            for row in before { #expect(!isAlive(row.pid), "\(row.name) of before lives") }
            let after = try stack.supervisor(of: try await stack.row("web/1"))
            #expect(after.watcher == watcher && after.supervisor != supervisor)
            let why = try await stack.muster("why", "supervisor", "--stack", "s.yaml")
            #expect(why.status == 0 && why.output.contains("The supervisor ended (killed by SIG"), "\(why.output)")
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            #expect(stack.processes.isEmpty)
        }
    }

    /// One that dies again and again is given up, and then nothing of the stack is left.
    @Test func aCrashLoopIsBounded() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", "stack: s\nservices: { worker: { command: [sleep, '1000'], grace: 1s } }\n")
            try await stack.up()
            var seen: Set<Int32> = []
            let isOver = try await eventually(.seconds(40)) {
                if let row = try await stack.rows().first, row.pid > 0, let parent = try? parentProcess(row.pid) {
                    kill(parent, SIGKILL)
                    seen.insert(parent)
                }
                return stack.processes.isEmpty
            }
            #expect(isOver && (3...6).contains(seen.count), "\(seen.count) supervisors")
            let log = Files.text("\(stack.folder)/.muster/s/logs/supervisor.log") ?? ""
            #expect(log.contains("the supervisor ended 5 times in a row"), "\(log)")
        }
    }

    /// Between two lives of the supervisor 'down' still means down.
    @Test func downBetweenTwoLives() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", "stack: s\nservices: { worker: { command: [sleep, '1000'], grace: 1s } }\n")
            try await stack.up()
            let log = "\(stack.folder)/.muster/s/logs/supervisor.log"
            // The third pause is 800 ms long.
            for crash in 1...3 {
                let isUp = try await eventually {
                    guard let row = try await stack.rows().first, row.pid > 0 else { return false }
                    return kill(try parentProcess(row.pid), SIGKILL) == 0
                }
                #expect(isUp)
                #expect(
                    await eventually {
                        (Files.text(log) ?? "").split(separator: "\n").filter { $0.contains("is started again in") }.count == crash
                    })
            }
            let down = try await stack.muster("down", "s.yaml")
            #expect(down.status == 0 && stack.processes.isEmpty, "\(down.output)")
            try await Task.sleep(for: .seconds(2))
            #expect(stack.processes.isEmpty)
        }
    }

    /// A supervisor that dies while it drains was told to stop: the stack is not started again.
    @Test func downIsDownAlsoWhenTheSupervisorDiesOverIt() async throws {
        try await withSmallStack { stack in
            let stubborn = "  worker: { command: [sh, -c, \"trap '' TERM; while :; do sleep 1; done\"], grace: 4s }\n"
            try stack.put("s.yaml", "stack: s\nservices:\n" + stubborn)
            try await stack.up()
            let row = try await stack.row("worker/1"), supervisor = try stack.supervisor(of: row).supervisor
            let log = "\(stack.folder)/.muster/s/logs/supervisor.log"
            async let down = stack.muster("down", "s.yaml")
            let drains = try await eventually(.seconds(20)) { try await stack.rows().first?.state == "draining" }
            #expect(drains)
            kill(supervisor, SIGKILL)
            let result = try await down
            #expect(result.status == 0 && stack.processes.isEmpty, "\(result.output)")
            try await Task.sleep(for: .seconds(1))
            let text = Files.text(log) ?? ""
            #expect(stack.processes.isEmpty && !text.contains("is started again in"), "\(text)")
            #expect(text.contains("before it had stopped everything"), "\(text)")
            // One that has no socket, as it has none while it ends what one before it had left, is told by a signal.
            try stack.put("s.yaml", "stack: s\nservices: { worker: { command: [sleep, '1000'], grace: 1s } }\n")
            try await stack.up()
            Files.remove("\(stack.folder)/.muster/s/control.sock")
            let unreached = try await stack.muster("down", "s.yaml")
            #expect(unreached.status == 0 && unreached.output.contains("by a signal"), "\(unreached.output)")
            #expect(stack.processes.isEmpty)
        }
    }

    /// Whoever starts `muster up` with exec may have children: they are not the stack's.
    @Test func childrenOfWhoeverStartedItAreLeftAlone() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", "stack: s\nservices: { worker: { command: [sleep, '1000'], grace: 1s } }\n")
            let script = "sleep 1000 & echo $! > sidecar; exec '\(builtProgram("muster"))' up s.yaml"
            let front = try Child("/bin/sh", ["-c", script], log: stack.folder + "/front", folder: stack.folder)
            #expect(await eventually(.seconds(20)) { front.output.contains("Ctrl-C stops the stack") }, "\(front.output)")
            let sidecar = Int32((Files.text(stack.folder + "/sidecar") ?? "").split(separator: "\n").first ?? "") ?? 0
            front.send(SIGTERM)
            #expect(await front.end() == 0, "\(front.output)")
            #expect(sidecar > 1 && stack.processes == [sidecar])
            if sidecar > 1 { kill(sidecar, SIGKILL) }
        }
    }

    /// The watcher alone: in the foreground it is what somebody has started, so the stack stops; in the background the stack goes on.
    @Test func theEndOfTheWatcher() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", try file(stack))
            let front = try Child(builtProgram("muster"), ["up", "s.yaml"], log: stack.folder + "/front", folder: stack.folder)
            #expect(await eventually(.seconds(20)) { front.output.contains("Ctrl-C stops the stack") }, "\(front.output)")
            kill(front.pid, SIGKILL)
            _ = await front.end()
            #expect(await eventually(.seconds(20)) { stack.processes.isEmpty })
            try await stack.up()
            let row = try await stack.row("web/1")
            kill(try stack.supervisor(of: row).watcher, SIGKILL)
            try await Task.sleep(for: .milliseconds(300))
            #expect(try await stack.get().status == 200)
            #expect(try await stack.row("web/1").pid == row.pid)
            // Both gone: the next verb finds what is left.
            kill(try parentProcess(row.pid), SIGKILL)
            let down = try await stack.muster("down", "s.yaml")
            #expect(down.status == 0 && down.output.contains("ended 4 processes"), "\(down.output)")
            #expect(stack.processes.isEmpty)
        }
    }

    /// Whatever ends a foreground stack, nothing of it is left: a closed terminal, Ctrl-\, SIGTERM; and a second signal does not wait.
    @Test func signalsToAForegroundStack() async throws {
        try await withSmallStack { stack in
            let stubborn = "  worker: { command: [sh, -c, \"trap '' TERM; while :; do sleep 1; done\"], grace: 60s }\n"
            try stack.put("s.yaml", "stack: s\nservices:\n" + (try stack.service()) + stack.gateway())
            try stack.put("slow.yaml", "stack: slow\nservices:\n" + stubborn)
            for signal in [SIGHUP, SIGQUIT, SIGTERM] {
                let front = try Child(
                    builtProgram("muster"), ["up", "s.yaml"], log: stack.folder + "/front\(signal)", folder: stack.folder)
                #expect(await eventually(.seconds(20)) { front.output.contains("Ctrl-C stops the stack") }, "\(front.output)")
                front.send(signal)
                #expect(await front.end() == 0, "signal \(signal): \(front.output)")
                #expect(front.output.contains("stopped: web/1") && stack.processes.isEmpty)
            }
            let slow = try Child(builtProgram("muster"), ["up", "slow.yaml"], log: stack.folder + "/slow", folder: stack.folder)
            #expect(await eventually(.seconds(20)) { slow.output.contains("Ctrl-C stops the stack") })
            slow.send(SIGINT)
            try await Task.sleep(for: .milliseconds(500))
            #expect(!stack.processes.isEmpty)
            slow.send(SIGINT)
            #expect(await slow.end(within: .seconds(10)) == 0, "\(slow.output)")
            #expect(slow.output.contains("stopping at once") && stack.processes.isEmpty)
            // In the background a hang-up is nobody's terminal.
            try await stack.up()
            let row = try await stack.row("web/1")
            kill(try stack.supervisor(of: row).watcher, SIGHUP)
            kill(try stack.supervisor(of: row).supervisor, SIGHUP)
            try await Task.sleep(for: .milliseconds(500))
            #expect(try await stack.row("web/1").pid == row.pid)
            #expect(try await stack.muster("down", "s.yaml").status == 0)
        }
    }

    /// The files that routes name are read with the configuration: deleting one afterwards costs neither a roll nor a restart; and a
    /// configuration that cannot be read is refused, with nothing changed.
    @Test func deletedFilesOfRoutesCostNothing() async throws {
        try await withSmallStack { stack in
            try stack.put("tokens", "a-token-of-the-tests\n")
            func write(_ tokens: String, _ who: String) throws {
                try stack.put(
                    "s.yaml",
                    "stack: s\nservices:\n" + (try stack.service(environment: "WHO: \(who)"))
                        + stack.gateway(route: "auth: { bearer: \"\(stack.folder)/\(tokens)\" }"))
            }
            let token = [("Authorization", "Bearer a-token-of-the-tests")]
            try write("tokens", "one")
            try await stack.up()
            Files.remove(stack.folder + "/tokens")
            #expect(try await stack.muster("roll", "web", "s.yaml").status == 0)
            #expect(try await stack.get(headers: token).text == "one")
            let row = try await stack.row(try await stack.rows()[0].name)
            kill(row.pid, SIGKILL)
            let isBack = try await eventually { try await stack.rows().first.map { $0.pid != row.pid && $0.state == "ready" } == true }
            #expect(isBack)
            #expect(try await stack.get(headers: token).text == "one")
            #expect(try await stack.get().status == 401)
            // Other routes, of a file that is not there, and another service with them: none of it happens.
            try write("missing", "two")
            let refused = try await stack.muster("up", "s.yaml")
            #expect(
                refused.status == 1 && refused.output.contains("nothing was changed") && refused.output.contains("missing"),
                "\(refused.output)")
            #expect(try await stack.get(headers: token).text == "one")
            try stack.put("missing", "a-token-of-the-tests\n")
            let taken = try await stack.muster("up", "s.yaml")
            #expect(taken.status == 0 && taken.output.contains("routes replaced"), "\(taken.output)")
            #expect(try await stack.get(headers: token).text == "two")
            #expect(try await stack.muster("down", "s.yaml").status == 0)
        }
    }
}
