import Basics
import Glibc
import TestSupport
import Testing

/// Bodies as they come: at once, as fast as the slower side, and as whole as they were.
@Suite struct GatewayStreamTests {
    private func withBackend(
        _ serve: @escaping @Sendable (RawPeer, Int) -> Void, options: String = "", _ body: (LiveGateway, RawBackend) async throws -> Void
    )
        async throws
    {
        try await withRaw(serve) { backend in
            try await withLive("{ path: /, \(options) backends: [127.0.0.1:\(backend.port)] }") { try await body($0, backend) }
        }
    }

    private static let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

    /// Each event is there before the next one is made.
    @Test(arguments: ["Transfer-Encoding: chunked\r\n", ""]) func eventsArriveOneByOne(framing: String) async throws {
        let next = Tally()
        try await withBackend({ peer, _ in
            peer.head()
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\(framing)\r\n")
            for i in 1...5 {
                let event = "data: \(i)\n\n"
                peer.send(framing.isEmpty ? event : "\(String(event.utf8.count, radix: 16))\r\n\(event)\r\n")
                for _ in 0..<1000 where next.count < i { usleep(10_000) }
            }
            if !framing.isEmpty { peer.send("0\r\n\r\n") }
        }) { gateway, _ in
            let client = try RawPeer(port: gateway.port)
            client.send(Self.get)
            let head = client.head()
            #expect(head.contains("Content-Type: text/event-stream") && head.contains("Transfer-Encoding: chunked"))
            for i in 1...5 {
                #expect(client.text(14) == "9\r\ndata: \(i)\n\n\r\n")
                next.add()
            }
            #expect(client.text(5) == "0\r\n\r\n")
        }
    }

    /// The client reads nothing: the backend is held back, whatever it has to say. Then all of it is there.
    @Test func aSlowDownloadHoldsTheBackendBack() async throws {
        let sent = Tally()
        let total = 48_000_000
        try await withBackend({ peer, _ in
            peer.limitSending(65536)
            peer.head()
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: \(total)\r\n\r\n")
            peer.sendPattern(total, sent)
        }) { gateway, _ in
            let client = try RawPeer(port: gateway.port, receiveBuffer: 65536)
            client.send(Self.get)
            let isStill = await settles(sent)
            #expect(isStill && sent.count < 24_000_000, "\(sent.count) bytes are on their way")
            #expect(client.head().hasPrefix("HTTP/1.1 200 OK"))
            let got = await onThread { client.readPattern(total) }
            #expect(got == total && sent.count == total)
        }
    }

    /// The backend reads nothing: the client is held back.
    @Test(arguments: [true, false]) func aSlowUploadHoldsTheClientBack(isChunked: Bool) async throws {
        let sent = Tally(), seen = Tally(), go = Tally()
        let total = 48_000_000
        try await withBackend(
            { peer, _ in
                peer.limitReceiving(65536)
                peer.head()
                while go.count == 0 { usleep(10_000) }
                if isChunked {
                    while let size = Int(peer.line(), radix: 16), size > 0 {
                        seen.add(peer.read(size).count)
                        peer.line()
                    }
                    peer.line()
                } else {
                    seen.add(peer.readPattern(total))
                }
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            }, options: "body: 64Mi,"
        ) { gateway, _ in
            let client = try RawPeer(port: gateway.port)
            client.limitSending(65536)
            client.send(
                "POST / HTTP/1.1\r\nHost: "
                    + "a\r\n\(isChunked ? "Transfer-Encoding: chunked\r\n\r\n\(String(total, radix: 16))" : "Content-Length: \(total)\r\n")\r\n"
            )
            startThread {
                client.sendPattern(total, sent)
                if isChunked { client.send("\r\n0\r\n\r\n") }
            }
            let isStill = await settles(sent)
            #expect(isStill && sent.count < 24_000_000, "\(sent.count) bytes are on their way")
            go.add()
            let isWhole = await eventually(.seconds(20)) { seen.count == total }
            #expect(isWhole)
            #expect(client.answer().head.hasPrefix("HTTP/1.1 200 OK"))
        }
    }

    /// Whether a count has stopped growing after it began to.
    private func settles(_ count: Tally) async -> Bool {
        var last = 0
        return await eventually {
            last = count.count
            try? await Task.sleep(for: .milliseconds(150))
            return last > 0 && count.count == last
        }
    }

    /// Answers without a body, whatever their heads say of one, and the next request on the same connection.
    @Test(arguments: [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n", 304),
    ])
    func answersWithoutABody(method: String, answer: String, status: Int) async throws {
        try await withBackend({ peer, _ in
            while true {
                let head = peer.head()
                guard head.contains("HTTP/1.1\r\n") else { return }
                peer.send(head.hasPrefix("GET /last") ? "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast" : answer)
            }
        }) { gateway, backend in
            let client = try RawPeer(port: gateway.port)
            for _ in 0..<2 {
                client.send("\(method) / HTTP/1.1\r\nHost: a\r\n\r\n")
                #expect(client.head().hasPrefix("HTTP/1.1 \(status) "))
            }
            client.send("GET /last HTTP/1.1\r\nHost: a\r\n\r\n")
            let last = client.answer()
            #expect(last.head.hasPrefix("HTTP/1.1 200 OK\r\n") && last.body == "last")
            #expect(backend.made.count == 1)
        }
    }

    /// The gateway asks for the body itself, so that no backend's silence holds the client up.
    @Test func whoeverWaitsToBeAskedForTheBodyIsAsked() async throws {
        try await withBackend({ peer, _ in
            let head = peer.head()
            #expect(!head.lowercased().contains("expect:"))
            let body = peer.text(4)
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\(body)")
        }) { gateway, _ in
            let client = try RawPeer(port: gateway.port)
            client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
            #expect(client.head() == "HTTP/1.1 100 Continue\r\n\r\n")
            client.send("body")
            #expect(client.answer().body == "body")
        }
    }

    /// An answer before the request is whole reaches the client, which is told that the connection ends; neither connection is used again.
    @Test func anEarlyAnswerIsPassedOn() async throws {
        try await withBackend({ peer, number in
            peer.head()
            peer.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
            _ = peer.readToEnd()
        }) { gateway, backend in
            for expected in 1...2 {
                let client = try RawPeer(port: gateway.port)
                client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nthe beginning")
                let answer = client.answer()
                #expect(answer.head.hasPrefix("HTTP/1.1 401 ") && answer.head.contains("Connection: close") && answer.body == "no")
                #expect(backend.made.count == expected)
            }
            let isOver = await eventually { gateway.inFlight == 0 && backend.open.count == 0 }
            #expect(isOver)
        }
    }

    /// Trailers and chunk extensions are not passed on, and do not disturb what follows.
    @Test func trailersEndHere() async throws {
        try await withBackend({ peer, _ in
            while peer.head().contains("HTTP/1.1\r\n") {
                peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3;a=b\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n")
            }
        }) { gateway, backend in
            for _ in 0..<3 {
                let answer = try await gateway.send()
                #expect(answer.text == "abc" && answer.header("x-sum") == nil && answer.header("trailer") == nil)
            }
            #expect(backend.made.count == 1)
        }
    }

    // MARK: attacks

    /// Many half heads are ended after their time; whoever asks properly is served meanwhile.
    @Test func halfHeadsAreEndedAfterTheirTime() async throws {
        try await withNamed("a") { a in
            try await withLive("{ path: /, backends: [127.0.0.1:\(a)] }", more: ["limits: { head-time: 1s }"]) { gateway in
                var slow: [RawPeer] = []
                for i in 0..<60 {
                    let client = try RawPeer(port: gateway.port)
                    if i % 3 > 0 { client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow") }
                    slow.append(client)
                }
                let served = try await gateway.statuses(10)
                #expect(served == [Int](repeating: 200, count: 10))
                // A byte now and then buys no more time.
                for _ in 0..<3 {
                    try await Task.sleep(for: .milliseconds(50))
                    for client in slow.dropFirst(40) { client.send("w") }
                }
                let peers = slow
                let answers = await onThread { peers.map { String(decoding: $0.readToEnd(), as: UTF8.self) } }
                // One that sends on after it was told so may lose the answer to a reset; who has sent nothing is ended without a word.
                #expect(answers.allSatisfy { $0.isEmpty || $0.hasPrefix("HTTP/1.1 408 ") })
                #expect(answers.filter { !$0.isEmpty }.count >= 20)
                let after = try await gateway.statuses(2)
                #expect(after == [200, 200])
            }
        }
    }

    @Test(arguments: ["fields", "size", "one"]) func tooManyFieldsAre431(kind: String) async throws {
        try await withNamed("a") { a in
            try await withLive("{ path: /, backends: [127.0.0.1:\(a)] }", more: ["limits: { head: 8Ki, fields: 50 }"]) { gateway in
                let fields: [String: String] = [
                    "fields": (0..<51).map { "X-\($0): v\r\n" }.joined(),
                    "size": (0..<20).map { "X-\($0): \(String(repeating: "v", count: 500))\r\n" }.joined(),
                    "one": "X-Endless: " + String(repeating: "v", count: 9000),
                ]
                let client = try RawPeer(port: gateway.port)
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\(fields[kind]!)\r\n")
                let answer = client.answer()
                #expect(answer.head.hasPrefix("HTTP/1.1 431 ") && answer.body.contains("head_too_large"))
                let served = try await gateway.send(headers: (0..<40).map { ("X-\($0)", "v") })
                #expect(served.status == 200)
            }
        }
    }

    /// Clients that ask for much and read nothing: their backends are held back, and others are served.
    @Test func clientsThatReadNothingHarmNobody() async throws {
        let sent = Tally()
        try await withBackend({ peer, _ in
            while true {
                let head = peer.head()
                guard head.contains("HTTP/1.1\r\n") else { return }
                guard head.hasPrefix("GET /large") else {
                    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    continue
                }
                peer.limitSending(65536)
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
                peer.sendPattern(100_000_000, sent)
            }
        }) { gateway, backend in
            var greedy: [RawPeer] = []
            for _ in 0..<8 {
                let client = try RawPeer(port: gateway.port, receiveBuffer: 8192)
                client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
                greedy.append(client)
            }
            let isStill = await settles(sent)
            #expect(isStill && sent.count < 8 * 12_000_000, "\(sent.count)")
            let served = try await gateway.statuses(5)
            #expect(served == [200, 200, 200, 200, 200])
            greedy = []
            let isOver = await eventually { gateway.inFlight == 0 }
            #expect(isOver)
        }
    }
}
