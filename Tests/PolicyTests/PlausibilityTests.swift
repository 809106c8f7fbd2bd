import Basics
import Measurement
import Testing

@Suite struct PlausibilityTests {
    private let now = MonotonicTime(nanoseconds: 5_000_000_000)

    private func readings(_ values: [Double], metric: String = "m") -> [MeterReading] {
        values.enumerated().map { i, value in
            MeterReading(
                key: MeterKey(service: "s", replica: i + 1, metric: metric), figure: MeterFigure(value, .count, takenAt: now), fault: nil,
                now: now)
        }
    }

    /// The notes, with every figure still there.
    private func notes(_ values: [Double]) -> [String?] {
        let noted = Plausibility.withOutliersNoted(readings(values))
        #expect(noted.map(\.figure?.value) == values && noted.allSatisfy { $0.fault == nil })
        return noted.map { $0.figure.flatMap { $0.note.isEmpty ? nil : $0.note } }
    }

    @Test func aReplicaFarFromItsSiblingsIsNotedAndKept() {
        #expect(notes([2, 3, 2499]) == [nil, nil, nil])
        #expect(notes([2, 3, 2500]) == [nil, nil, "it is 2500.0, where the median of its siblings is 2.5"])
        #expect(notes([1e15, 100, 120, 90])[0] == "it is 1000000000000000.0, where the median of its siblings is 100.0")
        // Nobody can tell which of two lies; siblings at zero say nothing.
        #expect(notes([1, 1e9]) == [nil, nil])
        #expect(notes([0, 0, 500]) == [nil, nil, nil])
        #expect(notes([7, 7, 7]) == [nil, nil, nil])
        // A quotient of these is beyond any integer, and beyond any number.
        #expect(notes([1e-300, 1e-300, 10])[2] == "it is 10.0, where the median of its siblings is 1e-300")
        #expect(notes([.leastNonzeroMagnitude, .leastNonzeroMagnitude, 9e15])[2] != nil)
    }

    @Test func onlySiblingsOfOneMetricAreCompared() {
        let service = MeterReading(
            key: MeterKey(service: "s", metric: "m"), figure: MeterFigure(1e9, .count, takenAt: now), fault: nil, now: now)
        let mixed = readings([1, 1]) + readings([5000, 5000], metric: "other") + [service]
        #expect(Plausibility.withOutliersNoted(mixed) == mixed)
    }

    @Test func boundsAreTheMachines() {
        let machine = MachineBounds(processors: 4, memory: 8e9)
        #expect(machine.fault(milliCores: 4400) == nil)
        #expect(machine.fault(milliCores: 4401)?.reason == "4401 millicores on a machine of 4 processors")
        #expect(machine.fault(bytes: 8e9) == nil && machine.fault(bytes: 8.1e9)?.kind == .implausible)
    }

    @Test func numbersAreCheckedBeforeTheyAreFigures() {
        #expect(Plausibility.fault(0, called: "x") == nil && Plausibility.fault(-0.0, called: "x") == nil)
        #expect(Plausibility.fault(9_007_199_254_740_992, called: "x") == nil)
        #expect(Plausibility.fault(9_007_199_254_740_994, called: "x")?.kind == .implausible)
        #expect(Plausibility.fault(11, called: "x", most: 10)?.reason == "x is 11.0, more than 10.0 can be")
        #expect(Plausibility.fault(-5, called: "x")?.reason == "x is negative (-5.0)")
        #expect(Plausibility.fault(.nan, called: "x")?.kind == .notANumber)
    }

    @Test func anOldFigureIsUsedWhileItIsYoungEnough() throws {
        var reading = readings([3])[0]
        reading.fault = MeterFault(.unreachable, "away")
        let later = MeterReading(key: reading.key, figure: reading.figure, fault: reading.fault, now: now + .seconds(30))
        #expect(try later.usable(within: .seconds(30)).get().value == 3)
        #expect(later.usable(within: .seconds(29)) == .failure(MeterFault(.unreachable, "away")))
        let stale = MeterReading(key: reading.key, figure: reading.figure, fault: nil, now: now + .seconds(30))
        #expect(stale.usable(within: .seconds(29)) == .failure(MeterFault(.stale, "s/1 m was read 30s ago; at most 29s is allowed")))
        let never = MeterReading(key: reading.key, figure: nil, fault: nil, now: now)
        #expect(never.age == nil && never.usable(within: .seconds(1)) == .failure(MeterFault(.pending, "s/1 m has not been read yet")))
    }

    @Test func aLagIsFromOffsetsWhereTheyAreKnown() {
        #expect(PartitionOffsets(topic: "t", partition: 0, committed: 5, latest: 9, told: 100).lag == 4)
        #expect(PartitionOffsets(topic: "t", partition: 0, committed: 9, latest: 5).lag == 0)
        #expect(PartitionOffsets(topic: "t", partition: 0, latest: 9, told: 7).lag == 7)
        #expect(PartitionOffsets(topic: "t", partition: 0, latest: 9).lag == nil)
    }
}

@Suite struct ProcessGroupTimeTests {
    private func member(_ pid: Int32, _ own: UInt64, _ waited: UInt64 = 0, started: UInt64 = 10) -> ProcessGroupTime.Member {
        ProcessGroupTime.Member(pid: pid, started: started, own: own, waited: waited)
    }

    @Test func countsFromItsFirstLookOn() {
        var time = ProcessGroupTime()
        time.look([member(1, 5000)], at: 100)
        #expect(time.total == 0)
        time.look([member(1, 5030)], at: 200)
        #expect(time.total == 30)
    }

    @Test func whoCameAndWentIsCountedOnce() {
        var time = ProcessGroupTime()
        time.look([member(1, 100)], at: 100)
        time.look([member(1, 100), member(2, 40, started: 150)], at: 200)
        #expect(time.total == 40)
        // It used 10 more, ended, and was waited for.
        time.look([member(1, 100, 50)], at: 300)
        #expect(time.total == 50)
        // One that came and went between two looks.
        time.look([member(1, 100, 75)], at: 400)
        #expect(time.total == 75)
    }

    @Test func whoEndsDuringALookIsCountedOnce() {
        var time = ProcessGroupTime()
        time.look([member(1, 100), member(2, 0, started: 50)], at: 100)
        time.look([member(1, 100), member(2, 500, started: 50)], at: 200)
        #expect(time.total == 500)
        // The parent was looked at before the child ended, the child's place afterwards.
        time.look([member(1, 100)], at: 300)
        time.look([member(1, 100, 510)], at: 400)
        #expect(time.total == 510)
        // What was never waited for does not swallow what comes later.
        time.look([member(1, 100, 510), member(3, 70, started: 450)], at: 500)
        for at in 6...8 { time.look([member(1, 100, 510)], at: UInt64(at) * 100) }
        time.look([member(1, 100, 530)], at: 900)
        #expect(time.total == 600)
    }

    @Test func whoEndedUnseenTakesNothingBack() {
        var time = ProcessGroupTime()
        time.look([member(1, 100), member(2, 1_000_000)], at: 100)
        time.look([member(1, 110)], at: 200)
        #expect(time.total == 10)
    }

    @Test func aProcessThatJoinsWithAPastDoesNotBringItAlong() {
        var time = ProcessGroupTime()
        time.look([member(1, 100)], at: 1000)
        time.look([member(1, 100), member(2, 1_000_000, started: 500)], at: 2000)
        #expect(time.total == 0)
        // The same number, another process.
        time.look([member(1, 100), member(2, 30, started: 2500)], at: 3000)
        #expect(time.total == 30)
    }
}
