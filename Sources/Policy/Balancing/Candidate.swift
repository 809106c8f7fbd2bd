/// One replica as a balancer sees it. The gateway keeps a list of these for each pool and loop; the balancer only reads it.
public struct Candidate: Sendable, Equatable {
    /// May be chosen. Draining, ejected and unready replicas may not (see `Availability`).
    public var isEligible: Bool
    /// Relative share, 1 to 256; 0 gets nothing but what panic gives it.
    public var weight: Int
    /// Requests under way, over all threads.
    public var inFlight: Int
    /// What a hash knows it by, whatever its place in the list.
    public var identity: UInt64

    public init(isEligible: Bool = true, weight: Int = 1, inFlight: Int = 0, identity: UInt64 = 0) {
        self.isEligible = isEligible
        self.weight = weight
        self.inFlight = inFlight
        self.identity = identity
    }
}

/// The replicas that a request has been tried on. At most 8 tries are made (`RetryPolicy`), so it needs no heap.
public struct TriedSet: Sendable {
    private var places: (Int32, Int32, Int32, Int32, Int32, Int32, Int32, Int32) = (-1, -1, -1, -1, -1, -1, -1, -1)
    public private(set) var count = 0

    public init() {}

    public func contains(_ place: Int) -> Bool {
        let place = Int32(truncatingIfNeeded: place)
        return places.0 == place || places.1 == place || places.2 == place || places.3 == place || places.4 == place
            || places.5 == place || places.6 == place || places.7 == place
    }

    public mutating func insert(_ place: Int) {
        let place = Int32(truncatingIfNeeded: place)
        switch count {
        case 0: places.0 = place
        case 1: places.1 = place
        case 2: places.2 = place
        case 3: places.3 = place
        case 4: places.4 = place
        case 5: places.5 = place
        case 6: places.6 = place
        default: places.7 = place
        }
        count = min(count + 1, 8)
    }
}

/// What a balancer chose and why, small enough for every request; the journal makes sentences of a sample of them.
public struct Selection: Sendable, Equatable {
    public enum Reason: String, Sendable {
        /// It was next in turn.
        case turn
        /// Its share, by weight, was the furthest behind.
        case share
        /// It had the fewest requests under way (for its weight).
        case fewest
        /// Its key belongs there.
        case home
        /// The one that its key belongs to had more than its share under way.
        case spill
        /// None was eligible: over all of them, in turn, because some answer is better than none.
        case panic
    }

    public let index: Int
    public let reason: Reason

    public init(_ index: Int, _ reason: Reason) {
        self.index = index
        self.reason = reason
    }
}

/// The ways to balance that a route may name.
public enum BalanceMethod: String, Sendable, CaseIterable {
    case roundRobin = "round-robin"
    case leastConnections = "least-connections"
    case weighted
    /// By the trace that a request names (`RendezvousHash`).
    case hashTrace = "hash(trace)"
}

/// One pool's balancer on one loop: the method and what it remembers.
public enum Balancer: Sendable {
    case roundRobin(RoundRobin)
    case leastConnections(LeastConnections)
    case weighted(SmoothWeighted)
    case hash(RendezvousHash)

    public init(_ method: BalanceMethod) {
        switch method {
        case .roundRobin: self = .roundRobin(RoundRobin())
        case .leastConnections: self = .leastConnections(LeastConnections())
        case .weighted: self = .weighted(SmoothWeighted())
        case .hashTrace: self = .hash(RendezvousHash())
        }
    }

    /// The next candidate that was not tried; nil when there is none. Called again after a failure, it yields the next one: retry
    /// and failover are this one mechanism. `key` is what a hash goes by; the others do not look at it.
    public mutating func pick(_ candidates: [Candidate], tried: TriedSet, key: UInt64? = nil) -> Selection? {
        switch self {
        case .roundRobin(var method):
            defer { self = .roundRobin(method) }
            return method.pick(candidates, tried: tried)
        case .leastConnections(var method):
            defer { self = .leastConnections(method) }
            return method.pick(candidates, tried: tried)
        case .weighted(var method):
            defer { self = .weighted(method) }
            return method.pick(candidates, tried: tried)
        case .hash(var method):
            defer { self = .hash(method) }
            return method.pick(candidates, tried: tried, key: key)
        }
    }
}
