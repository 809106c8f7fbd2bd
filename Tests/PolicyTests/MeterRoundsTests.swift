import Basics
import Testing

@testable import Measurement

private func at(_ seconds: Double) -> MonotonicTime { MonotonicTime(nanoseconds: Int64(seconds * 1e9)) }

@Suite struct MeterRoundsTests {
    private func takeAll(_ rounds: inout MeterRounds) -> [String] {
        var taken: [String] = []
        while let id = rounds.take() { taken.append(id) }
        return taken
    }

    @Test func aNewSourceIsAskedAtOnceAndThenOnceAPeriod() {
        var rounds = MeterRounds(period: .seconds(10), concurrency: 4)
        rounds.follow(["a", "b"], now: at(100))
        #expect(rounds.turn(at(100)) == [])
        #expect(takeAll(&rounds) == ["a", "b"])
        rounds.finished("a")
        rounds.finished("b")
        var asked: [String: [Double]] = [:]
        for step in 1...400 {
            let now = 100 + Double(step) / 10
            _ = rounds.turn(at(now))
            for id in takeAll(&rounds) {
                asked[id, default: []].append(now)
                rounds.finished(id)
            }
        }
        for id in ["a", "b"] {
            let times = asked[id] ?? []
            #expect(times.count == 4 || times.count == 3)
            #expect(times[0] - 100 >= 2.5)
            for (one, next) in zip(times, times.dropFirst()) { #expect(abs(next - one - 10) < 0.11) }
        }
    }

    @Test func phasesAreSpreadOverThePeriod() {
        let quarter = (0..<1000).map { MeterRounds.phase("page s/\($0)", of: 4000) / 1000 }
        for part in 0..<4 { #expect((180...320).contains(quarter.count { $0 == Int64(part) })) }
    }

    @Test func whoIsStillAtWorkIsSkippedAndCounted() {
        var rounds = MeterRounds(period: .seconds(10), concurrency: 4)
        rounds.follow(["slow"], now: at(100))
        _ = rounds.turn(at(100))
        #expect(rounds.take() == "slow")
        var skipped = 0
        for second in 101...150 { skipped += rounds.turn(at(Double(second))).count }
        #expect(takeAll(&rounds) == [])
        #expect(skipped >= 4 && skipped <= 5 && rounds.skipped("slow") == skipped)
        rounds.finished("slow")
        #expect(rounds.skipped("slow") == 0)
        _ = rounds.turn(at(161))
        #expect(takeAll(&rounds) == ["slow"])
    }

    @Test func noMoreThanAllowedAreAskedAtOnceAndEachWaitsOnce() {
        var rounds = MeterRounds(period: .seconds(10), concurrency: 2)
        rounds.follow(Set((0..<5).map { "s\($0)" }), now: at(0))
        _ = rounds.turn(at(0))
        #expect(takeAll(&rounds) == ["s0", "s1"])
        for second in 1...60 { _ = rounds.turn(at(Double(second))) }
        #expect(rounds.active == 2 && rounds.waiting == 3)
        rounds.finished("s0")
        #expect(takeAll(&rounds) == ["s2"])
        rounds.finished("s1")
        rounds.finished("s2")
        #expect(takeAll(&rounds) == ["s3", "s4"])
    }

    @Test func aSourceThatLeavesAndComesBackIsNotAskedTwice() {
        var rounds = MeterRounds(period: .seconds(10), concurrency: 4)
        rounds.follow(["a", "b"], now: at(0))
        _ = rounds.turn(at(0))
        #expect(takeAll(&rounds) == ["a", "b"])
        rounds.follow(["b"], now: at(1))
        rounds.follow(["a", "b"], now: at(2))
        _ = rounds.turn(at(2))
        #expect(takeAll(&rounds) == [] && rounds.active == 2)
        rounds.follow([], now: at(3))
        #expect(rounds.nextTurn == nil)
        rounds.finished("a")
        rounds.finished("a")
        rounds.finished("b")
        #expect(rounds.active == 0)
        // Gone while it waited.
        rounds.follow(["c"], now: at(4))
        _ = rounds.turn(at(4))
        rounds.follow([], now: at(4))
        #expect(rounds.take() == nil && rounds.waiting == 0)
    }

    @Test func missedTurnsAreNotMadeUpFor() {
        var rounds = MeterRounds(period: .seconds(10), concurrency: 4)
        rounds.follow(["a"], now: at(0))
        _ = rounds.turn(at(0))
        #expect(takeAll(&rounds) == ["a"])
        rounds.finished("a")
        let skipped = rounds.turn(at(3600))
        #expect(skipped.count > 300 && skipped.count <= 360)
        #expect(takeAll(&rounds) == ["a"])
        rounds.finished("a")
        #expect(rounds.turn(at(3600.5)) == [] && takeAll(&rounds) == [])
    }

    @Test func aClockThatGoesBackStopsNothing() {
        var rounds = MeterRounds(period: .seconds(10), concurrency: 4)
        rounds.follow(["a"], now: at(1_000_000))
        _ = rounds.turn(at(1_000_000))
        #expect(takeAll(&rounds) == ["a"])
        rounds.finished("a")
        var asked = 0
        for second in 1...30 {
            _ = rounds.turn(at(Double(second)))
            for id in takeAll(&rounds) {
                asked += 1
                rounds.finished(id)
            }
        }
        #expect(asked >= 2 && asked <= 3)
    }

    /// Whatever comes in whatever order: never twice at a time, never more than allowed, nothing lost.
    @Test func randomHistoriesKeepTheRules() {
        for seed in 0..<40 {
            var random = SeededRandom(seed: UInt64(seed)), rounds = MeterRounds(period: .seconds(10), concurrency: 3), now = 0.0
            var underWay = Set<String>(), followed = Set<String>()
            for _ in 0..<500 {
                now += Double.random(in: 0...6, using: &random)
                switch Int.random(in: 0...9, using: &random) {
                case 0:
                    followed = Set((0..<8).filter { _ in Bool.random(using: &random) }.map { "s\($0)" })
                    rounds.follow(followed, now: at(now))
                case 1...4:
                    guard let id = underWay.sorted().randomElement(using: &random) else { continue }
                    underWay.remove(id)
                    rounds.finished(id)
                default:
                    _ = rounds.turn(at(now))
                    while let id = rounds.take() { #expect(underWay.insert(id).inserted && followed.contains(id)) }
                }
                #expect(underWay.count <= 3 && rounds.active == underWay.count && rounds.waiting <= 8)
            }
            for id in underWay { rounds.finished(id) }
            for _ in 0..<20 {
                now += 10
                _ = rounds.turn(at(now))
                while let id = rounds.take() { rounds.finished(id) }
            }
            #expect(rounds.active == 0 && rounds.waiting == 0)
        }
    }
}
