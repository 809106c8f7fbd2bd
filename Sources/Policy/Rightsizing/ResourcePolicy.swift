import Basics

/// The amounts that somebody allows. They are applied after all arithmetic, in the order of kubernetes/autoscaler's post-processors.
///
/// First CPU goes up to whole cores where that is wanted, then to `least`, then down to `most`. So where `least` is above `most`, `most`
/// wins. Where this policy has a `most`, it takes the place of the global one, as upstream's documentation of the global flag says.
public struct ResourcePolicy: Sendable, Equatable {
    /// The least amounts allowed: Kubernetes' `minAllowed`.
    public var least: OptionalResources
    /// The most that is allowed: Kubernetes' `maxAllowed`.
    public var most: OptionalResources
    /// The maximum of the whole installation, for what `most` does not name.
    public var globalMost: OptionalResources
    /// The resources for which something is recommended; the others are left alone.
    public var controlled: Set<Resource>
    /// Whether CPU is rounded up to whole cores; off by default.
    public var wholeCores: Bool

    public init(
        least: OptionalResources = OptionalResources(), most: OptionalResources = OptionalResources(),
        globalMost: OptionalResources = OptionalResources(),
        controlled: Set<Resource> = [.cpu, .memory], wholeCores: Bool = false
    ) {
        self.least = least
        self.most = most
        self.globalMost = globalMost
        self.controlled = controlled
        self.wholeCores = wholeCores
    }

    /// The amount rounded up to whole cores, where they are wanted.
    public func whole(_ amount: Int, of resource: Resource) -> Int {
        wholeCores && resource == .cpu ? Amount.roundedUp(amount, toMultipleOf: 1000) : amount
    }

    /// The amount held within the allowed bounds. Bounds below 0 count as 0.
    public func capped(_ amount: Int, of resource: Resource) -> Int {
        var amount = amount
        if let least = least[resource] { amount = max(amount, least, 0) }
        if let most = most[resource] ?? globalMost[resource] { amount = min(amount, max(most, 0)) }
        return amount
    }
}
