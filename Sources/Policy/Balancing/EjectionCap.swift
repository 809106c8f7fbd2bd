import Basics

/// Keeps ejections from emptying a pool: when everything fails alike, the fault is not any one replica's, and taking them out buries the
/// rest.
///
/// At most `share` of the pool is ejected at a time, rounded down; but one replica may always be ejected if the pool has two or more
/// (Envoy's `max_ejection_percent`, which also lets one go whatever the percentage). A caller that has ejected replicas asks before the
/// next one.
public struct EjectionCap: Sendable, Equatable {
    /// The share of a pool that may be ejected, 0...1. With 0 nobody is ejected.
    public let share: Double

    /// Envoy's default is 10 %, made for large pools. Half of a pool of four still serves, so ours is 0.5.
    public init(share: Double = 0.5) { self.share = share > 0 ? min(share, 1) : 0 }

    /// How many replicas of a pool of `size` may be ejected at a time.
    public func most(of size: Int) -> Int {
        guard share > 0, size > 0 else { return 0 }
        // The small addend makes 0.29 × 100 the 29 that was meant.
        return max(Int(clamped: share * Double(size) + 1e-9), size > 1 ? 1 : 0)
    }

    /// Whether one more replica may be ejected when `ejected` of `size` are.
    public func allows(ejected: Int, of size: Int) -> Bool { ejected < most(of: size) }
}
