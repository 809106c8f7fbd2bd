import Basics
import EventLoops
import Gateway
import Glibc
import HTTP
import Measurement
import Metering
import Observability
import StackFile
import StackModel
import TestSupport
import Testing

/// All meters together: a gateway, two replicas with pages, a process.
@Suite struct ServiceMetersTests {
    private static let stack = """
        services:
          engine:
            command: engine
            http: { port: 8080 }
        gateway:
          listen: 127.0.0.1:1
          routes:
            - { path: /, service: engine }
        """

    private func router(_ depth: Int) -> Router {
        var router = Router()
        router.get("/") { _, _ in .text("hello") }
        router.get("/slow") { _, _ in
            try await Task.sleep(for: .milliseconds(300))
            return .text("slow")
        }
        router.get("/metrics") { _, _ in .text("# TYPE depth gauge\ndepth \(depth)\n", type: "text/plain; version=0.0.4") }
        return router
    }

    @Test func aServiceHasAReadingForAllThatWasAskedFor() async throws {
        try await withLoop { loop in
            try await withServer(loop, router(7)) { one in
                try await withServer(loop, router(9)) { two in try await check(loop, [one, two]) }
            }
        }
    }

    private func check(_ loop: EventLoop, _ endpoints: [Endpoint]) async throws {
        let spec = try Stack.read(Array(Self.stack.utf8), path: "test.yaml").gateway!
        let gateway = try Gateway(
            spec, metrics: MetricsRegistry(), journal: Journal(),
            logger: Logger(level: .error, format: .text, descriptor: 2, immediate: true), accessLog: -1)
        defer { gateway.stop() }
        let replicas = endpoints.enumerated().map { Replica(name: "engine/\($0 + 1)", endpoint: $1) }
        try await gateway.apply(spec) { _ in replicas }
        try await gateway.listen(on: .loopback(port: 0))
        let client = HTTPClient(loop: loop), target = Endpoint.address(gateway.address!)
        var settings = MeterSchedule.Settings()
        settings.period = .milliseconds(200)
        let meters = ServiceMeters(loop: loop, gateway: gateway, metrics: MetricsRegistry(), settings: settings, window: .seconds(30))
        let metrics: [MeteredService.Metric] = [
            .init("cpu", .cpu), .init("mem", .memory), .init("depth", .page(try SampleSelector("depth"))), .init("rps", .requests),
            .init("busy", .concurrency), .init("mean", .latencyMean), .init("p95", .latencyP95),
            .init("lost", .page(try SampleSelector("depth"), path: "/none")),
        ]
        let running = endpoints.enumerated().map { MeteredService.Replica(number: $0 + 1, pid: getpid(), endpoint: $1) }
        meters.follow([MeteredService(name: "engine", metrics: metrics, replicas: running)])
        #expect(meters.readings(of: "engine").count == 18)
        #expect(meters.readings(of: "engine").allSatisfy { $0.figure == nil && $0.fault?.kind == .pending })
        // Ends when it is cancelled, below.
        let task = Task(executorPreference: loop) { await meters.run() }
        func value(_ metric: String, _ replica: Int?) -> Double? {
            meters.readings(of: "engine").first { $0.key.metric == metric && $0.key.replica == replica }?.figure?.value
        }
        #expect(await eventually { value("rps", nil) == 0 })
        for _ in 0..<40 { _ = try await client.send("GET", "/", to: target) }
        #expect(await eventually { (value("rps", nil) ?? 0) > 0 && (value("p95", nil) ?? 0) > 0 && (value("mean", 1) ?? 0) > 0 })
        #expect(value("depth", 1) == 7 && value("depth", 2) == 9)
        let readings = meters.readings(of: "engine")
        let rate = try #require(readings.first { $0.key == MeterKey(service: "engine", metric: "rps") }?.figure)
        #expect(rate.value * rate.window.secondsAsDouble < 40.001)
        #expect(readings.filter { $0.key.metric == "lost" }.allSatisfy { $0.fault?.kind == .refused })
        #expect(try #require(value("p95", nil)) < 10)
        // Both replicas together are the service; all forty were counted.
        let parts = (value("rps", 1) ?? 0) + (value("rps", 2) ?? 0)
        #expect(parts > 0 && replicas.reduce(0) { $0 + $1.answers.current } == 40)
        async let slow = client.send("GET", "/slow", to: target)
        #expect(await eventually { (value("busy", nil) ?? 0) > 0 })
        #expect(try await slow.status == 200)
        meters.follow([MeteredService(name: "engine", metrics: [metrics[2]], replicas: [running[1]])])
        #expect(meters.readings(of: "engine").map(\.figure?.value) == [9])
        task.cancel()
        await task.value
        client.close()
        _ = await gateway.drain(grace: .milliseconds(100))
    }

    /// A route that comes back brings the counts of an earlier time: they are no answers of now.
    @Test func aRouteThatComesBackIsNoBurstOfSlowAnswers() async throws {
        func spec(_ more: String) throws -> GatewaySpec {
            let text = Self.stack + "\n" + more
            return try Stack.read(Array(text.utf8), path: "test.yaml").gateway!
        }
        let slow = "        - { path: /slow, service: engine }".dropFirst(4)
        try await withLoop { loop in
            try await withServer(loop, router(1)) { endpoint in
                let both = try spec(String(slow)), one = try spec("")
                let gateway = try Gateway(
                    both, metrics: MetricsRegistry(), journal: Journal(),
                    logger: Logger(level: .error, format: .text, descriptor: 2, immediate: true), accessLog: -1)
                defer { gateway.stop() }
                let replica = Replica(name: "engine/1", endpoint: endpoint)
                try await gateway.apply(both) { _ in [replica] }
                try await gateway.listen(on: .loopback(port: 0))
                let client = HTTPClient(loop: loop), target = Endpoint.address(gateway.address!)
                let meter = GatewayMeter(gateway: gateway, window: .seconds(3600))
                meter.follow(["engine"])
                for _ in 0..<3 { _ = try await client.send("GET", "/slow", to: target) }
                let key = MeterKey(service: "engine", metric: GatewayMeter.latencyP95)
                var now = MonotonicTime.now
                func p95() throws -> Double? {
                    now = now + .seconds(1)
                    return try? meter.read(at: now)[key]?.get().value
                }
                #expect(try p95() == nil)
                try await gateway.apply(one) { _ in [replica] }
                #expect(try p95() == nil)
                for _ in 0..<10 { _ = try await client.send("GET", "/", to: target) }
                #expect(await eventually { replica.answers.current == 13 })
                let fast = try #require(try p95())
                #expect(fast < 0.25)
                try await gateway.apply(both) { _ in [replica] }
                // What came back says nothing yet. (An answer is counted a moment after its client has it, so it is not `fast` to the digit.)
                #expect(try p95().map { $0 < 0.25 } == true)
                _ = try await client.send("GET", "/slow", to: target)
                #expect(try await eventually { (try p95() ?? 0) > fast })
                client.close()
                _ = await gateway.drain(grace: .milliseconds(100))
            }
        }
    }
}
