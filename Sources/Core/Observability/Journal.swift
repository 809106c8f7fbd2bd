import Basics
import JSONCoding
import Synchronization

/// The decision journal: the latest decisions of a process, in memory, read by `muster why` and the admin
/// page. Bounded: beyond `capacity` the oldest goes, and `dropped` counts it.
public final class Journal: Sendable {
    public struct Entry: Sendable {
        public let at: WallTime
        public let record: DecisionRecord

        public init(at: WallTime, record: DecisionRecord) {
            self.at = at
            self.record = record
        }

        /// Whether decisions of this kind can come many times a second: samples of routing, failed tries and limits that move.
        public var isFrequent: Bool { record.kind == .route || record.kind == .retry || record.kind == .limit }
    }

    /// The latest of a kind of entries, with their numbers in the order of all.
    private struct Ring {
        var entries: [(number: Int, entry: Entry)] = []
        var start = 0

        /// Whether the oldest had to go.
        mutating func append(_ entry: Entry, _ number: Int, capacity: Int) -> Bool {
            if entries.count < capacity {
                entries.append((number, entry))
                return false
            }
            entries[start] = (number, entry)
            start = (start + 1) % capacity
            return true
        }

        var ordered: [(number: Int, entry: Entry)] { Array(entries[start...] + entries[..<start]) }
    }

    private struct State {
        /// By kind, those that come by the second, and would push everything else out.
        var frequent: [DecisionRecord.Kind: Ring] = [:]
        var others = Ring()
        var count = 0
        var dropped = 0
    }

    private let state = Mutex(State())
    private let capacity: Int
    private let recorder: (@Sendable (Entry) -> Void)?

    /// A journal of `capacity` decisions. Kinds of which decisions come many times a second have room of their own beside that: each kind a
    /// quarter of `capacity`.
    ///
    /// `earlier`: what was decided before, by another process. `recorder` is called with each decision that is appended, on the thread that
    /// appends it: it must not wait.
    public init(capacity: Int = 4096, earlier: [Entry] = [], recorder: (@Sendable (Entry) -> Void)? = nil) {
        self.capacity = max(4, capacity)
        self.recorder = recorder
        for entry in earlier { remember(entry) }
    }

    public func append(_ record: DecisionRecord, at: WallTime = .now) {
        let entry = Entry(at: at, record: record)
        remember(entry)
        recorder?(entry)
    }

    private func remember(_ entry: Entry) {
        state.withLock { state in
            let number = state.count
            state.count += 1
            let isFull =
                entry.isFrequent
                ? state.frequent[entry.record.kind, default: Ring()].append(entry, number, capacity: capacity / 4)
                : state.others.append(entry, number, capacity: capacity)
            if isFull { state.dropped += 1 }
        }
    }

    /// The entries, newest last. With `subject`, only those about it or about a replica of it.
    public func entries(subject: String? = nil) -> [Entry] {
        let rings = state.withLock { $0.frequent.values + [$0.others] }
        let ordered = rings.flatMap(\.ordered).sorted { $0.number < $1.number }.map(\.entry)
        guard let subject else { return ordered }
        return ordered.filter { $0.record.subject == subject || $0.record.subject.hasPrefix(subject + "/") }
    }

    public var dropped: Int { state.withLock { $0.dropped } }

    /// The entries as a JSON array, as the contract of `muster why --json` has it.
    public static func json(_ entries: [Entry]) -> [UInt8] {
        var json = JSONWriter(reserving: entries.count * 400 + 16)
        json.beginArray()
        for entry in entries { write(entry, to: &json) }
        json.endArray()
        return json.bytes
    }

    private static func write(_ entry: Entry, to json: inout JSONWriter) { write(entry.record, at: entry.at, to: &json) }

    /// Writes one decision as a JSON object; without a time when `time` is nil.
    public static func write(_ record: DecisionRecord, at time: WallTime?, to json: inout JSONWriter) {
        json.beginObject()
        writeMembers(record, at: time, to: &json)
        json.endObject()
    }

    static func writeMembers(_ record: DecisionRecord, at time: WallTime?, to json: inout JSONWriter) {
        if let time { json.member("at", CalendarTime.render(time)) }
        json.member("kind", record.kind.rawValue)
        json.member("subject", record.subject)
        json.key("inputs")
        json.beginObject()
        for input in record.inputs { json.member(input.name, input.value) }
        json.endObject()
        json.member("raw", record.raw)
        json.key("constraints")
        json.beginArray()
        for constraint in record.constraints {
            json.beginObject()
            json.member("name", constraint.name)
            json.member("before", constraint.before)
            json.member("after", constraint.after)
            json.member("reason", constraint.reason)
            json.endObject()
        }
        json.endArray()
        json.member("outcome", record.outcome)
        json.member("sentence", record.sentence)
        json.member("flip", record.flip)
    }
}
