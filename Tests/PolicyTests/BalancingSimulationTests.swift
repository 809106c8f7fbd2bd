import Balancing
import Basics
import Testing

/// A pool in made-up time: requests arrive at random, each replica works on up to `workers` at once, and the rest waits there.
private struct Model {
    struct Replica {
        var service: Int
        var workers = 8
        var isHere = true
        var busy = 0
        var queue: [Int] = []
        var served = 0
        var inFlight: Int { busy + queue.count }
    }

    var pool: Pool
    var replicas: [Replica]
    var random: SeededRandom
    var now = 0
    var latencies: [Int] = []
    /// Ends by time; several at one time in the order they began.
    private var ends: [Int: [(replica: Int, arrived: Int)]] = [:]

    init(_ method: BalanceMethod, services: [Int], seed: UInt64 = 5) {
        pool = Pool(method, seed: seed)
        replicas = services.map { Replica(service: $0) }
        random = SeededRandom(seed: seed)
    }

    /// One step of time: ends first, then an arrival with probability 1 / `gap`. Returns who got the arrival.
    @discardableResult
    mutating func step(gap: Int) -> Int? {
        now += 1
        for end in ends.removeValue(forKey: now) ?? [] {
            latencies.append(now - end.arrived)
            replicas[end.replica].served += 1
            replicas[end.replica].busy -= 1
            if !replicas[end.replica].queue.isEmpty { begin(end.replica, replicas[end.replica].queue.removeFirst()) }
        }
        guard Int.random(in: 0..<gap, using: &random) == 0 else { return nil }
        let candidates = replicas.enumerated().map {
            Candidate(isEligible: $1.isHere, inFlight: $1.inFlight, identity: UInt64($0 + 1), isLeaving: !$1.isHere)
        }
        let chosen = pool.pick(candidates, tried: TriedSet(), key: random.next())!.index
        if replicas[chosen].busy < replicas[chosen].workers { begin(chosen, now) } else { replicas[chosen].queue.append(now) }
        return chosen
    }

    private mutating func begin(_ replica: Int, _ arrived: Int) {
        replicas[replica].busy += 1
        let time = replicas[replica].service * Int.random(in: 50...150, using: &random) / 100
        ends[now + max(time, 1), default: []].append((replica, arrived))
    }

    /// Counts of arrivals over some steps.
    mutating func run(_ steps: Int, gap: Int) -> [Int] {
        var counts = [Int](repeating: 0, count: replicas.count)
        for _ in 0..<steps { if let chosen = step(gap: gap) { counts[chosen] += 1 } }
        return counts
    }
}

@Suite struct BalancingSimulationTests {
    /// One replica of four is ten times slower, and can serve 8 requests in 400 steps: 2 in 100, where a turn would bring it 6.
    @Test(arguments: [BalanceMethod.leastConnections, .twoChoices])
    func theSlowOneGetsMuchLessThanItsTurn(method: BalanceMethod) {
        var model = Model(method, services: [400, 40, 40, 40])
        let counts = model.run(12_000, gap: 4)
        let all = counts.reduce(0, +)
        #expect(counts[0] * 4 < all / 2, "\(counts)")
        for other in counts.dropFirst() { #expect(abs(other * 3 - (all - counts[0])) < all / 4, "\(counts)") }
        #expect(model.replicas[0].queue.count < 8)
    }

    @Test func inTurnTheSlowOneIsBuried() {
        var turn = Model(.roundRobin, services: [400, 40, 40, 40]), fewest = Model(.leastConnections, services: [400, 40, 40, 40])
        let counts = turn.run(12_000, gap: 4)
        _ = fewest.run(12_000, gap: 4)
        #expect(counts.max()! - counts.min()! <= 1)
        #expect(turn.replicas[0].queue.count > 200, "\(turn.replicas[0].queue.count)")
        func mean(_ model: Model) -> Int { model.latencies.reduce(0, +) / model.latencies.count }
        #expect(mean(turn) > mean(fewest) * 2, "\(mean(turn)) \(mean(fewest))")
    }

    @Test func whoSlowsDownLosesItsShareAndGetsItBack() {
        var model = Model(.leastConnections, services: [40, 40, 40])
        let before = model.run(4000, gap: 4)
        model.replicas[1].service = 400
        _ = model.run(1000, gap: 4)
        let during = model.run(4000, gap: 4)
        model.replicas[1].service = 40
        _ = model.run(1000, gap: 4)
        let after = model.run(4000, gap: 4)
        func share(_ counts: [Int]) -> Double { Double(counts[1]) / Double(counts.reduce(0, +)) }
        #expect(
            abs(share(before) - 1.0 / 3) < 0.05 && share(during) < 0.2 && abs(share(after) - 1.0 / 3) < 0.05, "\(before) \(during) \(after)"
        )
    }

    @Test(arguments: BalancingTests.all)
    func whoComesAndGoesGetsItsShareAndNothing(method: BalanceMethod) {
        var model = Model(method, services: [40, 40, 40, 40])
        model.replicas[3].isHere = false
        #expect(model.run(2000, gap: 4)[3] == 0)
        model.replicas[3].isHere = true
        model.replicas[0].isHere = false
        let counts = model.run(4000, gap: 4)
        #expect(counts[0] == 0)
        for count in counts.dropFirst() { #expect(abs(count * 3 - counts.reduce(0, +)) < counts.reduce(0, +) / 3, "\(counts)") }
    }

    /// χ² of 6000 draws by weights 1, 2, 3 from an idle pool. Two of three, drawn without putting back, the first of them wins a tie: by
    /// weight.
    @Test func twoChoicesDrawsByWeight() {
        var pool = Pool(.twoChoices, seed: 2)
        let candidates = [1, 2, 3, 0].map { Candidate(weight: $0) }
        var counts = [0, 0, 0, 0]
        for _ in 0..<6000 { counts[pool.pick(candidates, tried: TriedSet())!.index] += 1 }
        var squares = 0.0
        for (count, expected) in zip(counts, [1000.0, 2000, 3000]) {
            let off = Double(count) - expected
            squares += off * off / expected
        }
        // Two degrees of freedom: above 13.8 once in a thousand seeds.
        #expect(squares < 13.8 && counts[3] == 0, "\(counts)")
    }

    /// Of three, the busiest is never taken, and each of the others when drawn with it or as the first.
    @Test func twoChoicesNeverTakesTheBusiest() {
        var pool = Pool(.twoChoices, seed: 2)
        let candidates = [9, 5, 1].map { Candidate(inFlight: $0) }
        var counts = [0, 0, 0]
        for _ in 0..<3000 {
            let pick = pool.pick(candidates, tried: TriedSet())!
            #expect(pick.reason == .fewer)
            counts[pick.index] += 1
        }
        #expect(counts[0] == 0 && abs(counts[1] - 1000) < 110, "\(counts)")
        // For its weight: 6 of weight 4 is fewer than 2 of weight 1.
        let weighted = [Candidate(weight: 4, inFlight: 6), Candidate(weight: 1, inFlight: 2)]
        for _ in 0..<50 { #expect(pool.pick(weighted, tried: TriedSet())?.index == 0) }
        // Equal seeds choose equally.
        var one = Pool(.twoChoices, seed: 7), other = Pool(.twoChoices, seed: 7)
        for _ in 0..<50 { #expect(one.pick(candidates, tried: TriedSet()) == other.pick(candidates, tried: TriedSet())) }
    }

    /// By client, as by trace: when one is ejected only its clients move, and they come back.
    @Test func onlyTheKeysOfWhoIsOutMove() {
        var pool = Pool(.hash(.clientAddress), seed: 1)
        var candidates = (1...5).map { Candidate(identity: RendezvousHash.key("r\($0)".utf8)) }
        func homes() -> [Int] {
            (0..<1000).map { pool.pick(candidates, tried: TriedSet(), key: ClientAddressKey.address(ipv4: $0))!.index }
        }
        let before = homes()
        candidates[2].isEligible = false
        let during = homes()
        for (a, b) in zip(before, during) { #expect(a == 2 ? b != 2 : a == b) }
        candidates[2].isEligible = true
        #expect(homes() == before)
    }
}
