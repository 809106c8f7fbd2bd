import Basics
import Glibc
import TestSupport
import Testing

/// Connections that are upgraded: what goes in on one side comes out on the other, and nothing else does.
@Suite struct TunnelTests {
    private static let ask =
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
    private static let switched =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\n"

    /// A tunnel through a gateway: `serve` is the backend after its 101, `body` the client after having read it.
    private func withTunnel(
        _ options: String = "", serve: @escaping @Sendable (RawPeer) -> Void, _ body: @escaping (LiveGateway, RawPeer) async throws -> Void
    ) async throws {
        let backend: @Sendable (RawPeer, Int) -> Void = { peer, _ in
            peer.head()
            peer.send(Self.switched)
            serve(peer)
        }
        try await withRaw(backend) { backend in
            try await withLive("{ path: /, \(options) backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let client = try RawPeer(port: gateway.port)
                client.send(Self.ask)
                let head = client.head()
                #expect(
                    head.hasPrefix("HTTP/1.1 101 Switching Protocols\r\n") && head.contains("Upgrade: websocket")
                        && head.contains("Sec-WebSocket-Accept: a"))
                try await body(gateway, client)
                let isOver = await eventually { gateway.inFlight == 0 && backend.open.count == 0 }
                #expect(isOver)
            }
        }
    }

    private static let tunnels = "gateway_tunnels{route=\"/\"}"

    @Test func bytesPassBothWaysAndTheGaugeCountsOpenOnes() async throws {
        try await withTunnel(serve: { peer in while peer.send(peer.read(5)), !peer.sawEnd {} }) { gateway, client in
            for word in ["hello", "there", "again"] {
                client.send(word)
                #expect(client.text(5) == word)
            }
            #expect(gateway.metric(Self.tunnels) == 1)
            #expect(gateway.inFlight == 1)
            client.finishSending()
            #expect(client.readToEnd().isEmpty && client.sawEnd)
            let isClosed = await eventually { gateway.metric(Self.tunnels) == 0 }
            #expect(isClosed)
        }
    }

    /// A client that does not wait for the 101: what it sends is the backend's once that has agreed, and not before.
    @Test func bytesRightAfterTheRequestArriveAfterTheSwitch() async throws {
        let early = Tally()
        try await withRaw({ peer, _ in
            let head = peer.head()
            #expect(head.contains("Upgrade: websocket\r\n") && head.contains("Connection: Upgrade\r\n"))
            var flags: [UInt8] = [0]
            usleep(50_000)
            early.add(max(0, recv(peer.fd, &flags, 1, Int32(Int(MSG_PEEK) | Int(MSG_DONTWAIT)))))
            peer.send(Self.switched)
            peer.send(peer.read(12))
        }) { backend in
            try await withLive("{ path: /, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let client = try RawPeer(port: gateway.port)
                client.send(Self.ask + "first")
                client.send(" second")
                #expect(client.head().hasPrefix("HTTP/1.1 101 "))
                #expect(client.text(12) == "first second")
                #expect(early.count == 0)
            }
        }
    }

    /// The client ends its side first and still gets everything.
    @Test func aClientThatHasSaidAllStillReads() async throws {
        let seen = Tally()
        try await withTunnel(serve: { peer in
            seen.add(peer.readPattern(3_000_000))
            seen.add(peer.readToEnd().count)
            peer.sendPattern(3_000_000)
        }) { gateway, client in
            let got = await onThread {
                client.sendPattern(3_000_000)
                client.finishSending()
                return client.readPattern(4_000_000)
            }
            #expect(got == 3_000_000 && client.sawEnd && seen.count == 3_000_000)
        }
    }

    /// The backend ends its side first; what the client still sends reaches it, however slowly it reads: in one of these sizes the last of
    /// it still waits in the gateway when the client's end comes.
    @Test(arguments: Array(stride(from: 200_000, through: 4_400_000, by: 200_000))) func aBackendThatHasSaidAllStillReads(total: Int)
        async throws
    {
        let seen = Tally(), sent = Tally()
        try await withTunnel(serve: { peer in
            peer.limitReceiving(65536)
            peer.send("bye")
            peer.finishSending()
            while sent.count == 0 { usleep(10_000) }
            usleep(100_000)
            seen.add(peer.readPattern(total + 1))
        }) { gateway, client in
            let end = await onThread {
                let end = client.readToEnd()
                client.sendPattern(total)
                client.finishSending()
                sent.add()
                return end
            }
            #expect(end == Array("bye".utf8) && client.sawEnd)
            let isRead = await eventually { seen.count > 0 }
            #expect(isRead && seen.count == total)
        }
    }

    /// Both ways at once, and whoever reads slowly slows the sender down: between the two only what the kernel and two windows hold.
    @Test(arguments: [true, false]) func aSlowReaderHoldsTheSenderBack(clientIsSlow: Bool) async throws {
        let sent = Tally(), right = Tally(), go = Tally()
        let total = 48_000_000
        let send: @Sendable (RawPeer) -> Void = { peer in
            peer.limitSending(65536)
            peer.sendPattern(total, sent)
            peer.finishSending()
        }
        let readSlowly: @Sendable (RawPeer) -> Void = { peer in
            while go.count == 0 { usleep(10_000) }
            right.add(peer.readPattern(total + 1))
        }
        try await withTunnel(serve: { peer in if clientIsSlow { send(peer) } else { readSlowly(peer) } }) { gateway, client in
            startThread { if clientIsSlow { readSlowly(client) } else { send(client) } }
            var last = -1
            let isStill = await eventually {
                defer { last = sent.count }
                if sent.count == last { try? await Task.sleep(for: .milliseconds(150)) }
                return sent.count == last && last > 0
            }
            #expect(isStill && sent.count < 24_000_000, "\(sent.count) bytes are on their way")
            go.add()
            let isWhole = await eventually(.seconds(20)) { right.count > 0 }
            #expect(isWhole && right.count == total && sent.count == total)
            client.finishSending()
        }
    }

    @Test func transfersBothWaysAtOnceAreExact() async throws {
        let right = Tally()
        try await withTunnel(serve: { peer in
            startThread {
                peer.sendPattern(8_000_000)
                peer.finishSending()
            }
            right.add(peer.readPattern(9_000_000))
        }) { gateway, client in
            startThread {
                client.sendPattern(8_000_000)
                client.finishSending()
            }
            let got = await onThread { client.readPattern(9_000_000) }
            #expect(got == 8_000_000)
            let isWhole = await eventually { right.count == 8_000_000 }
            #expect(isWhole)
        }
    }

    /// A backend that does not switch answers as to any request, and the connection goes on as HTTP.
    @Test func withoutAgreementItStaysHTTP() async throws {
        try await withRaw({ peer, _ in
            while peer.head().hasPrefix("GET") { peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno") }
        }) { backend in
            try await withLive("{ path: /, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let client = try RawPeer(port: gateway.port)
                for _ in 0..<2 {
                    client.send(Self.ask)
                    let answer = client.answer()
                    #expect(answer.head.hasPrefix("HTTP/1.1 200 OK\r\n") && answer.body == "no")
                }
                #expect(gateway.metric(Self.tunnels) == 0)
            }
        }
    }

    /// 101 to somebody who did not ask for it, or to a request with a body, is no answer.
    @Test(arguments: [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
    ])
    func aSwitchNobodyAskedForIs502(request: String) async throws {
        try await withRaw({ peer, _ in
            let head = peer.head()
            #expect(!head.lowercased().contains("upgrade"))
            peer.send(Self.switched + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhidden")
        }) { backend in
            try await withLive("{ path: /, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let client = try RawPeer(port: gateway.port)
                client.send(request)
                let answer = client.answer()
                #expect(answer.head.hasPrefix("HTTP/1.1 502 ") && answer.body.contains("backend_broke_http"))
            }
        }
    }

    @Test func whatARouteDoesNotAllowIsNotPassedOn() async throws {
        try await withRaw({ peer, _ in
            let head = peer.head()
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX-Asked: \(head.contains("Upgrade:") ? "yes" : "no")\r\n\r\nx")
        }) { backend in
            try await withLive("{ path: /, upgrade: [], backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let client = try RawPeer(port: gateway.port)
                client.send(Self.ask)
                #expect(client.answer().head.contains("X-Asked: no"))
            }
            try await withLive("{ path: /, upgrade: [my-protocol], backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let client = try RawPeer(port: gateway.port)
                client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: My-Protocol\r\n\r\n")
                #expect(client.answer().head.contains("X-Asked: yes"))
            }
        }
    }

    @Test func aTunnelOnWhichNothingMovesEnds() async throws {
        try await withTunnel("timeout: { tunnel: 300ms },", serve: { peer in while peer.send(peer.read(1)), !peer.sawEnd {} }) {
            gateway, client in
            #expect(client.readToEnd().isEmpty && client.sawEnd)
            let isClosed = await eventually { gateway.metric(Self.tunnels) == 0 }
            #expect(isClosed)
        }
    }

    @Test func drainingEndsTunnelsAfterTheGrace() async throws {
        try await withTunnel(serve: { peer in while peer.send(peer.read(1)), !peer.sawEnd {} }) { gateway, client in
            async let cut = gateway.gateway.drain(grace: .milliseconds(300))
            client.send("x")
            #expect(client.text(1) == "x")
            #expect(await cut == 1)
            _ = client.readToEnd()
            let isClosed = await eventually { gateway.metric(Self.tunnels) == 0 }
            #expect(isClosed)
        }
    }

    /// A client that has ended its side before the backend agreed: the backend learns of it.
    @Test func anEndBeforeTheSwitchIsPassedOn() async throws {
        let ended = Tally()
        try await withRaw({ peer, _ in
            peer.head()
            usleep(100_000)
            peer.send(Self.switched)
            #expect(peer.text(20) == "all")
            if peer.sawEnd { ended.add() }
            peer.send("seen")
        }) { backend in
            try await withLive("{ path: /, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let client = try RawPeer(port: gateway.port)
                client.send(Self.ask + "all")
                client.finishSending()
                #expect(client.head().hasPrefix("HTTP/1.1 101 "))
                let rest = await onThread { client.readToEnd() }
                #expect(rest == Array("seen".utf8) && ended.count == 1)
            }
        }
    }

    /// The backend is gone in the middle: what it sent before still comes, and then the end.
    @Test func aLostBackendEndsTheTunnel() async throws {
        try await withTunnel(serve: { peer in peer.send("last words") }) { gateway, client in
            let words = await onThread { client.readToEnd() }
            #expect(words == Array("last words".utf8))
            client.finishSending()
        }
    }
}
