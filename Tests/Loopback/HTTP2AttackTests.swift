import Basics
import Glibc
import TestSupport
import Testing

/// What attackers do with frames: each ends or is answered as is written, and others are served meanwhile.
@Suite struct HTTP2AttackTests {
    /// A gateway under attack, and somebody else who is served before, during and after. `answer`: the backend.
    private func underAttack(
        _ reason: String? = nil, expecting code: UInt32?, _ attack: @escaping @Sendable (UInt16) throws -> UInt32?
    ) async throws {
        try await withBackend("a") { port in
            try await withLive("{ path: /, backends: [127.0.0.1:\(port)] }") { gateway in
                let other = try HTTP2Peer(port: gateway.port)
                other.send(.request(1))
                #expect(other.answer(1).status == 200)
                let port = gateway.port
                let said = try await onThread { Result { try attack(port) } }.get()
                #expect(said == code)
                if let reason { #expect(gateway.metric("gateway_http2_floods_total{reason=\"\(reason)\"}") == 1) }
                other.send(.request(3))
                #expect(other.answer(3).status == 200)
                let isFree = await eventually { gateway.inFlight == 0 && gateway.metric("gateway_http2_connections") == 1 }
                #expect(isFree)
            }
        }
    }

    @Test func rapidResetsEndTheConnection() async throws {
        try await underAttack("resets", expecting: 11) { port in
            let peer = try HTTP2Peer(port: port)
            for round in 0..<60 where !peer.isOver {
                let ids = (0..<50).map { UInt32(round * 100 + $0 * 2 + 1) }
                if !peer.send(ids.flatMap { [.request($0, "GET", "/slow"), .reset($0)] }) { break }
            }
            return peer.goodbye()
        }
    }

    /// CVE-2025-8671: the client makes the server reset its own streams, here by opening a window beyond its bound.
    @Test func resetsThatTheServerIsMadeToSendEndTheConnection() async throws {
        try await underAttack("faults", expecting: 11) { port in
            let peer = try HTTP2Peer(port: port)
            for round in 0..<60 {
                let ids = (0..<50).map { UInt32(round * 100 + $0 * 2 + 1) }
                if !peer.send(ids.flatMap { [.request($0, "GET", "/slow"), .window($0, 0x7FFF_FFFF)] }) { break }
                peer.read { $0.answers[ids[49]]?.isOver == true }
                if peer.isOver { break }
            }
            return peer.goodbye()
        }
    }

    /// The same by malformed requests.
    @Test func malformedRequestsByTheThousandEndTheConnection() async throws {
        try await underAttack("faults", expecting: 11) { port in
            let peer = try HTTP2Peer(port: port)
            for round in 0..<60 {
                let ids = (0..<50).map { UInt32(round * 100 + $0 * 2 + 1) }
                if !peer.send(ids.map { .request($0, "GET", "no-slash") }) { break }
                peer.read { $0.answers[ids[49]]?.isOver == true }
                if peer.isOver { break }
            }
            return peer.goodbye()
        }
    }

    @Test func refusedStreamsAreBounded() async throws {
        try await underAttack("refused", expecting: 11) { port in
            let peer = try HTTP2Peer(port: port)
            peer.send((0..<1300).map { .request(UInt32($0 * 2 + 1), "GET", "/slow") })
            return peer.goodbye()
        }
    }

    static let floods: [(String, [UInt8])] = [
        ("SETTINGS", HTTP2Frame.settings().bytes),
        ("PING", HTTP2Frame(HTTP2Frame.ping, 0, stream: 0, [UInt8](repeating: 0, count: 8)).bytes),
        ("PRIORITY", HTTP2Frame(HTTP2Frame.priority, 0, stream: 1, [0, 0, 0, 0, 1]).bytes),
        ("WINDOW_UPDATE", HTTP2Frame.window(0, 1).bytes), ("an unknown type", HTTP2Frame(0x77, 0, stream: 0, [1]).bytes),
        ("PRIORITY_UPDATE", HTTP2Frame(HTTP2Frame.priorityUpdate, 0, stream: 0, [0, 0, 0, 1] + Array("u=1".utf8)).bytes),
    ]

    @Test(arguments: floods.indices) func framesWithoutEffectEndTheConnection(which: Int) async throws {
        let frame = Self.floods[which].1
        try await underAttack("idle_frames", expecting: 11) { port in
            let peer = try HTTP2Peer(port: port)
            let hundred = [[UInt8]](repeating: frame, count: 100).flatMap(\.self)
            for _ in 0..<120 {
                if !peer.raw.send(hundred) { break }
                // These are answered; who does not read that falls for another reason.
                if which <= 1 { for _ in 0..<100 where !peer.step() { break } }
            }
            return peer.goodbye()
        }
    }

    @Test func emptyDataEndsTheConnection() async throws {
        try await underAttack("idle_frames", expecting: 11) { port in
            let peer = try HTTP2Peer(port: port)
            peer.send(.request(1, "POST", "/", ends: false))
            let hundred = [HTTP2Frame](repeating: .data(1, []), count: 100)
            for _ in 0..<120 where !peer.send(hundred) { break }
            return peer.goodbye()
        }
    }

    /// CVE-2024-27316 and its kin: fields that never end. Eight CONTINUATION frames are taken, empty ones as well as full ones.
    @Test(arguments: [0, 1000]) func continuationsAreBounded(size: Int) async throws {
        try await underAttack("fields", expecting: 11) { port in
            let peer = try HTTP2Peer(port: port)
            var start = HTTP2Frame.request(1)
            start.flags = HTTP2Frame.endStream
            peer.send(start)
            let field = size == 0 ? [] : HTTP2Frame.block([("x", String(repeating: "y", count: size))])
            for _ in 0..<50 where !peer.send(HTTP2Frame(HTTP2Frame.continuation, 0, stream: 1, field)) { break }
            return peer.goodbye()
        }
    }

    /// One field in the table that compression keeps, named many times over by a byte each.
    @Test func aBombOfFieldsEndsTheConnection() async throws {
        try await underAttack("fields", expecting: 11) { port in
            let peer = try HTTP2Peer(port: port)
            let value = [UInt8](repeating: 97, count: 3900)
            // 0x40: literal with indexing; the value's length, 3900, in HPACK's form of seven bits.
            var block: [UInt8] = [0x40, 1, 120, 0x7F, 0xBD, 0x1D] + value
            block += [UInt8](repeating: 0xBE, count: 8000)
            let pseudo = HTTP2Frame.block([(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")])
            peer.send(HTTP2Frame(HTTP2Frame.headers, HTTP2Frame.endHeaders | HTTP2Frame.endStream, stream: 1, pseudo + block))
            return peer.goodbye()
        }
    }

    /// Faults of a connection, each with the code that RFC 9113 gives it.
    static let breaches: [(String, UInt32, [HTTP2Frame])] = [
        ("a window of nothing for the connection", 1, [.window(0, 0)]),
        ("a window beyond its bound", 3, [.window(0, 0x7FFF_FFFF)]),
        ("data on an idle stream", 1, [.data(1, [1])]),
        ("a reset of an idle stream", 1, [.reset(5)]),
        ("a ping of seven bytes", 6, [HTTP2Frame(HTTP2Frame.ping, 0, stream: 0, [1, 2, 3, 4, 5, 6, 7])]),
        ("settings of five bytes", 6, [HTTP2Frame(HTTP2Frame.settings, 0, stream: 0, [0, 4, 0, 0, 1])]),
        ("an initial window beyond its bound", 3, [.settings([(4, 0x8000_0000)])]),
        ("a frame size below the least", 1, [.settings([(5, 100)])]),
        ("a frame that is too large", 6, [HTTP2Frame(HTTP2Frame.data, 0, stream: 1, [UInt8](repeating: 0, count: 16_385))]),
        ("a continuation of nothing", 1, [HTTP2Frame(HTTP2Frame.continuation, 4, stream: 1, [])]),
        ("an even stream", 1, [.request(2)]),
        ("data after the end", 5, [.request(1, "GET", "/slow"), .data(1, [1])]),
        ("fields after the end", 5, [.request(1, "GET", "/slow"), .request(1)]),
        ("HPACK that names no field", 9, [HTTP2Frame(HTTP2Frame.headers, 5, stream: 1, [0xFF, 0xFF, 0xFF, 0xFF, 0x0F])]),
        ("a push by a client", 1, [HTTP2Frame(5, 4, stream: 1, [0, 0, 0, 2])]),
    ]

    @Test(arguments: breaches.indices) func breachesOfTheProtocolEndTheConnection(which: Int) async throws {
        let (_, code, frames) = Self.breaches[which]
        try await underAttack(nil, expecting: code) { port in
            let peer = try HTTP2Peer(port: port)
            peer.send(frames)
            return peer.goodbye()
        }
    }

    /// What would be a second request, a longer body or another host in HTTP/1 never reaches the backend.
    @Test func smugglingEndsAtTheGateway() async throws {
        let heads = Tally()
        try await withRaw({ peer, _ in
            heads.add()
            peer.head()
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        }) { backend in
            try await withLive("{ path: /, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let peer = try HTTP2Peer(port: gateway.port)
                let tries: [[(String, String)]] = [
                    [("transfer-encoding", "chunked")], [("connection", "transfer-encoding")], [("x", "a\r\nTransfer-Encoding: chunked")],
                    [("x\r\ntransfer-encoding", "chunked")], [("content-length", "0"), ("content-length", "5")], [("host", "evil")],
                    [("content-length", "0x10")], [("upgrade", "h2c"), ("http2-settings", "AAMAAABkAAQAAP__")], [("x", "a\nb")],
                ]
                for (place, fields) in tries.enumerated() {
                    let id = UInt32(place * 2 + 1)
                    peer.send(.request(id, "POST", "/", more: fields))
                    #expect(peer.answer(id).reset == 1, "\(fields)")
                }
                let last = UInt32(tries.count * 2 + 1)
                peer.send(.request(last, "GET", "/ HTTP/1.1\r\nHost: evil\r\n\r\nGET /admin"))
                #expect(peer.answer(last).reset == 1)
                #expect(heads.count == 0)
                peer.send(.request(last + 2))
                #expect(peer.answer(last + 2).text == "ok" && heads.count == 1)
            }
        }
    }

    /// A client that asks and asks and reads nothing.
    @Test func unreadAnswersAreBounded() async throws {
        try await underAttack(nil, expecting: nil) { port in
            let peer = try HTTP2Peer(RawPeer(port: port, receiveBuffer: 4096))
            peer.raw.send(HTTP2Frame.preface + HTTP2Frame.settings().bytes)
            let ping = HTTP2Frame(HTTP2Frame.ping, 0, stream: 0, [UInt8](repeating: 1, count: 8))
            for _ in 0..<2000 where !peer.send([HTTP2Frame](repeating: ping, count: 100)) { break }
            return nil
        }
    }
}
