import Basics
import CLinux
import Glibc
import Synchronization
import Testing

@testable import Observability

@Suite struct MetricsTests {
    @Test func rendersEveryKindInPrometheusForm() {
        let registry = MetricsRegistry()
        registry.counter("jobs_total", "Jobs.", labels: [("kind", "a\"b\\c\nd")]).add(3)
        registry.gauge("depth", "Depth.").set(7)
        registry.gauge("share", "Share.") { 0.5 }
        let histogram = registry.histogram("time_seconds", "Time.", bounds: [.milliseconds(1), .milliseconds(10)])
        histogram.observe(.milliseconds(1))
        histogram.observe(.milliseconds(5))
        histogram.observe(.seconds(1))
        #expect(
            registry.render() == """
                # HELP depth Depth.
                # TYPE depth gauge
                depth 7
                # HELP jobs_total Jobs.
                # TYPE jobs_total counter
                jobs_total{kind="a\\"b\\\\c\\nd"} 3
                # HELP share Share.
                # TYPE share gauge
                share 0.5
                # HELP time_seconds Time.
                # TYPE time_seconds histogram
                time_seconds_bucket{le="0.001"} 1
                time_seconds_bucket{le="0.01"} 2
                time_seconds_bucket{le="+Inf"} 3
                time_seconds_sum 1.006
                time_seconds_count 3

                """)
    }

    @Test func theSameNameAndLabelsAreTheSameSeries() {
        let registry = MetricsRegistry()
        registry.counter("a_total", "A.", labels: [("x", "1")]).add()
        registry.counter("a_total", "A.", labels: [("x", "1")]).add()
        #expect(registry.counter("a_total", "A.", labels: [("x", "1")]).current == 2)
    }

    @Test func labelsFromOutsideCannotExhaustTheMemory() {
        let registry = MetricsRegistry()
        for i in 0..<MetricsRegistry.seriesLimit + 500 { registry.counter("a_total", "A.", labels: [("x", String(i))]).add() }
        #expect(registry.counter("a_total", "A.", labels: [("x", "never seen")]).current == 500)
        #expect(registry.render().contains(#"a_total{overflow="true"} 500"#))
    }

    @Test func quantilesInterpolate() {
        let histogram = MetricsRegistry().histogram("t_seconds", "T.", bounds: [.milliseconds(10), .milliseconds(20)])
        #expect(histogram.quantile(0.5) == nil)
        for _ in 0..<100 { histogram.observe(.milliseconds(15)) }
        #expect(histogram.quantile(0.5) == .milliseconds(15))
        histogram.observe(.seconds(9))
        #expect(histogram.quantile(1) == .milliseconds(20))
    }

    /// Counting must not allocate: it stands on every request's path.
    @Test func countingDoesNotAllocate() {
        let counter = MetricsRegistry().counter("a_total", "A.")
        let histogram = MetricsRegistry().histogram("t_seconds", "T.")
        counter.add()
        histogram.observe(nanoseconds: 5)
        var least = Int.max
        for _ in 0..<5 {
            let before = muster_allocated()
            for i in 0..<100_000 {
                counter.add()
                histogram.observe(nanoseconds: Int64(i))
            }
            least = min(least, Int(muster_allocated()) - Int(before))
        }
        // Other tests allocate meanwhile, but not each time: a leak of even 8 bytes a call would be 1.6 MB.
        #expect(least < 800_000)
        #expect(counter.current == 500_001)
    }
}

@Suite struct LoggerTests {
    private func written(_ format: Logger.Format, _ body: (Logger) -> Void) -> String {
        var ends: [Int32] = [0, 0]
        pipe(&ends)
        let logger = Logger(level: .info, format: format, descriptor: ends[1])
        body(logger)
        logger.finish()
        close(ends[1])
        var bytes = [UInt8](repeating: 0, count: 65536)
        let got = read(ends[0], &bytes, bytes.count)
        close(ends[0])
        return String(decoding: bytes[..<max(got, 0)], as: UTF8.self)
    }

    @Test func textHasTheDocumentsForm() {
        let text = written(.text) { $0.info("redis_connected", .init("url", redacted(url: "redis://:secret@127.0.0.1:6379"))) }
        #expect(text == "INFO  | redis_connected | url=redis://:***@127.0.0.1:6379\n")
    }

    @Test func aValueFromOutsideCannotForgeALine() {
        let text = written(.text) { $0.warning("bad", .init("value", "x\nERROR | forged | a=\"b\"")) }
        #expect(text.split(separator: "\n").count == 1)
        #expect(text.contains("\\x0a"))
    }

    @Test func jsonIsOneObjectALine() {
        let text = written(.json) { $0.error("failed", .init("reason", "a \"quoted\"\nreason")) }
        #expect(text.hasSuffix("\"level\":\"error\",\"event\":\"failed\",\"reason\":\"a \\\"quoted\\\"\\nreason\"}\n"))
    }

    @Test func belowItsLevelItIsSilent() { #expect(written(.text) { $0.debug("quiet") } == "") }

    @Test(arguments: [
        ("redis://:p@h:1/0", "redis://:***@h:1/0"), ("redis://u:p@h", "redis://u:***@h"), ("redis://h:1", "redis://h:1"),
        ("nothing", "nothing"),
        ("redis://:p@ss@h", "redis://:***@h"), ("redis://:pa/ss@h:1/0", "redis://:***@h:1/0"), ("redis://u:a?b#c/d@h", "redis://u:***@h"),
        ("redis+cluster://:pa/ss@h:1,i:2", "redis+cluster://:***@h:1,i:2"), ("redis://token@h", "redis://***@h"),
        ("http://u:pa/ss@h/loki", "http://u:***@h/loki"),
    ])
    func passwordsAreNeverShown(url: String, shown: String) { #expect(redacted(url: url) == shown) }
}

@Suite struct JournalTests {
    /// Failed tries and limits that move may come by the second: they push out their own kind only.
    @Test(arguments: [DecisionRecord.Kind.retry, .limit, .route]) func frequentKindsPushNothingElseOut(kind: DecisionRecord.Kind) {
        let journal = Journal(capacity: 100)
        journal.append(record(0))
        for i in 0..<10_000 {
            journal.append(DecisionRecord(kind, subject: "a", raw: "\(i)", outcome: "o", sentence: "s", flip: "f"))
        }
        let kept = journal.entries().map(\.record)
        #expect(kept.count == 26 && kept.contains { $0.kind == .scale } && kept.last?.raw == "9999")
    }

    private func record(_ i: Int) -> DecisionRecord {
        DecisionRecord(.scale, subject: i % 2 == 0 ? "a" : "b/1", raw: "\(i)", outcome: "\(i)", sentence: "s\(i)", flip: "f")
    }

    @Test func keepsTheLatestInOrder() {
        let journal = Journal(capacity: 5)
        for i in 0..<12 { journal.append(record(i)) }
        #expect(journal.entries().map(\.record.raw) == ["7", "8", "9", "10", "11"])
        #expect(journal.dropped == 7)
        #expect(journal.entries(subject: "b").map(\.record.raw) == ["7", "9", "11"])
    }

    /// Samples of routing come by the second; what was decided stays, and all is told in its order.
    @Test func samplesOfRoutingPushNothingElseOut() {
        let journal = Journal(capacity: 8)
        journal.append(record(0))
        for i in 1..<100 { journal.append(DecisionRecord(.route, subject: "a", raw: "\(i)", outcome: "", sentence: "", flip: "")) }
        journal.append(record(100))
        #expect(journal.entries().map(\.record.raw) == ["0", "98", "99", "100"])
    }
}

/// A log that nobody reads: no caller waits, lines are dropped whole, counted and told.
@Suite struct LogSinkTests {
    private final class Told: Sendable {
        let all = Mutex<[String]>([])
        func note(_ trouble: LogSink.Trouble) {
            all.withLock {
                switch trouble {
                case .began(let why): $0.append("began: \(why)")
                case .ended(let lines): $0.append("ended: \(lines)")
                }
            }
        }
    }

    private func pipeEnds() -> (read: Int32, write: Int32) {
        var ends: [Int32] = [0, 0]
        pipe(&ends)
        return (ends[0], ends[1])
    }

    private func give(_ sink: LogSink, _ lines: Int, width: Int = 100) {
        for i in 0..<lines {
            let line = Array("\(i) \(String(repeating: "a", count: width))\n".utf8)
            line.withUnsafeBytes { sink.write($0, lines: 1) }
        }
    }

    @Test func aReaderThatHasStoppedHoldsNobodyUp() {
        let ends = pipeEnds(), told = Told()
        let sink = LogSink(descriptor: ends.write, limit: 100_000) { _, trouble in told.note(trouble) }
        let began = MonotonicTime.now
        give(sink, 5000)
        sink.finish()
        #expect(MonotonicTime.now - began < .seconds(3))
        #expect(sink.dropped > 1000 && told.all.withLock { $0.count } == 1)
        // What was taken comes whole and in order once somebody reads.
        var text: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while text.count(where: { $0 == 10 }) < 5000 - sink.dropped {
            let got = read(ends.read, &chunk, chunk.count)
            if got <= 0 { break }
            text += chunk[..<got]
        }
        let numbers = String(decoding: text, as: UTF8.self).split(separator: "\n").map { line in
            line.utf8.count >= 100 ? line.split(separator: " ").first.flatMap { Int($0) } ?? -1 : -1
        }
        #expect(numbers.count == 5000 - sink.dropped && numbers == numbers.sorted() && !numbers.contains(-1))
        close(ends.read)
        close(ends.write)
    }

    /// The test's process would end by the signal if the sink let it through.
    @Test func aReaderThatIsGoneIsTold() {
        let ends = pipeEnds(), told = Told()
        close(ends.read)
        let sink = LogSink(descriptor: ends.write) { _, trouble in told.note(trouble) }
        give(sink, 10)
        sink.finish()
        #expect(sink.dropped == 10 && told.all.withLock { $0 } == ["began: Broken pipe"])
        close(ends.write)
    }

    @Test func aFullDiskIsTold() {
        let full = open("/dev/full", O_WRONLY), told = Told()
        let sink = LogSink(descriptor: full) { _, trouble in told.note(trouble) }
        for _ in 0..<3 {
            give(sink, 5)
            sink.finish()
        }
        #expect(sink.dropped == 15 && told.all.withLock { $0 } == ["began: No space left on device"])
        close(full)
    }

    /// The log itself says that lines are missing, once none was lost for a while, and also when no further line comes.
    @Test func theLogTellsWhatIsMissing() async throws {
        let ends = pipeEnds()
        let full = open("/dev/full", O_WRONLY)
        let target = dup(full)
        let logger = Logger(level: .info, format: .text, descriptor: target, immediate: true)
        for _ in 0..<3 { logger.info("lost") }
        logger.finish()
        #expect(logger.dropped == 3)
        dup2(ends.write, target)
        var chunk = [UInt8](repeating: 0, count: 4096), one = pollfd(fd: ends.read, events: Int16(POLLIN), revents: 0)
        #expect(poll(&one, 1, 8_000) == 1)
        let got = read(ends.read, &chunk, chunk.count)
        #expect(String(decoding: chunk[..<max(got, 0)], as: UTF8.self) == "WARN  | log_lines_dropped | lines=3\n")
        logger.info("again")
        logger.finish()
        let more = read(ends.read, &chunk, chunk.count)
        #expect(String(decoding: chunk[..<max(more, 0)], as: UTF8.self) == "INFO  | again\n")
        for fd in [ends.read, ends.write, full, target] { close(fd) }
    }
}
