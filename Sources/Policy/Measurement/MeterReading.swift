import Basics

/// What a figure is a figure of: a metric of a service, or of one of its replicas.
public struct MeterKey: Hashable, Sendable, CustomStringConvertible {
    /// The service's name.
    public let service: String
    /// The replica's number; nil for a figure of the whole service (a queue's length).
    public let replica: Int?
    /// As the metric was called by whoever asked for it.
    public let metric: String

    /// The key of a metric of a service, or of its replica of this number.
    public init(service: String, replica: Int? = nil, metric: String) {
        self.service = service
        self.replica = replica
        self.metric = metric
    }

    /// `engine/2 cpu`
    public var description: String { replica.map { "\(service)/\($0) \(metric)" } ?? "\(service) \(metric)" }
}

/// A figure that was read, and what is needed to judge it.
public struct MeterFigure: Equatable, Sendable {
    /// What one of it is.
    public enum Unit: String, Sendable {
        /// A thousandth of a processor.
        case milliCores = "millicores"
        case bytes
        case perSecond = "per_second"
        case seconds
        case count
    }

    /// Finite and not negative.
    public let value: Double
    /// What the value counts.
    public let unit: Unit
    /// When its last reading was made, on the monotonic clock.
    public let takenAt: MonotonicTime
    /// The time that it is a rate or a mean over; zero for a figure of one moment.
    public let window: Duration
    /// What a person should know of it: a counter began anew, a lag that is an upper bound. Empty when there is nothing.
    public let note: String
    /// The partitions that a lag is the sum of; empty for anything else.
    public let partitions: [PartitionOffsets]

    /// A figure as its meter read it. Its meter has looked at the value with `MeterFault.of`.
    public init(
        _ value: Double, _ unit: Unit, takenAt: MonotonicTime, window: Duration = .zero, note: String = "",
        partitions: [PartitionOffsets] = []
    ) {
        self.value = value
        self.unit = unit
        self.takenAt = takenAt
        self.window = window
        self.note = note
        self.partitions = partitions
    }

    /// The same figure with one more thing that a person should know of it.
    func noted(_ text: String) -> MeterFigure {
        MeterFigure(
            value, unit, takenAt: takenAt, window: window, note: note.isEmpty ? text : "\(note); \(text)", partitions: partitions)
    }
}

/// What is known of one key now: the last good figure, and how the last attempt went.
public struct MeterReading: Equatable, Sendable {
    /// What it is a reading of.
    public let key: MeterKey
    /// The last good one; nil when there was none.
    public var figure: MeterFigure?
    /// Why the last attempt gave none; nil when it gave `figure`.
    public var fault: MeterFault?
    /// When this was asked for: ages count from here.
    public let now: MonotonicTime
    /// Rounds that passed, since the last answer, without the source being asked, because it was still at work.
    public var skippedRounds: Int

    /// A reading as of `now`.
    public init(key: MeterKey, figure: MeterFigure?, fault: MeterFault?, now: MonotonicTime, skippedRounds: Int = 0) {
        self.key = key
        self.figure = figure
        self.fault = fault
        self.now = now
        self.skippedRounds = skippedRounds
    }

    /// How old the figure is; nil without one. Never negative.
    public var age: Duration? { figure.map { max(now - $0.takenAt, .zero) } }

    /// The figure, if it may be used: one whose age is at most `limit`, even when a later attempt failed. Otherwise why not: the last
    /// attempt's fault, or that it is stale.
    public func usable(within limit: Duration) -> Result<MeterFigure, MeterFault> {
        guard let figure, let age else { return .failure(fault ?? MeterFault(.pending, "\(key) has not been read yet")) }
        if age <= limit { return .success(figure) }
        return .failure(fault ?? MeterFault(.stale, "\(key) was read \(age.brief) ago; at most \(limit.brief) is allowed"))
    }
}
