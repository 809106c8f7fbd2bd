import Basics
import EventLoops
import Gateway
import Glibc
import HTTP
import JSONCoding
import Observability
import StackFile
import StackModel
import Synchronization
import TestSupport

/// A gateway before a service that sleeps: it has no replica until `publish`.
struct WakingGateway {
    let gateway: Gateway
    let client: HTTPClient
    let port: UInt16
    /// The services that the gateway wanted, call by call.
    let demands: Demands

    final class Demands: Sendable {
        private let all = Mutex<[String]>([])
        var told: [String] { all.withLock { $0 } }
        func add(_ service: String) { all.withLock { $0.append(service) } }
    }

    /// A route to `web`, which may end for want of requests, and `plain`, which may not.
    static func spec(_ routes: [String], threads: Int = 1, keys: [String] = []) throws -> GatewaySpec {
        let lines =
            [
                "services:", "  web:", "    command: web", "    replicas: 0..3", "    http: {}", "    start: 10m",
                "    scale: { idle: 10m, metrics: { concurrency: 10 } }", "  plain:",
                "    command: plain", "    http: {}", "gateway:", "  listen: 127.0.0.1:1", "  threads: \(threads)",
            ] + keys.map { "  " + $0 } + ["  routes:", "    - { path: /needed, service: web }"] + routes.map { "    - " + $0 }
        return try Stack.read(Array(lines.joined(separator: "\n").utf8), path: "test.yaml").gateway!
    }

    static func replica(_ port: UInt16, _ number: Int = 1) -> Replica {
        Replica(name: "web/\(number)", endpoint: .address(.loopback(port: port)), isNew: true)
    }

    /// As the supervisor does when replicas come and go, or when the stack file changes.
    func publish(_ replicas: [Replica], _ routes: String...) async throws {
        try await gateway.apply(try WakingGateway.spec(routes)) { $0 == "web" ? replicas : [] }
    }

    func send(_ method: String = "GET", _ target: String = "/", headers: [(String, String)] = [], body: [UInt8]? = nil) async throws
        -> HTTPClientResponse
    {
        try await client.send(method, target, to: .address(.loopback(port: port)), headers: headers, body: body, timeout: .seconds(20))
    }

    /// A client that has sent a request and reads nothing yet.
    func ask(_ target: String = "/", _ more: String = "") throws -> RawPeer {
        let peer = try RawPeer(port: port)
        peer.send("GET \(target) HTTP/1.1\r\nHost: a\r\n\(more)\r\n")
        return peer
    }

    func areHeld(_ count: Int) async -> Bool { await eventually { metric("gateway_held_requests{route=\"/\"}") == Double(count) } }

    /// How many waits of `/` ended so.
    func ended(_ outcome: String) -> Int { Int(metric("gateway_held_total{route=\"/\",outcome=\"\(outcome)\"}") ?? -1) }

    func metric(_ name: String) -> Double? {
        for line in gateway.metrics.render().split(separator: "\n") where line.hasPrefix(name + " ") {
            return Double(line.dropFirst(name.count + 1))
        }
        return nil
    }

    var records: [DecisionRecord] { gateway.journal.entries().map(\.record).filter { $0.outcome == "held" } }
}

func withWaking(
    _ route: String = "{ path: /, service: web }", threads: Int = 1, keys: [String] = [], accessLog: Int32 = -1,
    _ body: (WakingGateway) async throws -> Void
) async throws {
    try await withLoop { loop in
        let spec = try WakingGateway.spec([route], threads: threads, keys: keys)
        let logger = Logger(level: .error, format: .text, descriptor: 2, immediate: true)
        let gateway = try Gateway(spec, metrics: MetricsRegistry(), journal: Journal(), logger: logger, accessLog: accessLog)
        defer { gateway.stop() }
        let demands = WakingGateway.Demands()
        gateway.onDemand = { demands.add($0) }
        try await gateway.apply(spec) { _ in [] }
        try await gateway.listen(on: .loopback(port: 0))
        let client = HTTPClient(loop: loop)
        let result: Result<Void, any Error>
        do {
            result = .success(
                try await body(WakingGateway(gateway: gateway, client: client, port: gateway.address!.port!, demands: demands)))
        } catch {
            result = .failure(error)
        }
        client.close()
        _ = await gateway.drain(grace: .milliseconds(100))
        try result.get()
    }
}

/// A backend that answers each request with its path, and remembers them in order. A request stays with it until `mayAnswer`.
final class WokenBackend: Sendable {
    private let paths = Mutex<[String]>([])
    private let open = Atomic<Bool>(true)
    private let underWay = Atomic<Int>(0)
    private let highest = Atomic<Int>(0)

    var seen: [String] { paths.withLock { $0 } }
    /// The most requests that it had at once.
    var mostAtOnce: Int { highest.load(ordering: .relaxed) }
    func mayAnswer(_ may: Bool) { open.store(may, ordering: .releasing) }

    func serve(_ peer: RawPeer) {
        while true {
            let head = peer.head()
            let words = head.split(separator: " ")
            guard head.contains("HTTP/1.1\r\n"), words.count > 1 else { return }
            let path = String(words[1])
            paths.withLock { $0.append(path) }
            let now = underWay.add(1, ordering: .relaxed).newValue
            if now > highest.load(ordering: .relaxed) { highest.store(now, ordering: .relaxed) }
            while !open.load(ordering: .acquiring) { usleep(2000) }
            underWay.subtract(1, ordering: .relaxed)
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: \(path.utf8.count)\r\n\r\n\(path)")
        }
    }
}

func withWoken(_ body: (WokenBackend, UInt16) async throws -> Void) async throws {
    let woken = WokenBackend()
    try await withRaw({ peer, _ in woken.serve(peer) }) { raw in
        try await body(woken, raw.port)
        woken.mayAnswer(true)
    }
}
