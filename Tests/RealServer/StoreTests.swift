import Basics
import EventLoops
import JSONCoding
import Observability
import Redis
import SharedState
import Synchronization
import TestSupport
import Testing

@testable import CorrelationEngine

/// One suite for both forms of the store: what is promised of one is promised of the other.
@Suite struct StoreTests {
    enum Form: String, CaseIterable, Sendable { case memory, redis }

    private func withStore(
        _ form: Form, lifetime: Duration = .seconds(60), bounds: CorrelationBounds = CorrelationBounds(),
        _ body: @escaping @Sendable (any CorrelationStore) async throws -> Void
    ) async throws {
        guard form == .redis else { return try await body(MemoryCorrelationStore(lifetime: lifetime, bounds: bounds)) }
        try await withRedis { redis in
            try await withLoop { loop in
                try await redis.withClient(loop) { client in
                    let operations = RedisOperations(client: client, metrics: MetricsRegistry())
                    let store = try await loop.run { RedisCorrelationStore(redis: operations, prefix: "corr:", lifetime: lifetime, bounds: bounds) }
                    let failure = Mutex<(any Error)?>(nil)
                    // The store belongs to its loop, as in the engine.
                    await Task(executorPreference: loop) {
                        do { try await body(store) } catch { failure.withLock { $0 = error } }
                    }.value
                    if let error = failure.withLock({ $0 }) { throw error }
                }
            }
        }
    }

    private static func record(_ id: String, at time: Int64 = 1_795_231_800_000, _ severity: Severity = .info) -> LogRecord {
        LogRecord(fingerprint: digest(["id", id]), time: WallTime(milliseconds: time), severity: severity, json: Array("{\"id\":\"\(id)\"}".utf8))
    }

    private static func group(_ trace: String, _ records: [LogRecord], service: String = "s", host: String = "h") -> RecordGroup {
        RecordGroup(key: .trace(trace), service: service, host: host, records: records)
    }

    @Test(arguments: Form.allCases) func mergesAndCountsOnce(form: Form) async throws {
        try await withStore(form) { store in
            let first = try await store.ingest([Self.group("t", [Self.record("1"), Self.record("2", at: 1_795_231_790_000, .error)])])
            #expect(first == [IngestOutcome(added: 2, duplicates: 0, refused: 0, created: true)])
            let again = try await store.ingest([
                Self.group("t", [Self.record("2"), Self.record("3", at: 1_795_231_900_000), Self.record("3")], service: "a \"b\" ü", host: "h2")
            ])
            #expect(again == [IngestOutcome(added: 1, duplicates: 2, refused: 0, created: false)])
            let json = try #require(try await store.correlation(id: "t-t"))
            try JSONDocument().parse(json) { root in
                #expect(root["id"]?.string == "t-t" && root["trace_id"]?.string == "t")
                #expect(root["services"]?.array?.compactMap(\.string) == ["s", "a \"b\" ü"])
                #expect(root["hosts"]?.array?.compactMap(\.string) == ["h", "h2"])
                #expect(root["log_count"]?.int == 3 && root["logs_dropped"]?.int == 0 && root["span_count"]?.int == 0)
                #expect(root["severities"]?["INFO"]?.int == 2 && root["severities"]?["ERROR"]?.int == 1)
                #expect(root["status"]?.string == "error")
                #expect(root["first_seen"]?.string == "2026-11-21T03:29:50.000Z" && root["last_seen"]?.string == "2026-11-21T03:31:40.000Z")
                #expect(root["logs"]?.array?.compactMap { $0["id"]?.string } == ["1", "2", "3"])
            }
        }
    }

    @Test(arguments: Form.allCases) func boundsHold(form: Form) async throws {
        var bounds = CorrelationBounds()
        bounds.logs = 3
        bounds.records = 5
        bounds.names = 2
        bounds.bytes = 25
        try await withStore(form, bounds: bounds) { store in
            for i in 0..<4 { _ = try await store.ingest([Self.group("t", [Self.record("\(i)")], service: "s\(i)")]) }
            let last = try await store.ingest([Self.group("t", (4..<8).map { Self.record("\($0)") } + [Self.record("0")])])
            #expect(last == [IngestOutcome(added: 1, duplicates: 1, refused: 3, created: false)])
            let json = try #require(try await store.correlation(id: "t-t"))
            try JSONDocument().parse(json) { root in
                // `{"id":"0"}` and its comma are 11 bytes: two fit into 25.
                #expect(root["logs"]?.array?.count == 2 && root["log_count"]?.int == 5 && root["logs_dropped"]?.int == 3)
                #expect(root["services"]?.array?.count == 2)
            }
        }
    }

    @Test(arguments: Form.allCases) func valueAndIndexExpireTogether(form: Form) async throws {
        try await withStore(form, lifetime: .seconds(1)) { store in
            _ = try await store.ingest([Self.group("a", [Self.record("1")]), Self.group("b", [Self.record("1")])])
            #expect(try await store.count() == 2)
            let gone = try await eventually(.seconds(5)) {
                // Never one without the other.
                let count = try await store.count()
                let value = try await store.correlation(id: "t-a")
                return count == 0 && value == nil
            }
            #expect(gone)
            #expect(try await store.ingest([Self.group("a", [Self.record("1")])]).first?.created == true)
        }
    }

    @Test(arguments: Form.allCases) func listsInPagesWithoutGapsOrRepeats(form: Form) async throws {
        try await withStore(form) { store in
            for i in 0..<57 {
                _ = try await store.ingest([Self.group("trace-\(i)", [Self.record("1", i % 3 == 0 ? .error : .info)], service: i % 2 == 0 ? "even" : "odd")])
            }
            for (service, status, expected) in [(nil, nil, 57), ("even", nil, 29), ("odd", "error", 9), ("none", nil, 0)] as [(String?, String?, Int)] {
                var query = CorrelationQuery()
                query.limit = 7
                query.service = service
                query.status = status
                var ids: [String] = []
                repeat {
                    let page = try await store.list(query)
                    #expect(page.items.count <= 7)
                    for item in page.items { ids.append(try JSONDocument().parse(item) { $0["id"]!.string! }) }
                    query.cursor = page.next
                } while query.cursor != nil
                #expect(ids.count == expected && Set(ids).count == expected)
            }
        }
    }

    @Test(arguments: Form.allCases) func manyAtOnceLoseNothing(form: Form) async throws {
        try await withStore(form) { store in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for writer in 0..<20 {
                    group.addTask { for i in 0..<20 { _ = try await store.ingest([Self.group("shared", [Self.record("\(writer)-\(i)")])]) } }
                }
                try await group.waitForAll()
            }
            let json = try #require(try await store.correlation(id: "t-shared"))
            try JSONDocument().parse(json) { root in
                #expect(root["log_count"]?.int == 400)
                #expect(Set(root["logs"]?.array?.compactMap { $0["id"]?.string } ?? []).count == 400)
            }
        }
    }

    @Test(arguments: Form.allCases) func otherKeysAreNoCorrelations(form: Form) async throws {
        try await withStore(form) { store in
            _ = try await store.ingest([Self.group("time_index", [Self.record("1")])])
            #expect(try await store.correlation(id: "time_index") == nil)
            #expect(try await store.correlation(id: "trace:time_index") == nil)
            #expect(try await store.correlation(id: "t-time_index") != nil)
        }
    }
}

@Suite struct RedisClientTests {
    private func at<T>(_ loop: EventLoop, _ client: RedisClient, _ command: RedisCommand, _ read: (RESPValue) -> T) async throws -> T {
        read(try await client.send(command))
    }

    @Test func speaksRESP3AndPipelines() async throws {
        try await withRedis { redis in
            try await withLoop { loop in
                try await redis.withClient(loop) { client in
                    let results = await client.pipeline(
                        (0..<500).map { RedisCommand("SET", "k\($0)", "v\($0)") } + [RedisCommand("NO-SUCH"), RedisCommand("GET", "k499")])
                    #expect(results.count == 502)
                    #expect(try results[501].get().string == "v499")
                    if case .failure(let error) = results[500] { #expect(error.code == .server && error.execution == .answered) } else { Issue.record("no error") }
                    let protocolVersion = try await client.send(RedisCommand("CLIENT INFO")).string ?? ""
                    #expect(protocolVersion.contains("resp=3"))
                }
            }
        }
    }

    @Test func aScriptIsSentOnceItIsUnknown() async throws {
        try await withRedis { redis in
            try await withLoop { loop in
                try await redis.withClient(loop) { client in
                    let script = RedisScript("return tonumber(ARGV[1]) + 1")
                    let calls = (0..<5).map { i -> RedisCommand in
                        var call = script.call(keys: [])
                        call.add(i)
                        return call
                    }
                    #expect(try await client.run(script, calls).map { try $0.get().int } == [1, 2, 3, 4, 5])
                    _ = try await client.send(RedisCommand("SCRIPT FLUSH"))
                    #expect(try await client.run(script, calls).map { try $0.get().int } == [1, 2, 3, 4, 5])
                }
            }
        }
    }

    @Test func aWrongPasswordIsToldAndAnOutageIsSurvived() async throws {
        try await withFolder { folder in
            let redis = try await RedisFixture(folder: folder)
            try await withLoop { loop in
                let wrong = RedisClient(url: try RedisURL("redis://:wrong@127.0.0.1:\(redis.port)"), loop: loop)
                wrong.start()
                let refused = await #expect(throws: RedisError.self) { try await wrong.send(RedisCommand("PING")) }
                #expect(refused?.code == .authentication && refused?.message.contains("WRONGPASS") == true)
                wrong.close()
                try await redis.withClient(loop) { client in
                    _ = try await client.send(RedisCommand("SET", "k", "v"))
                    await redis.stop()
                    let away = await #expect(throws: RedisError.self) { try await client.send(RedisCommand("PING")) }
                    #expect(away?.code == .unavailable || away?.code == .lost)
                    let again = try await RedisFixture(folder: folder, port: redis.port)
                    let back = await eventually { (try? await client.send(RedisCommand("GET", "k")).string) == "v" }
                    #expect(back)
                    await again.destroy()
                }
            }
        }
    }

    @Test func aServerThatHangsIsTimedOutAndWhatWasSentMayHaveRun() async throws {
        try await withFolder { folder in
            let redis = try await RedisFixture(folder: folder)
            try await withLoop { loop in
                var options = RedisClient.Options()
                options.commandTime = .milliseconds(300)
                let client = RedisClient(url: try RedisURL(redis.url), loop: loop, options: options)
                client.start()
                _ = try await client.send(RedisCommand("PING"))
                // A script that runs for a second stands for a hang.
                let busy = await #expect(throws: RedisError.self) {
                    try await client.send(RedisCommand("EVAL", "local t = redis.call('TIME')[1] while redis.call('TIME')[1] - t < 2 do end return 1", "0"))
                }
                #expect(busy?.code == .timeout && busy?.execution == .maybeExecuted)
                client.close()
            }
            await redis.destroy()
        }
    }

    /// A store of state that is full refuses; nothing that it holds goes away.
    @Test func aFullStoreOfStateRefusesAndEvictsNothing() async throws {
        try await withRedis(extra: ["maxmemory 3mb", "maxmemory-policy noeviction"]) { redis in
            try await withLoop { loop in
                try await redis.withClient(loop) { client in
                    let value = String(repeating: "x", count: 10_000)
                    var stored = 0
                    var refusal: RedisError?
                    for i in 0..<1000 {
                        do throws(RedisError) { _ = try await client.send(RedisCommand("SET", "k\(i)", value)) } catch {
                            refusal = error
                            break
                        }
                        stored += 1
                    }
                    #expect(refusal?.serverCode == "OOM" && refusal?.execution == .notExecuted)
                    let size = try await client.send(RedisCommand("DBSIZE")).int
                    #expect(size == stored)
                }
            }
        }
    }
}
