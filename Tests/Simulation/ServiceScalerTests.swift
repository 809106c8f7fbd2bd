import Autoscaling
import Basics
import Measurement
import StackFile
import StackModel
import Testing

@testable import Supervision

/// One service's autoscaler over time, without processes: what meters say, what becomes of the size, and what is told.
@Suite struct ServiceScalerTests {
    /// A service whose replicas share a load, and start in five seconds.
    private struct World {
        var scaler: ServiceScaler
        var now = MonotonicTime(nanoseconds: 5_000_000_000_000)
        var size: Int
        var born: [Int: MonotonicTime] = [:]
        var told: [DecisionRecord] = []
        var sizes: [Int] = []
        var quiet: Duration? = .zero
        var waiting = 0
        /// Sizes that are decided are not set.
        var refuses = false
        /// The length of a list; nil: cannot be read.
        var queue: Double? = 0
        /// The lag of a topic, as it was read last, with its partitions; a later attempt has failed.
        var lag: MeterFigure?
        static let startTime = Duration.seconds(5)

        static func service(_ scale: String, replicas: String) throws -> ServiceSpec {
            let text = """
                services:
                  api: { command: api, replicas: \(replicas), http: {}, resources: { cpu: 500m, memory: 512Mi }, scale: \(scale) }
                stores: { state: { redis: { role: state } } }
                gateway: { listen: 8080, routes: [{ path: /, service: api }] }
                """
            return try #require(try Stack.read(Array(text.utf8), path: "s.yaml").service("api"))
        }

        init(_ scale: String, replicas: String, size: Int) throws {
            let service = try World.service(scale, replicas: replicas)
            scaler = ServiceScaler(service, try #require(service.scaling), now: now)
            self.size = size
            for number in 1...max(1, size) where number <= size { born[number] = MonotonicTime(nanoseconds: 0) }
        }

        private func isServing(_ number: Int) -> Bool { born[number].map { now - $0 >= World.startTime } ?? false }

        /// A second passes with so many requests in it.
        mutating func second(_ requests: Double, broken: Set<Int> = []) {
            now = now + .seconds(1)
            quiet = requests > 0 ? .zero : quiet.map { $0 + .seconds(1) }
            let serving = born.keys.filter(isServing).sorted()
            let readings = serving.map { number -> MeterReading in
                let key = MeterKey(service: "api", replica: number, metric: "requests")
                if broken.contains(number) {
                    return MeterReading(key: key, figure: nil, fault: MeterFault(.notANumber, "it said NaN"), now: now)
                }
                let figure = MeterFigure(requests / Double(serving.count), .perSecond, takenAt: now, window: .seconds(2))
                return MeterReading(key: key, figure: figure, fault: nil, now: now)
            }
            let queueKey = MeterKey(service: "api", metric: "list jobs")
            let queueReading = MeterReading(
                key: queueKey, figure: queue.map { MeterFigure($0, .count, takenAt: now, window: .zero) },
                fault: queue == nil ? MeterFault(.unreachable, "Redis is away") : nil,
                now: now)
            let lagReading = MeterReading(
                key: MeterKey(service: "api", metric: ScalingReadings.names(scaler.scaling).last ?? ""), figure: lag,
                fault: MeterFault(.unreachable, "the exporter is away"), now: now)
            let replicas = born.sorted { $0.key < $1.key }.map { number, at in
                let serves = isServing(number)
                return ServiceScaler.ReplicaNow(
                    state: ReplicaState(
                        id: number, phase: serves ? .running : .pending, ready: serves ? .yes : .no, startedAt: at,
                        readyChangedAt: at + World.startTime),
                    isServing: serves)
            }
            let outcome = scaler.pass(
                .init(
                    now: now, wall: WallTime(milliseconds: now.nanoseconds / 1_000_000), current: size, replicas: replicas,
                    readings: readings + [queueReading] + (lag == nil ? [] : [lagReading]),
                    demand: .init(waiting: waiting, underWay: requests > 0 ? 1 : 0, quiet: quiet)))
            told += [outcome.finding, outcome.record].compactMap(\.self)
            if let count = outcome.count {
                scaler.settle(!refuses, from: size, now: now)
                if !refuses { set(count) }
            }
            sizes.append(size)
        }

        /// The file has changed.
        mutating func follow(_ scale: String, replicas: String) throws {
            let service = try World.service(scale, replicas: replicas)
            scaler.follow(service, try #require(service.scaling))
        }

        mutating func set(_ count: Int) {
            size = count
            while born.count > count { born[born.keys.max()!] = nil }
            var number = 1
            while born.count < count {
                if born[number] == nil { born[number] = now }
                number += 1
            }
        }
    }

    private static let quick =
        "{ metrics: { requests: 100/s }, every: 1s, up: { pods: 10, every: 1s }, down: { pods: 10, every: 1s, stabilization: 10s } }"

    @Test func threeToEightToThree() throws {
        var world = try World(Self.quick, replicas: "3..8", size: 3)
        for _ in 0..<20 { world.second(290) }
        #expect(world.size == 3)
        for _ in 0..<20 { world.second(780) }
        #expect(world.size == 8)
        for _ in 0..<20 { world.second(200) }
        #expect(world.size == 3)
        // The size changed twice, and nothing was told again and again meanwhile.
        #expect(zip(world.sizes, world.sizes.dropFirst()).count { $0 != $1 } == 2)
        #expect(world.told.count <= 10, "\(world.told.map(\.sentence))")
        #expect(world.told.contains { $0.sentence.contains("asks for 8") })
        #expect(world.told.contains { $0.sentence.contains("were needed in the last 10s") })
        #expect(world.scaler.timeline.latest().count == 60)
    }

    /// Consumers beyond a topic's partitions sit idle. A count of partitions that nobody has read for long says nothing of now.
    @Test func aCountOfPartitionsIsACeilingAsLongAsItIsFresh() throws {
        var world = try World(
            "{ metrics: [{ requests: 100/s }, { kafka: events, group: g, lag: 50, from: \"http://h:1/m\" }], every: 1s, "
                + "up: { pods: 10, every: 1s }, down: { pods: 10, every: 1s, stabilization: 10s } }", replicas: "1..8", size: 2)
        let partitions = (0..<3).map { Measurement.PartitionOffsets(topic: "events", partition: $0) }
        world.lag = MeterFigure(0, .count, takenAt: world.now + .seconds(1), partitions: partitions)
        for _ in 0..<8 { world.second(780) }
        #expect(world.size == 3)
        // Ten seconds after it was read.
        for _ in 0..<10 { world.second(780) }
        #expect(world.size == 8, "\(world.sizes)")
    }

    @Test func aHandHoldsItUntilItLetsGo() throws {
        var world = try World(Self.quick, replicas: "1..20", size: 3)
        let told = world.scaler.set(5, from: 3, now: world.now)
        #expect(told.sentence == "api goes from 3 to 5: somebody asked for it, and the autoscaler is held until it is let go.")
        world.set(5)
        for _ in 0..<20 { world.second(1900) }
        #expect(world.size == 5)
        _ = world.scaler.set(nil, from: 5, now: world.now)
        for _ in 0..<20 { world.second(1900) }
        #expect(world.size == 19)
    }

    @Test func twoOwnersAreTold() throws {
        var world = try World(Self.quick, replicas: "1..20", size: 3)
        var sentences: [String] = []
        for round in 0..<3 {
            sentences.append(world.scaler.set(6, from: world.size, now: world.now + .seconds(Int64(round))).sentence)
            _ = world.scaler.set(nil, from: 6, now: world.now + .seconds(Int64(round)))
        }
        #expect(sentences[2].contains("set from outside 3 times in 10m"))
        // Somebody changes the count and says nothing.
        world.second(290)
        world.set(7)
        world.second(290)
        #expect(
            world.told.contains { $0.sentence.hasPrefix("api was changed by others 5 times in 10m, now from 3 to 7") },
            "\(world.told.map(\.sentence))")
    }

    @Test func itSleepsAndIsWoken() throws {
        var world = try World("{ metrics: { requests: 100/s }, every: 1s, idle: 30s }", replicas: "0..5", size: 1)
        for _ in 0..<40 { world.second(50) }
        #expect(world.size == 1)
        for _ in 0..<29 { world.second(0) }
        #expect(world.size == 1)
        for _ in 0..<3 { world.second(0) }
        #expect(world.size == 0)
        for _ in 0..<100 { world.second(0) }
        #expect(world.size == 0)
        world.waiting = 2
        world.second(0)
        #expect(world.size == 1)
        #expect(world.told.last?.sentence == "api goes from 0 to 1 replica: 2 requests wait for it at the gateway.")
    }

    /// A full queue keeps it awake, and wakes it, though nobody asks over HTTP; a queue that cannot be read keeps it awake.
    @Test func itDoesNotSleepOnWork() throws {
        var world = try World(
            "{ metrics: { redis: state, list: jobs, average: 10 }, every: 1s, idle: 5s, down: { stabilization: 0s } }", replicas: "0..5",
            size: 0)
        for _ in 0..<10 { world.second(0) }
        #expect(world.size == 0)
        world.waiting = 1
        world.second(1)
        world.waiting = 0
        world.queue = 40
        for _ in 0..<60 { world.second(0) }
        #expect(world.size == 4)
        world.queue = nil
        for _ in 0..<60 { world.second(0) }
        #expect(world.size == 4)
        world.queue = 0
        for _ in 0..<60 { world.second(0) }
        #expect(world.size == 0)
        world.queue = 15
        for _ in 0..<5 { world.second(0) }
        #expect(world.size == 2)
    }

    /// A file whose maximum is smaller than the present size takes away what is too much, and sends nobody to sleep who works.
    @Test func aSmallerMaximumIsNoReasonToSleep() throws {
        func scale(_ idle: String) -> String { "{ metrics: { redis: state, list: jobs, average: 10 }, every: 1s, idle: \(idle) }" }
        var world = try World(scale("5s"), replicas: "0..8", size: 8)
        world.queue = 80
        for _ in 0..<20 { world.second(0) }
        #expect(world.size == 8)
        try world.follow(scale("5s"), replicas: "0..4")
        for _ in 0..<20 { world.second(0) }
        #expect(world.size == 4 && world.sizes.allSatisfy { $0 > 0 }, "\(world.sizes)")
    }

    /// A request wakes what is at 0 also without `idle`.
    @Test func aRequestWakesItWithoutIdleToo() throws {
        var world = try World(
            "{ metrics: { redis: state, list: jobs, average: 10 }, every: 1s, down: { stabilization: 5s } }", replicas: "0..5", size: 0)
        for _ in 0..<20 { world.second(0) }
        #expect(world.size == 0)
        // The queue need not be readable for that.
        world.queue = nil
        world.waiting = 1
        world.second(1)
        #expect(world.size == 1)
        #expect(world.told.last?.sentence == "api goes from 0 to 1 replica: 1 request waits for it at the gateway.")
        // A hand that holds it at 0 is stronger.
        _ = world.scaler.set(0, from: 1, now: world.now)
        world.set(0)
        for _ in 0..<5 { world.second(1) }
        #expect(world.size == 0)
    }

    /// The timeline's points hold figures by the places of their metrics.
    @Test func otherMetricsBeginAnotherTimeline() throws {
        var world = try World("{ metrics: [{ requests: 100/s }, { cpu: 50% }], every: 1s }", replicas: "1..9", size: 2)
        for _ in 0..<10 { world.second(100) }
        try world.follow("{ metrics: [{ requests: 50/s }, { cpu: 70% }], every: 1s }", replicas: "1..9")
        #expect(world.scaler.timeline.latest().count == 10)
        try world.follow("{ metrics: [{ cpu: 70% }, { requests: 50/s }], every: 1s }", replicas: "1..9")
        #expect(world.scaler.timeline.latest().isEmpty)
    }

    @Test func aFloorWakesItAndKeepsItAwake() throws {
        var world = try World(
            "{ metrics: { requests: 100/s }, every: 1s, idle: 5s, floors: [{ at: \"00:00-24:00\", replicas: 2 }] }", replicas: "0..5",
            size: 0)
        for _ in 0..<60 { world.second(0) }
        #expect(world.size == 2)
        #expect(
            world.told.first?.sentence.hasPrefix("api goes from 0 to 2: at least 2 are declared for ") == true,
            "\(world.told.map(\.sentence))")
    }

    /// No answer is no fast answer while requests are under way, and a sum of some replicas is not the sum.
    @Test func whatIsMissingIsNotNothing() throws {
        let text = """
            services:
              api: { command: api, replicas: 1..9, http: { metrics: /m }, scale: { metrics: [{ latency: 500ms }, { metric: depth, total: 300 }] } }
            gateway: { listen: 8080, routes: [{ path: /, service: api }] }
            """
        let service = try #require(try Stack.read(Array(text.utf8), path: "s.yaml").service("api")), scaling = try #require(service.scaling)
        let now = MonotonicTime(nanoseconds: 1_000_000_000_000)
        func page(_ replica: Int, _ value: Double?) -> MeterReading {
            MeterReading(
                key: MeterKey(service: "api", replica: replica, metric: "depth"),
                figure: value.map { MeterFigure($0, .count, takenAt: now, window: .zero) },
                fault: value == nil ? MeterFault(.timedOut, "it took too long") : nil, now: now)
        }
        let latency = MeterReading(
            key: MeterKey(service: "api", metric: "latency in ms"), figure: nil, fault: MeterFault(.absent, "no answer"), now: now)
        func read(isQuiet: Bool, _ third: Double?) -> [Autoscaling.MetricReading] {
            ScalingReadings(service: service, scaling: scaling, replicas: 3, limit: .seconds(30), isQuiet: isQuiet)
                .readings([latency, page(1, 100), page(2, 100), page(3, third)])
        }
        #expect(read(isQuiet: true, 100) == [.value(0), .values([100_000, 100_000, 100_000])])
        #expect(read(isQuiet: false, nil) == [.failed(.unreadable("no answer")), .failed(.unreadable("it took too long"))])
    }

    /// The one that a roll adds counts once it has taken its place.
    @Test func aSurgeIsKnownByItsNumber() {
        var machine = ServiceMachine(name: "api", desired: 0)
        _ = machine.setDesired(2)
        for number in 1...2 { _ = machine.becameReady(number) }
        #expect(machine.surge == nil)
        _ = machine.beginRoll()
        #expect(machine.surge == 3)
        _ = machine.becameReady(3)
        #expect(machine.surge == nil)
    }

    @Test func withoutAnyFigureNothingMoves() throws {
        var world = try World(Self.quick, replicas: "1..20", size: 4)
        for _ in 0..<60 { world.second(50, broken: [1, 2, 3, 4]) }
        #expect(world.size == 4)
        #expect(world.told.last?.sentence == "api stays at 4 replicas: requests is not known, because it said NaN.")
    }

    /// Three of four say nothing: they are taken to be at their target before anything shrinks, and idle before anything grows.
    @Test func aFewWithoutFiguresMoveNothingWild() throws {
        var world = try World(Self.quick, replicas: "1..20", size: 4)
        for _ in 0..<60 { world.second(4000, broken: [2, 3, 4]) }
        #expect(world.size <= 20)
        var calm = try World(Self.quick, replicas: "1..20", size: 4)
        for _ in 0..<60 { calm.second(40, broken: [2, 3, 4]) }
        #expect(calm.size == 4)
    }

    /// A figure that was thrown away may have been much: what the others say may let the service grow, and never shrink.
    @Test func aFigureThrownAwayHoldsTheSizeAndIsTold() throws {
        var world = try World(Self.quick, replicas: "1..20", size: 4)
        for _ in 0..<60 { world.second(40, broken: [4]) }
        #expect(world.size == 4)
        let standing = try #require(world.scaler.standing)
        #expect(
            standing.sentence == "api stays at 4 replicas: requests is 10 each against a target of 100 each, which asks for fewer, but "
                + "nothing is taken away while a figure is thrown away: api/4: it said NaN.")
        #expect(standing.inputs.last?.value.hasSuffix("; thrown away: api/4: it said NaN") == true)
        #expect(standing.flip == "a reading of requests of which nothing is thrown away")
        // It is told once, not at every pass.
        #expect(world.told.count { $0.sentence.contains("thrown away") } == 1)
        for _ in 0..<60 { world.second(40) }
        #expect(world.size == 1)
        var growing = try World(Self.quick, replicas: "1..20", size: 4)
        for _ in 0..<60 { growing.second(4000, broken: [4]) }
        #expect(growing.size > 4)
    }

    /// Only a size that was set counts against the pace, and as the autoscaler's own.
    @Test func aSizeThatCouldNotBeSetIsNoChange() throws {
        var world = try World(
            "{ metrics: { requests: 100/s }, every: 1s, up: { pods: 1, every: 60s } }", replicas: "1..20", size: 2)
        world.refuses = true
        for _ in 0..<10 { world.second(1000) }
        #expect(world.size == 2 && !world.told.contains { $0.sentence.contains("somebody else") })
        world.refuses = false
        world.second(1000)
        #expect(world.size == 3)
        for _ in 0..<10 { world.second(1000) }
        #expect(world.size == 3)
    }

    @Test func theTimelineIsBounded() {
        var timeline = ScalingTimeline()
        for index in 0..<6000 {
            timeline.append(
                .init(at: WallTime(milliseconds: Int64(index)), replicas: 1, serving: 1, raw: 1, outcome: 1, measured: [], demand: []))
        }
        #expect(timeline.latest().count == ScalingTimeline.capacity)
        #expect(timeline.latest(2).map(\.at.milliseconds) == [5998, 5999])
    }

    @Test func historySurvivesAFile() throws {
        var history = DemandHistory()
        for hour in 0..<200 { history.observe(hour % 17, at: WallTime(milliseconds: Int64(hour) * 3_600_000)) }
        #expect(DemandHistory(text: history.text) == history)
        for wrong in [
            "", "x", history.text + "d 9999 1 1 1\n", "muster demand history 1\nd 0 nan 1 1\n", "muster demand history 1\nd 0 1\n",
            "muster demand history 2\nd 0 1 nan 1 1\n", "muster demand history 2\nd 0 1 1 1\n", "muster demand history 3\nd 0 1 1 1 1\n",
        ] {
            #expect(DemandHistory(text: wrong) == nil)
        }
    }

    /// Of two that may go, the one with less to do goes.
    @Test func theBusyOnesStay() {
        var machine = ServiceMachine(name: "api", desired: 0)
        _ = machine.setDesired(4)
        for number in 1...4 { _ = machine.becameReady(number) }
        #expect(machine.setDesired(2, work: [1: 9, 2: 0, 3: 5, 4: 7]) == [.stop(2), .stop(3)])
    }
}
