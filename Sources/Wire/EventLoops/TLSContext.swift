import Basics
import COpenSSL
import Glibc
import Synchronization

/// The common part of a client's TLS connections: which authorities they trust and their own certificate. Made once, shared by all loops.
///
/// TLS 1.2 or newer. The peer's chain and its name are verified, unless whoever makes it asks for less (`Proof`), as PostgreSQL's users may.
/// Files are read when this is made, so a renewed certificate needs a new context. Sessions are resumed where the server gives tickets.
public final class TLSContext: Sendable {
    /// Tickets kept for one server: as many connections as a client commonly opens to it again after an outage.
    private static let ticketsAPlace = 8
    /// Servers that tickets are kept for; with more, all are forgotten, which costs a full handshake each.
    private static let places = 256

    /// OpenSSL counts the uses of its context with atomics and locks it by itself; after `init` it is only read.
    let native: TLSAddress
    private let tickets = Mutex<[String: [TLSAddress]]>([:])
    /// What the peer must show of itself.
    public enum Proof: Sendable {
        /// A certificate that a known authority signed, for the name that was asked for.
        case name
        /// A certificate that a known authority signed, for whatever name.
        case authority
        /// Whatever certificate: the connection is encrypted, with whom is not known.
        case none
    }

    let proof: Proof
    /// Names for sentences: the authorities that we trust, and our own certificate's file.
    let trusted: String
    let certificate: String?

    /// - Parameters:
    ///   - authorities: a PEM file of CAs; nil for those of the system.
    ///   - certificate: our own, with its chain, as PEM; nil for none.
    ///   - key: its private key, as PEM without a passphrase; nil if it stands in the certificate's file.
    ///   - proof: what the peer must show of itself.
    public init(
        authorities: String? = nil, certificate: String? = nil, key: String? = nil, proof: Proof = .name
    ) throws(TLSFailure) {
        self.proof = proof
        guard let native = SSL_CTX_new(TLS_client_method()) else { throw TLSFailure(.settings, "OpenSSL: \(TLSErrorQueue.take().text)") }
        self.native = TLSAddress(native)
        trusted = authorities ?? "the system's store"
        self.certificate = certificate
        SSL_CTX_ctrl(native, SSL_CTRL_SET_MIN_PROTO_VERSION, Int(TLS1_2_VERSION), nil)
        // 1 << 30 is SSL_OP_NO_RENEGOTIATION: nobody needs it, and TLS 1.3 has dropped it.
        SSL_CTX_set_options(native, 1 << 30)
        SSL_CTX_set_verify(native, proof == .none ? SSL_VERIFY_NONE : SSL_VERIFY_PEER) { accepted, chain in
            TLSSession.judge(accepted, chain)
        }
        SSL_CTX_set_client_cert_cb(native) { ssl, _, _ in TLSSession.certificateAsked(ssl) }
        // Sessions are kept here and not in OpenSSL, which looks none up for a client.
        SSL_CTX_ctrl(
            native, SSL_CTRL_SET_SESS_CACHE_MODE,
            Int(SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_LOOKUP | SSL_SESS_CACHE_NO_INTERNAL_STORE), nil)
        SSL_CTX_sess_set_new_cb(native) { ssl, ticket in TLSSession.ticketCame(ssl, ticket) }
        // Nobody sits at a terminal: a key with a passphrase is refused instead of asked for.
        SSL_CTX_set_default_passwd_cb(native) { _, _, _, _ in -1 }
        if proof != .none { try TLSContext.trust(authorities, native) }
        try TLSContext.identify(certificate, key, native)
    }

    deinit {
        for ticket in tickets.withLock({ $0.values.flatMap { $0 } }) { SSL_SESSION_free(ticket.pointer) }
        SSL_CTX_free(native.pointer)
    }

    private static func trust(_ authorities: String?, _ native: OpaquePointer) throws(TLSFailure) {
        ERR_clear_error()
        guard let authorities else {
            guard SSL_CTX_set_default_verify_paths(native) == 1 else {
                throw TLSFailure(.settings, "the system's store of CAs cannot be used: \(TLSErrorQueue.take().text)")
            }
            return
        }
        try readable(authorities, "CA")
        guard SSL_CTX_load_verify_file(native, authorities) == 1 else {
            throw TLSFailure(.settings, "CA file \(authorities) holds no certificate in PEM form (\(TLSErrorQueue.take().text))")
        }
    }

    private static func identify(_ certificate: String?, _ key: String?, _ native: OpaquePointer) throws(TLSFailure) {
        guard let certificate else {
            if let key { throw TLSFailure(.settings, "key file \(key) has no certificate: give the certificate's file too") }
            return
        }
        let key = key ?? certificate
        try readable(certificate, "certificate")
        try readable(key, "key")
        ERR_clear_error()
        guard SSL_CTX_use_certificate_chain_file(native, certificate) == 1 else {
            throw TLSFailure(.settings, "certificate file \(certificate) cannot be used as PEM (\(TLSErrorQueue.take().text))")
        }
        guard SSL_CTX_use_PrivateKey_file(native, key, SSL_FILETYPE_PEM) == 1 else {
            let error = TLSErrorQueue.take()
            if error.reason == X509_R_KEY_VALUES_MISMATCH {
                throw TLSFailure(.settings, "key file \(key) does not belong to the certificate \(certificate)")
            }
            throw TLSFailure(.settings, "key file \(key) holds no private key in PEM form without a passphrase (\(error.text))")
        }
    }

    private static func readable(_ path: String, _ what: String) throws(TLSFailure) {
        let fd = open(path, O_RDONLY | O_CLOEXEC)
        guard fd >= 0 else { throw TLSFailure(.settings, "\(what) file \(path) cannot be read: \(errorText(errno))") }
        close(fd)
    }

    // MARK: sessions

    /// A connection's end of TLS to the server called `name`, a host name or a numeric address: its certificate must be for that name.
    /// `offering`: what is offered by ALPN, the best first; nothing, when it is empty.
    public func session(to name: String, port: UInt16, offering: [ApplicationProtocol] = []) -> TLSSession {
        let session = TLSSession(self, name: name, port: port)
        if !offering.isEmpty { session.offer(offering) }
        return session
    }

    /// Offers the server a ticket that it gave us at `place` before. A ticket of TLS 1.3 is used once, as RFC 8446 (C.4) wants it.
    func resume(_ ssl: OpaquePointer, at place: String) {
        let found: (ticket: TLSAddress, once: Bool)? = tickets.withLock { tickets in
            guard let ticket = tickets[place]?.last else { return nil }
            let once = SSL_SESSION_get_protocol_version(ticket.pointer) >= TLS1_3_VERSION
            if once { tickets[place]?.removeLast() } else { SSL_SESSION_up_ref(ticket.pointer) }
            return (ticket, once)
        }
        guard let found else { return }
        SSL_set_session(ssl, found.ticket.pointer)
        SSL_SESSION_free(found.ticket.pointer)
    }

    /// Keeps a ticket for later connections to `place`, and owns it from then on.
    func keep(_ ticket: OpaquePointer, from place: String) {
        let ticket = TLSAddress(ticket)
        let dropped: [TLSAddress] = tickets.withLock { tickets in
            var dropped: [TLSAddress] = []
            if tickets[place] == nil, tickets.count >= TLSContext.places {
                dropped = tickets.values.flatMap { $0 }
                tickets = [:]
            }
            tickets[place, default: []].append(ticket)
            if tickets[place]!.count > TLSContext.ticketsAPlace { dropped.append(tickets[place]!.removeFirst()) }
            return dropped
        }
        for old in dropped { SSL_SESSION_free(old.pointer) }
    }
}

/// The address of an object of OpenSSL that any thread may use: OpenSSL counts its uses with atomics and guards what changes in it.
struct TLSAddress: Sendable {
    private let bits: UInt

    init(_ pointer: OpaquePointer) { bits = UInt(bitPattern: pointer) }

    var pointer: OpaquePointer { OpaquePointer(bitPattern: bits)! }
}
