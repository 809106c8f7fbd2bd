import Basics
import EventLoops
import Gateway
import Glibc
import Observability
import StackModel
import TestSupport

/// A gateway with TLS for one test.
struct SecureGateway {
    let gateway: Gateway
    let certificates: CertificateFixture
    let loop: EventLoop
    let port: UInt16

    func metric(_ name: String, _ label: String) -> Double {
        for line in gateway.metrics.render().split(separator: "\n") where line.hasPrefix("\(name){") && line.contains("\"\(label)\"") {
            return line.split(separator: " ").last.flatMap { Double($0) } ?? 0
        }
        return 0
    }

    func failures(_ word: String) -> Double { metric("gateway_tls_handshake_failures_total", word) }

    /// Asks once over TLS; the connection ends with the answer.
    func ask(
        _ name: String = "localhost", host: String? = nil, _ target: String = "/", fields: [String] = [], context: TLSContext? = nil
    ) async throws -> SecureAnswer {
        let head =
            (["GET \(target) HTTP/1.1", "Host: \(host ?? name)", "Connection: close"] + fields).joined(separator: "\r\n") + "\r\n\r\n"
        let context = try context ?? TLSContext(authorities: certificates.authority)
        let port = port
        let talker = try await loop.run {
            let talker = SecureTalker(loop: loop, head)
            talker.tls = context.session(to: name, port: port)
            talker.connect(to: .loopback(port: port))
            return LoopBound(talker, on: loop)
        }
        _ = try await eventually { try await loop.run { talker.value.reason != nil } }
        return try await loop.run {
            SecureAnswer(
                text: String(decoding: talker.value.got, as: UTF8.self), reason: talker.value.reason, words: talker.value.words,
                isResumed: talker.value.isResumed)
        }
    }
}

struct SecureAnswer: Sendable {
    let text: String
    let reason: CloseReason?
    let words: String
    let isResumed: Bool
    var status: String { String(text.dropFirst(9).prefix(3)) }
}

/// Sends one text when it is connected, and keeps what comes.
final class SecureTalker: Stream {
    private let text: String
    var got: [UInt8] = []
    var reason: CloseReason?
    var words = ""
    var isResumed = false

    init(loop: EventLoop, _ text: String) {
        self.text = text
        super.init(loop: loop)
    }

    override func connected() {
        words = tls?.protocolAndCipher ?? ""
        isResumed = tls?.isResumed ?? false
        var text = text
        text.withUTF8 { write(UnsafeRawBufferPointer($0)) }
    }
    override func received(_ bytes: UnsafeRawBufferPointer) { got += bytes }
    override func closed(_ reason: CloseReason) { self.reason = reason }
}

/// `tls` are the keys of `gateway.tls`; without them the gateway has the certificate `server` for localhost and 127.0.0.1.
func withSecureGateway(
    _ routes: String..., tls: ((CertificateFixture) async throws -> String)? = nil, keys: [String] = [],
    _ body: (SecureGateway) async throws -> Void
) async throws {
    try await withCertificates { certificates in
        let text: String
        if let tls {
            text = try await tls(certificates)
        } else {
            try await certificates.leaf("server", "DNS:localhost,IP:127.0.0.1")
            text = "certificates: { certificate: \(certificates.file("server.pem")), key: \(certificates.file("server.key")) }"
        }
        let routes = routes.isEmpty ? ["{ path: /, answer: { body: hello } }"] : routes
        try await withLoop { loop in
            let spec = try gatewaySpec(routes, keys: ["tls: { \(text) }"] + keys)
            let logger = Logger(level: .error, format: .text, descriptor: 2, immediate: true)
            let gateway = try Gateway(spec, metrics: MetricsRegistry(), journal: Journal(), logger: logger, accessLog: -1)
            defer { gateway.stop() }
            try await gateway.apply(spec) { _ in [] }
            try await gateway.listen(on: .loopback(port: 0), as: .secure)
            let result: Result<Void, any Error>
            do {
                result = .success(
                    try await body(
                        SecureGateway(gateway: gateway, certificates: certificates, loop: loop, port: gateway.addresses.last?.port ?? 0)))
            } catch { result = .failure(error) }
            _ = await gateway.drain(grace: .milliseconds(100))
            try result.get()
        }
    }
}
