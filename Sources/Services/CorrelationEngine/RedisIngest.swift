import Basics
import EventLoops
import Redis
import SharedState

/// Gathers groups of all requests that are under way into few calls: while calls are out, what comes waits and goes together. Under load a
/// call carries hundreds of groups, and Redis pays for the call once.
///
/// It lives on its loop.
final class RedisIngest {
    /// Calls out at a time: one in Redis, one on its way.
    private static let calls = 2
    /// Groups and bytes of one call; a call of this size keeps Redis for about two milliseconds.
    static let callGroups = 256
    static let callBytes = 1 << 20
    /// Records of one call. Each is searched for among the marks of its correlation, which costs ten microseconds where there are ten
    /// thousand.
    static let callRecords = 4096

    private let redis: RedisOperations
    private let keys: CorrelationKeys
    private let instance: String
    private let bounds: CorrelationBounds
    private let notesRoots: Bool
    /// Milliseconds after its last change for which a correlation is not complete.
    private let quiet: Int
    private let confirmedBy: Int
    private var shards: [Shard]

    private struct Shard {
        /// Bounded by the engine's own queue of records.
        var waiting: [Item] = []
        /// Where `waiting` begins; before it stands what was taken.
        var begin = 0
        var out = 0
        var isScheduled = false
    }

    /// A group of a delivery, or (without one) the counts of a delivery that are its alone.
    private struct Item {
        let group: RecordGroup?
        let rejected: Int
        let duplicates: Int
        let place: Int
        let waiter: Waiter
    }

    private final class Waiter {
        var outcomes: [IngestOutcome]
        var missing: Int
        var failure: StoreFailure?
        let done: (Result<[IngestOutcome], StoreFailure>) -> Void

        init(groups: Int, items: Int, _ done: @escaping (Result<[IngestOutcome], StoreFailure>) -> Void) {
            outcomes = Array(repeating: IngestOutcome(), count: groups)
            missing = items
            self.done = done
        }

        func finished() {
            missing -= 1
            if missing == 0 { done(failure.map { .failure($0) } ?? .success(outcomes)) }
        }
    }

    init(
        redis: RedisOperations, keys: CorrelationKeys, instance: String, bounds: CorrelationBounds, notesRoots: Bool, quiet: Int,
        confirmedBy: Int
    ) {
        self.redis = redis
        self.keys = keys
        self.instance = instance
        self.bounds = bounds
        self.notesRoots = notesRoots
        self.quiet = quiet
        self.confirmedBy = confirmedBy
        shards = Array(repeating: Shard(), count: keys.shards)
    }

    func submit(_ delivery: Delivery, _ done: @escaping (Result<[IngestOutcome], StoreFailure>) -> Void) {
        let counts = delivery.rejected + delivery.duplicates > 0
        let waiter = Waiter(groups: delivery.groups.count, items: delivery.groups.count + (counts ? 1 : 0), done)
        if waiter.missing == 0 { return done(.success([])) }
        for (i, group) in delivery.groups.enumerated() {
            put(Item(group: group, rejected: 0, duplicates: 0, place: i, waiter: waiter), into: keys.shard(of: group.key))
        }
        // Counted wherever: the ledger is summed over the shards.
        if counts { put(Item(group: nil, rejected: delivery.rejected, duplicates: delivery.duplicates, place: 0, waiter: waiter), into: 0) }
    }

    private func put(_ item: Item, into shard: Int) {
        shards[shard].waiting.append(item)
        if shards[shard].isScheduled { return }
        shards[shard].isScheduled = true
        // At the end of the loop's turn, so that all requests read in it are together.
        let bound = LoopBound(self, on: redis.client.loop)
        redis.client.loop.execute { bound.value.flush(shard) }
    }

    private func flush(_ shard: Int) {
        shards[shard].isScheduled = false
        while shards[shard].out < RedisIngest.calls, shards[shard].begin < shards[shard].waiting.count {
            shards[shard].out += 1
            let items = next(shard)
            let call = command(items, shard)
            let bound = LoopBound(self, on: redis.client.loop)
            let carried = LoopBound(items, on: redis.client.loop)
            // Ends when Redis has answered, or after the last try.
            Task(executorPreference: redis.client.loop) {
                let result = await RedisIngest.patiently(bound.value.redis, call)
                bound.value.finish(carried.value, result, shard)
            }
        }
    }

    /// Takes what goes into one call: as much as fits, each correlation once.
    private func next(_ shard: Int) -> [Item] {
        var taken: [Item] = [], held: [Item] = []
        var keys: Set<CorrelationKey> = []
        var bytes = 0, records = 0, looked = shards[shard].begin
        while looked < shards[shard].waiting.count, taken.count < RedisIngest.callGroups, bytes < RedisIngest.callBytes,
            records < RedisIngest.callRecords,
            held.count < RedisIngest.callGroups
        {
            let item = shards[shard].waiting[looked]
            looked += 1
            if let group = item.group {
                guard keys.insert(group.key).inserted else {
                    held.append(item)
                    continue
                }
                bytes += group.piece.count
                records += group.marks.count
            }
            taken.append(item)
        }
        // What is held goes back right before what was not looked at. The list is shortened when half of it is behind.
        shards[shard].begin = looked - held.count
        for (i, item) in held.enumerated() { shards[shard].waiting[shards[shard].begin + i] = item }
        if shards[shard].begin > shards[shard].waiting.count / 2 {
            shards[shard].waiting.removeFirst(shards[shard].begin)
            shards[shard].begin = 0
        }
        return taken
    }

    private func command(_ items: [Item], _ shard: Int) -> RedisCommand {
        let groups = items.compactMap(\.group)
        var names = [keys.index(shard), keys.ledger(shard), keys.cursor(shard), keys.rooted(shard)]
        names.reserveCapacity(4 + 2 * groups.count)
        for group in groups {
            names.append(keys.state(group.key))
            names.append(keys.text(group.key))
        }
        var command = CorrelationScripts.ingest.call(keys: names)
        command.add(instance)
        command.add(bounds.records)
        command.add(bounds.bytes)
        command.add(items.reduce(0) { $0 + $1.rejected })
        command.add(items.reduce(0) { $0 + $1.duplicates })
        command.add(keys.base(shard).utf8.count + 1)
        command.add(groups.map { notesRoots && $0.hasRoot ? 82 : 45 })
        command.add(groups.reduce(0) { $0 + $1.marks.count })
        command.add(quiet)
        for group in groups {
            command.add(state(of: group))
            command.add(group.piece)
        }
        // Taking in is idempotent.
        return command.repeatable().confirmed(by: confirmedBy)
    }

    /// What a correlation that begins with this group has as its state.
    private func state(of group: RecordGroup) -> [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(48 + group.marks.bytes.count)
        out.append(contentsOf: "0|0|\(group.piece.count)|;\(instance)=\(group.marks.count)|".utf8)
        out.append(contentsOf: group.marks.bytes)
        return out
    }

    private func finish(_ items: [Item], _ result: Result<RESPValue, RedisError>, _ shard: Int) {
        shards[shard].out -= 1
        switch result {
        case .success(let value): settle(items, value.array?.compactMap(\.int) ?? [])
        case .failure(let error):
            for item in items {
                item.waiter.failure = StoreFailure(error)
                item.waiter.finished()
            }
        }
        flush(shard)
    }

    private func settle(_ items: [Item], _ reply: [Int]) {
        var known: [Int: IngestOutcome] = [:]
        var at = 0
        while at < reply.count {
            if reply[at] < 0 {
                known[0 &- reply[at]] = IngestOutcome(added: -1)
                at += 1
            } else if at + 3 < reply.count {
                known[reply[at]] = IngestOutcome(added: reply[at + 1], duplicates: reply[at + 2], refused: reply[at + 3])
                at += 4
            } else {
                break
            }
        }
        var number = 0
        for item in items {
            if let group = item.group {
                number += 1
                var outcome = known[number] ?? IngestOutcome(added: group.marks.count, created: true)
                if outcome.added < 0 { outcome.added = group.marks.count }
                item.waiter.outcomes[item.place] = outcome
            }
            item.waiter.finished()
        }
    }

    /// Tries again, shortly: taking in is idempotent, so a call that may have been carried out may be sent again. Its records
    /// then count as received a second time, and as duplicates.
    private static func patiently(_ redis: RedisOperations, _ call: RedisCommand) async -> Result<RESPValue, RedisError> {
        for pause in [Duration.milliseconds(60), .milliseconds(200)] {
            let result = await redis.run(.set, CorrelationScripts.ingest, [call])[0]
            if case .success = result { return result }
            await redis.client.loop.sleep(pause)
        }
        return await redis.run(.set, CorrelationScripts.ingest, [call])[0]
    }
}
