/// One replica as a balancer sees it. The gateway keeps a list of these for each pool and loop; the balancer only reads it.
public struct Candidate: Sendable, Equatable {
    /// May be chosen. Ejected and unready replicas may not, unless a pool is in panic.
    public var isEligible: Bool
    /// Relative share, 1 to 256; 0 gets nothing but what panic and a cookie give it.
    public var weight: Int
    /// Requests under way, over all threads.
    public var inFlight: Int
    /// What a hash or a cookie knows it by, whatever its place in the list.
    public var identity: UInt64
    /// 0 is the first choice, 7 the last; what is outside counts as the nearer of the two (`PriorityGroups`).
    public var priority: Int
    /// It drains: never chosen, not even in panic, and counted nowhere.
    public var isLeaving: Bool
    /// In how many of 1000 picks it takes part (`SlowStart`). 1000 and more is always, 0 and less is only when nobody else is left.
    public var admission: Int
    /// At its own limit of requests: passed over, always, but not counted as unhealthy.
    public var isFull: Bool

    /// Without arguments: fit, idle, of the first level, fully admitted.
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
