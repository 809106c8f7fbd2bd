/// Chooses the candidates in turn, whatever the weights and the load. Promise: over any run without changes, the open candidates' counts
/// differ by at most one. O(candidates), no allocation.
public struct RoundRobin: Sendable {
    private var next = 0

    public init() {}

    /// `open` says for each candidate whether it may be chosen; it is as long as `candidates`.
    public mutating func pick(_ candidates: [Candidate], among open: [Bool]) -> Selection? {
        guard !candidates.isEmpty else { return nil }
        let start = next < candidates.count ? next : 0
        for step in 0..<candidates.count {
            var place = start + step
            if place >= candidates.count { place -= candidates.count }
            if open[place] {
                next = place + 1
                return Selection(place, .turn)
            }
        }
        return nil
    }
}
