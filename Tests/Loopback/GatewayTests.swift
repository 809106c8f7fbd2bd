import Basics
import EventLoops
import Gateway
import Glibc
import HTTP
import Observability
import StackFile
import StackModel
import TestSupport
import Testing

/// The gateway on real sockets before backends that answer, fail and misbehave as each test says.
@Suite struct GatewayTests {
    private func place(_ target: String, _ header: (String, String), _ gateway: GatewayFixture) async throws -> String {
        try await gateway.send("GET", target, headers: [header]).header("x-backend") ?? ""
    }

    /// Where the requests of a trace go, in each of the ways to name it.
    private func home(_ trace: String, _ gateway: GatewayFixture) async throws -> String {
        let first = try await place("/", ("traceparent", "00-\(trace)-00f067aa0ba902b7-01"), gateway)
        let second = try await place("/", ("X-Trace-Id", trace.uppercased()), gateway)
        let third = try await place("/?a=b&trace_id=\(trace)", ("X-Other", "1"), gateway)
        #expect(first == second && second == third)
        return first
    }

    @Test func oneTraceMeetsOneBackendByWhateverNamesIt() async throws {
        try await withBackend("a") { a in
            try await withBackend("b") { b in
                try await withBackend("c") { c in
                    try await withGateway("{ path: /, balance: hash(trace), backends: [127.0.0.1:\(a), 127.0.0.1:\(b), 127.0.0.1:\(c)] }") {
                        gateway in
                        var places: Set<String> = []
                        for i in 0..<30 {
                            places.insert(
                                try await home(
                                    String(repeating: "0", count: 30) + (i < 16 ? "a" : "b") + String(i % 16, radix: 16), gateway))
                        }
                        #expect(places == ["a", "b", "c"])
                        // What names no trace is balanced by load.
                        var others: Set<String> = []
                        for _ in 0..<3 { others.insert(try await place("/", ("traceparent", "00-1-2-3"), gateway)) }
                        #expect(others.count == 3)
                    }
                }
            }
        }
    }

    @Test func requestsAreSpreadEvenlyAndForwardingFieldsAdded() async throws {
        try await withBackend("a") { a in
            try await withBackend("b") { b in
                try await withGateway("{ path: /, backends: [127.0.0.1:\(a), 127.0.0.1:\(b)] }") { fixture in
                    var counts: [String: Int] = [:]
                    for _ in 0..<40 { counts[try await fixture.send().header("x-backend")!, default: 0] += 1 }
                    #expect(counts == ["a": 20, "b": 20])
                    let response = try await fixture.send(headers: [
                        ("X-Forwarded-For", "9.9.9.9"), ("Connection", "x-secret"), ("X-Secret", "1"), ("TE", "trailers"),
                        ("X-Request-Id", "my-id"),
                        ("X-Real-IP", "6.6.6.6"),
                    ])
                    #expect(response.text.contains("x-forwarded-for=127.0.0.1\n") && response.text.contains("x-real-ip=127.0.0.1"))
                    #expect(response.text.contains("x-request-id=my-id") && response.header("x-request-id") == "my-id")
                    #expect(!response.text.contains("x-secret") && !response.text.contains("trailers"))
                }
            }
        }
    }

    @Test func aBackendThatIsAwayIsPassedOverAndEjected() async throws {
        let dead = TestPorts.server()
        try await withBackend("a") { a in
            try await withGateway("{ path: /, balance: round-robin, backends: [127.0.0.1:\(dead), 127.0.0.1:\(a)] }") { fixture in
                for _ in 0..<20 {
                    let response = try await fixture.send("POST", body: [1, 2])
                    #expect(response.status == 200)
                }
                // The journal tells that it began, the counters how often it was.
                #expect(fixture.verdicts() == ["retry"])
                #expect(fixture.gateway.metrics.render().contains("gateway_retries_total{route=\"/\"} 3\n"))
                #expect(fixture.gateway.routes[0].replicas.map(\.state) == ["ejected", "ready"])
                // An answer is there before its exchange has come to its end.
                let isOver = await eventually(.seconds(2)) { fixture.gateway.routes[0].replicas.map(\.inFlight) == [0, 0] }
                #expect(isOver)
            }
        }
    }

    @Test func withNoneLeftTheReasonIsTold() async throws {
        let dead = TestPorts.server()
        try await withGateway("{ path: /a, backends: [127.0.0.1:\(dead)] }") { fixture in
            let refused = try await fixture.send("GET", "/a")
            #expect(refused.status == 502 && refused.text.contains("backend_unreachable"))
            #expect(try await fixture.send("GET", "/b").status == 404)
            #expect(try await fixture.send("GET", "/ab").status == 404)
        }
    }

    /// A request that was sent and not answered: a POST is not repeated, a GET is, a POST with an Idempotency-Key is.
    @Test func onlyWhatIsSafeIsRepeated() async throws {
        try await withRaw({ fd in
            var bytes = [UInt8](repeating: 0, count: 4096)
            _ = recv(fd, &bytes, bytes.count, 0)
        }) { bad, tally in
            try await withBackend("a") { a in
                try await withGateway(
                    "{ path: /, balance: round-robin, eject: { failures: 1000 }, backends: [127.0.0.1:\(bad), 127.0.0.1:\(a)] }"
                ) { fixture in
                    #expect(try await fixture.send("GET").header("x-backend") == "a")
                    #expect(fixture.verdicts() == ["retry"])
                    var statuses: [Int] = []
                    for _ in 0..<4 { statuses.append(try await fixture.send("POST", body: [1]).status) }
                    #expect(statuses.sorted() == [200, 200, 502, 502])
                    for _ in 0..<4 { #expect(try await fixture.send("POST", headers: [("Idempotency-Key", "k")], body: [1]).status == 200) }
                    #expect(tally.count >= 4)
                }
            }
        }
    }

    @Test func aResponseThatBreaksOffIsNeverRepeated() async throws {
        try await withRaw({ fd in
            var bytes = [UInt8](repeating: 0, count: 4096)
            _ = recv(fd, &bytes, bytes.count, 0)
            let part = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"
            _ = send(fd, part, part.utf8.count, Int32(MSG_NOSIGNAL))
        }) { bad, tally in
            try await withGateway("{ path: /, retry: { attempts: 3 }, backends: [127.0.0.1:\(bad)] }") { fixture in
                let error = await #expect(throws: HTTPClientError.self) { try await fixture.send() }
                #expect(error?.code == .lost)
                #expect(tally.count == 1)
            }
        }
    }

    @Test(arguments: [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "garbage\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n",
    ])
    func anAnswerThatIsNotHTTPIs502(answer: String) async throws {
        try await withRaw({ fd in
            var bytes = [UInt8](repeating: 0, count: 4096)
            _ = recv(fd, &bytes, bytes.count, 0)
            _ = send(fd, answer, answer.utf8.count, Int32(MSG_NOSIGNAL))
        }) { bad, _ in
            try await withGateway("{ path: /, backends: [127.0.0.1:\(bad)] }") { fixture in
                let response = try await fixture.send("POST", body: [1])
                #expect(response.status == 502)
            }
        }
    }

    /// Ambiguous requests are answered here and never reach a backend.
    @Test func smugglingStopsAtTheGateway() async throws {
        try await withRaw({ _ in }) { port, tally in
            try await withGateway("{ path: /, backends: [127.0.0.1:\(port)] }") { fixture in
                for text in [
                    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
                    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
                    "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
                    "GET /../x HTTP/1.1\r\nHost: a\r\n\r\n", "GET /%2e%2E/x HTTP/1.1\r\nHost: a\r\n\r\n",
                ] {
                    let socket = try RawSocket(port: fixture.endpoint.testPort)
                    socket.send(text)
                    let answer = socket.receive { $0.contains("\r\n\r\n") }
                    #expect(answer.hasPrefix("HTTP/1.1 400 "), "\(text) -> \(answer.prefix(30))")
                }
                #expect(tally.count == 0)
            }
        }
    }

    @Test(arguments: ["/metrics", "/metrics/", "/metrics?x=1", "/%6detrics", "//metrics", "/metrics;x"])
    func deniedPathsStayDeniedHoweverTheyAreWritten(target: String) async throws {
        try await withBackend("a") { a in
            try await withGateway("{ path: /, deny: [/metrics], backends: [127.0.0.1:\(a)] }") { fixture in
                let response = try await fixture.send("GET", target)
                #expect(response.status == 403)
            }
        }
    }

    /// An early answer must not leave a connection on which the rest of the request is read as the next one.
    @Test func aConnectionWithAHalfSentRequestIsNotReused() async throws {
        try await withRaw({ fd in
            for _ in 0..<2 {
                var bytes = [UInt8](repeating: 0, count: 4096)
                guard recv(fd, &bytes, bytes.count, 0) > 0 else { return }
                let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
                _ = send(fd, answer, answer.utf8.count, Int32(MSG_NOSIGNAL))
            }
        }) { port, tally in
            try await withGateway("{ path: /, backends: [127.0.0.1:\(port)] }") { fixture in
                for expected in 1...3 {
                    let socket = try RawSocket(port: fixture.endpoint.testPort)
                    socket.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
                    #expect(socket.receive { $0.contains("\r\n\r\n") }.contains("403 Forbidden"))
                    #expect(tally.count == expected)
                }
            }
        }
    }

    @Test func largeBodiesStreamBothWays() async throws {
        var router = Router()
        router.post("/echo") { request, _ in HTTPResponse(body: .bytes(request.body)) }
        var limits = HTTPLimits()
        limits.body = 64 << 20
        try await withLoop { loop in
            try await withServer(loop, router, limits: limits) { backend in
                try await withGateway("{ path: /, body: 32Mi, retry: { body: 1Ki }, backends: [127.0.0.1:\(backend.testPort)] }") {
                    fixture in
                    let body = (0..<8 << 20).map { UInt8(truncatingIfNeeded: $0 &* 31) }
                    let response = try await fixture.send("POST", "/echo", body: body)
                    #expect(response.status == 200 && response.body == body)
                    #expect(try await fixture.send("POST", "/echo", body: [UInt8](repeating: 0, count: 33 << 20)).status == 413)
                }
            }
        }
    }

    /// A client that goes away in the middle of a large answer leaves nothing behind.
    @Test func anAbortedDownloadIsForgotten() async throws {
        var router = Router()
        router.get("/large") { _, _ in HTTPResponse(body: .bytes([UInt8](repeating: 120, count: 24 << 20))) }
        try await withLoop { loop in
            try await withServer(loop, router) { backend in
                try await withGateway("{ path: /, backends: [127.0.0.1:\(backend.testPort)] }") { fixture in
                    for _ in 0..<5 {
                        var socket: RawSocket? = try RawSocket(port: fixture.endpoint.testPort)
                        socket!.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
                        _ = socket!.receive { $0.utf8.count > 100_000 }
                        // Closed with unread bytes, when the kernel's buffers are full: a reset of a connection that waits to send.
                        try await Task.sleep(for: .milliseconds(300))
                        socket = nil
                    }
                    let forgotten = await eventually {
                        await fixture.gateway.connectionCounts == [0] && fixture.gateway.routes[0].replicas[0].inFlight == 0
                    }
                    #expect(forgotten)
                }
            }
        }
    }

    @Test func drainingFinishesWhatIsUnderWay() async throws {
        try await withBackend("a") { a in
            try await withGateway("{ path: /, backends: [127.0.0.1:\(a)] }") { fixture in
                async let slow = fixture.send("GET", "/slow")
                try await Task.sleep(for: .milliseconds(100))
                let cut = await fixture.gateway.drain(grace: .seconds(5))
                #expect(try await slow.text == "slow")
                #expect(cut == 0)
            }
        }
    }

    @Test func replicasComeAndGoWhileRequestsRun() async throws {
        try await withBackend("a") { a in
            try await withBackend("b") { b in
                try await withGateway("{ path: /, backends: [127.0.0.1:\(a)] }", threads: 2) { fixture in
                    let done = Tally(), failed = Tally()
                    try await withThrowingTaskGroup(of: Void.self) { group in
                        for _ in 0..<8 {
                            group.addTask {
                                for _ in 0..<50 { if try await fixture.send().status == 200 { done.add() } else { failed.add() } }
                            }
                        }
                        group.addTask {
                            for i in 0..<20 {
                                let list = i % 2 == 0 ? "127.0.0.1:\(b)" : "127.0.0.1:\(a), 127.0.0.1:\(b)"
                                let stack = try Stack.read(
                                    Array("gateway:\n  listen: 1\n  routes: [{ path: /, backends: [\(list)] }]".utf8), path: "t")
                                try await fixture.gateway.apply(stack.gateway!) { _ in [] }
                            }
                        }
                        try await group.waitForAll()
                    }
                    #expect(done.count == 400 && failed.count == 0)
                }
            }
        }
    }

    /// Each address serves all routes, on all loops, and none of them once the gateway drains.
    @Test func severalListenersServeTheSameRoutes() async throws {
        try await withBackend("a") { a in
            try await withGateway("{ path: /, backends: [127.0.0.1:\(a)] }", threads: 2) { fixture in
                try await fixture.gateway.listen(on: .loopback(port: 0))
                let addresses = fixture.gateway.addresses
                #expect(Set(addresses.map(\.description)).count == 2)
                #expect(await fixture.gateway.listening.map(\.count) == [2, 2])
                for address in addresses {
                    for _ in 0..<8 { #expect(try await fixture.client.send("GET", "/", to: .address(address)).status == 200) }
                }
                _ = await fixture.gateway.drain(grace: .milliseconds(100))
                for address in addresses {
                    let refused = try? RawSocket(port: address.port ?? 0)
                    #expect(refused == nil)
                }
            }
        }
    }
}
