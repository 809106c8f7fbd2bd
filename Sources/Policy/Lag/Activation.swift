import Basics

/// Decides between nothing and something: whether a service without work is taken to zero, and whether one at zero is woken. Between 1 and
/// the maximum the horizontal autoscaler decides, and this says nothing.
///
/// A pure machine with KEDA's rules (`scale_scaledobjects.go`); time comes in as `now`. A clock that goes back only keeps replicas longer.
///
/// - Complexity: O(1); allocates only for a decision.
public struct Activation: Sendable {
    /// What the triggers said at one poll. Of several, one may be active while another failed.
    public struct Poll: Sendable, Equatable {
        public let isActive: Bool
        public let hasFailed: Bool

        public init(isActive: Bool, hasFailed: Bool = false) {
            self.isActive = isActive
            self.hasFailed = hasFailed
        }
    }

    public let settings: ActivationSettings
    public let subject: String
    private let created: MonotonicTime
    /// When a poll last found it active; nil: never.
    public private(set) var lastActive: MonotonicTime?

    /// - Parameter lastActive: as far as it is known from before a restart.
    public init(_ settings: ActivationSettings, subject: String, created: MonotonicTime, lastActive: MonotonicTime? = nil) {
        self.settings = settings
        self.subject = subject
        self.created = created
        self.lastActive = lastActive
    }

    /// A poll's end, with as many `replicas` as there are. Nil: leave them as they are.
    public mutating func polled(_ poll: Poll, replicas: Int, now: MonotonicTime) -> Decision<Int>? {
        if poll.isActive { return active(replicas, now) }
        if poll.hasFailed { return failed(replicas) }
        let floor = settings.idle ?? 0
        let mayFall = settings.idle.map { replicas > $0 } ?? (replicas > 0 && settings.least == 0)
        if mayFall { return idle(replicas, to: floor, now) }
        guard settings.idle == nil, replicas < settings.least else { return nil }
        return decision(
            settings.least, replicas, "minimum", "\(subject) has \(replicas) replicas and is kept at \(settings.least), its least",
            flip: "a lower minReplicaCount")
    }

    private mutating func active(_ replicas: Int, _ now: MonotonicTime) -> Decision<Int>? {
        lastActive = max(lastActive ?? now, now)
        let isIdle = settings.idle != nil && replicas < settings.least
        guard replicas <= 0 || isIdle else { return nil }
        let wanted = settings.least > 0 ? settings.least : 1
        return decision(
            wanted, replicas, "activation", "\(subject) has work again: from \(replicas) to \(wanted) replicas",
            flip: "a lag at or below activationLagThreshold")
    }

    /// Without an answer nobody knows whether there is work: never fewer replicas, and with a fallback at least so many.
    private func failed(_ replicas: Int) -> Decision<Int>? {
        guard let fallback = settings.fallback, replicas < fallback else { return nil }
        return decision(
            fallback, replicas, "fallback", "the lag of \(subject) is not known: from \(replicas) to its \(fallback) fallback replicas",
            flip: "an answer of the trigger")
    }

    private func idle(_ replicas: Int, to floor: Int, _ now: MonotonicTime) -> Decision<Int>? {
        let since = lastActive ?? created
        let patience = lastActive == nil ? settings.initialCooldown : settings.cooldown
        guard now > since, now - since > patience else { return nil }
        let what = lastActive == nil ? "was never active since it was created," : "had nothing to do for"
        return decision(
            floor, replicas, "cooldown",
            "\(subject) \(what) \(whole(now - since)) (more than \(patience.brief)): from \(replicas) to \(floor) replicas",
            flip: "lag above activationLagThreshold, or a longer cooldown")
    }

    private func decision(_ wanted: Int, _ replicas: Int, _ rule: String, _ sentence: String, flip: String) -> Decision<Int> {
        Decision(
            wanted,
            because: DecisionRecord(
                .scale, subject: subject, inputs: [.init("replicas", replicas), .init("rule", rule)], raw: "\(wanted)",
                outcome: "\(wanted)", sentence: sentence,
                flip: flip))
    }

    private func whole(_ duration: Duration) -> String { Duration.seconds(duration.nanoseconds / 1_000_000_000).brief }
}
