import Basics
import LoadPlanning
import Testing

/// When requests are due: exact counts, times that never go back, ramps that follow their line.
@Suite struct LoadScheduleTests {
    private func times(_ phases: [LoadPhase], _ spacing: ArrivalSchedule.Spacing = .even, seed: UInt64 = 1) -> [Int64] {
        Array(ArrivalSchedule(phases.pieces, spacing: spacing, seed: seed))
    }

    @Test func aRateHeldIsEvenlySpacedFromZero() {
        let times = times([.hold(.arrivals, 200, for: .seconds(30))])
        #expect(times.count == 6000)
        #expect(times.first == 0)
        for (n, time) in times.enumerated() { #expect(abs(time - Int64(n) * 5_000_000) <= 1) }
    }

    @Test(arguments: [(1.0, 100), (0.5, 700), (7.3, 1300), (33.3, 2100), (100_000.0, 100)])
    func countsAreTheAreaBelowTheLine(rate: Double, milliseconds: Int) {
        let phase = LoadPhase.hold(.arrivals, rate, for: .milliseconds(milliseconds))
        let expected = Int((rate * Double(milliseconds) / 1000 - 1e-6).rounded(.up))
        #expect(times([phase]).count == expected)
        #expect(ArrivalSchedule([phase].pieces).expectedCount == expected)
    }

    /// Fractions are carried from phase to phase: two halves of a second at 1/s are one request.
    @Test func fractionsGoOnInTheNextPhase() {
        let half = LoadPhase.hold(.arrivals, 1, for: .milliseconds(500))
        #expect(times([half, half]) == [0])
        #expect(times([half, half, half]).count == 2)
    }

    @Test func aRampFollowsItsLine() {
        let up = LoadPhase(.arrivals, .ramp, from: 0, to: 1000, duration: .seconds(10))
        let times = times([up])
        #expect(times.count == 5000)
        // After t seconds of a ramp from 0 by 100/s each second there are 50 t² requests.
        for second in 1...9 {
            let before = times.count { $0 < Int64(second) * 1_000_000_000 }
            #expect(abs(before - 50 * second * second) <= 1, "second \(second): \(before)")
        }
        let down = LoadPhase(.arrivals, .ramp, from: 1000, to: 0, duration: .seconds(10))
        #expect(self.times([down]).count == 5000)
    }

    @Test func stepsAreEvenlyApartAndEquallyLong() {
        let steps = LoadPhase(.arrivals, .step(5), from: 100, to: 500, duration: .seconds(50))
        let pieces = [steps].pieces
        #expect(pieces.map(\.from) == [100, 200, 300, 400, 500])
        #expect(pieces.allSatisfy { $0.from == $0.to && $0.duration == 10_000_000_000 })
        #expect(times([steps]).count == 15_000)
    }

    /// Whatever the phases are: times never go back, stay within their run, and their count is the area.
    @Test(arguments: 1...40) func anySchedule(seed: Int) {
        var random = SeededRandom(seed: UInt64(seed))
        var phases: [LoadPhase] = []
        for _ in 0..<Int.random(in: 1...6, using: &random) {
            let from = Double.random(in: 0...300, using: &random), to = Double.random(in: 1...300, using: &random)
            let duration = Duration.milliseconds(Int.random(in: 100...4000, using: &random))
            let shape: LoadPhase.Shape = [.hold, .ramp, .step(3), .spike].randomElement(using: &random) ?? .hold
            let unit: LoadPhase.Unit = Bool.random(using: &random) ? .arrivals : .users
            phases.append(LoadPhase(unit, shape, from: shape == .hold || shape == .spike ? to : from, to: to, duration: duration))
        }
        let pieces = phases.pieces
        for (a, b) in zip(pieces, pieces.dropFirst()) { #expect(a.end == b.start) }
        for spacing in ArrivalSchedule.Spacing.allCases {
            let times = times(phases, spacing, seed: UInt64(seed))
            for (a, b) in zip(times, times.dropFirst()) { #expect(a <= b) }
            for time in times {
                let isWithin = pieces.contains { $0.unit == .arrivals && $0.start <= time && time <= $0.end }
                #expect(isWithin, "\(time)")
            }
            if spacing == .even { #expect(times.count == ArrivalSchedule(pieces).expectedCount) }
        }
    }

    @Test func poissonIsRepeatableAndHasItsMeanAndSpread() {
        let phase = LoadPhase.hold(.arrivals, 1000, for: .seconds(20))
        let one = times([phase], .poisson, seed: 7)
        #expect(one == times([phase], .poisson, seed: 7))
        #expect(one != times([phase], .poisson, seed: 8))
        // 20,000 expected, deviation 141: four of them either way.
        #expect(abs(one.count - 20_000) < 566)
        let gaps = zip(one, one.dropFirst()).map { Double($1 - $0) / 1e6 }
        let mean = gaps.reduce(0, +) / Double(gaps.count)
        let variance = gaps.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(gaps.count)
        // Of an exponential distribution the deviation is the mean.
        #expect(abs(mean - 1) < 0.05 && abs(variance.squareRoot() - 1) < 0.08)
    }

    @Test func requestsAreChosenByTheirWeight() throws {
        let path = try LoadText("/")
        let requests = [LoadRequest("GET", path, weight: 3), LoadRequest("GET", path, weight: 1), LoadRequest("GET", path, weight: 6)]
        var choice = RequestChoice(requests, seed: 3), again = RequestChoice(requests, seed: 3)
        var counts = [0, 0, 0]
        for _ in 0..<10_000 {
            let chosen = choice.next()
            #expect(chosen == again.next())
            counts[chosen] += 1
        }
        #expect(abs(counts[0] - 3000) < 200 && abs(counts[1] - 1000) < 150 && abs(counts[2] - 6000) < 200)
    }

    @Test(arguments: [("200/s", 200.0), ("0.5/s", 0.5), ("30/min", 0.5), ("3600/h", 1.0), ("100000/s", 100_000)])
    func ratesRead(text: String, rate: Double) { #expect(arrivalRate(text) == rate) }

    @Test(arguments: ["", "200", "200/", "/s", "0/s", "-1/s", "1e3/s", "100001/s", "inf/s", "nan/s", "1/s/s", "1/day", " 1/s", "1.2.3/s"])
    func notRates(text: String) { #expect(arrivalRate(text) == nil) }
}
