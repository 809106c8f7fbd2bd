import Autoscaling
import Basics
import EventLoops
import Glibc
import JSONCoding
import Measurement
import Observability
import StackFile
import StackModel
import Synchronization
import Testing

@testable import Supervision

/// What the files of a stack's journal hand on to the next supervisor, and what a flood of decisions does to them.
@Suite struct ScalingRecallTests {
    /// A service whose replicas all serve, and share a load of requests.
    private struct World {
        var scaler: ServiceScaler
        var now: MonotonicTime
        var size: Int
        var lines: [UInt8] = []
        var told: [String] = []

        static let scale =
            "{ metrics: [{ requests: 10/s }], every: 1s, warm-up: 0s, up: { pods: 2, every: 20s }, down: { pods: 1, every: 10s, stabilization: 60s } }"

        static func service() throws -> ServiceSpec {
            let text = """
                services:
                  api: { command: api, replicas: 1..20, http: {}, resources: { cpu: 500m, memory: 512Mi }, scale: \(scale) }
                gateway: { listen: 8080, routes: [{ path: /, service: api }] }
                """
            return try #require(try Stack.read(Array(text.utf8), path: "s.yaml").service("api"))
        }

        init(size: Int, now: MonotonicTime) throws {
            let service = try World.service()
            scaler = ServiceScaler(service, try #require(service.scaling), now: now)
            self.size = size
            self.now = now
        }

        mutating func second(_ requests: Double) {
            now = now + .seconds(1)
            let readings = (1...size).map { number in
                MeterReading(
                    key: MeterKey(service: "api", replica: number, metric: "requests"),
                    figure: MeterFigure(requests / Double(size), .perSecond, takenAt: now, window: .seconds(2)), fault: nil, now: now)
            }
            let long = MonotonicTime(nanoseconds: 0)
            let replicas = (1...size).map {
                ServiceScaler.ReplicaNow(
                    state: ReplicaState(id: $0, phase: .running, ready: .yes, startedAt: long, readyChangedAt: long), isServing: true)
            }
            let outcome = scaler.pass(
                .init(
                    now: now, wall: WallTime(milliseconds: 1_764_547_200_000), current: size, replicas: replicas, readings: readings,
                    demand: .init(waiting: 0, underWay: 1, quiet: .zero)))
            if let count = outcome.count {
                scaler.settle(true, from: size, now: now)
                size = count
            }
            if let line = scaler.line(at: now) { lines += line.bytes }
        }
    }

    private static func withStackFolder<T>(_ body: (StackFolder) throws -> T) throws -> T {
        let path = "/tmp/muster-test-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        try Files.makeFolder(path + "/.muster/s/journal", mode: 0o700)
        defer { Files.remove(path) }
        return try body(StackFolder(stackFile: path + "/s.yaml", stack: "s"))
    }

    /// A supervisor that is killed in the middle of a window, and another one that goes on: every size from then on is the one that the first
    /// would have decided. One that begins anew would decide otherwise.
    @Test(arguments: [5, 12, 22, 33, 47, 70, 95]) func windowsAndPaceGoOn(killedAt: Int) throws {
        try Self.withStackFolder { folder in
            // The clock of this machine, which the lines are compared with.
            let start = MonotonicTime.now + .seconds(-200)
            func load(_ second: Int) -> Double { second < 40 ? 90 : 15 }
            var whole = try World(size: 2, now: start), sizes: [Int] = [], first = whole
            for second in 0..<160 {
                whole.second(load(second))
                sizes.append(whole.size)
                if second == killedAt { first = whole }
            }
            try Files.replace(StackJournal.File.scaling.path(in: folder), with: first.lines + Array("{\"v\":1,\"bo".utf8))
            let recorded = try RecordedScaling(folder)
            #expect(recorded.skipped == 0 && recorded.pasts["api"]?.size == first.size)
            func goOn(_ recalls: Bool) throws -> [Int] {
                var second = try World(size: first.size, now: first.now)
                if recalls {
                    second.scaler.recall(recorded.pasts["api"], recorded.points("api", metrics: ["requests"]), now: first.now)
                }
                var later: [Int] = []
                for one in (killedAt + 1)..<160 {
                    second.second(load(one))
                    later.append(second.size)
                }
                return later
            }
            let expected = Array(sizes[(killedAt + 1)...])
            #expect(try goOn(true) == expected)
            #expect(try goOn(false) != expected, "the test does not tell the two apart")
            #expect(recorded.points("api", metrics: ["requests"]).count == killedAt + 1)
            #expect(recorded.points("api", metrics: ["cpu"]).isEmpty)
        }
    }

    /// Nothing goes on from before the machine was started, or from a stack that was asked to stop; and no line stops the others.
    @Test func whatDoesNotGoOn() throws {
        try Self.withStackFolder { folder in
            let file = StackJournal.File.scaling.path(in: folder)
            func past(_ lines: [ScalingLine], _ more: String = "") throws -> (RecordedScaling.Past?, Int) {
                try Files.replace(file, with: lines.flatMap(\.bytes) + Array(more.utf8))
                let recorded = try RecordedScaling(folder)
                return (recorded.pasts["web"], recorded.skipped)
            }
            let size = ScalingLine(service: "web", held: 5, .size(5)), ended = ScalingLine(service: "", held: nil, .ended)
            #expect(try past([size]).0?.held == 5)
            #expect(try past([size, ended]).0 == nil && past([ended, size]).0?.size == 5)
            let other = ScalingLine(stamp: LineStamp(boot: "other", at: .now), service: "web", held: nil, .size(7))
            #expect(try past([other]).0 == nil && past([other, size]).0?.size == 5 && past([size, other]).0 == nil)
            let ahead = ScalingLine(stamp: LineStamp(at: .now + .seconds(1000)), service: "web", held: nil, .size(7))
            #expect(try past([ahead]).0 == nil)
            let line = String(decoding: size.bytes, as: UTF8.self)
            let odd = [
                "\"size\":5,": "\"size\":99999999999999999999,", "\"size\":5": "\"size\":-1", "\"held\":5": "\"held\":1e9",
                "\"v\":1": "\"v\":2", "\"service\":\"web\"": "\"service\":7", "\"mono_ns\":": "\"mono_ns\":9223372036854775808,\"x\":",
            ]
            for (a, b) in odd where line.contains(a) {
                let (found, skipped) = try past([size], line.replacing(a, with: b) + "\u{0}\u{ff}{{{\n")
                #expect(found?.size == 5 && skipped == 2, "\(b)")
            }
            // A pass with numbers that cannot be.
            var world = try World(size: 2, now: .now + .seconds(-10))
            world.second(20)
            let pass = String(decoding: world.lines, as: UTF8.self)
            #expect(pass.contains("\"wanted\":["), "\(pass)")
            for number in ["9223372036854775807", "-5", "1.5", "1e400"] {
                let text = pass.replacing("\"wanted\":[", with: "\"wanted\":[\(number),")
                try Files.replace(file, with: Array(text.utf8))
                #expect(try RecordedScaling(folder).skipped == 1, "\(number)")
            }
        }
    }

    /// The writer's lines are the reader's: an overload wants more than there can be.
    @Test func anOverloadIsNoDamage() throws {
        let most = Int(Int32.max), document = JSONDocument()
        let point = ScalingTimeline.Point(
            at: WallTime(milliseconds: 1_764_547_200_000), replicas: 2, serving: 1, raw: most, outcome: 20, measured: [most, nil],
            demand: [nil, most])
        let line = ScalingLine(
            service: "web", held: nil, .pass(point, metrics: ["cpu", "requests"], learned: .init(wanted: [most], added: 18, removed: 0)))
        guard case .pass(let read, _, let learned)? = ScalingLine(line.bytes.dropLast(), document)?.event else {
            Issue.record("\(String(decoding: line.bytes, as: UTF8.self))")
            return
        }
        #expect(read == point && learned.wanted == [most])
        let beyond = String(decoding: line.bytes, as: UTF8.self).replacing("\"raw\":\(most)", with: "\"raw\":\(most + 1)")
        #expect(ScalingLine(Array(beyond.utf8)[...].dropLast(), document) == nil)
    }

    /// What somebody has set outlives any number of other services' passes, and ends with the stack, also where the end is not read.
    @Test func aSizeIsNotPushedOut() throws {
        try Self.withStackFolder { folder in
            let thread = try EventLoop.start(name: "journal")
            defer { thread.stop() }
            func wait() {
                let isOver = Flag()
                thread.execute { isOver.set() }
                isOver.wait()
            }
            let file = StackJournal.File.scaling.path(in: folder), limits: [StackJournal.File: Int] = [.scaling: 30_000]
            func write(_ lines: [ScalingLine]) {
                let writer = StackJournal(folder, thread: thread, limits: limits) { _ in }
                for line in lines {
                    writer.take(line)
                    wait()
                }
            }
            let point = ScalingTimeline.Point(
                at: .now, replicas: 2, serving: 2, raw: 2, outcome: 2, measured: [Int?](repeating: 7, count: 20), demand: [])
            let passes = (0..<500).map { _ in
                ScalingLine(service: "api", held: nil, .pass(point, metrics: ["cpu"], learned: .init(wanted: [2], added: 0, removed: 0)))
            }
            write([ScalingLine(service: "web", held: 5, .size(5))] + passes)
            #expect(try Files.size(file) <= 30_000 && Files.exists(file + ".1"))
            for limit in [1000, 1 << 20] {
                let recorded = try RecordedScaling(folder, limit: limit)
                #expect(
                    recorded.pasts["web"]?.size == 5 && recorded.pasts["web"]?.held == 5 && recorded.pasts["web"]?.learned.isEmpty == true)
                #expect(recorded.pasts["api"]?.size == 2 && recorded.skipped == 0)
                let isAll = limit > 60_000
                #expect((recorded.pasts["api"]?.learned.count ?? 0) > (isAll ? 100 : 0))
            }
            // Freed, it is so again; and what ended is not there, although the end itself is not read any more.
            write([ScalingLine(service: "web", held: nil, .size(4))])
            #expect(try RecordedScaling(folder).pasts["web"]?.held == nil && RecordedScaling(folder).pasts["web"]?.size == 4)
            write([ScalingLine(service: "", held: nil, .ended)])
            #expect(try RecordedScaling(folder, limit: 1000).pasts.isEmpty)
            write(Array(passes.prefix(50)))
            let after = try RecordedScaling(folder, limit: 1000)
            #expect(Array(after.pasts.keys) == ["api"])
            // Of another start of the machine nothing goes on; without the file the passes say what they can.
            let sizes = "\(folder.journal)/sizes.jsonl"
            let other = ScalingLine(stamp: LineStamp(boot: "other", at: .now), service: "web", held: 5, .size(5))
            try Files.replace(sizes, with: other.bytes)
            #expect(try RecordedScaling(folder).pasts.isEmpty)
            Files.remove(sizes)
            #expect(try RecordedScaling(folder).pasts["api"]?.size == 2)
        }
    }

    private static func service(_ name: String, _ replicas: ClosedRange<Int>) throws -> ServiceSpec {
        let range = "\(replicas.lowerBound)..\(replicas.upperBound)", scale = "{ metrics: [{ cpu: 50% }] }"
        let text = "services: { \(name): { command: x, replicas: \(range), resources: { cpu: 1, memory: 1Mi }, scale: \(scale) } }"
        return try #require(try Stack.read(Array(text.utf8), path: "s.yaml").service(name))
    }

    /// What somebody asked for before the autoscalers run is held when they begin, unless it was freed or cannot be.
    @Test func whatWasAskedForBeforeTheAutoscalersRun() throws {
        let app = try Self.service("app", 1...8)
        func begin(_ counts: [String: Int], _ past: RecordedScaling.Past? = nil, isRestart: Bool = false) -> AskedSizes {
            AskedSizes([app], counts: counts, pasts: past.map { ["app": $0] } ?? [:], isRestart: isRestart)
        }
        var asked = begin([:])
        #expect(asked.held.isEmpty && asked.begin == ["app": 1])
        // While the stack is starting: set, and freed again.
        _ = asked.set("app", 5, from: 1, now: .now)
        #expect(asked.held == ["app": 5])
        _ = asked.set("app", nil, from: 5, now: .now)
        #expect(asked.held.isEmpty)
        asked = begin(["app": 5])
        #expect(asked.held == ["app": 5] && asked.begin == ["app": 5] && asked.recalled.isEmpty)
        let record = asked.set("app", nil, from: 5, now: .now)
        #expect(asked.held.isEmpty && record.sentence.contains("belongs to the autoscaler again"))
        // What was left: the record is later than the words that a supervisor begins with again.
        #expect(begin(["app": 5], .init(size: 3, held: nil), isRestart: true).held.isEmpty)
        #expect(begin(["app": 5], .init(size: 3, held: 3), isRestart: false).held == ["app": 5])
        let recalled = begin([:], .init(size: 4, held: 4))
        #expect(recalled.held == ["app": 4] && recalled.begin == ["app": 4] && recalled.recalled == ["app"])
        // The range is another one now: neither held at what is refused, nor silent about it.
        let refused = begin([:], .init(size: 10, held: 10))
        #expect(refused.held.isEmpty && refused.begin == ["app": 1])
        #expect(refused.refusals == ["app is not held at 10 replicas, which somebody had asked for: app is declared with 1..8 replicas"])
    }

    /// Forty thousand decisions from four threads: the files stay within their bounds, the decisions that matter stay, and nobody waits.
    @Test func aFloodStaysWithinTheBound() throws {
        try Self.withStackFolder { folder in
            let thread = try EventLoop.start(name: "journal"), told = Mutex<[String]>([])
            defer { thread.stop() }
            let limits: [StackJournal.File: Int] = [.decisions: 20_000, .samples: 10_000, .scaling: 10_000]
            let writer = StackJournal(folder, thread: thread, limits: limits) { line in told.withLock { $0.append(line) } }
            let journal = Journal { writer.take($0) }
            func record(_ kind: DecisionRecord.Kind, _ text: String) -> DecisionRecord {
                DecisionRecord(kind, subject: "web", raw: "1", outcome: "1", sentence: text, flip: "nothing")
            }
            journal.append(record(.roll, "the first"))
            let threads = try (0..<4).map { try EventLoop.start(name: "t\($0)") }
            let done = Atomic<Int>(0)
            for one in threads {
                one.execute {
                    for i in 0..<10_000 {
                        journal.append(
                            DecisionRecord(.retry, subject: "web/\(i % 9)", raw: "r", outcome: "o", sentence: "A try failed.", flip: "f"))
                    }
                    done.add(1, ordering: .releasing)
                }
            }
            while done.load(ordering: .acquiring) < 4 { usleep(1000) }
            for one in threads { one.stop() }
            // Once more when the thread has caught up: then nothing of it is lost any more.
            let isOver = Flag()
            thread.execute { isOver.set() }
            isOver.wait()
            journal.append(record(.roll, "the last"))
            let isWritten = Flag()
            thread.execute { isWritten.set() }
            isWritten.wait()
            for file in StackJournal.File.allCases {
                for path in [file.path(in: folder), file.path(in: folder) + ".1"] where Files.exists(path) {
                    #expect(try Files.size(path) <= limits[file]!, "\(path)")
                }
            }
            let recorded = try RecordedJournal(folder)
            let sentences = recorded.decisions.filter { $0.entry.record.kind == .roll }.map(\.entry.record.sentence)
            #expect(sentences == ["the first", "the last"])
            #expect(recorded.decisions.count > 20)
        }
    }

    private final class Flag: Sendable {
        private let value = Atomic<Bool>(false)
        func set() { value.store(true, ordering: .releasing) }
        func wait() { while !value.load(ordering: .acquiring) { usleep(500) } }
    }
}
