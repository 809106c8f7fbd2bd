import Basics

/// Reduces many events of one kind to a beginning and an end, so that a log or a journal tells when something began and when it was over,
/// and not each of a thousand events a second.
///
/// The first event is told. The events after it are counted, until none has come for `quiet`; then the end is told, with the count.
///
/// Pure, O(1), no allocation.
public struct EdgeCount: Sendable {
    /// The end of a run of events whose beginning was told.
    public struct End: Sendable, Equatable {
        /// The number of all events, the first one included.
        public let count: Int
        /// The time from the first event to the last.
        public let lasted: Duration
    }

    /// How long there must be no event until the run counts as over.
    public let quiet: Duration
    private var began = MonotonicTime(nanoseconds: 0)
    private var latest = MonotonicTime(nanoseconds: 0)
    private var count = 0

    public init(quiet: Duration = .seconds(10)) { self.quiet = quiet }

    /// Whether a run of events has begun and is not over yet.
    public var isOn: Bool { count > 0 }

    /// Notes one event, or `times` of them. True when it is the first of a run, and should be told.
    public mutating func happened(_ now: MonotonicTime, times: Int = 1) -> Bool {
        let isFirst = count == 0
        if isFirst { began = now }
        latest = now
        count += max(times, 1)
        return isFirst
    }

    /// The end of a run, once, when it is over; nil otherwise. To be asked from time to time: how often does not matter.
    public mutating func ended(_ now: MonotonicTime) -> End? {
        guard count > 0, now - latest >= quiet else { return nil }
        defer { count = 0 }
        return End(count: count, lasted: latest - began)
    }
}
