import Basics
import EventLoops
import Gateway
import Glibc
import Synchronization
import TestSupport
import Testing

/// Whose fault it is: what a client makes slow, late or incomplete is on nobody else's account.
@Suite struct GatewayFaultTests {
    private static let fine = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    private static let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"

    /// Reads requests whole and answers them, `wait` after the last byte.
    private static func decent(_ wait: UInt32 = 0) -> @Sendable (RawPeer, Int) -> Void {
        { peer, _ in
            while true {
                let head = peer.head()
                guard head.contains("HTTP/1.1\r\n") else { return }
                if head.contains("chunked") {
                    _ = peer.readToEnd()
                    return
                }
                if head.contains("Content-Length: 9"), peer.text(9).utf8.count < 9 { return }
                if wait > 0 { usleep(wait) }
                peer.send(fine)
            }
        }
    }

    private func breaker(_ gateway: LiveGateway) -> [String] {
        gateway.records(.breaker).map(\.outcome)
    }

    /// The route's time is over while the client has not sent its body: in one piece, in drips, in chunks.
    @Test(arguments: ["x", "", "chunks"]) func aSlowUploadHarmsNobody(part: String) async throws {
        try await withRaw(Self.decent()) { a in
            try await withRaw(Self.decent()) { b in
                let backends = "backends: [127.0.0.1:\(a.port), 127.0.0.1:\(b.port)]"
                try await withLive("{ path: /, timeout: { total: 300ms }, breaker: { failures: 2 }, eject: { failures: 2 }, \(backends) }")
                {
                    gateway in
                    var clients: [RawPeer] = []
                    for _ in 0..<8 {
                        let client = try RawPeer(port: gateway.port)
                        let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
                        client.send(part == "chunks" ? chunked : Self.post + part)
                        clients.append(client)
                    }
                    for client in clients {
                        let answer = client.answer()
                        #expect(answer.head.hasPrefix("HTTP/1.1 504 ") && answer.body.contains("deadline_exceeded"), "\(answer)")
                    }
                    #expect(gateway.states == ["ready", "ready"] && breaker(gateway).isEmpty)
                    #expect(try await gateway.statuses(4) == [200, 200, 200, 200])
                }
            }
        }
    }

    /// The body came whole at last, but had used up most of the time.
    @Test func whoHadNoTimeLeftHasNotFailed() async throws {
        try await withRaw(Self.decent(200_000)) { a in
            try await withLive(
                "{ path: /, timeout: { total: 400ms }, breaker: { failures: 1 }, eject: { failures: 1 }, backends: [127.0.0.1:\(a.port)] }"
            ) { gateway in
                let client = try RawPeer(port: gateway.port)
                client.send(Self.post + "12345678")
                usleep(300_000)
                client.send("9")
                #expect(client.answer().head.hasPrefix("HTTP/1.1 504 "))
                #expect(gateway.states == ["ready"] && breaker(gateway).isEmpty)
                #expect(try await gateway.send().status == 200)
            }
        }
    }

    /// But one that had the time has: a whole request, or one that it does not read.
    @Test(arguments: ["GET", "POST"]) func whoHadTheTimeHasFailed(method: String) async throws {
        try await withRaw({ peer, _ in
            peer.limitReceiving(4096)
            usleep(3_000_000)
        }) { a in
            try await withLive(
                "{ path: /, body: 64Mi, timeout: { total: 500ms }, breaker: { failures: 1 }, backends: [127.0.0.1:\(a.port)] }"
            ) { gateway in
                let client = try RawPeer(port: gateway.port)
                if method == "GET" { client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n") }
                if method == "POST" {
                    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\n")
                    startThread { client.sendPattern(30_000_000) }
                }
                let opened = await eventually(.seconds(3)) { breaker(gateway) == ["open"] }
                #expect(opened)
            }
        }
    }

    /// A replica that does not read has `timeout.response` for that; the client is not told that its body was late.
    @Test func whoeverDoesNotReadIsLate() async throws {
        try await withRaw({ peer, _ in
            peer.limitReceiving(4096)
            usleep(3_000_000)
        }) { a in
            try await withLive(
                "{ path: /, body: 64Mi, timeout: { response: 400ms }, breaker: { failures: 1 }, backends: [127.0.0.1:\(a.port)] }"
            ) { gateway in
                let client = try RawPeer(port: gateway.port)
                client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\n")
                startThread { client.sendPattern(30_000_000) }
                let answer = await onThread { client.answer() }
                #expect(answer.head.hasPrefix("HTTP/1.1 504 ") && answer.body.contains("backend_timeout"), "\(answer)")
                #expect(breaker(gateway) == ["open"])
            }
        }
    }

    /// A replica that gives up waiting for the rest of a body does what it should, whatever it says then.
    @Test(arguments: ["", "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 500 Late\r\nContent-Length: 0\r\n\r\n"])
    func whoGivesUpWaitingHasNotFailed(word: String) async throws {
        try await withRaw({ peer, _ in
            let head = peer.head()
            if head.hasPrefix("GET") {
                _ = peer.send(Self.fine)
                return
            }
            usleep(100_000)
            if !word.isEmpty { peer.send(word) }
        }) { a in
            try await withLive(
                "{ path: /, breaker: { failures: 1 }, eject: { failures: 1, errors: true }, backends: [127.0.0.1:\(a.port)] }"
            ) { gateway in
                for _ in 0..<4 {
                    let client = try RawPeer(port: gateway.port)
                    client.send(Self.post + "x")
                    _ = client.head()
                }
                #expect(gateway.states == ["ready"] && breaker(gateway).isEmpty)
                #expect(try await gateway.send().status == 200)
            }
        }
    }

    /// A replica that answers an error at once, before the rest of a body is there, has not waited for anybody.
    @Test func anErrorAtOnceIsTheReplicasOwn() async throws {
        try await withRaw({ peer, _ in
            _ = peer.head()
            peer.send("HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n")
        }) { a in
            try await withLive("{ path: /, breaker: { failures: 1 }, eject: { errors: true }, backends: [127.0.0.1:\(a.port)] }") {
                gateway in
                let client = try RawPeer(port: gateway.port)
                client.send(Self.post + "x")
                #expect(client.head().hasPrefix("HTTP/1.1 500 "))
                #expect(breaker(gateway) == ["open"])
            }
        }
    }

    /// A client that hardly reads, and a replica that gives up sending to it.
    @Test func whoGivesUpSendingHasNotFailed() async throws {
        try await withRaw({ peer, _ in
            let head = peer.head()
            if head.hasPrefix("GET /small") {
                _ = peer.send(Self.fine)
                return
            }
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 40000000\r\n\r\n")
            var limit = timeval(tv_sec: 0, tv_usec: 300_000)
            setsockopt(peer.fd, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
            peer.sendPattern(40_000_000)
        }) { a in
            try await withLive("{ path: /, breaker: { failures: 1 }, eject: { failures: 1 }, backends: [127.0.0.1:\(a.port)] }") {
                gateway in
                for _ in 0..<3 {
                    let client = try RawPeer(port: gateway.port)
                    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
                    _ = client.head()
                    let hasGivenUp = await eventually(.seconds(10)) { a.open.count == 0 }
                    let got = client.readToEnd().count
                    #expect(hasGivenUp && got > 0 && got < 40_000_000, "\(got)")
                }
                #expect(gateway.states == ["ready"] && breaker(gateway).isEmpty)
                #expect(try await gateway.send("GET", "/small").status == 200)
            }
        }
    }

    /// But a replica that breaks off long after the client held it up has failed: what the kernels held is read by then.
    @Test func whoBreaksOffLaterHasFailed() async throws {
        try await withRaw({ peer, _ in
            peer.head()
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 40000000\r\n\r\n")
            // In whole periods of the pattern, so that its pieces fit together.
            peer.sendPattern(192 * 65_521)
            // From here on slower than the client reads, so that nothing of it makes the replica wait.
            for _ in 0..<320 {
                peer.sendPattern(65_521)
                usleep(4000)
            }
        }) { a in
            try await withLive("{ path: /, breaker: { failures: 1 }, backends: [127.0.0.1:\(a.port)] }") { gateway in
                let client = try RawPeer(port: gateway.port)
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                client.head()
                usleep(200_000)
                #expect(client.readPattern(512 * 65_521) > 500 * 65_521)
                #expect(await eventually { breaker(gateway) == ["open"] })
            }
        }
    }

    /// The half-open breaker's trial is an upload that does not go on, or whose client is gone: others may try.
    @Test(arguments: ["stands still", "drips", "is reset", "ends"]) func anUploadDoesNotHoldTheTrial(what: String) async throws {
        let isBad = Atomic<Bool>(true)
        try await withRaw({ peer, _ in
            guard !isBad.load(ordering: .relaxed) else { return }
            Self.decent()(peer, 1)
        }) { a in
            try await withLive(
                "{ path: /, retry: { attempts: 1 }, breaker: { failures: 1, recovery: 400ms }, eject: { failures: 1000 }, "
                    + "backends: [127.0.0.1:\(a.port)] }"
            ) { gateway in
                #expect(try await gateway.send().status == 502)
                #expect(try await gateway.send().status == 503)
                isBad.store(false, ordering: .relaxed)
                usleep(450_000)
                var client: RawPeer? = try RawPeer(port: gateway.port)
                client?.send(Self.post + "x")
                usleep(50_000)
                if what == "drips" { client?.send("x") }
                if what == "is reset" { client?.resetOnClose() }
                if what == "is reset" || what == "ends" { client = nil }
                usleep(50_000)
                #expect(try await gateway.send().status == 200)
                #expect(breaker(gateway) == ["open", "closed"])
                _ = client
            }
        }
    }

    /// Uploads that do not go on do not take the places of an adaptive limit: it is about what the replicas do.
    @Test func slowUploadsTakeNoAdaptivePlaces() async throws {
        try await withRaw(Self.decent()) { a in
            try await withLive("{ path: /, concurrency: { adaptive: true }, backends: [127.0.0.1:\(a.port)] }") { gateway in
                var clients: [RawPeer] = []
                for _ in 0..<40 {
                    let client = try RawPeer(port: gateway.port)
                    client.send(Self.post + "x")
                    clients.append(client)
                }
                let areThere = await eventually { gateway.inFlight == 40 }
                #expect(areThere)
                #expect(try await gateway.statuses(5) == [200, 200, 200, 200, 200])
            }
        }
    }

    // MARK: clients that are gone

    /// Sends as much as goes, and resets.
    private func flood(_ port: UInt16, _ head: String) throws {
        let client = try RawPeer(port: port)
        client.send(head)
        let piece = [UInt8](repeating: 65, count: 65_536)
        var idle = 0
        while idle < 20 {
            if send(client.fd, piece, piece.count, Int32(Int(MSG_NOSIGNAL) | Int(MSG_DONTWAIT))) > 0 { continue }
            idle += 1
            usleep(5000)
        }
        client.resetOnClose()
    }

    /// While nothing of their bodies is read, because the replica does not read.
    @Test(arguments: ["Content-Length: 30000000", "Transfer-Encoding: chunked"]) func resetClientsGiveTheirPlacesBack(framing: String)
        async throws
    {
        try await withRaw({ peer, _ in
            peer.limitReceiving(4096)
            sleep(8)
        }) { a in
            let chunk = framing.hasPrefix("T") ? "1c9c380\r\n" : ""
            try await withLive("{ path: /, body: 64Mi, concurrency: { most: 4 }, backends: [127.0.0.1:\(a.port)] }") { gateway in
                for _ in 0..<4 { try flood(gateway.port, "POST / HTTP/1.1\r\nHost: a\r\n\(framing)\r\n\r\n\(chunk)") }
                let isOver = await eventually(.seconds(2)) { gateway.inFlight == 0 }
                #expect(isOver, "\(gateway.inFlight) under way")
                #expect(gateway.states == ["ready"])
            }
        }
    }

    /// One that pipelines more than is taken, and goes.
    @Test func aResetBehindAPipelineIsSeen() async throws {
        try await withRaw({ peer, _ in
            peer.head()
            sleep(8)
        }) { a in
            try await withLive("{ path: /, backends: [127.0.0.1:\(a.port)] }") { gateway in
                try flood(gateway.port, "GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\n")
                let isOver = await eventually(.seconds(2)) { gateway.inFlight == 0 }
                #expect(isOver)
            }
        }
    }
}
