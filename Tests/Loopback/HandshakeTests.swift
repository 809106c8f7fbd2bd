import Basics
import Gateway
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import EventLoops

private final class HelloKeeper: Sendable { let bytes = Mutex<[UInt8]>([]) }

/// TLS handshakes that go well, and those of clients that break them.
@Suite(.serialized) struct HandshakeTests {
    /// A ClientHello as a client of ours sends it.
    private func hello(_ gateway: SecureGateway) async throws -> [UInt8] {
        let loop = gateway.loop
        let keeper = HelloKeeper()
        let context = try TLSContext(authorities: gateway.certificates.authority)
        let listener = try await loop.run {
            LoopBound(
                try Listener(loop: loop, address: .loopback(port: 0)) { fd, _ in
                    startThread {
                        var chunk = [UInt8](repeating: 0, count: 8192)
                        _ = fcntl(fd, F_SETFL, 0)
                        let got = recv(fd, &chunk, chunk.count, 0)
                        keeper.bytes.withLock { $0 = Array(chunk.prefix(max(0, got))) }
                        close(fd)
                    }
                }, on: loop)
        }
        let port = try await loop.run { listener.value.address.port ?? 0 }
        try await loop.run {
            let talker = SecureTalker(loop: loop, "")
            talker.tls = context.session(to: "localhost", port: port)
            talker.connect(to: .loopback(port: port))
        }
        _ = await eventually { !keeper.bytes.withLock(\.isEmpty) }
        try await loop.run { listener.value.close() }
        return keeper.bytes.withLock(\.self)
    }

    @Test func aRequestOverTLSIsServedAndTheBackendIsToldSo() async throws {
        try await withEcho { backend, _ in
            try await withSecureGateway("{ path: /, backends: [127.0.0.1:\(backend)] }") { gateway in
                let answer = try await gateway.ask()
                #expect(answer.status == "200" && answer.text.contains("X-Forwarded-Proto: https"), "\(answer)")
                #expect(answer.words == "TLSv1.3 TLS_AES_128_GCM_SHA256", "\(answer.words)")
                #expect(answer.reason == .endOfFile)
                #expect(gateway.metric("gateway_tls_handshakes_total", "full") == 1)
            }
        }
    }

    /// A large body both ways goes through records and back-pressure.
    @Test func largeBodiesPass() async throws {
        let size = 1_000_000
        try await withRaw(
            { fd in
                _ = receiveHead(fd)
                let head = Array("HTTP/1.1 200 OK\r\nContent-Length: \(size)\r\nConnection: close\r\n\r\n".utf8)
                let body = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) }
                for part in [head, body] {
                    var sent = 0
                    while sent < part.count {
                        let more = part.withUnsafeBytes { send(fd, $0.baseAddress! + sent, part.count - sent, Int32(MSG_NOSIGNAL)) }
                        if more <= 0 { return }
                        sent += more
                    }
                }
            }
        ) { backend, _ in
            try await withSecureGateway("{ path: /, backends: [127.0.0.1:\(backend)] }") { gateway in
                let loop = gateway.loop, port = gateway.port
                let context = try TLSContext(authorities: gateway.certificates.authority)
                let talker = try await loop.run {
                    let talker = SecureTalker(loop: loop, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    talker.tls = context.session(to: "localhost", port: port)
                    talker.connect(to: .loopback(port: port))
                    return LoopBound(talker, on: loop)
                }
                #expect(try await eventually { try await loop.run { talker.value.reason != nil } })
                let isRight = try await loop.run {
                    let body = talker.value.got.suffix(size)
                    return body.count == size && zip(body, 0..<size).allSatisfy { $0 == UInt8(truncatingIfNeeded: $1 &* 31 >> 3) }
                }
                #expect(isRight)
            }
        }
    }

    @Test func plainHTTPIsToldToUseTLSAndGarbageIsClosed() async throws {
        try await withSecureGateway { gateway in
            let plain = try RawSocket(port: gateway.port)
            plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            let answer = plain.receive()
            #expect(answer.hasPrefix("HTTP/1.1 400 ") && answer.contains("plain_http") && answer.contains("https://"), "\(answer)")
            for garbage in ["\u{1}\u{2}\u{3}", "\u{16}\u{3}\u{1}\u{7f}\u{7f}hello", "\u{16}\u{4}", "\u{16}\u{3}\u{1}\u{0}\u{0}"] {
                let socket = try RawSocket(port: gateway.port)
                socket.send(garbage)
                #expect(socket.receive().isEmpty)
            }
            // A hello's record with something else in it: OpenSSL answers with an alert.
            let odd = try RawSocket(port: gateway.port)
            odd.send([22, 3, 1, 0, 5, 9, 0, 0, 1, 0])
            #expect(odd.receive().utf8.first == 21)
            #expect(
                await eventually { gateway.failures("plain_http") == 1 && gateway.failures("no_tls") == 4 },
                "\(gateway.gateway.metrics.render())")
            #expect(try await gateway.ask().status == "200")
        }
    }

    /// A hello that comes byte by byte is answered; one that stops is closed after `limits.head-time`.
    @Test func slowHellos() async throws {
        try await withSecureGateway(keys: ["limits: { head-time: 1s }"]) { gateway in
            let hello = try await hello(gateway)
            #expect(hello.first == 22 && hello.count > 100)
            let drip = try RawSocket(port: gateway.port)
            for byte in hello { drip.send([byte]) }
            let flight = drip.receive { !$0.isEmpty }
            #expect(flight.utf8.first == 22)
            // It never finishes: its time is over.
            #expect(drip.receive().utf8.count >= 0 && drip.peerEnded)
            let began = MonotonicTime.now
            for part in [hello.prefix(0), hello.prefix(1), hello.prefix(hello.count - 1)] {
                let stalled = try RawSocket(port: gateway.port)
                stalled.send(Array(part))
                #expect(stalled.receive().isEmpty && stalled.peerEnded)
            }
            #expect(MonotonicTime.now - began >= .seconds(3))
            #expect(await eventually { gateway.failures("timeout") == 4 })
        }
    }

    /// A thousand clients that begin and do not go on hold nobody else up; beyond the bound the oldest go.
    @Test func aThousandUnfinishedHandshakes() async throws {
        try await withSecureGateway { gateway in
            let hello = try await hello(gateway)
            var idle: [RawSocket] = []
            for i in 0..<1000 {
                let socket = try RawSocket(port: gateway.port)
                socket.send(i % 2 == 0 ? hello : Array(hello.prefix(50)))
                idle.append(socket)
                if i % 200 == 199 { #expect(try await gateway.ask().status == "200") }
            }
            #expect(gateway.metric("gateway_tls_handshakes_total", "full") == 5)
            idle = []
            #expect(await eventually { gateway.failures("client_closed") == 1000 }, "\(gateway.failures("client_closed"))")
            #expect(try await gateway.ask().status == "200")
        }
    }

    @Test func theHeaderOfAProxyComesBeforeTLS() async throws {
        try await withEcho { backend, _ in
            try await withSecureGateway(
                "{ path: /, backends: [127.0.0.1:\(backend)] }", keys: ["proxy-protocol: true", "trusted-proxies: 127.0.0.1"]
            ) { gateway in
                let loop = gateway.loop, port = gateway.port
                let context = try TLSContext(authorities: gateway.certificates.authority)
                final class Introduced: Stream {
                    var session: TLSSession?
                    let talker: SecureTalker
                    init(_ talker: SecureTalker) {
                        self.talker = talker
                        super.init(loop: talker.loop)
                    }
                    override func connected() {
                        if tls == nil {
                            var text = "PROXY TCP4 203.0.113.7 127.0.0.1 4000 443\r\n"
                            text.withUTF8 { write(UnsafeRawBufferPointer($0)) }
                            tls = session
                            isConnected = false
                            _ = beginHandshake(session!)
                        } else {
                            handOver(to: talker)
                            talker.connected()
                        }
                    }
                }
                let talker = try await loop.run {
                    let talker = SecureTalker(loop: loop, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    let first = Introduced(talker)
                    first.session = context.session(to: "localhost", port: port)
                    first.connect(to: .loopback(port: port))
                    return LoopBound(talker, on: loop)
                }
                #expect(try await eventually { try await loop.run { talker.value.reason != nil } })
                let text = try await loop.run { String(decoding: talker.value.got, as: UTF8.self) }
                #expect(text.contains("X-Real-IP: 203.0.113.7") && text.contains("X-Forwarded-Proto: https"), "\(text)")
                // Without the header nobody gets as far as TLS.
                let hello = try await hello(gateway)
                let bare = try RawSocket(port: port)
                bare.send(hello)
                #expect(bare.receive().isEmpty)
                #expect(await eventually { gateway.failures("bad_proxy_header") == 1 })
            }
        }
    }

    @Test func filesThatDoNotFitAreTold() async throws {
        try await withCertificates { certificates in
            try await certificates.leaf("a", "DNS:a.example")
            try await certificates.leaf("b", "DNS:b.example")
            try await certificates.shell("openssl ec -aes128 -passout pass:secret -in a.key -out locked.key; echo nothing > empty.pem")
            for (certificate, key, word) in [
                ("a.pem", "b.key", "does not belong to"), ("a.pem", "gone.key", "gone.key cannot be read"),
                ("gone.pem", "a.key", "gone.pem cannot be read"), ("a.pem", "locked.key", "without a passphrase"),
                ("empty.pem", "a.key", "holds no certificate"), ("a.pem", "a.pem", "holds no private key"),
            ] {
                let spec = try gatewaySpec(
                    ["{ path: /, answer: { body: x } }"],
                    keys: [
                        "tls: { certificates: [ { certificate: \(certificates.file(certificate)), key: \(certificates.file(key)) } ] }"
                    ])
                do {
                    let gateway = try Gateway(
                        spec, metrics: .init(), journal: .init(),
                        logger: .init(level: .error, format: .text, descriptor: 2, immediate: true),
                        accessLog: -1)
                    defer { gateway.stop() }
                    try await gateway.apply(spec) { _ in [] }
                    Issue.record("\(certificate) with \(key) was taken")
                } catch { #expect("\(error)".contains(word) && "\(error)".contains("gateway.tls"), "\(error)") }
            }
        }
    }
}
