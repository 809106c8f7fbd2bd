/// How requests are shared among levels of priority: Envoy's priority levels.
///
/// A level takes `healthy share × 1.4` of the requests, at most all that are left; the rest goes to the next level. When all levels
/// together take less than everything, the part of each is scaled up until they do. By hand: half of level 0 healthy and all of level 1
/// gives 70 % and 30 %; a quarter of each of two levels gives 35 % and 35 %, scaled to 50 % and 50 %.
///
/// A replica that is leaving counts nowhere; a full one counts as healthy. O(candidates), no allocation.
public enum PriorityGroups {
    /// The number of levels: they go from 0 to 7. A priority outside counts as the nearer end.
    public static let levels = 8
    /// Envoy's default overprovisioning factor: up to 28 % of a level may be missing before any request leaves it.
    public static let overprovisioning = 1.4

    /// Each level's part of the requests, 0...1. They sum to 1, or to 0 when nobody is healthy.
    public static func shares(_ candidates: [Candidate]) -> InlineArray<8, Double> {
        var present = InlineArray<8, Int>(repeating: 0), healthy = InlineArray<8, Int>(repeating: 0)
        for candidate in candidates where !candidate.isLeaving {
            let level = level(of: candidate)
            present[level] += 1
            if candidate.isEligible { healthy[level] += 1 }
        }
        var shares = InlineArray<8, Double>(repeating: 0)
        var left = 1.0
        for level in 0..<levels where healthy[level] > 0 {
            let takes = min(overprovisioning * Double(healthy[level]) / Double(present[level]), left)
            shares[level] = takes
            left -= takes
        }
        let sum = 1 - left
        if left > 0, sum > 0 { for level in 0..<levels { shares[level] /= sum } }
        return shares
    }

    /// The level of the next request for a random number of 0..<1; nil when nobody is healthy.
    public static func level(_ candidates: [Candidate], draw: Double) -> Int? {
        let shares = shares(candidates)
        var left = draw
        var last: Int?
        for level in 0..<levels where shares[level] > 0 {
            if left < shares[level] { return level }
            left -= shares[level]
            last = level
        }
        // The shares sum to a hair less than 1, and the draw was within that hair.
        return last
    }

    /// A candidate's level, 0...7.
    static func level(of candidate: Candidate) -> Int { min(max(candidate.priority, 0), levels - 1) }
}
