import Basics
import EventLoops
import Glibc
import TestSupport
import Testing

@testable import Redis

/// Redis over TLS, one connection at a time, against real servers.
@Suite struct TLSRedisTests {
    /// A connection that answers, or why there is none.
    private func connect(
        _ loop: EventLoop, to endpoint: Endpoint, _ context: TLSContext, within limit: Duration = .seconds(10), name: String? = nil
    ) async -> Result<LoopBound<RedisConnection>, RedisError> {
        let settings = RedisConnection.Settings(
            user: nil, password: "test-password", database: 0, name: "test", commandTime: .seconds(30), connectTime: limit, tls: context,
            serverName: name)
        return await withUnsafeContinuation { continuation in
            loop.execute {
                let connection = RedisConnection(loop: loop, settings: settings, place: "\(endpoint)")
                let bound = LoopBound(connection, on: loop)
                connection.onReady = {
                    bound.value.onClosed = { _ in }
                    continuation.resume(returning: .success(bound))
                }
                connection.onClosed = { continuation.resume(returning: .failure($0)) }
                connection.open(endpoint)
            }
        }
    }

    private func connect(_ loop: EventLoop, port: UInt16, _ context: TLSContext) async -> Result<LoopBound<RedisConnection>, RedisError> {
        await connect(loop, to: .address(.loopback(port: port)), context)
    }

    /// All in one turn of the loop; the replies in order.
    private func send(_ loop: EventLoop, _ connection: LoopBound<RedisConnection>, _ commands: [RedisCommand]) async -> [Result<
        RESPValue, RedisError
    >] {
        await withUnsafeContinuation { continuation in
            loop.execute {
                var replies: [Result<RESPValue, RedisError>] = []
                for command in commands {
                    connection.value.send(command) { reply in
                        replies.append(reply)
                        if replies.count == commands.count { continuation.resume(returning: replies) }
                    }
                }
            }
        }
    }

    private func close(_ loop: EventLoop, _ connection: LoopBound<RedisConnection>) async throws {
        try await loop.run { connection.value.close() }
    }

    private func withTLSRedis(
        certificate: String = "server", clients: Bool = false, _ body: (EventLoop, TLSFixture, _ port: UInt16) async throws -> Void
    ) async throws {
        try await withFolder { folder in
            let fixture = try await TLSFixture(folder: folder)
            let port = TestPorts.server()
            try await withRedis(extra: fixture.redis(port: port, certificate: certificate, clients: clients)) { _ in
                try await withLoop { loop in try await body(loop, fixture, port) }
            }
        }
    }

    /// Why no connection was made; fails the test if there was one.
    private func refusal(_ result: Result<LoopBound<RedisConnection>, RedisError>) -> RedisError? {
        if case .failure(let error) = result { return error }
        Issue.record("connected")
        return nil
    }

    @Test func pipelinesOfThousandsAndValuesOfMegabytes() async throws {
        try await withTLSRedis { loop, fixture, port in
            let connection = try await connect(loop, port: port, try fixture.trusting).get()
            var commands: [RedisCommand] = []
            for i in 0..<5000 { commands += [RedisCommand("SET", "k\(i)", "value \(i)"), RedisCommand("GET", "k\(i)")] }
            let replies = await send(loop, connection, commands)
            #expect(replies.count == 10_000)
            for i in 0..<5000 where (try? replies[2 * i + 1].get().string) != "value \(i)" {
                Issue.record("reply \(i) is \(replies[2 * i + 1])")
            }

            let large = (0..<5 << 20).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 9) }
            var set = RedisCommand("SET", "large")
            set.add(large)
            let answers = await send(loop, connection, [set] + (0..<3).map { _ in RedisCommand("GET", "large") } + [RedisCommand("PING")])
            for i in 1...3 { #expect(try answers[i].get().bytes == large) }
            #expect(try answers[4].get().string == "PONG")
            try await close(loop, connection)
        }
    }

    /// By address and by name; the second connection brings the first one's ticket.
    @Test func aServerThatIsKnownResumes() async throws {
        try await withTLSRedis { loop, fixture, port in
            let context = try fixture.trusting
            for (endpoint, resumed) in [
                (Endpoint("127.0.0.1:\(port)"), false), (Endpoint("127.0.0.1:\(port)"), true), (Endpoint("localhost:\(port)"), false),
            ] {
                let connection = try await connect(loop, to: try #require(endpoint), context).get()
                let (isResumed, words) = try await loop.run { (connection.value.tls?.isResumed, connection.value.tls?.protocolAndCipher) }
                #expect(isResumed == resumed && words?.hasPrefix("TLSv1.3 ") == true)
                let reply = await send(loop, connection, [RedisCommand("PING")])
                #expect(try reply[0].get().string == "PONG")
                try await close(loop, connection)
            }
        }
    }

    @Test func aCertificateOfAnUnknownAuthorityIsRefused() async throws {
        try await withTLSRedis { loop, fixture, port in
            let other = try TLSContext(authorities: fixture.file("other.pem"))
            let error = refusal(await connect(loop, port: port, other))
            #expect(error?.code == .unavailable && error?.execution == .notExecuted)
            let expected =
                "TLS: no CA in \(fixture.file("other.pem")) signed the certificate of /CN=server (issuer /CN=Muster test CA): give the "
                + "file of the CA that did"
            #expect(error?.message == expected)
            let system = refusal(await connect(loop, port: port, try TLSContext()))
            #expect(system?.message.contains("no CA in the system's store signed") == true)
        }
    }

    @Test func aCertificateForAnotherNameIsRefused() async throws {
        try await withTLSRedis(certificate: "elsewhere") { loop, fixture, port in
            let byAddress = refusal(await connect(loop, port: port, try fixture.trusting))
            #expect(byAddress?.message == "TLS: the server's certificate is for redis.example, 10.0.0.1, not 127.0.0.1")
            let byName = refusal(await connect(loop, to: .name("localhost", port: port), try fixture.trusting))
            #expect(byName?.message == "TLS: the server's certificate is for redis.example, 10.0.0.1, not localhost")
            // Whom to expect may be told apart from where to connect.
            let told = await connect(loop, to: .address(.loopback(port: port)), try fixture.trusting, name: "redis.example")
            try await close(loop, try told.get())
        }
    }

    @Test func anExpiredCertificateIsRefused() async throws {
        try await withTLSRedis(certificate: "expired") { loop, fixture, port in
            let error = refusal(await connect(loop, port: port, try fixture.trusting))
            #expect(error?.message.hasPrefix("TLS: the certificate of /CN=expired ended on 20") == true)
            #expect(error?.message.hasSuffix(": it must be renewed") == true)
        }
    }

    @Test func aClientShowsItsCertificate() async throws {
        try await withTLSRedis(clients: true) { loop, fixture, port in
            let known = try TLSContext(
                authorities: fixture.authority, certificate: fixture.file("client.pem"), key: fixture.file("client.key"))
            let connection = try await connect(loop, port: port, known).get()
            let reply = await send(loop, connection, [RedisCommand("PING")])
            #expect(try reply[0].get().string == "PONG")
            try await close(loop, connection)

            let without = refusal(await connect(loop, port: port, try fixture.trusting))
            #expect(without?.message == "TLS: the server asks for a client certificate: give its file and the file of its key")
            let foreign = try TLSContext(
                authorities: fixture.authority, certificate: fixture.file("other.pem"), key: fixture.file("other.key"))
            let refused = refusal(await connect(loop, port: port, foreign))
            #expect(refused?.message.hasPrefix("TLS: the server does not accept our certificate \(fixture.file("other.pem")): ") == true)
        }
    }

    /// Redis without TLS takes a greeting for the beginning of a command and waits; others answer.
    @Test func aServerWithoutTLSIsTold() async throws {
        try await withFolder { folder in
            let fixture = try await TLSFixture(folder: folder)
            try await withLoop { loop in
                try await withRedis { redis in
                    let silent = refusal(
                        await connect(loop, to: .address(.loopback(port: redis.port)), try fixture.trusting, within: .milliseconds(300)))
                    #expect(silent?.code == .timeout && silent?.message == "no TLS handshake within 300ms: is it a port with TLS?")
                }
                try await withRaw({ peer, _ in
                    _ = peer.read(1)
                    peer.send("-ERR unknown command\r\n")
                    _ = peer.readToEnd()
                }) { backend in
                    let error = refusal(await connect(loop, port: backend.port, try fixture.trusting))
                    #expect(error?.message.hasPrefix("TLS: the server speaks no TLS on this port") == true)
                }
                try await withRaw({ peer, _ in _ = peer.read(1) }) { backend in
                    let error = refusal(await connect(loop, port: backend.port, try fixture.trusting))
                    #expect(error?.message.contains("during the handshake: is it a port with TLS?") == true)
                }
            }
        }
    }

    @Test func aServerThatDiesIsToldFromOneThatCloses() async throws {
        try await withFolder { folder in
            let fixture = try await TLSFixture(folder: folder)
            let port = TestPorts.server()
            let redis = try await RedisFixture(folder: folder, extra: fixture.redis(port: port))
            try await withLoop { loop in
                let context = try fixture.trusting
                let steady = try await connect(loop, port: port, context).get()
                let closed = try await connect(loop, port: port, context).get()
                let wait = [RedisCommand("BLPOP", "nothing", "0")]
                func blockedClients() async throws -> Int {
                    let info = await send(loop, steady, [RedisCommand("INFO", "clients")])
                    let line = try info[0].get().string?.split(whereSeparator: \.isNewline).first { $0.hasPrefix("blocked_clients:") }
                    return line.flatMap { Int($0.dropFirst(16)) } ?? -1
                }
                // Redis closes in good order whom it is told to.
                async let first = send(loop, closed, wait)
                let isWaiting = try await eventually { try await blockedClients() == 1 }
                #expect(isWaiting)
                let killed = await send(loop, steady, [RedisCommand("CLIENT KILL", "TYPE", "normal")])
                #expect(try killed[0].get().int == 1)
                guard case .failure(let orderly) = await first[0] else {
                    Issue.record("an answer that nobody gave")
                    return
                }
                #expect(orderly.code == .lost && orderly.message == "closed by the peer")

                let cut = try await connect(loop, port: port, context).get()
                async let second = send(loop, cut, wait)
                let waitsAgain = try await eventually { try await blockedClients() == 1 }
                #expect(waitsAgain)
                await redis.destroy()
                guard case .failure(let error) = await second[0] else {
                    Issue.record("an answer of a dead server")
                    return
                }
                #expect(error.code == .lost && error.execution == .maybeExecuted)
                #expect(error.message.contains("close_notify") || error.message.contains("reset"))
                let after = refusal(await connect(loop, port: port, context))
                #expect(after?.code == .unavailable && after?.execution == .notExecuted)
            }
        }
    }

    @Test func filesThatCannotBeUsedAreNamed() async throws {
        try await withFolder { folder in
            let fixture = try await TLSFixture(folder: folder)
            func reason(_ authorities: String?, _ certificate: String?, _ key: String?) -> String {
                do throws(TLSFailure) {
                    _ = try TLSContext(
                        authorities: authorities.map { fixture.file($0) }, certificate: certificate.map { fixture.file($0) },
                        key: key.map { fixture.file($0) })
                    return "accepted"
                } catch { return "\(error)" }
            }
            #expect(reason("ca.pem", "client.pem", "client.key") == "accepted")
            #expect(reason("none.pem", nil, nil) == "TLS: CA file \(fixture.file("none.pem")) cannot be read: No such file or directory")
            #expect(reason("ca.key", nil, nil).hasPrefix("TLS: CA file \(fixture.file("ca.key")) holds no certificate in PEM form"))
            #expect(
                reason("ca.pem", nil, "client.key")
                    == "TLS: key file \(fixture.file("client.key")) has no certificate: give the certificate's file too")
            #expect(
                reason("ca.pem", "client.key", nil).hasPrefix("TLS: certificate file \(fixture.file("client.key")) cannot be used as PEM"))
            #expect(reason("ca.pem", "client.pem", nil).contains("client.pem holds no private key in PEM form"))
            #expect(
                reason("ca.pem", "client.pem", "locked.key").contains("locked.key holds no private key in PEM form without a passphrase"))
            let foreign = "TLS: key file \(fixture.file("server.key")) does not belong to the certificate \(fixture.file("client.pem"))"
            #expect(reason("ca.pem", "client.pem", "server.key") == foreign)
        }
    }
}
