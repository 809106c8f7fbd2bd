import Basics
import EventLoops
import Glibc
import HTTP
import TestSupport
import Testing

/// Clients of HTTP/2 by prior knowledge: each stream is a request like one of HTTP/1.
@Suite struct HTTP2Tests {
    @Test func aRequestArrivesAsHTTP1AndItsAnswerComesBack() async throws {
        try await withEcho(fields: "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nKeep-Alive: timeout=5\r\nX-Big: Y\r\n") { port, _ in
            try await withLive("{ path: /, backends: [127.0.0.1:\(port)] }") { gateway in
                let peer = try HTTP2Peer(port: gateway.port)
                peer.send(.request(1, "GET", "/a?b=c", more: [("cookie", "x=1"), ("cookie", "y=2"), ("te", "trailers"), ("x-a", "b")]))
                let answer = peer.answer(1)
                #expect(answer.status == 200 && answer.ended && answer.heads.count == 1)
                for line in [
                    "GET /a?b=c HTTP/1.1\r\n", "Host: test\r\n", "cookie: x=1; y=2\r\n", "Via: 2.0 muster\r\n", "x-a: b\r\n",
                    "X-Forwarded-Proto: http\r\n", "X-Forwarded-For: 127.0.0.1\r\n",
                ] { #expect(answer.text.contains(line), "\(line)") }
                #expect(!answer.text.contains("trailers") && !answer.text.contains(":authority"))
                #expect(answer.all("set-cookie") == ["a=1", "b=2"] && answer.all("x-big") == ["Y"])
                let gone = ["connection", "keep-alive", "transfer-encoding"].flatMap { answer.all($0) }
                #expect(gone.isEmpty)
                #expect(gateway.metric("gateway_http2_connections") == 1)
            }
        }
    }

    @Test func streamsAreServedAtTheSameTime() async throws {
        try await withBackend("a") { port in
            try await withLive("{ path: /, backends: [127.0.0.1:\(port)] }") { gateway in
                let peer = try HTTP2Peer(port: gateway.port)
                let ids = (0..<50).map { UInt32($0 * 2 + 1) }
                peer.send(ids.map { .request($0, "GET", $0 % 4 == 1 ? "/slow" : "/") })
                for id in ids { #expect(peer.answer(id).status == 200) }
                let isDone = await eventually { gateway.inFlight == 0 }
                #expect(isDone)
            }
        }
    }

    /// More than all windows hold, in both directions, and back whole.
    @Test func bodiesPassBothWays() async throws {
        var router = Router()
        router.add("POST", "/") { request, _ in HTTPResponse(body: .bytes(request.body)) }
        let routes = router
        try await withLoop { loop in
            try await withServer(loop, routes) { endpoint in
                try await withLive("{ path: /, backends: [127.0.0.1:\(endpoint.testPort)] }") { gateway in
                    let got = try await onThread { Result { try Self.echo(gateway.port, count: 3_000_000) } }.get()
                    #expect(got.text.utf8.count == 3_000_000 && got.ended)
                }
            }
        }
    }

    /// Sends a body as the gateway's windows allow, and reads what comes back.
    private static func echo(_ port: UInt16, count: Int) throws -> HTTP2Answer {
        let peer = try HTTP2Peer(port: port)
        peer.send(.request(1, "POST", "/", ends: false))
        var sent = 0
        var given = (0, 0)
        while sent < count {
            let windows = (65_535 + given.0, 262_144 + given.1)
            let room = min(windows.0, windows.1) - sent
            if room > 0 {
                let part = min(room, 16_384, count - sent)
                sent += part
                peer.send(.data(1, [UInt8](repeating: 97, count: part), ends: sent == count))
                continue
            }
            guard peer.step() else { break }
            given = (0, 0)
            for frame in peer.others where frame.type == HTTP2Frame.windowUpdate {
                let more = Int(frame.payload.reduce(0) { $0 << 8 | UInt32($1) })
                if frame.stream == 0 { given.0 += more } else { given.1 += more }
            }
        }
        return peer.answer(1)
    }

    @Test func trailersReachABackendThatGetsChunks() async throws {
        try await withRaw({ peer, _ in
            let head = peer.head()
            #expect(head.contains("Transfer-Encoding: chunked"))
            var body = ""
            while !body.hasSuffix("\r\n\r\n") {
                let byte = peer.text(1)
                if byte.isEmpty { break }
                body += byte
            }
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
        }) { backend in
            try await withLive("{ path: /, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let peer = try HTTP2Peer(port: gateway.port)
                peer.send(
                    .request(1, "POST", "/", ends: false), .data(1, Array("abc".utf8)),
                    .headers(1, [("x-sum", "7"), ("authorization", "no"), ("host", "evil")]))
                #expect(peer.answer(1).text == "3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n")
            }
        }
    }

    @Test func interimAnswersPassAtOnce() async throws {
        try await withRaw({ peer, _ in
            peer.head()
            peer.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        }) { backend in
            try await withLive("{ path: /, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let peer = try HTTP2Peer(port: gateway.port)
                peer.send(.request(1))
                let answer = peer.answer(1)
                #expect(answer.heads.count == 2 && answer.heads[0].contains { $0 == (":status", "103") } && answer.text == "ok")
                #expect(answer.all("link") == ["</a.css>"])
            }
        }
    }

    @Test func whoeverWaitsForContinueGetsIt() async throws {
        try await withBackend("a") { port in
            try await withLive("{ path: /, backends: [127.0.0.1:\(port)] }") { gateway in
                let peer = try HTTP2Peer(port: gateway.port)
                peer.send(.request(1, "POST", "/", more: [("expect", "100-continue")], ends: false))
                peer.read { $0.answers[1]?.heads.isEmpty == false }
                #expect(peer.answers[1]?.status == 100)
                peer.send(.data(1, [1, 2, 3], ends: true))
                #expect(peer.answer(1).text.hasPrefix("a 3"))
            }
        }
    }

    @Test func anAnswerThatBreaksIsResetAndNotEnded() async throws {
        let go = Tally()
        try await withRaw({ peer, _ in
            peer.head()
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
            while go.count == 0 { usleep(5000) }
        }) { backend in
            try await withLive("{ path: /, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let peer = try HTTP2Peer(port: gateway.port)
                peer.send(.request(1))
                peer.read { $0.answers[1]?.body.count == 9 }
                go.add()
                let answer = peer.answer(1)
                #expect(answer.status == 200 && answer.text == "only this" && !answer.ended && answer.reset == 2)
                // The connection serves on.
                peer.send(.request(3, "GET", "/"))
                let next = peer.answer(3)
                #expect(next.reset == 2 && !next.ended)
            }
        }
    }

    @Test func aCancelFreesTheReplicaAtOnce() async throws {
        let ends = Tally()
        try await withRaw({ peer, _ in
            peer.head()
            _ = peer.readToEnd()
            ends.add()
        }) { backend in
            try await withLive("{ path: /, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let peer = try HTTP2Peer(port: gateway.port)
                peer.send(.request(1))
                let isAsked = await eventually { gateway.inFlight == 1 && backend.made.count == 1 }
                #expect(isAsked)
                peer.send(.reset(1))
                let isFree = await eventually { gateway.inFlight == 0 && ends.count == 1 }
                #expect(isFree)
            }
        }
    }

    @Test func aBodyOfAnotherLengthNeverCompletesTheBackendsRequest() async throws {
        let seen = Tally()
        try await withRaw({ peer, _ in
            #expect(peer.head().contains("content-length: 10\r\n"))
            seen.add(peer.readToEnd().count)
            seen.add(1000)
        }) { backend in
            try await withLive("{ path: /, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                for (body, code) in [([UInt8](repeating: 1, count: 4), 1), ([UInt8](repeating: 1, count: 11), 1)] {
                    let peer = try HTTP2Peer(port: gateway.port)
                    let before = seen.count
                    peer.send(.request(1, "POST", "/", more: [("content-length", "10")], ends: false), .data(1, [9]))
                    let isAsked = await eventually { gateway.inFlight == 1 }
                    #expect(isAsked)
                    peer.send(.data(1, body, ends: true))
                    #expect(peer.answer(1).reset == UInt32(code))
                    let isCut = await eventually { seen.count > before && gateway.inFlight == 0 }
                    #expect(isCut && seen.count - before < 1010)
                }
            }
        }
    }

    @Test func moreStreamsThanMayBeOpenAreRefusedAndTheOthersServed() async throws {
        try await withBackend("a") { port in
            try await withLive("{ path: /, backends: [127.0.0.1:\(port)] }") { gateway in
                let peer = try HTTP2Peer(port: gateway.port)
                let ids = (0..<140).map { UInt32($0 * 2 + 1) }
                peer.send(ids.map { .request($0, "GET", "/slow") })
                var served = 0, refused = 0
                for id in ids {
                    let answer = peer.answer(id)
                    if answer.status == 200 { served += 1 } else if answer.reset == 7 { refused += 1 }
                }
                #expect(served == 128 && refused == 12)
                let announced = peer.others.first { $0.type == HTTP2Frame.settings }?.payload ?? []
                let pairs = stride(from: 0, to: announced.count, by: 6).map { Array(announced[$0..<($0 + 6)]) }
                #expect(pairs.contains([0, 3, 0, 0, 0, 128]))
            }
        }
    }

    /// A backend that sends for ever, and a client that gives no window: what waits here is bounded, and the other streams go on.
    @Test func aReaderWithoutAWindowHoldsItsBackendAndNobodyElse() async throws {
        let sent = Tally()
        try await withRaw({ peer, _ in
            let head = peer.head()
            guard head.hasPrefix("GET /big") else {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                return
            }
            peer.limitSending(65536)
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 30000000\r\n\r\n")
            peer.sendPattern(30_000_000, sent)
        }) { backend in
            try await withLive("{ path: /, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let peer = try HTTP2Peer(port: gateway.port, settings: [(4, 1000)])
                peer.givesCredit = false
                peer.send(.request(1, "GET", "/big"))
                let isHeld = await eventually {
                    let before = sent.count
                    try? await Task.sleep(for: .milliseconds(300))
                    return before > 0 && sent.count == before
                }
                #expect(isHeld && sent.count < 12_000_000)
                peer.send(.request(3))
                #expect(peer.answer(3).text == "ok")
                peer.send(.reset(1))
                let isFree = await eventually { gateway.inFlight == 0 }
                #expect(isFree)
            }
        }
    }

    @Test func aHeadThatIsTooLargeIsAnswered() async throws {
        try await withBackend("a") { port in
            try await withLive("{ path: /, backends: [127.0.0.1:\(port)] }", more: ["limits: { head: 4Ki }"]) { gateway in
                let peer = try HTTP2Peer(port: gateway.port)
                peer.send(.request(1, more: [("x", String(repeating: "y", count: 5000))]))
                #expect(peer.answer(1).status == 431)
                peer.send(.request(3))
                #expect(peer.answer(3).status == 200)
                // Four times as much is no request any more.
                peer.send(.request(5, more: [("x", String(repeating: "y", count: 16_000)), ("z", String(repeating: "y", count: 300))]))
                #expect(peer.goodbye() == 11)
                #expect(gateway.metric("gateway_http2_floods_total{reason=\"fields\"}") == 1)
            }
        }
    }

    @Test func webSocketsPassByExtendedConnect() async throws {
        try await withRaw({ peer, _ in
            let head = peer.head()
            #expect(head.hasPrefix("GET /chat HTTP/1.1\r\n") && head.contains("Upgrade: websocket\r\n"))
            #expect(head.contains("sec-websocket-key: ") && head.contains("sec-websocket-version: 13\r\n"))
            peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\n")
            while peer.send(peer.read(5)), !peer.sawEnd {}
        }) { backend in
            try await withLive("{ path: /, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let peer = try HTTP2Peer(port: gateway.port)
                let pseudo = [
                    (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "a"), (":path", "/chat"),
                ]
                peer.send(.headers(1, pseudo + [("sec-websocket-version", "13")], ends: false))
                peer.read { $0.answers[1]?.heads.isEmpty == false }
                #expect(peer.answers[1]?.status == 200 && peer.answers[1]?.all("upgrade").isEmpty == true)
                for word in ["hello", "again"] {
                    let before = peer.answers[1]?.body.count ?? 0
                    peer.send(.data(1, Array(word.utf8)))
                    peer.read { ($0.answers[1]?.body.count ?? 0) == before + 5 }
                }
                #expect(peer.answers[1]?.text == "helloagain")
                #expect(gateway.metric("gateway_tunnels{route=\"/\"}") == 1)
                peer.send(.data(1, [], ends: true))
                #expect(peer.answer(1).ended)
                let isOver = await eventually { gateway.inFlight == 0 }
                #expect(isOver)
            }
        }
    }

    /// A backend that answers an upgrade with 200 has not agreed to a tunnel; for HTTP/2, 200 would say that it has.
    @Test func whatIsNoAgreementOpensNoTunnel() async throws {
        try await withEcho { port, _ in
            try await withLive("{ path: /, backends: [127.0.0.1:\(port)] }") { gateway in
                let peer = try HTTP2Peer(port: gateway.port)
                let pseudo = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
                peer.send(.headers(1, pseudo, ends: false))
                #expect(peer.answer(1).status == 502)
            }
        }
    }

    /// Two GOAWAYs: what is on its way meanwhile is served, and what is under way finishes.
    @Test func drainingLosesNoStream() async throws {
        let go = Tally()
        try await withRaw({ peer, _ in
            while peer.head() != "" {
                while go.count == 0 { usleep(5000) }
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            }
        }) { backend in
            try await withLive("{ path: /, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let peer = try HTTP2Peer(port: gateway.port)
                peer.send(.request(1))
                let isAsked = await eventually { gateway.inFlight == 1 }
                #expect(isAsked)
                async let cut = gateway.gateway.drain(grace: .seconds(10))
                // A stream that begins before the client has read the first GOAWAY.
                peer.send(.request(3))
                peer.read { !$0.goAways.isEmpty }
                #expect(peer.goAways[0].payload.prefix(4) == [0x7F, 0xFF, 0xFF, 0xFF])
                go.add()
                #expect(peer.answer(1).text == "ok" && peer.answer(3).text == "ok")
                #expect(peer.goodbye() == 0)
                #expect(peer.goAways.count == 2 && peer.goAways[1].payload[3] == 3 && peer.raw.sawEnd)
                #expect(await cut == 0)
            }
        }
    }

    @Test func withoutTheKeyThePrefaceIsNoRequest() async throws {
        try await withBackend("a") { port in
            try await withLive("{ path: /, backends: [127.0.0.1:\(port)] }", more: ["http2: false"]) { gateway in
                let peer = try RawPeer(port: gateway.port)
                peer.send(HTTP2Frame.preface)
                #expect(peer.head().hasPrefix("HTTP/1.1 505 "))
            }
        }
    }

    /// The preface in pieces, and what only begins like it.
    @Test func thePrefaceMayComeInPieces() async throws {
        try await withBackend("a") { port in
            try await withLive("{ path: /, backends: [127.0.0.1:\(port)] }") { gateway in
                let raw = try RawPeer(port: gateway.port)
                for byte in HTTP2Frame.preface { raw.send([byte]) }
                raw.send(HTTP2Frame.settings().bytes + HTTP2Frame.request(1).bytes)
                #expect(try HTTP2Peer(raw).answer(1).status == 200)
                let other = try RawPeer(port: gateway.port)
                other.send("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
                #expect(other.head().hasPrefix("HTTP/1.1 505 "))
            }
        }
    }

    private static let chunkedAnswer =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\nSet-Cookie: no=1\r\n\r\n"

    /// Fields after a body reach who takes them, and nobody else.
    @Test func trailersOfAnAnswerPass() async throws {
        try await withRaw({ peer, _ in
            while peer.head() != "" { peer.send(Self.chunkedAnswer) }
        }) { backend in
            try await withLive("{ path: /, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let peer = try HTTP2Peer(port: gateway.port)
                peer.send(.request(1))
                let answer = peer.answer(1)
                #expect(answer.text == "abc" && answer.heads.count == 2 && answer.heads[1].map(\.name) == ["x-sum"])
                for (te, end) in [("", "0\r\n\r\n"), ("TE: trailers\r\n", "0\r\nX-Sum: 7\r\n\r\n")] {
                    let old = try RawPeer(port: gateway.port)
                    old.send("GET / HTTP/1.1\r\nHost: a\r\n\(te)Connection: close\r\n\r\n")
                    #expect(old.head().hasPrefix("HTTP/1.1 200 "))
                    #expect(String(decoding: old.readToEnd(), as: UTF8.self) == "3\r\nabc\r\n" + end)
                }
            }
        }
    }
}
