import Basics
import EventLoops
import Glibc
import HTTP
import TestSupport
import Testing

/// What a supervisor that has crashed starts again, and what must not keep it from that.
@Suite(.serialized) struct RestartTests {
    /// Kills the supervisor of a stack, and waits until another one runs all of it.
    private func crash(_ stack: SmallStack, _ file: String, count: Int) async throws {
        let before = try await stack.rows(file), supervisor = try parentProcess(before[0].pid)
        kill(supervisor, SIGKILL)
        let isBack = try await eventually(.seconds(30)) {
            let rows = try await stack.rows(file)
            return rows.count == count && rows.allSatisfy { $0.state == "ready" }
                && Set(rows.map(\.pid)).isDisjoint(with: before.map(\.pid))
        }
        #expect(isBack, "\(Files.text("\(stack.folder)/.muster/s/logs/supervisor.log") ?? "")")
    }

    /// The stack was changed to what another file says, and that is what comes back; a size that was asked for at the first start, of a
    /// service that is gone since, keeps nobody from it.
    @Test func whatWasTakenFromAnotherFileStays() async throws {
        try await withSmallStack { stack in
            let one = "  one: { command: [sleep, '1000'], grace: 1s }\n", two = "  two: { command: [sleep, '1001'], grace: 1s }\n"
            try stack.put("a.yaml", "stack: s\nservices:\n" + one)
            try stack.put("b.yaml", "stack: s\nservices:\n" + two)
            let up = try await stack.muster("up", "-d", "a.yaml", "--replicas", "one=2")
            #expect(up.status == 0, "\(up.output)")
            // That the file's name cannot be written down is told, and does not turn a change that was made into a failure.
            let obstacle = "\(stack.folder)/.muster/s/file.new"
            try Files.makeFolder(obstacle + "/x")
            let changed = try await stack.muster("up", "b.yaml")
            #expect(changed.status == 0 && changed.output.contains("two is new, and ready"), "\(changed.output)")
            #expect(changed.output.contains("that b.yaml is the stack's file now could not be written down"), "\(changed.output)")
            Files.remove(obstacle)
            let again = try await stack.muster("up", "b.yaml")
            #expect(again.status == 0 && !again.output.contains("could not be written down"), "\(again.output)")
            try await crash(stack, "b.yaml", count: 1)
            #expect(try await stack.rows("b.yaml").map(\.name) == ["two/1"])
            #expect(try await stack.muster("down", "b.yaml").status == 0)
            #expect(stack.processes.isEmpty)
        }
    }

    /// Somebody has taken a service's port between two lives: that service waits for it, and the rest comes back.
    @Test func aPortThatIsTakenMeanwhileKeepsOnlyWhoNeedsItWaiting() async throws {
        try await withSmallStack { stack in
            let port = TestPorts.server()
            let fixed = try stack.service("fixed").replacing("port: 8000", with: "port: \(port), fixed: true")
            try stack.put("s.yaml", "stack: s\nservices:\n" + fixed + "  worker: { command: [sleep, '1000'], grace: 1s }\n")
            try await stack.up()
            let before = try await stack.rows(), supervisor = try parentProcess(before[0].pid)
            // While nobody starts anything: not the supervisor, which is dead, and not its watcher, which is stopped.
            let watcher = try parentProcess(supervisor)
            kill(watcher, SIGSTOP)
            kill(supervisor, SIGKILL)
            for row in before { kill(row.pid, SIGKILL) }
            let taker = try await taker(stack, port)
            kill(watcher, SIGCONT)
            let log = "\(stack.folder)/.muster/s/logs/supervisor.log"
            let isBack = try await eventually(.seconds(30)) {
                try await stack.rows().contains { $0.name == "worker/1" && $0.state == "ready" && $0.pid != before.last?.pid }
            }
            let said = Files.text(log) ?? ""
            #expect(isBack && said.contains("services.fixed.http.port: port \(port) is in use"), "\(said)")
            await taker.destroy()
            let isWhole = try await eventually(.seconds(30)) {
                try await stack.rows().count { $0.state == "ready" } == 2
            }
            #expect(isWhole)
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            // At a start that is no restart it is told before anything runs, unless the service begins with none.
            let other = try await self.taker(stack, port)
            let refused = try await stack.muster("up", "-d", "s.yaml")
            #expect(refused.status == 1 && refused.output.contains("port \(port) is in use"), "\(refused.output)")
            let none = try await stack.muster("up", "-d", "s.yaml", "--replicas", "fixed=0")
            #expect(none.status == 0, "\(none.output)")
            // It goes on with none, also when supervisor and watcher were killed and nobody says so again.
            let held = try await stack.muster("scale", "fixed=0", "s.yaml")
            #expect(held.status == 0, "\(held.output)")
            let isRecorded = await eventually { (Files.text("\(stack.folder)/.muster/s/journal/sizes.jsonl") ?? "").contains("fixed") }
            #expect(isRecorded)
            let last = try stack.supervisor(of: try await stack.row("worker/1"))
            kill(last.watcher, SIGKILL)
            kill(last.supervisor, SIGKILL)
            #expect(await eventually { !isAlive(last.supervisor) && !isAlive(last.watcher) })
            let recorded = try await stack.muster("up", "-d", "s.yaml")
            #expect(recorded.status == 0, "\(recorded.output)")
            #expect(try await stack.rows().map(\.name) == ["worker/1"])
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            await other.destroy()
        }
    }

    /// Whoever listens at a port without being asked to.
    private func taker(_ stack: SmallStack, _ port: UInt16) async throws -> Child {
        let code =
            "import socket, time; s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(('127.0.0.1', \(port))); s.listen(); time.sleep(1000)"
        // In another folder: it is no process of the stack.
        let child = try Child(try systemProgram("python3"), ["-c", code], log: stack.folder + "/taker", folder: "/")
        let listens = await eventually(.seconds(20)) { (try? RawPeer(port: port)) != nil }
        #expect(listens, "\(child.output)")
        return child
    }

    /// For want of descriptors no supervisor can be started: that is no crash of it, and what runs goes on running until one can.
    @Test func aWantOfTheWatchersEndsNothing() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", "stack: s\nservices: { worker: { command: [sleep, '1000'], grace: 1s } }\n")
            try await stack.up()
            let row = try await stack.row("worker/1"), (supervisor, watcher) = try stack.supervisor(of: row)
            func limit(_ count: Int) async throws {
                let code = "import resource; resource.prlimit(\(watcher), resource.RLIMIT_NOFILE, (\(count), 4096))"
                let set = try await run(try systemProgram("python3"), ["-c", code])
                #expect(set.status == 0, "\(set.output)")
            }
            let log = "\(stack.folder)/.muster/s/logs/supervisor.log"
            try await limit(3)
            kill(supervisor, SIGKILL)
            // The fifth try in a row: with the crash itself, five would have ended the stack.
            let tries = await eventually(.seconds(30)) { (Files.text(log) ?? "").contains("is tried again in 3.2s") }
            let said = Files.text(log) ?? ""
            #expect(tries && said.contains("the supervisor cannot be started") && said.contains("Too many open files"), "\(said)")
            #expect(isAlive(row.pid))
            try await limit(1024)
            let isBack = try await eventually(.seconds(30)) {
                try await stack.rows().first.map { $0.state == "ready" && $0.pid != row.pid } ?? false
            }
            #expect(isBack, "\(Files.text(log) ?? "")")
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            #expect(stack.processes.isEmpty)
        }
    }

    /// `down` learns from the supervisor how long a stop may take.
    @Test func theSupervisorTellsHowLongItMayTake() async throws {
        try await withSmallStack { stack in
            try stack.put(
                "s.yaml", "stack: s\nservices: { worker: { command: [sleep, '1000'], grace: 10m, start: 20m } }\n")
            try await stack.up()
            let socket = "\(stack.folder)/.muster/s/control.sock"
            let answer = try await stack.client.send("GET", "/api/stack", to: .address(.unix(socket)))
            let told = try JSONValue.parse(answer.body)
            #expect(told["start_seconds"].int == 1200 && told["stop_seconds"].int == 1200, "\(answer.text)")
            #expect(try await stack.muster("down", "s.yaml").status == 0)
        }
    }
}
