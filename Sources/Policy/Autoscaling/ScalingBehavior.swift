import Basics

/// The rules for one direction: how fast a size may change, and how long it waits before it does.
public struct ScalingRules: Sendable, Equatable {
    public enum Selection: String, Sendable, CaseIterable {
        /// The policy that allows the largest change.
        case max = "Max"
        /// The policy that allows the smallest change.
        case min = "Min"
        /// No change in this direction.
        case disabled = "Disabled"
    }

    public struct Policy: Sendable, Equatable {
        public enum Kind: String, Sendable { case pods = "Pods", percent = "Percent" }
        public let kind: Kind
        /// The size of the change: replicas, or percent of the size at the beginning of the period.
        public let value: Int
        public let period: Duration

        public init(_ kind: Kind, _ value: Int, per period: Duration) {
            self.kind = kind
            self.value = value
            self.period = period
        }
    }

    /// How far back recommendations count; nil: as far as the autoscaler's own setting says (down), or not at all (up).
    public var stabilization: Duration?
    public var selection: Selection
    public var policies: [Policy]
    /// The tolerance in this direction, instead of the autoscaler's.
    public var tolerance: Double?

    public init(stabilization: Duration? = nil, selection: Selection = .max, policies: [Policy], tolerance: Double? = nil) {
        self.stabilization = stabilization
        self.selection = selection
        self.policies = policies
        self.tolerance = tolerance
    }

    /// Kubernetes' defaults upwards: at once, by 4 or by 100 % in 15 s, whichever is more.
    public static let up = ScalingRules(
        stabilization: .zero, policies: [Policy(.pods, 4, per: .seconds(15)), Policy(.percent, 100, per: .seconds(15))])
    /// Kubernetes' defaults downwards: to what five minutes agree on, then all at once.
    public static let down = ScalingRules(policies: [Policy(.percent, 100, per: .seconds(15))])

    /// Rules with the values that are given, and `defaults` for each field that is not; a given list replaces the default list whole.
    public init(
        stabilization: Duration?, selection: Selection?, policies: [Policy]?, tolerance: Double?, defaults: ScalingRules
    ) {
        self.init(
            stabilization: stabilization ?? defaults.stabilization, selection: selection ?? defaults.selection,
            policies: policies ?? defaults.policies,
            tolerance: tolerance)
    }

    /// How long a change of the size counts against the pace, at most; zero without a policy.
    public var longestPeriod: Duration { policies.map(\.period).max() ?? .zero }
}

/// The rules for both directions.
public struct ScalingBehavior: Sendable, Equatable {
    public var up: ScalingRules
    public var down: ScalingRules

    public init(up: ScalingRules = .up, down: ScalingRules = .down) {
        self.up = up
        self.down = down
    }

    /// Every setting in the behavior that cannot be meant, as `direction: what`; empty when all is well. The bounds are the Kubernetes
    /// API's.
    public var contradictions: [String] {
        [("up", up), ("down", down)].flatMap { direction, rules in
            var found: [String] = []
            if rules.policies.isEmpty { found.append("\(direction): without a policy nothing may change; to forbid the direction say so") }
            if let window = rules.stabilization, !(Duration.zero...Duration.seconds(3600)).contains(window) {
                found.append("\(direction): a stabilization of \(window.brief) is outside 0s to 1h")
            }
            if let tolerance = rules.tolerance, !(tolerance.isFinite && tolerance >= 0) {
                found.append("\(direction): a tolerance of \(tolerance) is none")
            }
            for policy in rules.policies {
                if policy.value < 1 { found.append("\(direction): a policy of \(policy.value) allows nothing") }
                if !(Duration.seconds(1)...Duration.seconds(1800)).contains(policy.period) {
                    found.append("\(direction): a period of \(policy.period.brief) is outside 1s to 30m")
                }
            }
            return found
        }
    }
}
