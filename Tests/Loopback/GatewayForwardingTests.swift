import Basics
import EventLoops
import Gateway
import Glibc
import TestSupport
import Testing

/// What RFC 9110 and 9112 ask of whoever passes messages on, one by one (docs/decisions/0020).
@Suite struct GatewayForwardingTests {
    /// The head and the body that a client gets of a replica's `answer`.
    private func passed(_ answer: String, _ line: String = "GET /", _ fields: String = "", route: String = "") async throws -> (
        String, String
    ) {
        try await withRaw({ peer, _ in
            peer.head()
            peer.send(answer)
            usleep(20_000)
        }) { backend in
            var out = ("", "")
            try await withLive("{ path: /, \(route) retry: { attempts: 1 }, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let client = try RawPeer(port: gateway.port)
                client.send("\(line) HTTP/1.1\r\nHost: a\r\n\(fields)Connection: close\r\n\r\n")
                out.0 = client.head()
                out.1 = String(decoding: client.readToEnd(), as: UTF8.self)
            }
            return out
        }
    }

    /// The head that a replica gets, or what the gateway says itself.
    private func sent(_ line: String, _ fields: String, route: String = "", more: [String] = []) async throws -> (
        request: String, answer: String
    ) {
        let seen = Tally()
        return try await withEcho { port, _ in
            var out = ("", "")
            try await withLive("{ path: /, \(route) backends: [127.0.0.1:\(port)] }", more: more) { gateway in
                let client = try RawPeer(port: gateway.port)
                client.send("\(line) HTTP/1.1\r\nHost: a\r\n\(fields)Connection: close\r\n\r\n")
                let answer = client.answer()
                seen.add()
                out = (answer.body, answer.head)
            }
            return out
        }
    }

    private func withEcho<T>(_ body: (UInt16, Tally) async throws -> T) async throws -> T {
        try await withRaw({ peer, _ in
            let head = peer.head()
            peer.send("HTTP/1.1 200 OK\r\nX-Backend: a\r\nContent-Length: \(head.utf8.count)\r\n\r\n\(head)")
        }) { try await body($0.port, $0.made) }
    }

    @Test func anAnswerHasADate() async throws {
        let none = try await passed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").0
        #expect(none.split(separator: "\r\n").count { $0.hasPrefix("Date: ") && $0.hasSuffix(" GMT") } == 1)
        let own = try await passed("HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n").0
        #expect(own.contains("date: Sun, 06 Nov 1994") && !own.contains("Date: "))
        let removed = try await passed(
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", route: "response-headers: { remove: [Date] },"
        ).0
        #expect(!removed.lowercased().contains("date:"))
    }

    @Test(arguments: [
        ("451 Unavailable For Legal Reasons", "451 Unavailable For Legal Reasons"), ("426 Upgrade Required", "426 Upgrade Required"),
        ("200 Alles gut", "200 Alles gut"), ("511 ", "511 Network Authentication Required"), ("205 ", "205 Reset Content"),
        ("299 ", "299 "),
        ("418", "418 "), ("207", "207 Multi-Status"),
    ])
    func theReasonIsTheReplicasOrTheRegisteredOne(given: String, told: String) async throws {
        let head = try await passed("HTTP/1.1 \(given)\r\nContent-Length: 0\r\n\r\n").0
        #expect(head.hasPrefix("HTTP/1.1 \(told)\r\n"), "\(head)")
    }

    /// A status without a body has none, and says so as it must.
    @Test func bodiesWhereNoneMayBe() async throws {
        let none = try await passed("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello")
        #expect(none.0.hasPrefix("HTTP/1.1 204 ") && !none.0.lowercased().contains("content-length") && none.1.isEmpty)
        let chunked = try await passed("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        #expect(!chunked.0.lowercased().contains("transfer-encoding") && chunked.1.isEmpty)
        let reset = try await passed("HTTP/1.1 205 Reset Content\r\nContent-Length: 5\r\n\r\nhello")
        #expect(reset.0.contains("Content-Length: 0\r\n") && !reset.0.contains("Content-Length: 5") && reset.1.isEmpty)
        let chunkedReset = try await passed("HTTP/1.1 205 Reset Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        #expect(chunkedReset.0.contains("Content-Length: 0\r\n") && !chunkedReset.0.contains("chunked") && chunkedReset.1.isEmpty)
        let same = try await passed("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")
        #expect(same.0.contains("Content-Length: 5\r\n") && same.1.isEmpty)
        let head = try await passed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD /")
        #expect(head.0.contains("Content-Length: 5\r\n") && head.1.isEmpty)
    }

    /// What a 204 says too much is not taken for the next answer on that connection.
    @Test func aBodyOf204IsNobodysAnswer() async throws {
        try await withRaw({ peer, _ in
            while peer.head().contains("HTTP/1.1\r\n") {
                peer.send("HTTP/1.1 204 No Content\r\nContent-Length: 38\r\n\r\n")
                usleep(50_000)
                peer.send("HTTP/1.1 200 Evil\r\nContent-Length: 0\r\n\r\n")
            }
        }) { backend in
            try await withLive("{ path: /, retry: { attempts: 1 }, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                for _ in 0..<3 {
                    let answer = try await gateway.send()
                    #expect(answer.status == 204)
                    usleep(20_000)
                }
                #expect(backend.made.count == 3 && gateway.states == ["ready"])
            }
        }
    }

    /// Named by `Connection`, both ways.
    @Test func fieldsOfTheHopStayThere() async throws {
        let named = [
            "X-Hop", "Idempotency-Key", "Via", "Date", "X-Request-Timeout", "Proxy-Authenticate", "X-Request-Id", "Expect", "Host",
        ]
        let answer = try await passed(
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: \(named.joined(separator: ", "))\r\n"
                + named.map { "\($0): secret\r\n" }.joined() + "Keep-Alive: secret\r\nTE: secret\r\nTrailer: secret\r\nUpgrade: secret\r\n"
                + "Proxy-Connection: secret\r\n\r\n"
        ).0
        #expect(answer.contains("X-Request-Id: ") && answer.contains("Date: ") && !answer.contains("secret"), "\(answer)")
        let request = try await sent(
            "GET /",
            "Connection: X-Hop, Cookie, Authorization, Via\r\nX-Hop: secret\r\nCookie: secret\r\nAuthorization: secret\r\nVia: secret\r\n"
                + "TE: trailers, secret\r\nTrailer: secret\r\nKeep-Alive: secret\r\nProxy-Authorization: secret\r\n"
        ).request
        #expect(!request.isEmpty && !request.contains("secret"), "\(request)")
    }

    /// A 426 names what it wants; nothing else of the hop goes along.
    @Test func anUpgradeThatIsRequiredIsNamed() async throws {
        let head = try await passed(
            "HTTP/1.1 426 Upgrade Required\r\nUpgrade: HTTP/3.0\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n"
        ).0
        #expect(head.contains("Upgrade: HTTP/3.0\r\n") && head.contains("Connection: close, Upgrade\r\n"))
    }

    @Test func theGatewayNamesItselfInVia() async throws {
        let request = try await sent("GET /", "Via: 1.0 fred\r\n").request
        #expect(request.contains("Via: 1.0 fred\r\n") && request.contains("Via: 1.1 muster\r\n"))
        let removed = try await sent("GET /", "", route: "request-headers: { remove: [Via] },").request
        #expect(!removed.isEmpty && !removed.contains("Via"))
    }

    @Test(arguments: ["OPTIONS", "TRACE"]) func forwardsAreCounted(method: String) async throws {
        let passed = try await sent("\(method) /x", "Max-Forwards: 3\r\n")
        #expect(passed.request.contains("Max-Forwards: 2\r\n") && passed.answer.contains("X-Backend: a"))
        let last = try await sent("\(method) /x", "Max-Forwards: 0\r\nCookie: secret\r\nAuthorization: secret\r\n")
        #expect(last.answer.hasPrefix("HTTP/1.1 200 ") && !last.answer.contains("X-Backend") && !last.request.contains("secret"))
        if method == "TRACE" {
            #expect(last.answer.contains("Content-Type: message/http\r\n"))
            #expect(last.request.hasPrefix("TRACE /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n"))
        }
        let odd = try await sent("\(method) /x", "Max-Forwards: many\r\n")
        #expect(odd.request.contains("Max-Forwards: many\r\n"))
        // It counts for these two methods only.
        let other = try await sent("GET /x", "Max-Forwards: 0\r\n").request
        #expect(other.contains("Max-Forwards: 0\r\n"))
    }

    /// Servers that map names to variables read these as the gateway's own.
    @Test(arguments: [[], ["trusted-proxies: [127.0.0.1]"]]) func otherSpellingsOfTrustedNamesAreDropped(more: [String]) async throws {
        let names = [
            "X_Forwarded_For", "X-Forwarded_For", "x_forwarded_proto", "X.Forwarded.Host", "X_Real_IP", "X_Request_Id", "Content_Length",
            "Transfer_Encoding", "X_Request_Timeout", "X_Secret", "X_Forwarded_Anything", "Keep_Alive",
        ]
        let request = try await sent(
            "GET /", names.map { "\($0): 6.6.6.6\r\n" }.joined() + "My_Own: 7.7.7.7\r\n",
            route: "request-headers: { set: { X-Secret: a } },",
            more: more
        ).request
        #expect(
            request.contains("My_Own: 7.7.7.7\r\n") && request.contains("X-Secret: a\r\n") && !request.contains("6.6.6.6"), "\(request)")
    }
}
