import Basics
import EventLoops
import HTTP
import Observability
import OpenTelemetry
import ProtobufCoding
import TestSupport
import Testing

@testable import CorrelationEngine

/// Exports to a peer that misbehaves in every way that it can.
@Suite struct ExporterTests {
    private struct Rig: Sendable {
        let store: MemoryCorrelationStore
        let metrics: MetricsRegistry
        let exporter: LoopBound<Exporter>

        func counter(_ outcome: String) -> Int {
            let line = metrics.render().split(separator: "\n").first {
                $0.hasPrefix("correlation_exports_total{target=\"loki\",outcome=\"\(outcome)\"}")
            }
            return line.flatMap { Int($0.split(separator: " ").last ?? "") } ?? -1
        }

        func ingest(_ ids: Range<Int>) async throws {
            for id in ids {
                var builder = DeliveryBuilder()
                var log = ProtobufWriter()
                log.fixed64(OTLP.Field.logTime, UInt64(WallTime.now.milliseconds) * 1_000_000)
                log.attribute(OTLP.Field.logAttributes, "log.record.uid", "log-\(id)-")
                log.bytes.withUnsafeBytes { record in
                    builder.add(
                        .trace("trace-\(id)"), Marks.kind(log: .info), hash: UInt64(id), record: record, isSpan: false,
                        around: OTLP.Surroundings(
                            resource: .init(start: nil, count: 0), scope: .init(start: nil, count: 0), resourceNumber: 0, scopeNumber: 0))
                }
                _ = try await store.ingest(builder.delivery)
            }
            try await Task.sleep(for: .milliseconds(5))
            _ = try await store.settle()
        }
    }

    private func withRig(_ url: String, _ loop: EventLoop, _ body: (Rig) async throws -> Void) async throws {
        var rule = CompletionRule()
        rule.quiet = .zero
        var limits = ExportLimits()
        limits.correlations = 16
        let store = MemoryCorrelationStore(lifetime: .seconds(60), rule: rule, targets: [.loki], exports: limits)
        let metrics = MetricsRegistry()
        let target = try required(ExportURL(url, path: LokiFormat.path))
        let settings = limits
        let exporter = try await loop.run {
            LoopBound(
                Exporter(
                    target: .loki, url: target, queue: store.exports(.loki), limits: settings, loop: loop, metrics: metrics,
                    logger: Logger(level: .error, format: .text),
                    journal: Journal()), on: loop)
        }
        // Ends with `stop` below.
        let running = Task(executorPreference: loop) { await exporter.value.run() }
        let result: Result<Void, any Error>
        do { result = .success(try await body(Rig(store: store, metrics: metrics, exporter: exporter))) } catch { result = .failure(error) }
        try await loop.run { exporter.value.stop {} }
        await running.value
        try result.get()
    }

    static let behaviours: [[Receiver.Behaviour]] = [
        [], [.status(500), .status(503)], [.status(429, retryAfter: 1)], [.dies, .dies], [.slow(.milliseconds(400))],
        [.status(408), .dies, .status(502)],
    ]

    @Test(arguments: behaviours.indices) func everythingArrivesOnceThroughFaultsOfThePeer(number: Int) async throws {
        try await withLoop { loop in
            let receiver = Receiver()
            receiver.script.withLock { $0 = Self.behaviours[number] }
            try await withServer(loop, receiver.router(loop)) { peer in
                try await withRig("http://\(peer)", loop) { rig in
                    try await rig.ingest(0..<50)
                    let all = try await eventually(.seconds(20)) { try receiver.arrived().logs.count == 50 }
                    let arrived = try receiver.arrived().logs
                    #expect(all, "\(arrived.count)")
                    #expect(arrived.values.allSatisfy { $0 == 1 })
                    let quiet = try await eventually { try await rig.store.exports(.loki).depth() == 0 }
                    #expect(quiet && rig.counter("sent") == 50 && rig.counter("rejected") == 0 && rig.counter("dropped") == 0)
                    let faults = Self.behaviours[number].filter { if case .slow = $0 { false } else { true } }.count
                    #expect((rig.counter("retried") > 0) == (faults > 0))
                }
            }
        }
    }

    @Test func aTargetThatIsAwayOpensTheBreakerAndNothingIsLost() async throws {
        try await withLoop { loop in
            let port = TestPorts.server()
            try await withRig("http://127.0.0.1:\(port)", loop) { rig in
                try await rig.ingest(0..<20)
                let opened = try await eventually(.seconds(20)) { try await loop.run { rig.exporter.value.breaker.state == .open } }
                #expect(opened)
                // The queue has it all, and it shows.
                let shown = await eventually { rig.metrics.render().contains("correlation_export_queue_depth{target=\"loki\"} 2") }
                #expect(shown)
                #expect(rig.metrics.render().contains("correlation_export_breaker{target=\"loki\"} 2"))
                #expect(rig.counter("sent") == 0 && rig.counter("dropped") == 0)
            }
        }
    }

    @Test func theOneThatIsRefusedIsFoundAndTheOthersGoThrough() async throws {
        try await withLoop { loop in
            let receiver = Receiver()
            receiver.poison.withLock { $0 = "log-13-" }
            try await withServer(loop, receiver.router(loop)) { peer in
                try await withRig("http://\(peer)", loop) { rig in
                    try await rig.ingest(0..<40)
                    #expect(try await eventually(.seconds(20)) { try receiver.arrived().logs.count == 39 })
                    let counted = await eventually { rig.counter("rejected") == 1 && rig.counter("sent") == 39 }
                    #expect(counted)
                    #expect(try receiver.arrived().logs.values.allSatisfy { $0 == 1 })
                }
            }
        }
    }

    /// What arrived of a batch before the target failed is not sent again.
    @Test func theHalfThatArrivedIsNotSentAgain() async throws {
        try await withLoop { loop in
            let receiver = Receiver()
            // The whole is refused, the first half goes through, the second meets a failure.
            receiver.script.withLock { $0 = [.status(413), .slow(.milliseconds(1)), .status(503)] }
            try await withServer(loop, receiver.router(loop)) { peer in
                try await withRig("http://\(peer)", loop) { rig in
                    try await rig.ingest(0..<16)
                    #expect(try await eventually(.seconds(20)) { try receiver.arrived().logs.count == 16 })
                    let arrived = try receiver.arrived().logs
                    #expect(arrived.values.allSatisfy { $0 == 1 } && rig.counter("sent") == 16, "\(arrived)")
                }
            }
        }
    }

    /// A wrong path or missing rights may be mended: nothing is given up for them.
    @Test(arguments: [301, 401, 403, 404]) func whatMayBeMendedIsWaitedFor(status: Int) async throws {
        try await withLoop { loop in
            let receiver = Receiver()
            receiver.script.withLock { $0 = [.status(status), .status(status)] }
            try await withServer(loop, receiver.router(loop)) { peer in
                try await withRig("http://\(peer)", loop) { rig in
                    try await rig.ingest(0..<5)
                    #expect(try await eventually(.seconds(20)) { try receiver.arrived().logs.count == 5 })
                    #expect(rig.counter("rejected") == 0)
                }
            }
        }
    }

    @Test func urls() {
        #expect(ExportURL("http://loki:3100", path: "/p")?.path == "/p" && ExportURL("http://loki/x/y", path: "/p")?.path == "/x/y")
        for wrong in ["loki:3100", "https://loki", "http://user:secret@loki", "http://", ""] {
            #expect(ExportURL(wrong, path: "/p") == nil, "\(wrong)")
        }
    }
}
