import Basics
import EventLoops
import JSONCoding
import Observability
import OpenTelemetry
import ProtobufCoding
import Redis
import Sharding
import SharedState
import Synchronization
import TestSupport
import Testing

@testable import CorrelationEngine

/// One suite for all forms of the store: what is promised of one is promised of the others. `sharded` has the layout that a cluster needs.
@Suite struct StoreTests {
    enum Form: String, CaseIterable, Sendable { case memory, redis, sharded, cluster }

    struct Settings: Sendable {
        var lifetime = Duration.seconds(600)
        var bounds = CorrelationBounds()
        var rule = CompletionRule()
        var targets: [ExportTarget] = []
        var exports = ExportLimits()
        /// Lines of the Redis' configuration, and commands that it gets first.
        var configuration: [String] = []
        var commands: [RedisCommand] = []
    }

    /// `body` gets a way to make instances of one fleet; in memory there is only one.
    private func withStore(
        _ form: Form, _ settings: Settings = Settings(), _ body: @escaping @Sendable (any CorrelationStore) async throws -> Void
    ) async throws {
        try await withStores(form, settings) { make in try await body(try await make("1")) }
    }

    private func withStores(
        _ form: Form, _ settings: Settings,
        _ body: @escaping @Sendable (@Sendable (String) async throws -> any CorrelationStore) async throws -> Void
    ) async throws {
        guard form != .memory else {
            let store = MemoryCorrelationStore(
                lifetime: settings.lifetime, rule: settings.rule, bounds: settings.bounds, targets: settings.targets,
                exports: settings.exports)
            return try await body { _ in store }
        }
        if form == .cluster {
            return try await withRedisCluster(extra: settings.configuration) { cluster, loop in
                let client = RedisClient(url: try RedisURL(cluster.url), loop: loop)
                client.start()
                defer { client.close() }
                try await onLoop(form, settings, loop, client, body)
            }
        }
        try await withRedis(extra: settings.configuration) { redis in
            try await withLoop { loop in
                try await redis.withClient(loop) { client in
                    for command in settings.commands { _ = try await client.send(command) }
                    try await onLoop(form, settings, loop, client, body)
                }
            }
        }
    }

    /// The store belongs to its loop, as in the engine.
    func onLoop(
        _ form: Form, _ settings: Settings, _ loop: EventLoop, _ client: RedisClient,
        _ body: @escaping @Sendable (@Sendable (String) async throws -> any CorrelationStore) async throws -> Void
    ) async throws {
        let operations = RedisOperations(client: client, metrics: MetricsRegistry())
        let shards = [Form.sharded: 4, .cluster: CorrelationKeys.clusterShards][form] ?? 1
        let failure = Mutex<(any Error)?>(nil)
        await Task(executorPreference: loop) {
            do {
                try await body { instance in
                    try await loop.run {
                        RedisCorrelationStore(
                            redis: operations, prefix: "corr:", shards: shards, confirmedBy: form == .cluster ? 1 : 0,
                            lifetime: settings.lifetime, instance: instance,
                            rule: settings.rule, bounds: settings.bounds, targets: settings.targets, exports: settings.exports)
                    }
                }
            } catch { failure.withLock { $0 = error } }
        }.value
        if let error = failure.withLock({ $0 }) { throw error }
    }

    static func logs(
        _ trace: String, _ ids: [String], at time: Int64 = 1_795_231_800_000, _ severity: Severity = .info, service: String = "s",
        host: String = "h"
    ) -> Delivery {
        var builder = DeliveryBuilder()
        var resource = ProtobufWriter()
        resource.attribute(1, "service.name", service)
        resource.attribute(1, "host.name", host)
        for id in ids {
            var log = ProtobufWriter()
            log.fixed64(OTLP.Field.logTime, UInt64(time) * 1_000_000)
            log.varint(OTLP.Field.logSeverity, UInt64(severity.number))
            log.attribute(OTLP.Field.logAttributes, "log.record.uid", id)
            add(log.bytes, resource.bytes, .trace(trace), Marks.kind(log: severity), id, isSpan: false, isRoot: false, to: &builder)
        }
        return builder.delivery
    }

    private static func spans(_ trace: String, _ ids: [UInt64], rootFirst: Bool = true, service: String = "s") -> Delivery {
        var builder = DeliveryBuilder()
        var resource = ProtobufWriter()
        resource.attribute(1, "service.name", service)
        for (i, id) in ids.enumerated() {
            var span = ProtobufWriter()
            span.bytes(OTLP.Field.spanTraceID, Array(repeating: 7, count: 16))
            withUnsafeBytes(of: id.bigEndian) { span.bytes(OTLP.Field.spanID, $0) }
            if i > 0 || !rootFirst { withUnsafeBytes(of: ids[0].bigEndian) { span.bytes(OTLP.Field.parentSpanID, $0) } }
            span.fixed64(OTLP.Field.spanStart, 1_795_231_800_000_000_000)
            span.fixed64(OTLP.Field.spanEnd, 1_795_231_800_001_000_000)
            add(
                span.bytes, resource.bytes, .trace(trace), Marks.kind(spanWithError: false), "span-\(id)", isSpan: true,
                isRoot: i == 0 && rootFirst, to: &builder)
        }
        return builder.delivery
    }

    private static func add(
        _ record: [UInt8], _ resource: [UInt8], _ key: CorrelationKey, _ kind: UInt8, _ id: String, isSpan: Bool, isRoot: Bool,
        to builder: inout DeliveryBuilder
    ) {
        record.withUnsafeBytes { record in
            resource.withUnsafeBytes { resource in
                builder.add(
                    key, kind, hash: hash64(id), record: record, isSpan: isSpan, isRoot: isRoot,
                    around: OTLP.Surroundings(resource: resource, scope: .init(start: nil, count: 0), resourceNumber: 0, scopeNumber: 0))
            }
        }
    }

    static func sum(_ store: any CorrelationStore) async throws -> Ledger { try await store.ledger().values.reduce(Ledger(), +) }

    @Test(arguments: Form.allCases) func mergesAndCountsOnce(form: Form) async throws {
        try await withStore(form) { store in
            let first = try await store.ingest(Self.logs("t", ["1", "2"], at: 1_795_231_790_000, .error))
            #expect(first == [IngestOutcome(added: 2, created: true)])
            let more = Self.logs("t", ["2", "3", "3", "4"], at: 1_795_231_790_000, .error, service: "a \"b\" ü", host: "h2")
            #expect(more.duplicates == 1)
            let again = try await store.ingest(more)
            #expect(again == [IngestOutcome(added: 2, duplicates: 1)])
            let stored = try #require(try await store.correlation(.trace("t")))
            let json = try #require(stored.read { $0.json() })
            try JSONDocument().parse(json) { root in
                #expect(root["id"]?.string == "t-t" && root["trace_id"]?.string == "t")
                #expect(root["services"]?.array?.compactMap(\.string) == ["s", "a \"b\" ü"])
                #expect(root["hosts"]?.array?.compactMap(\.string) == ["h", "h2"])
                #expect(root["log_count"]?.int == 4 && root["logs_dropped"]?.int == 0 && root["span_count"]?.int == 0)
                #expect(root["severities"]?["ERROR"]?.int == 4 && root["status"]?.string == "error")
                #expect(root["first_seen"]?.string == "2026-11-21T03:29:50.000Z" && root["last_seen"]?.string == "2026-11-21T03:29:50.000Z")
                #expect(root["logs"]?.array?.compactMap { $0["id"]?.string } == ["1", "2", "3", "4"])
            }
            let ledger = try await Self.sum(store)
            #expect(ledger.received == 6 && ledger.pending == 4 && ledger.duplicate == 2 && ledger.imbalance == 0)
        }
    }

    @Test(arguments: Form.allCases) func boundsHold(form: Form) async throws {
        var settings = Settings()
        settings.bounds.records = 1000
        settings.bounds.bytes = 20_000
        try await withStore(form, settings) { store in
            var refused = 0
            for batch in 0..<12 {
                let outcomes = try await store.ingest(Self.logs("t", (0..<100).map { "\(batch)-\($0)" }))
                refused += outcomes.reduce(0) { $0 + $1.refused }
            }
            #expect(refused == 200)
            let stored = try #require(try await store.correlation(.trace("t")))
            #expect(stored.text.count <= 20_000 && stored.marks.count == 1000)
            let counts = stored.read { ($0.counts.logs[.info], $0.logs.count) }
            #expect(counts?.0 == 1000 && (counts?.1 ?? 0) < 1000)
            // The others are unharmed.
            #expect(try await store.ingest(Self.logs("u", ["1"])) == [IngestOutcome(added: 1, created: true)])
            let ledger = try await Self.sum(store)
            #expect(ledger.received == 1201 && ledger.pending == 1001 && ledger.rejected == 200 && ledger.imbalance == 0)
        }
    }

    @Test(arguments: Form.allCases) func emittedOnceAndAgainWhenMoreComes(form: Form) async throws {
        var settings = Settings()
        settings.rule.quiet = .milliseconds(50)
        try await withStores(form, settings) { make in
            let stores = [try await make("1"), try await make("2")]
            let begin = try await stores[0].emissions(after: .now, limit: 1).next
            for i in 0..<300 { _ = try await stores[i % 2].ingest(Self.logs("trace-\(i)", ["1", "2"])) }
            var settled = 0
            let done = try await eventually {
                for store in stores { settled += try await store.settle().byQuiet }
                return settled == 300
            }
            #expect(done, "\(settled)")
            for store in stores { #expect(try await store.settle().byQuiet == 0) }
            let first = try await stores[0].emissions(after: begin, limit: 10_000)
            #expect(
                Set(first.emissions.map(\.key)).count == 300 && first.emissions.count == 300
                    && first.emissions.allSatisfy { $0.revision == 1 && $0.from == 0 })
            var ledger = try await Self.sum(stores[1])
            #expect(ledger.correlated == 600 && ledger.pending == 0 && ledger.imbalance == 0)

            // One late record, and one that was known: the first makes an update, the second nothing.
            _ = try await stores[1].ingest(Self.logs("trace-7", ["3"]))
            _ = try await stores[1].ingest(Self.logs("trace-8", ["2"]))
            var updated = 0
            let again = try await eventually {
                for store in stores { updated += try await store.settle().updated }
                return updated == 1
            }
            #expect(again)
            let second = try await stores[0].emissions(after: first.next, limit: 10)
            #expect(
                second.emissions.map(\.key) == [.trace("trace-7")] && second.emissions.first?.revision == 2
                    && second.emissions.first?.from ?? 0 > 0)
            ledger = try await Self.sum(stores[0])
            #expect(ledger.received == 602 && ledger.correlated == 601 && ledger.duplicate == 1 && ledger.imbalance == 0)
            #expect(try await stores[0].correlation(.trace("trace-7"))?.pending == 0)
        }
    }

    @Test(arguments: Form.allCases) func aRootCompletesEarly(form: Form) async throws {
        var settings = Settings()
        settings.rule.quiet = .seconds(600)
        settings.rule.afterRoot = .milliseconds(20)
        try await withStore(form, settings) { store in
            _ = try await store.ingest(Self.spans("with", [1, 2, 3]))
            _ = try await store.ingest(Self.spans("without", [4, 5], rootFirst: false))
            var settled = Settled()
            let done = try await eventually {
                let round = try await store.settle()
                settled.byRoot += round.byRoot
                settled.byQuiet += round.byQuiet
                return settled.byRoot == 1
            }
            #expect(done && settled.byQuiet == 0)
            #expect(try await store.correlation(.trace("with"))?.pending == 0)
            #expect(try await store.correlation(.trace("without"))?.pending == 2)
        }
    }

    @Test(arguments: Form.allCases) func valueAndIndexExpireTogether(form: Form) async throws {
        var settings = Settings()
        settings.lifetime = .milliseconds(300)
        settings.rule.quiet = .milliseconds(50)
        try await withStore(form, settings) { store in
            _ = try await store.ingest(Self.logs("a", ["1"]))
            _ = try await store.ingest(Self.logs("b", ["1"]))
            #expect(try await store.count() == 2)
            let gone = try await eventually(.seconds(5)) {
                _ = try await store.settle()
                return try await store.count() == 0
            }
            #expect(gone)
            #expect(try await store.correlation(.trace("a")) == nil)
            #expect(try await store.ingest(Self.logs("a", ["1"])).first?.created == true)
            let ledger = try await Self.sum(store)
            #expect(ledger.correlated == 2 && ledger.pending == 1 && ledger.expired == 0 && ledger.imbalance == 0)
        }
    }

    @Test(arguments: Form.allCases) func whatWasNeverCompleteIsCountedAsExpired(form: Form) async throws {
        var settings = Settings()
        settings.lifetime = .milliseconds(100)
        settings.rule.quiet = .seconds(600)
        try await withStore(form, settings) { store in
            _ = try await store.ingest(Self.logs("a", ["1", "2"]))
            let gone = try await eventually(.seconds(5)) { try await store.settle().expired == 1 }
            #expect(gone)
            let ledger = try await Self.sum(store)
            #expect(ledger.expired == 2 && ledger.pending == 0 && ledger.imbalance == 0)
        }
    }

    @Test(arguments: Form.allCases) func exportsAreKeptUntilTheyAreThrough(form: Form) async throws {
        var settings = Settings()
        settings.lifetime = .milliseconds(100)
        settings.rule.quiet = .milliseconds(20)
        settings.targets = [.loki, .tempo]
        settings.exports.correlations = 10
        settings.exports.lease = .milliseconds(300)
        try await withStore(form, settings) { store in
            for i in 0..<35 { _ = try await store.ingest(Self.logs("trace-\(i)", ["1"])) }
            var settled = 0
            #expect(
                try await eventually {
                    settled += try await store.settle().byQuiet
                    return settled == 35
                })
            let loki = store.exports(.loki), tempo = store.exports(.tempo)
            #expect(try await loki.depth() >= 4)
            // Their lifetime is over, and still they are all here.
            try await Task.sleep(for: .milliseconds(200))
            _ = try await store.settle()
            #expect(try await store.count() == 35)
            var sent: Set<CorrelationKey> = []
            for (queue, target) in [(loki, "loki"), (tempo, "tempo")] {
                var seen: Set<CorrelationKey> = []
                while true {
                    let batches = try await queue.take(2)
                    if batches.isEmpty { break }
                    for batch in batches {
                        let loaded = try await queue.load(batch)
                        #expect(loaded.count == batch.emissions.count && loaded.allSatisfy { $0.read { $0.logs.count } == 1 })
                        #expect(!batch.redelivered)
                        seen.formUnion(batch.emissions.map(\.key))
                        try await queue.finish(batch)
                    }
                }
                #expect(seen.count == 35, "\(target)")
                sent = seen
            }
            #expect(sent.count == 35)
            #expect(try await loki.depth() == 0)
            #expect(
                try await eventually(.seconds(10)) {
                    _ = try await store.settle()
                    return try await store.count() == 0
                })
        }
    }

    /// One shard's queue is of another type. The failure is told with what the other shards did, and their exports go on.
    @Test func aShardThatFailsIsToldAndHoldsUpNoOther() async throws {
        var settings = Settings()
        settings.rule.quiet = .milliseconds(20)
        settings.targets = [.loki]
        let broken = CorrelationKeys(prefix: "corr:", shards: 4).queue(.loki, 0)
        settings.commands = [RedisCommand("SET", broken, "x")]
        try await withStore(.sharded, settings) { store in
            for i in 0..<40 { _ = try await store.ingest(Self.logs("trace-\(i)", ["\(i)"])) }
            var completed = 0, told: String?
            let isDone = try await eventually {
                let settled = try await store.settle()
                completed += settled.byQuiet
                told = settled.failure?.reason ?? told
                return completed >= 20 && told != nil
            }
            #expect(isDone && completed < 40, "\(completed)")
            #expect(told?.contains(broken) == true, "\(told ?? "")")
            // It begins at another shard each time, so it meets the broken one and the others.
            var seen: Set<CorrelationKey> = []
            for _ in 0..<20 {
                guard let batches = try? await store.exports(.loki).take(4) else { continue }
                for batch in batches {
                    seen.formUnion(batch.emissions.map(\.key))
                    try await store.exports(.loki).finish(batch)
                }
            }
            #expect(seen.count == completed)
        }
    }

    @Test(arguments: [Form.redis, .sharded]) func aBatchOfADeadInstanceIsTakenByAnother(form: Form) async throws {
        var settings = Settings()
        settings.rule.quiet = .milliseconds(20)
        settings.targets = [.loki]
        settings.exports.lease = .milliseconds(300)
        settings.exports.batches = 2
        settings.exports.correlations = 1
        try await withStores(form, settings) { make in
            let dead = try await make("1"), other = try await make("2")
            _ = try await dead.ingest(Self.logs("a", ["1"]))
            #expect(try await eventually { try await dead.settle().byQuiet == 1 })
            let taken = try await dead.exports(.loki).take(1)
            #expect(taken.count == 1)
            #expect(try await other.exports(.loki).take(1).isEmpty)
            var again: [ExportBatch] = []
            #expect(
                try await eventually {
                    again = try await other.exports(.loki).take(1)
                    return !again.isEmpty
                })
            #expect(again.first?.redelivered == true && again.first?.emissions == taken.first?.emissions)
            // Given back, it is no second delivery.
            try await other.exports(.loki).giveBack(again[0], left: again[0])
            #expect(try await other.exports(.loki).take(1).first?.redelivered == false)
        }
    }

    @Test(arguments: [Form.memory, .redis]) func aFullExportQueueDropsTheOldestAndCountsIt(form: Form) async throws {
        var settings = Settings()
        settings.rule.quiet = .milliseconds(20)
        settings.targets = [.loki]
        settings.exports.batches = 3
        settings.exports.correlations = 2
        try await withStore(form, settings) { store in
            for i in 0..<20 { _ = try await store.ingest(Self.logs("trace-\(i)", ["1"])) }
            var settled = 0
            #expect(
                try await eventually {
                    settled += try await store.settle().byQuiet
                    return settled == 20
                })
            let queue = store.exports(.loki)
            #expect(try await queue.depth() == 3)
            let kept = try await queue.take(10).reduce(0) { $0 + $1.emissions.count }
            #expect(try await queue.dropped() == 20 - kept)
        }
    }

    @Test(arguments: Form.allCases) func listsInPagesWithoutGapsOrRepeats(form: Form) async throws {
        try await withStore(form) { store in
            for i in 0..<57 {
                _ = try await store.ingest(
                    Self.logs("trace-\(i)", ["1"], i % 3 == 0 ? .error : .info, service: i % 2 == 0 ? "even" : "odd"))
            }
            for (service, status, expected) in [(nil, nil, 57), ("even", nil, 29), ("odd", "error", 9), ("none", nil, 0)]
                as [(String?, String?, Int)]
            {
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
                    group.addTask { for i in 0..<20 { _ = try await store.ingest(Self.logs("shared", ["\(writer)-\(i)"])) } }
                }
                try await group.waitForAll()
            }
            let stored = try #require(try await store.correlation(.trace("shared")))
            #expect(stored.marks.count == 400 && stored.read { $0.logs.count } == 400)
        }
    }

    /// Garbage under our names harms nobody but itself.
    @Test func garbageInRedisStopsNothing() async throws {
        var settings = Settings()
        settings.rule.quiet = .milliseconds(20)
        settings.rule.afterRoot = .milliseconds(10)
        settings.lifetime = .milliseconds(500)
        settings.targets = [.loki]
        settings.commands = [
            RedisCommand("SET", "corr:trace:bad", "garbage"), RedisCommand("ZADD", "corr:time_index", "1", "t-bad", "2", "nothing of ours"),
            RedisCommand("ZADD", "corr:rooted", "1", "nothing of ours", "2", "t-gone"),
        ]
        try await withStore(.redis, settings) { store in
            #expect(try await store.ingest(Self.logs("good", ["1"])).first?.added == 1)
            #expect(try await store.ingest(Self.logs("bad", ["1"])).first?.created == true)
            var settled = 0
            let done = try await eventually {
                settled += try await store.settle().byQuiet
                return settled == 2
            }
            #expect(done)
            #expect(try await store.ledger().values.reduce(Ledger(), +).imbalance == 0)
            let batches = try await store.exports(.loki).take(10)
            for batch in batches { try await store.exports(.loki).finish(batch) }
            let gone = try await eventually {
                _ = try await store.settle()
                return try await store.count() == 0
            }
            #expect(gone)
        }
    }

    /// A Redis that is nearly full makes room by what is complete, and refuses nothing.
    @Test func aNearlyFullRedisForgetsWhatIsCompleteAndGoesOn() async throws {
        var settings = Settings()
        settings.rule.quiet = .milliseconds(5)
        settings.lifetime = .seconds(3600)
        settings.configuration = ["maxmemory 8mb", "maxmemory-policy noeviction"]
        try await withStore(.redis, settings) { store in
            var forgotten = 0, ingested = 0
            let enough = try await eventually(.seconds(30)) {
                for _ in 0..<5 {
                    _ = try await store.ingest(Self.logs("trace-\(ingested)", (0..<100).map { "a rather long name of a record \($0)" }))
                    ingested += 1
                }
                while true {
                    let settled = try await store.settle()
                    forgotten += settled.forgotten
                    if !settled.more { break }
                }
                return forgotten > 300
            }
            #expect(enough, "\(forgotten) of \(ingested)")
            // The newest are there, and the ledger knows of all.
            #expect(try await store.correlation(.trace("trace-\(ingested - 1)")) != nil)
            let ledger = try await store.ledger().values.reduce(Ledger(), +)
            #expect(ledger.received == ingested * 100 && ledger.imbalance == 0 && ledger.expired == 0)
        }
    }

    /// A hundred groups for correlations that are full: seconds of Lua once, milliseconds now.
    @Test func fullCorrelationsDoNotBlockRedis() async throws {
        try await withStore(.redis) { store in
            for trace in 0..<8 {
                for batch in 0..<20 { _ = try await store.ingest(Self.logs("t\(trace)", (0..<500).map { "\(batch)-\($0)" })) }
            }
            let outcomes = try await store.ingest(Self.logs("t0", (0..<500).map { "more-\($0)" }))
            #expect(outcomes.reduce(0) { $0 + $1.refused } == 500)
            let again = try await store.ingest(Self.logs("t1", (0..<500).map { "3-\($0)" }))
            #expect(again.reduce(0) { $0 + $1.duplicates } == 500)
        }
    }

    @Test func oneShardsKeysShareASlotAndShardsLieEvenly() {
        let keys = CorrelationKeys(prefix: "corr:", shards: 24)
        for i in 0..<100 {
            let key = CorrelationKey.trace("trace-\(i)")
            let slot = HashSlot.of(keys.index(keys.shard(of: key)))
            #expect([keys.state(key), keys.text(key), keys.queue(.loki, keys.shard(of: key))].allSatisfy { HashSlot.of($0) == slot })
        }
        for shard in 0..<24 { #expect(HashSlot.of(keys.index(shard)) * 24 / 16384 == shard) }
        let single = CorrelationKeys(prefix: "corr:")
        #expect(
            single.text(.trace("abc123def456")) == "corr:t-abc123def456"
                && single.state(.trace("abc123def456")) == "corr:trace:abc123def456")
        #expect(single.index(0) == "corr:time_index")
    }
}
