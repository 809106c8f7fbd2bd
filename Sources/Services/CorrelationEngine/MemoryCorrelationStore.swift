import Basics
import JSONCoding
import Synchronization

/// Correlations in this process: document 000's in-memory mode, for one instance. Lost when it ends.
///
/// Memory is bounded by `capacity` correlations; a new one beyond it is refused as a failure of the store (503), because
/// nothing that was acknowledged may be pushed out.
public final class MemoryCorrelationStore: CorrelationStore {
    private struct Correlation {
        let key: CorrelationKey
        var fingerprints: Set<String> = []
        var services: [String] = []
        var hosts: [String] = []
        var first = WallTime(milliseconds: .max)
        var last = WallTime(milliseconds: .min)
        var severities: [Severity: Int] = [:]
        var logs: [[UInt8]] = []
        /// Of the logs with the commas between them.
        var bytes = 0
        var changed: Int64 = 0
    }

    private struct State {
        var correlations: [String: Correlation] = [:]
        /// Ids with the time at which each was last changed, oldest first; an entry whose time is not its correlation's is old.
        var changes: [(time: Int64, id: String)] = []
        var swept = 0
    }

    public let backend = "in-memory"
    private let state = Mutex(State())
    private let lifetime: Int64
    private let bounds: CorrelationBounds
    private let capacity: Int
    private let now: @Sendable () -> WallTime

    public init(
        lifetime: Duration, bounds: CorrelationBounds = CorrelationBounds(), capacity: Int = 200_000,
        now: @escaping @Sendable () -> WallTime = { .now }
    ) {
        self.lifetime = lifetime.nanoseconds / 1_000_000
        self.bounds = bounds
        self.capacity = capacity
        self.now = now
    }

    public func ingest(_ groups: [RecordGroup]) async throws(StoreFailure) -> [IngestOutcome] {
        let time = now().milliseconds
        let outcomes: [IngestOutcome]? = state.withLock { state in
            sweep(&state, time)
            let fresh = groups.filter { state.correlations[$0.key.id] == nil }.count
            if state.correlations.count + fresh > capacity { return nil }
            return groups.map { apply($0, &state, time) }
        }
        guard let outcomes else { throw StoreFailure(reason: "memory holds \(capacity) correlations, which is all it may") }
        return outcomes
    }

    private func apply(_ group: RecordGroup, _ state: inout State, _ time: Int64) -> IngestOutcome {
        let id = group.key.id
        var correlation = state.correlations[id] ?? Correlation(key: group.key)
        var outcome = IngestOutcome()
        outcome.created = state.correlations[id] == nil
        for record in group.records {
            if correlation.fingerprints.contains(record.fingerprint) {
                outcome.duplicates += 1
            } else if correlation.fingerprints.count >= bounds.records {
                outcome.refused += 1
            } else {
                correlation.fingerprints.insert(record.fingerprint)
                outcome.added += 1
                correlation.first = min(correlation.first, record.time)
                correlation.last = max(correlation.last, record.time)
                correlation.severities[record.severity, default: 0] += 1
                keep(record.json, in: &correlation)
            }
        }
        guard outcome.added > 0 else {
            outcome.created = false
            return outcome
        }
        note(group.service, in: &correlation.services)
        note(group.host, in: &correlation.hosts)
        correlation.changed = time
        state.correlations[id] = correlation
        state.changes.append((time, id))
        return outcome
    }

    private func keep(_ json: [UInt8], in correlation: inout Correlation) {
        guard correlation.logs.count < bounds.logs, correlation.bytes + json.count + 1 <= bounds.bytes else { return }
        correlation.logs.append(json)
        correlation.bytes += json.count + 1
    }

    private func note(_ name: String, in names: inout [String]) {
        if !names.contains(name), names.count < bounds.names { names.append(name) }
    }

    private func sweep(_ state: inout State, _ time: Int64) {
        while state.swept < state.changes.count, state.changes[state.swept].time <= time - lifetime {
            let (changed, id) = state.changes[state.swept]
            if state.correlations[id]?.changed == changed { state.correlations[id] = nil }
            state.swept += 1
        }
        if state.swept > 4096, state.swept > state.changes.count / 2 {
            state.changes.removeFirst(state.swept)
            state.swept = 0
        }
    }

    public func correlation(id: String) async throws(StoreFailure) -> [UInt8]? {
        let time = now().milliseconds
        return state.withLock { state in
            sweep(&state, time)
            return state.correlations[id].map(render)
        }
    }

    public func list(_ query: CorrelationQuery) async throws(StoreFailure) -> CorrelationPage {
        let time = now().milliseconds
        return state.withLock { state in
            sweep(&state, time)
            var page = CorrelationPage()
            let ordered = state.correlations.map { (score: $0.value.changed, id: $0.key) }
                .filter { entry in
                    guard let cursor = query.cursor else { return true }
                    return (entry.score, entry.id) < (cursor.score, cursor.id)
                }
                .sorted { ($0.score, $0.id) > ($1.score, $1.id) }
            for (examined, entry) in ordered.enumerated() {
                if page.items.count == query.limit || examined == CorrelationQuery.examineLimit { return page }
                let correlation = state.correlations[entry.id]!
                if query.matches(summary(correlation)) { page.items.append(render(correlation)) }
                let isLast = examined == ordered.count - 1
                page.next = isLast ? nil : CorrelationQuery.Cursor(score: entry.score, id: entry.id)
            }
            return page
        }
    }

    public func count() async throws(StoreFailure) -> Int {
        let time = now().milliseconds
        return state.withLock { state in
            sweep(&state, time)
            return state.correlations.count
        }
    }

    public func sweep() async throws(StoreFailure) { _ = try await count() }

    private func summary(_ correlation: Correlation) -> CorrelationSummary {
        CorrelationSummary(
            services: correlation.services, status: status(of: correlation.severities.keys),
            first: correlation.first, last: correlation.last)
    }

    private func render(_ correlation: Correlation) -> [UInt8] {
        let total = correlation.fingerprints.count
        var json = JSONWriter(reserving: 512 + correlation.logs.reduce(0) { $0 + $1.count + 1 })
        json.beginObject()
        json.key("logs")
        json.beginArray()
        for log in correlation.logs { json.raw(log) }
        json.endArray()
        json.member("id", correlation.key.id)
        json.key("trace_id")
        if let trace = correlation.key.traceID { json.string(trace) } else { json.null() }
        json.member("services", correlation.services)
        json.member("hosts", correlation.hosts)
        json.member("first_seen", CalendarTime.render(correlation.first))
        json.member("last_seen", CalendarTime.render(correlation.last))
        json.member("log_count", total)
        json.member("span_count", 0)
        json.member("logs_dropped", total - correlation.logs.count)
        json.key("severities")
        json.beginObject()
        for severity in Severity.allCases {
            if let count = correlation.severities[severity] { json.member(severity.rawValue, count) }
        }
        json.endObject()
        json.member("status", status(of: correlation.severities.keys))
        json.endObject()
        return json.bytes
    }
}
