import Basics
import EventLoops
import Redis
import SharedState
import TestSupport
import Testing

@testable import CorrelationEngine

/// Redis' clock is not ours: it may be set back.
extension StoreTests {
    /// Redis' clock was set back by an hour, which is to say that completion has come an hour further: it goes on all the same, and the turn
    /// of an instance that died before is not waited for. All that comes meanwhile has one time, so that many stand at it: they are gone
    /// through in steps of a bounded size, each once.
    @Test(arguments: [Form.redis, .sharded]) func aClockThatWasSetBackHoldsNothingUp(form: Form) async throws {
        let keys = CorrelationKeys(prefix: "corr:", shards: form == .redis ? 1 : 4)
        let ahead = String(WallTime.now.milliseconds + 3_600_000)
        var settings = Settings()
        settings.rule.quiet = .milliseconds(50)
        for shard in 0..<keys.shards {
            settings.commands += [
                RedisCommand("SET", keys.cursor(shard), ahead), RedisCommand("SET", keys.turn(shard), "dead-1", "PX", "3600000"),
            ]
        }
        settings.commands += [
            RedisCommand("CONFIG SET", "slowlog-log-slower-than", "0"), RedisCommand("CONFIG SET", "slowlog-max-len", "100000"),
        ]
        let count = RedisCorrelationStore.settleLimit * 6 + 7
        try await withRedis { redis in
            try await withLoop { loop in
                try await redis.withClient(loop) { client in
                    for command in settings.commands { _ = try await client.send(command) }
                    try await onLoop(form, settings, loop, client) { make in
                        try await Self.completeAll(count, try await make("1"))
                    }
                    let slow = try await client.send(RedisCommand("SLOWLOG", "GET", "-1")).array ?? []
                    let ranges = slow.compactMap { $0.array?[3].array?.compactMap(\.string) }.filter { $0.first == "ZRANGEBYSCORE" }
                    #expect(ranges.count > 6)
                    for words in ranges { #expect(Int(words.last ?? "") ?? .max <= RedisCorrelationStore.settleLimit, "\(words)") }
                }
            }
        }
    }

    /// A lease of a dead instance that ends long after any that is given now was given before Redis' clock was set back.
    @Test func aLeaseFromBeforeTheClockWasSetBackIsNotWaitedFor() async throws {
        var settings = Settings()
        settings.rule.quiet = .milliseconds(20)
        settings.targets = [.loki]
        settings.exports.lease = .seconds(30)
        try await withRedis { redis in
            try await withLoop { loop in
                try await redis.withClient(loop) { client in
                    try await onLoop(.redis, settings, loop, client) { make in
                        let dead = try await make("1"), other = try await make("2")
                        _ = try await dead.ingest(Self.logs("a", ["1"]))
                        #expect(try await eventually { try await dead.settle().byQuiet == 1 })
                        let taken = try await dead.exports(.loki).take(1)
                        #expect(taken.count == 1)
                        #expect(try await other.exports(.loki).take(1).isEmpty)
                        let key = CorrelationKeys(prefix: "corr:").taken(.loki, 0)
                        _ = try await client.send(
                            RedisCommand("ZADD", key, "XX", String(WallTime.now.milliseconds + 7_200_000), taken[0].text))
                        let again = try await other.exports(.loki).take(1)
                        #expect(again.first?.redelivered == true && again.first?.emissions == taken.first?.emissions)
                    }
                }
            }
        }
    }

    private static func completeAll(_ count: Int, _ store: any CorrelationStore) async throws {
        for i in 0..<count { _ = try await store.ingest(logs("trace-\(i)", ["1"])) }
        var completed = 0
        let isDone = try await eventually(.seconds(30)) {
            completed += try await store.settle().byQuiet
            return completed == count
        }
        #expect(isDone && completed == count, "\(completed) of \(count)")
        // What comes later comes behind.
        _ = try await store.ingest(logs("trace-0", ["2"]))
        var updated = 0
        let isUpdated = try await eventually(.seconds(30)) {
            updated += try await store.settle().updated
            return updated == 1
        }
        #expect(isUpdated)
        let ledger = try await sum(store)
        #expect(ledger.correlated == count + 1 && ledger.pending == 0 && ledger.imbalance == 0)
    }
}
