/// The candidate with the fewest requests under way for its weight. Ties are broken in turn, so that an idle pool is used evenly
/// (100 requests, one after the other, over three replicas: 33 or 34 each). O(candidates), no allocation.
///
/// The comparison is `a.inFlight × b.weight < b.inFlight × a.weight`, in whole numbers, as in HAProxy's and nginx's.
public struct LeastConnections: Sendable {
    private var next = 0

    public init() {}

    /// `open` says for each candidate whether it may be chosen; it is as long as `candidates`. A weight of 0 gets nothing.
    public mutating func pick(_ candidates: [Candidate], among open: [Bool]) -> Selection? {
        guard !candidates.isEmpty else { return nil }
        let start = next < candidates.count ? next : 0
        var best = -1
        for step in 0..<candidates.count {
            var place = start + step
            if place >= candidates.count { place -= candidates.count }
            let candidate = candidates[place]
            guard open[place], candidate.weight > 0 else { continue }
            if best < 0 || candidate.inFlight * candidates[best].weight < candidates[best].inFlight * candidate.weight { best = place }
        }
        guard best >= 0 else { return nil }
        next = best + 1
        return Selection(best, .fewest)
    }
}
