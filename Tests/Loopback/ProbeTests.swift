import EventLoops
import Gateway
import Glibc
import StackFile
import StackModel
import Synchronization
import TestSupport
import Testing

/// What probes ask for, and what they end.
@Suite struct ProbeTests {
    /// Heads of the requests for `/health`; everything else is answered with what `status` says.
    private func withProbed(_ status: @escaping @Sendable () -> Int, _ body: (UInt16, Heads) async throws -> Void) async throws {
        let heads = Heads()
        try await withRaw(
            { fd in
                let head = String(decoding: receiveHead(fd), as: UTF8.self)
                let isProbe = head.hasPrefix("GET /health ")
                if isProbe { heads.add(head) }
                let answer = Array("HTTP/1.1 \(isProbe ? 200 : status()) X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".utf8)
                _ = send(fd, answer, answer.count, Int32(MSG_NOSIGNAL))
            },
            { port, _ in try await body(port, heads) })
    }

    private final class Heads: Sendable {
        private let all = Mutex<[String]>([])
        func add(_ head: String) { all.withLock { $0.append(head) } }
        var seen: [String] { all.withLock { $0 } }
    }

    private func hosts(_ route: String) async throws -> [String] {
        var found: [String] = []
        try await withProbed({ 200 }) { port, heads in
            try await withLive("{ path: /, \(route), backends: [127.0.0.1:\(port)] }") { gateway in
                gateway.prober.follow()
                let isAsked = await eventually { heads.seen.count >= 2 }
                #expect(isAsked)
                found = heads.seen[0].split(separator: "\r\n").filter { $0.hasPrefix("Host:") || $0.hasPrefix("X-") }.map {
                    $0.hasSuffix("127.0.0.1:\(port)") ? "Host: (address)" : String($0)
                }
            }
        }
        return found
    }

    /// Django and its like answer 400 to a host that they do not know.
    @Test func probesNameTheRoutesHost() async throws {
        let probe = "path: /health, interval: 20ms"
        #expect(try await hosts("probe: { \(probe) }") == ["Host: (address)"])
        #expect(try await hosts("probe: { \(probe) }, host: inner.test:81") == ["Host: inner.test:81"])
        #expect(try await hosts("probe: { \(probe) }, hosts: [Shop.test]") == ["Host: shop.test"])
        #expect(try await hosts("probe: { \(probe) }, hosts: [shop.test, \"*.shop.test\"]") == ["Host: shop.test"])
        #expect(try await hosts("probe: { \(probe) }, hosts: [a.test, b.test]") == ["Host: (address)"])
        #expect(try await hosts("probe: { \(probe) }, hosts: [\"*.shop.test\"]") == ["Host: (address)"])
        #expect(
            try await hosts("probe: { \(probe), host: probe.test, headers: { X-Probe: 'yes' } }, host: inner.test")
                == ["Host: probe.test", "X-Probe: yes"])
    }

    /// `rise` good probes in a row end an ejection early; a probe that only connects does not.
    @Test func goodProbesEndAnEjectionEarly() async throws {
        let status = Atomic<Int>(500)
        try await withProbed({ status.load(ordering: .relaxed) }) { port, heads in
            try await withProbed({ 200 }) { good, _ in
                let route = { (probe: String) in
                    "{ path: /, probe: { \(probe) }, eject: { errors: true, failures: 2, for: 1h }, retry: { attempts: 1 }, "
                        + "balance: round-robin, backends: [127.0.0.1:\(port), 127.0.0.1:\(good)] }"
                }
                try await withLive(route("path: /health, interval: 50ms, rise: 3")) { gateway in
                    _ = try await gateway.statuses(6)
                    #expect(gateway.states == ["ejected", "ready"])
                    status.store(200, ordering: .relaxed)
                    let before = heads.seen.count
                    gateway.prober.follow()
                    let isBack = await eventually { gateway.states[0] == "ready" }
                    #expect(isBack && heads.seen.count >= before + 3)
                    #expect(gateway.records(.eject).contains { $0.outcome == "on probation" && $0.sentence.contains("3 good probes") })
                    let after = try await gateway.statuses(4)
                    #expect(after == [200, 200, 200, 200])
                }
                status.store(500, ordering: .relaxed)
                try await withLive(route("interval: 20ms, rise: 1")) { gateway in
                    gateway.prober.follow()
                    _ = try await gateway.statuses(6)
                    #expect(gateway.states == ["ejected", "ready"])
                    try await Task.sleep(for: .milliseconds(300))
                    #expect(gateway.states == ["ejected", "ready"])
                }
            }
        }
    }

    /// Only the status counts: a page of any size may come with it, also one that does not end.
    @Test(arguments: [300_000, 3 << 20, .max]) func aLargePageTakesNobodyDown(size: Int) async throws {
        let served = Tally()
        try await TestSupport.withRaw(
            { peer, _ in
                while peer.head().contains("HTTP/1.1\r\n") {
                    served.add()
                    peer.send("HTTP/1.1 200 OK\r\n" + (size == .max ? "\r\n" : "Content-Length: \(size)\r\n\r\n"))
                    var left = size
                    while left > 0, peer.send([UInt8](repeating: 120, count: min(left, 65_536))) { left -= min(left, 65_536) }
                }
            }
        ) { backend in
            try await withLive("{ path: /, probe: { path: /health, interval: 20ms, fall: 1 }, backends: [127.0.0.1:\(backend.port)] }") {
                gateway in
                gateway.prober.follow()
                let isAsked = await eventually { served.count >= 5 }
                #expect(isAsked && gateway.states == ["ready"] && gateway.records(.eject).isEmpty)
            }
        }
    }

    private static let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    /// Answers all, and counts requests for `/health`.
    private static func counting(_ probes: Tally) -> @Sendable (RawPeer, Int) -> Void {
        { peer, _ in
            while true {
                let head = peer.head()
                if !head.contains("HTTP/1.1\r\n") { return }
                if head.hasPrefix("GET /health ") { probes.add() }
                peer.send(ok)
            }
        }
    }

    /// Backends are probed, wherever they stand in the route; the replicas of a service are its supervisor's.
    @Test(arguments: [true, false]) func backendsAreProbedAndServicesAreNot(isCanary: Bool) async throws {
        let ours = Tally(), theirs = Tally()
        try await TestSupport.withRaw(Self.counting(ours)) { backend in
            try await TestSupport.withRaw(Self.counting(theirs)) { service in
                let (main, canary) = ("service: web", "backends: [127.0.0.1:\(backend.port)]")
                let target = isCanary ? "\(main), canary: { \(canary), share: 10% }" : "\(canary), canary: { \(main), share: 10% }"
                let text = """
                    services: { web: { command: [x], http: { port: 1 } } }
                    gateway:
                      listen: 127.0.0.1:1
                      routes: [{ path: /, \(target), probe: { path: /health, interval: 20ms, fall: 1 } }]
                    """
                let spec = try #require(try Stack.read(Array(text.utf8), path: "t.yaml").gateway)
                // Nobody listens at the second one.
                let replicas = [service.port, 1].map { Replica(name: "web/\($0)", endpoint: .address(.loopback(port: $0))) }
                try await withLive("{ path: /, answer: { body: x } }") { gateway in
                    try await gateway.gateway.apply(spec) { _ in replicas }
                    gateway.prober.follow()
                    let isProbed = await eventually { ours.count >= 5 }
                    #expect(isProbed && theirs.count == 0)
                    #expect(replicas.map(\.state) == ["ready", "ready"])
                    backend.stop()
                    let route = gateway.gateway.routes[0]
                    #expect((isCanary ? route.canaryReplicas : route.replicas).map(\.state) == ["ready"])
                }
            }
        }
    }

    /// A backend that wants a PROXY header gets one from a probe as well, which is of no client; each probe has a connection of its own.
    @Test(arguments: ["v1", "v2"]) func probesBeginWithAPROXYHeader(version: String) async throws {
        let expected: [UInt8] =
            version == "v1"
            ? Array("PROXY UNKNOWN\r\n".utf8)
            : [13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10, 0x20, 0, 0, 0]
        for path in ["path: /health, ", ""] {
            let good = Tally(), bad = Tally()
            try await TestSupport.withRaw({ peer, _ in
                if peer.read(expected.count) != expected { return bad.add() }
                let head = peer.head()
                if path.isEmpty ? head.isEmpty : head.hasPrefix("GET /health HTTP/1.1\r\n") { good.add() } else { bad.add() }
                peer.send(Self.ok)
                if !peer.readToEnd().isEmpty { bad.add() }
            }) { backend in
                let probe = "probe: { \(path)interval: 20ms, fall: 1 }"
                try await withLive("{ path: /, proxy-protocol: \(version), \(probe), backends: [127.0.0.1:\(backend.port)] }") { gateway in
                    gateway.prober.follow()
                    let isAsked = await eventually { good.count >= 4 }
                    #expect(isAsked && bad.count == 0 && gateway.states == ["ready"], "\(version) \(path) \(bad.count)")
                }
            }
        }
    }

    @Test(arguments: [
        ("probe: { host: a.test }", 1), ("probe: { headers: { X-A: b } }", 1), ("probe: { path: /, host: 'a b' }", 1),
        ("probe: { path: /, headers: { Host: a } }", 1), ("probe: { path: /, headers: { Connection: close } }", 1),
        ("probe: { path: /, host: 'http://a' }", 1),
    ])
    func whatAProbeCannotSayIsRefused(key: String, count: Int) {
        let text = "gateway:\n  listen: 1\n  routes:\n    - { path: /, \(key), backends: [127.0.0.1:1] }\n"
        let problems = #expect(throws: Problems.self) { try Stack.read(Array(text.utf8), path: "t.yaml") }
        #expect(problems?.list.count == count && problems?.list.first?.line == 4, "\(problems.map { "\($0)" } ?? "taken")")
    }
}
