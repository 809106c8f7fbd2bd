import Basics

/// One constraint that was applied in its turn: the size before it, the size after it, and what it was.
public struct ScalingStep: Sendable, Equatable {
    public enum Kind: Sendable, Equatable {
        case switchedOff
        case belowMinimum
        case aboveMaximum
        case scheduleFloor(ScheduleFloor.Standing)
        case forecast(Forecast)
        /// Held by stabilization. `left` is the time until the recommendation that holds the size is out of the window.
        case stabilized(up: Bool, window: Duration, left: Duration)
        /// Held by a rate limit or by the range, with the schedule floor that has raised the minimum, if one has.
        case limited(RateLimit.Reason, ScheduleFloor.Standing?)
        case ceiling(Ceiling)
    }

    public let kind: Kind
    public let before: Int
    public let after: Int

    public init(_ kind: Kind, _ before: Int, _ after: Int) {
        self.kind = kind
        self.before = before
        self.after = after
    }
}

/// The decision of one pass, and the figures behind it. It has numbers only: the words are made when somebody asks (`record`).
public struct ScalingVerdict: Sendable, Equatable {
    public let current: Int
    /// The size that the metrics asked for; nil when they were not read, or gave nothing.
    public let raw: Int?
    public let outcome: Int
    public let steps: [ScalingStep]
    /// The proposals of the metrics, in the order of the policy's metrics; empty when they were not read.
    public let proposals: [Result<MetricProposal, MetricFault>]
    /// Why nothing may be decided; the size then stays.
    public let failure: MetricFault?
    /// Remarks about the readings, in the order of the policy's metrics; the list may be shorter.
    public let remarks: [MetricRemarks]

    public var rescales: Bool { failure == nil && outcome != current }
    /// Whether a metric could not be read, even when the others sufficed.
    public var hasFault: Bool {
        failure != nil || proposals.contains { if case .failure = $0 { true } else { false } }
    }

    init(_ policy: ScalingPolicy, _ seen: ScalingObservation, proposals: [Result<MetricProposal, MetricFault>] = [], failure: MetricFault) {
        current = seen.current
        raw = nil
        outcome = seen.current
        steps = []
        self.proposals = proposals
        self.failure = failure
        remarks = seen.remarks
    }

    init(
        _ policy: ScalingPolicy, _ seen: ScalingObservation, raw: Int? = nil, outcome: Int, _ steps: [ScalingStep],
        proposals: [Result<MetricProposal, MetricFault>] = []
    ) {
        current = seen.current
        self.raw = raw
        self.outcome = outcome
        self.steps = steps
        self.proposals = proposals
        failure = nil
        remarks = seen.remarks
    }

    /// The index of the metric that asked for the most, and so decided.
    public var leading: Int? {
        var best: (index: Int, replicas: Int)?
        for (index, proposal) in proposals.enumerated() {
            if case .success(let one) = proposal, one.replicas > best?.replicas ?? .min { best = (index, one.replicas) }
        }
        return best?.index
    }
}
