import Basics
import EventLoops
import Gateway
import Glibc
import HTTP
import TestSupport
import Testing

/// What answers with a page of 1 MiB: the gateway by itself, the gateway for a backend, a service.
enum PageServer: String, CaseIterable, Sendable { case page, backend, service }

/// Clients that ask and do not read, read late, or end their side before they have read: what waits for them is bounded, and no answer is cut.
@Suite(.serialized) struct UnreadAnswersTests {
    private static let request = "GET /page HTTP/1.1\r\nHost: a\r\n\r\n"
    private static let pageSize = 1 << 20
    /// More answers than the kernel keeps for a reader that does not read, and fewer than 64 KiB of requests ask for.
    private static let most = 24

    private struct Asked: Sendable {
        let port: UInt16
        /// How many requests were taken so far.
        let taken: @Sendable () -> Int
        /// Ends the server; how many connections were cut.
        let drain: @Sendable () async -> Int
    }

    private func serving(_ server: PageServer, idle: String = "75s", _ body: (Asked) async throws -> Void) async throws {
        let page = [UInt8](repeating: 120, count: Self.pageSize), handled = Tally()
        var router = Router()
        router.get("/page") { _, _ in
            handled.add()
            return HTTPResponse(body: .bytes(page))
        }
        var limits = HTTPLimits()
        limits.idleTime = Duration(text: idle)!
        if server == .service {
            return try await withLoop { loop in
                try await withServer(loop, router, limits: limits) { endpoint in
                    try await body(Asked(port: endpoint.testPort, taken: { handled.count }, drain: { 0 }))
                }
            }
        }
        try await withLoop { loop in
            try await withServer(loop, router) { backend in
                try await withFolder { folder in
                    try Files.replace(folder + "/page", with: page)
                    let target = server == .page ? "answer: { file: \(folder)/page }" : "backends: [127.0.0.1:\(backend.testPort)]"
                    try await withGateway("{ path: /, \(target) }", keys: ["limits: { idle-time: \(idle) }"]) { gateway in
                        let counter = gateway.gateway.metrics.counter(
                            "gateway_requests_total", "", labels: [("route", "/"), ("status", "2xx")])
                        let inner = gateway.gateway
                        try await body(
                            Asked(
                                port: gateway.endpoint.testPort, taken: { counter.current },
                                drain: { await inner.drain(grace: .seconds(20)) }))
                    }
                }
            }
        }
    }

    private func connect(_ port: UInt16) throws -> RawPeer { try RawPeer(port: port, receiveBuffer: 8192) }

    /// Reads `count` whole answers; how many there were.
    private func answers(_ peer: RawPeer, _ count: Int) async -> Int {
        await onThread {
            for i in 0..<count {
                let answer = peer.answer()
                if !answer.head.hasPrefix("HTTP/1.1 200 ") || answer.body.utf8.count != Self.pageSize { return i }
            }
            return count
        }
    }

    /// 64 KiB of requests ask for 2 GiB of answers: only as many are made as may wait.
    @Test func answersThatNobodyReadsAreNotMade() async throws {
        for server in PageServer.allCases {
            try await serving(server) { asked in
                let peer = try connect(asked.port)
                startThread { peer.send(String(repeating: Self.request, count: 65_536 / Self.request.utf8.count)) }
                let isAsked = await eventually { asked.taken() > 0 }
                try await Task.sleep(for: .seconds(1))
                #expect(isAsked && asked.taken() <= Self.most, "\(server): \(asked.taken())")
                // Those that are read are followed by others, whole and in order.
                #expect(await answers(peer, 40) == 40)
                #expect(asked.taken() <= 40 + Self.most, "\(server): \(asked.taken())")
            }
        }
    }

    /// While an answer leaves, the client is not idle, and it has time as long as it reads.
    @Test func aLateReaderGetsWholeAnswers() async throws {
        for server in PageServer.allCases {
            try await serving(server, idle: "1s") { asked in
                let peer = try connect(asked.port)
                peer.send(String(repeating: Self.request, count: 12))
                #expect(await eventually { asked.taken() > 0 })
                try await Task.sleep(for: .milliseconds(2500))
                #expect(await answers(peer, 12) == 12, "\(server)")
                // From here on it is idle.
                let began = MonotonicTime.now
                let rest = await onThread { peer.readToEnd() }
                #expect(rest.isEmpty && peer.sawEnd && MonotonicTime.now - began < .seconds(10))
            }
        }
    }

    /// A client that sends no more still reads: after its last request, also one that it said was the last.
    @Test func aClientThatEndsItsSideReadsOn() async throws {
        for server in PageServer.allCases {
            for saysSo in [false, true] {
                try await serving(server) { asked in
                    let peer = try connect(asked.port)
                    let last = saysSo ? Self.request.replacing("Host: a", with: "Host: a\r\nConnection: close") : Self.request
                    peer.send(String(repeating: Self.request, count: 11) + last)
                    peer.finishSending()
                    try await Task.sleep(for: .milliseconds(500))
                    #expect(await answers(peer, 12) == 12, "\(server)")
                    let rest = await onThread { peer.readToEnd() }
                    #expect(rest.isEmpty && peer.sawEnd)
                }
            }
        }
    }

    /// The beginning of a request that never comes whole cuts no answer before it.
    @Test func halfARequestCutsNoAnswer() async throws {
        for server in PageServer.allCases {
            try await serving(server) { asked in
                let peer = try connect(asked.port)
                peer.send(String(repeating: Self.request, count: 8) + "GET /pa")
                peer.finishSending()
                try await Task.sleep(for: .milliseconds(300))
                #expect(await answers(peer, 8) == 8, "\(server)")
            }
        }
    }

    /// A gateway that ends waits for those who read, and only for those who read: not until they have been idle for long.
    @Test func anEndCutsNoAnswerAndDoesNotWaitForIdleness() async throws {
        for server in [PageServer.page, .backend] {
            try await serving(server) { asked in
                let peer = try connect(asked.port)
                peer.send(Self.request)
                peer.send(String(repeating: Self.request, count: 3))
                #expect(await eventually { asked.taken() > 0 })
                let began = MonotonicTime.now
                async let cut = asked.drain()
                try await Task.sleep(for: .milliseconds(200))
                let whole = await onThread {
                    var count = 0
                    while peer.answer().body.utf8.count == Self.pageSize { count += 1 }
                    return count
                }
                #expect(whole >= 1 && peer.sawEnd, "\(whole)")
                #expect(await cut == 0)
                #expect(MonotonicTime.now - began < .seconds(10))
            }
        }
    }
}
