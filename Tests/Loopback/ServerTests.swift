import Basics
import EventLoops
import HTTP
import TestSupport
import Testing

/// Our server on a real socket, against clients that behave and clients that do not.
@Suite struct ServerTests {
    private func router() -> Router {
        var router = Router()
        router.get("/hello") { _, _ in .text("hello") }
        router.post("/echo") { request, _ in HTTPResponse(body: .bytes(request.body)) }
        router.get("/stream") { _, _ in
            HTTPResponse(body: .stream { writer in for i in 0..<1000 { try await writer.write("line \(i)\n") } })
        }
        return router
    }

    private func answers(_ port: UInt16, _ text: String, until enough: @escaping (String) -> Bool = { _ in false }) throws -> String {
        let socket = try RawSocket(port: port)
        socket.send(text)
        return socket.receive(until: enough)
    }

    @Test func pipelinedRequestsAreAnsweredInOrder() async throws {
        try await withLoop { loop in
            try await withServer(loop, router()) { endpoint in
                let body =
                    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none"
                    + "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"
                let all = try answers(endpoint.testPort, body + "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                #expect(all.components(of: "HTTP/1.1 200 OK") == 3)
                let places = ["one", "two", "hello"].map { all.place(of: $0) ?? -1 }
                #expect(places == places.sorted() && places[0] > 0)
            }
        }
    }

    /// Our client keeps 64 idle connections to one place. The ones beyond are closed when their answers are there, which harms no answer.
    @Test func moreAtOnceThanIdleConnectionsAreKeptAllGetTheirAnswers() async throws {
        try await withLoop { loop in
            var router = Router()
            router.get("/slow") { _, _ in
                try? await Task.sleep(for: .milliseconds(200))
                return .text("hello")
            }
            try await withServer(loop, router) { endpoint in
                let client = HTTPClient(loop: loop)
                let answered = try await withThrowingTaskGroup(of: Int.self) { group in
                    for _ in 0..<150 { group.addTask { try await client.send("GET", "/slow", to: endpoint).status } }
                    return try await group.reduce(into: 0) { $0 += $1 == 200 ? 1 : 0 }
                }
                #expect(answered == 150)
                client.close()
            }
        }
    }

    @Test func aClientThatEndsItsSideGetsItsAnswers() async throws {
        try await withLoop { loop in
            try await withServer(loop, router()) { endpoint in
                let socket = try RawSocket(port: endpoint.testPort)
                socket.send(String(repeating: "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n", count: 3))
                socket.finishSending()
                #expect(socket.receive().components(of: "hello") == 3)
            }
        }
    }

    /// The shape that once crashed the server: a head in two pieces, refused at its end.
    @Test func aRefusalAfterAPartialHead() async throws {
        try await withLoop { loop in
            try await withServer(loop, router()) { endpoint in
                let socket = try RawSocket(port: endpoint.testPort)
                socket.send("GET /x HT")
                try await Task.sleep(for: .milliseconds(50))
                socket.send("ZZ\r\n\r\n")
                #expect(socket.receive().hasPrefix("HTTP/1.1 400 "))
                #expect(try answers(endpoint.testPort, "GET /hello HTTP/1.0\r\n\r\n").hasSuffix("hello"))
            }
        }
    }

    @Test func aSecondRequestIsRefusedAsPreciselyAsTheFirst() async throws {
        try await withLoop { loop in
            try await withServer(loop, router()) { endpoint in
                let all = try answers(endpoint.testPort, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost : a\r\n\r\n")
                #expect(all.contains("400 Bad Request") && all.contains("bad_header_name"))
            }
        }
    }

    @Test func eachLimitHasItsStatusAndTheOthersAreServed() async throws {
        var limits = HTTPLimits()
        limits.body = 1000
        try await withLoop { loop in
            try await withServer(loop, router(), limits: limits) { endpoint in
                let port = endpoint.testPort
                let cases: [(String, String)] = [
                    ("GET /" + String(repeating: "a", count: 9000) + " HTTP/1.1\r\n", "414"),
                    ("GET / HTTP/1.1\r\nX: " + String(repeating: "a", count: 40000) + "\r\n", "431"),
                    ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", "413"),
                    (
                        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3E9\r\n" + String(repeating: "a", count: 1001)
                            + "\r\n0\r\n\r\n", "413"
                    ),
                    ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400"),
                    ("GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "404"),
                    ("DELETE /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "405"), ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", "505"),
                ]
                for (text, status) in cases {
                    let answer = try answers(port, text)
                    #expect(answer.hasPrefix("HTTP/1.1 \(status) "), "\(text.prefix(40)) -> \(answer.prefix(40))")
                    #expect(answer.contains("{\"error\":{\"code\":"))
                }
            }
        }
    }

    @Test func slowHeadsAndBodiesAreTimedOut() async throws {
        var limits = HTTPLimits()
        limits.headTime = .milliseconds(300)
        limits.bodyTime = .milliseconds(300)
        try await withLoop { loop in
            try await withServer(loop, router(), limits: limits) { endpoint in
                let head = try answers(endpoint.testPort, "GET / HTTP/1.1\r\nHo")
                let body = try answers(endpoint.testPort, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
                #expect(head.hasPrefix("HTTP/1.1 408 ") && body.hasPrefix("HTTP/1.1 408 "))
            }
        }
    }

    @Test func continueIsSaidAndHeadHasNoBody() async throws {
        try await withLoop { loop in
            try await withServer(loop, router()) { endpoint in
                let socket = try RawSocket(port: endpoint.testPort)
                socket.send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
                #expect(socket.receive { $0.contains("\r\n\r\n") } == "HTTP/1.1 100 Continue\r\n\r\n")
                socket.send("okHEAD /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                let rest = socket.receive()
                #expect(
                    rest.components(of: "200 OK") == 2 && rest.contains("ok") && rest.contains("Content-Length: 5")
                        && !rest.hasSuffix("hello"))
            }
        }
    }

    @Test func streamsInChunksAndToOldClientsUntilTheEnd() async throws {
        try await withLoop { loop in
            try await withServer(loop, router()) { endpoint in
                let client = HTTPClient(loop: loop)
                let response = try await client.send("GET", "/stream", to: endpoint)
                #expect(response.header("transfer-encoding") == "chunked")
                #expect(response.text.hasSuffix("line 999\n") && response.text.hasPrefix("line 0\n"))
                let old = try answers(endpoint.testPort, "GET /stream HTTP/1.0\r\n\r\n")
                #expect(!old.contains("chunked") && old.hasSuffix("line 999\n"))
                client.close()
            }
        }
    }

    /// 2,000 clients that send a byte now and then; one that behaves is served among them.
    @Test func twoThousandSlowConnectionsHarmNobody() async throws {
        try await withLoop { loop in
            try await withServer(loop, router()) { endpoint in
                var slow: [RawSocket] = []
                for _ in 0..<2000 { slow.append(try RawSocket(port: endpoint.testPort)) }
                for socket in slow { socket.send("GET /hello HTTP/1.1\r\nX") }
                let client = HTTPClient(loop: loop)
                for _ in 0..<50 { #expect(try await client.send("GET", "/hello", to: endpoint, timeout: .seconds(5)).status == 200) }
                for socket in slow { socket.send(": y\r\n") }
                #expect(try await client.send("GET", "/hello", to: endpoint, timeout: .seconds(5)).status == 200)
                client.close()
            }
        }
    }

    @Test func theClientTellsHowItFailed() async throws {
        try await withLoop { loop in
            let client = HTTPClient(loop: loop)
            let refused = await #expect(throws: HTTPClientError.self) {
                try await client.send("GET", "/", to: .address(.loopback(port: TestPorts.server())))
            }
            #expect(refused?.code == .connect && refused?.retry == .nothingSent)
            try Task.checkCancellation()
            let unknown = await #expect(throws: HTTPClientError.self) {
                try await client.send("GET", "/", to: Endpoint("no-such-host.invalid:80")!)
            }
            #expect(unknown?.code == .connect)
        }
    }

    @Test func namesAreResolvedAndUnixSocketsWork() async throws {
        try await withLoop { loop in
            try await withServer(loop, router()) { endpoint in
                let client = HTTPClient(loop: loop)
                let response = try await client.send("GET", "/hello", to: .name("localhost", port: endpoint.testPort))
                #expect(response.text == "hello")
                client.close()
            }
            try await withFolder { folder in
                let server = LoopBound(HTTPServer(loop: loop, router: router()), on: loop)
                let address = SocketAddress.unix(folder + "/s")
                try await loop.run { _ = try server.value.listen(on: address) }
                #expect(try await HTTPClient(loop: loop).send("GET", "/hello", to: .address(address)).text == "hello")
                try await loop.run { server.value.drain(grace: .zero) {} }
            }
        }
    }
}

extension String {
    func components(of part: String) -> Int {
        var count = 0
        var rest = self[...]
        while let at = rest.place(of: part) {
            count += 1
            rest = rest[rest.index(rest.startIndex, offsetBy: at + part.count)...]
        }
        return count
    }
    func place(of part: String) -> Int? { self[...].place(of: part) }
}

extension Substring {
    func place(of part: String) -> Int? {
        let text = Array(self), wanted = Array(part)
        guard text.count >= wanted.count else { return nil }
        return (0...text.count - wanted.count).first { text[$0] == wanted[0] && Array(text[$0..<$0 + wanted.count]) == wanted }
    }
}
