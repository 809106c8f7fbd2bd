import Basics
import EventLoops
import Glibc
import HTTP
import TestSupport
import Testing

/// Backends that are spoken to in HTTP/2 by prior knowledge.
@Suite struct HTTP2BackendTests {
    /// A backend that does with each connection what `serve` says, after the prefaces.
    private func withHTTP2(
        _ serve: @escaping @Sendable (HTTP2Peer, Int) -> Void, _ body: (RawBackend) async throws -> Void
    ) async throws {
        try await withRaw({ raw, number in
            guard raw.read(24) == HTTP2Frame.preface, let peer = try? HTTP2Peer(raw) else { return }
            peer.send(.settings([(3, 100)]))
            serve(peer, number)
        }) { try await body($0) }
    }

    /// Answers the streams of a connection as they come.
    private static func answerAll(
        _ peer: HTTP2Peer, after done: Set<UInt32> = [], _ answer: (UInt32, HTTP2Answer) -> [HTTP2Frame]
    ) {
        var done = done
        while peer.step() {
            for (id, request) in peer.answers where request.isOver && !done.contains(id) {
                done.insert(id)
                if request.reset == nil { peer.send(answer(id, request)) }
            }
        }
    }

    private static func fields(_ id: UInt32, _ fields: [(String, String)], ends: Bool = false) -> HTTP2Frame {
        .headers(id, fields, ends: ends)
    }

    @Test(arguments: [true, false]) func requestsAndAnswersPass(overHTTP2: Bool) async throws {
        try await withHTTP2({ peer, _ in
            Self.answerAll(peer) { id, request in
                let said = request.heads[0].map { "\($0.name)=\($0.value)" }.joined(separator: "\n")
                return [
                    Self.fields(id, [(":status", "200"), ("x-backend", "h2")]), .data(id, Array("\(request.body.count)\n\(said)".utf8)),
                    .data(id, [], ends: true),
                ]
            }
        }) { backend in
            try await withLive("{ path: /, backends: ['h2c://127.0.0.1:\(backend.port)'] }") { gateway in
                var text = "", status = 0
                if overHTTP2 {
                    let peer = try HTTP2Peer(port: gateway.port)
                    peer.send(
                        .request(1, "POST", "/a?b", ends: false), .data(1, [UInt8](repeating: 1, count: 10_000)), .data(1, [], ends: true))
                    let answer = peer.answer(1)
                    (text, status) = (answer.text, answer.status)
                } else {
                    let answer = try await gateway.send("POST", "/a?b", body: [UInt8](repeating: 1, count: 10_000))
                    (text, status) = (answer.text, answer.status)
                }
                #expect(status == 200 && text.hasPrefix("10000\n"))
                for line in [":method=POST", ":path=/a?b", ":scheme=http", "x-forwarded-proto=http", "x-forwarded-for=127.0.0.1"] {
                    #expect(text.contains(line), "\(line)")
                }
                #expect(text.contains(":authority=") && !text.contains("transfer-encoding") && !text.contains("\nhost="))
            }
        }
    }

    /// Many requests share a connection; more than its places make another one.
    @Test func aConnectionHasPlaces() async throws {
        let open = Tally()
        try await withRaw({ raw, _ in
            guard raw.read(24) == HTTP2Frame.preface, let peer = try? HTTP2Peer(raw) else { return }
            peer.send(.settings([(3, 4)]))
            var held: [UInt32] = [], seen: Set<UInt32> = []
            while peer.step() {
                for (id, request) in peer.answers where request.isOver && !seen.contains(id) {
                    seen.insert(id)
                    held.append(id)
                    open.add()
                }
                if open.count >= 9 { for id in held { peer.send(Self.fields(id, [(":status", "204")], ends: true)) } }
                if open.count >= 9 { held = [] }
            }
        }) { backend in
            try await withLive("{ path: /, protocol: h2c, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                // The settings are known after the first request.
                let peer = try HTTP2Peer(port: gateway.port)
                peer.send(.request(1))
                let isKnown = await eventually { open.count == 1 }
                #expect(isKnown)
                try await Task.sleep(for: .milliseconds(100))
                peer.send((1..<9).map { .request(UInt32($0 * 2 + 1)) })
                let areAll = await eventually { open.count == 9 }
                #expect(areAll && backend.made.count == 2)
                peer.send(.request(101))
            }
        }
    }

    /// REFUSED_STREAM, and what is above a GOAWAY's last stream, was not looked at: even a POST goes to another connection, and the replica is
    /// not blamed.
    @Test(arguments: [true, false]) func whatWasNotLookedAtIsSentAgain(byGoAway: Bool) async throws {
        try await withHTTP2({ peer, number in
            if number == 1 {
                peer.read { $0.answers.values.contains { $0.isOver } }
                peer.send(byGoAway ? [HTTP2Frame(HTTP2Frame.goAway, stream: 0, [0, 0, 0, 0, 0, 0, 0, 0])] : [.reset(1, 7)])
                // A close with unread bytes would reset the GOAWAY away.
                if byGoAway { return peer.read { _ in false } }
            }
            Self.answerAll(peer, after: number == 1 ? [1] : []) { id, _ in [Self.fields(id, [(":status", "200")], ends: true)] }
        }) { backend in
            try await withLive("{ path: /, eject: { failures: 1 }, backends: ['h2c://127.0.0.1:\(backend.port)'] }") { gateway in
                let answer = try await gateway.send("POST", "/", body: [1, 2, 3])
                #expect(answer.status == 200)
                #expect(gateway.states == ["ready"] && gateway.records(.eject).isEmpty)
            }
        }
    }

    @Test func aCancelIsPassedOn() async throws {
        let asked = Tally(), cancels = Tally()
        try await withHTTP2({ peer, _ in
            // What is cancelled before it left for the backend is no business of the backend's.
            peer.read { $0.answers[1] != nil }
            asked.add()
            peer.read { $0.answers[1]?.reset != nil }
            if peer.answers[1]?.reset == 8 { cancels.add() }
        }) { backend in
            try await withLive("{ path: /, backends: ['h2c://127.0.0.1:\(backend.port)'] }") { gateway in
                let peer = try HTTP2Peer(port: gateway.port)
                peer.send(.request(1))
                let isAsked = await eventually { gateway.inFlight == 1 && asked.count == 1 }
                #expect(isAsked)
                peer.send(.reset(1))
                let isCancelled = await eventually { cancels.count == 1 && gateway.inFlight == 0 }
                #expect(isCancelled)
            }
        }
    }

    @Test func trailersPassToTheClient() async throws {
        try await withHTTP2({ peer, _ in
            Self.answerAll(peer) { id, request in
                let te = request.all("te").joined()
                return [
                    Self.fields(id, [(":status", "200")]), .data(id, Array(te.utf8)),
                    Self.fields(id, [("grpc-status", "0"), ("x-sent", "\(request.heads.count)")], ends: true),
                ]
            }
        }) { backend in
            try await withLive("{ path: /, backends: ['h2c://127.0.0.1:\(backend.port)'] }") { gateway in
                let peer = try HTTP2Peer(port: gateway.port)
                peer.send(.request(1, "POST", "/", more: [("te", "trailers")], ends: false), .data(1, [1]), .headers(1, [("x-sum", "1")]))
                let answer = peer.answer(1)
                #expect(answer.text == "trailers" && answer.all("grpc-status") == ["0"] && answer.all("x-sent") == ["2"])
                #expect(answer.heads.count == 2 && answer.ended)
            }
        }
    }

    /// A large answer to a client that reads slowly: bounded here, and whole in the end.
    @Test func aLargeAnswerPassesWhole() async throws {
        try await withHTTP2({ peer, _ in
            peer.read { $0.answers[1]?.isOver == true }
            peer.send(Self.fields(1, [(":status", "200")]))
            var sent = 0, given = (65_535, 65_535)
            while sent < 2_000_000 {
                let part = min(16_384, min(given.0, given.1) - sent, 2_000_000 - sent)
                if part > 0 {
                    sent += part
                    peer.send(.data(1, [UInt8](repeating: 120, count: part), ends: sent == 2_000_000))
                    continue
                }
                guard peer.step() else { return }
                given = (65_535, 262_144)
                for frame in peer.others where frame.type == HTTP2Frame.windowUpdate {
                    let more = Int(frame.payload.reduce(0) { $0 << 8 | UInt32($1) })
                    if frame.stream == 0 { given.0 += more } else { given.1 += more }
                }
            }
            peer.read { _ in false }
        }) { backend in
            try await withLive("{ path: /, backends: ['h2c://127.0.0.1:\(backend.port)'] }") { gateway in
                let answer = try await gateway.send("GET", "/")
                #expect(answer.status == 200 && answer.text.utf8.count == 2_000_000)
            }
        }
    }

    /// A client of gRPC reads the gateway's own answers.
    @Test func theGatewaysOwnAnswersAreStatesOfGRPC() async throws {
        let port = try freePort()
        let route = "{ path: /a, backends: ['h2c://127.0.0.1:\(port)'] }"
        try await withLive(route) { gateway in
            let peer = try HTTP2Peer(port: gateway.port)
            let type = [("content-type", "application/grpc"), ("te", "trailers")]
            for (id, path, code) in [(UInt32(1), "/a/x", "14"), (3, "/elsewhere", "12")] {
                peer.send(.request(id, "POST", path, more: type))
                let answer = peer.answer(id)
                #expect(answer.status == 200 && answer.ended && answer.all("grpc-status") == [code], "\(path)")
                #expect(answer.all("content-type") == ["application/grpc"] && answer.all("grpc-message").count == 1)
            }
        }
    }

    @Test func theCallsDeadlineIsKept() async throws {
        try await withHTTP2({ peer, _ in peer.read { _ in false } }) { backend in
            try await withLive("{ path: /, backends: ['h2c://127.0.0.1:\(backend.port)'] }") { gateway in
                let peer = try HTTP2Peer(port: gateway.port)
                peer.send(.request(1, "POST", "/", more: [("content-type", "application/grpc"), ("grpc-timeout", "200m")]))
                #expect(peer.answer(1).all("grpc-status") == ["4"])
                let isFree = await eventually { gateway.inFlight == 0 }
                #expect(isFree)
            }
        }
    }

    /// A stream both ways whose client says its last word long after its last byte: the end is passed on by itself.
    @Test func anEndThatComesAlonePasses() async throws {
        try await withHTTP2({ peer, _ in
            peer.read { $0.answers[1]?.body.count == 3 }
            peer.send(Self.fields(1, [(":status", "200")]), .data(1, [4, 5]))
            peer.read { $0.answers[1]?.ended == true }
            peer.send(.data(1, [6], ends: true))
            peer.read { _ in false }
        }) { backend in
            try await withLive("{ path: /, backends: ['h2c://127.0.0.1:\(backend.port)'] }") { gateway in
                let peer = try HTTP2Peer(port: gateway.port)
                peer.send(.request(1, "POST", "/", ends: false), .data(1, [1, 2, 3]))
                peer.read { $0.answers[1]?.body.count == 2 }
                peer.send(.data(1, [], ends: true))
                let answer = peer.answer(1)
                #expect(answer.ended && answer.body == [4, 5, 6])
            }
        }
    }
}
