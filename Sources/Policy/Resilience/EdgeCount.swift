import Basics

/// Makes edges of many events of one kind, so that a log or a journal tells when something began and when it was over, and not each of a
/// thousand times a second that it happened.
///
/// The first event is told. What follows is counted, until none has come for `quiet`; then the end is told, with the count.
///
/// Pure, O(1), no allocation.
public struct EdgeCount: Sendable {
    /// What was told to have begun, and is over.
    public struct End: Sendable, Equatable {
        /// All events, the first one too.
        public let count: Int
        /// From the first to the last.
        public let lasted: Duration
    }

    /// For so long there must be no event until it counts as over.
    public let quiet: Duration
    private var began = MonotonicTime(nanoseconds: 0)
    private var latest = MonotonicTime(nanoseconds: 0)
    private var count = 0

    public init(quiet: Duration = .seconds(10)) { self.quiet = quiet }

    /// Something has begun that is not over yet.
    public var isOn: Bool { count > 0 }

    /// One event, or `times` of them. True: it is the first, and should be told.
    public mutating func happened(_ now: MonotonicTime, times: Int = 1) -> Bool {
        let isFirst = count == 0
        if isFirst { began = now }
        latest = now
        count += max(times, 1)
        return isFirst
    }

    /// Once, when it is over; nil otherwise. Ask from time to time: it does not matter how often.
    public mutating func ended(_ now: MonotonicTime) -> End? {
        guard count > 0, now - latest >= quiet else { return nil }
        defer { count = 0 }
        return End(count: count, lasted: latest - began)
    }
}
