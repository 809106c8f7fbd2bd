import Basics
import COpenSSL
import CTLS

/// One connection's end of TLS: bytes of the socket in, plain bytes out, and the other way. It has no socket; `Stream` moves the bytes.
///
/// OpenSSL reads from the loop's buffer and writes to the loop's `TLSPipe`: one `recv` and one `send` for many records (on the descriptor it
/// would be two reads a record and a write for every 16 KiB, without MSG_NOSIGNAL). All that came in one read is opened at once, so nothing
/// stays behind in OpenSSL but the beginning of a record: a pause needs no further thought. What is sealed is sent from the pipe; only what
/// the socket does not take is copied into the session.
///
/// States: handshake → `isReady` → `sawEnd` (the peer's close_notify) or `failure`. Belongs to its loop.
public final class TLSSession {
    /// Most bytes sealed before they are sent: enough for one system call to be cheap, little enough to stay in the cache.
    static let sealAtOnce = 65536

    /// Which end this is, and what it needs to know for that.
    private enum Side {
        case client(TLSContext, name: String, place: String)
        case server(TLSServer)
    }

    private let side: Side
    let ssl: OpaquePointer
    /// Sealed bytes that the socket did not take yet.
    var sealed = ByteBuffer()
    /// Plain bytes that came together with the end of the handshake, when `connected` paused reading.
    var held = ByteBuffer()
    /// Whether `sealed` has bytes of the stream's own, not only of TLS.
    var carriesOutput = false
    /// Whether the socket is connected and the handshake has begun.
    public private(set) var hasBegun = false
    private(set) var isReady = false
    private(set) var sawEnd = false
    /// Whether the stream has told its subclass of `sawEnd` or `failure`.
    var toldEnd = false
    private(set) var failure: TLSFailure?
    private var complaint: TLSFailure?
    private var wasAsked = false
    /// For a server: the name that the client asked for, in lower case; empty when it named none. And where that led.
    public private(set) var serverName: [UInt8] = []
    private var place: TLSServer.Place?

    init(_ context: TLSContext, name: String, port: UInt16) {
        let plainName = name.hasSuffix(".") ? String(name.dropLast()) : name
        let place = "\(plainName) \(port)"
        side = .client(context, name: plainName, place: place)
        // Fails for want of memory only.
        ssl = SSL_new(context.native.pointer)!
        SSL_set_ex_data(ssl, 0, Unmanaged.passUnretained(self).toOpaque())
        SSL_set_connect_state(ssl)
        expectName(plainName, isProved: context.proof == .name)
        if failure == nil { context.resume(ssl, at: place) }
    }

    init(_ server: TLSServer) {
        side = .server(server)
        ssl = SSL_new(server.native.pointer)!
        SSL_set_ex_data(ssl, 0, Unmanaged.passUnretained(self).toOpaque())
        SSL_set_accept_state(ssl)
    }

    deinit { SSL_free(ssl) }

    private var isServer: Bool { server != nil }
    /// The server whose end this is.
    var server: TLSServer? { if case .server(let server) = side { server } else { nil } }

    /// Sets the name that the certificate must have, if it is to be proved; the name is asked for by SNI too, unless it is an address (RFC 6066, 3).
    private func expectName(_ name: String, isProved: Bool) {
        let parameters = SSL_get0_param(ssl)
        if IPAddress(name) != nil {
            if isProved, X509_VERIFY_PARAM_set1_ip_asc(parameters, name) != 1 {
                failure = TLSFailure(.settings, "\(name) is no address to verify")
            }
            return
        }
        SSL_set_hostflags(ssl, UInt32(X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS))
        let sni = name.withCString {
            SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, Int(TLSEXT_NAMETYPE_host_name), UnsafeMutableRawPointer(mutating: $0))
        }
        if name.isEmpty || sni != 1 || isProved && SSL_set1_host(ssl, name) != 1 {
            failure = TLSFailure(.settings, "\"\(name)\" is no host name to verify")
        }
    }

    /// `TLSv1.3` and the cipher, once it is ready.
    public var protocolAndCipher: String {
        "\(String(cString: SSL_get_version(ssl))) \(String(cString: SSL_CIPHER_get_name(SSL_get_current_cipher(ssl))))"
    }
    /// Whether a ticket of an earlier connection was taken: then no certificates were exchanged again.
    public var isResumed: Bool { SSL_session_reused(ssl) == 1 }
    /// The protocol that both ends have agreed on (ALPN, RFC 7301), once it is ready; nil when none was.
    public var applicationProtocol: ApplicationProtocol? {
        var bytes: UnsafePointer<UInt8>?
        var count: UInt32 = 0
        SSL_get0_alpn_selected(ssl, &bytes, &count)
        return ApplicationProtocol(UnsafeRawBufferPointer(start: bytes, count: Int(count)))
    }

    /// The hash of the peer's certificate by which other protocols bind themselves to this channel (tls-server-end-point, RFC 5929): that of
    /// the certificate's own signature, and SHA-256 in place of MD5 and SHA-1. nil before the handshake, and for a signature without a hash.
    public var serverEndPoint: [UInt8]? {
        guard isReady, let certificate = SSL_get1_peer_certificate(ssl) else { return nil }
        defer { X509_free(certificate) }
        var hash: Int32 = 0
        guard OBJ_find_sigid_algs(X509_get_signature_nid(certificate), &hash, nil) == 1 else { return nil }
        let method = hash == NID_md5 || hash == NID_sha1 ? EVP_sha256() : EVP_get_digestbyname(OBJ_nid2sn(hash))
        var bytes = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE)), count: UInt32 = 0
        guard let method, X509_digest(certificate, method, &bytes, &count) == 1 else { return nil }
        return Array(bytes.prefix(Int(count)))
    }

    /// Offers protocols by ALPN.
    func offer(_ protocols: [ApplicationProtocol]) {
        let list = protocols.flatMap { [UInt8(truncatingIfNeeded: $0.bytes.count)] + Array($0.bytes) }
        // Fails for want of memory only.
        _ = muster_tls_offer(ssl, list, UInt32(clamping: list.count))
    }

    // MARK: bytes

    /// Begins the handshake: a client's first words go to `sealed`.
    func begin(_ pipe: TLSPipe) {
        hasBegun = true
        muster_tls_attach(ssl, pipe.bio)
        guard failure == nil, !isServer else { return }
        pipe.begin(UnsafeRawBufferPointer(start: nil, count: 0))
        shakeHands()
        keepOutput(pipe)
    }

    private func shakeHands() {
        TLSErrorQueue.forget()
        let result = SSL_do_handshake(ssl)
        if result == 1 { isReady = true } else { note(result) }
    }

    /// Opens all of `bytes`; plain bytes go to the pipe's buffer. They are good also if `sawEnd` or `failure` came after them.
    func open(_ bytes: UnsafeRawBufferPointer, _ pipe: TLSPipe) -> Int {
        pipe.begin(bytes)
        defer { keepOutput(pipe) }
        if !isReady, failure == nil { shakeHands() }
        guard isReady, failure == nil, !sawEnd else { return 0 }
        TLSErrorQueue.forget()
        var count = 0
        while count < TLSPipe.openCapacity {
            let got = SSL_read(ssl, pipe.plain.baseAddress! + count, Int32(TLSPipe.openCapacity - count))
            if got <= 0 {
                note(got)
                break
            }
            count += Int(got)
            // Asking once more for nothing costs as much as a small record.
            if pipe.isRead, SSL_has_pending(ssl) == 0 { break }
        }
        return count
    }

    /// Seals at most `sealAtOnce` bytes into the pipe, behind what waits here.
    func seal(_ plain: UnsafeRawBufferPointer, _ pipe: TLSPipe) {
        pipe.begin(UnsafeRawBufferPointer(start: nil, count: 0))
        TLSErrorQueue.forget()
        let result = SSL_write(ssl, plain.baseAddress, Int32(plain.count))
        if result <= 0 { note(result) }
    }

    /// Ends TLS: its last word (close_notify) goes to `sealed`. After a failure there is none but its alert, which is there already.
    func end(_ pipe: TLSPipe) {
        guard isReady, failure == nil else { return }
        pipe.begin(UnsafeRawBufferPointer(start: nil, count: 0))
        TLSErrorQueue.forget()
        SSL_shutdown(ssl)
        keepOutput(pipe)
    }

    private func keepOutput(_ pipe: TLSPipe) {
        if !pipe.output.isEmpty { sealed.append(pipe.output) }
        pipe.end()
    }

    /// The failure of a socket that ended, in good order or by `error`, before TLS did.
    func cut(_ error: SystemError? = nil) -> TLSFailure {
        let peer = isServer ? "the client" : "the server"
        let how = error.map { "the connection broke (\($0))" } ?? "\(peer) closed the connection"
        if !isReady {
            return TLSFailure(.handshake, "\(how) during the handshake\(isServer ? "" : ": is it a port with TLS?")", word: "client_closed")
        }
        return TLSFailure(.truncated, "\(how) without TLS's close_notify: what came before may have been cut off")
    }

    private func note(_ result: Int32) {
        switch SSL_get_error(ssl, result) {
        case SSL_ERROR_WANT_READ: break
        case SSL_ERROR_ZERO_RETURN: sawEnd = true
        default:
            let error = TLSErrorQueue.take()
            switch side {
            case .client(let context, _, _):
                failure =
                    complaint ?? error.failure(inHandshake: !isReady, certificate: context.certificate, certificateAsked: wasAsked)
            case .server: failure = complaint ?? error.failureOfClient(inHandshake: !isReady)
            }
        }
    }

    // MARK: what OpenSSL calls

    static func of(_ ssl: OpaquePointer?) -> TLSSession { Unmanaged.fromOpaque(SSL_get_ex_data(ssl, 0)).takeUnretainedValue() }

    /// Keeps why a certificate is refused: only here is the certificate at hand.
    static func judge(_ accepted: Int32, _ chain: OpaquePointer?) -> Int32 {
        guard accepted == 0, let ssl = X509_STORE_CTX_get_ex_data(chain, SSL_get_ex_data_X509_STORE_CTX_idx()) else { return accepted }
        let session = of(OpaquePointer(ssl))
        let code = X509_STORE_CTX_get_error(chain)
        guard let certificate = X509_STORE_CTX_get_current_cert(chain) ?? X509_STORE_CTX_get0_cert(chain) else { return 0 }
        guard case .client(let context, let name, _) = session.side else {
            let words = X509_verify_cert_error_string(Int(code)).map { String(cString: $0) } ?? "error \(code)"
            session.complaint = TLSFailure(
                .certificate, "the client's certificate of \(TLSCertificate(certificate).subject) is not accepted: \(words)",
                word: "client_certificate")
            return 0
        }
        let leaf = TLSCertificate(X509_STORE_CTX_get0_cert(chain) ?? certificate)
        let reason = TLSCertificate(certificate).complaint(code, leaf: leaf, name: name, authorities: context.trusted)
        session.complaint = TLSFailure(.certificate, reason)
        return 0
    }

    /// Called when the server wants a client certificate and we have none: the handshake goes on without.
    static func certificateAsked(_ ssl: OpaquePointer?) -> Int32 {
        of(ssl).wasAsked = true
        return 0
    }

    /// Called when the server gives a ticket. Returns 1: the ticket is ours from now on.
    static func ticketCame(_ ssl: OpaquePointer?, _ ticket: OpaquePointer?) -> Int32 {
        guard let ticket, case .client(let context, _, let place) = of(ssl).side else { return 0 }
        context.keep(ticket, from: place)
        return 1
    }

    /// Called for a server when a client has said hello, before anything is decided: chooses the identity by the name that it asks for.
    /// Returns the alert that the client is refused with; nil: it goes on.
    func clientSaidHello() -> Int32? {
        guard case .server(let server) = side else { return SSL_AD_INTERNAL_ERROR }
        var start: UnsafePointer<UInt8>?
        let length = muster_tls_hello_name(ssl, &start)
        guard length >= 0, length <= 255 else {
            complaint = TLSFailure(.handshake, "the client's hello has a malformed name", word: "malformed")
            return SSL_AD_DECODE_ERROR
        }
        serverName = UnsafeBufferPointer(start: start, count: length).map { $0 &- 65 < 26 ? $0 | 32 : $0 }
        if serverName.last == 46 { serverName.removeLast() }
        guard let found = server.place(of: serverName) else {
            complaint = TLSFailure(.handshake, "the client asks for a name that no certificate has", word: "unknown_name")
            return SSL_AD_UNRECOGNIZED_NAME
        }
        place = found
        return server.use(found, for: ssl) ? nil : SSL_AD_INTERNAL_ERROR
    }

    /// Whether a request on a server's connection may name this host: the one of the handshake, or another that leads to the same certificates
    /// and the same rule for clients. Otherwise the client was let in for something else (421, RFC 9110, 15.5.20).
    public func mayAsk(for host: UnsafeRawBufferPointer) -> Bool {
        guard let server, let place else { return true }
        let name = TLSSession.name(of: host)
        if name.count == serverName.count, zip(name, serverName).allSatisfy({ ($0 &- 65 < 26 ? $0 | 32 : $0) == $1 }) { return true }
        // Another server may be in force by now, and the client's next connection will see it; on this one its own counts.
        return server.place(of: name.map { $0 &- 65 < 26 ? $0 | 32 : $0 }) == place
    }

    /// A host without its port, the brackets of an address and the dot at its end.
    private static func name(of host: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        if host.first == 91, let end = host.firstIndex(of: 93) { return host.part(1, end - 1) }
        let name = host.firstIndex(of: 58).map { host.part(0, $0) } ?? host
        return name.last == 46 ? name.part(0, name.count - 1) : name
    }

    /// The rule by which the client shows a certificate; nil: it shows none.
    var rule: ClientAuthorities? { place?.clients.flatMap { server?.clients[$0] } }

    /// Whether the client asked for a name that is known to more than this machine: such a name may be bound to https for long (HSTS).
    public var hasPublicName: Bool {
        !serverName.isEmpty && !serverName.elementsEqual("localhost".utf8) && !serverName.suffix(10).elementsEqual(".localhost".utf8)
    }
}

/// A protocol above TLS, by its name in ALPN.
public enum ApplicationProtocol: Sendable, Equatable {
    case http1, http2

    init?(_ name: UnsafeRawBufferPointer) {
        if name.elementsEqual(ApplicationProtocol.http1.bytes) {
            self = .http1
        } else if name.elementsEqual(ApplicationProtocol.http2.bytes) {
            self = .http2
        } else {
            return nil
        }
    }

    var bytes: UnsafeRawBufferPointer {
        let name: StaticString =
            switch self {
            case .http1: "http/1.1"
            case .http2: "h2"
            }
        return UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount)
    }
}
