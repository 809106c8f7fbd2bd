import Basics
import EventLoops
import Gateway
import HTTP
import Observability
import StackFile
import StackModel
import TestSupport

/// A gateway of one test, with its prober and what it counted and decided.
struct LiveGateway {
    let gateway: Gateway
    let prober: Prober
    let client: HTTPClient
    let port: UInt16

    func send(_ method: String = "GET", _ target: String = "/", headers: [(String, String)] = [], body: [UInt8]? = nil) async throws
        -> HTTPClientResponse
    {
        try await client.send(method, target, to: .address(.loopback(port: port)), headers: headers, body: body, timeout: .seconds(20))
    }

    func statuses(_ count: Int, _ method: String = "GET") async throws -> [Int] {
        var all: [Int] = []
        for _ in 0..<count { all.append(try await send(method).status) }
        return all
    }

    /// Who answered, one request after the other.
    func served(_ count: Int) async throws -> [String] {
        var all: [String] = []
        for _ in 0..<count { all.append(try await send().header("x-backend") ?? "") }
        return all
    }

    var replicas: [Replica] { gateway.routes[0].replicas }
    var states: [String] { replicas.map(\.state) }
    var inFlight: Int { replicas.reduce(0) { $0 + $1.inFlight } }
    func records(_ kind: DecisionRecord.Kind) -> [DecisionRecord] { gateway.journal.entries().map(\.record).filter { $0.kind == kind } }

    /// The value of a line of the metrics page.
    func metric(_ name: String) -> Double? {
        for line in gateway.metrics.render().split(separator: "\n") where line.hasPrefix(name + " ") {
            return Double(line.dropFirst(name.count + 1))
        }
        return nil
    }
}

/// `route` is one line of YAML; `more` are keys of the gateway itself.
func withLive(_ route: String, threads: Int = 1, more: [String] = [], _ body: (LiveGateway) async throws -> Void) async throws {
    try await withLoop { loop in
        let lines =
            ["gateway:", "  listen: 127.0.0.1:1", "  threads: \(threads)"] + more.map { "  " + $0 } + ["  routes:", "    - \(route)"]
        let spec = try Stack.read(Array(lines.joined(separator: "\n").utf8), path: "test.yaml").gateway!
        let logger = Logger(level: .error, format: .text, descriptor: 2, immediate: true)
        let gateway = try Gateway(spec, metrics: MetricsRegistry(), journal: Journal(), logger: logger, accessLog: -1)
        try await gateway.apply(spec) { _ in [] }
        try await gateway.listen(on: .loopback(port: 0))
        let prober = Prober(gateway: gateway, loop: loop)
        let client = HTTPClient(loop: loop)
        let live = LiveGateway(gateway: gateway, prober: prober, client: client, port: gateway.address!.port!)
        let result: Result<Void, any Error>
        do { result = .success(try await body(live)) } catch { result = .failure(error) }
        client.close()
        _ = await gateway.drain(grace: .milliseconds(50))
        // Its probes end when there is nothing left to probe.
        let empty = try Stack.read(Array("gateway:\n  listen: 1\n  routes: [{ path: /, answer: { status: 503 } }]".utf8), path: "t")
            .gateway!
        try await gateway.apply(empty) { _ in [] }
        gateway.stop()
        try result.get()
    }
}

/// A backend that answers each request with its name and what `answer` says: status and body.
func withNamed(_ name: String, answer: @escaping @Sendable () -> (Int, String) = { (200, "ok") }, _ body: (UInt16) async throws -> Void)
    async throws
{
    var router = Router()
    for method in ["GET", "POST", "HEAD"] {
        router.add(method, "/") { request, _ in
            let (status, text) = answer()
            return HTTPResponse(status: status, headers: [("X-Backend", name)], body: .bytes(Array(text.utf8)))
        }
    }
    try await withLoop { loop in try await withServer(loop, router) { try await body($0.testPort) } }
}

extension LiveGateway {
    /// As SIGHUP does it.
    func reload(_ route: String) async throws {
        let spec = try Stack.read(Array("gateway:\n  listen: 127.0.0.1:1\n  routes:\n    - \(route)".utf8), path: "test.yaml").gateway!
        try await gateway.apply(spec) { _ in [] }
        prober.follow()
    }
}
