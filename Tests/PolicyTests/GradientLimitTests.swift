import Basics
import Resilience
import Testing

/// A server that serves up to `knee` requests in `base` ms each; more than that share it, so that each takes longer. `demand` clients keep
/// asking, and whoever is refused asks again in the next millisecond.
private struct Server {
    var limit = GradientLimit(subject: "api", .init(period: .seconds(10)))
    var base = 20.0
    var knee = 20.0
    var demand = 60
    var now = 1000
    var decisions: [Decision<Int>] = []
    var limits: [Int] = []
    var measured = 0
    private var random = SeededRandom(seed: 6)
    /// What is left to do of each, in ms of an unshared server, and when it began.
    private var work: [(left: Double, began: Int)] = []

    mutating func run(seconds: Int) {
        limits.removeAll()
        for _ in 0..<(seconds * 1000) {
            now += 1
            let speed = min(1, knee / Double(max(work.count, 1)))
            for i in work.indices { work[i].left -= speed }
            let time = MonotonicTime(nanoseconds: Int64(now) * 1_000_000)
            for done in work where done.left <= 0 {
                if let decision = limit.finished(.milliseconds(now - done.began), now: time) { decisions.append(decision) }
            }
            work.removeAll { $0.left <= 0 }
            while work.count < demand, limit.admitted(inFlight: work.count) {
                work.append((base * Double.random(in: 0.7...1.3, using: &random), now))
            }
            limits.append(limit.limit)
            if limit.isMeasuring { measured += 1 }
        }
    }
}

@Suite struct GradientLimitTests {
    /// The fixed point is where limit × (1 - 1.25 / (limit / 20)) = √limit: at 31.
    @Test func itFindsTheKneeAndRecovers() {
        var server = Server()
        server.run(seconds: 5)
        server.run(seconds: 12)
        #expect(server.limits.allSatisfy { (24...40).contains($0) }, "\(server.limits.min()!) \(server.limits.max()!)")
        // Measuring anew does not collapse it, takes little, and does not take the queue for the latency.
        #expect(server.measured > 0 && server.measured < 1500, "\(server.measured)")
        // Four times fewer at once: it follows, and comes back.
        server.knee = 5
        server.run(seconds: 3)
        server.run(seconds: 4)
        #expect(server.limits.allSatisfy { (5...16).contains($0) }, "\(server.limits.min()!) \(server.limits.max()!)")
        server.knee = 20
        server.run(seconds: 5)
        server.run(seconds: 12)
        #expect(server.limits.allSatisfy { (24...40).contains($0) }, "\(server.limits.min()!) \(server.limits.max()!)")
    }

    /// Slower for good: throttled until the period ends, and then as before.
    @Test func aNewLatencyIsAcceptedAfterThePeriod() {
        var server = Server()
        server.run(seconds: 3)
        server.base = 60
        server.run(seconds: 4)
        let throttled = server.limit.limit
        server.run(seconds: 16)
        #expect(throttled < 15 && (24...40).contains(server.limit.limit), "\(throttled) \(server.limit.limit)")
    }

    @Test func itTellsOnlyChangesOfATenth() {
        var server = Server()
        server.run(seconds: 10)
        #expect(!server.decisions.isEmpty && server.decisions.count < 12, "\(server.decisions.count)")
        var told = 20
        for decision in server.decisions {
            #expect(abs(decision.result - told) * 10 >= told)
            told = decision.result
        }
        let record = server.decisions[0].record
        #expect(record.kind == .limit && record.subject == "api" && record.outcome == "\(server.decisions[0].result)")
        #expect(
            record.sentence.hasPrefix("api may have \(server.decisions[0].result) requests under way in place of 20: they take"),
            "\(record.sentence)")
    }

    @Test func aQuietServiceDoesNotRaiseItsLimit() {
        var server = Server()
        server.demand = 5
        server.run(seconds: 4)
        #expect(server.limit.limit == 20)
    }

    /// Whatever it is fed, it stays within its bounds and traps nowhere.
    @Test func itStaysWithinItsBounds() {
        var random = SeededRandom(seed: 2)
        let settings = GradientLimit.Settings(
            start: 0, lowest: -4, highest: 50, tolerance: .nan, quantile: .nan, samples: 0, interval: .zero, period: .zero)
        var limits = [
            GradientLimit(subject: "x", settings),
            GradientLimit(subject: "y", .init(start: 7, lowest: 5, highest: 9, samples: 3, interval: .seconds(1))),
        ]
        for _ in 0..<1000 {
            for i in limits.indices {
                _ = limits[i].admitted(inFlight: [0, 5, -3, .max, 40].randomElement(using: &random)!)
                let latency = Duration.nanoseconds(Int64(bitPattern: random.next()) >> Int64.random(in: 0..<64, using: &random))
                _ = limits[i].finished(latency, now: MonotonicTime(nanoseconds: Int64(bitPattern: random.next())))
                #expect((limits[i].settings.lowest...limits[i].settings.highest).contains(limits[i].limit))
            }
        }
        #expect(limits[0].settings.lowest == 1 && limits[0].settings.start == 1)
    }
}
