import Basics

/// One constraint that had its turn: the size before it, after it, and what it was.
public struct ScalingStep: Sendable, Equatable {
    public enum Kind: Sendable, Equatable {
        case switchedOff
        case belowMinimum
        case aboveMaximum
        case scheduleFloor(ScheduleFloor.Standing)
        case forecast(Forecast)
        /// `left`: until what holds it is out of the window.
        case stabilized(up: Bool, window: Duration, left: Duration)
        /// With the floor that has raised the minimum, if one has.
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

/// What a pass decided, and from what. Numbers only: the words are made when somebody asks (`record`).
public struct ScalingVerdict: Sendable, Equatable {
    public let current: Int
    /// What the metrics asked for; nil when they were not read, or gave nothing.
    public let raw: Int?
    public let outcome: Int
    public let steps: [ScalingStep]
    /// In the order of the policy's metrics; empty when they were not read.
    public let proposals: [Result<MetricProposal, MetricFault>]
    /// Why nothing may be decided; the size stays.
    public let failure: MetricFault?
    /// What was remarked of the readings, in the order of the policy's metrics; may be shorter.
    public let remarks: [MetricRemarks]

    public var rescales: Bool { failure == nil && outcome != current }
    /// A metric could not be read, whether or not the others sufficed.
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

    /// The metric that asked for the most, and with it decided.
    public var leading: Int? {
        var best: (index: Int, replicas: Int)?
        for (index, proposal) in proposals.enumerated() {
            if case .success(let one) = proposal, one.replicas > best?.replicas ?? .min { best = (index, one.replicas) }
        }
        return best?.index
    }
}
