import Basics
import Gateway
import Glibc
import HTTP
import TestSupport
import Testing

/// What waits besides plain requests, what does not, and what is told of it.
@Suite(.serialized) struct HoldRecordsTests {
    /// Pipelined requests wait behind the one that waits: each connection has one place.
    @Test func pipelinedRequestsTakeOnePlace() async throws {
        try await withWoken { woken, port in
            try await withWaking { gateway in
                let client = try RawPeer(port: gateway.port)
                client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
                client.send("GET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
                let isHeld = await gateway.areHeld(1)
                try await Task.sleep(for: .milliseconds(50))
                #expect(isHeld && gateway.metric("gateway_held_requests{route=\"/\"}") == 1)
                try await gateway.publish([WakingGateway.replica(port)], "{ path: /, service: web }")
                let bodies = [client.answer().body, client.answer().body, client.answer().body]
                #expect(bodies == ["/1", "/2", "/3"] && woken.seen == bodies && gateway.ended("released") == 1)
            }
        }
    }

    /// An upgrade waits like any other request; what the client sends too early arrives after the switch.
    @Test func anUpgradeWaits() async throws {
        try await withRaw({ peer, _ in
            guard peer.head().contains("Upgrade: websocket\r\n") else { return }
            peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            while peer.send(peer.read(5)), !peer.sawEnd {}
        }) { backend in
            try await withWaking { gateway in
                let client = try gateway.ask("/", "Connection: Upgrade\r\nUpgrade: websocket\r\n")
                client.send("early")
                let isHeld = await gateway.areHeld(1)
                try #require(isHeld)
                try await gateway.publish([WakingGateway.replica(backend.port)], "{ path: /, service: web }")
                #expect(client.head().hasPrefix("HTTP/1.1 101 ") && client.text(5) == "early")
                client.send("later")
                #expect(client.text(5) == "later" && gateway.gateway.inFlight(service: "web") == 1)
                client.finishSending()
                let isOver = await eventually { gateway.gateway.inFlight(service: "web") == 0 }
                #expect(isOver)
            }
        }
    }

    /// A small body that came with its head goes on as it came.
    @Test func aSmallBodyWaitsWithItsRequest() async throws {
        try await withBackend("a") { port in
            try await withWaking { gateway in
                async let answer = gateway.send("POST", "/", body: Array("hello".utf8))
                let isHeld = await gateway.areHeld(1)
                try await gateway.publish([WakingGateway.replica(port)], "{ path: /, service: web }")
                let text = try await answer.text
                #expect(isHeld && text.hasPrefix("a 5\n"))
            }
        }
    }

    /// Only a service with nobody at all is waited for: one that is leaving counts as nobody, one that is out for its failures does not.
    @Test func whoIsUnwellIsAskedAndWhoLeavesIsNot() async throws {
        try await withWoken { _, port in
            try await withWaking { gateway in
                let replica = WakingGateway.replica(port)
                replica.add(.ejected)
                try await gateway.publish([replica], "{ path: /, service: web }")
                let asked = try await gateway.send()
                #expect(asked.status == 200 && gateway.demands.told.isEmpty)
                replica.add(.disabled)
                let refused = try await gateway.send()
                #expect(refused.status == 503 && refused.text.contains("no_replica"))
                replica.remove(.disabled)
                replica.add(.draining)
                let client = try gateway.ask("/next")
                let isHeld = await gateway.areHeld(1)
                #expect(isHeld && gateway.demands.told == ["web"])
                try await gateway.publish([replica, WakingGateway.replica(port, 2)], "{ path: /, service: web }")
                #expect(client.answer().body == "/next")
            }
        }
    }

    /// A route to a service that may not end, without a word about it, refuses at once as ever.
    @Test func nothingWaitsWhereNothingIsSaid() async throws {
        try await withWaking("{ path: /, service: plain }") { gateway in
            let answer = try await gateway.send()
            #expect(answer.status == 503 && answer.text.contains("no_replica") && gateway.demands.told.isEmpty)
            #expect(gateway.metric("gateway_held_requests{route=\"/\"}") == nil)
        }
        try await withWaking("{ path: /, service: plain, hold: { for: 100ms } }") { gateway in
            let answer = try await gateway.send()
            #expect(answer.status == 503 && answer.text.contains("wake_timeout") && gateway.demands.told == ["plain"])
        }
    }

    /// Many at once are one word; those who wait long are told of again.
    @Test func demandIsToldOfNowAndThen() async throws {
        try await withWaking { gateway in
            let began = MonotonicTime.now
            let clients = try (0..<40).map { try gateway.ask("/\($0)") }
            let areHeld = await gateway.areHeld(40)
            let most = Int((MonotonicTime.now - began).nanoseconds / 100_000_000) + 1
            let told = gateway.demands.told
            #expect(areHeld && Set(told) == ["web"] && told.count <= most)
            let isToldAgain = await eventually { gateway.demands.told.count > told.count }
            #expect(isToldAgain && gateway.records.count == 1)
            withExtendedLifetime(clients) {}
        }
    }

    /// Each wake is written down once, and the next one again.
    @Test func eachWakeIsWrittenDownOnce() async throws {
        try await withWoken { _, port in
            try await withWaking { gateway in
                for wake in 1...2 {
                    let first = try gateway.ask("/a"), second = try gateway.ask("/b")
                    let areHeld = await gateway.areHeld(2)
                    #expect(areHeld && gateway.records.count == wake)
                    try await gateway.publish([WakingGateway.replica(port, wake)], "{ path: /, service: web }")
                    #expect(first.answer().body == "/a" && second.answer().body == "/b")
                    let last = gateway.gateway.lastRequest(service: "web")
                    try await gateway.publish([], "{ path: /, service: web }")
                    // Its last request is remembered although its replica is forgotten.
                    #expect(last != nil && gateway.gateway.lastRequest(service: "web") == last)
                }
                let sentence = gateway.records[0].sentence
                #expect(sentence == "A request for / waits, because web has no replica: up to 100 wait, each for at most 10m.")
            }
        }
    }

    @Test func theWaitIsInTheLogAndExplained() async throws {
        try await withFolder { folder in
            let descriptor = open(folder + "/log", O_CREAT | O_APPEND | O_WRONLY, 0o600)
            defer { close(descriptor) }
            try await withWoken { _, port in
                try await withWaking(keys: ["access-log: json"], accessLog: descriptor) { gateway in
                    async let answer = gateway.send(headers: [("X-Request-Id", "sleeper")])
                    let isHeld = await gateway.areHeld(1)
                    try await Task.sleep(for: .milliseconds(60))
                    try await gateway.publish([WakingGateway.replica(port)], "{ path: /, service: web }")
                    let status = try await answer.status
                    #expect(isHeld && status == 200)
                    var router = Router()
                    AdminAPI.addRequests(to: &router, gateway: gateway.gateway)
                    try await withLoop { loop in
                        try await withServer(loop, router) { admin in
                            let found = try await gateway.client.send("GET", "/api/requests/sleeper", to: admin)
                            #expect(
                                found.text.contains(" for a replica and went to web/1") && found.text.contains("\"waited_for_a_replica\""),
                                "\(found.text)")
                        }
                    }
                }
            }
            // The log's own thread writes it, which the gateway's end does not wait for.
            _ = await eventually { Files.text(folder + "/log")?.contains("\n") == true }
            let text = Files.text(folder + "/log") ?? ""
            let value = text.split(separator: "\"held_ms\":").dropFirst().first.flatMap { Double($0.prefix { $0.isNumber || $0 == "." }) }
            #expect(value.map { $0 >= 50 } == true, "\(text)")
        }
    }
}
