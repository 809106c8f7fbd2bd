/// One replica as a balancer sees it. The gateway keeps a list of these for each pool and loop; the balancer only reads it.
public struct Candidate: Sendable, Equatable {
    /// Whether the replica may be chosen. Ejected and unready replicas may not, unless a pool is in panic.
    public var isEligible: Bool
    /// The relative share, 1 to 256; a replica of weight 0 gets nothing but what panic and a cookie give it.
    public var weight: Int
    /// Requests under way, over all threads.
    public var inFlight: Int
    /// The number by which a hash or a cookie knows the replica, whatever its place in the list.
    public var identity: UInt64
    /// The level of priority: 0 is the first choice, 7 the last; a number outside counts as the nearer of the two (`PriorityGroups`).
    public var priority: Int
    /// Whether the replica drains: it is then never chosen, not even in panic, and counted nowhere.
    public var isLeaving: Bool
    /// In how many of 1000 picks the replica takes part (`SlowStart`). 1000 and more means always, 0 and less means only when nobody else
    /// is left.
    public var admission: Int
    /// Whether the replica is at its own limit of requests: it is then passed over, always, but not counted as unhealthy.
    public var isFull: Bool

    /// Without arguments the candidate is fit, idle, of the first level and fully admitted.
    public init(
        isEligible: Bool = true, weight: Int = 1, inFlight: Int = 0, identity: UInt64 = 0, priority: Int = 0, isLeaving: Bool = false,
        admission: Int = 1000,
        isFull: Bool = false
    ) {
        self.isEligible = isEligible
        self.weight = weight
        self.inFlight = inFlight
        self.identity = identity
        self.priority = priority
        self.isLeaving = isLeaving
        self.admission = admission
        self.isFull = isFull
    }
}
