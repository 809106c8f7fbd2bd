import Basics
import EventLoops
import Gateway
import Synchronization
import TestSupport
import Testing

/// Which replicas are asked, when some fail, are full, or come back.
@Suite struct GatewayHealthTests {
    private static let probe = "probe: { interval: 20ms, timeout: 5s, rise: 2, fall: 2 }"

    /// Without a path a connection is enough, and a port on which nobody listens is down.
    @Test func aProbeWithoutAPathConnects() async throws {
        let dead = TestPorts.server()
        try await withRaw({ peer, _ in peer.head() }) { silent in
            try await withLive("{ path: /, \(Self.probe), backends: [127.0.0.1:\(dead), 127.0.0.1:\(silent.port)] }") { gateway in
                gateway.prober.follow()
                let isSeen = await eventually { gateway.states == ["down", "ready"] }
                #expect(isSeen)
                #expect(
                    gateway.records(.eject).contains { $0.sentence.contains("127.0.0.1:\(dead)") }
                        || gateway.replicas[0].reason.text.contains("\(dead)"))
            }
        }
    }

    @Test func aProbeFollowsWhatAPageSays() async throws {
        let healthy = Atomic<Bool>(true)
        try await withNamed("a", answer: { healthy.load(ordering: .relaxed) ? (200, "") : (503, "") }) { a in
            try await withNamed("b") { b in
                let probe = "probe: { path: /, interval: 20ms, timeout: 5s, rise: 2, fall: 2 }"
                try await withLive("{ path: /, \(probe), balance: round-robin, backends: [127.0.0.1:\(a), 127.0.0.1:\(b)] }") { gateway in
                    gateway.prober.follow()
                    for _ in 0..<2 {
                        healthy.store(false, ordering: .relaxed)
                        let isDown = await eventually { gateway.states == ["down", "ready"] }
                        #expect(isDown)
                        let served = try await gateway.served(4)
                        #expect(Set(served) == ["b"])
                        healthy.store(true, ordering: .relaxed)
                        let isBack = await eventually { gateway.states == ["ready", "ready"] }
                        #expect(isBack)
                    }
                }
            }
        }
    }

    /// 500s are answers, unless a route says that they are failures; and never so many are out that fewer than its share is left.
    @Test func answersOf500CountWhereTheRouteSaysSo() async throws {
        try await withNamed("bad", answer: { (500, "") }) { bad in
            try await withNamed("good") { good in
                let backends = "balance: round-robin, backends: [127.0.0.1:\(bad), 127.0.0.1:\(good)]"
                try await withLive("{ path: /, \(backends) }") { gateway in
                    for _ in 0..<10 { _ = try await gateway.send() }
                    #expect(gateway.states == ["ready", "ready"] && gateway.replicas[0].errors.current == 5)
                }
                try await withLive("{ path: /, eject: { errors: true, failures: 3, for: 1h }, \(backends) }") { gateway in
                    let statuses = try await gateway.statuses(12)
                    // Its answers are passed on until it is out.
                    #expect(statuses.filter { $0 == 500 }.count == 3 && statuses.suffix(6).allSatisfy { $0 == 200 })
                    #expect(gateway.states == ["ejected", "ready"])
                    #expect(gateway.records(.eject).contains { $0.outcome.hasPrefix("ejected for") })
                }
            }
        }
    }

    @Test func notMoreThanTheShareIsOut() async throws {
        try await withNamed("bad", answer: { (500, "") }) { a in
            try await withNamed("bad", answer: { (502, "") }) { b in
                try await withNamed("bad", answer: { (503, "") }) { c in
                    let backends = "backends: [127.0.0.1:\(a), 127.0.0.1:\(b), 127.0.0.1:\(c)]"
                    try await withLive(
                        "{ path: /, eject: { errors: true, failures: 2, for: 1h, at-most: 34% }, balance: round-robin, \(backends) }"
                    ) { gateway in
                        let statuses = try await gateway.statuses(20)
                        #expect(statuses.allSatisfy { $0 >= 500 })
                        #expect(gateway.states.filter { $0 == "ejected" }.count == 1)
                        #expect(gateway.records(.eject).contains { $0.outcome == "kept" }, "\(gateway.records(.eject).map(\.outcome))")
                    }
                }
            }
        }
    }

    /// An ejection ends by itself, and a replica that fails at once again is out at once again.
    @Test func anEjectionEndsOnProbation() async throws {
        let fails = Atomic<Bool>(true)
        try await withNamed("a", answer: { fails.load(ordering: .relaxed) ? (500, "") : (200, "") }) { a in
            try await withNamed("b") { b in
                let eject = "eject: { errors: true, failures: 2, for: 300ms }"
                try await withLive("{ path: /, \(eject), balance: round-robin, backends: [127.0.0.1:\(a), 127.0.0.1:\(b)] }") { gateway in
                    func ejections() -> Int { gateway.records(.eject).filter { $0.outcome.hasPrefix("ejected for") }.count }
                    _ = try await gateway.statuses(4)
                    #expect(ejections() == 1)
                    // Back on probation, it fails once and is out again.
                    let isOutAgain = try await eventually {
                        _ = try await gateway.send()
                        return ejections() == 2
                    }
                    #expect(isOutAgain && gateway.replicas[0].errors.current == 3)
                    fails.store(false, ordering: .relaxed)
                    let isBackAgain = await eventually { gateway.states[0] == "ready" }
                    #expect(isBackAgain)
                    let served = try await gateway.served(4)
                    #expect(Set(served) == ["a", "b"] && gateway.states == ["ready", "ready"])
                }
            }
        }
    }

    /// After its return a replica begins with a small share.
    @Test func whoComesBackBeginsSlowly() async throws {
        let healthy = Atomic<Bool>(true)
        try await withRaw({ peer, _ in
            while peer.head().hasPrefix("GET") {
                peer.send("HTTP/1.1 \(healthy.load(ordering: .relaxed) ? 200 : 503) OK\r\nX-Backend: a\r\nContent-Length: 0\r\n\r\n")
            }
        }) { a in
            try await withNamed("b") { b in
                let route =
                    "probe: { path: /, interval: 20ms, timeout: 5s }, slow-start: 1h, balance: weighted, backends: [127.0.0.1:\(a.port), "
                    + "127.0.0.1:\(b)]"
                try await withLive("{ path: /, \(route) }") { gateway in
                    func share() async throws -> Int { try await gateway.served(200).filter { $0 == "a" }.count }
                    let before = try await share()
                    #expect(before == 100)
                    gateway.prober.follow()
                    healthy.store(false, ordering: .relaxed)
                    let isDown = await eventually { gateway.states[0] == "down" }
                    healthy.store(true, ordering: .relaxed)
                    let isBack = await eventually { gateway.states[0] == "ready" }
                    #expect(isDown && isBack)
                    // A tenth of its share to begin with, drawn at random: about 10 of 200.
                    let after = try await share()
                    #expect((1...40).contains(after), "\(after)")
                }
            }
        }
    }

    @Test func theSecondGroupServesWhileTheFirstIsDown() async throws {
        let healthy = Atomic<Bool>(true)
        try await withNamed("near", answer: { healthy.load(ordering: .relaxed) ? (200, "") : (503, "") }) { near in
            try await withNamed("far") { far in
                let probe = "probe: { path: /, interval: 20ms, timeout: 5s }"
                try await withLive("{ path: /, \(probe), backends: [{ address: 127.0.0.1:\(far), priority: 1 }, 127.0.0.1:\(near)] }") {
                    gateway in
                    func served() async throws -> Set<String> { Set(try await gateway.served(12)) }
                    let first = try await served()
                    gateway.prober.follow()
                    healthy.store(false, ordering: .relaxed)
                    let isDown = await eventually { gateway.states == ["ready", "down"] }
                    let second = try await served()
                    healthy.store(true, ordering: .relaxed)
                    let isBack = await eventually { gateway.states == ["ready", "ready"] }
                    let third = try await served()
                    #expect(isDown && isBack && first == ["near"] && second == ["far"] && third == ["near"])
                }
            }
        }
    }

    /// Below the share all are used, fit or not.
    @Test func panicUsesEveryReplica() async throws {
        let healthy = Atomic<Bool>(false)
        try await withRaw({ peer, _ in
            // Its page is wrong, but it serves.
            while true {
                let head = peer.head()
                guard head.hasPrefix("GET") else { return }
                let isFine = healthy.load(ordering: .relaxed) || !head.hasPrefix("GET /health")
                peer.send("HTTP/1.1 \(isFine ? 200 : 503) OK\r\nX-Backend: a\r\nContent-Length: 0\r\n\r\n")
            }
        }) { a in
            try await withNamed("b") { b in
                let probe = "probe: { path: /health, interval: 20ms, timeout: 5s }"
                for panic in ["panic: 90%,", ""] {
                    // b has no such page, so it is down as well: none is fit, and all are used.
                    try await withLive(
                        "{ path: /, \(probe), \(panic) balance: round-robin, backends: [127.0.0.1:\(a.port), 127.0.0.1:\(b)] }"
                    ) { gateway in
                        gateway.prober.follow()
                        let areDown = await eventually { gateway.states == ["down", "down"] }
                        let names = Set(try await gateway.served(6))
                        #expect(areDown && names == ["a", "b"])
                        #expect(gateway.records(.route).contains { $0.outcome == "panic" })
                    }
                }
                healthy.store(true, ordering: .relaxed)
                // With one of two fit and a limit of 90 %, the other is used all the same; without, it is not.
                for (panic, expected) in [("panic: 90%,", Set(["a", "b"])), ("", Set(["a"]))] {
                    try await withLive(
                        "{ path: /, \(probe), \(panic) balance: round-robin, backends: [127.0.0.1:\(a.port), 127.0.0.1:\(b)] }"
                    ) { gateway in
                        gateway.prober.follow()
                        let isSeen = await eventually { gateway.states == ["ready", "down"] }
                        let names = Set(try await gateway.served(6))
                        #expect(isSeen && names == expected)
                    }
                }
            }
        }
    }

    /// Other probes after a change of the file, for replicas that stay; without a probe nobody is down for it.
    @Test func aChangedProbeIsAskedFromThenOn() async throws {
        try await withRaw({ peer, _ in
            while true {
                let head = peer.head()
                guard head.hasPrefix("GET") else { return }
                peer.send("HTTP/1.1 \(head.hasPrefix("GET /old") ? 503 : 200) OK\r\nContent-Length: 0\r\n\r\n")
            }
        }) { backend in
            try await withNamed("b") { b in
                func route(_ probe: String) -> String { "{ path: /, \(probe) backends: [127.0.0.1:\(backend.port)] }" }
                try await withLive(route("probe: { path: /old, interval: 20ms, timeout: 5s },")) { gateway in
                    gateway.prober.follow()
                    let isDown = await eventually { gateway.states == ["down"] }
                    try await gateway.reload(route("probe: { path: /new, interval: 20ms, timeout: 5s },"))
                    let isUp = await eventually { gateway.states == ["ready"] }
                    #expect(isDown && isUp)
                    try await gateway.reload(route("probe: { path: /old, interval: 20ms, timeout: 5s },"))
                    let isDownAgain = await eventually { gateway.states == ["down"] }
                    try await gateway.reload(route(""))
                    let isFree = await eventually { gateway.states == ["ready"] }
                    #expect(isDownAgain && isFree)
                }
            }
        }
    }
}
