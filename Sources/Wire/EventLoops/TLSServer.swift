import Basics
import COpenSSL
import CTLS

/// The common part of a server's TLS connections: its certificates and what it speaks. Made anew when a file changes; connections keep the one
/// they began with. Shared by all loops.
///
/// TLS 1.2 and 1.3, no renegotiation, no compression. In TLS 1.2 ECDHE with AES-GCM or ChaCha20 only; the order is the server's, AES-128-GCM
/// first, but ChaCha20 for a client that puts it first (it has no AES in hardware). Groups X25519, P-256 and P-384. That is Mozilla's
/// "intermediate" with ECDHE only; OpenSSL's own groups X448 and P-521 fail its scanners.
public final class TLSServer: Sendable {
    public struct Settings: Sendable {
        public var certificates: [ServerCertificate]
        /// What is offered by ALPN, the best first.
        public var protocols: [ApplicationProtocol] = [.http1]
        /// Whether a client that asks for a name of no certificate is refused, instead of given the first one.
        public var isStrict = false

        public init(certificates: [ServerCertificate]) { self.certificates = certificates }
    }

    private static let ciphers =
        "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
        + "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
    private static let suites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
    private static let groups = "X25519:P-256:P-384"

    /// The context in which connections begin; the one of the identity takes its place when the client has said which name it wants.
    let native: TLSAddress
    private let identities: [Identity]
    private let names: CertificateNames
    private let protocols: [ApplicationProtocol]
    private let isStrict: Bool

    /// The certificates for one name or more: of each kind of key at most one. OpenSSL chooses between the two by what the client can verify.
    private struct Identity: Sendable {
        let native: TLSAddress
    }

    /// Fails when there is no certificate, or OpenSSL does not take one of them (a key that is too short, say).
    public init(_ settings: Settings) throws(TLSFailure) {
        guard !settings.certificates.isEmpty else { throw TLSFailure(.settings, "a server needs a certificate") }
        protocols = settings.protocols
        isStrict = settings.isStrict
        names = CertificateNames(settings.certificates.map { ($0.names, $0.kind) })
        var made: [Identity] = []
        for choice in names.choices {
            let native: OpaquePointer
            do throws(TLSFailure) { native = try TLSServer.context(choice.map { settings.certificates[$0] }) } catch {
                for identity in made { SSL_CTX_free(identity.native.pointer) }
                throw error
            }
            made.append(Identity(native: TLSAddress(native)))
        }
        identities = made
        native = made[0].native
    }

    deinit { for identity in identities { SSL_CTX_free(identity.native.pointer) } }

    private static func context(_ certificates: [ServerCertificate]) throws(TLSFailure) -> OpaquePointer {
        guard let native = SSL_CTX_new(TLS_server_method()) else { throw TLSFailure(.settings, "OpenSSL: \(TLSErrorQueue.take().text)") }
        ERR_clear_error()
        guard muster_tls_server_settings(native, ciphers, suites, groups) == 1 else {
            defer { SSL_CTX_free(native) }
            throw TLSFailure(.settings, "OpenSSL does not take the settings of a server: \(TLSErrorQueue.take().text)")
        }
        for certificate in certificates {
            guard certificate.use(in: native) else {
                defer { SSL_CTX_free(native) }
                throw TLSFailure(.settings, "certificate file \(certificate.path) cannot be used: \(TLSErrorQueue.take().text)")
            }
        }
        SSL_CTX_set_client_hello_cb(
            native,
            { ssl, alert, _ in
                guard let refusal = TLSSession.of(ssl).clientSaidHello() else { return SSL_CLIENT_HELLO_SUCCESS }
                alert?.pointee = refusal
                return SSL_CLIENT_HELLO_ERROR
            }, nil)
        SSL_CTX_set_alpn_select_cb(
            native,
            { ssl, out, outCount, offered, count, _ in
                guard let server = TLSSession.of(ssl).server, let offered, let out, let outCount,
                    let chosen = server.choose(from: UnsafeRawBufferPointer(start: offered, count: Int(count)))
                else { return SSL_TLSEXT_ERR_ALERT_FATAL }
                out.pointee = offered + chosen.offset
                outCount.pointee = UInt8(truncatingIfNeeded: chosen.count)
                return SSL_TLSEXT_ERR_OK
            }, nil)
        return native
    }

    /// A connection's end of TLS.
    public func session() -> TLSSession { TLSSession(self) }

    /// The place of the protocol that both ends know, in the client's list (RFC 7301, 3.1: each name after its length), ours first; nil: none.
    private func choose(from offered: UnsafeRawBufferPointer) -> (offset: Int, count: Int)? {
        for mine in protocols {
            var at = 0
            while at < offered.count {
                let count = Int(offered[at])
                guard count > 0, at + 1 + count <= offered.count else { return nil }
                if ApplicationProtocol(offered.part(at + 1, count)) == mine { return (at + 1, count) }
                at += 1 + count
            }
        }
        return nil
    }

    /// The identity that has a name, in lower case: the first one for a client that names none, and for an unknown name unless the server is
    /// strict. nil: nobody has it.
    public func identity(of name: [UInt8]) -> Int? {
        if name.isEmpty { return 0 }
        return names.choice(for: String(decoding: name, as: UTF8.self)) ?? (isStrict ? nil : 0)
    }

    /// Makes the connection one of an identity.
    func use(_ identity: Int, for ssl: OpaquePointer) { SSL_set_SSL_CTX(ssl, identities[identity].native.pointer) }
}

/// Which certificates belong to which name. Pure.
///
/// A name belongs to the first certificate of each kind of key that has it. An exact name goes before a `*.`, which stands for one label.
public struct CertificateNames: Sendable {
    /// What certificates stand together, as their numbers: each such choice is an identity. The first is that of the first certificate.
    public private(set) var choices: [[Int]] = []
    private var exact: [String: Int] = [:]
    private var wild: [String: Int] = [:]

    /// `certificates`: the names of each, in lower case, and the kind of its key.
    public init(_ certificates: [(names: [String], kind: ServerCertificate.Kind)]) {
        var holders: [String: [Int]] = [:], order: [String] = []
        for (number, certificate) in certificates.enumerated() {
            for name in certificate.names {
                let known = holders[name] ?? []
                if known.isEmpty { order.append(name) }
                if known.contains(where: { certificates[$0].kind == certificate.kind }) { continue }
                holders[name] = known + [number]
            }
        }
        // The first certificate's own, with what of the other kind has all of its names: for clients that name nobody.
        let first = certificates.first?.names ?? []
        let partner = certificates.indices.dropFirst().first { number in
            certificates[number].kind != certificates[0].kind && !first.isEmpty
                && first.allSatisfy { holders[$0]?.contains(number) == true }
        }
        choices = [[0] + (partner.map { [$0] } ?? [])]
        for name in order {
            guard let holding = holders[name] else { continue }
            let place = choices.firstIndex(of: holding) ?? choices.count
            if place == choices.count { choices.append(holding) }
            if name.hasPrefix("*.") { wild[String(name.dropFirst(2))] = place } else { exact[name] = place }
        }
    }

    /// The choice for a name in lower case; nil: no certificate has it.
    public func choice(for name: String) -> Int? {
        if let found = exact[name] { return found }
        guard let dot = name.firstIndex(of: "."), dot > name.startIndex else { return nil }
        return wild[String(name[name.index(after: dot)...])]
    }
}
