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
        /// Which clients must show a certificate, or may: the first that holds for a name counts.
        public var clients: [ClientAuthorities] = []
        /// What seals tickets; nil: there are none, and every handshake is a full one.
        public var tickets: TicketKeys?

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
    let clients: [ClientAuthorities]
    private let tickets: TicketKeys?
    /// The certificates, for whoever tells when they end.
    public let certificates: [ServerCertificate]

    /// What of a server a name leads to. Names of one place may share a connection (RFC 9110, 7.4), and no others.
    public struct Place: Sendable, Equatable {
        let identity: Int
        /// Which rule holds for its clients; nil: none.
        let clients: Int?
    }

    /// The certificates for one name or more: of each kind of key at most one. OpenSSL chooses between the two by what the client can verify.
    private struct Identity: Sendable {
        let native: TLSAddress
    }

    /// Fails when there is no certificate, or OpenSSL does not take one of them (a key that is too short, say).
    public init(_ settings: Settings) throws(TLSFailure) {
        guard !settings.certificates.isEmpty else { throw TLSFailure(.settings, "a server needs a certificate") }
        protocols = settings.protocols
        isStrict = settings.isStrict
        clients = settings.clients
        tickets = settings.tickets
        certificates = settings.certificates
        names = CertificateNames(settings.certificates.map { ($0.names, $0.kind) })
        var made: [Identity] = []
        for choice in names.choices {
            let native: OpaquePointer
            do throws(TLSFailure) {
                native = try TLSServer.context(choice.map { settings.certificates[$0] }, settings.tickets)
            } catch {
                for identity in made { SSL_CTX_free(identity.native.pointer) }
                throw error
            }
            made.append(Identity(native: TLSAddress(native)))
        }
        identities = made
        native = made[0].native
    }

    deinit { for identity in identities { SSL_CTX_free(identity.native.pointer) } }

    private static func context(_ certificates: [ServerCertificate], _ tickets: TicketKeys?) throws(TLSFailure) -> OpaquePointer {
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
        follow(native)
        if let tickets { resume(native, tickets) } else { SSL_CTX_set_num_tickets(native, 0) }
        // Only where a client's certificate was verified does OpenSSL insist on one.
        SSL_CTX_set_session_id_context(native, "muster", 6)
        return native
    }

    /// Says what is asked of us during handshakes.
    private static func follow(_ native: OpaquePointer) {
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
    }

    /// Resumes sessions by tickets. Into a ticket goes the name that its connection asked for: it counts under that name only, because what
    /// a client was let in for under one name (by its certificate, say) it was not let in for under another (CVE-2025-23419).
    private static func resume(_ native: OpaquePointer, _ tickets: TicketKeys) {
        SSL_CTX_set_timeout(native, Int(max(60, min(86400, tickets.rotation.nanoseconds / 500_000_000))))
        muster_tls_tickets(native) { ssl, name, vector, cipher, mac, seals in
            guard let tickets = TLSSession.of(ssl).server?.tickets, let name, let vector else { return 0 }
            if seals == 1 { return tickets.seal(name, vector, cipher, mac) ? 1 : -1 }
            switch tickets.open(name, vector, cipher, mac) {
            case .unknownKey: return 0
            case .failed: return -1
            case .current: return 1
            case .old: return 2
            }
        }
        SSL_CTX_set_session_ticket_cb(
            native,
            { ssl, _ in
                let name = TLSSession.of(ssl).serverName
                return name.withUnsafeBytes { SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), $0.baseAddress, $0.count) }
            },
            { ssl, session, _, _, status, _ in
                guard status == SSL_TICKET_SUCCESS || status == SSL_TICKET_SUCCESS_RENEW else { return SSL_TICKET_RETURN_IGNORE_RENEW }
                var name: UnsafeMutableRawPointer?
                var count = 0
                guard SSL_SESSION_get0_ticket_appdata(session, &name, &count) == 1,
                    TLSSession.of(ssl).serverName.elementsEqual(UnsafeRawBufferPointer(start: name, count: count))
                else { return SSL_TICKET_RETURN_IGNORE_RENEW }
                return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW
            }, nil)
    }

    /// A connection's end of TLS.
    public func session() -> TLSSession { TLSSession(self) }

    /// The place of the protocol that both ends know, in the client's list (RFC 7301, 3.1: each name after its length), ours first; nil: none.
    fileprivate func choose(from offered: UnsafeRawBufferPointer) -> (offset: Int, count: Int)? {
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

    /// Where a name leads, in lower case: to the first certificate for a client that names none, and for an unknown name unless the server is
    /// strict. nil: nobody has it.
    func place(of name: [UInt8]) -> Place? {
        let text = String(decoding: name, as: UTF8.self)
        guard let identity = name.isEmpty ? 0 : names.choice(for: text) ?? (isStrict ? nil : 0) else { return nil }
        return Place(identity: identity, clients: clients.firstIndex { $0.holds(for: text) })
    }

    /// Makes a connection one of a place. Whose clients show certificates gets no tickets: each handshake verifies them anew, with what has
    /// been revoked meanwhile. False for want of memory.
    func use(_ place: Place, for ssl: OpaquePointer) -> Bool {
        SSL_set_SSL_CTX(ssl, identities[place.identity].native.pointer)
        guard let rule = place.clients else { return true }
        SSL_set_num_tickets(ssl, 0)
        // 1 << 14 is SSL_OP_NO_TICKET: for TLS 1.2, and for what a client brings.
        SSL_set_options(ssl, 1 << 14)
        return clients[rule].ask(ssl)
    }
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
