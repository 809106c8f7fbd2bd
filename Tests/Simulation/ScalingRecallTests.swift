import Autoscaling
import Basics
import EventLoops
import Glibc
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
