import Basics

/// Why a pool had no replica for a request.
public enum PickFailure: String, Sendable {
    /// There is no candidate, or all of them are leaving.
    case none
    /// A candidate is left that was not tried, but it is at its own limit of requests: a later request may succeed.
    case allFull = "all_full"
    /// All candidates that are not leaving were tried.
    case allTried = "all_tried"
}

/// Chooses a replica for one request, on one loop: the whole decision, with the reason.
///
/// In this order:
/// 1. the candidate that a cookie names, if it is eligible and neither full nor tried, whatever its level, weight and admission
/// 2. panic: when less than `panic` of the candidates that are not leaving are eligible (compared with `<`, over all levels), or none of
///    the eligible ones is untried, all that are not leaving count as eligible and levels no longer count
/// 3. the level of priority, by `PriorityGroups`; when nobody there is free, the next level below that has a free candidate; after the last
///    level comes the first
/// 4. slow start: a candidate takes part with a probability of its admission divided by the highest admission of those left, 1000 at most;
///    so a candidate always takes part when nobody else is left
/// 5. the method; a hash without a key goes by the fewest requests under way
///
/// Tried, full and leaving candidates are never chosen. A full one still counts as healthy, so a pool whose eligible candidates are full
/// gives nobody rather than an ejected one. For methods that heed weights, weight 0 counts as not eligible; panic gives it requests when
/// nobody else is left.
///
/// When asked again with the last pick in `tried`, the pool yields the next candidate: retry and failover are this one mechanism.
/// O(candidates); no allocation but when the number of candidates changes.
public struct Pool: Sendable {
    /// The method by which one of several candidates is chosen.
    public let method: BalanceMethod
    /// The share of eligible candidates below which there is panic, 0...1. With 0 there is panic only when nobody is eligible. Envoy's
    /// `healthy_panic_threshold` is 0.5.
    public let panic: Double
    private let heedsWeight: Bool
    /// Of each level by itself: or a request of one level would move another's turn.
    private var memories = InlineArray<8, Memory>(repeating: Memory())
    private var weighted = SmoothWeighted()
    private var two: TwoChoices
    private var random: SeededRandom
    /// Who may be chosen for this request. Kept, so that a pick needs no memory of its own.
    private var open: [Bool] = []

    /// What turns and ties are remembered by.
    private struct Memory: Sendable {
        var turn = RoundRobin()
        var least = LeastConnections()
    }

    /// A pool. Pools of different loops get different seeds.
    public init(_ method: BalanceMethod, panic: Double = 0, seed: UInt64) {
        self.method = method
        heedsWeight = method.heedsWeight
        self.panic = panic >= 0 ? min(panic, 1) : 0
        random = SeededRandom(seed: seed)
        two = TwoChoices(seed: random.next())
    }

    /// The candidate for this try; nil when nobody is left, and then `emptiness` says why. `key` is the key for hash balancing, `sticky`
    /// the identity that a cookie names.
    public mutating func pick(_ candidates: [Candidate], tried: TriedSet, key: UInt64? = nil, sticky: UInt64? = nil) -> Selection? {
        if let sticky, let place = Pool.place(of: sticky, in: candidates, tried: tried) { return Selection(place, .sticky) }
        if open.count != candidates.count { open = [Bool](repeating: false, count: candidates.count) }
        let heedsWeight = heedsWeight
        let survey = Survey(candidates, tried: tried, heedsWeight)
        if survey.isPanic(panic) {
            guard fill(candidates, where: { !$0.isLeaving && !$0.isFull && !tried.contains($1) }) else { return nil }
            admit(candidates)
            // The method passes over weight 0. In panic, and with nobody else left, even such a one is better than none.
            guard let pick = choose(candidates, level: 0, key: key) ?? memories[0].turn.pick(candidates, among: open) else { return nil }
            return Selection(pick.index, .panic)
        }
        guard survey.freeLevels != 0 else { return nil }
        let level = level(candidates, free: survey.freeLevels)
        let found = fill(candidates) { candidate, place in
            PriorityGroups.level(of: candidate) == level && Survey.isUsable(candidate, heedsWeight) && !candidate.isFull
                && !tried.contains(place)
        }
        guard found else { return nil }
        admit(candidates)
        return choose(candidates, level: level, key: key)
    }

    /// Why `pick` gave no candidate for the same candidates and tries.
    public func emptiness(_ candidates: [Candidate], tried: TriedSet) -> PickFailure {
        var failure = PickFailure.none
        for place in candidates.indices where !candidates[place].isLeaving {
            if !tried.contains(place) { return .allFull }
            failure = .allTried
        }
        return failure
    }

    // MARK: the steps

    private static func place(of identity: UInt64, in candidates: [Candidate], tried: TriedSet) -> Int? {
        for place in candidates.indices where candidates[place].identity == identity {
            let candidate = candidates[place]
            if candidate.isEligible, !candidate.isLeaving, !candidate.isFull, !tried.contains(place) { return place }
        }
        return nil
    }

    /// What one look over the candidates shows.
    private struct Survey {
        /// Not leaving.
        var present = 0
        /// Of these, eligible.
        var usable = 0
        /// Of these, untried; some may be full.
        var untried = 0
        /// A bit for each level in which somebody is usable, untried and not full.
        var freeLevels: UInt8 = 0

        init(_ candidates: [Candidate], tried: TriedSet, _ heedsWeight: Bool) {
            for place in candidates.indices where !candidates[place].isLeaving {
                let candidate = candidates[place]
                present += 1
                guard Survey.isUsable(candidate, heedsWeight) else { continue }
                usable += 1
                guard !tried.contains(place) else { continue }
                untried += 1
                if !candidate.isFull { freeLevels |= 1 << UInt8(PriorityGroups.level(of: candidate)) }
            }
        }

        static func isUsable(_ candidate: Candidate, _ heedsWeight: Bool) -> Bool {
            candidate.isEligible && !candidate.isLeaving && (candidate.weight > 0 || !heedsWeight)
        }

        func isPanic(_ limit: Double) -> Bool { untried == 0 || Double(usable) < limit * Double(present) }
    }

    /// The level drawn, or the next one with somebody free. `free` is not 0.
    private mutating func level(_ candidates: [Candidate], free: UInt8) -> Int {
        // Level 0 by itself is by far the most common, and needs no dice.
        if free == 1 { return 0 }
        var level = PriorityGroups.level(candidates, draw: Double.random(in: 0..<1, using: &random)) ?? 0
        while free & (1 << UInt8(level)) == 0 { level = (level + 1) % PriorityGroups.levels }
        return level
    }

    private mutating func fill(_ candidates: [Candidate], where isOpen: (Candidate, Int) -> Bool) -> Bool {
        var any = false
        for place in candidates.indices {
            open[place] = isOpen(candidates[place], place)
            if open[place] { any = true }
        }
        return any
    }

    /// Closes ramping candidates by chance. The furthest of those left counts as fully admitted, so that somebody stays.
    private mutating func admit(_ candidates: [Candidate]) {
        var most = 0, isRamping = false
        for place in candidates.indices where open[place] {
            most = max(most, candidates[place].admission)
            if candidates[place].admission < 1000 { isRamping = true }
        }
        guard isRamping, most > 0 else { return }
        most = min(most, 1000)
        for place in candidates.indices where open[place] && candidates[place].admission < most {
            open[place] = Int.random(in: 0..<most, using: &random) < candidates[place].admission
        }
    }

    private mutating func choose(_ candidates: [Candidate], level: Int, key: UInt64?) -> Selection? {
        switch method {
        case .roundRobin: return memories[level].turn.pick(candidates, among: open)
        case .weighted: return weighted.pick(candidates, among: open)
        case .leastConnections: return memories[level].least.pick(candidates, among: open)
        case .twoChoices: return two.pick(candidates, among: open)
        case .ipHash, .hash:
            guard let key else { return memories[level].least.pick(candidates, among: open) }
            return RendezvousHash().pick(candidates, among: open, key: key)
        }
    }
}
