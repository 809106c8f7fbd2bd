import Basics
import JSONCoding

/// Where correlations live. The memory form and the Redis form pass one same test suite.
///
/// Promises: a record delivered twice counts once; a group (up to 500 records) is applied whole or not at all; when `ingest` has returned,
/// what it accepted is in the store, and in the ledger; a correlation and its place in the index go together, `lifetime` after its last new
/// record, but not before its exports are through.
public protocol CorrelationStore: Sendable {
    /// `redis` or `in-memory`: what the engine reports as its state backend.
    var backend: String { get }
    /// One outcome a group, in their order. A delivery without groups is counted in the ledger all the same.
    func ingest(_ delivery: Delivery) async throws(StoreFailure) -> [IngestOutcome]
    func correlation(_ key: CorrelationKey) async throws(StoreFailure) -> StoredCorrelation?
    /// Newest first by last change, at most `query.limit`. It may stop earlier, when it has looked at enough or has enough bytes: then `next`
    /// says where to go on. Only without `next` there are no more.
    func list(_ query: CorrelationQuery) async throws(StoreFailure) -> CorrelationPage
    func count() async throws(StoreFailure) -> Int
    /// Completes what is due and forgets what has expired; at most a bounded piece of work a call. Called often by every instance.
    func settle() async throws(StoreFailure) -> Settled
    /// What became of every record that was received, by instance.
    func ledger() async throws(StoreFailure) -> [String: Ledger]
    /// Where to begin with what a client gave as its place: there, if the store knows that place; at what it remembers first, if it does not
    /// (another layout, another store, a place that is yet to come), because then anything may have been missed. For `.now` at its end.
    func begin(_ place: EmissionPlace) async throws(StoreFailure) -> EmissionPlace
    /// Emissions after `place`, oldest first. `place` is one of this store's own, or `.now`, after which there are none yet.
    func emissions(after place: EmissionPlace, limit: Int) async throws(StoreFailure) -> (emissions: [Emission], next: EmissionPlace)
    /// The queue of a target's exports.
    func exports(_ target: ExportTarget) -> any ExportQueue
}

/// What became of one group.
public struct IngestOutcome: Sendable, Equatable {
    public var added = 0
    public var duplicates = 0
    /// Records beyond what one correlation holds: refused, not stored.
    public var refused = 0
    /// This group made the correlation.
    public var created = false
    public init(added: Int = 0, duplicates: Int = 0, refused: Int = 0, created: Bool = false) {
        self.added = added
        self.duplicates = duplicates
        self.refused = refused
        self.created = created
    }
}

/// The store did not answer, or has no room. What was asked may be asked again: ingest is idempotent and the rest only reads.
public struct StoreFailure: Error, Sendable, Equatable {
    public let reason: String
    /// It does not pass by itself: somebody must do what the reason says.
    public var needsMending = false
    /// The delivery is larger than the whole store: asked again it would fail again.
    public var isTooLarge = false

    public init(reason: String, needsMending: Bool = false, isTooLarge: Bool = false) {
        self.reason = reason
        self.needsMending = needsMending
        self.isTooLarge = isTooLarge
    }
}

/// What bounds one correlation, so that a flood of one trace id stays harmless.
public struct CorrelationBounds: Sendable {
    /// Records counted at all (each costs the nine bytes of its mark); beyond, they are refused.
    public var records = 10_000
    /// Bytes of kept records; beyond, further ones are counted and dropped.
    public var bytes = 4 << 20
    public init() {}
}

/// When a correlation is complete.
public struct CompletionRule: Sendable {
    /// Complete when nothing came for this long.
    public var quiet = Duration.seconds(5)
    /// Or this long after a span without a parent came; nil: only by quiet time.
    public var afterRoot: Duration?
    public init() {}
}

/// A correlation as it is stored.
public struct StoredCorrelation: Sendable {
    public let key: CorrelationKey
    public var marks: Marks
    /// Pieces, one after the other (see `RecordGroup`).
    public var text: [UInt8]
    /// Records that came since the last emission; 0: complete.
    public var pending: Int
    /// How often it was emitted.
    public var revision: Int
}

/// What a round of settling did.
public struct Settled: Sendable, Equatable {
    public var byQuiet = 0
    public var byRoot = 0
    /// Of these, emitted before and emitted again because more came.
    public var updated = 0
    /// Correlations forgotten at the end of their lifetime.
    public var expired = 0
    /// Complete and exported ones forgotten before that, to make room.
    public var forgotten = 0
    /// How long the oldest one that is due has waited beyond its time.
    public var lag = Duration.zero
    /// There is more to do at once.
    public var more = false
    /// Why a part of the store (a shard of several) could not be settled; the others were.
    public var failure: StoreFailure?
}

/// What became of records. `received` equals the sum of the others, always.
public struct Ledger: Sendable, Equatable {
    public var received = 0
    /// In correlations that were emitted.
    public var correlated = 0
    /// Stored, and not yet emitted.
    public var pending = 0
    /// Forgotten before they were emitted.
    public var expired = 0
    public var rejected = 0
    public var duplicate = 0

    public init() {}

    public var imbalance: Int { received &- correlated &- pending &- expired &- rejected &- duplicate }

    /// Names and values in the order of the contract.
    public static let columns: [(name: String, path: WritableKeyPath<Ledger, Int> & Sendable)] = [
        ("received", \.received), ("correlated", \.correlated), ("pending", \.pending), ("expired", \.expired), ("rejected", \.rejected),
        ("duplicate", \.duplicate),
    ]

    static func + (a: Ledger, b: Ledger) -> Ledger {
        var sum = a
        for column in columns { sum[keyPath: column.path] &+= b[keyPath: column.path] }
        return sum
    }
}

/// One correlation that was complete at a time.
public struct Emission: Sendable, Equatable {
    public let key: CorrelationKey
    /// 1 for the first, more for updates by late arrivals.
    public let revision: Int
    /// What is new in it: a part of its stored text, whole pieces.
    public let from: Int
    public let to: Int
}

/// A place in the stream of emissions; its text is what a client gives back to go on.
public struct EmissionPlace: Sendable, Equatable {
    public let text: String
    public static let now = EmissionPlace(text: "")
    init(text: String) { self.text = text }
    /// nil when it is none of ours: `<milliseconds>-<number>`, one for each shard, with dots between. Numbers have up to 64 bits.
    public init?(parsing text: String) {
        guard (1...20_000).contains(text.utf8.count) else { return nil }
        var parts: [String] = []
        for place in text.split(separator: ".", omittingEmptySubsequences: false) {
            let numbers = place.split(separator: "-", omittingEmptySubsequences: false)
            guard numbers.count == 2, numbers.allSatisfy({ !$0.isEmpty && $0.utf8.allSatisfy { $0 &- 48 < 10 } }),
                let time = UInt64(numbers[0]), let number = UInt64(numbers[1])
            else { return nil }
            parts.append("\(time)-\(number)")
        }
        self.text = parts.joined(separator: ".")
    }

    /// Its parts, one a shard.
    var parts: [(time: UInt64, number: UInt64)] {
        text.split(separator: ".").map { part in
            let numbers = part.split(separator: "-").map { UInt64($0) ?? 0 }
            return numbers.count == 2 ? (numbers[0], numbers[1]) : (0, 0)
        }
    }
}

public struct CorrelationQuery: Sendable, Equatable {
    /// Only this one.
    public var trace: CorrelationKey?
    public var service: String?
    public var status: String?
    /// A correlation matches when its time from first to last record touches this range.
    public var from: WallTime?
    public var to: WallTime?
    public var minimumDuration: Duration?
    public var limit = 50
    public var cursor: Cursor?
    public init() {}

    /// A place in the list: the change time and id of the last one seen.
    public struct Cursor: Sendable, Equatable {
        public let score: Int64
        public let id: String

        public init(score: Int64, id: String) {
            self.score = score
            self.id = id
        }

        public init?(text: String) {
            guard text.utf8.count < 300, let dot = text.firstIndex(of: "."), let score = Int64(text[..<dot]), score >= 0 else { return nil }
            let id = String(text[text.index(after: dot)...])
            guard text.first != "+", CorrelationKey(id: id) != nil else { return nil }
            self.init(score: score, id: id)
        }

        public var text: String { "\(score).\(id)" }
    }

    /// Correlations looked at for one page, so that a filter that matches nothing stays cheap; the cursor goes on from there.
    static let examineLimit = 2000
    /// One step of a page (one call of `list`): correlations looked at, bytes of them as they are stored, and bytes of JSON. A step goes on to
    /// the end of the correlation with which it passes one of these.
    static let stepCount = 256, stepStored = 2 << 20, stepBytes = 1 << 20
    /// A page's bytes of JSON: with the correlation that passes this it ends, and its cursor goes on from there.
    static let pageBytes = 8 << 20

    func matches(_ correlation: Correlation) -> Bool {
        if let service, !correlation.services.contains(service) { return false }
        if let status, correlation.status != status { return false }
        if let from, correlation.last / 1_000_000 < from.milliseconds { return false }
        if let to, correlation.first / 1_000_000 > to.milliseconds { return false }
        if let minimumDuration, correlation.duration < minimumDuration.nanoseconds { return false }
        if let trace, correlation.key != trace { return false }
        return true
    }
}

public struct CorrelationPage: Sendable {
    /// Each as JSON.
    public var items: [[UInt8]] = []
    public var next: CorrelationQuery.Cursor?
    /// Correlations that were looked at.
    public var examined = 0
    /// Bytes of the items, and of what was looked at as it is stored.
    private var bytes = 0, stored = 0
    public init() {}

    /// Looks at one correlation, and keeps it if it matches.
    mutating func look(at correlation: StoredCorrelation?, _ query: CorrelationQuery) {
        examined += 1
        guard let correlation else { return }
        stored += correlation.text.count + correlation.marks.bytes.count
        guard let json = correlation.read({ query.matches($0) ? $0.json(limit: Correlation.listed) : nil }), let json else { return }
        items.append(json)
        bytes += json.count
    }

    /// The step is done.
    func isFull(_ query: CorrelationQuery) -> Bool {
        items.count >= query.limit || examined >= CorrelationQuery.stepCount || stored >= CorrelationQuery.stepStored
            || bytes >= CorrelationQuery.stepBytes
    }
}
