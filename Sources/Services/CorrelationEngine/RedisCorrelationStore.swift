import Basics
import EventLoops
import JSONCoding
import Redis
import SharedState

/// Correlations in Redis, shared by every instance. Document 000's keys, as they are written there:
///
/// - `corr:<id>`: the correlation as one JSON text (`GET` it).
/// - `corr:trace:<trace id>` (or `corr:window:<id>`): a hash with what is needed to merge the next records: counts, names and one
///   field a record already counted.
/// - `corr:time_index`: every id, scored by the time of its last change in milliseconds (`ZCARD` counts correlations).
///
/// A group is merged by one script, so it is atomic whatever other instances do. The script writes only the JSON text's tail: its
/// cost does not grow with the records already there.
public final class RedisCorrelationStore: CorrelationStore {
    public let backend = "redis"
    private let redis: RedisOperations
    private let prefix: String
    private let lifetime: Int
    private let bounds: CorrelationBounds
    private let document: LoopBound<JSONDocument>
    private var index: String { prefix + "time_index" }

    /// Records of one call of the script: Lua's `unpack` and Redis' own latency ask for a bound.
    static let callLimit = 500

    public init(redis: RedisOperations, prefix: String, lifetime: Duration, bounds: CorrelationBounds = CorrelationBounds()) {
        self.redis = redis
        self.prefix = prefix
        self.lifetime = Int(lifetime.nanoseconds / 1_000_000)
        self.bounds = bounds
        document = LoopBound(JSONDocument(), on: redis.client.loop)
    }

    // MARK: writing

    public func ingest(_ groups: [RecordGroup]) async throws(StoreFailure) -> [IngestOutcome] {
        var calls: [RedisCommand] = []
        var owners: [Int] = []
        for (i, group) in groups.enumerated() {
            var start = 0
            while start < group.records.count {
                let end = min(start + RedisCorrelationStore.callLimit, group.records.count)
                calls.append(call(group, group.records[start..<end]))
                owners.append(i)
                start = end
            }
        }
        let results = try await patiently(calls)
        var outcomes = [IngestOutcome](repeating: IngestOutcome(), count: groups.count)
        for (owner, result) in zip(owners, results) {
            guard let counts = result.array, counts.count == 4, let added = counts[0].int, let duplicates = counts[1].int,
                let refused = counts[2].int, let created = counts[3].int
            else { throw StoreFailure(reason: "the script answered something else than four numbers") }
            outcomes[owner].added += added
            outcomes[owner].duplicates += duplicates
            outcomes[owner].refused += refused
            if created == 1 { outcomes[owner].created = true }
        }
        return outcomes
    }

    /// Tries again, shortly, those calls that did not come through: merging is idempotent, so a call that may have been carried
    /// out may be sent again.
    private func patiently(_ calls: [RedisCommand]) async throws(StoreFailure) -> [RESPValue] {
        var values = [RESPValue?](repeating: nil, count: calls.count)
        var open = Array(calls.indices)
        for pause in [Duration.milliseconds(60), .milliseconds(200), nil] {
            let results = await redis.run(.set, CorrelationScript.merge, open.map { calls[$0] })
            var failed: [Int] = []
            var reason = ""
            for (i, result) in zip(open, results) {
                switch result {
                case .success(let value): values[i] = value
                case .failure(let error):
                    failed.append(i)
                    reason = error.description
                }
            }
            if failed.isEmpty { return values.map { $0! } }
            guard let pause else { throw StoreFailure(reason: reason) }
            open = failed
            await redis.client.loop.sleep(pause)
        }
        throw StoreFailure(reason: "no try was left")
    }

    private func call(_ group: RecordGroup, _ records: ArraySlice<LogRecord>) -> RedisCommand {
        let id = group.key.id
        let hash = group.key.traceID.map { "\(prefix)trace:\($0)" } ?? "\(prefix)window:\(id)"
        var command = CorrelationScript.merge.call(keys: [hash, prefix + id, index])
        command.add(id)
        command.add(group.key.traceID.map { "\"\($0)\"" } ?? "null")
        command.add(lifetime)
        command.add(bounds.records)
        command.add(bounds.logs)
        command.add(bounds.names)
        command.add(bounds.bytes)
        command.add(quoted(group.service))
        command.add(quoted(group.host))
        // Rendered times have one length and sort as text.
        command.add(CalendarTime.render(records.min { $0.time < $1.time }!.time))
        command.add(CalendarTime.render(records.max { $0.time < $1.time }!.time))
        command.add(records.count)
        for record in records {
            command.add(":" + record.fingerprint)
            command.add(CalendarTime.render(record.time))
            command.add(record.severity.rawValue)
            command.add(record.json)
        }
        return command
    }

    private func quoted(_ text: String) -> [UInt8] {
        var out: [UInt8] = []
        var text = text
        text.withUTF8 { JSONWriter.escape(UnsafeRawBufferPointer($0), into: &out) }
        return out
    }

    // MARK: reading

    public func correlation(id: String) async throws(StoreFailure) -> [UInt8]? {
        // Other keys of ours share the prefix; none of them begins like this.
        guard id.hasPrefix("t-") || id.hasPrefix("w-") else { return nil }
        return try await run(.get, RedisCommand("GET", prefix + id)).bytes
    }

    public func list(_ query: CorrelationQuery) async throws(StoreFailure) -> CorrelationPage {
        var page = CorrelationPage()
        var cursor = query.cursor
        var examined = 0
        try await sweep()
        while examined < CorrelationQuery.examineLimit {
            let entries = try await entries(after: cursor)
            if entries.isEmpty {
                page.next = nil
                return page
            }
            var fetch = RedisCommand("MGET")
            for entry in entries { fetch.add(prefix + entry.id) }
            let values = try await run(.get, fetch).array ?? []
            for (entry, value) in zip(entries, values) {
                examined += 1
                cursor = entry
                page.next = entry
                if let bytes = value.bytes, let summary = summarize(bytes), query.matches(summary) {
                    page.items.append(bytes)
                    if page.items.count == query.limit { return page }
                }
            }
        }
        return page
    }

    /// The next ids of the index, newest first. Ids of one millisecond are taken in descending order, as Redis sorts them.
    private func entries(after cursor: CorrelationQuery.Cursor?) async throws(StoreFailure) -> [CorrelationQuery.Cursor] {
        // The values of a batch are fetched together; each may be hundreds of kilobytes.
        let batch = 10
        var offset = 0
        while true {
            let command = RedisCommand(
                "ZREVRANGEBYSCORE", index, cursor.map { String($0.score) } ?? "+inf", "-inf", "WITHSCORES", "LIMIT",
                String(offset), String(batch))
            let reply = try await run(.query, command).array ?? []
            let entries = RedisCorrelationStore.pairs(reply)
            // Entries of the cursor's own millisecond that were seen already.
            let fresh = entries.filter { entry in
                guard let cursor else { return true }
                return (entry.score, entry.id) < (cursor.score, cursor.id)
            }
            if !fresh.isEmpty || entries.count < batch { return fresh }
            offset += batch
        }
    }

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

    private func summarize(_ json: [UInt8]) -> CorrelationSummary? {
        try? document.value.parse(json) { root -> CorrelationSummary? in
            guard let services = root["services"]?.array, let status = root["status"]?.string,
                let first = root["first_seen"]?.stringBytes, let last = root["last_seen"]?.stringBytes
            else { return nil }
            return CorrelationSummary(
                services: services.compactMap(\.string), status: status,
                first: try CalendarTime.parse(first), last: try CalendarTime.parse(last))
        }
    }

    public func count() async throws(StoreFailure) -> Int {
        try await sweep()
        return try await run(.count, RedisCommand("ZCARD", index)).int ?? 0
    }

    public func sweep() async throws(StoreFailure) {
        // By Redis' clock, which scored the index: an engine whose clock is wrong must not empty it.
        var call = CorrelationScript.sweep.call(keys: [index])
        call.add(lifetime)
        do throws(RedisError) { _ = try await redis.run(.sweep, CorrelationScript.sweep, [call])[0].get() } catch {
            throw StoreFailure(reason: error.description)
        }
    }

    private func run(_ operation: RedisOperations.Operation, _ command: RedisCommand) async throws(StoreFailure) -> RESPValue {
        do throws(RedisError) { return try await redis.run(operation, command) } catch { throw StoreFailure(reason: error.description) }
    }
}
