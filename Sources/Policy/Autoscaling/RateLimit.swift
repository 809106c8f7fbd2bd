import Basics

/// Remembers how many replicas came and went, and says how many more may come or go at once.
public struct RateLimit: Sendable, Equatable {
    /// A change that was carried out, with its magnitude.
    public struct Event: Sendable, Equatable {
        public let change: Int
        public let at: MonotonicTime
        /// Whether the event is older than every period that asks for it; it may then be overwritten.
        public internal(set) var isOutdated: Bool

        public init(change: Int, at: MonotonicTime, isOutdated: Bool = false) {
            self.change = change
            self.at = at
            self.isOutdated = isOutdated
        }
    }

    public enum Reason: String, Sendable {
        case withinRange = "DesiredWithinRange"
        case tooFew = "TooFewReplicas"
        case tooMany = "TooManyReplicas"
        case upLimit = "ScaleUpLimit"
        case downLimit = "ScaleDownLimit"
    }

    public struct Outcome: Sendable, Equatable {
        public let replicas: Int
        public let reason: Reason
    }

    /// The changes that added replicas, and those that removed them.
    public private(set) var added: [Event]
    public private(set) var removed: [Event]

    public init(added: [Event] = [], removed: [Event] = []) {
        self.added = added
        self.removed = removed
    }

    /// The size without rules: `wanted`, but at most `factor` times the present size or `floor`, whichever is more; no limit downwards.
    /// Defaults: kube-controller-manager's.
    public static func plain(_ wanted: Int, current: Int, minimum: Int, maximum: Int, factor: Double = 2, floor: Double = 4) -> Outcome {
        let limit = Int(clamped: max(factor * Double(current), floor))
        let cap = min(maximum, limit)
        if wanted < minimum { return Outcome(replicas: minimum, reason: .tooFew) }
        if wanted > cap { return Outcome(replicas: cap, reason: maximum > limit ? .upLimit : .tooMany) }
        return Outcome(replicas: wanted, reason: .withinRange)
    }

    /// The size with rules: `wanted` held to what they allow, and to the range, in the direction in which the size moves.
    public func limited(_ wanted: Int, current: Int, minimum: Int, maximum: Int, behavior: ScalingBehavior, now: MonotonicTime) -> Outcome {
        if wanted > current {
            let limit = max(ceiling(current: current, rules: behavior.up, now: now), current)
            let cap = min(maximum, limit)
            if wanted > cap { return Outcome(replicas: cap, reason: maximum > limit ? .upLimit : .tooMany) }
        } else if wanted < current {
            let limit = min(floor(current: current, rules: behavior.down, now: now), current)
            let bottom = max(minimum, limit)
            if wanted < bottom { return Outcome(replicas: bottom, reason: minimum < limit ? .downLimit : .tooFew) }
        }
        return Outcome(replicas: wanted, reason: .withinRange)
    }

    /// The largest size that the policies allow upwards.
    public func ceiling(current: Int, rules: ScalingRules, now: MonotonicTime) -> Int {
        if rules.selection == .disabled { return current }
        let limits = rules.policies.map { policy -> Int in
            let start = sizeBefore(policy.period, current, now)
            switch policy.kind {
            case .pods: return start.addingClamped(policy.value)
            // One plus the share first, then times the size: 25 replicas and 12 % are 28.000000000000004, which is 29.
            case .percent: return .replicas(Double(start) * (1 + Double(policy.value) / 100))
            }
        }
        return (rules.selection == .max ? limits.max() : limits.min()) ?? current
    }

    /// The smallest size that the policies allow downwards; below 0 means no limit.
    public func floor(current: Int, rules: ScalingRules, now: MonotonicTime) -> Int {
        if rules.selection == .disabled { return current }
        let limits = rules.policies.map { policy -> Int in
            let start = sizeBefore(policy.period, current, now)
            switch policy.kind {
            case .pods: return start.subtractingClamped(policy.value)
            case .percent: return Int(clamped: Double(start) * (1 - Double(policy.value) / 100))
            }
        }
        return (rules.selection == .max ? limits.min() : limits.max()) ?? current
    }

    /// The size at the beginning of a period that ends now (`<`: an event exactly as old as the period no longer counts).
    private func sizeBefore(_ period: Duration, _ current: Int, _ now: MonotonicTime) -> Int {
        current.subtractingClamped(RateLimit.change(added, within: period, now)).addingClamped(
            RateLimit.change(removed, within: period, now))
    }

    public static func change(_ events: [Event], within period: Duration, _ now: MonotonicTime) -> Int {
        events.reduce(0) { now - $1.at < period ? $0.addingClamped($1.change) : $0 }
    }

    /// Remembers a change that was carried out. Events that no policy of the direction asks for any more are marked, and the last of them
    /// makes room.
    public mutating func store(from previous: Int, to next: Int, behavior: ScalingBehavior, now: MonotonicTime) {
        if next > previous { RateLimit.store(next - previous, in: &added, longest: behavior.up.longestPeriod, now) }
        if next < previous { RateLimit.store(previous - next, in: &removed, longest: behavior.down.longestPeriod, now) }
    }

    private static func store(_ change: Int, in events: inout [Event], longest: Duration, _ now: MonotonicTime) {
        var outdated: Int?
        for index in events.indices {
            if now - events[index].at > longest { events[index].isOutdated = true }
            if events[index].isOutdated { outdated = index }
        }
        let event = Event(change: change, at: now)
        if let outdated { events[outdated] = event } else { events.append(event) }
    }
}
