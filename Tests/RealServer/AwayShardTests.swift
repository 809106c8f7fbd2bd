import Basics
import EventLoops
import Observability
import Redis
import SharedState
import Synchronization
import TestSupport
import Testing

@testable import CorrelationEngine

/// A cluster one of whose masters is away for good, with nobody to take over: its shards wait, and the others go on.
@Suite struct AwayShardTests {
    @Test func shardsThatAreAwayHoldNoOthersUp() async throws {
        try await withRedisCluster(replicas: 0, extra: ["cluster-require-full-coverage no"]) { cluster, loop in
            var options = RedisClient.Options()
            options.patience = .seconds(2)
            let client = RedisClient(url: try RedisURL(cluster.url), loop: loop, options: options)
            client.start()
            defer { client.close() }
            let failure = Mutex<(any Error)?>(nil)
            await Task(executorPreference: loop) {
                do { try await Self.lose(cluster, loop, client) } catch { failure.withLock { $0 = error } }
            }.value
            if let error = failure.withLock({ $0 }) { throw error }
        }
    }

    private static func lose(_ cluster: RedisClusterFixture, _ loop: EventLoop, _ client: RedisClient) async throws {
        var rule = CompletionRule()
        rule.quiet = .milliseconds(5)
        let completes = rule
        let operations = RedisOperations(client: client, metrics: MetricsRegistry())
        let store = try await loop.run {
            RedisCorrelationStore(
                redis: operations, prefix: "corr:", shards: CorrelationKeys.clusterShards, lifetime: .seconds(600), rule: completes,
                targets: [.loki])
        }
        for i in 0..<64 { _ = try await store.ingest(StoreTests.logs("trace-\(i)", ["1"])) }
        await cluster.kill(0)
        // Those whose shards live are completed, however many of the others are away.
        var completed = 0
        let first = try await eventually(.seconds(30)) {
            let settled = try await store.settle()
            completed += settled.byQuiet
            return settled.failure != nil
        }
        #expect(first)
        let others = try await eventually(.seconds(30)) {
            completed += try await store.settle().byQuiet
            return completed >= 32
        }
        #expect(others, "\(completed) of 64")
        // Nobody is waited for any more, round after round: a third of all shards would each take the client's patience.
        let waited = client.statistics.parked, queue = store.exports(.loki)
        for _ in 0..<10 {
            let settled = try await store.settle()
            completed += settled.byQuiet
            #expect(settled.failure != nil)
            await #expect(throws: StoreFailure.self) { _ = try await queue.depth() }
        }
        let batches = try await queue.take(64)
        #expect(!batches.isEmpty && client.statistics.parked == waited, "\(client.statistics.parked - waited) commands waited")
        // It comes back while nobody waits for it, and is seen all the same.
        try cluster.start(0)
        let isBack = try await eventually(.seconds(30)) {
            let settled = try await store.settle()
            completed += settled.byQuiet
            return settled.failure == nil
        }
        #expect(isBack)
        let all = try await eventually(.seconds(30)) {
            completed += try await store.settle().byQuiet
            return completed == 64
        }
        #expect(all, "\(completed) of 64")
    }
}
