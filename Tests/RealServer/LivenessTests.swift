import Basics
import Glibc
import Redis
import TestSupport
import Testing

@testable import Supervision

/// Who answers does not hang, whatever the answer says; who works does not hang either. Real servers, through the whole supervisor.
@Suite(.serialized) struct LivenessTests {
    /// Four stores, each of which answers its probes with another error for longer than ten probes take. None is killed, each says what ails
    /// it, and each comes back by itself.
    @Test func aStoreThatAnswersWithErrorsIsNeverKilled() async throws {
        try await withSmallStack { stack in
            let names = ["busy", "password", "full", "crowded"]
            try stack.put(
                "s.yaml", "stack: s\nstores:\n" + names.map { "  \($0): { redis: { role: state, memory: 32Mi } }\n" }.joined())
            try await stack.up()
            let before = try await stack.rows()
            var clients: [String: RedisClient] = [:]
            for name in names { clients[name] = try stack.redis(name, stack: "s") }
            func ask(_ name: String, _ words: String...) async throws {
                var command = RedisCommand(words[0])
                for word in words.dropFirst() { command.add(word) }
                _ = try await clients[name]!.send(command)
            }
            // A password that the supervisor does not know; a disk that takes no snapshot; no room for another connection.
            try await ask("password", "CONFIG", "SET", "requirepass", "another")
            try await ask("password", "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            try stack.spoilDisk("full")
            try await ask("full", "CONFIG", "SET", "save", "3600 1", "stop-writes-on-bgsave-error", "yes")
            try await ask("full", "SET", "k", "v")
            _ = try? await clients["full"]!.send(RedisCommand("BGSAVE"))
            try await ask("crowded", "CONFIG", "SET", "maxclients", "1")
            try await ask("crowded", "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            let busy = clients["busy"]!
            async let script: Void = {
                let text = "local t = redis.call('TIME')[1] while redis.call('TIME')[1] - t < 15 do end return 1"
                _ = try? await busy.send(RedisCommand("EVAL", text, "0"))
            }()
            let told = try await eventually(.seconds(10)) {
                let rows = try await stack.rows()
                func says(_ name: String, _ words: String) -> Bool {
                    rows.contains { $0.name == "\(name)/1" && $0.trouble.contains(words) }
                }
                return says("busy", "BUSY") && says("password", "WRONGPASS") && says("full", "MISCONF")
                    && says("crowded", "max number of clients")
            }
            let rows1 = try await stack.rows()
            #expect(told, "\(rows1)")
            try await Task.sleep(for: .seconds(13))
            await script
            let after = try await stack.rows()
            #expect(after.map(\.pid) == before.map(\.pid) && after.allSatisfy { $0.restarts == 0 }, "\(after)")
            // One that only refuses writes goes on serving.
            #expect(after.first { $0.name == "full/1" }?.state == "degraded")
            try await ask("password", "CONFIG", "SET", "requirepass", try stack.password("password"))
            try await ask("crowded", "CONFIG", "SET", "maxclients", "100")
            try await ask("full", "CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
            let healed = try await eventually(.seconds(10)) { try await stack.rows().allSatisfy { $0.state == "ready" } }
            let rows2 = try await stack.rows()
            #expect(healed, "\(rows2)")
            let why = try await stack.muster("why", "--stack", "s.yaml").output
            #expect(
                why.contains("busy/1 gets no requests") && why.contains("full/1 goes on serving, degraded") && !why.contains("is killed"))
            for client in clients.values { client.close() }
        }
    }

    /// One loop, one large request: probes find nobody for 14 s, and the replica stays in the gateway and alive. One that is stopped is
    /// taken out within seconds.
    @Test func aServiceAtWorkIsNotTakenForHungAndAStoppedOneIs() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", "stack: s\nservices:\n" + (try stack.service()) + stack.gateway())
            try await stack.up()
            let before = try await stack.row("web/1")
            async let large = stack.get("/work?seconds=14", port: before.port)
            for _ in 0..<6 {
                try await Task.sleep(for: .seconds(2))
                let now = try await stack.row("web/1")
                #expect(now.state == "ready" && now.pid == before.pid, "\(now)")
            }
            #expect(try await large.status == 200)
            #expect(try await stack.get().status == 200)
            kill(before.pid, SIGSTOP)
            let isOut = try await eventually(.seconds(15)) { try await stack.row("web/1").state == "failed" }
            #expect(isOut)
            kill(before.pid, SIGCONT)
            let isBack = try await eventually(.seconds(15)) { try await stack.row("web/1").state == "ready" }
            #expect(isBack)
            #expect(try await stack.row("web/1").pid == before.pid)
        }
    }

    /// Readiness that waits for something else is no hang: whoever answers `live`, with anything at all, is never killed.
    @Test func readinessThatNeverAnswersIsNoReasonToKill() async throws {
        try await withSmallStack { stack in
            try stack.put(
                "slow.py",
                """
                import http.server, os, time
                class Handler(http.server.BaseHTTPRequestHandler):
                    def do_GET(self):
                        if self.path == "/ready" and os.path.exists("wait"): time.sleep(3600)
                        self.send_response(404 if self.path == "/live" else 200); self.send_header("content-length", "0"); self.end_headers()
                    def log_message(self, *a): pass
                http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
                """)
            try stack.put(
                "s.yaml",
                "stack: s\nservices:\n  web:\n    command: [\(try systemProgram("python3")), slow.py]\n    grace: 1s\n"
                    + "    http: { port: 8000, live: /live, ready: /ready }\n")
            try await stack.up()
            let before = try await stack.row("web/1")
            try stack.put("wait", "")
            let isOut = try await eventually(.seconds(15)) { try await stack.row("web/1").trouble.contains("while /live is answered") }
            #expect(isOut)
            // Ten probes without an answer of the readiness, and more.
            try await Task.sleep(for: .seconds(32))
            let after = try await stack.row("web/1")
            #expect(after.pid == before.pid && after.restarts == 0, "\(after)")
            Files.remove(stack.folder + "/wait")
            let isBack = try await eventually(.seconds(15)) { try await stack.row("web/1").state == "ready" }
            #expect(isBack)
        }
    }

    /// What tells work from a hang, of real processes: one that computes, in a child, and one that sleeps.
    @Test func workIsSeenInProc() async throws {
        try await withFolder { folder in
            let busy = try Child(try systemProgram("sh"), ["-c", "(while :; do :; done) & wait"], log: folder + "/busy")
            let idle = try Child(try systemProgram("sleep"), ["60"], log: folder + "/idle")
            try await Task.sleep(for: .milliseconds(200))
            let first = (try ProcessWork.sample(group: busy.pid), try ProcessWork.sample(group: idle.pid))
            try await Task.sleep(for: .milliseconds(500))
            #expect(try ProcessWork.sample(group: busy.pid).isWork(since: first.0))
            #expect(try !ProcessWork.sample(group: idle.pid).isWork(since: first.1))
            await busy.destroy()
            await idle.destroy()
        }
    }

    /// A start that does not succeed says what was asked where and what came.
    @Test func whatIsNeverReadySaysWhatWasAsked() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", "stack: s\nservices:\n" + (try stack.service(environment: "STATUS: 503", "start: 2s")))
            let (status, output) = try await stack.muster("up", "-d", "s.yaml")
            #expect(status == 1 && output.contains("not ready within 2s; the last probe: GET / on 127.0.0.1:"), "\(output)")
            #expect(output.contains("was answered with status 503"), "\(output)")
        }
    }
}

extension SmallStack {
    func password(_ store: String) throws -> String {
        try required(Files.text("\(folder)/.muster/s/stores/\(store)/password")?.split(separator: "\n").first).description
    }

    /// From now on a snapshot of the store fails: a folder stands where its file would go.
    func spoilDisk(_ store: String) throws { try Files.makeFolder("\(folder)/.muster/s/stores/\(store)/dump.rdb/x") }
}
