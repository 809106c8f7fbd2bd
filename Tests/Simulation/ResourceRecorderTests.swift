import Basics
import Measurement
import Rightsizing
import Testing

@testable import Supervision

/// What replicas use over days, without processes: what meters say, what is remembered, and what is kept over a restart.
@Suite struct ResourceRecorderTests {
    private static let day: Int64 = 86400
    private static let mebibyte = 1 << 20

    /// Seconds since the beginning, on both clocks.
    private static func clock(_ second: Int64) -> (MonotonicTime, WallTime) {
        (MonotonicTime(nanoseconds: 1_000_000_000_000 + second * 1_000_000_000), WallTime(milliseconds: 1_790_000_000_000 + second * 1000))
    }

    private static func readings(_ replica: Int, cpu: Double, memory: Int, takenAt: MonotonicTime, now: MonotonicTime) -> [MeterReading] {
        [
            MeterReading(
                key: MeterKey(service: "api", replica: replica, metric: ResourceRecorder.cpu),
                figure: MeterFigure(cpu, .milliCores, takenAt: takenAt), fault: nil,
                now: now),
            MeterReading(
                key: MeterKey(service: "api", replica: replica, metric: ResourceRecorder.memory),
                figure: MeterFigure(Double(memory), .bytes, takenAt: takenAt), fault: nil, now: now),
        ]
    }

    /// Meters look every 5 s at `replicas`, the recorder every 5 s.
    private static func watch(
        _ recorder: inout ResourceRecorder, from: Int64, seconds: Int64, replicas: ClosedRange<Int>, cpu: Double, memory: Int
    ) {
        var second = from
        while second < from + seconds {
            let (now, wall) = clock(second)
            for replica in replicas {
                recorder.take(readings(replica, cpu: cpu, memory: memory, takenAt: now, now: now), of: "api", now: now, wall: wall)
            }
            second += 5
        }
    }

    private static func sentences(_ recorder: ResourceRecorder, at second: Int64) throws -> [String] {
        let usage = try #require(recorder.whole(of: "api", wall: clock(second).1))
        return Recommender(ResourcesJSON.settings).recommend(usage, service: "api", declared: OptionalResources(cpu: 1000)).map(
            \.record.sentence)
    }

    /// A SIGKILL alone is no want of memory: the kernel has to say so, once for each.
    @Test func onlyTheKernelsOwnCountIsEvidence() {
        var kills = MemoryKills()
        func ends(_ count: UInt64?, _ second: Int64) -> Bool {
            kills.explainsAnEnd(count, now: MonotonicTime(nanoseconds: second * 1_000_000_000))
        }
        func look(_ count: UInt64?, _ second: Int64) { kills.look(count, now: MonotonicTime(nanoseconds: second * 1_000_000_000)) }
        look(7, 0)
        // Two were counted at 2 s: two ends are explained, a third one at the same time is not.
        let first = [ends(7, 1), ends(nil, 1), ends(9, 2), ends(9, 3), ends(9, 3)]
        #expect(first == [false, false, true, true, false])
        // One that was counted long ago was another process's.
        look(10, 4)
        let late = ends(10, 8)
        // A count that went back, or leaps, is only a new beginning, or more than can be told apart.
        look(2, 9)
        look(.max, 10)
        let leaping = ends(.max, 10)
        #expect(!late && leaping)
        kills = MemoryKills()
        let fresh = ends(50, 0)
        #expect(!fresh)
        #expect(MemoryKills.count("nr_free 1\noom_kill 12\noom 3\n") == 12 && MemoryKills.count("nr_free 1\n") == nil)
        #expect(MemoryKills.count(nil) == nil && MemoryKills.count("oom_kill x\n") == nil)
    }

    @Test func runningOutOfMemoryRaisesWhatIsRecommended() throws {
        var recorder = ResourceRecorder()
        recorder.follow(["api"]) { _ in [:] }
        Self.watch(&recorder, from: 0, seconds: 3 * 3600, replicas: 1...1, cpu: 300, memory: 300 * Self.mebibyte)
        func target(_ recorder: ResourceRecorder) throws -> Int {
            let usage = try #require(recorder.whole(of: "api", wall: Self.clock(3 * 3600).1))
            return Recommender(ResourcesJSON.settings).recommend(usage, service: "api", declared: OptionalResources()).last?.result.target
                ?? 0
        }
        let wall = Self.clock(3 * 3600).1, before = try target(recorder)
        let told = recorder.outOfMemory("api", 1, declared: 512 * Self.mebibyte, wall: wall)
        let record = try #require(told)
        #expect(
            record.kind == .resources && record.sentence.hasPrefix("api/1 ran out of memory and the kernel ended it, with 512Mi declared"))
        // A fifth more than it had, and the margin.
        let after = try target(recorder)
        #expect(after > max(before, 612 * Self.mebibyte))
        let stranger = recorder.outOfMemory("other", 1, declared: nil, wall: wall)
        // One that dies before its first sample counts too, and survives a restart of the supervisor.
        let early = recorder.outOfMemory("api", 9, declared: Int.max, wall: wall)
        #expect(stranger == nil && early != nil)
        let kept = try ResourceStore.read(ResourceStore.text(recorder.usage(of: "api")), now: wall)
        #expect(kept[1]?.memory.isEmpty == false && kept[9]?.memory.isEmpty == false)
    }

    @Test func aSampleOfEachReplicaAMinute() throws {
        var recorder = ResourceRecorder()
        recorder.follow(["api"]) { _ in [:] }
        Self.watch(&recorder, from: 0, seconds: 3 * 3600, replicas: 1...3, cpu: 300, memory: 300 * Self.mebibyte)
        let usage = recorder.usage(of: "api")
        #expect(usage.keys.sorted() == [1, 2, 3] && usage.values.allSatisfy { $0.samples == 180 }, "\(usage.mapValues(\.samples))")
        let whole = try #require(recorder.whole(of: "api", wall: Self.clock(3 * 3600).1))
        #expect(whole.samples == 540)
        // Three hours of watching, whatever the number of replicas.
        let confidence = Confidence.of(first: whole.first, last: whole.last, samples: whole.samples, interval: .seconds(86400))
        #expect(abs(confidence * 24 - 179.0 / 60) < 0.001, "\(confidence * 24)")
        #expect(recorder.usage(of: "nobody").isEmpty && recorder.whole(of: "nobody", wall: Self.clock(0).1) == nil)
    }

    /// The first sample at once, and each figure counts once however often it is looked at; one that is old counts not at all.
    @Test func aFigureCountsOnce() {
        var recorder = ResourceRecorder(interval: .seconds(1))
        recorder.follow(["api"]) { _ in [:] }
        let (taken, _) = Self.clock(100)
        for second in Int64(100)...103 {
            let (now, wall) = Self.clock(second)
            recorder.take(Self.readings(1, cpu: 10, memory: 5, takenAt: taken, now: now), of: "api", now: now, wall: wall)
        }
        #expect(recorder.usage(of: "api")[1]?.samples == 1)
        let (now, wall) = Self.clock(200)
        recorder.take(Self.readings(1, cpu: 10, memory: 5, takenAt: Self.clock(150).0, now: now), of: "api", now: now, wall: wall)
        #expect(recorder.usage(of: "api")[1]?.samples == 1)
        recorder.take(Self.readings(1, cpu: 10, memory: 5, takenAt: now, now: now), of: "api", now: now, wall: wall)
        #expect(recorder.usage(of: "api")[1]?.samples == 2)
    }

    /// With little known it says for how long it still has to be watched, and then what to declare.
    @Test func anHourBeforeAnythingIsRecommended() throws {
        var recorder = ResourceRecorder()
        recorder.follow(["api"]) { _ in [:] }
        #expect(try Self.sentences(recorder, at: 0)[0].contains("no CPU of api was measured yet"))
        Self.watch(&recorder, from: 0, seconds: 20 * 60, replicas: 1...2, cpu: 300, memory: 300 * Self.mebibyte)
        let early = try Self.sentences(recorder, at: 1200)
        #expect(
            early[0].hasPrefix(
                "too little is known of the CPU of api to recommend any: it was watched for 19m of the 1h that are needed, 41m more; so "
                    + "far at most 30"
            ),
            "\(early)")
        #expect(early[0].hasSuffix("; declared 1") && early[1].hasSuffix("; nothing declared"), "\(early)")
        Self.watch(&recorder, from: 1200, seconds: 41 * 60, replicas: 1...2, cpu: 300, memory: 300 * Self.mebibyte)
        let late = try Self.sentences(recorder, at: 3660)
        #expect(late[0].hasPrefix("api uses at most 30") && late[0].contains("recommend 35"), "\(late)")
        // Declared is far above, but an hour's evidence does not lower it.
        #expect(late[0].hasSuffix("nothing need change"), "\(late)")
        #expect(late[1].hasSuffix("in the stack file") && late[1].contains("set services.api.resources.memory to "), "\(late)")
    }

    /// The clock is set back by three hours, of which no sample may be lost; once a minute is no step.
    @Test(arguments: [61, 3 * 3600, 40 * 86400] as [Int64]) func aClockThatIsSetBackCostsNoSample(step: Int64) throws {
        var recorder = ResourceRecorder()
        recorder.follow(["api"]) { _ in [:] }
        var told: [DecisionRecord] = []
        func watch(_ seconds: Range<Int64>, back: Int64, cpu: Double) {
            for second in stride(from: seconds.lowerBound, to: seconds.upperBound, by: 5) {
                let (now, wall) = Self.clock(second)
                let shown = WallTime(milliseconds: wall.milliseconds - back * 1000)
                if let record = recorder.look(now: now, wall: shown) { told.append(record) }
                recorder.take(Self.readings(1, cpu: cpu, memory: 5, takenAt: now, now: now), of: "api", now: now, wall: shown)
            }
        }
        watch(0..<7200, back: 0, cpu: 300)
        let before = try #require(recorder.usage(of: "api")[1])
        watch(7200..<14400, back: step, cpu: 300)
        let after = try #require(recorder.usage(of: "api")[1])
        #expect(before.samples == 120 && after.samples == 240)
        #expect(told.count == 1 && told[0].sentence.hasPrefix("the clock was set back by "), "\(told.map(\.sentence))")
        // Watched for four hours, and as heavy as four hours of watching without a step are.
        let first = try #require(after.first), last = try #require(after.last)
        #expect(last - first == .seconds(14400 - 60))
        var plain = ResourceRecorder()
        plain.follow(["api"]) { _ in [:] }
        Self.watch(&plain, from: 0, seconds: 14400, replicas: 1...1, cpu: 300, memory: 5)
        let steady = try #require(plain.usage(of: "api")[1])
        #expect(abs(after.cpu.percentile(0.9) - steady.cpu.percentile(0.9)) < 0.001)
        // A new day's samples outweigh the old ones after a step as they do without one.
        watch(14400..<(14400 + 3 * 86400), back: step, cpu: 900)
        Self.watch(&plain, from: 14400, seconds: 3 * 86400, replicas: 1...1, cpu: 900, memory: 5)
        let late = try #require(recorder.usage(of: "api")[1]), lateSteady = try #require(plain.usage(of: "api")[1])
        #expect(late.samples == lateSteady.samples && !late.isExpired(Self.clock(14400 + 3 * 86400 - step).1))
        for share in [0.01, 0.05, 0.1, 0.5] { #expect(late.cpu.percentile(share) == lateSteady.cpu.percentile(share), "\(share)") }
    }

    @Test func aClockThatIsCorrectedByALittleIsNoNews() {
        var recorder = ResourceRecorder()
        recorder.follow(["api"]) { _ in [:] }
        for second in Int64(0)..<200 {
            let (now, wall) = Self.clock(second)
            let shown = WallTime(milliseconds: wall.milliseconds - (second % 2) * 59_000)
            let record = recorder.look(now: now, wall: shown)
            #expect(record == nil)
        }
    }

    /// A restart after two days goes on where it was, and recommends what it recommended.
    @Test func itIsKeptOverARestart() throws {
        var recorder = ResourceRecorder()
        recorder.follow(["api"]) { _ in [:] }
        Self.watch(&recorder, from: 0, seconds: 2 * Self.day, replicas: 1...2, cpu: 250, memory: 400 * Self.mebibyte)
        let before = try Self.sentences(recorder, at: 2 * Self.day)
        let file = ResourceStore.text(recorder.usage(of: "api")), wall = Self.clock(2 * Self.day + 60).1
        let stored = try ResourceStore.read(file, now: wall)
        var next = ResourceRecorder()
        next.follow(["api"]) { _ in stored }
        #expect(try Self.sentences(next, at: 2 * Self.day) == before)
        Self.watch(&next, from: 2 * Self.day + 600, seconds: 3600, replicas: 1...1, cpu: 250, memory: 400 * Self.mebibyte)
        #expect(next.usage(of: "api")[1]?.samples == (recorder.usage(of: "api")[1]?.samples ?? 0) + 60)
        // Eight days later it is forgotten: by the reader, and by whoever has gone on running.
        let late = Self.clock(11 * Self.day).1
        #expect(try ResourceStore.read(file, now: late).isEmpty)
        next.forget(late)
        #expect(next.usage(of: "api").isEmpty)
    }

    /// A service that the stack file no longer has is forgotten; one that stays keeps what it has.
    @Test func servicesComeAndGo() {
        var recorder = ResourceRecorder(), asked: [String] = []
        recorder.follow(["api"]) { _ in [:] }
        Self.watch(&recorder, from: 0, seconds: 120, replicas: 1...1, cpu: 10, memory: 10)
        recorder.follow(["api", "web"]) { name in
            asked.append(name)
            return [:]
        }
        #expect(asked == ["web"] && recorder.usage(of: "api")[1]?.samples == 2)
        recorder.follow(["web"]) { _ in [:] }
        #expect(recorder.usage(of: "api").isEmpty)
    }

    /// Damaged files are refused as a whole; none traps.
    @Test func aBadFileIsBegunAnew() throws {
        var recorder = ResourceRecorder()
        recorder.follow(["api"]) { _ in [:] }
        Self.watch(&recorder, from: 0, seconds: 3600, replicas: 1...2, cpu: 250, memory: 400 * Self.mebibyte)
        let good = ResourceStore.text(recorder.usage(of: "api")), wall = Self.clock(3600).1
        #expect(try ResourceStore.read(good, now: wall).count == 2)
        let text = String(decoding: good, as: UTF8.self)
        for (part, other) in [
            ("\"v3\"", "\"v9\""), ("\"samples\":60", "\"samples\":-1"), ("\"weights\":[[", "\"weights\":[[9999,1],["),
            ("\"total\":", "\"tot\":"),
        ] {
            let bad = text.replacing(part, with: other)
            #expect(bad != text, "\(part)")
            #expect(throws: (any Error).self) { _ = try ResourceStore.read(Array(bad.utf8), now: wall) }
        }
        for length in stride(from: 0, to: good.count - 1, by: 7) {
            #expect(throws: (any Error).self) { _ = try ResourceStore.read(Array(good.prefix(length)), now: wall) }
        }
        var random = SeededRandom(seed: 7)
        for _ in 0..<500 {
            var bytes = good
            for _ in 0..<3 { bytes[Int.random(in: bytes.indices, using: &random)] = UInt8.random(in: 32...126, using: &random) }
            _ = try? ResourceStore.read(bytes, now: wall)
        }
    }
}
