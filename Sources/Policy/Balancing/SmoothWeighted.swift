/// Chooses by weight, spread smoothly: weights 5, 1, 1 give a a b a c a a, not five times a in a row (nginx's algorithm, commit
/// 52327e0627f4). Promise: in each round of as many picks as the eligible weights sum to, each candidate gets exactly its weight.
/// O(candidates), no allocation but when their number changes.
public struct SmoothWeighted: Sendable {
    /// How far each one's share is behind. Starts anew when the number of candidates changes.
    private var credit: [Int] = []

    public init() {}

    /// `open` says for each candidate whether it may be chosen; it is as long as `candidates`. A weight of 0 gets nothing.
    public mutating func pick(_ candidates: [Candidate], among open: [Bool]) -> Selection? {
        if credit.count != candidates.count { credit = [Int](repeating: 0, count: candidates.count) }
        var total = 0
        var best = -1
        for place in candidates.indices where open[place] && candidates[place].weight > 0 {
            credit[place] += candidates[place].weight
            total += candidates[place].weight
            if best < 0 || credit[place] > credit[best] { best = place }
        }
        guard best >= 0 else { return nil }
        credit[best] -= total
        return Selection(best, .share)
    }
}
