import Basics
import Lag
import Testing

/// KEDA's Kafka arithmetic, by its own words and over seeded random groups.
@Suite struct LagTests {
    private static func offsets(_ committed: Int?, _ latest: Int?, partition: Int32 = 0, topic: String = "orders") -> PartitionOffsets {
        PartitionOffsets(topic: topic, partition: partition, committed: committed.map { .offset($0) } ?? .none, latest: latest)
    }

    private static func reading(_ lag: Int, _ partitions: Int, withLag: Int? = nil) -> LagReading {
        LagReading(lag: lag, lagAll: lag, partitions: partitions, partitionsWithLag: withLag ?? partitions)
    }

    @Test func theFiveRulesComeInTheirOrder() throws {
        func lag(_ committed: Int?, _ latest: Int?, previous: Int? = nil, _ settings: LagSettings) -> [Int] {
            let one = PartitionLag(committed: committed, latest: latest, previous: previous, settings)
            return [one.scaling, one.all]
        }
        let latest = try LagSettings(), earliest = try LagSettings(resetPolicy: .earliest)
        let latestToZero = try LagSettings(scalesToZeroOnInvalidOffset: true)
        let earliestToZero = try LagSettings(resetPolicy: .earliest, scalesToZeroOnInvalidOffset: true)
        let persistent = try LagSettings(excludesPersistentLag: true)
        #expect(lag(nil, 50, latest) == [1, 1] && lag(nil, nil, latest) == [1, 1] && lag(nil, 50, latestToZero) == [0, 0])
        #expect(lag(nil, 50, earliestToZero) == [0, 0] && lag(nil, 50, earliest) == [50, 50] && lag(nil, nil, earliest) == [0, 0])
        #expect(lag(10, nil, latest) == [0, 0] && lag(10, 25, latest) == [15, 15])
        #expect(
            lag(10, 25, previous: 10, persistent) == [0, 15] && lag(10, 25, previous: 9, persistent) == [15, 15]
                && lag(10, 25, persistent) == [15, 15])
        #expect(lag(10, 25, previous: 10, latest) == [15, 15])
        // Ours: never below 0.
        #expect(lag(30, 25, latest) == [0, 0] && lag(.min, .max, latest) == [.max, .max])
    }

    @Test func contradictionsAreRefusedByName() {
        func setting(_ make: () throws -> LagSettings) -> String? {
            do { _ = try make() } catch let refusal as LagSettings.Refusal { return refusal.setting } catch { return "another error" }
            return nil
        }
        #expect(setting { try LagSettings(threshold: 0) } == "lagThreshold")
        #expect(setting { try LagSettings(activationThreshold: -1) } == "activationLagThreshold")
        #expect(
            setting { try LagSettings(allowsIdleConsumers: true, limitsToPartitionsWithLag: true, topic: "t") }
                == "limitToPartitionsWithLag")
        #expect(
            setting { try LagSettings(limitsToPartitionsWithLag: true, ensuresEvenDistribution: true, topic: "t") }
                == "limitToPartitionsWithLag")
        #expect(setting { try LagSettings(limitsToPartitionsWithLag: true) } == "limitToPartitionsWithLag")
        #expect(setting { try LagSettings(ensuresEvenDistribution: true, topic: "") } == "ensureEvenDistributionOfPartitions")
        #expect(setting { try LagSettings(allowsIdleConsumers: true, strict: true) } == "allowIdleConsumers")
        #expect(setting { try LagSettings(allowsIdleConsumers: true, ensuresEvenDistribution: true, topic: "t") } == nil)
        for (key, value) in [
            ("lagThreshold", "1.5"), ("activationLagThreshold", "AA"), ("offsetResetPolicy", "newest"), ("allowIdleConsumers", "notvalid"),
            ("excludePersistentLag", "2"), ("partitionLimitation", "a,b"),
        ] {
            #expect(setting { try LagSettings(metadata: ["topic": "t", key: value]) } == key)
        }
        #expect(setting { try LagSettings(metadata: ["partitionLimitation": "a,b"]) } == nil, "ignored without a topic")
    }

    @Test func partitionsAreReadAsListsAndRanges() throws {
        #expect(try PartitionSet.read("1-4,8, 10-12 ") == PartitionSet([1...4, 8...8, 10...12]))
        #expect(try PartitionSet.read("   ") == nil)
        for bad in ["1,,2", "4-1", "1-", "-1", "1-2-3", "x", "99999999999", "1,"] {
            #expect(throws: LagSettings.Refusal.self, "\(bad)") { try PartitionSet.read(bad) }
        }
        let wide = try PartitionSet.read("0-2147483647")
        #expect(wide?.contains(2_000_000_000) == true)
    }

    @Test func aReadingIsOneOfAllThatIsAskedFor() throws {
        var meter = LagMeter(try LagSettings(topic: "orders", partitions: PartitionSet([0...1])))
        let reading = try meter.poll([
            Self.offsets(0, 7), Self.offsets(5, 5, partition: 1), Self.offsets(0, 100, partition: 2), Self.offsets(0, 100, topic: "other"),
        ])
        #expect(reading == LagReading(lag: 7, lagAll: 7, partitions: 2, partitionsWithLag: 1))
        var all = LagMeter(try LagSettings())
        #expect(try all.poll([Self.offsets(0, 7), Self.offsets(0, 100, topic: "other")]).lag == 107)
        #expect(throws: LagMeter.Failure.self) {
            try all.poll([Self.offsets(0, 7), PartitionOffsets(topic: "orders", partition: 1, committed: .failed("no block"), latest: 9)])
        }
    }

    @Test func persistentLagIsLeftOutFromTheSecondPollOn() throws {
        var meter = LagMeter(try LagSettings(excludesPersistentLag: true))
        let stuck = Self.offsets(10, 50)
        #expect(try meter.poll([stuck]).lag == 40)
        let second = try meter.poll([stuck])
        #expect(second.lag == 0 && second.lagAll == 40 && second.isActive(meter.settings))
        #expect(try meter.poll([Self.offsets(11, 50)]).lag == 39)
    }

    @Test func theCutIsKEDAsAndLetsOneMoreThrough() throws {
        let settings = try LagSettings(topic: "orders"), strict = try LagSettings(topic: "orders", strict: true)
        func metric(_ lag: Int) -> Int { LagMetric.report(Self.reading(lag, 3), settings, subject: "group").result }
        #expect(metric(39) == 39 && metric(40) == 30 && metric(1000) == 30)
        // The gap, and how strict closes it.
        #expect(LagReplicas.decide(Self.reading(39, 3), settings, status: 3, subject: "group").result == 4)
        let decision = LagReplicas.decide(Self.reading(39, 3), strict, status: 3, subject: "group")
        #expect(decision.result == 3)
        #expect(decision.record.constraints.last?.name == "strict-partitions")
        #expect(decision.record.sentence.contains("more replicas will not help"))
        let withLag = try LagSettings(limitsToPartitionsWithLag: true, topic: "orders")
        #expect(LagMetric.report(Self.reading(1000, 6, withLag: 2), withLag, subject: "group").result == 20)
        let idle = try LagSettings(allowsIdleConsumers: true)
        #expect(LagMetric.report(Self.reading(1000, 3), idle, subject: "group").result == 1000)
    }

    @Test func evenDistributionRoundsUpEvenNoLag() throws {
        let even = try LagSettings(ensuresEvenDistribution: true, topic: "orders")
        func metric(_ lag: Int, _ partitions: Int) -> Int { LagMetric.report(Self.reading(lag, partitions), even, subject: "group").result }
        #expect(metric(0, 6) == 10 && metric(31, 6) == 60 && metric(21, 6) == 30 && metric(1000, 6) == 60 && metric(5, 0) == 0)
    }

    @Test func theToleranceIsOfTheReplicasThereAre() {
        #expect(LagReplicas.wanted(lag: 110, threshold: 10, status: 10) == 10)
        #expect(LagReplicas.wanted(lag: 111, threshold: 10, status: 10) == 12)
        #expect(LagReplicas.wanted(lag: 90, threshold: 10, status: 10) == 10)
        #expect(LagReplicas.wanted(lag: 89, threshold: 10, status: 10) == 9)
        #expect(LagReplicas.wanted(lag: 1, threshold: 10, status: 0) == 1)
        #expect(LagReplicas.wanted(lag: 0, threshold: 10, status: 0) == 0)
    }

    @Test func divisorsAreAllOfThem() {
        for n in -1...300 { #expect(Divisors.of(n) == (n < 1 ? [] : (1...n).filter { n % $0 == 0 })) }
        #expect(Divisors.even(lag: .max, partitions: 12, threshold: .max) == 1 && Divisors.even(lag: 5, partitions: -3, threshold: 1) == 0)
    }

    @Test(arguments: 1...60) func lagIsNeverNegativeAndTheCapHolds(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed))
        let isEven = Bool.random(using: &random), isLimited = !isEven && Bool.random(using: &random)
        let settings = try LagSettings(
            threshold: Int.random(in: 1...50, using: &random), resetPolicy: Bool.random(using: &random) ? .latest : .earliest,
            limitsToPartitionsWithLag: isLimited,
            ensuresEvenDistribution: isEven, excludesPersistentLag: Bool.random(using: &random),
            scalesToZeroOnInvalidOffset: Bool.random(using: &random),
            topic: "orders", strict: true)
        var meter = LagMeter(settings)
        let edges: [Int] = [.min, -1, 0, 1, .max]
        for _ in 0..<30 {
            let offsets = (0..<Int32.random(in: 0...12, using: &random)).map { partition -> PartitionOffsets in
                let latest =
                    Int.random(in: 0...9, using: &random) == 0
                    ? edges.randomElement(using: &random)! : Int.random(in: 0...400, using: &random)
                let committed =
                    Int.random(in: 0...9, using: &random) == 0
                    ? edges.randomElement(using: &random)! : Int.random(in: -1...400, using: &random)
                return PartitionOffsets(
                    topic: "orders", partition: partition, committed: committed, latest: Bool.random(using: &random) ? latest : nil)
            }
            let reading = try meter.poll(offsets)
            #expect(reading.lag >= 0 && reading.lagAll >= reading.lag && reading.partitions == offsets.count)
            #expect(reading.partitionsWithLag <= reading.partitions)
            let bound = try #require(LagMetric.bound(reading, settings))
            let metric = LagMetric.report(reading, settings, subject: "group").result
            #expect(metric / settings.threshold <= bound)
            let status = Int.random(in: 0...14, using: &random)
            let decision = LagReplicas.decide(reading, settings, status: status, subject: "group")
            #expect((0...bound).contains(decision.result), "seed \(seed): \(decision.record.sentence)")
            if isEven, reading.partitions > 0, decision.result != status { #expect(reading.partitions % max(decision.result, 1) == 0) }
        }
    }
}
