import Basics
import EventLoops
import Glibc
import HTTP
import JSONCoding
import OpenTelemetry
import ProtobufCoding
import Redis
import Synchronization
import TestSupport
import Testing

/// The whole stack, with real processes, a real Redis, and faults. One after the other: they share two cores.
@Suite(.serialized) struct StackTests {
    @Test func twentyKillsUnderTwoHundredWritersLoseNothingAndNobodySeesOne() async throws {
        try await withStack { stack in
            let writers = Writers()
            async let writing: Void = writers.run(200, stack)
            var random = SeededRandom(seed: 20)
            var kills = 0
            for _ in 0..<20 {
                try await Task.sleep(for: .milliseconds(400))
                if let victim = try await stack.engines().filter({ $0.state == "ready" || $0.state == "degraded" }).randomElement(
                    using: &random),
                    kill(victim.pid, SIGKILL) == 0
                {
                    kills += 1
                }
            }
            let healed = try await eventually(.seconds(15)) { try await stack.engines().filter { $0.state == "ready" }.count == 3 }
            writers.isOver.withLock { $0 = true }
            await writing
            #expect(healed)
            #expect(kills >= 18)
            #expect(writers.refused.withLock { $0 } == [:], "a client saw a kill")
            let acknowledged = writers.acknowledged.withLock { $0 }
            let stored = try await stack.storedIDs()
            #expect(acknowledged.count > 1000)
            #expect(acknowledged.filter { stored[$0] != 1 }.isEmpty, "acknowledged, and not in the store exactly once")
            #expect(stored.values.allSatisfy { $0 == 1 })
            print("kills: \(kills), acknowledged: \(acknowledged.count), stored: \(stored.count)")
        }
    }

    /// Spans and logs of the same traces, exported to a receiver, under the same kills: the ledger balances to the unit, every acknowledged
    /// span and log arrives downstream, and what arrives twice is bounded and counted.
    @Test func twentyKillsLeaveTheLedgerBalancedAndTheExportsWhole() async throws {
        try await withStack(up: false) { stack in
            let receiver = Receiver()
            try await withServer(stack.loop, receiver.router(stack.loop)) { peer in
                let lease = 3
                try stack.write(
                    level: "warn",
                    more:
                        ", CORRELATION_QUIET_SECONDS: \"0.5\", EXPORT_LEASE_SECONDS: \"\(lease)\", LOKI_URL: \"http://\(peer)\", "
                        + "TEMPO_URL: \"http://\(peer)\""
                )
                let (status, output) = try await stack.muster("up", "-d", stack.file)
                #expect(status == 0, "\(output)")
                let writers = TraceWriters()
                async let writing: Void = writers.run(40, stack)
                var random = SeededRandom(seed: 21)
                var kills = 0
                while kills < 20 {
                    try await Task.sleep(for: .milliseconds(350))
                    if let victim = try await stack.engines().filter({ $0.state == "ready" || $0.state == "degraded" }).randomElement(
                        using: &random),
                        kill(victim.pid, SIGKILL) == 0
                    {
                        kills += 1
                    }
                }
                writers.isOver.withLock { $0 = true }
                await writing
                #expect(writers.refused.withLock { $0 } == [:], "a client saw a kill")
                let spans = writers.spans.withLock { $0 }, logs = writers.logs.withLock { $0 }
                #expect(spans.count > 500 && logs.count > 500)

                let settled = try await eventually(.seconds(30)) { try await stack.ledger()["pending"] == 0 }
                let ledger = try await stack.ledger()
                #expect(settled && ledger["imbalance"] == 0 && ledger["expired"] == 0 && ledger["rejected"] == 0, "\(ledger)")
                #expect(ledger["correlated"] == spans.count + logs.count, "\(ledger)")
                #expect(ledger["received"] == (ledger["correlated"] ?? 0) + (ledger["duplicate"] ?? 0))

                // Leases of the dead run out; then everything is there.
                let arrived = try await eventually(.seconds(30)) {
                    let there = try receiver.arrived()
                    return there.spans.count == spans.count && there.logs.count == logs.count
                }
                let there = try receiver.arrived()
                #expect(arrived, "\(there.spans.count) of \(spans.count) spans, \(there.logs.count) of \(logs.count) logs")
                #expect(Set(there.spans.keys) == spans && Set(there.logs.keys) == logs)
                let twice = there.spans.values.reduce(0) { $0 + $1 - 1 } + there.logs.values.reduce(0) { $0 + $1 - 1 }
                // An instance holds four batches a target when it dies.
                #expect(twice < (spans.count + logs.count) / 2)
                print("kills: \(kills), ledger: \(ledger), twice downstream: \(twice)")
            }
        }
    }

    /// Writers of traces: one span by OTLP and one log by document 000's API, again and again.
    private final class TraceWriters: Sendable {
        let spans = Mutex<Set<String>>([])
        let logs = Mutex<Set<String>>([])
        let refused = Mutex<[Int: Int]>([:])
        let isOver = Mutex(false)

        func run(_ count: Int, _ stack: StackFixture) async {
            await withTaskGroup(of: Void.self) { group in
                for writer in 1...count {
                    group.addTask(executorPreference: stack.loop) {
                        var i = 0
                        while !self.isOver.withLock({ $0 }) {
                            await self.write(writer, i, stack)
                            i += 1
                        }
                    }
                }
            }
        }

        private func write(_ writer: Int, _ i: Int, _ stack: StackFixture) async {
            let trace = String(writer * 1_000_000 + i / 5, radix: 16)
            let hex = String(repeating: "0", count: 32 - trace.count) + trace
            let span = UInt64(writer) << 32 | UInt64(i + 1)
            var request = ProtobufWriter()
            request.message(1) { outer in
                outer.message(1) { $0.attribute(1, "service.name", "writer-\(i % 3)") }
                outer.message(2) { scope in
                    scope.message(2) { out in
                        out.bytes(1, decodeHexText(hex))
                        withUnsafeBytes(of: span.bigEndian) { out.bytes(2, $0) }
                        out.string(5, "step")
                        out.fixed64(7, UInt64(WallTime.now.milliseconds) * 1_000_000)
                        out.fixed64(8, UInt64(WallTime.now.milliseconds) * 1_000_000 + 1000)
                    }
                }
            }
            let answer = try? await stack.client.send(
                "POST", "/v1/traces", to: stack.gateway, headers: [("Content-Type", "application/x-protobuf")], body: request.bytes,
                timeout: .seconds(20))
            let text = withUnsafeBytes(of: span.bigEndian) { hexText($0) }
            if answer?.status == 200 {
                spans.withLock { _ = $0.insert(text) }
            } else {
                refused.withLock { $0[answer?.status ?? 0, default: 0] += 1 }
            }
            let status = await stack.post(trace: hex, id: "w\(writer)-\(i)")
            if status == 202 {
                logs.withLock { _ = $0.insert("w\(writer)-\(i)") }
            } else {
                refused.withLock { $0[status, default: 0] += 1 }
            }
        }
    }

    @Test func redisStoppedAndStartedUnderLoadLosesNothingAcknowledged() async throws {
        try await withStack { stack in
            let writers = Writers()
            async let writing: Void = writers.run(20, stack)
            for stop in 0..<3 {
                try await Task.sleep(for: .milliseconds(700))
                let isUp = try await eventually {
                    try await stack.rows().contains { $0.service == "state" && $0.state == "ready" && $0.restarts == stop }
                }
                #expect(isUp)
                kill(try required(try await stack.rows().first { $0.service == "state" }).pid, SIGTERM)
            }
            let healed = try await eventually(.seconds(20)) {
                let rows = try await stack.rows()
                return rows.allSatisfy { $0.state == "ready" } && rows.first { $0.service == "state" }?.restarts == 3
            }
            writers.isOver.withLock { $0 = true }
            await writing
            #expect(healed)
            let refused = writers.refused.withLock { $0 }
            // Degraded, not gone: whoever was refused was told so, and to come again.
            #expect(Set(refused.keys).isSubset(of: [503]))
            let acknowledged = writers.acknowledged.withLock { $0 }
            let stored = try await stack.storedIDs()
            #expect(acknowledged.count > 200)
            #expect(acknowledged.filter { stored[$0] != 1 }.isEmpty)
            #expect(try await stack.engines().allSatisfy { $0.restarts == 0 })
            print("acknowledged: \(acknowledged.count), refused: \(refused)")
        }
    }

    /// An open model: a request is due every 2 ms, whatever became of those before it.
    private final class OpenLoad: Sendable {
        let statuses = Mutex<[Int: Int]>([:])
        let isOver = Mutex(false)

        func run(_ stack: StackFixture) async {
            await withTaskGroup(of: Void.self) { group in
                let start = MonotonicTime.now
                var due = 0
                while !isOver.withLock({ $0 }) {
                    let elapsed = Int((MonotonicTime.now - start).nanoseconds / 2_000_000)
                    while due < elapsed {
                        let id = due
                        group.addTask(executorPreference: stack.loop) {
                            let status = await stack.post(trace: "roll-\(id % 50)", id: "r\(id)")
                            self.statuses.withLock { $0[status, default: 0] += 1 }
                        }
                        due += 1
                    }
                    try? await Task.sleep(for: .milliseconds(2))
                }
            }
        }
    }

    @Test func aRollUnderFiveHundredRequestsASecondFailsNone() async throws {
        try await withStack { stack in
            let before = Set(try await stack.engines().map(\.pid))
            let load = OpenLoad()
            async let loading: Void = load.run(stack)
            try await Task.sleep(for: .milliseconds(500))
            for _ in 0..<2 {
                let (status, output) = try await stack.muster("roll", "correlation-engine", stack.file)
                #expect(status == 0, "\(output)")
            }
            try await Task.sleep(for: .milliseconds(500))
            load.isOver.withLock { $0 = true }
            await loading
            let counts = load.statuses.withLock { $0 }
            #expect(Set(counts.keys) == [202], "\(counts)")
            #expect(Set(try await stack.engines().map(\.pid)).isDisjoint(with: before))
            print("roll: \(counts)")
        }
    }

    @Test func theDocumentsJourney() async throws {
        try await withStack { stack in
            #expect(await stack.post(trace: "abc123def456", id: "1") == 202)
            let redis = try await stack.redis()
            #expect(try await redis.send(RedisCommand("GET", "corr:t-abc123def456")).string?.contains("service.name") == true)
            #expect(try await redis.send(RedisCommand("ZCARD", "corr:time_index")).int == 1)
            #expect(try await redis.send(RedisCommand("CONFIG", "GET", "maxmemory-policy")).array?.last?.string == "noeviction")
            redis.close()
            for _ in 0..<100 { #expect(try await stack.client.send("GET", "/health", to: stack.gateway).status == 200) }
            for engine in try await stack.engines() {
                let log = Files.text("\(stack.folder)/.muster/demo/logs/correlation-engine-\(engine.replica).log") ?? ""
                let count = log.split(separator: "\n").filter { $0.contains("request_completed") && $0.contains("path=/health") }.count
                #expect((32...35).contains(count), "replica \(engine.replica) had \(count)")
                #expect(log.contains("redis_connected") && log.contains("url=redis://:***@") && log.contains("backend=redis"))
                let page = try await stack.client.send("GET", "/metrics", to: .address(.loopback(port: engine.port))).text
                for name in [
                    "redis_operations_total", "redis_operation_duration_seconds", "correlation_state_backend 1", "redis_errors_total",
                    "instance_correlations_total",
                    "correlation_queue_depth",
                ] {
                    #expect(page.contains(name), "\(name)")
                }
                let (status, output) = try await run(try systemProgram("promtool"), ["check", "metrics"], input: Array(page.utf8))
                #expect(status == 0, "\(output)")
                let ready = try await stack.client.send("GET", "/health/ready", to: .address(.loopback(port: engine.port))).text
                #expect(ready == "{\"status\":\"ready\",\"checks\":{\"redis\":\"connected\",\"exporters\":\"ready\"}}\n")
            }
            #expect(try await stack.client.send("GET", "/metrics", to: stack.gateway).status == 403)
            let admin = try await stack.client.send("GET", "/metrics", to: .address(.loopback(port: stack.admin))).text
            let (status, output) = try await run(try systemProgram("promtool"), ["check", "metrics"], input: Array(admin.utf8))
            #expect(status == 0, "\(output)")
            try await rollBack(stack)
        }
    }

    /// The one flag, while it runs.
    private func rollBack(_ stack: StackFixture) async throws {
        let (status, output) = try await stack.muster(
            "up", stack.file, "--replicas", "correlation-engine=1", environment: ["USE_REDIS_STATE": "false"])
        #expect(status == 0, "\(output)")
        let engine = try required(try await stack.engines().first)
        #expect(try await stack.engines().count == 1)
        #expect(
            try await stack.client.send("GET", "/metrics", to: .address(.loopback(port: engine.port))).text.contains(
                "correlation_state_backend 0"))
        #expect(await stack.post(trace: "t", id: "1") == 202)
        #expect(try await stack.client.send("GET", "/health", to: stack.gateway).text.contains("in-memory"))
        // And the way back: what the file says.
        #expect(try await stack.muster("up", stack.file).status == 0)
        // A new one serves, as degraded, a moment before its connection to Redis stands.
        let threeAreReady = try await eventually { try await stack.engines().filter { $0.state == "ready" }.count == 3 }
        #expect(threeAreReady)
        #expect(try await stack.client.send("GET", "/health", to: stack.gateway).text.contains("\"backend\":\"redis\""))
    }

    @Test func scaleRollWhyAndDown() async throws {
        try await withStack { stack in
            #expect(try await stack.muster("scale", "correlation-engine=5", stack.file).status == 0)
            #expect(try await stack.engines().count == 5)
            // A new one serves, as degraded, a moment before its connection to Redis stands.
            let fiveAreReady = try await eventually { try await stack.engines().filter { $0.state == "ready" }.count == 5 }
            #expect(fiveAreReady)
            #expect(try await stack.muster("scale", "correlation-engine=auto", stack.file).status == 0)
            #expect(try await stack.engines().count == 3)
            // Longer than any timer of a replica that has gone: none may fire into nothing.
            try await Task.sleep(for: .seconds(11))
            #expect(try await stack.engines().count == 3)
            try stack.write(command: "[sh, -c, \"exit 7\"]")
            let bad = try await stack.muster("up", stack.file)
            #expect(bad.status == 1 && bad.output.contains("did not become ready"))
            #expect(try await stack.client.send("GET", "/health", to: stack.gateway).status == 200)
            let why = try await stack.muster("why", "correlation-engine", "--json", "--stack", stack.file)
            try JSONDocument().parse(Array(why.output.utf8)) { root in
                let kinds = Set((root.array ?? []).compactMap { $0["kind"]?.string })
                #expect(kinds.isSuperset(of: ["scale", "roll", "restart"]))
                for entry in root.array ?? [] {
                    #expect(entry["sentence"]?.string?.isEmpty == false && entry["flip"]?.string?.isEmpty == false)
                }
            }
            try stack.write()
            #expect(try await stack.muster("why", "-n", "-5", "--stack", stack.file).status == 2)
            #expect(
                try await stack.muster("why", "correlaton-engine", "--stack", stack.file).output.contains(
                    "did you mean 'correlation-engine'"))
            #expect(why.output.contains("was given up"))
            let pids = try await stack.rows().map(\.pid)
            #expect(try await stack.muster("down", stack.file, "--purge").status == 0)
            for pid in pids { #expect(await eventually(.seconds(5)) { kill(pid, 0) != 0 }) }
            #expect(!Files.exists(stack.folder + "/.muster/demo"))
        }
    }

    @Test func aKilledSupervisorIsCleanedUpAfterAndDataStays() async throws {
        try await withStack { stack in
            #expect(await stack.post(trace: "kept", id: "1") == 202)
            let old = try await stack.rows()
            let stateFile = Files.text("\(stack.folder)/.muster/demo/processes") ?? ""
            #expect(stateFile.split(separator: "\n").count == 5, "the boot and four processes")
            // The supervisor is the parent of what it has started, and its parent would start it again.
            let parent = try parentProcess(old[0].pid)
            kill(try parentProcess(parent), SIGKILL)
            kill(parent, SIGKILL)
            #expect(await eventually { (try? await stack.client.send("GET", "/health", to: stack.gateway, timeout: .seconds(1))) == nil })
            let (status, output) = try await stack.muster("up", "-d", stack.file)
            #expect(status == 0 && output.contains("ended 4 processes"), "\(output)")
            for row in old { #expect(await eventually(.seconds(5)) { kill(row.pid, 0) != 0 }) }
            #expect(try await stack.storedIDs() == ["1": 1])
            #expect(try await stack.rows().first { $0.service == "state" }?.port == old.first { $0.service == "state" }?.port)
        }
    }

    @Test func whatCannotStartSaysWhyAndLeavesNothing() async throws {
        try await withStack(up: false) { stack in
            let taken = try RawListener(port: stack.port)
            let inUse = try await stack.muster("up", "-d", stack.file)
            #expect(inUse.status == 1 && inUse.output.contains("gateway.listen: port \(stack.port) is in use"), "\(inUse.output)")
            taken.close()
            try stack.write(command: "no-such-program")
            let missing = try await stack.muster("up", "-d", stack.file)
            #expect(missing.status == 1 && missing.output.contains("there is no program 'no-such-program'"), "\(missing.output)")
            try stack.write(command: "[sh, -c, \"echo broken; exit 3\"]")
            let broken = try await stack.muster("up", "-d", stack.file)
            #expect(broken.status == 1 && broken.output.contains("exit status 3") && broken.output.contains("| broken"), "\(broken.output)")
            try stack.write()
            let noRedis = try await stack.muster("up", "-d", stack.file, environment: ["PATH": "/bin-that-is-empty"])
            #expect(noRedis.status == 1 && noRedis.output.contains("apt-get install redis-server"), "\(noRedis.output)")
            try Files.replace("\(stack.folder)/.muster/demo/VERSION", with: Array("99\n".utf8))
            let version = try await stack.muster("up", "-d", stack.file)
            #expect(version.status == 1 && version.output.contains("another version of Muster"), "\(version.output)")
            #expect((Files.text("\(stack.folder)/.muster/demo/processes") ?? "").split(separator: "\n").count <= 1)
            try Files.replace(stack.file, with: Array("services: { a: { comand: x } }".utf8))
            let wrong = try await stack.muster("up", stack.file)
            #expect(wrong.status == 2 && wrong.output.contains("did you mean 'command'"), "\(wrong.output)")
            #expect(try await stack.muster("upp").status == 2)
            try stack.write()
            Files.remove("\(stack.folder)/.muster")
        }
    }

    /// Bad input through the whole way: each answer precise, and nobody else disturbed.
    @Test func badInputGetsItsAnswer() async throws {
        try await withStack(replicas: "1") { stack in
            func post(_ body: [UInt8]) async throws -> (Int, String) {
                let response = try await stack.client.send(
                    "POST", "/api/logs", to: stack.gateway, headers: [("Content-Type", "application/json")], body: body)
                return (response.status, response.text)
            }
            let bad: [([UInt8], Int, String)] = [
                (Array("{".utf8), 400, "invalid_json"), (Array("{\"resource\":5}".utf8), 400, "\"field\":\"resource\""),
                ([34, 0xFF, 34], 400, "invalid_json"),
                ([UInt8](repeating: 32, count: 11 << 20), 413, "body_too_large"),
            ]
            for (body, status, part) in bad {
                let (got, text) = try await post(body)
                #expect(got == status && text.contains(part), "\(got) \(text)")
            }
            #expect(try await stack.client.send("GET", "/api/correlations?limit=x", to: stack.gateway).status == 400)
            #expect(try await stack.client.send("GET", "/api/correlations/nothing", to: stack.gateway).status == 404)
            #expect(try await stack.client.send("GET", "/nothing", to: stack.gateway).status == 404)
            #expect(try await stack.client.send("DELETE", "/api/logs", to: stack.gateway).status == 405)
            #expect(await stack.post(trace: "fine", id: "1") == 202)
        }
    }

    /// The admin page in a real browser: the replicas are on it with state and reason, and a link finds a request, as `muster why` does.
    @Test func theAdminPageShowsTheReplicas() async throws {
        try await withStack { stack in
            for i in 0..<30 { _ = await stack.post(trace: "t\(i)", id: "1") }
            let answer = try await stack.client.send("GET", "/health", to: stack.gateway, headers: [("X-Request-Id", "where.did-it_go")])
            #expect(answer.status == 200)
            let (status, dom) = try await run(
                try systemProgram("chromium"),
                [
                    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                    "--user-data-dir=\(stack.folder)/chromium",
                    "--virtual-time-budget=4000", "--dump-dom",
                    "http://127.0.0.1:\(stack.admin)/#request=where.did-it_go",
                ])
            #expect(status == 0)
            for name in ["correlation-engine/1", "correlation-engine/3", "least-connections"] { #expect(dom.contains(name), "\(name)") }
            // The states of three replicas, each in words; the reason; the request's sentence and where it could have gone.
            let parts = dom.split(separator: "id=\"units\"", maxSplits: 1)
            #expect(parts.count == 2 && String(parts[0]).components(of: "<span>ready</span>") == 3)
            #expect(dom.contains("class=\"why\" title=\"") && dom.contains(" ago</span>"))
            #expect(dom.contains("Request where.did-it_go went to correlation-engine/") && dom.contains("✓ yes"))
            #expect(!dom.contains(">NaN") && !dom.contains(">undefined"))

            let told = try await stack.muster("why", "--request", "where.did-it_go", "--stack", stack.file)
            #expect(told.status == 0 && told.output.hasPrefix("Request where.did-it_go went to correlation-engine/"), "\(told.output)")
            let alone = try await stack.muster("why", "--request", "where.did-it_go", "--admin", "127.0.0.1:\(stack.admin)", "--json")
            try JSONDocument().parse(Array(alone.output.utf8)) { root in
                #expect(root.array?.count == 1 && root.array?.first?["kind"]?.string == "route")
            }
            let unknown = try await stack.muster("why", "--request", "no such/one", "--stack", stack.file)
            #expect(unknown.status == 1 && unknown.output.contains("'no such/one' is not among the latest"), "\(unknown.output)")
            let latest = try await stack.client.send("GET", "/api/why?last=1&without=route", to: .address(.loopback(port: stack.admin)))
            try JSONDocument().parse(latest.body) { root in
                #expect((root.array ?? []).allSatisfy { $0["kind"]?.string != "route" } && (root.array?.count ?? 9) <= 1)
            }
            #expect(try await stack.client.send("GET", "/api/why?last=-1", to: .address(.loopback(port: stack.admin))).status == 400)
        }
    }
}

extension String {
    fileprivate func components(of part: String) -> Int { ranges(of: part).count }
}

/// Holds a port.
private func decodeHexText(_ text: String) -> [UInt8] { Array(text.utf8).withUnsafeBytes { decodeHex($0) ?? [] } }
