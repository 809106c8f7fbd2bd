import Basics
import Synchronization

/// Correlations in this process: document 000's in-memory mode, for one instance. Lost when it ends, its queues with it.
///
/// Memory is bounded by `capacity` bytes. When it is full, the oldest correlations that are complete and exported are forgotten before
/// their time; when there are none, a delivery is refused as a failure of the store (503), because nothing that was acknowledged and not
/// yet emitted may be pushed out.
public final class MemoryCorrelationStore: CorrelationStore {
    private struct Entry {
        var text: [UInt8]
        var marks: Marks
        var pending = 0
        var mark = 0
        var revision = 0
        /// The place in `changes` that is its newest.
        var change = 0
        var changed: Int64 = 0
        var isRooted = false
        /// Exports that have it to send.
        var held = 0
    }

    private struct State {
        var entries: [CorrelationKey: Entry] = [:]
        /// Keys in the order of their changes; an entry whose place is not this one has changed since. `begin` counts what was cut off.
        var changes: [(time: Int64, key: CorrelationKey)] = []
        var begin = 0
        /// Up to here, everything is complete; up to there, everything is forgotten.
        var settled = 0
        var expired = 0
        var rooted: [(time: Int64, key: CorrelationKey)] = []
        var rootedDone = 0
        var bytes = 0
        /// Room kept for deliveries that are being taken in.
        var reserved = 0
        var ledger = Ledger()
        /// Since the last round of settling.
        var forgotten = 0
        var emissions: [(number: Int, emission: Emission)] = []
        var emitted = 0
    }

    /// What an entry costs besides its bytes: measured, see docs/benchmarks.md.
    static let overhead = 450
    static let workLimit = 2000
    static let emissionLimit = 20_000

    public let backend = "in-memory"
    private let state = Mutex(State())
    private let instance: String
    private let lifetime: Int64
    private let rule: CompletionRule
    private let bounds: CorrelationBounds
    private let capacity: Int
    private let now: @Sendable () -> WallTime
    private let pause: Pause
    private let queues: [ExportTarget: MemoryExportQueue]

    public init(
        lifetime: Duration, instance: String = "1", rule: CompletionRule = CompletionRule(),
        bounds: CorrelationBounds = CorrelationBounds(),
        capacity: Int = 512 << 20, targets: [ExportTarget] = [], exports: ExportLimits = ExportLimits(),
        now: @escaping @Sendable () -> WallTime = { .now }, pause: @escaping @Sendable () async -> Void = { await Task.yield() }
    ) {
        self.pause = pause
        self.lifetime = lifetime.nanoseconds / 1_000_000
        self.instance = instance
        self.rule = rule
        self.bounds = bounds
        self.capacity = capacity
        self.now = now
        queues = Dictionary(uniqueKeysWithValues: targets.map { ($0, MemoryExportQueue(limits: exports)) })
        for queue in queues.values { queue.store = self }
    }

    // MARK: writing

    public func ingest(_ delivery: Delivery) async throws(StoreFailure) -> [IngestOutcome] {
        let time = now().milliseconds
        let need = delivery.groups.reduce(0) { $0 + $1.piece.count + $1.marks.bytes.count + MemoryCorrelationStore.overhead }
        // Room is kept for all of it, because others come in between.
        guard need <= capacity else {
            throw StoreFailure(
                reason:
                    "it takes \(need >> 10) KiB, and memory holds \(capacity >> 10) KiB in all (CORRELATION_MEMORY_MB); send it in parts",
                isTooLarge: true)
        }
        let hasRoom = state.withLock { state in
            if state.bytes + state.reserved + need > capacity { forget(&state, state.reserved + need) }
            if state.bytes + state.reserved + need > capacity { return false }
            state.reserved += need
            state.ledger.received += delivery.duplicates + delivery.rejected
            state.ledger.duplicate += delivery.duplicates
            state.ledger.rejected += delivery.rejected
            return true
        }
        guard hasRoom else { throw StoreFailure(reason: "memory holds \(capacity >> 20) MiB of correlations, which is all it may") }
        var outcomes: [IngestOutcome] = []
        outcomes.reserveCapacity(delivery.groups.count)
        var pace = Pace(pause)
        var at = 0
        while at < delivery.groups.count {
            var work = 0
            state.withLock { state in
                while at < delivery.groups.count, work < MemoryCorrelationStore.turnWork {
                    let group = delivery.groups[at]
                    state.ledger.received += group.marks.count
                    outcomes.append(apply(group, &state, time))
                    work += group.piece.count + 64 * group.marks.count + 512
                    at += 1
                }
            }
            if at < delivery.groups.count { await pace.did(work) }
        }
        state.withLock { $0.reserved -= need }
        return outcomes
    }

    /// Of a delivery that is taken in while others wait for the lock, in bytes and what is as costly as bytes.
    private static let turnWork = 512 << 10

    private func apply(_ group: RecordGroup, _ state: inout State, _ time: Int64) -> IngestOutcome {
        // One look-up, and the entry is changed in its place.
        guard let index = state.entries.index(forKey: group.key) else { return create(group, &state, time) }
        var outcome = IngestOutcome()
        let before = state.entries.values[index].marks.bytes.count + state.entries.values[index].text.count
        merge(group, into: &state.entries.values[index], &outcome)
        state.ledger.duplicate += outcome.duplicates
        state.ledger.rejected += outcome.refused
        state.ledger.pending += outcome.added
        guard outcome.added > 0 else { return outcome }
        state.bytes += state.entries.values[index].marks.bytes.count + state.entries.values[index].text.count - before
        let place = note(group, isRooted: state.entries.values[index].isRooted, &state, time)
        place.apply(to: &state.entries.values[index])
        return outcome
    }

    private func create(_ group: RecordGroup, _ state: inout State, _ time: Int64) -> IngestOutcome {
        var entry = Entry(text: Array(group.piece[...]), marks: Marks(bytes: Array(group.marks.bytes[...])))
        var outcome = IngestOutcome(added: group.marks.count, created: true)
        if group.marks.count > bounds.records || group.piece.count > bounds.bytes {
            entry = Entry(text: [], marks: Marks())
            outcome = IngestOutcome(created: true)
            merge(group, into: &entry, &outcome)
        }
        entry.pending = outcome.added
        state.ledger.duplicate += outcome.duplicates
        state.ledger.rejected += outcome.refused
        state.ledger.pending += outcome.added
        state.bytes += entry.marks.bytes.count + entry.text.count + MemoryCorrelationStore.overhead
        note(group, isRooted: false, &state, time).apply(to: &entry)
        state.entries[group.key] = entry
        return outcome
    }

    /// Where a change was noted.
    private struct Place {
        let change: Int
        let time: Int64
        let isRooted: Bool

        func apply(to entry: inout Entry) {
            entry.change = change
            entry.changed = time
            entry.isRooted = isRooted
        }
    }

    private func note(_ group: RecordGroup, isRooted: Bool, _ state: inout State, _ time: Int64) -> Place {
        state.changes.append((time, group.key))
        let isNew = rule.afterRoot != nil && group.hasRoot && !isRooted
        if isNew { state.rooted.append((time, group.key)) }
        return Place(change: state.begin + state.changes.count - 1, time: time, isRooted: isRooted || isNew)
    }

    private func merge(_ group: RecordGroup, into entry: inout Entry, _ outcome: inout IngestOutcome) {
        var keep: [Bool] = []
        keep.reserveCapacity(group.marks.count)
        entry.marks.reserve(group.marks.count)
        // Many in a large correlation: each would be searched for among thousands.
        var known = group.marks.count * entry.marks.count > 1 << 14 ? entry.marks.set : nil
        for i in 0..<group.marks.count {
            let mark = group.marks[i]
            if known?.contains(mark) ?? entry.marks.contains(mark.kind, mark.hash) {
                outcome.duplicates += 1
                keep.append(false)
            } else if entry.marks.count >= bounds.records {
                outcome.refused += 1
                keep.append(false)
            } else {
                entry.marks.add(mark.kind, mark.hash)
                known?.insert(mark)
                outcome.added += 1
                keep.append(true)
            }
        }
        entry.pending += outcome.created ? 0 : outcome.added
        if outcome.added == 0 { return }
        let piece = outcome.added == keep.count ? group.piece : RecordGroup.cut(group.piece, keep)
        // A piece that does not fit is counted and not kept: `logs_dropped` and `spans_dropped` tell.
        if entry.text.count + piece.count <= bounds.bytes {
            // Most correlations grow once or twice: doubling would waste a third of the memory.
            if entry.text.count < 32 << 10 { entry.text.reserveCapacity(entry.text.count + piece.count) }
            entry.text.append(contentsOf: piece)
        }
    }

    // MARK: completing and forgetting

    public func settle() async throws(StoreFailure) -> Settled {
        let time = now().milliseconds
        return state.withLock { state in
            var settled = Settled()
            var emitted: [Emission] = []
            settleRooted(&state, time, &settled, &emitted)
            settleQuiet(&state, time, &settled, &emitted)
            publish(emitted, &state)
            expire(&state, time, &settled)
            trim(&state)
            settled.forgotten = state.forgotten
            state.forgotten = 0
            return settled
        }
    }

    private func settleRooted(_ state: inout State, _ time: Int64, _ settled: inout Settled, _ emitted: inout [Emission]) {
        guard let wait = rule.afterRoot.map({ $0.nanoseconds / 1_000_000 }) else { return }
        var work = 0
        while state.rootedDone < state.rooted.count, state.rooted[state.rootedDone].time <= time - wait {
            if work == MemoryCorrelationStore.workLimit {
                settled.more = true
                break
            }
            work += 1
            if let emission = emit(state.rooted[state.rootedDone].key, &state, &settled) {
                settled.byRoot += 1
                emitted.append(emission)
            }
            state.rootedDone += 1
        }
        if state.rootedDone > 4096, state.rootedDone > state.rooted.count / 2 {
            state.rooted.removeFirst(state.rootedDone)
            state.rootedDone = 0
        }
    }

    private func settleQuiet(_ state: inout State, _ time: Int64, _ settled: inout Settled, _ emitted: inout [Emission]) {
        let due = time - rule.quiet.nanoseconds / 1_000_000
        var work = 0
        while state.settled - state.begin < state.changes.count, state.changes[state.settled - state.begin].time <= due {
            if work == MemoryCorrelationStore.workLimit {
                settled.more = true
                settled.lag = .milliseconds(due - state.changes[state.settled - state.begin].time)
                return
            }
            let key = state.changes[state.settled - state.begin].key
            if state.entries[key]?.change == state.settled, let emission = emit(key, &state, &settled) {
                settled.byQuiet += 1
                emitted.append(emission)
            }
            work += 1
            state.settled += 1
        }
    }

    private func emit(_ key: CorrelationKey, _ state: inout State, _ settled: inout Settled) -> Emission? {
        guard let index = state.entries.index(forKey: key), state.entries.values[index].pending > 0 else { return nil }
        let pending = state.entries.values[index].pending
        state.ledger.pending -= pending
        state.ledger.correlated += pending
        let emission = {
            (entry: inout Entry) in
            entry.pending = 0
            entry.revision += 1
            entry.isRooted = false
            defer { entry.mark = entry.text.count }
            entry.held += queues.count
            return Emission(key: key, revision: entry.revision, from: entry.mark, to: entry.text.count)
        }(&state.entries.values[index])
        if emission.revision > 1 { settled.updated += 1 }
        return emission
    }

    private func publish(_ emitted: [Emission], _ state: inout State) {
        if emitted.isEmpty { return }
        for emission in emitted {
            state.emitted += 1
            state.emissions.append((state.emitted, emission))
        }
        if state.emissions.count > 2 * MemoryCorrelationStore.emissionLimit {
            state.emissions.removeFirst(state.emissions.count - MemoryCorrelationStore.emissionLimit)
        }
        for queue in queues.values { for lost in queue.put(emitted) { release(lost, &state) } }
    }

    private func release(_ emission: Emission, _ state: inout State) {
        if let index = state.entries.index(forKey: emission.key) { state.entries.values[index].held -= 1 }
    }

    fileprivate func released(_ batch: ExportBatch) {
        state.withLock { state in for emission in batch.emissions { release(emission, &state) } }
    }

    private func expire(_ state: inout State, _ time: Int64, _ settled: inout Settled) {
        var work = 0
        while state.expired - state.begin < state.changes.count, state.changes[state.expired - state.begin].time <= time - lifetime {
            if work == MemoryCorrelationStore.workLimit {
                settled.more = true
                return
            }
            let key = state.changes[state.expired - state.begin].key
            if let entry = state.entries[key], entry.change == state.expired {
                // What waits for its export, or to be complete, is kept, and everything after it.
                if entry.held > 0 || entry.pending > 0 && lifetime >= rule.quiet.nanoseconds / 1_000_000 { return }
                drop(key, entry, &state)
                settled.expired += 1
            }
            work += 1
            state.expired += 1
            state.settled = max(state.settled, state.expired)
        }
    }

    private func drop(_ key: CorrelationKey, _ entry: Entry, _ state: inout State) {
        state.ledger.pending -= entry.pending
        state.ledger.expired += entry.pending
        state.bytes -= entry.marks.bytes.count + entry.text.count + MemoryCorrelationStore.overhead
        state.entries[key] = nil
    }

    /// Makes room by forgetting complete and exported correlations, the oldest first.
    private func forget(_ state: inout State, _ need: Int) {
        // A little more than needed, so that not every delivery has to.
        let goal = capacity - need - capacity / 64
        while state.bytes > goal, state.expired < state.settled {
            let key = state.changes[state.expired - state.begin].key
            if let entry = state.entries[key], entry.change == state.expired {
                if entry.held > 0 || entry.pending > 0 { break }
                drop(key, entry, &state)
                state.forgotten += 1
            }
            state.expired += 1
        }
        trim(&state)
    }

    private func trim(_ state: inout State) {
        let done = min(state.expired, state.settled) - state.begin
        guard done > 4096, done > state.changes.count / 2 else { return }
        state.changes.removeFirst(done)
        state.begin += done
    }

    // MARK: reading

    public func correlation(_ key: CorrelationKey) async throws(StoreFailure) -> StoredCorrelation? {
        let time = now().milliseconds
        return state.withLock { state in
            guard let entry = state.entries[key], entry.changed > time - lifetime || entry.held > 0 else { return nil }
            return StoredCorrelation(key: key, marks: entry.marks, text: entry.text, pending: entry.pending, revision: entry.revision)
        }
    }

    fileprivate func part(_ emission: Emission) -> StoredCorrelation? {
        state.withLock { state in
            guard let entry = state.entries[emission.key], entry.text.count >= emission.to else { return nil }
            return StoredCorrelation(
                key: emission.key, marks: entry.marks, text: Array(entry.text[emission.from..<emission.to]), pending: 0,
                revision: emission.revision)
        }
    }

    public func list(_ query: CorrelationQuery) async throws(StoreFailure) -> CorrelationPage {
        let (found, end) = changes(after: query.cursor, since: now().milliseconds - lifetime)
        var page = CorrelationPage()
        for entry in found {
            if page.isFull(query) { return page }
            let stored = try await correlation(entry.key)
            if stored?.text.count ?? 0 > Pace.piece { await pause() }
            page.look(at: stored, query)
            page.next = CorrelationQuery.Cursor(score: Int64(entry.place), id: entry.key.id)
        }
        page.next = end
        return page
    }

    /// Places of `changes` that one step walks through, those included that are no longer the newest of their correlation.
    private static let walkLimit = 16_384

    /// What changed last, newest first, as much as one step looks at; and where the next one goes on, nil at the end. A cursor's score is a
    /// place in `changes`: each change has its own, however many come in one millisecond, so that no step looks for where it was.
    private func changes(after cursor: CorrelationQuery.Cursor?, since: Int64) -> (
        [(place: Int, key: CorrelationKey)], CorrelationQuery.Cursor?
    ) {
        state.withLock { state in
            var found: [(place: Int, key: CorrelationKey)] = []
            let newest = state.changes.count - 1
            var i = min(cursor.map { Int(clamping: $0.score).subtractingClamped(state.begin + 1) } ?? newest, newest)
            let last = max(i - MemoryCorrelationStore.walkLimit, -1)
            while i > last, found.count < CorrelationQuery.stepCount {
                let change = state.changes[i]
                if change.time > since, state.entries[change.key]?.change == state.begin + i { found.append((state.begin + i, change.key)) }
                i -= 1
            }
            if i < 0 { return (found, nil) }
            return (found, CorrelationQuery.Cursor(score: Int64(state.begin + i + 1), id: state.changes[i + 1].key.id))
        }
    }

    public func count() async throws(StoreFailure) -> Int { state.withLock { $0.entries.count } }

    public func ledger() async throws(StoreFailure) -> [String: Ledger] { [instance: state.withLock { $0.ledger }] }

    public func begin(_ place: EmissionPlace) async throws(StoreFailure) -> EmissionPlace {
        state.withLock { state in
            if place == .now { return MemoryCorrelationStore.place(state.emitted) }
            guard place.parts.count == 1, let given = Int(exactly: place.parts[0].number), given <= state.emitted else {
                return MemoryCorrelationStore.place(0)
            }
            return MemoryCorrelationStore.place(given)
        }
    }

    private static func place(_ number: Int) -> EmissionPlace { EmissionPlace(text: "0-\(number)") }

    public func emissions(after place: EmissionPlace, limit: Int) async throws(StoreFailure) -> (emissions: [Emission], next: EmissionPlace)
    {
        if place == .now { return ([], try await begin(place)) }
        return state.withLock { state in
            let after = place.parts.first.flatMap { Int(exactly: $0.number) } ?? state.emitted
            // Numbers have no gaps, so the place in the list follows.
            guard let oldest = state.emissions.first?.number, after < state.emitted else { return ([], place) }
            let start = max(after - oldest + 1, 0)
            let found = state.emissions[start...].prefix(limit)
            return (found.map(\.emission), MemoryCorrelationStore.place(found.last?.number ?? after))
        }
    }

    public func exports(_ target: ExportTarget) -> any ExportQueue { queues[target]! }
}

/// Batches in this process.
private final class MemoryExportQueue: ExportQueue {
    private struct State {
        var waiting: [ExportBatch] = []
        var taken = 0
        var dropped = 0
        weak var store: MemoryCorrelationStore?
    }

    private let state = Mutex(State())
    private let limits: ExportLimits

    init(limits: ExportLimits) { self.limits = limits }

    var store: MemoryCorrelationStore? {
        get { state.withLock { $0.store } }
        set { state.withLock { $0.store = newValue } }
    }

    /// Returns the emissions that were pushed out.
    func put(_ emissions: [Emission]) -> [Emission] {
        state.withLock { state in
            var batch: [Emission] = []
            var bytes = 0
            func close() {
                if !batch.isEmpty { state.waiting.append(ExportBatch(text: "0 " + batch.map(\.text).joined(separator: " "))) }
                batch = []
                bytes = 0
            }
            for emission in emissions {
                if batch.count == limits.correlations || bytes > limits.bytes { close() }
                batch.append(emission)
                bytes += emission.to - emission.from
            }
            close()
            let over = max(state.waiting.count + state.taken - limits.batches, 0)
            let lost = state.waiting.prefix(over).flatMap(\.emissions)
            state.waiting.removeFirst(min(over, state.waiting.count))
            state.dropped += lost.count
            return lost
        }
    }

    func take(_ limit: Int) async throws(StoreFailure) -> [ExportBatch] {
        state.withLock { state in
            let batches = Array(state.waiting.prefix(limit))
            state.waiting.removeFirst(batches.count)
            state.taken += batches.count
            return batches
        }
    }

    func load(_ batch: ExportBatch) async throws(StoreFailure) -> [StoredCorrelation] {
        guard let store else { return [] }
        return batch.emissions.compactMap { store.part($0) }
    }

    func finish(_ batch: ExportBatch) async throws(StoreFailure) {
        state.withLock { $0.taken -= 1 }
        store?.released(batch)
    }

    func renew(_ batch: ExportBatch) async throws(StoreFailure) -> ExportBatch? { batch }

    func giveBack(_ batch: ExportBatch, left: ExportBatch) async throws(StoreFailure) {
        state.withLock { state in
            state.taken -= 1
            state.waiting.insert(left, at: 0)
        }
        let kept = Set(left.emissions.map(\.key))
        store?.released(ExportBatch(text: "0 " + batch.emissions.filter { !kept.contains($0.key) }.map(\.text).joined(separator: " ")))
    }

    func depth() async throws(StoreFailure) -> Int { state.withLock { $0.waiting.count + $0.taken } }
    func dropped() async throws(StoreFailure) -> Int { state.withLock { $0.dropped } }
}
