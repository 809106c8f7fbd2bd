import Balancing
import Basics
import Testing

@Suite struct BalancingTests {
    static let all: [BalanceMethod] = [.roundRobin, .weighted, .leastConnections, .twoChoices, .ipHash, .hashTrace]

    private func counts(_ method: BalanceMethod, _ candidates: [Candidate], picks: Int) -> [Int] {
        var pool = Pool(method, seed: 1)
        var counts = [Int](repeating: 0, count: candidates.count)
        for _ in 0..<picks { counts[pool.pick(candidates, tried: TriedSet())!.index] += 1 }
        return counts
    }

    /// Without a key, hashes go by the fewest.
    @Test(arguments: [BalanceMethod.roundRobin, .weighted, .leastConnections, .hashTrace])
    func anIdlePoolIsUsedEvenly(method: BalanceMethod) {
        #expect(counts(method, [Candidate](repeating: Candidate(), count: 3), picks: 100).sorted() == [33, 33, 34])
    }

    @Test func weightsAreExactInEachRound() {
        #expect(counts(.weighted, [5, 1, 1].map { Candidate(weight: $0) }, picks: 70) == [50, 10, 10])
        #expect(counts(.weighted, [3, 0, 1].map { Candidate(weight: $0) }, picks: 40) == [30, 0, 10])
    }

    @Test func weightsAreSpreadSmoothly() {
        var pool = Pool(.weighted, seed: 1)
        let candidates = [5, 1, 1].map { Candidate(weight: $0) }
        let picks = (0..<7).map { _ in pool.pick(candidates, tried: TriedSet())!.index }
        #expect(picks == [0, 0, 1, 0, 2, 0, 0])
    }

    @Test func leastConnectionsTakesTheFewestForItsWeight() {
        var pool = Pool(.leastConnections, seed: 1)
        let plain = pool.pick([Candidate(inFlight: 3), Candidate(inFlight: 1), Candidate(inFlight: 2)], tried: TriedSet())
        #expect(plain == Selection(1, .fewest))
        let weighted = pool.pick([Candidate(weight: 4, inFlight: 6), Candidate(weight: 1, inFlight: 2)], tried: TriedSet())
        #expect(weighted?.index == 0)
    }

    @Test(arguments: BalancingTests.all)
    func theUnfitAndTheTriedAreNeverChosen(method: BalanceMethod) {
        var random = SeededRandom(seed: 11)
        var pool = Pool(method, seed: 12)
        for _ in 0..<500 {
            let candidates = (0..<Int.random(in: 0...12, using: &random)).map { _ in candidate(&random) }
            let present = candidates.filter { !$0.isLeaving }
            let usable = present.filter { $0.isEligible && (method == .roundRobin || $0.weight > 0) }
            var tried = TriedSet()
            var yielded: Set<Int> = []
            // Asked again and again, it yields each fit one at most once: retry and failover are this one mechanism.
            for _ in 0..<8 {
                guard let pick = pool.pick(candidates, tried: tried, key: Bool.random(using: &random) ? random.next() : nil) else { break }
                let chosen = candidates[pick.index]
                #expect(!chosen.isLeaving && !chosen.isFull)
                // Never in panic while an eligible one is untried.
                if yielded.count < usable.count { #expect(pick.reason != .panic && chosen.isEligible) }
                #expect(yielded.insert(pick.index).inserted)
                tried.insert(pick.index)
            }
            // Full ones that are eligible keep it from going on to the others.
            let free = usable.filter { !$0.isFull }.count
            let all = present.filter { !$0.isFull }.count
            #expect(yielded.count == min(free < usable.count ? free : all, 8))
        }
    }

    private func candidate(_ random: inout SeededRandom) -> Candidate {
        Candidate(
            isEligible: Bool.random(using: &random), weight: Int.random(in: 0...5, using: &random),
            inFlight: Int.random(in: 0...9, using: &random),
            identity: random.next(),
            priority: Int.random(in: -1...9, using: &random) / 4, isLeaving: Int.random(in: 0..<5, using: &random) == 0,
            admission: Int.random(in: 0...1500, using: &random), isFull: Int.random(in: 0..<5, using: &random) == 0)
    }
}

@Suite struct HealthTests {
    private func at(_ seconds: Int) -> MonotonicTime { MonotonicTime(nanoseconds: Int64(seconds) * 1_000_000_000) }

    /// Fails once at each time, and tells the last decision.
    private func fail(_ health: inout PassiveHealth, _ times: Int...) -> Decision<PassiveHealth.State>? {
        times.map { health.requestFailed(at($0), subject: "r", cause: "refused") }.last!
    }

    @Test func theThirdFailureWithinTheWindowEjects() {
        var health = PassiveHealth(.init())
        let before = fail(&health, 0, 10)
        #expect(before == nil)
        let decision = fail(&health, 20)
        #expect(decision?.result == .ejected(until: at(30)))
        #expect(decision?.record.sentence.contains("3 requests failed within 30s; the last one: refused") == true)
    }

    @Test func oldFailuresAndSuccessesAreForgotten() {
        var health = PassiveHealth(.init())
        let old = fail(&health, 0, 10, 41, 52)
        #expect(old == nil)
        health.requestSucceeded()
        let after = fail(&health, 53, 54)
        #expect(after == nil && !health.isEjected)
    }

    @Test func probationEndsWellOrLonger() {
        var health = PassiveHealth(.init(failures: 1))
        _ = fail(&health, 0)
        let early = health.timePassed(at(9)), inTime = health.timePassed(at(10))
        #expect(!early && inTime && health.state == .probation)
        let second = fail(&health, 11)
        #expect(second?.result == .ejected(until: at(31)))
        health.recovered()
        health.requestSucceeded()
        #expect(health.state == .healthy)
        let third = fail(&health, 40)
        #expect(third?.result == .ejected(until: at(50)))
    }

    @Test func theEjectionHasALimit() {
        var health = PassiveHealth(.init(failures: 1))
        var now = 0
        for _ in 0..<40 {
            guard case .ejected(let until)? = fail(&health, now)?.result else {
                Issue.record("not ejected")
                return
            }
            #expect(until - at(now) <= .seconds(60))
            _ = health.timePassed(until)
            now = Int(until.nanoseconds / 1_000_000_000)
        }
    }

    @Test func activeChecksRiseAndFall() {
        var health = ActiveHealth(.init(rise: 2, fall: 3))
        let results = [false, false, true, false, false, false, true, true].map { health.probed($0, subject: "r", detail: "d")?.result }
        #expect(results == [nil, nil, nil, nil, nil, false, nil, true])
    }
}

@Suite struct RendezvousHashTests {
    private func pool(_ names: [String], weight: Int = 1) -> [Candidate] {
        names.map { Candidate(weight: weight, identity: RendezvousHash.key($0.utf8)) }
    }
    private func home(_ key: Int, _ pool: [Candidate]) -> Int {
        RendezvousHash().pick(pool, among: [Bool](repeating: true, count: pool.count), key: RendezvousHash.key(String(key).utf8))!.index
    }

    @Test func keysAreSpreadByWeight() {
        var candidates = pool(["a", "b", "c"])
        candidates[2].weight = 2
        var counts = [0, 0, 0]
        for key in 0..<20_000 { counts[home(key, candidates)] += 1 }
        for (count, share) in zip(counts, [0.25, 0.25, 0.5]) { #expect(abs(Double(count) / 20_000 - share) < 0.02, "\(counts)") }
    }

    @Test func onlyTheKeysOfWhoCameOrWentMove() {
        let three = pool(["a", "b", "c"]), four = pool(["a", "b", "c", "d"])
        var moved = 0
        for key in 0..<10_000 {
            let before = home(key, three), after = home(key, four)
            if before != after {
                moved += 1
                #expect(after == 3)
            }
        }
        #expect((2300...2700).contains(moved))
        // In whatever order they are listed.
        let names = ["c", "a", "b"]
        for key in 0..<100 { #expect(["a", "b", "c"][home(key, three)] == names[home(key, pool(names))]) }
    }

    @Test func whoHasMoreThanItsShareIsPassedOver() {
        var candidates = pool(["a", "b", "c"])
        let place = home(7, candidates)
        var method = Pool(.hashTrace, seed: 1)
        let key = RendezvousHash.key("7".utf8)
        for i in candidates.indices { candidates[i].inFlight = 8 }
        #expect(method.pick(candidates, tried: TriedSet(), key: key) == Selection(place, .home))
        candidates[place].inFlight = 16
        let spilled = method.pick(candidates, tried: TriedSet(), key: key)
        #expect(spilled?.reason == .spill && spilled?.index != place)
        // One hot key fills nobody beyond a quarter over the average.
        for i in candidates.indices { candidates[i].inFlight = 0 }
        for _ in 0..<300 { candidates[method.pick(candidates, tried: TriedSet(), key: key)!.index].inFlight += 1 }
        #expect(candidates.map(\.inFlight).max()! <= 126, "\(candidates.map(\.inFlight))")
        // Without a key the fewest decide.
        #expect(method.pick(candidates, tried: TriedSet(), key: nil)?.reason == .fewest)
    }
}
