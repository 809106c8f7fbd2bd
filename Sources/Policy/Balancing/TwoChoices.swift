import Basics

/// Draws two candidates at random and takes the one with the fewer requests under way (Mitzenmacher, 2001: the power of two choices;
/// NGINX's `random two least_conn`, HAProxy's `random(2)`).
///
/// Why two and not the fewest of all: several gateways, or loops, that look at the same stale numbers all rush to the same idlest one. Two
/// at random keep nearly all of the balance and none of the rush.
///
/// Both are drawn by weight, without putting the first one back; fewer is `a.inFlight × b.weight < b.inFlight × a.weight`, in whole
/// numbers. The first one drawn wins a tie. O(candidates), no allocation.
public struct TwoChoices: Sendable {
    private var random: SeededRandom

    /// Pickers with equal seeds choose equally.
    public init(seed: UInt64) { random = SeededRandom(seed: seed) }

    /// `open` says for each candidate whether it may be chosen; it is as long as `candidates`. A weight of 0 gets nothing.
    public mutating func pick(_ candidates: [Candidate], among open: [Bool]) -> Selection? {
        var total = 0
        for place in candidates.indices where open[place] { total += max(candidates[place].weight, 0) }
        guard total > 0 else { return nil }
        let first = place(of: Int.random(in: 0..<total, using: &random), in: candidates, among: open, without: -1)
        let rest = total - candidates[first].weight
        guard rest > 0 else { return Selection(first, .fewer) }
        let second = place(of: Int.random(in: 0..<rest, using: &random), in: candidates, among: open, without: first)
        let one = candidates[first], other = candidates[second]
        return Selection(other.inFlight * one.weight < one.inFlight * other.weight ? second : first, .fewer)
    }

    /// Where the weights, laid end to end, cover `point`.
    private func place(of point: Int, in candidates: [Candidate], among open: [Bool], without: Int) -> Int {
        var left = point, last = -1
        for place in candidates.indices where open[place] && place != without && candidates[place].weight > 0 {
            last = place
            if left < candidates[place].weight { break }
            left -= candidates[place].weight
        }
        return last
    }
}
