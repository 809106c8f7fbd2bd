import Autoscaling
import Basics
import Testing

/// What goes beyond Kubernetes, and what may never happen whatever is measured.
@Suite struct AutoscalerTests {
    private let now = MonotonicTime(nanoseconds: 1_000_000_000_000_000)

    private func serving(_ count: Int, readyFor: Duration = .seconds(3600)) -> [ReplicaState] {
        (0..<count).map {
            ReplicaState(
                id: $0, startedAt: now + .seconds(-7200), readyChangedAt: MonotonicTime(nanoseconds: now.nanoseconds - readyFor.nanoseconds)
            )
        }
    }

    private func samples(_ values: [Int]) -> [MetricSample] {
        values.enumerated().map { MetricSample(replica: $0, value: $1, at: now, window: .seconds(15)) }
    }

    private func cpu(_ values: [Int], request: Int = 500) -> MetricReading {
        .samples(samples(values), requests: .success(values.map { _ in request }))
    }

    private func decide(_ policy: ScalingPolicy, _ seen: ScalingObservation) -> ScalingVerdict {
        var memory = ScalingMemory()
        return Autoscaler.decide(policy, seen, &memory)
    }

    private let share = ScalingMetric("cpu", .resource(.cpu), .utilization(70))

    @Test func aCeilingStopsGrowthAndSaysWhy() throws {
        var policy = ScalingPolicy(minimum: 1, maximum: 20, metrics: [share], behavior: .init())
        policy.ceilings = [
            try #require(Ceiling(.connections(of: "postgres", limit: 200, each: 30, reserved: 10))), try #require(Ceiling(.licences(9))),
        ]
        let verdict = decide(
            policy, .init(now: now, current: 5, status: 5, replicas: serving(5), readings: [cpu([600, 600, 600, 600, 600])]))
        #expect(verdict.raw == 9 && verdict.outcome == 6)
        let record = verdict.record(of: "api", policy)
        #expect(record.sentence.contains("more replicas will not help because postgres accepts 200 connections"), "\(record.sentence)")
        #expect(
            record.constraints.last?.name == "ceiling" && record.constraints.last?.before == "9" && record.constraints.last?.after == "6")
    }

    @Test func aCeilingTakesNothingAway() throws {
        var policy = ScalingPolicy(minimum: 1, maximum: 20, metrics: [share], behavior: .init())
        policy.ceilings = [try #require(Ceiling(.licences(3)))]
        let verdict = decide(
            policy, .init(now: now, current: 5, status: 5, replicas: serving(5), readings: [cpu([600, 600, 600, 600, 600])]))
        #expect(verdict.outcome == 5)
    }

    /// Three old ones at twice the target and three that became ready a moment ago: those come into account once they are warm.
    @Test func whatWarmsUpCountsAsComing() {
        var policy = ScalingPolicy(
            minimum: 1, maximum: 50, metrics: [ScalingMetric("requests", .replicas, .average(100_000))], behavior: .init())
        let replicas = serving(3) + serving(6, readyFor: .seconds(5)).suffix(3)
        let seen = ScalingObservation(
            now: now, current: 6, status: 6, replicas: Array(replicas),
            readings: [.samples(samples([200_000, 200_000, 200_000, 90_000, 90_000, 90_000]))])
        #expect(decide(policy, seen).outcome == 9)
        policy.groups.warmUp = .seconds(20)
        #expect(decide(policy, seen).outcome == 6)
    }

    @Test func theCalendarHoldsAFloor() {
        let policy = ScalingPolicy(minimum: 1, maximum: 10, metrics: [share], behavior: .init())
        var seen = ScalingObservation(now: now, current: 6, status: 6, replicas: serving(6), readings: [cpu([10, 10, 10, 10, 10, 10])])
        seen.floor = .init(replicas: 5, text: "Mon-Fri 08:00-18:00")
        var memory = ScalingMemory(stabilization: .init(recommendations: []))
        let verdict = Autoscaler.decide(policy, seen, &memory)
        #expect(verdict.outcome == 5)
        #expect(verdict.record(of: "api", policy).sentence.hasSuffix("at least 5 are declared for Mon-Fri 08:00-18:00."))
    }

    @Test func schedulesAreRead() throws {
        let night = try #require(ScheduleFloor(text: "Fri 22:00-06:00", replicas: 4))
        #expect(
            night.applies(weekday: 4, minute: 23 * 60) && night.applies(weekday: 5, minute: 359) && !night.applies(weekday: 5, minute: 360))
        #expect(!night.applies(weekday: 4, minute: 60) && !night.applies(weekday: 5, minute: 23 * 60))
        // 2026-11-21 is a Saturday.
        let saturday = WallTime(milliseconds: 1_795_219_200_000)
        let floors = [
            try #require(ScheduleFloor(text: "Sat,Sun 00:00-24:00", replicas: 2)),
            try #require(ScheduleFloor(text: "Mon-Fri 00:00-24:00", replicas: 7)),
        ]
        #expect(ScheduleFloor.standing(floors, at: saturday)?.replicas == 2)
        #expect(ScheduleFloor.standing(floors, at: WallTime(milliseconds: saturday.milliseconds - 1))?.replicas == 7)
        for wrong in [
            "", "Mon", "Mon 8:00-18:00", "Mon-Fri 08:00", "Mon-Fry 08:00-18:00", "08:00-08:00", "08:00-24:30", "25:00-26:00",
            "Mon,-Fri 08:00-09:00",
        ] {
            #expect(ScheduleFloor(text: wrong, replicas: 1) == nil, "\(wrong)")
        }
        #expect(ScheduleFloor(text: "Sat-Mon 08:00-09:00", replicas: 1)?.days == [5, 6, 0])
    }

    /// Three mornings of twelve: the fourth is expected ten minutes before it comes, and never makes a size smaller.
    @Test func historyGrowsEarlier() throws {
        var history = DemandHistory()
        let midnight: Int64 = 1_795_219_200_000
        for day in 0..<3 {
            for minute in 0..<1440 {
                history.observe(
                    minute >= 540 && minute < 720 ? 12 : 3, at: WallTime(milliseconds: midnight + Int64(day * 1440 + minute) * 60_000))
            }
        }
        func at(_ minute: Int) -> WallTime { WallTime(milliseconds: midnight + Int64(3 * 1440 + minute) * 60_000) }
        #expect(history.forecast(at: at(500), ahead: .seconds(600))?.replicas == 3)
        let forecast = try #require(history.forecast(at: at(532), ahead: .seconds(600)))
        #expect(forecast.replicas == 12 && forecast.basis == .days(3))
        var policy = ScalingPolicy(
            minimum: 1, maximum: 50, metrics: [ScalingMetric("requests", .replicas, .average(100_000))], behavior: .init())
        policy.behavior?.up.policies = [.init(.pods, 100, per: .seconds(15))]
        var seen = ScalingObservation(
            now: now, current: 3, status: 3, replicas: serving(3), readings: [.samples(samples([100_000, 100_000, 100_000]))])
        seen.forecast = forecast
        let verdict = decide(policy, seen)
        #expect(verdict.raw == 3 && verdict.outcome == 12)
        #expect(verdict.record(of: "api", policy).constraints.first?.name == "forecast")
        seen.forecast = Forecast(replicas: 1, basis: .days(3), ahead: .seconds(600))
        #expect(
            decide(policy, seen)
                == decide(
                    policy,
                    {
                        var plain = seen
                        plain.forecast = nil
                        return plain
                    }()))
    }

    /// Ten days of 2, and then five minutes of 50, which are looked at twenty times: that is one day of ten, not the habit.
    @Test func oneSpikeIsNoHabit() throws {
        func at(_ day: Int, _ pass: Int = 0) -> WallTime { WallTime(milliseconds: Int64(day) * 86_400_000 + Int64(pass) * 15_000) }
        var history = DemandHistory()
        for day in 0..<3 { for pass in 0..<20 { history.observe(2, at: at(day, pass)) } }
        for pass in 0..<20 { history.observe(50, at: at(3, pass)) }
        // 2 and three tenths of the 48 beyond it.
        #expect(history.forecast(at: at(4), ahead: .seconds(60))?.replicas == 17)
        // The highest of a period counts, wherever in it that stood, and over a restart within the period.
        history = try #require(DemandHistory(text: history.text))
        history.observe(60, at: at(3, 19))
        history.observe(1, at: at(3, 19))
        #expect(history.forecast(at: at(4), ahead: .seconds(60))?.replicas == 20)
        // A file of the version before is read: its average stands for both.
        let old = try #require(DemandHistory(text: "muster demand history 1\nd 0 7.0 4 3\n"))
        #expect(old.forecast(at: at(4), ahead: .seconds(60)) == Forecast(replicas: 7, basis: .days(4), ahead: .seconds(60)))
    }

    /// A figure that is a part of the whole lets a service grow, and never shrink.
    @Test func aPartOfTheWholeShrinksNothing() {
        let lag = ScalingMetric("lag", .external, .average(10_000))
        let policy = ScalingPolicy(minimum: 0, maximum: 50, metrics: [lag], behavior: .init())
        func verdict(_ value: Int, _ missing: [String]) -> ScalingVerdict {
            var memory = ScalingMemory()
            var seen = ScalingObservation(now: now, current: 6, status: 6, replicas: serving(6), readings: [.value(value)])
            seen.remarks = [MetricRemarks(missing: missing)]
            return Autoscaler.decide(policy, seen, &memory)
        }
        #expect(verdict(0, []).raw == 0)
        let held = verdict(20_000, ["of 3 partitions, the lag of 1 is not known"])
        #expect(held.raw == 6 && !held.rescales)
        let words = held.record(of: "api", policy)
        #expect(
            words.sentence.hasSuffix(
                "asks for fewer, but nothing is taken away while a part of it is not known: of 3 partitions, the lag of 1 is not known."),
            "\(words.sentence)")
        #expect(words.inputs.last?.value.hasSuffix("; not known: of 3 partitions, the lag of 1 is not known") == true)
        #expect(verdict(90_000, ["x"]).raw == 9)
    }

    @Test func twoDaysAreNoHabit() {
        var history = DemandHistory()
        for day in 0..<2 { history.observe(9, at: WallTime(milliseconds: Int64(day) * 86_400_000)) }
        #expect(history.forecast(at: WallTime(milliseconds: 2 * 86_400_000), ahead: .seconds(60)) == nil)
    }

    @Test func wordsSayWhatWouldChangeIt() {
        let policy = ScalingPolicy(minimum: 1, maximum: 20, metrics: [share], behavior: .init())
        var memory = ScalingMemory()
        let calm = Autoscaler.decide(
            policy, .init(now: now, current: 3, status: 3, replicas: serving(3), readings: [cpu([350, 350, 350])]), &memory)
        #expect(
            calm.record(of: "api", policy).sentence
                == "api stays at 3 replicas: cpu is 70 % of the request against a target of 70 %, which is near enough.")
        #expect(calm.record(of: "api", policy).flip == "cpu above 77 % asks for more, below 63 % for fewer")
        let down = Autoscaler.decide(
            policy, .init(now: now + .seconds(60), current: 3, status: 3, replicas: serving(3), readings: [cpu([100, 100, 100])]), &memory)
        #expect(down.record(of: "api", policy).sentence.contains("3 were needed in the last 5m, which holds for another 4m"))
        #expect(down.record(of: "api", policy).flip == "4m without a need for more than 1")
        let lost = Autoscaler.decide(
            policy, .init(now: now, current: 3, status: 3, replicas: serving(3), readings: [.failed(.noMetrics)]), &memory)
        #expect(
            lost.record(of: "api", policy).sentence == "api stays at 3 replicas: cpu is not known, because its source returned no figures.")
    }

    @Test func contradictionsAreTold() {
        let behavior = ScalingBehavior(
            up: .init(stabilization: .seconds(4000), policies: [.init(.pods, 0, per: .seconds(60))], tolerance: .nan),
            down: .init(policies: [.init(.percent, 5, per: .zero)]))
        #expect(behavior.contradictions.count == 4)
        #expect(ScalingBehavior().contradictions.isEmpty)
    }
}

/// Random histories: nothing that is measured may take the size out of its range or over its pace.
@Suite struct AutoscalerProperties {
    private static func policy(_ random: inout SeededRandom) -> ScalingPolicy {
        let minimum = Int.random(in: 0...4, using: &random)
        var policy = ScalingPolicy(
            minimum: minimum, maximum: minimum + Int.random(in: 1...60, using: &random),
            metrics: [
                ScalingMetric("cpu", .resource(.cpu), .utilization(Int.random(in: 1...150, using: &random))),
                ScalingMetric("queue", .external, .average(Int.random(in: 1...100_000, using: &random))),
            ])
        func rules(_ random: inout SeededRandom) -> ScalingRules {
            ScalingRules(
                stabilization: .seconds(Int.random(in: 0...300, using: &random)),
                selection: [.max, .min, .disabled].randomElement(using: &random)!,
                policies: [
                    .init(.pods, Int.random(in: 1...9, using: &random), per: .seconds(Int.random(in: 15...600, using: &random))),
                    .init(.percent, Int.random(in: 1...200, using: &random), per: .seconds(Int.random(in: 15...600, using: &random))),
                ])
        }
        if Bool.random(using: &random) { policy.behavior = ScalingBehavior(up: rules(&random), down: rules(&random)) }
        if Bool.random(using: &random) { policy.ceilings = [Ceiling(.licences(Int.random(in: 0...40, using: &random)))!] }
        return policy
    }

    private static func observation(_ current: Int, _ now: MonotonicTime, _ random: inout SeededRandom) -> ScalingObservation {
        let extremes = [0, 1, -1, Int.max, Int.min, 1 << 62, 500, 1_000_000]
        let replicas = (0..<current).map { id in
            ReplicaState(
                id: id, phase: [.running, .running, .running, .pending, .failed].randomElement(using: &random)!,
                isLeaving: Int.random(in: 0..<20, using: &random) == 0,
                ready: [.yes, .yes, .no, nil].randomElement(using: &random)!,
                startedAt: MonotonicTime(nanoseconds: now.nanoseconds - Int64.random(in: 0...2_000_000_000_000, using: &random)),
                readyChangedAt: MonotonicTime(
                    nanoseconds: now.nanoseconds - Int64.random(in: -1_000_000_000...2_000_000_000_000, using: &random)))
        }
        let wild = Int.random(in: 0..<4, using: &random) == 0
        var samples: [MetricSample] = []
        for id in 0..<current where Int.random(in: 0..<5, using: &random) > 0 {
            let value = wild ? extremes.randomElement(using: &random)! : Int.random(in: 0...3000, using: &random)
            samples.append(MetricSample(replica: id, value: value, at: now, window: .seconds(15)))
        }
        let queue: MetricReading =
            switch Int.random(in: 0..<4, using: &random) {
            case 0: .failed(.noMetrics)
            case 1: .values([extremes.randomElement(using: &random)!, extremes.randomElement(using: &random)!])
            default: .value(Int.random(in: 0...2_000_000, using: &random))
            }
        let requests = (0..<current).map { _ in Int.random(in: 0..<30, using: &random) == 0 ? 0 : 500 }
        return ScalingObservation(
            now: now, current: current, status: current, replicas: replicas,
            readings: [.samples(samples, requests: .success(requests)), queue])
    }

    @Test(arguments: 0..<25) func neverOutOfRangeNorFasterThanDeclared(seed: Int) {
        var random = SeededRandom(seed: UInt64(seed) &* 977 &+ 5)
        let policy = Self.policy(&random)
        var memory = ScalingMemory(), again = ScalingMemory()
        var now = MonotonicTime(nanoseconds: 10_000_000_000_000), current = max(1, policy.minimum)
        var changes: [(at: MonotonicTime, by: Int)] = []
        for _ in 0..<200 {
            // A clock that stands, jumps, and sometimes goes back.
            now = now + .seconds([0, 1, 15, 15, 15, 15, 40, 700, -30].randomElement(using: &random)!)
            let seen = Self.observation(current, now, &random)
            let verdict = Autoscaler.decide(policy, seen, &memory)
            #expect(Autoscaler.decide(policy, seen, &again) == verdict, "the same input gave another answer")
            memory.carriedOut(verdict, policy, now: now)
            again.carriedOut(verdict, policy, now: now)
            let next = verdict.outcome
            #expect(next == current || (policy.minimum...policy.maximum).contains(next), "\(current) -> \(next)")
            if let ceiling = policy.ceilings.first, next > current { #expect(next <= max(ceiling.most, policy.minimum)) }
            if let up = policy.behavior?.up, next > current, current >= policy.minimum, current > 0 {
                #expect(up.selection != .disabled)
                let most = up.policies.map { rule -> Int in
                    let start = changes.filter { now - $0.at < rule.period }.reduce(current) { $0 - $1.by }
                    return rule.kind == .pods ? start + rule.value : Int((Double(start) * (1 + Double(rule.value) / 100)).rounded(.up))
                }
                #expect(next <= max(current, up.selection == .max ? most.max()! : most.min()!))
            }
            if next != current { changes.append((now, next - current)) }
            #expect(verdict.record(of: "s", policy).sentence.hasSuffix("."))
            current = next
        }
    }

    /// With everything else equal, more load never asks for fewer.
    @Test(arguments: 0..<30) func monotoneInLoad(seed: Int) {
        var random = SeededRandom(seed: UInt64(seed) &+ 99)
        let policy = Self.policy(&random), now = MonotonicTime(nanoseconds: 10_000_000_000_000)
        let current = max(1, Int.random(in: policy.minimum...policy.maximum, using: &random))
        let replicas = (0..<current).map {
            ReplicaState(id: $0, startedAt: MonotonicTime(nanoseconds: 0), readyChangedAt: MonotonicTime(nanoseconds: 0))
        }
        var last = 0
        for load in stride(from: 0, through: 4000, by: 91) {
            let samples = (0..<current).map { MetricSample(replica: $0, value: load, at: now, window: .seconds(15)) }
            var memory = ScalingMemory(stabilization: .init(recommendations: []))
            let verdict = Autoscaler.decide(
                policy,
                .init(
                    now: now, current: current, status: current, replicas: replicas,
                    readings: [.samples(samples, requests: .success(.init(repeating: 500, count: current))), .value(load * 100)]), &memory)
            #expect(verdict.outcome >= last, "load \(load): \(verdict.outcome) after \(last)")
            last = verdict.outcome
        }
    }
}
