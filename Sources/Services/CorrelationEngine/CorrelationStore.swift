import Basics
import JSONCoding

/// Where correlations live. The memory form and the Redis form pass one same test suite.
///
/// Promises: a record delivered twice counts once; a group (up to 500 records of it at a time) is applied whole or not at all; when `ingest` has returned, what it
/// accepted is in the store; a correlation and its place in the index expire together, `lifetime` after its last new record.
public protocol CorrelationStore: Sendable {
    /// `redis` or `in-memory`: what the engine reports as its state backend.
    var backend: String { get }
    func ingest(_ groups: [RecordGroup]) async throws(StoreFailure) -> [IngestOutcome]
    /// The correlation as JSON, or nil.
    func correlation(id: String) async throws(StoreFailure) -> [UInt8]?
    /// Newest first by last change.
    func list(_ query: CorrelationQuery) async throws(StoreFailure) -> CorrelationPage
    func count() async throws(StoreFailure) -> Int
    /// Forgets what has expired. Called now and then by every instance; costs nothing when there is nothing.
    func sweep() async throws(StoreFailure)
}

/// What became of one group.
public struct IngestOutcome: Sendable, Equatable {
    public var added = 0
    public var duplicates = 0
    /// Records beyond what one correlation holds: refused, not stored.
    public var refused = 0
    /// This group made the correlation.
    public var created = false
}

/// The store did not answer. What was asked may be asked again: ingest is idempotent and the rest only reads.
public struct StoreFailure: Error, Sendable {
    public let reason: String
}

/// What bounds one correlation, so that a flood of one trace id stays harmless.
public struct CorrelationBounds: Sendable {
    /// Records kept in `logs`; further ones count in `logs_dropped`.
    public var logs = 1000
    /// Records counted at all (each costs the memory of its fingerprint); beyond, they are refused.
    public var records = 10_000
    /// Bytes of kept records; beyond, further ones count in `logs_dropped`.
    public var bytes = 4 << 20
    /// Names in `services` and in `hosts`.
    public var names = 64
    public init() {}
}

public struct CorrelationQuery: Sendable, Equatable {
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
            guard let dot = text.firstIndex(of: "."), let score = Int64(text[..<dot]), text.utf8.count < 300 else { return nil }
            self.init(score: score, id: String(text[text.index(after: dot)...]))
        }

        public var text: String { "\(score).\(id)" }
    }

    /// Correlations looked at for one page, so that a filter that matches nothing stays cheap; the cursor goes on from there.
    static let examineLimit = 2000

    func matches(_ summary: CorrelationSummary) -> Bool {
        if let service, !summary.services.contains(service) { return false }
        if let status, summary.status != status { return false }
        if let from, summary.last < from { return false }
        if let to, summary.first > to { return false }
        if let minimumDuration, (summary.last.milliseconds - summary.first.milliseconds) * 1_000_000 < minimumDuration.nanoseconds { return false }
        return true
    }
}

public struct CorrelationPage: Sendable {
    /// Each as JSON.
    public var items: [[UInt8]] = []
    public var next: CorrelationQuery.Cursor?
}

/// What filters look at.
public struct CorrelationSummary: Sendable, Equatable {
    public let services: [String]
    public let status: String
    public let first: WallTime
    public let last: WallTime
}

/// The gravest severity decides: FATAL and ERROR make `error`, WARN makes `warning`, anything else is `ok`.
func status(of severities: some Sequence<Severity>) -> String {
    guard let worst = severities.max() else { return "ok" }
    return worst >= .error ? "error" : worst == .warn ? "warning" : "ok"
}
