import Basics

/// Names what a figure is about: a metric of a service, or of one of its replicas.
public struct MeterKey: Hashable, Sendable, CustomStringConvertible {
    /// The service's name.
    public let service: String
    /// The replica's number; nil for a figure of the whole service (a queue's length).
    public let replica: Int?
    /// The metric's name, as the caller that asked for it wrote it.
    public let metric: String

    /// The key of a metric of a service, or of its replica of this number.
    public init(service: String, replica: Int? = nil, metric: String) {
        self.service = service
        self.replica = replica
        self.metric = metric
    }

    /// The key as text: `engine/2 cpu`
    public var description: String { replica.map { "\(service)/\($0) \(metric)" } ?? "\(service) \(metric)" }
}

/// A figure that was read, and the facts that are needed to judge it.
public struct MeterFigure: Equatable, Sendable {
    /// The unit of the value.
    public enum Unit: String, Sendable {
        /// A thousandth of a processor.
        case milliCores = "millicores"
        case bytes
        case perSecond = "per_second"
        case seconds
        case count
    }

    /// The value: finite and not negative.
    public let value: Double
    /// The unit in which the value counts.
    public let unit: Unit
    /// The time of the figure's last reading, on the monotonic clock.
    public let takenAt: MonotonicTime
    /// The time over which the value is a rate or a mean; zero for a figure of one moment.
    public let window: Duration
    /// A note that a person should know: a counter began anew, a lag is an upper bound. Empty when there is nothing to note.
    public let note: String
    /// Whether the value is a part of the whole: what is missing is not known, and `note` says what it is. The whole may be more.
    public let isPartial: Bool
    /// The partitions whose lags add up to this lag; empty for anything else.
    public let partitions: [PartitionOffsets]

    /// A figure as its meter read it. The meter has already checked the value with `MeterFault.of`.
    public init(
        _ value: Double, _ unit: Unit, takenAt: MonotonicTime, window: Duration = .zero, note: String = "", isPartial: Bool = false,
        partitions: [PartitionOffsets] = []
    ) {
        self.value = value
        self.unit = unit
        self.takenAt = takenAt
        self.window = window
        self.note = note
        self.isPartial = isPartial
        self.partitions = partitions
    }

    /// The same figure with one more thing that a person should know of it.
    func noted(_ text: String) -> MeterFigure {
        MeterFigure(
            value, unit, takenAt: takenAt, window: window, note: note.isEmpty ? text : "\(note); \(text)", isPartial: isPartial,
            partitions: partitions)
    }
}

/// The present knowledge about one key: the last good figure, and how the last attempt went.
public struct MeterReading: Equatable, Sendable {
    /// The key that this is a reading of.
    public let key: MeterKey
    /// The last good figure; nil when there was none.
    public var figure: MeterFigure?
    /// Why the last attempt gave no figure; nil when it gave `figure`.
    public var fault: MeterFault?
    /// The time at which this reading was asked for: ages count from here.
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

    /// The age of the figure; nil without a figure. Never negative.
    public var age: Duration? { figure.map { max(now - $0.takenAt, .zero) } }

    /// The figure, if it may be used: its age must be at most `limit`, even when a later attempt failed. Otherwise the reason why not: the
    /// last attempt's fault, or that the figure is stale.
    public func usable(within limit: Duration) -> Result<MeterFigure, MeterFault> {
        guard let figure, let age else { return .failure(fault ?? MeterFault(.pending, "\(key) has not been read yet")) }
        if age <= limit { return .success(figure) }
        return .failure(fault ?? MeterFault(.stale, "\(key) was read \(age.brief) ago; at most \(limit.brief) is allowed"))
    }
}
