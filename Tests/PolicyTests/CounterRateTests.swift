import Basics
import Testing

@testable import Measurement

private func at(_ seconds: Double) -> MonotonicTime { MonotonicTime(nanoseconds: Int64(seconds * 1e9) + 1_000_000_000_000) }

@Suite struct CounterRateTests {
    private func kind(_ result: Result<CounterRate.Rate, MeterFault>) -> MeterFault.Kind? {
        if case .failure(let fault) = result { fault.kind } else { nil }
    }

    @Test func aRateNeedsTwoReadingsAndCoversItsWindow() throws {
        var rate = CounterRate("c", window: .seconds(30))
        #expect(kind(rate.add(1000, at: at(0))) == .tooEarly)
        #expect(try rate.add(1150, at: at(15)).get() == CounterRate.Rate(perSecond: 10, increase: 150, window: .seconds(15), resets: 0))
        #expect(try rate.add(1150, at: at(30)).get().perSecond == 5)
        // The reading at 0 is out of the window now; the one at 15 begins it.
        #expect(try rate.add(1750, at: at(45)).get() == CounterRate.Rate(perSecond: 20, increase: 600, window: .seconds(30), resets: 0))
    }

    @Test func aCounterThatFallsIsCountedFromZeroAndTold() throws {
        var rate = CounterRate("c", window: .seconds(60))
        _ = rate.add(1_000_000, at: at(0))
        _ = rate.add(1_000_100, at: at(10))
        let result = try rate.add(50, at: at(20)).get()
        #expect(result.increase == 150 && result.resets == 1 && result.perSecond == 7.5)
        #expect(result.note == "the counter began anew once and was counted from zero")
        #expect(try rate.add(50, at: at(30)).get().resets == 1)
    }

    /// A million counted for one queue, ten for another, which is deleted: that is no reset.
    @Test func seriesCountByThemselves() throws {
        var rate = CounterRate("c", window: .seconds(600))
        _ = rate.add(series: [1: 1_000_000, 2: 10], at: at(0))
        #expect(try rate.add(series: [1: 1_000_000], at: at(10)).get().increase == 0)
        // A new one counts from its first value on, also when it comes again.
        #expect(try rate.add(series: [1: 1_000_050, 2: 400_000], at: at(20)).get().increase == 50)
        let both = try rate.add(series: [1: 1_000_051, 2: 400_009], at: at(30)).get()
        #expect(both.increase == 60 && both.resets == 0)
        // One of them began anew.
        let reset = try rate.add(series: [1: 5, 2: 400_010], at: at(40)).get()
        #expect(reset.increase == 66 && reset.resets == 1)
        // None was there before: how much they grew is not known.
        #expect(kind(rate.add(series: [7: 3], at: at(50))) == .tooEarly)
        #expect(try rate.add(series: [7: 4], at: at(60)).get().increase == 1)
        #expect(kind(rate.add(series: [7: 4, 8: -1], at: at(70))) == .negative)
    }

    @Test(arguments: [(Double.nan, MeterFault.Kind.notANumber), (.infinity, .infinite), (-.infinity, .infinite), (-1, .negative)])
    func whatIsNoCountChangesNothing(value: Double, expected: MeterFault.Kind) throws {
        var rate = CounterRate("c", window: .seconds(60))
        _ = rate.add(10, at: at(0))
        #expect(kind(rate.add(value, at: at(10))) == expected)
        #expect(try rate.add(30, at: at(20)).get() == CounterRate.Rate(perSecond: 1, increase: 20, window: .seconds(20), resets: 0))
    }

    @Test func timeThatStandsStillOrGoesBackOrJumpsGivesNoRate() throws {
        var rate = CounterRate("c", window: .seconds(15))
        _ = rate.add(10, at: at(0))
        #expect(kind(rate.add(99_999, at: at(0))) == .clock)
        #expect(try rate.add(25, at: at(15)).get().perSecond == 1)
        #expect(kind(rate.add(40, at: at(-3600))) == .clock)
        #expect(try rate.add(55, at: at(-3585)).get().perSecond == 1)
        // A minute is four windows: allowed. More is a gap.
        #expect(try rate.add(115, at: at(-3525)).get().perSecond == 1)
        #expect(kind(rate.add(200, at: at(-3464.9))) == .gap)
        #expect(try rate.add(215, at: at(-3449.9)).get().perSecond == 1)
    }

    @Test func readingsTooNearToEachOtherAreKept() throws {
        var rate = CounterRate("c", window: .seconds(15))
        _ = rate.add(0, at: at(0))
        #expect(kind(rate.add(1, at: at(0.05))) == .tooEarly)
        #expect(try rate.add(2, at: at(0.1)).get().perSecond == 20)
    }

    @Test func numbersBeyondAllAreRefusedAndForgotten() throws {
        var rate = CounterRate("c", window: .seconds(15))
        _ = rate.add(0, at: at(0))
        #expect(kind(rate.add(1.7e308, at: at(0.1))) == .infinite)
        #expect(kind(rate.add(1e308, at: at(5))) == .infinite)
        #expect(try rate.add(1e308, at: at(20)).get().perSecond.isFinite)
    }

    /// Whatever is fed, each rate is finite and not negative, and the memory is bounded.
    @Test func nothingGivesAWildRate() {
        var random = SeededRandom(seed: 7)
        var rate = CounterRate("c", window: .seconds(15)), now = 0.0
        for _ in 0..<20_000 {
            now += [0, -5, 0.01, 1, 15, 100, 1e9].randomElement(using: &random)!
            if now > 1e9 { now = 0 }
            let value = [
                0, 1, -1, .nan, .infinity, 1e308, .greatestFiniteMagnitude, .leastNonzeroMagnitude,
                Double.random(in: 0...1e12, using: &random),
            ].randomElement(
                using: &random)!
            if case .success(let result) = rate.add(value, at: at(now)) {
                #expect(result.perSecond.isFinite && result.perSecond >= 0 && result.window > .zero)
            }
        }
    }
}

@Suite struct WindowTests {
    @Test func aMeanIsWeightedByTime() {
        var mean = WindowMean(window: .seconds(10))
        #expect(mean.mean == nil)
        mean.add(4, at: at(0))
        #expect(mean.mean?.value == 4)
        mean.add(0, at: at(9))
        mean.add(.nan, at: at(9.5))
        mean.add(10, at: at(10))
        #expect(mean.mean?.value == 3.6 && mean.mean?.window == .seconds(10))
        mean.add(10, at: at(20))
        #expect(mean.mean?.value == 10)
        mean.add(1, at: at(5))
        #expect(mean.mean?.value == 1)
    }

    @Test func aQuantileIsThatOfTheWindow() throws {
        var window = HistogramWindow(window: .seconds(10), bounds: [.milliseconds(10), .milliseconds(100)])
        window.add([1000, 1000, 1000], at: at(0))
        #expect(window.quantile(0.5) == nil)
        window.add([1010, 1010, 1000], at: at(10))
        let found = try #require(window.quantile(0.75))
        #expect(found.value == .milliseconds(55) && found.count == 20 && found.window == .seconds(10))
        window.add([1010, 1010, 1005], at: at(20))
        #expect(window.quantile(0.95)?.value == .milliseconds(100))
        window.add([0, 0, 0], at: at(30))
        #expect(window.quantile(0.95) == nil)
        window.add([0, 0], at: at(40))
        #expect(window.quantile(0.95) == nil)
    }
}
