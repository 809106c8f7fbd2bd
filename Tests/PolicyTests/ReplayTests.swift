import Autoscaling
import Basics
import Drawing
import Testing

@testable import Replaying

/// Replays whose figures are worked out by hand. Steps of 15 s: 240 are an hour.
@Suite struct ReplayTests {
    private static let monday = WallTime(milliseconds: 1_794_787_200_000)

    private func trace(_ demand: [Double], metric: String = "requests", sizes: [Double] = []) -> LoadTrace {
        LoadTrace(service: "api", start: Self.monday, step: .seconds(15), series: [LoadTrace.Series(metric, demand)], recordedSize: sizes)
    }

    /// 10 requests a second for each replica, from `range`.
    private func policy(_ range: ClosedRange<Int>, each: Int = 10, behavior: ScalingBehavior? = nil, name: String = "a") -> ReplayPolicy {
        ReplayPolicy(
            name,
            ScalingPolicy(
                minimum: range.lowerBound, maximum: range.upperBound,
                metrics: [ScalingMetric("requests", .replicas, .average(each * 1000))], behavior: behavior))
    }

    private func model(_ start: Int = 0, capacity: Double = 10, drain: Int = 0) -> ReplicaModel {
        ReplicaModel(startTimes: [.seconds(start)], capacity: ["requests": capacity], drain: .seconds(drain))
    }

    @Test func aConstantSizeCostsItsSizeTimesTheTime() {
        let outcome = Replay.run(trace([Double](repeating: 25, count: 240)), policy(3...3), model())
        #expect(abs(outcome.replicaHours - 3) < 1e-9)
        #expect(outcome.overloadMinutes == 0 && outcome.overloadShare == 0 && outcome.flaps == 0 && outcome.scalings.isEmpty)
        #expect(outcome.worst == .init(at: Self.monday, load: outcome.worst!.load, size: 3, ready: 3))
        #expect(abs(outcome.worst!.load - 25.0 / 30) < 1e-9)
    }

    /// 20 a second on 2 replicas, then 50: five are wanted and at most four may be there (twice two); at the next step the two that start
    /// count as idle, 12.5 each, and five are wanted again. Each start takes 30 s: for two steps two replicas carry 20 of 50, for one step
    /// four carry 40.
    @Test func aJumpWaitsForWhatStarts() throws {
        let demand = [Double](repeating: 20, count: 4) + [Double](repeating: 50, count: 36)
        let outcome = Replay.run(trace(demand), policy(1...20), model(30))
        #expect(try Replay.bounded(trace(demand), policy(1...20), model(30)) == outcome)
        #expect(throws: ReplayFailure.self) { try Replay.bounded(trace(demand), policy(1...20), model(30), limit: 5) }
        #expect(outcome.scalings == [.init(index: 4, before: 2, after: 4), .init(index: 5, before: 4, after: 5)])
        #expect(outcome.ready[3...7] == [2, 2, 2, 4, 5])
        #expect(abs(outcome.overloadMinutes - 0.75) < 1e-9)
        #expect(abs(outcome.overloadShare - 70.0 / (4 * 20 + 36 * 50)) < 1e-9)
        #expect(
            outcome.worst
                == .init(at: WallTime(milliseconds: Self.monday.milliseconds + 60_000), load: (2.5 + 2.5 + 1.25 + 1) / 4, size: 4, ready: 2)
        )
        // At first the pace held the fifth; from the next step on all that is needed was on its way.
        #expect(outcome.overloadCauses.map(\.cause) == [.starting, .held(.paceUp)])
        #expect(outcome.overloadCauses.map(\.minutes) == [0.5, 0.25])
    }

    /// A start of 20 s ends in the middle of the second step.
    @Test func whatBecomesReadyWithinAStepCountsFromThen() {
        let demand = [Double](repeating: 10, count: 4) + [Double](repeating: 20, count: 12)
        let outcome = Replay.run(trace(demand), policy(1...20), model(20))
        #expect(outcome.scalings == [.init(index: 4, before: 1, after: 2)])
        #expect(abs(outcome.overloadMinutes - 20.0 / 60) < 1e-9)
        #expect(outcome.overloadCauses.map(\.cause) == [.starting])
        // The minute after the jump: 20 s at 200 %, 40 s at 100 %.
        #expect(abs(outcome.worst!.load - (2 * 20 + 40) / 60) < 1e-9)
    }

    /// Without rules the size follows the highest of the last five minutes: twenty steps and the one at their end.
    @Test func downwardsItWaitsAndTheWaitIsCounted() {
        let demand = [Double](repeating: 40, count: 4) + [Double](repeating: 10, count: 56)
        let outcome = Replay.run(trace(demand), policy(1...20), model(drain: 30))
        // The last wish for four is made at step 3, and counts until its age is above 300 s: step 24 is the first beyond.
        #expect(outcome.scalings == [.init(index: 24, before: 4, after: 1)])
        let held = outcome.holdings.first { $0.cause == .stabilizationDown }
        #expect(abs((held?.kept ?? 0) - 20 * 3 * 15.0 / 3600) < 1e-9)
        #expect(abs(outcome.replicaHours - (24 * 4 * 15.0 + 36 * 15 + 3 * 30) / 3600) < 1e-9)
        #expect(outcome.advice.contains("stabilization down kept 0.3 replica-hours"))
    }

    @Test func aTurnWithinTenMinutesIsAFlap() {
        func at(_ minutes: Int, _ before: Int, _ after: Int) -> ReplayOutcome.Scaling {
            .init(index: minutes * 4, before: before, after: after)
        }
        func flaps(_ all: [ReplayOutcome.Scaling]) -> Int { ReplayOutcome.flaps(all, step: .seconds(15)) }
        #expect(flaps([at(0, 1, 3), at(10, 3, 2)]) == 1)
        #expect(flaps([at(0, 1, 3), .init(index: 41, before: 3, after: 2)]) == 0)
        #expect(flaps([at(0, 1, 3), at(5, 3, 4), at(9, 4, 2), at(12, 2, 5)]) == 2)
        #expect(flaps([at(0, 1, 3)]) == 0 && flaps([]) == 0)
    }

    @Test func nothingKnownIsNeitherOverloadNorAReasonToScale() {
        let gap = [Double](repeating: .nan, count: 40)
        let outcome = Replay.run(trace([Double](repeating: 30, count: 4) + gap + [30, 30]), policy(1...20), model())
        #expect(outcome.scalings.isEmpty && outcome.overloadMinutes == 0)
        #expect(abs(outcome.unknownMinutes - 10) < 1e-9)
    }

    @Test func zeroReadyIsInfinitelyOverloaded() {
        // A size of 0 that somebody set is left alone.
        let outcome = Replay.run(trace([10, 10, 0, 10]), policy(1...1), model(), initial: 0)
        #expect(
            outcome.overloadMinutes == 0.75 && outcome.worst?.load == .infinity && outcome.overloadShare == 1 && outcome.replicaHours == 0)
    }

    @Test func itBeginsWithWhatWasRecordedOrWithWhatTheTargetAsksFor() {
        #expect(Replay.run(trace([35, 35]), policy(1...20), model()).sizes == [4, 4])
        #expect(Replay.run(trace([35, 35], sizes: [7, 7]), policy(1...20), model()).sizes.first == 7)
        #expect(Replay.run(trace([35, 35], sizes: [70, 70]), policy(1...20), model()).sizes.first == 20)
    }

    /// Utilization: 2.4 cores of demand at 500m each and a target of 80 % are six replicas.
    @Test func sharesOfTheRequest() {
        let policy = ReplayPolicy(
            "a", ScalingPolicy(minimum: 1, maximum: 20, metrics: [ScalingMetric("cpu", .resource(.cpu), .utilization(80))]))
        let model = ReplicaModel(startTimes: [.seconds(10)], capacity: ["cpu": 0.5], requests: ["cpu": 0.5])
        let outcome = Replay.run(trace([Double](repeating: 2.4, count: 40), metric: "cpu"), policy, model, initial: 3)
        #expect(outcome.sizes.last == 6)
        // 3 carry 1.5 of 2.4; twice three may come at once, and are ready after ten seconds.
        #expect(abs(outcome.overloadMinutes - 10.0 / 60) < 1e-9)
    }

    @Test func aWarmUpCarriesATenthAndGrows() {
        let model = ReplicaModel(startTimes: [.zero], capacity: ["requests": 10], warmUp: .seconds(100))
        #expect(model.warmth(.zero) == 0.1 && model.warmth(.seconds(50)) == 0.5 && model.warmth(.seconds(100)) == 1)
    }

    /// What holds whatever the load is.
    @Test(arguments: 0..<6) func propertiesOfAnyLoad(seed: Int) {
        var random = SeededRandom(seed: UInt64(seed)), level = 20.0
        let demand = (0..<500).map { _ -> Double in
            level = max(0, level + Double.random(in: -4...4, using: &random))
            return Int.random(in: 0..<200, using: &random) == 0 ? .nan : level
        }
        let trace = trace(demand), usual = policy(1...8), model = model(40, drain: 10)
        let first = Replay.run(trace, usual, model)
        #expect(first == Replay.run(trace, usual, model))
        // Sizes stay in the range, and what runs costs at least the minimum and at most the maximum with its leavers.
        #expect(first.sizes.allSatisfy { (1...8).contains($0) })
        #expect(first.replicaHours >= first.hours && first.replicaHours <= 8 * first.hours * 1.2)
        let sum = first.sizes.reduce(0.0) { $0 + Double($1) } * 15 / 3600
        let drained = first.scalings.reduce(0.0) { $0 + Double(max(0, $1.before - $1.after)) * 10 / 3600 }
        #expect(first.replicaHours >= sum - 1e-6 && first.replicaHours <= sum + drained + 1e-6)
        // Causes account for every minute of overload.
        #expect(abs(first.overloadCauses.reduce(0) { $0 + $1.minutes } - first.overloadMinutes) < 1e-6)
        // Ample capacity is never too little.
        let peak = trace.series[0].peak
        let ample = Replay.run(trace, policy(1...1), ReplicaModel(startTimes: [.zero], capacity: ["requests": peak]))
        #expect(ample.overloadMinutes == 0)
        // A fixed size that is larger is overloaded no longer.
        let fixed = [2, 4, 6].map { Replay.run(trace, policy($0...$0), model).overloadMinutes }
        #expect(fixed[0] >= fixed[1] && fixed[1] >= fixed[2])
    }

    @Test func aDecisionCanBeAskedFor() throws {
        let demand = [Double](repeating: 20, count: 4) + [Double](repeating: 50, count: 36)
        let at = WallTime(milliseconds: Self.monday.milliseconds + 4 * 15_000 + 7000)
        let (time, record) = try #require(Replay.decision(at: at, of: trace(demand), policy(1...20), model(30)))
        #expect(time.milliseconds == Self.monday.milliseconds + 60_000)
        #expect(record.kind == .scale && record.subject == "api" && record.raw == "5" && record.outcome == "4")
        #expect(Replay.decision(at: WallTime(milliseconds: 0), of: trace(demand), policy(1...20), model()) == nil)
        let after = WallTime(milliseconds: Self.monday.milliseconds + 40 * 15_000)
        #expect(Replay.decision(at: after, of: trace(demand), policy(1...20), model()) == nil)
    }

    // MARK: comparison

    @Test func comparisonsSayWhoIsCheaperAndWhoIsSafer() {
        let demand = [Double](repeating: 10, count: 100) + [Double](repeating: 60, count: 20) + [Double](repeating: 10, count: 120)
        let slow = Replay.run(trace(demand), policy(1...20, name: "slow"), model(60))
        let wide = Replay.run(trace(demand), policy(8...20, name: "wide"), model(60))
        let same = Comparison(slow, slow)
        #expect(same.cheaper == .neither && same.safer == .neither)
        #expect(same.sentence.hasPrefix("slow and slow cost the same and are as safe as each other"))
        let trade = Comparison(slow, wide)
        #expect(trade.cheaper == .first && trade.safer == .second)
        #expect(
            trade.sentence.contains("slow is cheaper by") && trade.sentence.contains("wide is safer by")
                && trade.sentence.contains("each of these costs"))
        #expect(trade.difference.contains("minimum kept"))
        #expect(trade.difference.contains("start time caused") || trade.difference.contains("pace up caused"))
        let tight = Replay.run(trace(demand), policy(1...2, name: "tight"), model())
        let free = Replay.run(trace(demand), policy(1...20, name: "free"), model())
        #expect(Comparison(free, tight).safer == .first)
        #expect(Comparison(tight, free).difference.contains("maximum caused"))
    }

    @Test func metricsThatNobodyRecordedAreLeftOut() {
        var both = policy(1...20).scaling
        both.metrics.append(ScalingMetric("memory", .resource(.memory), .utilization(80)))
        let (known, leftOut) = ReplayPolicy("a", both).measured(in: trace([10, 10]))
        #expect(known.scaling.metrics.map(\.name) == ["requests"] && leftOut == ["memory"])
    }

    /// The promise is a second for a week; here it is only that it runs to its end (times are told by `took_ms`, and in
    /// docs/benchmarks.md).
    @Test func aWeekRuns() {
        let week = ExampleWeek(step: .seconds(60))
        let policy = ReplayPolicy(
            "a", ScalingPolicy(minimum: 2, maximum: 20, metrics: [ScalingMetric("cpu", .resource(.cpu), .utilization(70))]))
        let outcome = Replay.run(
            week.trace, policy, ReplicaModel(startTimes: [.seconds(20)], capacity: ["cpu": 0.5], requests: ["cpu": 0.5]))
        #expect(outcome.sizes.count == 10_080)
        #expect(outcome.scalings.count > 100 && outcome.unknownMinutes == 10)
        #expect(outcome.worst.map { Figures.day($0.at) } == "Wed")
    }
}
