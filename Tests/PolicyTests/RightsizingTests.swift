import Basics
import Rightsizing
import Testing

/// Samples of a container and what is recommended, over seeded random histories.
@Suite struct RightsizingTests {
    static let day: Int64 = 86_400_000
    static let begin: Int64 = 1_700_000_000_000
    private static func at(_ milliseconds: Int64) -> WallTime { WallTime(milliseconds: begin + milliseconds) }

    /// `days` of a sample a minute, around `cpu` and `memory`.
    private static func usage(days: Double, cpu: Int, memory: Int, seed: UInt64 = 1) throws -> ContainerUsage {
        var random = SeededRandom(seed: seed)
        var usage = ContainerUsage(created: at(0))
        for minute in 0..<Int(days * 1440) {
            let noise = Double.random(in: 0.8...1, using: &random)
            try usage.addCPU(Int(Double(cpu) * noise), at: at(Int64(minute) * 60_000))
            try usage.addMemory(Int(Double(memory) * noise), at: at(Int64(minute) * 60_000))
        }
        return usage
    }

    @Test func amountsNeverTrap() {
        #expect(Amount.whole(.nan) == 0 && Amount.whole(-.infinity) == 0 && Amount.whole(-1) == 0 && Amount.whole(0.999) == 0)
        #expect(Amount.whole(.infinity) == Amount.most && Amount.whole(1e300) == Amount.most && Amount.whole(1e14) == Amount.most)
        #expect(Amount.whole(12.9) == 12)
        #expect(Amount.scaled(0, by: .infinity) == 0 && Amount.scaled(.max, by: 2) == Amount.most && Amount.scaled(.min, by: 2) == 0)
        #expect(
            Amount.roundedUp(.max, toMultipleOf: 1000) == .max && Amount.roundedUp(1, toMultipleOf: 0) == 1
                && Amount.roundedUp(0, toMultipleOf: 13) == 0)
        #expect(Amount.roundedUp(14, toMultipleOf: 13) == 26 && Amount.roundedUp(26, toMultipleOf: 13) == 26)
        #expect(Amount.sum(.max, 1) == .max && Amount.sum(.min, -1) == .min)
    }

    @Test(arguments: 1...40) func boundsEncloseTheTarget(seed: Int) {
        var random = SeededRandom(seed: UInt64(seed))
        var usage = ContainerUsage(created: Self.at(0))
        var time: Int64 = 0
        for _ in 0..<Int.random(in: 0...400, using: &random) {
            time += Int64.random(in: 0...7_200_000, using: &random)
            try? usage.addCPU(Int.random(in: -10...4000, using: &random), at: Self.at(time))
            try? usage.addMemory(Int.random(in: -10...4_000_000_000, using: &random), at: Self.at(time))
            if Int.random(in: 0..<20, using: &random) == 0 {
                try? usage.addOutOfMemory(request: Int.random(in: 0...1 << 32, using: &random), at: Self.at(time))
            }
        }
        let policy = ResourcePolicy(
            least: OptionalResources(cpu: Bool.random(using: &random) ? Int.random(in: 0...2000, using: &random) : nil),
            most: OptionalResources(memory: Bool.random(using: &random) ? Int.random(in: 0...1 << 31, using: &random) : nil),
            wholeCores: Bool.random(using: &random))
        let containers = Int.random(in: 1...3, using: &random)
        let decisions = Recommender().recommend(
            usage, service: "web", declared: OptionalResources(), containers: containers, policy: policy)
        #expect(decisions.map(\.result.resource) == [.cpu, .memory])
        for decision in decisions {
            let result = decision.result
            #expect(result.lower <= result.target && result.target <= result.upper, "seed \(seed): \(decision.record.sentence)")
            if let least = policy.least[result.resource] { #expect(result.lower >= least) }
            if let most = policy.most[result.resource] { #expect(result.upper <= most) }
            #expect(decision.record.kind == .resources && !decision.record.sentence.isEmpty)
            // The constraints lead from the raw figure to the outcome, each from where the one before ended.
            let constraints = decision.record.constraints
            for (one, next) in zip(constraints, constraints.dropFirst()) { #expect(one.after == next.before) }
            #expect(constraints.last.map { $0.after == "\(result.target)" } ?? true)
        }
    }

    /// More of the same samples narrow the bounds.
    @Test func boundsNarrowWithConfidence() throws {
        var usage = ContainerUsage(created: Self.at(0))
        var last: Recommendation?
        for minute in 0..<2 * 1440 {
            try usage.addCPU(1000, at: Self.at(Int64(minute) * 60_000))
            guard minute % 240 == 239 else { continue }
            let result = Recommender().recommend(usage, service: "web", declared: OptionalResources())[0].result
            if let last { #expect(result.upper < last.upper && result.lower >= last.lower && result.target == last.target) }
            last = result
        }
        let final = try #require(last)
        #expect(abs(final.confidence - 2) < 0.001)
    }

    /// A steady load of 1 core: a bucket's width more, and the margin.
    @Test func aSteadyLoadIsAnsweredWithABucketAndTheMargin() throws {
        var usage = ContainerUsage(created: Self.at(0))
        for minute in 0..<2880 { try usage.addCPU(1000, at: Self.at(Int64(minute) * 60_000)) }
        let target = Recommender().recommend(usage, service: "web", declared: OptionalResources())[0].result.target
        #expect((1150...1210).contains(target), "\(target)")
    }

    @Test func withoutSamplesTheMinimumIsRecommendedAndNothingIsToBeChanged() {
        let usage = ContainerUsage(created: Self.at(0))
        let decisions = Recommender().recommend(usage, service: "web", declared: OptionalResources(cpu: 500), containers: 2)
        #expect(decisions[0].result == Recommendation(resource: .cpu, target: 12, lower: 12, upper: 12, uncapped: 12, confidence: 0))
        #expect(decisions[1].result.upper == 125 << 20)
        #expect(decisions[0].record.sentence.contains("no CPU of web was measured yet; declared 500m"))
        #expect(decisions[0].record.sentence.hasSuffix("nothing need change until there are samples"))
        var settings = RecommenderSettings()
        settings.leastHistory = .seconds(3600)
        let early = Recommender(settings).recommend(usage, service: "web", declared: OptionalResources(cpu: 500))[0].record
        #expect(
            early.sentence == "no CPU of web was measured yet, and 1h of it are needed to recommend any; declared 500m"
                && early.outcome == "none yet")
    }

    /// Enough is `>=`; a confidence that is no number counts as none, and one without an end as a century.
    @Test func historyIsEnoughAtItsBoundary() {
        func history(_ confidence: Double) -> History { History(confidence: confidence, interval: .seconds(86400), least: .seconds(21600)) }
        #expect(history(0.25).isEnough && history(0.25).missing == .zero && history(0.25).known == .seconds(21600))
        #expect(!history(0.2499).isEnough && history(0).missing == .seconds(21600))
        #expect(!history(.nan).isEnough && !history(-1).isEnough && history(.infinity).isEnough)
    }

    @Test func theSentenceSaysWhatToChange() throws {
        let usage = try Self.usage(days: 3.2, cpu: 300, memory: 300 << 20)
        func sentence(_ declared: Int?) -> String {
            Recommender().recommend(usage, service: "checkout", declared: OptionalResources(cpu: declared))[0].record.sentence
        }
        let kept = Recommender().recommend(usage, service: "checkout", declared: OptionalResources(cpu: 350))[0]
        let result = kept.result
        #expect(
            kept.record.sentence
                == "checkout uses at most 305m of CPU in 95 % of the time; declared 350m; recommend \(result.target)m (between \(result.lower)m and \(result.upper)m, "
                + "confidence 3.2 days): nothing need change")
        #expect(sentence(nil).contains("; nothing declared; "))
        #expect(sentence(nil).hasSuffix("set services.checkout.resources.cpu to \(result.target)m in the stack file"))
        #expect(sentence(result.lower).hasSuffix("nothing need change") && sentence(result.upper).hasSuffix("nothing need change"))
        #expect(sentence(result.lower - 1).hasSuffix("raise services.checkout.resources.cpu to \(result.target)m in the stack file"))
        #expect(sentence(result.upper + 1).hasSuffix("lower services.checkout.resources.cpu to \(result.target)m in the stack file"))
        let memory = Recommender().recommend(usage, service: "checkout", declared: OptionalResources(memory: 1 << 34))[1].record
        #expect(memory.sentence.contains("declared 16384Mi") && memory.sentence.contains("lower services.checkout.resources.memory to "))
    }

    @Test func aPolicyIsAppliedInItsOrder() {
        let base = Estimate(target: 1200, lower: 300, upper: 5000)
        func result(_ policy: ResourcePolicy) -> Recommendation {
            Recommender().recommendation(.cpu, base: base, confidence: 1e9, policy: policy)
        }
        #expect(result(ResourcePolicy()).target == 1380)
        let whole = result(ResourcePolicy(most: OptionalResources(cpu: 1500), wholeCores: true))
        #expect(whole.target == 1500 && whole.uncapped == 2000 && whole.lower == 1000 && whole.upper == 1500)
        #expect(result(ResourcePolicy(least: OptionalResources(cpu: 2000))).target == 2000)
        // Where both contradict each other the maximum wins; where both exist, the policy's own takes the place of the global one.
        #expect(result(ResourcePolicy(least: OptionalResources(cpu: 2000), most: OptionalResources(cpu: 100))).target == 100)
        #expect(result(ResourcePolicy(globalMost: OptionalResources(cpu: 700))).target == 700)
        #expect(result(ResourcePolicy(most: OptionalResources(cpu: 900), globalMost: OptionalResources(cpu: 700))).target == 900)
        let memoryOnly = Recommender().recommend(
            ContainerUsage(created: Self.at(0)), service: "web", declared: OptionalResources(),
            policy: ResourcePolicy(controlled: [.memory]))
        #expect(memoryOnly.map(\.result.resource) == [.memory])
    }

    @Test func aContainerIsDroppedAfterEightDays() throws {
        var usage = ContainerUsage(created: Self.at(0))
        #expect(!usage.isExpired(Self.at(8 * Self.day - 1)) && usage.isExpired(Self.at(8 * Self.day)))
        try usage.addCPU(1, at: Self.at(Self.day))
        #expect(!usage.isExpired(Self.at(9 * Self.day - 1)) && usage.isExpired(Self.at(9 * Self.day)))
        // Memory alone does not keep it.
        try usage.addMemory(1, at: Self.at(5 * Self.day))
        #expect(usage.isExpired(Self.at(9 * Self.day)))
        // A clock that was set back by as much.
        #expect(!usage.isExpired(Self.at(-6 * Self.day)) && usage.isExpired(Self.at(-7 * Self.day)))
        #expect(usage.isExpired(WallTime(milliseconds: .max)) && usage.isExpired(WallTime(milliseconds: .min)))
    }

    @Test func badSamplesAreDroppedAndSaidToBe() throws {
        var usage = ContainerUsage(created: Self.at(0))
        try usage.addCPU(100, at: Self.at(0))
        try usage.addMemory(100, at: Self.at(0))
        #expect(throws: SampleGate.Dropped.late) { try usage.addCPU(100, at: Self.at(0)) }
        #expect(throws: SampleGate.Dropped.negative) { try usage.addCPU(-1, at: Self.at(1)) }
        #expect(throws: SampleGate.Dropped.late) { try usage.addMemory(100, at: Self.at(-1)) }
        #expect(throws: SampleGate.Dropped.negative) { try usage.addMemory(.min, at: Self.at(1)) }
        #expect(throws: SampleGate.Dropped.late) { try usage.addOutOfMemory(request: 1, at: Self.at(-Self.day - 1)) }
        #expect(throws: Never.self) { try usage.addOutOfMemory(request: 1, at: Self.at(-Self.day)) }
        #expect(throws: SampleGate.Dropped.ahead) { try usage.addCPU(100, at: Self.at(60_001), now: Self.at(0)) }
        #expect(throws: Never.self) { try usage.addCPU(100, at: Self.at(60_000), now: Self.at(0)) }
        #expect(usage.samples == 2)
    }

    /// A sample from the year 9999 would forget all others and shut out the next ones: with `now` it is dropped.
    @Test func aClockThatJumpsForwardForgetsNothing() throws {
        var usage = try Self.usage(days: 1, cpu: 1000, memory: 1 << 30)
        let before = usage.cpu.percentile(0.9), now = Self.at(Self.day)
        #expect(throws: SampleGate.Dropped.ahead) { try usage.addCPU(10, at: DecayingHistogram.dusk, now: now) }
        try usage.addCPU(1000, at: now, now: now)
        #expect(usage.cpu.percentile(0.9) == before)
    }

    @Test func absurdAmountsCountAsTheLargest() throws {
        var usage = ContainerUsage(created: Self.at(0))
        try usage.addCPU(.max, at: Self.at(0))
        try usage.addMemory(.max, at: Self.at(0))
        try usage.addOutOfMemory(request: .max, at: Self.at(1))
        try usage.addOutOfMemory(request: .min, at: Self.at(2))
        let decisions = Recommender().recommend(
            usage, service: "web", declared: OptionalResources(cpu: .max, memory: .max), containers: .min)
        for decision in decisions { #expect(decision.result.target > 0 && decision.result.target <= Amount.most) }
    }

    /// Repeated OOMs of one interval rise from the usage, not from each other.
    @Test func repeatedOutOfMemoryDoesNotRunAway() throws {
        var gate = SampleGate()
        let first = try gate.memory(1000 << 20, at: Self.at(0))
        #expect(first?.value == 1000 << 20)
        var peaks: [Int] = []
        for step in 1...5 { if let peak = try gate.outOfMemory(request: 1000 << 20, at: Self.at(Int64(step))) { peaks.append(peak.value) } }
        #expect(peaks == [1200 << 20])
    }

    @Test(arguments: 1...10) func aStateSurvivesItsCheckpoint(seed: Int) throws {
        let usage = try Self.usage(days: 1, cpu: 700, memory: 500 << 20, seed: UInt64(seed))
        let checkpoint = usage.checkpoint()
        let copy = try ContainerUsage(checkpoint, created: Self.at(0))
        #expect(copy.first == usage.first && copy.last == usage.last && copy.samples == usage.samples)
        let a = Recommender().recommend(usage, service: "web", declared: OptionalResources()).map(\.result)
        let b = Recommender().recommend(copy, service: "web", declared: OptionalResources()).map(\.result)
        for (one, other) in zip(a, b) { #expect(abs(Double(one.target - other.target)) <= 0.06 * Double(one.target)) }
        var wrong = checkpoint
        wrong.version = "v2"
        #expect(throws: HistogramCheckpoint.Refusal.self) { try ContainerUsage(wrong, created: Self.at(0)) }
        wrong.version = "v3"
        wrong.samples = -1
        #expect(throws: HistogramCheckpoint.Refusal.self) { try ContainerUsage(wrong, created: Self.at(0)) }
    }

    @Test func replicasAreMerged() throws {
        var a = try Self.usage(days: 1, cpu: 200, memory: 300 << 20), b = try Self.usage(days: 2, cpu: 2000, memory: 900 << 20, seed: 2)
        let isMerged = a.merge(&b)
        #expect(isMerged)
        #expect(a.samples == 3 * 1440 && a.first == Self.at(0) && a.last == Self.at(2 * Self.day - 60_000))
        #expect(a.cpu.percentile(0) < 0.3 && a.cpu.percentile(1) > 1.9)
    }
}
