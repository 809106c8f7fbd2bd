import Basics
import EventLoops
import Redis
import SharedState
import Synchronization

/// Correlations in Redis, shared by every instance (the layout: `CorrelationKeys`).
///
/// Nothing has a time to live by itself: a correlation goes when its place in the index goes, by one script, so that neither is ever
/// without the other, and what was not emitted or exported yet is never lost to a clock (F1.1, F1.4).
///
/// It belongs to the loop of its client.
public final class RedisCorrelationStore: CorrelationStore {
    public let backend = "redis"
    private let redis: RedisOperations
    private let keys: CorrelationKeys
    private let lifetime: Int
    private let rule: CompletionRule
    private let targets: [ExportTarget]
    private let limits: ExportLimits
    private let ingest: LoopBound<RedisIngest>
    private let instance: String
    private let pause: Pause
    /// Of each shard's server.
    private let fullness: Mutex<[Fullness]>
    /// Tells two processes of one instance id apart.
    private let holder: String
    /// Of each shard, as this instance saw it.
    private let cursors: Mutex<[SeenCursor]>
    private let haste = ShardHaste()

    private struct SeenCursor {
        var cursor = -1
        var since = MonotonicTime.now
    }

    /// Correlations that one script completes or forgets.
    static let settleLimit = 128
    static let turnTime = 2000

    /// `confirmedBy`: what is taken in is acknowledged when so many replicas have it.
    public init(
        redis: RedisOperations, prefix: String, shards: Int = 1, confirmedBy: Int = 0, lifetime: Duration, instance: String = "1",
        rule: CompletionRule = CompletionRule(),
        bounds: CorrelationBounds = CorrelationBounds(), targets: [ExportTarget] = [], exports: ExportLimits = ExportLimits(),
        pause: @escaping @Sendable () async -> Void = { await Task.yield() }
    ) {
        self.pause = pause
        self.redis = redis
        keys = CorrelationKeys(prefix: prefix, shards: shards)
        self.lifetime = Int(lifetime.nanoseconds / 1_000_000)
        self.rule = rule
        self.targets = targets
        self.instance = instance
        fullness = Mutex(Array(repeating: Fullness(), count: shards))
        cursors = Mutex(Array(repeating: SeenCursor(), count: shards))
        limits = exports
        holder = "\(instance)-\(UInt64.random(in: 0 ... .max))"
        ingest = LoopBound(
            RedisIngest(
                redis: redis, keys: keys, instance: instance, bounds: bounds, notesRoots: rule.afterRoot != nil,
                quiet: Int(rule.quiet.nanoseconds / 1_000_000), confirmedBy: confirmedBy),
            on: redis.client.loop)
    }

    public func ingest(_ delivery: Delivery) async throws(StoreFailure) -> [IngestOutcome] {
        let ingest = ingest, loop = redis.client.loop
        let result: Result<[IngestOutcome], StoreFailure> = await withUnsafeContinuation { continuation in
            loop.execute { ingest.value.submit(delivery) { continuation.resume(returning: $0) } }
        }
        return try result.get()
    }

    // MARK: completing and forgetting

    public func settle() async throws(StoreFailure) -> Settled {
        var all = Settled()
        var failure: StoreFailure?, failed = 0
        for shard in 0..<keys.shards {
            // Where one shard is away, the others go on.
            do throws(StoreFailure) { try await settle(shard, &all) } catch {
                failure = error
                failed += 1
            }
        }
        if let failure, failed == keys.shards { throw failure }
        all.failure = failure
        return all
    }

    private func settle(_ shard: Int, _ all: inout Settled) async throws(StoreFailure) {
        var turn = CorrelationScripts.turn.call(keys: [keys.turn(shard), keys.cursor(shard)])
        turn.add(holder)
        turn.add(RedisCorrelationStore.turnTime)
        turn.add(quiet)
        let seen = cursors.withLock { $0[shard] }
        turn.add(String(seen.cursor))
        turn.add(Int((MonotonicTime.now - seen.since).nanoseconds / 1_000_000))
        let reply = try await run(.settle, CorrelationScripts.turn, turn).array?.compactMap(\.int) ?? []
        guard reply.count == 4 else { throw StoreFailure(reason: "the script answered something else than four numbers") }
        // Another instance settles; when it dies, its turn ends in two seconds.
        if reply[0] == 0 { return }
        if reply[2] != seen.cursor { cursors.withLock { $0[shard] = SeenCursor(cursor: reply[2], since: .now) } }
        try await settleRooted(shard, now: reply[1], &all)
        let done = try await settleQuiet(shard, now: reply[1], cursor: reply[2], isOwnTime: reply[3] == 1, &all)
        let isFull = try await isFull(shard)
        try await expire(shard, now: reply[1], done: done, early: isFull, &all)
    }

    private func settleRooted(_ shard: Int, now: Int, _ all: inout Settled) async throws(StoreFailure) {
        guard let wait = rule.afterRoot.map({ Int($0.nanoseconds / 1_000_000) }) else { return }
        let due = try await range(
            keys.rooted(shard), from: "-inf", to: now.subtractingClamped(wait), limit: RedisCorrelationStore.settleLimit)
        if due.isEmpty { return }
        if due.count == RedisCorrelationStore.settleLimit { all.more = true }
        let completed = try await complete(due, shard, cursor: nil, &all)
        all.byRoot.addClamped(completed)
    }

    private var quiet: Int { Int(rule.quiet.nanoseconds / 1_000_000) }

    /// Returns up to which time of change all is complete. `isOwnTime`: `now` is not Redis' clock (see `CorrelationScripts.turn`), and goes on
    /// from the cursor, which is therefore moved also where nothing is to be completed.
    private func settleQuiet(_ shard: Int, now: Int, cursor: Int, isOwnTime: Bool, _ all: inout Settled) async throws(StoreFailure) -> Int {
        // Never this very millisecond, of which more may come.
        let due = now.subtractingClamped(max(quiet, 1))
        guard cursor < due else { return cursor }
        // A millisecond is done as a whole, because the cursor goes on behind it.
        let limit = RedisCorrelationStore.settleLimit
        var found = try await range(keys.index(shard), from: String(cursor.addingClamped(1)), to: due, limit: limit)
        guard let first = found.first, var last = found.last else {
            if isOwnTime { _ = try await complete([], shard, cursor: Int64(due), &all) }
            return due
        }
        let isFull = found.count == limit
        if isFull, first.score == last.score {
            all.byQuiet.addClamped(try await completeAll(at: first.score, shard, &all))
        } else {
            if isFull {
                let cut = last.score
                found.removeAll { $0.score == cut }
                last = found.last ?? first
            }
            all.byQuiet.addClamped(try await complete(found, shard, cursor: last.score, &all))
        }
        // Own time goes on from the cursor: what of it the cursor has not come to is not lost.
        if isOwnTime { keepTime(shard, due.subtractingClamped(Int(last.score))) }
        guard isFull else { return due }
        all.more = true
        all.lag = max(all.lag, .milliseconds(Int64(due).subtractingClamped(last.score)))
        return Int(last.score)
    }

    /// The cursor was just moved, to so many milliseconds before where own time stands: as if it had been seen first so long ago that own time
    /// stands where it stood. (`CorrelationScripts.turn` takes nine tenths of the time that has passed.)
    private func keepTime(_ shard: Int, _ ahead: Int) {
        let passed = Duration.milliseconds(Int64(min(max(ahead, 0), 86_400_000)) * 10 / 9)
        cursors.withLock { $0[shard].since = .now + (.zero - passed) }
    }

    /// So many may have changed in one millisecond that one answer does not hold them: they are gone through in steps, from behind. What
    /// leaves this millisecond meanwhile, because more of it has come, moves only what was not gone through yet towards the front; nothing
    /// new comes into a millisecond that is past.
    private func completeAll(at score: Int64, _ shard: Int, _ all: inout Settled) async throws(StoreFailure) -> Int {
        let index = keys.index(shard), place = String(score), limit = RedisCorrelationStore.settleLimit
        var end = try await run(.settle, RedisCommand("ZCOUNT", index, place, place), on: index).int ?? 0
        var completed = 0
        repeat {
            let start = max(0, end.subtractingClamped(limit))
            let command = RedisCommand(
                "ZRANGEBYSCORE", index, place, place, "WITHSCORES", "LIMIT", String(start), String(end.subtractingClamped(start)))
            let part = RedisCorrelationStore.pairs(try await run(.settle, command, on: index).array ?? [])
            end = start
            // Only the last step moves the cursor.
            completed.addClamped(try await complete(part, shard, cursor: end == 0 ? score : nil, &all))
        } while end > 0
        return completed
    }

    private func complete(_ due: [CorrelationQuery.Cursor], _ shard: Int, cursor: Int64?, _ all: inout Settled) async throws(StoreFailure)
        -> Int
    {
        let known = due.compactMap { entry in CorrelationKey(id: entry.id).map { (entry, $0) } }
        try await discard(due, shard)
        var names = [keys.ledger(shard), keys.cursor(shard), keys.rooted(shard), keys.emissions(shard)]
        for target in targets { names += [keys.queue(target, shard), keys.dropped(target, shard)] }
        names += known.map { keys.state($0.1) }
        var call = CorrelationScripts.complete.call(keys: names)
        call.add(cursor.map { String($0) } ?? "")
        call.add(limits.correlations)
        call.add(limits.bytes)
        call.add(limits.batches)
        call.add(targets.count)
        for (entry, _) in known {
            call.add(entry.id)
            call.add(String(entry.score))
        }
        let reply = try await run(.settle, CorrelationScripts.complete, call).array?.compactMap(\.int) ?? []
        guard reply.count == 2 else { throw StoreFailure(reason: "the script answered something else than two numbers") }
        if let cursor { cursors.withLock { $0[shard] = SeenCursor(cursor: Int(cursor), since: .now) } }
        all.updated.addClamped(reply[1])
        return reply[0]
    }

    /// Takes out of the index what is no correlation of ours, so that it does not stand in the way for ever.
    private func discard(_ entries: [CorrelationQuery.Cursor], _ shard: Int) async throws(StoreFailure) {
        let unknown = entries.filter { CorrelationKey(id: $0.id) == nil }
        if unknown.isEmpty { return }
        for key in [keys.index(shard), keys.rooted(shard)] {
            var command = RedisCommand("ZREM", key)
            for entry in unknown { command.add(entry.id) }
            _ = try await run(.sweep, command, on: key)
        }
    }

    /// What was not complete before `done` stays, however old: an outage of all instances makes nothing expire that was never emitted.
    /// (Unless the lifetime is shorter than the quiet time, which is to say that it may.)
    ///
    /// When Redis is nearly full (`early`), what is complete and exported goes before its time, the oldest first, so that ingest goes on:
    /// refusing new records to keep answers about old ones would be the wrong way round.
    private func expire(_ shard: Int, now: Int, done: Int, early: Bool, _ all: inout Settled) async throws(StoreFailure) {
        let due = now.subtractingClamped(lifetime)
        let bound = lifetime < quiet ? due : early ? done : min(due, done)
        let found = try await range(keys.index(shard), from: "-inf", to: bound, limit: RedisCorrelationStore.settleLimit)
        if found.isEmpty { return }
        try await discard(found, shard)
        let known = found.compactMap { CorrelationKey(id: $0.id) }
        if known.isEmpty { return }
        var names = [keys.index(shard), keys.ledger(shard), keys.rooted(shard)]
        for target in targets { names += [keys.queue(target, shard), keys.taken(target, shard)] }
        for key in known { names += [keys.state(key), keys.text(key)] }
        var call = CorrelationScripts.expire.call(keys: names)
        call.add(bound)
        call.add(targets.count)
        for key in known { call.add(key.id) }
        let expired = try await run(.sweep, CorrelationScripts.expire, call).int ?? 0
        if early && bound > due { all.forgotten.addClamped(expired) } else { all.expired.addClamped(expired) }
        // What exports hold is not tried again at once.
        if expired == RedisCorrelationStore.settleLimit { all.more = true }
    }

    /// Above this share of its memory Redis counts as nearly full, until it is below the other.
    private static let fullAt = 0.8, roomAt = 0.75

    private struct Fullness {
        var isFull = false
        var asked = MonotonicTime(nanoseconds: 0)
    }

    private func isFull(_ shard: Int) async throws(StoreFailure) -> Bool {
        let known = fullness.withLock { $0[shard] }
        // While it is full it is asked each time: forgetting ends as soon as there is room.
        if !known.isFull, MonotonicTime.now - known.asked < .milliseconds(500) { return false }
        let text = try await run(.settle, RedisCommand("INFO", "memory").routed(by: keys.index(shard))).string ?? ""
        func field(_ name: String) -> Double {
            text.split(whereSeparator: \.isNewline).first { $0.hasPrefix(name + ":") }.flatMap { Double($0.dropFirst(name.utf8.count + 1)) }
                ?? 0
        }
        let most = field("maxmemory"), used = field("used_memory")
        let isFull = most > 0 && used > most * (known.isFull ? RedisCorrelationStore.roomAt : RedisCorrelationStore.fullAt)
        fullness.withLock { $0[shard] = Fullness(isFull: isFull, asked: .now) }
        return isFull
    }

    // MARK: reading

    public func correlation(_ key: CorrelationKey) async throws(StoreFailure) -> StoredCorrelation? { try await stored([key])[0] }

    private func stored(_ wanted: [CorrelationKey]) async throws(StoreFailure) -> [StoredCorrelation?] {
        if wanted.isEmpty { return [] }
        // State and text of one correlation by one command: nothing can come between them.
        let replies = await redis.run(.get, wanted.map { RedisCommand("MGET", keys.state($0), keys.text($0)) })
        var out: [StoredCorrelation?] = []
        for (key, reply) in zip(wanted, replies) {
            guard let pair = try reply.orStoreFailure().array, pair.count == 2, let state = pair[0].bytes.flatMap(StoredState.init),
                let text = pair[1].bytes
            else {
                out.append(nil)
                continue
            }
            out.append(StoredCorrelation(key: key, marks: state.marks, text: text, pending: state.pending, revision: state.revision))
        }
        return out
    }

    public func list(_ query: CorrelationQuery) async throws(StoreFailure) -> CorrelationPage {
        var page = CorrelationPage()
        var cursor = query.cursor
        // Each value may be megabytes: more of them are fetched together only as far as those before were small.
        var batch = 2
        while !page.isFull(query) {
            let entries = try await entries(after: cursor, batch)
            if entries.isEmpty {
                page.next = nil
                return page
            }
            let values = try await stored(entries.map { CorrelationKey(id: $0.id) ?? .named("") })
            var bytes = 0
            for (entry, value) in zip(entries, values) {
                // What was fetched in vain is fetched again by the next step.
                if page.isFull(query) { return page }
                cursor = entry
                page.next = entry
                bytes += value?.text.count ?? 0
                if value?.text.count ?? 0 > Pace.piece { await pause() }
                page.look(at: value, query)
            }
            batch = min(max(CorrelationQuery.stepStored / 2 / max(bytes / entries.count, 1), 1), batch * 2, 16)
        }
        return page
    }

    /// The next ids of the index, newest first, over all shards. Ids of one millisecond are taken in descending order, as Redis sorts them.
    private func entries(after cursor: CorrelationQuery.Cursor?, _ batch: Int) async throws(StoreFailure) -> [CorrelationQuery.Cursor] {
        var found: [CorrelationQuery.Cursor] = []
        for shard in 0..<keys.shards { found += try await entries(after: cursor, batch, shard) }
        return Array(found.sorted { ($0.score, $0.id) > ($1.score, $1.id) }.prefix(batch))
    }

    private func entries(after cursor: CorrelationQuery.Cursor?, _ batch: Int, _ shard: Int) async throws(StoreFailure) -> [CorrelationQuery
        .Cursor]
    {
        var offset = 0
        var fresh: [CorrelationQuery.Cursor] = []
        while true {
            let command = RedisCommand(
                "ZREVRANGEBYSCORE", keys.index(shard), cursor.map { String($0.score) } ?? "+inf", "-inf", "WITHSCORES", "LIMIT",
                String(offset), String(batch))
            let reply = try await run(.query, command, on: keys.index(shard)).array ?? []
            let entries = RedisCorrelationStore.pairs(reply)
            // Entries of the cursor's own millisecond that were seen already.
            fresh += entries.filter { entry in
                guard let cursor else { return true }
                return (entry.score, entry.id) < (cursor.score, cursor.id)
            }
            // All of them, or as many as are taken: with fewer, what another shard gives would be taken before its turn.
            if fresh.count >= batch || RedisCorrelationStore.count(reply) < batch { return fresh }
            offset += batch
        }
    }

    private func range(_ key: String, from: String, to: Int, limit: Int) async throws(StoreFailure) -> [CorrelationQuery.Cursor] {
        let command = RedisCommand("ZRANGEBYSCORE", key, from, String(to), "WITHSCORES", "LIMIT", "0", String(limit))
        return RedisCorrelationStore.pairs(try await run(.settle, command, on: key).array ?? [])
    }

    /// Entries of such an answer, those that are none of ours included.
    private static func count(_ reply: [RESPValue]) -> Int { if case .array? = reply.first { reply.count } else { reply.count / 2 } }

    /// RESP2 answers member, score, member, score; RESP3 a list of pairs.
    private static func pairs(_ reply: [RESPValue]) -> [CorrelationQuery.Cursor] {
        // A score that is no time was not written by us; its entry is passed over.
        func score(_ value: RESPValue) -> Int64? {
            if case .double(let score) = value { return Int64(exactly: score.rounded()) }
            return Double(value.string ?? "").flatMap { Int64(exactly: $0.rounded()) }
        }
        if case .array? = reply.first {
            return reply.compactMap { pair in
                guard let pair = pair.array, pair.count == 2, let id = pair[0].string, let score = score(pair[1]) else { return nil }
                return CorrelationQuery.Cursor(score: score, id: id)
            }
        }
        return stride(from: 0, to: reply.count - 1, by: 2).compactMap { i in
            guard let id = reply[i].string, let score = score(reply[i + 1]) else { return nil }
            return CorrelationQuery.Cursor(score: score, id: id)
        }
    }

    public func count() async throws(StoreFailure) -> Int {
        var total = 0
        for shard in 0..<keys.shards {
            total.addClamped(try await run(.count, RedisCommand("ZCARD", keys.index(shard)), on: keys.index(shard)).int ?? 0)
        }
        return total
    }

    public func ledger() async throws(StoreFailure) -> [String: Ledger] {
        var rows: [String: Ledger] = [:]
        for shard in 0..<keys.shards {
            let reply = try await run(.ledger, RedisCommand("HGETALL", keys.ledger(shard)), on: keys.ledger(shard)).array ?? []
            for i in stride(from: 0, to: reply.count - 1, by: 2) {
                let parts = (reply[i].string ?? "").split(separator: ":")
                guard parts.count == 2, let column = Ledger.columns.first(where: { $0.name == parts[1] }),
                    let value = Int(reply[i + 1].string ?? "")
                else { continue }
                rows[String(parts[0]), default: Ledger()][keyPath: column.path] &+= value
            }
        }
        return rows
    }

    public func begin(_ place: EmissionPlace) async throws(StoreFailure) -> EmissionPlace {
        var ends: [String] = []
        for shard in 0..<keys.shards {
            let key = keys.emissions(shard)
            let last = try await run(.query, RedisCommand("XREVRANGE", key, "+", "-", "COUNT", "1"), on: key).array ?? []
            ends.append(last.first?.array?.first?.string ?? "0-0")
        }
        let end = EmissionPlace(text: ends.joined(separator: "."))
        if place == .now { return end }
        // A place that is yet to come was not given by this store: from there on nothing would ever come.
        let isKnown = place.parts.count == keys.shards && zip(place.parts, end.parts).allSatisfy { $0 <= $1 }
        return isKnown ? place : EmissionPlace(text: ends.map { _ in "0-0" }.joined(separator: "."))
    }

    public func emissions(after place: EmissionPlace, limit: Int) async throws(StoreFailure) -> (emissions: [Emission], next: EmissionPlace)
    {
        if place == .now { return ([], try await begin(place)) }
        var places = place.text.split(separator: ".").map(String.init)
        guard places.count == keys.shards else { throw StoreFailure(reason: "the place '\(place.text)' is none of this store") }
        var found: [Emission] = []
        for shard in 0..<keys.shards {
            let entries =
                try await run(
                    .query, RedisCommand("XRANGE", keys.emissions(shard), "(" + places[shard], "+", "COUNT", String(max(limit / 64, 1))),
                    on: keys.emissions(shard)
                ).array ?? []
            for entry in entries {
                guard let pair = entry.array, pair.count == 2, let id = pair[0].string, let text = pair[1].array?.last?.string else {
                    continue
                }
                found += ExportBatch(text: text).emissions
                places[shard] = id
            }
        }
        return (found, EmissionPlace(text: places.joined(separator: ".")))
    }

    // MARK: exports

    public func exports(_ target: ExportTarget) -> any ExportQueue { RedisExportQueue(store: self, target: target) }

    private struct RedisExportQueue: ExportQueue {
        let store: RedisCorrelationStore
        let target: ExportTarget

        func take(_ limit: Int) async throws(StoreFailure) -> [ExportBatch] {
            var batches: [ExportBatch] = [], failure: StoreFailure?
            // It begins at another shard each time: the backlog of one must not keep the others waiting until their queues are full.
            let first = Int.random(in: 0..<store.keys.shards)
            for step in 0..<store.keys.shards where batches.count < limit {
                let shard = (first + step) % store.keys.shards
                do throws(StoreFailure) { batches += try await take(limit - batches.count, of: shard) } catch {
                    failure = error
                    // The leases of those that were taken run already.
                    if !batches.isEmpty { break }
                }
            }
            // Where one shard is away, the others go on: what was taken from them is on lease, and whoever took it must send it.
            if batches.isEmpty, let failure { throw failure }
            return batches
        }

        private func take(_ limit: Int, of shard: Int) async throws(StoreFailure) -> [ExportBatch] {
            var call = CorrelationScripts.take.call(keys: names(shard))
            call.add(Int(store.limits.lease.nanoseconds / 1_000_000))
            call.add(limit)
            let reply = try await store.run(.export, CorrelationScripts.take, call).array ?? []
            guard reply.count == 3, let again = reply[0].int, let texts = reply[1].array, let ends = Int(reply[2].string ?? "") else {
                throw StoreFailure(reason: "the script answered no batches")
            }
            return texts.compactMap(\.string).enumerated().map { i, text in
                ExportBatch(text: text, redelivered: i < again, leaseEnds: ends)
            }
        }

        func load(_ batch: ExportBatch) async throws(StoreFailure) -> [StoredCorrelation] {
            let commands = batch.emissions.map { RedisCommand("GETRANGE", store.keys.text($0.key), String($0.from), String($0.to - 1)) }
            var out: [StoredCorrelation] = []
            for (emission, reply) in zip(batch.emissions, await store.perform(.export, commands)) {
                // Something else stands there: it is missing, like one that is gone, and stands in nobody's way.
                if case .failure(let error) = reply, error.serverCode == "WRONGTYPE" { continue }
                // An empty range is read as everything by GETRANGE.
                guard let text = try reply.orStoreFailure().bytes, emission.to > emission.from, text.count == emission.to - emission.from
                else { continue }
                out.append(StoredCorrelation(key: emission.key, marks: Marks(), text: text, pending: 0, revision: emission.revision))
            }
            return out
        }

        func finish(_ batch: ExportBatch) async throws(StoreFailure) {
            let key = store.keys.taken(target, shard(batch))
            _ = try await store.run(.export, RedisCommand("ZREM", key, batch.text), on: key)
        }

        func renew(_ batch: ExportBatch) async throws(StoreFailure) -> ExportBatch? {
            var call = CorrelationScripts.renew.call(keys: [store.keys.taken(target, shard(batch))])
            call.add(Int(store.limits.lease.nanoseconds / 1_000_000))
            call.add(batch.text)
            call.add(batch.leaseEnds)
            guard let ends = Int(try await store.run(.export, CorrelationScripts.renew, call).string ?? "") else {
                throw StoreFailure(reason: "the script answered no time")
            }
            if ends == 0 { return nil }
            var renewed = batch
            renewed.leaseEnds = ends
            return renewed
        }

        func giveBack(_ batch: ExportBatch, left: ExportBatch) async throws(StoreFailure) {
            var call = CorrelationScripts.giveBack.call(keys: names(shard(batch)))
            call.add(batch.text)
            call.add(left.text)
            call.add(batch.leaseEnds)
            _ = try await store.run(.export, CorrelationScripts.giveBack, call)
        }

        func depth() async throws(StoreFailure) -> Int {
            var depth = 0
            for shard in 0..<store.keys.shards {
                for key in names(shard) { depth.addClamped(try await store.run(.export, RedisCommand("ZCARD", key), on: key).int ?? 0) }
            }
            return depth
        }

        func dropped() async throws(StoreFailure) -> Int {
            var dropped = 0
            for shard in 0..<store.keys.shards {
                let key = store.keys.dropped(target, shard)
                dropped.addClamped(Int(try await store.run(.export, RedisCommand("GET", key), on: key).string ?? "0") ?? 0)
            }
            return dropped
        }

        private func names(_ shard: Int) -> [String] { [store.keys.queue(target, shard), store.keys.taken(target, shard)] }
        private func shard(_ batch: ExportBatch) -> Int { batch.emissions.first.map { store.keys.shard(of: $0.key) } ?? 0 }
    }

    // MARK: asking

    /// `key`: named when it turns out to be of another type.
    private func run(_ operation: RedisOperations.Operation, _ command: RedisCommand, on key: String? = nil) async throws(StoreFailure)
        -> RESPValue
    {
        let result = await perform(operation, [command])[0]
        if let key, case .failure(let error) = result, error.serverCode == "WRONGTYPE" {
            throw StoreFailure(RedisError(error.code, error.execution, place: error.place, message: "\(error.message): the key \(key)"))
        }
        return try result.orStoreFailure()
    }

    private func run(_ operation: RedisOperations.Operation, _ script: RedisScript, _ call: RedisCommand) async throws(StoreFailure)
        -> RESPValue
    {
        let result = await redis.run(operation, script, [haste.hurried(call, operation)])[0]
        haste.note([result], operation)
        return try result.orStoreFailure()
    }

    private func perform(_ operation: RedisOperations.Operation, _ commands: [RedisCommand]) async -> [Result<RESPValue, RedisError>] {
        let results = await redis.run(operation, commands.map { haste.hurried($0, operation) })
        haste.note(results, operation)
        return results
    }
}

extension StoreFailure {
    /// Keys of another type, or counts that are none, stay so until somebody mends them. (Scripts name the key.)
    init(_ error: RedisError) {
        let isBroken = error.serverCode == "WRONGTYPE"
        let advice = "; delete the key, or choose another REDIS_KEY_PREFIX"
        self.init(reason: error.description + (isBroken ? advice : ""), needsMending: isBroken)
    }
}

extension Result<RESPValue, RedisError> {
    fileprivate func orStoreFailure() throws(StoreFailure) -> RESPValue {
        do throws(RedisError) { return try get() } catch { throw StoreFailure(error) }
    }
}

/// The state of a correlation as the scripts write it (see `CorrelationScripts`).
struct StoredState {
    let revision: Int
    let pending: Int
    let marks: Marks

    init?(_ bytes: [UInt8]) {
        let parts = bytes.split(separator: 124, maxSplits: 4, omittingEmptySubsequences: false)
        guard parts.count == 5, let revision = Int(String(decoding: parts[0], as: UTF8.self)) else { return nil }
        self.revision = revision
        pending = parts[3].split(separator: 59).reduce(0) { sum, owner in
            sum &+ (Int(String(decoding: owner.drop { $0 != 61 }.dropFirst(), as: UTF8.self)) ?? 0)
        }
        marks = Marks(bytes: Array(parts[4]))
    }
}
