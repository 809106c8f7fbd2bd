import Basics
import Gateway
import Glibc
import TestSupport
import Testing

/// A service without a replica: requests wait at the gateway until there is one, in bounds. Clients block their threads, hence one after
/// the other.
@Suite(.serialized) struct HoldTests {
    private static func status(_ answer: (head: String, body: String)) -> Int { Int(answer.head.dropFirst(9).prefix(3)) ?? 0 }

    @Test func theFirstRequestsWaitAndAreServedInOrder() async throws {
        try await withWoken { woken, port in
            try await withWaking { gateway in
                #expect(gateway.gateway.lastRequest(service: "web") == nil && gateway.gateway.inFlight(service: "web") == 0)
                var clients: [RawPeer] = []
                for i in 1...5 {
                    clients.append(try gateway.ask("/\(i)"))
                    let areHeld = await gateway.areHeld(i)
                    try #require(areHeld)
                }
                #expect(gateway.demands.told.first == "web" && gateway.gateway.inFlight(service: "web") == 5)
                let asked = try #require(gateway.gateway.lastRequest(service: "web"))
                try await Task.sleep(for: .milliseconds(300))
                #expect(woken.seen.isEmpty)
                try await gateway.publish([WakingGateway.replica(port)], "{ path: /, service: web }")
                let answers = clients.map { $0.answer() }
                #expect(answers.map(Self.status) == [200, 200, 200, 200, 200] && answers.map(\.body) == ["/1", "/2", "/3", "/4", "/5"])
                #expect(Set(woken.seen) == ["/1", "/2", "/3", "/4", "/5"])
                #expect(gateway.ended("released") == 5 && gateway.ended("timed_out") == 0)
                let isOver = await eventually { gateway.gateway.inFlight(service: "web") == 0 }
                #expect(isOver && gateway.gateway.lastRequest(service: "web")! > asked)
                #expect(gateway.records.count == 1 && gateway.records[0].subject == "web" && gateway.records[0].kind == .route)
            }
        }
    }

    /// One after the other as places become free, in order of arrival; who comes meanwhile does not pass them.
    @Test func aReplicasOwnLimitIsHeeded() async throws {
        try await withWoken { woken, port in
            let route = "{ path: /, service: web, concurrency: { per-replica: 1 } }"
            try await withWaking(route) { gateway in
                woken.mayAnswer(false)
                var clients: [RawPeer] = []
                for i in 1...4 {
                    clients.append(try gateway.ask("/\(i)"))
                    let areHeld = await gateway.areHeld(i)
                    try #require(areHeld)
                }
                try await gateway.publish([WakingGateway.replica(port)], route)
                let isOneReleased = await gateway.areHeld(3)
                #expect(isOneReleased)
                let late = try await gateway.send("GET", "/late")
                #expect(late.status == 503 && late.text.contains("overloaded"))
                woken.mayAnswer(true)
                let answers = clients.map { $0.answer() }
                #expect(
                    answers.map(Self.status) == [200, 200, 200, 200] && woken.seen == ["/1", "/2", "/3", "/4"] && woken.mostAtOnce == 1)
                let after = try await gateway.send("GET", "/after")
                #expect(after.status == 200)
            }
        }
    }

    @Test func beyondTheMostIsRefused() async throws {
        try await withWaking("{ path: /, service: web, hold: { most: 2 } }") { gateway in
            let first = try gateway.ask(), second = try gateway.ask()
            let areHeld = await gateway.areHeld(2)
            try #require(areHeld)
            let refused = try await gateway.send()
            #expect(refused.status == 503 && refused.header("retry-after") == "1")
            let message = "web is waking up and 2 requests wait already; send again after the seconds that Retry-After names"
            #expect(refused.text == "{\"error\":{\"code\":\"waking_up\",\"message\":\"\(message)\"}}\n")
            #expect(gateway.ended("refused") == 1 && gateway.metric("gateway_held_requests{route=\"/\"}") == 2)
            withExtendedLifetime((first, second)) {}
        }
    }

    /// The bound is one for all loops.
    @Test func theBoundIsSharedByThreads() async throws {
        try await withWoken { _, port in
            try await withWaking("{ path: /, service: web, hold: { most: 3 } }", threads: 2) { gateway in
                let clients = try (0..<12).map { try gateway.ask("/\($0)") }
                let isSettled = await eventually {
                    gateway.ended("refused") == 9 && gateway.metric("gateway_held_requests{route=\"/\"}") == 3
                }
                try #require(isSettled)
                try await gateway.publish([WakingGateway.replica(port)], "{ path: /, service: web, hold: { most: 3 } }")
                let statuses = clients.map { Self.status($0.answer()) }
                #expect(statuses.count { $0 == 200 } == 3 && statuses.count { $0 == 503 } == 9)
                #expect(gateway.ended("released") == 3)
            }
        }
    }

    @Test func timeThatIsOverIs503() async throws {
        try await withWaking("{ path: /, service: web, hold: { for: 150ms } }") { gateway in
            let began = MonotonicTime.now
            let answer = try await gateway.send()
            #expect(answer.status == 503 && answer.header("retry-after") == "5" && MonotonicTime.now - began >= .milliseconds(150))
            #expect(answer.text.contains("\"wake_timeout\""))
            #expect(answer.text.contains("no replica of web was ready within 150ms") && answer.text.contains("muster why web"))
            #expect(gateway.ended("timed_out") == 1 && gateway.metric("gateway_held_requests{route=\"/\"}") == 0)
            // The connection is whole: the next one waits, too.
            let next = try await gateway.send()
            #expect(next.status == 503 && gateway.ended("timed_out") == 2)
        }
    }

    @Test func theRequestsOwnTimeIsHeeded() async throws {
        try await withWaking { gateway in
            let answer = try await gateway.send(headers: [("X-Request-Timeout", "100ms")])
            #expect(answer.status == 504 && answer.text.contains("deadline_exceeded"))
            // An answer is there before its exchange has come to its end.
            let isOver = await eventually { gateway.ended("timed_out") == 1 && gateway.gateway.inFlight(service: "web") == 0 }
            #expect(isOver)
        }
    }

    /// With and without a body that is not read; its place is another's at once.
    @Test func whoGoesAwayLeavesItsPlace() async throws {
        try await withWaking("{ path: /, service: web, hold: { most: 1 } }") { gateway in
            let requests = ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc"]
            for (i, request) in requests.enumerated() {
                do {
                    let client = try RawPeer(port: gateway.port)
                    client.send(request)
                    let isHeld = await gateway.areHeld(1)
                    try #require(isHeld)
                }
                let isFree = await gateway.areHeld(0)
                #expect(isFree && gateway.ended("gone") == i + 1)
            }
            let last = try gateway.ask()
            let isHeld = await gateway.areHeld(1)
            #expect(isHeld && gateway.ended("refused") == 0)
            // It only says that it sends no more: nobody can tell that from going away.
            last.finishSending()
            let isFree = await gateway.areHeld(0)
            #expect(isFree && last.readToEnd().isEmpty)
        }
    }

    /// What a reload leaves of a route: nothing, another target, no holding, other limits.
    @Test(arguments: [
        ("{ path: /other, service: web }", "hold_ended"), ("{ path: /, service: plain }", "hold_ended"),
        ("{ path: /, answer: { status: 503 } }", "hold_ended"), ("{ path: /, service: web, hold: { most: 0 } }", "no_replica"),
    ]) func aRouteThatIsGoneRefuses(route: String, code: String) async throws {
        try await withWaking { gateway in
            let client = try gateway.ask()
            let isHeld = await gateway.areHeld(1)
            try #require(isHeld)
            try await gateway.publish([], route)
            let answer = client.answer()
            #expect(Self.status(answer) == 503 && answer.body.contains("\"\(code)\"") && answer.head.contains("Retry-After: 1\r\n"))
            #expect(gateway.ended("refused") == 1 && gateway.metric("gateway_held_requests{route=\"/\"}") == 0)
        }
    }

    /// Limits that a reload brings hold for those who wait, too: in order of arrival.
    @Test func aReloadsLimitsHoldForThoseWhoWait() async throws {
        try await withWoken { _, port in
            try await withWaking { gateway in
                var clients: [RawPeer] = []
                for i in 1...3 {
                    clients.append(try gateway.ask("/\(i)"))
                    let areHeld = await gateway.areHeld(i)
                    try #require(areHeld)
                }
                let route = "{ path: /, service: web, concurrency: { most: 1 } }"
                try await gateway.publish([], route)
                let isOneLeft = await gateway.areHeld(1)
                let second = clients[1].answer(), third = clients[2].answer()
                #expect(isOneLeft && Self.status(second) == 503 && second.body.contains("overloaded") && Self.status(third) == 503)
                try await gateway.publish([WakingGateway.replica(port)], route)
                #expect(Self.status(clients[0].answer()) == 200)
                let after = try await gateway.send("GET", "/after")
                #expect(after.status == 200 && gateway.ended("refused") == 2 && gateway.ended("released") == 1)
            }
        }
    }

    @Test func aGatewayThatStopsLetsNobodyWait() async throws {
        try await withWaking { gateway in
            let client = try gateway.ask()
            let isHeld = await gateway.areHeld(1)
            try #require(isHeld)
            // Without an answer it would be cut.
            let cut = await gateway.gateway.drain(grace: .seconds(10))
            let answer = client.answer()
            #expect(
                cut == 0 && Self.status(answer) == 503 && answer.body.contains("hold_ended")
                    && answer.head.contains("Connection: close\r\n"))
            #expect(gateway.ended("refused") == 1)
        }
    }

    /// The rest of a body stays with its client, and arrives whole afterwards.
    @Test func aBodyIsNotReadMeanwhile() async throws {
        let size = 48 << 20
        let right = Tally()
        try await withRaw({ peer, _ in
            let head = peer.head()
            guard head.hasPrefix("POST ") else { return }
            right.add(peer.readPattern(size))
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        }) { backend in
            let route = "{ path: /, service: web, body: 64Mi }"
            try await withWaking(route) { gateway in
                let client = try RawPeer(port: gateway.port), sent = Tally()
                client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \(size)\r\n\r\n")
                async let isSent = onThread { client.sendPattern(size, sent) }
                let isHeld = await gateway.areHeld(1)
                // Until the kernel's buffers are full.
                var before = -1
                let isStill = await eventually {
                    defer { before = sent.count }
                    return sent.count > 0 && sent.count == before
                }
                try await Task.sleep(for: .milliseconds(200))
                #expect(isHeld && isStill && sent.count < size / 2, "\(sent.count)")
                try await gateway.publish([WakingGateway.replica(backend.port)], route)
                let isAll = await isSent
                #expect(isAll && Self.status(client.answer()) == 200 && right.count == size)
            }
        }
    }
}
