/// In turn, whatever the weights and the load. Promise: over any run without changes, eligible candidates' counts differ by at
/// most one. O(candidates), no allocation.
public struct RoundRobin: Sendable {
    private var next = 0

    public init() {}

    public mutating func pick(_ candidates: [Candidate], tried: TriedSet) -> Selection? {
        guard !candidates.isEmpty else { return nil }
        let start = next < candidates.count ? next : 0
        for step in 0..<candidates.count {
            var place = start + step
            if place >= candidates.count { place -= candidates.count }
            if candidates[place].isEligible, !tried.contains(place) {
                next = place + 1
                return Selection(place, .turn)
            }
        }
        return nil
    }
}
