/// Sends one key mostly to one candidate: rendezvous hashing (Thaler and Ravishankar, 1998; weighted by Schindelhauer's logarithm), with
/// bounded load (Mirrokni, Thorup, Zadimoghaddam, 2016).
///
/// Each candidate has a score for the key; the candidate with the highest score that is not overloaded is chosen. When a candidate comes or
/// goes, only those keys move that it gets or had. A candidate is overloaded when the request would give it more than `slack` times its
/// share of all requests under way. O(candidates), no allocation, nothing to remember.
public struct RendezvousHash: Sendable {
    /// The paper's 1 + ε with ε = 1/4: a quarter over the average, at which about one key in ten moves on under an even load.
    static let slack = 1.25

    public init() {}

    /// Chooses a candidate for the key. `open` says for each candidate whether it may be chosen; it is as long as `candidates`. A weight of
    /// 0 gets nothing. Shares are taken of the open candidates' requests and weights, and the home of a key is the open candidate with the
    /// highest score.
    public func pick(_ candidates: [Candidate], among open: [Bool], key: UInt64) -> Selection? {
        var underWay = 1, weights = 0
        for place in candidates.indices where open[place] {
            underWay += candidates[place].inFlight
            weights += candidates[place].weight
        }
        var best = -1, bestScore = -1.0, home = -1, homeScore = -1.0
        for place in candidates.indices {
            let candidate = candidates[place]
            guard open[place], candidate.weight > 0 else { continue }
            let score = RendezvousHash.score(key, candidate)
            if score > homeScore { (home, homeScore) = (place, score) }
            let share = (RendezvousHash.slack * Double(underWay) * Double(candidate.weight) / Double(weights)).rounded(.up)
            if Double(candidate.inFlight + 1) <= share, score > bestScore { (best, bestScore) = (place, score) }
        }
        if best >= 0 { return Selection(best, best == home ? .home : .spill) }
        return home >= 0 ? Selection(home, .home) : nil
    }

    /// -weight / ln(u) for a u of (0, 1) that key and candidate make together.
    private static func score(_ key: UInt64, _ candidate: Candidate) -> Double {
        var z = key ^ (candidate.identity &* 0x9E37_79B9_7F4A_7C15)
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        z ^= z >> 31
        let u = (Double(z >> 11) + 0.5) / Double(1 << 53)
        return -Double(candidate.weight) / logarithm(u)
    }

    /// The natural logarithm of a number in (0, 1), to about twelve digits: ln(2^e m) = e ln 2 + 2 artanh((m - 1) / (m + 1)).
    private static func logarithm(_ x: Double) -> Double {
        let t = (x.significand - 1) / (x.significand + 1), square = t * t
        var term = t, sum = 0.0
        for n in stride(from: 1.0, through: 21, by: 2) {
            sum += term / n
            term *= square
        }
        return Double(x.exponent) * 0.693_147_180_559_945_3 + 2 * sum
    }

    /// FNV-1a over bytes, letters as lower case: a trace id's hex digits mean the same in both cases.
    public static func key(_ bytes: some Sequence<UInt8>) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte &- 65 < 26 ? byte | 32 : byte)) &* 0x0000_0100_0000_01B3 }
        return hash
    }
}
