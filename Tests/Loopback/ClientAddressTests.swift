import Basics
import EventLoops
import Glibc
import HTTP
import TestSupport
import Testing

/// Who the client is, whom the gateway believes about it, and how many connections a client may have.
@Suite(.serialized) struct ClientAddressTests {
    private static let trusted = ["trusted-proxies: [127.0.0.1, 10.0.0.0/8, \"2001:db8::/32\"]"]

    @Test func aTrustedProxySaysWhoTheClientIs() async throws {
        try await withEcho { port, _ in
            try await withGateway("{ path: /, backends: [127.0.0.1:\(port)] }", keys: Self.trusted) { gateway in
                for (said, client) in [
                    (["9.9.9.9"], "9.9.9.9"), (["1.1.1.1, 9.9.9.9, 10.0.0.1"], "9.9.9.9"), (["10.0.0.2, 10.0.0.1"], "10.0.0.2"),
                    (["9.9.9.9, what, 10.0.0.1"], "10.0.0.1"),
                    (["9.9.9.9,"], "9.9.9.9"), ([" , ,9.9.9.9 ,10.0.0.1"], "9.9.9.9"), (["9.9.9.9:1234"], "127.0.0.1"),
                    (["unknown"], "127.0.0.1"), ([], "127.0.0.1"),
                    (["2001:db9::1"], "2001:db9::1"), (["[2001:db9::1]"], "2001:db9::1"), (["2001:DB9:0::1, 2001:db8::5"], "2001:db9::1"),
                    (["::ffff:9.9.9.9"], "9.9.9.9"),
                    (["9.9.9.9", "10.0.0.1"], "9.9.9.9"), (["8.8.8.8", "9.9.9.9"], "9.9.9.9"), (["9.9.9.9, 10.0.0.256"], "127.0.0.1"),
                    ([String(repeating: "9", count: 3000)], "127.0.0.1"),
                ] {
                    let answer = try gateway.ask("GET /", said.map { "X-Forwarded-For: \($0)" })
                    let fields = RawAnswer("HTTP/1.1 200\r\n" + answer.body)
                    #expect(fields.all("x-real-ip") == [client], "\(said)")
                    #expect(
                        fields.all("x-forwarded-for").count == 1 && fields.field("x-forwarded-for")?.hasSuffix("127.0.0.1") == true,
                        "\(said)")
                }
            }
        }
    }

    @Test func whatAnyoneElseSaysIsNotPassedOn() async throws {
        try await withEcho { port, _ in
            try await withGateway("{ path: /, backends: [127.0.0.1:\(port)] }", keys: Self.trusted) { gateway in
                let lies = [
                    "X-Forwarded-For: 9.9.9.9", "X-FORWARDED-FOR: 10.0.0.1", "X-Real-IP: 9.9.9.9", "X-Forwarded-Proto: https",
                    "X-Forwarded-Host: evil.test",
                    "Forwarded: for=9.9.9.9",
                    "X-Forwarded-Port: 443",
                ]
                let answer = try gateway.ask("GET /", lies, from: 0x7F00_0009)
                let fields = RawAnswer("HTTP/1.1 200\r\n" + answer.body)
                #expect(
                    fields.all("x-forwarded-for") == ["127.0.0.9"] && fields.all("x-real-ip") == ["127.0.0.9"]
                        && fields.all("x-forwarded-proto") == ["http"])
                #expect(
                    fields.all("x-forwarded-host") == ["test"] && fields.all("forwarded").isEmpty && fields.all("x-forwarded-port").isEmpty)
                let believed = RawAnswer("HTTP/1.1 200\r\n" + (try gateway.ask("GET /", lies)).body)
                #expect(
                    believed.all("x-forwarded-for") == ["9.9.9.9, 10.0.0.1, 127.0.0.1"] && believed.all("x-forwarded-proto") == ["https"])
                #expect(believed.all("x-forwarded-host") == ["evil.test"] && believed.all("forwarded") == ["for=9.9.9.9"])
            }
        }
    }

    // MARK: PROXY headers that come

    private static let proxied = ["trusted-proxies: [127.0.0.1, 10.0.0.0/8]", "proxy-protocol: true"]

    private func client(_ answer: RawAnswer) -> String {
        RawAnswer("HTTP/1.1 200\r\n" + answer.body).field("x-real-ip") ?? "none (\(answer.status))"
    }

    private static func rendered(_ version: ProxyHeader.Version, _ address: String) -> [UInt8] {
        var out = ByteBuffer()
        ProxyHeader.render(version, source: SocketAddress(IPAddress(address)!, port: 5000), into: &out)
        return Array(out.bytes)
    }

    private static let request = Array("GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 7.7.7.7\r\nConnection: close\r\n\r\n".utf8)

    @Test func aHeaderNamesTheClient() async throws {
        try await withEcho { port, _ in
            try await withGateway("{ path: /, backends: [127.0.0.1:\(port)] }", keys: Self.proxied) { gateway in
                for (header, expected) in [
                    (Self.rendered(.one, "9.9.9.9"), "9.9.9.9"), (Self.rendered(.two, "9.9.9.9"), "9.9.9.9"),
                    (Self.rendered(.one, "2001:db8::1"), "2001:db8::1"),
                    (Self.rendered(.two, "2001:db8::1"), "2001:db8::1"), (Array("PROXY UNKNOWN\r\n".utf8), "7.7.7.7"),
                    (Array("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".utf8), "7.7.7.7"),
                    (Self.rendered(.two, "9.9.9.9").prefix(12) + [0x20, 0, 0, 3, 4, 0, 0], "7.7.7.7"),
                    // A trusted proxy's name: what it says of its client counts.
                    (Self.rendered(.two, "10.0.0.1"), "7.7.7.7"),
                ] {
                    let whole = try RawSocket(port: gateway.endpoint.testPort)
                    whole.send(header + Self.request)
                    #expect(client(RawAnswer(whole.receive())) == expected)
                    let pieces = try RawSocket(port: gateway.endpoint.testPort)
                    for byte in header + Self.request.prefix(5) { pieces.send([byte]) }
                    pieces.send(Array(Self.request.dropFirst(5)))
                    #expect(client(RawAnswer(pieces.receive())) == expected)
                }
            }
        }
    }

    /// Such a connection ends without an answer.
    @Test func whoeverSpeaksOtherwiseIsCutOff() async throws {
        try await withEcho { port, tally in
            try await withGateway("{ path: /, backends: [127.0.0.1:\(port)] }", keys: Self.proxied) { gateway in
                let two = Self.rendered(.two, "9.9.9.9")
                for header in [
                    [], Array("PROXY TCP4 9.9.9.9 1.1.1.1 5000\r\n".utf8), Array("PROXY TCP4 9.9.9.999 1.1.1.1 1 2\r\n".utf8),
                    Array("PROXY TCP4 ::1 ::1 1 2\r\n".utf8),
                    Array("PROXY TCP4 9.9.9.9 1.1.1.1 1 70000\r\n".utf8), Array("PROXY TCP4 9.9.9.9 1.1.1.1 1 2\n".utf8),
                    Array("proxy UNKNOWN\r\n".utf8),
                    Array(("PROXY UNKNOWN " + String(repeating: "x", count: 200) + "\r\n").utf8),
                    two.prefix(12) + [0x31] + two.dropFirst(13),
                    two.prefix(14) + [0xFF, 0xFF] + [UInt8](repeating: 0, count: 8000), two.prefix(14) + [0, 3, 1, 1, 1],
                ] {
                    let socket = try RawSocket(port: gateway.endpoint.testPort)
                    socket.send(header + Self.request)
                    let answer = socket.receive()
                    #expect(answer.isEmpty, "\(header.prefix(40))")
                }
                let refused = gateway.gateway.metrics.counter("gateway_refused_total", "", labels: [("reason", "bad_proxy_header")]).current
                #expect(tally.count == 0 && refused == 11)
                let stranger = try RawSocket(port: gateway.endpoint.testPort, source: 0x7F00_0002)
                stranger.send(two + Self.request)
                let answer = RawAnswer(stranger.receive())
                #expect(answer.status == 403 && answer.body.contains("no_proxy") && tally.count == 0)
            }
        }
    }

    // MARK: PROXY headers that go

    private func hex(_ bytes: [UInt8]) -> String { bytes.withUnsafeBytes { hexText($0) } }

    @Test func backendsAreToldWhoseConnectionItIs() async throws {
        try await withRaw({ fd in
            let text = receiveHead(fd).withUnsafeBytes { hexText($0) }
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: \(text.utf8.count)\r\n\r\n" + text
            _ = send(fd, answer, answer.utf8.count, Int32(MSG_NOSIGNAL))
        }) { port, _ in
            try await withGateway(
                "{ path: /1, proxy-protocol: v1, backends: [127.0.0.1:\(port)] }",
                "{ path: /2, proxy-protocol: v2, backends: [127.0.0.1:\(port)] }",
                keys: ["trusted-proxies: [127.0.0.9]"]
            ) { gateway in
                let one = try gateway.ask("GET /1", from: 0x7F00_0002).body
                #expect(
                    one.hasPrefix(hex(Array("PROXY TCP4 127.0.0.2 0.0.0.0 ".utf8)))
                        && one.contains(hex(Array(" 0\r\nGET /1 HTTP/1.1\r\n".utf8))))
                let two = try gateway.ask("GET /2", from: 0x7F00_0002).body
                #expect(two.hasPrefix("0d0a0d0a000d0a515549540a2111000c7f00000200000000"))
                #expect(two.dropFirst(56).hasPrefix(hex(Array("GET /2 HTTP/1.1\r\n".utf8))))
                // Whom a trusted proxy names; which port it had is not known.
                let named = try gateway.ask("GET /1", ["X-Forwarded-For: 2001:db8::7"], from: 0x7F00_0009).body
                #expect(named.hasPrefix(hex(Array("PROXY TCP6 2001:db8::7 :: 0 0\r\nGET /1 ".utf8))))
            }
        }
    }

    /// A connection that has told of one client serves nobody else; others are kept for the next request.
    @Test(arguments: [true, false]) func introducedConnectionsAreNotShared(introduced: Bool) async throws {
        try await withRaw({ fd in
            for _ in 0..<3 {
                if receiveHead(fd).isEmpty { return }
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
                _ = send(fd, answer, answer.utf8.count, Int32(MSG_NOSIGNAL))
            }
        }) { port, tally in
            try await withGateway("{ path: /, \(introduced ? "proxy-protocol: v1, " : "")backends: [127.0.0.1:\(port)] }") { gateway in
                for from in [2, 2, 3] as [UInt32] {
                    let answer = try gateway.ask(from: 0x7F00_0000 | from)
                    #expect(answer.body == "x")
                }
                #expect(tally.count == (introduced ? 3 : 1))
            }
        }
    }

    // MARK: how many, and how large

    @Test func aClientHasSoManyConnections() async throws {
        try await withGateway("{ path: /, answer: { body: x } }", keys: ["limits: { per-client: 2 }"]) { gateway in
            func open(_ from: UInt32) throws -> RawSocket {
                let socket = try RawSocket(port: gateway.endpoint.testPort, source: from)
                socket.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                return socket
            }
            func status(_ socket: RawSocket) -> Int { RawAnswer(socket.receive { $0.contains("\r\n\r\n") }).status }
            let first = try open(0x7F00_0002), second = try open(0x7F00_0002)
            #expect(status(first) == 200 && status(second) == 200)
            let third = try open(0x7F00_0002)
            let answer = RawAnswer(third.receive())
            #expect(answer.status == 429 && answer.body.contains("too_many_connections"))
            let other = try open(0x7F00_0003)
            #expect(status(other) == 200)
            second.finishSending()
            let hasPlace = try await eventually { try status(open(0x7F00_0002)) == 200 }
            #expect(hasPlace)
            withExtendedLifetime((first, second, other)) {}
        }
    }

    /// Behind a proxy it is the client that counts, not the proxy.
    @Test func whomAHeaderNamesIsCounted() async throws {
        try await withGateway("{ path: /, answer: { body: x } }", keys: Self.proxied + ["limits: { per-client: 1 }"]) { gateway in
            func open(_ name: String) throws -> (RawSocket, Int) {
                let socket = try RawSocket(port: gateway.endpoint.testPort)
                socket.send(Self.rendered(.one, name) + Array("GET / HTTP/1.1\r\nHost: a\r\n\r\n".utf8))
                return (socket, RawAnswer(socket.receive { $0.contains("\r\n\r\n") }).status)
            }
            let (first, one) = try open("9.9.9.1"), (second, two) = try open("9.9.9.2"), (third, three) = try open("9.9.9.1")
            #expect([one, two, three] == [200, 200, 429])
            withExtendedLifetime((first, second, third)) {}
        }
    }

    @Test func theGatewayHasSoManyConnections() async throws {
        try await withGateway("{ path: /, answer: { body: x } }", keys: ["limits: { connections: 2 }"]) { gateway in
            var open: [RawSocket] = []
            var statuses: [Int] = []
            for i in 0..<3 {
                let socket = try RawSocket(port: gateway.endpoint.testPort, source: 0x7F00_0002 + UInt32(i))
                socket.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                statuses.append(RawAnswer(socket.receive { $0.contains("\r\n\r\n") }).status)
                open.append(socket)
            }
            #expect(statuses == [200, 200, 503])
            open = []
            let free = try await eventually { try gateway.ask().status == 200 }
            #expect(free)
        }
    }

    /// So many are taken whatever loops the kernel gives them to: it spreads them by chance.
    @Test func connectionsAreCountedOverAllLoops() async throws {
        let most = 40
        try await withGateway("{ path: /, answer: { body: x } }", keys: ["limits: { connections: \(most) }"], threads: 4) { gateway in
            func open() throws -> (RawSocket, Int) {
                let socket = try RawSocket(port: gateway.endpoint.testPort)
                socket.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                return (socket, RawAnswer(socket.receive { $0.contains("\r\n\r\n") }).status)
            }
            var all: [RawSocket] = []
            for i in 1...most {
                let (socket, status) = try open()
                #expect(status == 200, "\(i)")
                all.append(socket)
            }
            #expect(try open().1 == 503)
            all.removeFirst(most / 2)
            let isFree = try await eventually { try open().1 == 200 }
            #expect(isFree)
            withExtendedLifetime(all) {}
        }
    }

    @Test func headsHaveTheirLimits() async throws {
        try await withGateway("{ path: /, answer: { body: x } }", keys: ["limits: { head: 1Ki, fields: 10 }"]) { gateway in
            let many = (0..<8).map { "X-\($0): 1" }
            let within = try gateway.ask("GET /", many), beyond = try gateway.ask("GET /", many + ["X-9: 1"])
            #expect(within.status == 200 && beyond.status == 431)
            let small = try gateway.ask("GET /", ["X: " + String(repeating: "x", count: 900)])
            let large = try gateway.ask("GET /", ["X: " + String(repeating: "x", count: 1100)])
            #expect(small.status == 200 && large.status == 431)
        }
    }
}
