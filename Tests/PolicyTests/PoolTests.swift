import Balancing
import Basics
import Testing

@Suite struct PoolTests {
    private func shares(_ pool: inout Pool, _ candidates: [Candidate], picks: Int) -> [Double] {
        var counts = [Int](repeating: 0, count: candidates.count)
        for _ in 0..<picks { counts[pool.pick(candidates, tried: TriedSet())!.index] += 1 }
        return counts.map { Double($0) / Double(picks) }
    }

    private func tried(_ places: Int...) -> TriedSet {
        var set = TriedSet()
        for place in places { set.insert(place) }
        return set
    }

    // MARK: sticky

    @Test func aCookieComesFirst() {
        var pool = Pool(.leastConnections, seed: 1)
        var candidates = (1...3).map { Candidate(identity: UInt64($0)) }
        candidates[2] = Candidate(weight: 0, inFlight: 99, identity: 3, priority: 5, admission: 0)
        for _ in 0..<20 { #expect(pool.pick(candidates, tried: TriedSet(), sticky: 3) == Selection(2, .sticky)) }
        #expect(pool.pick(candidates, tried: tried(2), sticky: 3)?.reason == .fewest)
        #expect(pool.pick(candidates, tried: TriedSet(), sticky: 7)?.reason == .fewest)
        for change in [\Candidate.isFull, \.isLeaving] {
            var candidates = candidates
            candidates[2][keyPath: change] = true
            #expect(pool.pick(candidates, tried: TriedSet(), sticky: 3)?.index != 2)
        }
        candidates[2].isEligible = false
        #expect(pool.pick(candidates, tried: TriedSet(), sticky: 3)?.index != 2)
    }

    // MARK: panic

    @Test func panicBeginsBelowItsShare() {
        var candidates = (0..<4).map { Candidate(isEligible: $0 < 2) }
        var pool = Pool(.roundRobin, panic: 0.5, seed: 1)
        // Half is not below half.
        #expect(shares(&pool, candidates, picks: 40) == [0.5, 0.5, 0, 0])
        candidates[1].isEligible = false
        #expect(shares(&pool, candidates, picks: 40) == [0.25, 0.25, 0.25, 0.25])
        #expect(pool.pick(candidates, tried: TriedSet())?.reason == .panic)
        // Who leaves counts nowhere: one of two that stay is half.
        candidates[2].isLeaving = true
        candidates[3].isLeaving = true
        #expect(shares(&pool, candidates, picks: 40) == [1, 0, 0, 0])
    }

    @Test func withoutPanicOnlyNobodyIsTooFew() {
        var pool = Pool(.weighted, seed: 1)
        var candidates = [Candidate(isEligible: false, priority: 0), Candidate(priority: 3), Candidate(isEligible: false, isLeaving: true)]
        #expect(pool.pick(candidates, tried: TriedSet()) == Selection(1, .share))
        // The last resort of a retry: nobody fit is left.
        #expect(pool.pick(candidates, tried: tried(1)) == Selection(0, .panic))
        candidates[1].isEligible = false
        #expect(pool.pick(candidates, tried: TriedSet())?.reason == .panic)
        #expect(pool.pick(candidates, tried: tried(0, 1)) == nil)
    }

    @Test func weightZeroServesWhenNobodyElseIsLeft() {
        var pool = Pool(.leastConnections, seed: 1)
        let candidates = [Candidate(weight: 0), Candidate(isEligible: false), Candidate(isEligible: false, weight: 0)]
        #expect(pool.pick(candidates, tried: TriedSet()) == Selection(1, .panic))
        #expect(pool.pick(candidates, tried: tried(1)) == Selection(0, .panic))
        #expect(pool.pick(candidates, tried: tried(0, 1)) == Selection(2, .panic))
    }

    // MARK: full, and nobody

    @Test func whoIsFullIsPassedOverButHealthy() {
        var pool = Pool(.roundRobin, panic: 0.5, seed: 1)
        var candidates = [Candidate(isFull: true), Candidate(), Candidate(isEligible: false), Candidate(isEligible: false)]
        #expect(shares(&pool, candidates, picks: 10) == [0, 1, 0, 0])
        candidates[1].isFull = true
        #expect(pool.pick(candidates, tried: TriedSet()) == nil)
        #expect(pool.emptiness(candidates, tried: TriedSet()) == .allFull)
    }

    @Test func nobodyHasAReason() {
        let pool = Pool(.roundRobin, seed: 1)
        #expect(pool.emptiness([], tried: TriedSet()) == .none)
        #expect(pool.emptiness([Candidate(isLeaving: true)], tried: TriedSet()) == .none)
        #expect(pool.emptiness([Candidate(), Candidate(isLeaving: true)], tried: tried(0)) == .allTried)
        #expect(pool.emptiness([Candidate(), Candidate(isFull: true)], tried: tried(0)) == .allFull)
    }

    // MARK: slow start

    @Test func admissionIsAStraightLine() {
        let start = SlowStart(window: .seconds(10))
        let ages: [Duration] = [
            .seconds(-5), .zero, .seconds(1), .milliseconds(2500), .seconds(5), .milliseconds(9999), .seconds(10), .seconds(99999),
        ]
        #expect(ages.map(start.admission) == [100, 100, 100, 250, 500, 1000, 1000, 1000])
        #expect(SlowStart(window: .zero).admission(age: .zero) == 1000)
        #expect(SlowStart(window: .seconds(1), least: .nan).admission(age: .zero) == 0)
        #expect(SlowStart(window: .seconds(1), least: 7).admission(age: .zero) == 1000)
    }

    /// One of two replicas ramps, with p. In turn, each of the other's turns is followed by one of its own with p: p / (1 + p) of all. By
    /// share, it has every second one of the picks in which it takes part: p / 2. Within four standard deviations (0.03).
    @Test(arguments: [BalanceMethod.roundRobin, .weighted], [100, 250, 500, 750])
    func theShareRampsWithTheAdmission(method: BalanceMethod, admission: Int) {
        var pool = Pool(method, seed: UInt64(admission))
        let share = shares(&pool, [Candidate(), Candidate(admission: admission)], picks: 4000)[1]
        let p = Double(admission) / 1000
        #expect(abs(share - (method == .roundRobin ? p / (1 + p) : p / 2)) < 0.03, "\(share)")
    }

    @Test func whoRampsServesWhenNobodyElseIsLeft() {
        var pool = Pool(.roundRobin, seed: 3)
        let candidates = [Candidate(), Candidate(admission: 1)]
        for _ in 0..<50 { #expect(pool.pick(candidates, tried: tried(0))?.index == 1) }
        // Among those that all ramp, shares are by admission: the one furthest takes part in every pick.
        let ramping = shares(&pool, [Candidate(admission: 400), Candidate(admission: 100)], picks: 4000)
        #expect(abs(ramping[1] - 0.2) < 0.08, "\(ramping)")
        for admission in [0, -5] { #expect(pool.pick([Candidate(admission: admission)], tried: TriedSet())?.index == 0) }
    }

    // MARK: priorities

    private func levels(_ healthy: [(Int, of: Int)]) -> [Candidate] {
        healthy.enumerated().flatMap { level, counts in (0..<counts.of).map { Candidate(isEligible: $0 < counts.0, priority: level) } }
    }

    private static let byHand: [(healthy: [Int], shares: [Double])] = [
        ([10, 0], [1.0, 0.0]),
        ([8, 10], [1.0, 0.0]),
        ([7, 10], [0.98, 0.02]),
        ([5, 10], [0.7, 0.3]),
        // 0.7 and 0.14, scaled up.
        ([5, 1], [0.833_333_333_333, 0.166_666_666_667]),
        ([0, 10], [0.0, 1.0]),
        ([2, 2, 10], [0.28, 0.28, 0.44]),
        ([0, 0], [0.0, 0.0]),
        ([1, 1, 0, 2], [0.25, 0.25, 0.0, 0.5]),
    ]

    @Test(arguments: byHand)
    func spillOverAsByHand(healthy: [Int], expected: [Double]) {
        let shares = PriorityGroups.shares(levels(healthy.map { ($0, of: 10) }))
        for (level, share) in expected.enumerated() { #expect(abs(shares[level] - share) < 1e-9, "\(level): \(shares[level])") }
    }

    @Test func aLevelIsDrawnByItsShare() {
        let candidates = levels([(5, of: 10), (10, of: 10)])
        #expect([0, 0.699, 0.701, 0.999_999_999_999].map { PriorityGroups.level(candidates, draw: $0) } == [0, 0, 1, 1])
        #expect(PriorityGroups.level(levels([(0, of: 3)]), draw: 0) == nil)
        #expect(PriorityGroups.level([], draw: 0.5) == nil)
        // Leaving ones count nowhere; priorities outside count as the ends.
        let odd = [Candidate(isEligible: false, priority: -3, isLeaving: true), Candidate(priority: .min), Candidate(priority: .max)]
        #expect(PriorityGroups.shares(odd)[0] == 1 && PriorityGroups.shares(Array(odd.dropFirst(2)))[7] == 1)
    }

    /// 70 % within four standard deviations (0.007), and evenly within each level: a request of one level does not move another's turn.
    @Test func aPoolSpillsOver() {
        var pool = Pool(.roundRobin, seed: 9)
        let shares = shares(&pool, levels([(2, of: 4), (2, of: 2)]), picks: 4000)
        #expect(abs(shares[0] + shares[1] - 0.7) < 0.03, "\(shares)")
        #expect(abs(shares[0] - shares[1]) < 0.001 && abs(shares[4] - shares[5]) < 0.001 && shares[2] + shares[3] == 0, "\(shares)")
    }

    @Test func retriesGoOnToTheNextLevel() {
        var pool = Pool(.roundRobin, seed: 9)
        var candidates = levels([(1, of: 1), (1, of: 1), (1, of: 1)])
        #expect(pool.pick(candidates, tried: TriedSet())?.index == 0)
        #expect(pool.pick(candidates, tried: tried(0))?.index == 1)
        candidates[1].isFull = true
        #expect(pool.pick(candidates, tried: tried(0))?.index == 2)
        #expect(pool.pick(candidates, tried: tried(0, 2)) == nil)
    }
}
