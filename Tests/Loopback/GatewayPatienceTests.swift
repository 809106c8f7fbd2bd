import Basics
import EventLoops
import Gateway
import Glibc
import Synchronization
import TestSupport
import Testing

/// Deadlines, second questions, breakers and limits: what the gateway does when a replica lets it wait.
@Suite struct GatewayPatienceTests {
    private static let fine = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"

    /// Answers every request of a connection after `delay` says so; the field `X-Backend` names it.
    private static func slow(_ name: String, _ wait: @escaping @Sendable () -> Void) -> @Sendable (RawPeer, Int) -> Void {
        { peer, _ in
            while peer.head().contains("HTTP/1.1\r\n") {
                wait()
                peer.send("\(fine)X-Backend: \(name)\r\n\r\n")
            }
        }
    }

    // MARK: hedging

    /// Round robin asks `stuck` first: the answer comes from the other, and `stuck` is told that nobody wants its own.
    @Test func aSecondQuestionIsAskedOfAnother() async throws {
        let dropped = Tally(), seen = Tally()
        try await withRaw({ peer, _ in
            peer.head()
            seen.add()
            if peer.readToEnd().isEmpty { dropped.add() }
        }) { stuck in
            try await withNamed("b") { b in
                let route = "{ path: /, retry: { hedge: 30ms }, balance: round-robin, backends: [127.0.0.1:\(stuck.port), 127.0.0.1:\(b)] }"
                try await withLive(route) { gateway in
                    let served = try await gateway.served(6)
                    #expect(served == ["b", "b", "b", "b", "b", "b"])
                    // The second question takes its turn, too: each first one goes to the same.
                    #expect(seen.count == 6 && gateway.metric("gateway_hedges_total{route=\"/\"}") == 6)
                    let isDropped = await eventually { dropped.count == 6 && gateway.inFlight == 0 }
                    #expect(isDropped)
                    #expect(gateway.states == ["ready", "ready"])
                }
            }
        }
    }

    /// Both are slow and the first one is the first after all: explanations name it.
    @Test func theFirstOneMayStillWin() async throws {
        let isAsked = Tally()
        try await withRaw(Self.slow("first") { while isAsked.count == 0 { usleep(5000) } }) { first in
            try await withRaw({ peer, _ in
                peer.head()
                isAsked.add()
                _ = peer.readToEnd()
            }) { second in
                try await withFolder { folder in
                    try Files.replace(folder + "/token", with: Array("0123456789abcdef\n".utf8))
                    let route =
                        "{ path: /, retry: { hedge: 30ms }, balance: round-robin, backends: [127.0.0.1:\(first.port), "
                        + "127.0.0.1:\(second.port)] }"
                    try await withLive(route, more: ["admin-token-file: \(folder)/token"]) { gateway in
                        let answer = try await gateway.send(headers: [("X-Muster-Explain", "0123456789abcdef")])
                        #expect(answer.header("x-backend") == "first" && isAsked.count == 1)
                        let isOver = await eventually { gateway.inFlight == 0 && second.open.count == 0 }
                        #expect(isOver)
                        let why = answer.header("x-muster-why") ?? ""
                        #expect(why.contains("replica=127.0.0.1:\(first.port);") && why.contains("tries=2"), "\(why)")
                    }
                }
            }
        }
    }

    @Test func whatMayNotBeRepeatedIsAskedOnce() async throws {
        try await withRaw(Self.slow("a") { usleep(150_000) }) { a in
            try await withRaw(Self.slow("b") { usleep(150_000) }) { b in
                let backends = "balance: round-robin, backends: [127.0.0.1:\(a.port), 127.0.0.1:\(b.port)]"
                try await withLive("{ path: /, retry: { hedge: 10ms }, \(backends) }") { gateway in
                    let post = try await gateway.send("POST", body: [1]), bare = try await gateway.send("POST")
                    #expect(post.status == 200 && bare.status == 200 && gateway.metric("gateway_hedges_total{route=\"/\"}") == 0)
                    #expect(gateway.replicas.map { $0.requests.current } == [1, 1])
                }
                // With nobody else to ask there is nothing to ask.
                try await withLive("{ path: /, retry: { hedge: 10ms }, backends: [127.0.0.1:\(a.port)] }") { gateway in
                    let answer = try await gateway.send()
                    #expect(
                        answer.status == 200 && gateway.metric("gateway_hedges_total{route=\"/\"}") == 0
                            && gateway.replicas[0].requests.current == 1)
                }
            }
        }
    }

    /// The budget allows 100 second questions in ten seconds beside its share of none.
    @Test func secondQuestionsSpendTheBudget() async throws {
        try await withRaw(Self.slow("a") { usleep(60_000) }) { a in
            try await withRaw(Self.slow("b") { usleep(60_000) }) { b in
                let route = "{ path: /, retry: { hedge: 1ms, budget: 0% }, backends: [127.0.0.1:\(a.port), 127.0.0.1:\(b.port)] }"
                try await withLive(route) { gateway in
                    let served = Tally()
                    try await withThrowingTaskGroup(of: Void.self) { group in
                        for _ in 0..<40 { group.addTask { for _ in 0..<5 { if try await gateway.send().status == 200 { served.add() } } } }
                        try await group.waitForAll()
                    }
                    let hedges = gateway.metric("gateway_hedges_total{route=\"/\"}") ?? 0
                    #expect(served.count == 200 && hedges > 50 && hedges < 190, "\(hedges)")
                    let isOver = await eventually { gateway.inFlight == 0 }
                    #expect(isOver)
                }
            }
        }
    }

    // MARK: deadlines

    @Test func timeThatIsOverIs504() async throws {
        try await withRaw({ peer, _ in
            peer.head()
            _ = peer.readToEnd()
        }) { stuck in
            try await withLive("{ path: /, timeout: { total: 100ms }, retry: { attempts: 4 }, backends: [127.0.0.1:\(stuck.port)] }") {
                gateway in
                for headers in [[], [("X-Request-Timeout", "50ms")], [("X-Request-Timeout", "1h")]] {
                    let answer = try await gateway.send(headers: headers)
                    #expect(answer.status == 504 && answer.text.contains("deadline_exceeded"))
                }
                let isOver = await eventually { gateway.inFlight == 0 && stuck.open.count == 0 }
                #expect(isOver)
            }
            // The client's word alone.
            try await withLive("{ path: /, backends: [127.0.0.1:\(stuck.port)] }") { gateway in
                let answer = try await gateway.send(headers: [("X-Request-Timeout", "80ms")])
                #expect(answer.status == 504 && answer.text.contains("deadline_exceeded"))
            }
        }
    }

    /// What each try is told of the time that is left: less than the client gave, and less at the second than at the first.
    @Test func theTimeThatIsLeftIsPassedOn() async throws {
        let told = Mutex<[Int]>([])
        @Sendable func note(_ head: String) {
            for line in head.split(separator: "\r\n") where line.lowercased().hasPrefix("x-request-timeout:") {
                let value = line.dropFirst(18).filter { $0 != " " }
                told.withLock { $0.append(value.hasSuffix("ms") ? Int(value.dropLast(2)) ?? -1 : -2) }
            }
        }
        try await withRaw({ peer, _ in
            note(peer.head())
            usleep(60_000)
        }) { bad in
            try await withRaw({ peer, _ in
                note(peer.head())
                peer.send("\(Self.fine)\r\n")
            }) { good in
                let backends = "balance: round-robin, backends: [127.0.0.1:\(bad.port), 127.0.0.1:\(good.port)]"
                try await withLive("{ path: /, \(backends) }") { gateway in
                    let answer = try await gateway.send(headers: [("X-Request-Timeout", "60s")])
                    #expect(answer.status == 200)
                }
                let first = told.withLock { $0 }
                #expect(
                    first.count == 2 && first[0] <= 60_000 && first[0] > 30_000 && first[1] <= first[0] - 50 && first[1] > 0, "\(first)")
                told.withLock { $0 = [] }
                try await withLive("{ path: /, timeout: { total: 30s }, \(backends) }") { gateway in
                    let answer = try await gateway.send(headers: [("X-Request-Timeout", "1d")])
                    #expect(answer.status == 200)
                }
                let second = told.withLock { $0 }
                #expect(second.count == 2 && second[0] <= 30_000 && second[0] > 10_000 && second[1] <= second[0] - 50, "\(second)")
            }
        }
    }

    /// What is no time is not guessed at, and goes on as it came.
    @Test(arguments: ["5", "0ms", "-1s", "soon", "1e3ms", "9999999999999999999999s", ""]) func whatIsNoTimeIsNoDeadline(value: String)
        async throws
    {
        try await withRaw({ peer, _ in
            let head = peer.head()
            usleep(30_000)
            peer.send("\(Self.fine)X-Seen: \(head.contains("X-Request-Timeout: \(value)\r\n"))\r\n\r\n")
        }) { backend in
            try await withLive("{ path: /, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let answer = try await gateway.send(headers: [("X-Request-Timeout", value)])
                #expect(answer.status == 200 && answer.header("x-seen") == "true")
            }
        }
    }

    // MARK: breaker

    private static let breaks = "eject: { errors: true, failures: 1000 }, breaker:"

    /// Opens after three failures in a row, and refuses without asking anybody.
    @Test func anOpenBreakerRefuses() async throws {
        try await withNamed("a", answer: { (500, "") }) { a in
            try await withLive("{ path: /, \(Self.breaks) { failures: 3, recovery: 1h }, backends: [127.0.0.1:\(a)] }") { gateway in
                let first = try await gateway.statuses(3)
                #expect(first == [500, 500, 500])
                let refused = try await gateway.send()
                #expect(
                    refused.status == 503 && refused.text.contains("breaker_open")
                        && refused.header("retry-after").flatMap { Int($0) } ?? 0 > 3000)
                #expect(gateway.replicas[0].requests.current == 3 && gateway.metric("gateway_shed_total{route=\"/\"}") == 1)
                #expect(gateway.records(.breaker).map(\.outcome) == ["open"])
            }
        }
    }

    /// When its time has come one request is tried: a failure opens it again, a success closes it.
    @Test func aBreakerClosesAfterATrial() async throws {
        let isFine = Atomic<Bool>(false)
        try await withNamed("a", answer: { isFine.load(ordering: .relaxed) ? (200, "") : (500, "") }) { a in
            try await withLive("{ path: /, \(Self.breaks) { failures: 3, recovery: 1ms }, backends: [127.0.0.1:\(a)] }") { gateway in
                _ = try await gateway.statuses(3)
                try await Task.sleep(for: .milliseconds(10))
                let trial = try await gateway.send()
                #expect(trial.status == 500 && gateway.records(.breaker).map(\.outcome) == ["open", "open"])
                isFine.store(true, ordering: .relaxed)
                try await Task.sleep(for: .milliseconds(10))
                let after = try await gateway.statuses(4)
                #expect(after == [200, 200, 200, 200] && gateway.records(.breaker).map(\.outcome) == ["open", "open", "closed"])
            }
        }
    }

    /// A trial that found nobody to ask, or that was refused, leaves the next one free.
    @Test func aTrialThatNeverBeganIsGivenBack() async throws {
        let isFine = Atomic<Bool>(false)
        try await withRaw({ peer, _ in
            while peer.head().contains("HTTP/1.1\r\n") {
                peer.send("HTTP/1.1 \(isFine.load(ordering: .relaxed) ? 200 : 500) OK\r\nContent-Length: 0\r\n\r\n")
            }
        }) { backend in
            let options = "eject: { errors: true, failures: 1000 }, breaker: { failures: 1, recovery: 1ms }, body: 10"
            try await withLive("{ path: /, \(options), backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let first = try await gateway.send()
                #expect(first.status == 500 && gateway.records(.breaker).map(\.outcome) == ["open"])
                isFine.store(true, ordering: .relaxed)
                gateway.replicas[0].add(.disabled)
                // When its time has come, there is nobody to ask.
                let isTried = await eventually { (try? await gateway.send().text.contains("no_replica")) == true }
                #expect(isTried)
                gateway.replicas[0].remove(.disabled)
                // Too large, as its body tells; malformed; gone before it was whole.
                for text in ["3\r\nabc\r\n20\r\n", "zz\r\n", ""] {
                    let client = try RawPeer(port: gateway.port)
                    client.send(
                        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
                            + "chunked\r\n\r\n\(text)\(String(repeating: "x", count: text.count * 4))"
                    )
                    if text.isEmpty { continue }
                    let status = client.answer().head.prefix(12)
                    #expect(status == "HTTP/1.1 413" || status == "HTTP/1.1 400", "\(status)")
                }
                let isClosed = await eventually { (try? await gateway.send().status) == 200 }
                #expect(isClosed)
            }
        }
    }

    // MARK: limits of what is under way

    /// Holds requests until told otherwise.
    private func withHeld(_ body: (UInt16, Tally) async throws -> Void) async throws {
        let go = Tally()
        try await withRaw(Self.slow("held") { while go.count == 0 { usleep(5000) } }) { backend in
            try await body(backend.port, go)
            go.add()
        }
    }

    @Test func beyondTheMostIsOverloaded() async throws {
        try await withHeld { port, go in
            try await withLive("{ path: /, concurrency: { most: 2 }, backends: [127.0.0.1:\(port)] }", threads: 2) { gateway in
                async let one = gateway.send()
                async let two = gateway.send()
                let areUnderWay = await eventually { gateway.inFlight == 2 }
                let refused = try await gateway.send()
                #expect(areUnderWay && refused.status == 503 && refused.text.contains("overloaded") && refused.header("retry-after") == "1")
                go.add()
                let statuses = [try await one.status, try await two.status]
                let later = try await gateway.statuses(6)
                #expect(statuses == [200, 200] && later == [200, 200, 200, 200, 200, 200])
            }
        }
    }

    @Test func fullReplicasAreNotAsked() async throws {
        try await withHeld { port, go in
            try await withNamed("b") { b in
                try await withLive(
                    "{ path: /, concurrency: { per-replica: 1 }, balance: round-robin, backends: [127.0.0.1:\(port), 127.0.0.1:\(b)] }"
                ) { gateway in
                    async let one = gateway.send()
                    let isUnderWay = await eventually { gateway.inFlight == 1 }
                    let served = try await gateway.served(4)
                    #expect(isUnderWay && served == ["b", "b", "b", "b"])
                    gateway.replicas[1].add(.disabled)
                    let refused = try await gateway.send()
                    #expect(refused.status == 503 && refused.text.contains("overloaded"))
                    go.add()
                    let first = try await one
                    #expect(first.header("x-backend") == "held")
                }
            }
        }
    }

    @Test func anAdaptiveLimitLetsASteadyLoadThrough() async throws {
        try await withNamed("a") { a in
            try await withLive("{ path: /, concurrency: { adaptive: true, most: 100 }, backends: [127.0.0.1:\(a)] }", threads: 2) {
                gateway in
                let served = Tally()
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for _ in 0..<8 { group.addTask { for _ in 0..<60 { if try await gateway.send().status == 200 { served.add() } } } }
                    try await group.waitForAll()
                }
                #expect(served.count == 480)
            }
        }
    }
}
