import Autoscaling

/// The reasons for which a size differs from what the metrics ask for: the steps of a verdict, by kind.
public enum HoldCause: String, Sendable, CaseIterable {
    case stabilizationUp = "stabilization up"
    case stabilizationDown = "stabilization down"
    case paceUp = "pace up"
    case paceDown = "pace down"
    case minimum
    case maximum
    case scheduleFloor = "schedule floor"
    case forecast
    case ceiling

    init?(_ kind: ScalingStep.Kind) {
        switch kind {
        case .switchedOff: return nil
        case .belowMinimum: self = .minimum
        case .aboveMaximum: self = .maximum
        case .scheduleFloor: self = .scheduleFloor
        case .forecast: self = .forecast
        case .stabilized(let up, _, _): self = up ? .stabilizationUp : .stabilizationDown
        case .limited(.upLimit, _): self = .paceUp
        case .limited(.downLimit, _): self = .paceDown
        case .limited(.tooMany, _): self = .maximum
        case .limited(.tooFew, let floor): self = floor == nil ? .minimum : .scheduleFloor
        case .limited(.withinRange, _): return nil
        case .ceiling: self = .ceiling
        }
    }
}

/// Replica-hours by which a cause has kept the size above what the metrics asked for (`kept`), and below it (`withheld`).
public struct Holding: Sendable, Equatable {
    public let cause: HoldCause
    public internal(set) var kept: Double
    public internal(set) var withheld: Double
}

/// Why a service was overloaded, for as long as it was.
public enum OverloadCause: Sendable, Hashable {
    /// Enough replicas were on their way, and not ready.
    case starting
    /// The metrics asked for more replicas, and this cause held the size.
    case held(HoldCause)
    /// No figure could be read.
    case noFigures
    /// Nothing asked for more replicas: the target leaves less room than the load takes in a step or within the tolerance.
    case target

    public var name: String {
        switch self {
        case .starting: "start time"
        case .held(let cause): cause.rawValue
        case .noFigures: "no figures"
        case .target: "target"
        }
    }

    static func of(_ verdict: ScalingVerdict?, isOnTheWay: Bool) -> OverloadCause {
        if isOnTheWay { return .starting }
        guard let verdict else { return .target }
        for step in verdict.steps.reversed() where step.after < step.before {
            if let cause = HoldCause(step.kind) { return .held(cause) }
        }
        return verdict.hasFault ? .noFigures : .target
    }
}
