import Basics

/// When a service goes to zero and comes back: KEDA's part, beside the horizontal autoscaler's. Defaults are those of its `ScaledObject`.
public struct ActivationSettings: Sendable, Equatable {
    /// minReplicaCount. From 0 on; 0.
    public let least: Int
    /// maxReplicaCount; 100.
    public let most: Int
    /// idleReplicaCount: what is kept while nothing is to do. Below `least`; nil, no such mode.
    public let idle: Int?
    /// fallback.replicas: what is kept when a trigger gives no answer. Nil, none configured.
    public let fallback: Int?
    /// cooldownPeriod: how long after it was last active a service keeps its replicas; 300 s.
    public let cooldown: Duration
    /// initialCooldownPeriod: the same since its creation, while it was never active; 0.
    public let initialCooldown: Duration
    /// pollingInterval; 30 s.
    public let polling: Duration

    /// Throws what is out of range: counts below 0, `least` above `most`, an idle count that is not below `least`, negative times.
    public init(
        least: Int = 0, most: Int = 100, idle: Int? = nil, fallback: Int? = nil, cooldown: Duration = .seconds(300),
        initialCooldown: Duration = .zero, polling: Duration = .seconds(30)
    ) throws(LagSettings.Refusal) {
        guard least >= 0 else { throw .init("minReplicaCount", "it is \(least), and must be 0 or more") }
        guard most >= max(least, 1) else {
            throw .init("maxReplicaCount", "it is \(most), and must be at least 1 and at least minReplicaCount, \(least)")
        }
        if let idle, idle < 0 || idle >= least {
            throw .init("idleReplicaCount", "it is \(idle), and must be from 0 to below minReplicaCount, which is \(least)")
        }
        if let fallback, fallback < 0 { throw .init("fallback.replicas", "it is \(fallback), and must be 0 or more") }
        guard cooldown >= .zero else { throw .init("cooldownPeriod", "it is \(cooldown.brief), and must be 0 or more") }
        guard initialCooldown >= .zero else {
            throw .init("initialCooldownPeriod", "it is \(initialCooldown.brief), and must be 0 or more")
        }
        guard polling > .zero else { throw .init("pollingInterval", "it is \(polling.brief), and must be above 0") }
        self.least = least
        self.most = most
        self.idle = idle
        self.fallback = fallback
        self.cooldown = cooldown
        self.initialCooldown = initialCooldown
        self.polling = polling
    }

    /// minReplicas of the horizontal autoscaler, which never goes to 0: `max(1, minReplicaCount)`.
    public var autoscalerLeast: Int { max(1, least) }
}
