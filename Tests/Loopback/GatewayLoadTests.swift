import Basics
import EventLoops
import Gateway
import Glibc
import StackModel
import Synchronization
import TestSupport
import Testing

/// What many clients at once make the gateway do, and remember.
@Suite struct GatewayLoadTests {
    /// Forty clients at a replica that takes 50 ms however many ask: nothing queues, so the limit grows.
    @Test func anAdaptiveLimitGrows() async throws {
        try await withRaw({ peer, _ in
            while peer.head().contains("HTTP/1.1\r\n") {
                usleep(50_000)
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            }
        }) { backend in
            try await withLive("{ path: /, concurrency: { adaptive: true, most: 1000 }, backends: [127.0.0.1:\(backend.port)] }") {
                gateway in
                let isOver = Atomic<Bool>(false), running = Tally()
                for _ in 0..<40 {
                    running.add()
                    startThread {
                        let client = try? RawPeer(port: gateway.port)
                        while !isOver.load(ordering: .relaxed), client?.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n") == true {
                            if client?.answer().head.hasPrefix("HTTP/1.1 200 ") != true { usleep(50_000) }
                        }
                        running.add(-1)
                    }
                }
                let hasGrown = await eventually(.seconds(15)) { gateway.records(.limit).contains { (Int($0.outcome) ?? 0) >= 30 } }
                isOver.store(true, ordering: .relaxed)
                _ = await eventually { running.count == 0 }
                #expect(hasGrown, "\(gateway.records(.limit).map(\.outcome))")
            }
        }
    }

    /// Quick refusals of a replica are no fast service: they do not make its true answers look slow.
    @Test func refusalsAreNotMeasured() async throws {
        let count = Tally()
        try await withRaw({ peer, _ in
            while peer.head().contains("HTTP/1.1\r\n") {
                count.add()
                if count.count % 2 == 0 {
                    usleep(20_000)
                    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                } else {
                    peer.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
                }
            }
        }) { backend in
            try await withLive("{ path: /, concurrency: { adaptive: true }, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                _ = try await gateway.statuses(300)
                #expect(!gateway.records(.limit).contains { (Int($0.outcome) ?? 99) < 10 }, "\(gateway.records(.limit).map(\.outcome))")
            }
        }
    }

    /// Two hundred clients, wave after wave: the second wave finds the connections of the first.
    @Test func whatTheLoadNeedsIsKept() async throws {
        try await withRaw({ peer, _ in
            while peer.head().contains("HTTP/1.1\r\n") {
                usleep(150_000)
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            }
        }) { backend in
            try await withLive("{ path: /, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                var made: [Int] = []
                for _ in 0..<4 {
                    let clients = try (0..<200).map { _ in try RawPeer(port: gateway.port) }
                    for client in clients { client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n") }
                    for client in clients { #expect(client.head().hasPrefix("HTTP/1.1 200 ")) }
                    made.append(backend.made.count)
                }
                // 64 were kept, whatever the load: each wave made 136 anew.
                #expect(made[0] == 200 && made[3] <= 210, "\(made)")
            }
        }
    }

    /// A storm of failed tries is told as one thing that began; what was decided before is still there.
    @Test func aStormOfRetriesIsOneEntry() async throws {
        let dead = TestPorts.server()
        try await withNamed("a") { a in
            try await withLive(
                "{ path: /, balance: round-robin, eject: { failures: 1000 }, backends: [127.0.0.1:\(dead), 127.0.0.1:\(a)] }"
            ) { gateway in
                _ = try await gateway.statuses(300)
                let records = gateway.records(.retry).filter { $0.subject == "127.0.0.1:\(dead)" }
                // Tried again, and once the budget was spent not tried again: an entry each.
                #expect(
                    Set(records.map(\.outcome)).isSubset(of: ["retry", "budget_spent"]) && records.count <= 2, "\(records.map(\.outcome))")
                let ended = await eventually(.seconds(15)) {
                    gateway.records(.retry).contains {
                        $0.outcome == "ended" && $0.sentence.contains(" requests failed on 127.0.0.1:\(dead)")
                    }
                }
                #expect(ended)
            }
        }
    }

    /// What a publication of other replicas gives back of the budget is nothing: 100 tries in ten seconds, with a share of none.
    @Test func aPublicationGivesNoBudgetBack() async throws {
        let dead = TestPorts.server()
        let route = "{ path: /, retry: { attempts: 2, budget: 0% }, eject: { failures: 1000 }, backends: [127.0.0.1:\(dead)] }"
        try await withLive(route) { gateway in
            let began = MonotonicTime.now
            for round in 1...12 {
                _ = try await gateway.statuses(15)
                let backends = (0...round % 2).map { BackendSpec(address: "127.0.0.1:\(dead)", weight: 1 + $0) }
                if round % 3 == 0 {
                    try await gateway.reload(route)
                } else {
                    try await gateway.gateway.setBackends(backends, of: "/")
                }
            }
            let seconds = Double((MonotonicTime.now - began).nanoseconds) / 1e9
            let retries = gateway.metric("gateway_retries_total{route=\"/\"}") ?? 0
            #expect(retries >= 50 && retries <= 100 + 10 * max(0, (seconds - 9).rounded(.up)), "\(retries) in \(seconds) s")
        }
    }

    /// A panic is told when it begins and when it is over, whatever is published meanwhile, and names some of many replicas.
    @Test func aPanicIsTwoEntries() async throws {
        try await withNamed("a") { a in
            let backends = (1...40).map { "127.0.0.\($0):\(a)" }.joined(separator: ", ")
            try await withLive("{ path: /, balance: round-robin, eject: { failures: 1000 }, backends: [\(backends)] }") { gateway in
                for replica in gateway.replicas { replica.add(.down, because: "for the test") }
                for _ in 0..<3 {
                    _ = try await gateway.statuses(60)
                    await gateway.gateway.apply { _ in [] }
                }
                let records = gateway.records(.route).filter { $0.outcome == "panic" }
                #expect(records.count == 1 && records.first.map { $0.inputs.count <= 20 } == true, "\(records.count)")
                #expect(records.first?.inputs.contains { $0.name == "candidates" && $0.value == "40" } == true)
                let ended = await eventually(.seconds(15)) {
                    // 180 requests, of which those were tried twice whose first replica is not there.
                    gateway.records(.route).contains {
                        $0.subject == "/" && $0.outcome == "ended"
                            && Int($0.sentence.prefix { $0.isNumber }).map { (180...360).contains($0) } == true
                    }
                }
                #expect(ended, "\(gateway.records(.route).map(\.sentence))")
            }
        }
    }
}
