import Basics
import COpenSSL

/// One connection's end of TLS: bytes of the socket in, plain bytes out, and the other way. It has no socket; `Stream` moves the bytes.
///
/// OpenSSL reads from the loop's buffer and writes to `sealed` through a BIO of ours: no copy besides its own, one `recv` and one `send`
/// for many records (on the descriptor it would be two reads a record and a write for every 16 KiB, without MSG_NOSIGNAL). All that came in
/// one read is opened at once, so nothing stays behind in OpenSSL but the beginning of a record: a pause needs no further thought.
///
/// States: handshake → `isReady` → `sawEnd` (the peer's close_notify) or `failure`. Belongs to its loop.
public final class TLSSession {
    /// Room for a read's bytes, and for the record that had begun before them (16 KiB and what may be added to it, RFC 5246 6.2.3).
    static let openCapacity = 65536 + 16384 + 2048
    /// Most bytes sealed before they are sent: enough for one system call to be cheap, little enough to stay in the cache.
    static let sealAtOnce = 65536

    private let context: TLSContext
    private let name: String
    private let place: String
    private let ssl: OpaquePointer
    private var input = UnsafeRawBufferPointer(start: nil, count: 0)
    /// Bytes to be sent to the peer.
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

    init(_ context: TLSContext, name: String, port: UInt16) {
        self.context = context
        self.name = name.hasSuffix(".") ? String(name.dropLast()) : name
        place = "\(self.name) \(port)"
        // Both fail for want of memory only.
        ssl = SSL_new(context.native.pointer)!
        let bio = BIO_new(OpaquePointer(bitPattern: TLSSession.method))!
        let me = Unmanaged.passUnretained(self).toOpaque()
        BIO_set_data(bio, me)
        BIO_set_init(bio, 1)
        SSL_set_bio(ssl, bio, bio)
        SSL_set_ex_data(ssl, 0, me)
        SSL_set_connect_state(ssl)
        expectName()
        if failure == nil { context.resume(ssl, at: place) }
    }

    deinit { SSL_free(ssl) }

    /// Sets the name that the certificate must have; the name is asked for by SNI too, unless it is an address (RFC 6066, 3).
    private func expectName() {
        let parameters = SSL_get0_param(ssl), isProved = context.proof == .name
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
    /// Whether the server took a ticket of an earlier connection: then no certificates were exchanged again.
    public var isResumed: Bool { SSL_session_reused(ssl) == 1 }

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

    // MARK: bytes

    /// Begins the handshake: its first words go to `sealed`.
    func begin() {
        hasBegun = true
        if failure == nil { shakeHands() }
    }

    private func shakeHands() {
        TLSErrorQueue.forget()
        let result = SSL_do_handshake(ssl)
        if result == 1 { isReady = true } else { note(result) }
    }

    /// Opens all of `bytes`; plain bytes go to `buffer`, which has `openCapacity`. They are good also if `sawEnd` or `failure` came after
    /// them.
    func open(_ bytes: UnsafeRawBufferPointer, into buffer: UnsafeMutableRawBufferPointer) -> Int {
        input = bytes
        defer { input = UnsafeRawBufferPointer(start: nil, count: 0) }
        if !isReady, failure == nil { shakeHands() }
        guard isReady, failure == nil, !sawEnd else { return 0 }
        TLSErrorQueue.forget()
        var count = 0
        while count < buffer.count {
            let got = SSL_read(ssl, buffer.baseAddress! + count, Int32(buffer.count - count))
            if got <= 0 {
                note(got)
                break
            }
            count += Int(got)
            // Asking once more for nothing costs as much as a small record.
            if input.isEmpty, SSL_has_pending(ssl) == 0 { break }
        }
        return count
    }

    /// Seals at most `sealAtOnce` bytes.
    func seal(_ plain: UnsafeRawBufferPointer) {
        TLSErrorQueue.forget()
        let result = SSL_write(ssl, plain.baseAddress, Int32(plain.count))
        if result > 0 { carriesOutput = true } else { note(result) }
    }

    /// Ends TLS: its last word (close_notify) goes to `sealed`. After a failure there is none but its alert, which is there already.
    func end() {
        guard isReady, failure == nil else { return }
        TLSErrorQueue.forget()
        SSL_shutdown(ssl)
    }

    /// The failure of a socket that ended, in good order or by `error`, before TLS did.
    func cut(_ error: SystemError? = nil) -> TLSFailure {
        let how = error.map { "the connection broke (\($0))" } ?? "the server closed the connection"
        if !isReady { return TLSFailure(.handshake, "\(how) during the handshake: is it a port with TLS?") }
        return TLSFailure(.truncated, "\(how) without TLS's close_notify: what came before may have been cut off")
    }

    private func note(_ result: Int32) {
        switch SSL_get_error(ssl, result) {
        case SSL_ERROR_WANT_READ: break
        case SSL_ERROR_ZERO_RETURN: sawEnd = true
        default:
            let error = TLSErrorQueue.take()
            failure = complaint ?? error.failure(inHandshake: !isReady, certificate: context.certificate, certificateAsked: wasAsked)
        }
    }

    // MARK: what OpenSSL calls

    private static func of(_ ssl: OpaquePointer?) -> TLSSession { Unmanaged.fromOpaque(SSL_get_ex_data(ssl, 0)).takeUnretainedValue() }

    /// Keeps why a certificate is refused: only here is the certificate at hand.
    static func judge(_ accepted: Int32, _ chain: OpaquePointer?) -> Int32 {
        guard accepted == 0, let ssl = X509_STORE_CTX_get_ex_data(chain, SSL_get_ex_data_X509_STORE_CTX_idx()) else { return accepted }
        let session = of(OpaquePointer(ssl))
        let code = X509_STORE_CTX_get_error(chain)
        guard let certificate = X509_STORE_CTX_get_current_cert(chain) ?? X509_STORE_CTX_get0_cert(chain) else { return 0 }
        let leaf = TLSCertificate(X509_STORE_CTX_get0_cert(chain) ?? certificate)
        let reason = TLSCertificate(certificate).complaint(code, leaf: leaf, name: session.name, authorities: session.context.trusted)
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
        guard let ticket else { return 0 }
        let session = of(ssl)
        session.context.keep(ticket, from: session.place)
        return 1
    }

    /// Address of the one BIO_METHOD of the process: reads take from `input`, writes add to `sealed` and always succeed.
    private static let method: UInt = {
        let method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "stream")
        BIO_meth_set_read(method) { bio, to, count in
            let session = Unmanaged<TLSSession>.fromOpaque(BIO_get_data(bio)).takeUnretainedValue()
            BIO_clear_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY)
            let taken = min(Int(count), session.input.count)
            guard taken > 0, let to, let from = session.input.baseAddress else {
                BIO_set_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY)
                return -1
            }
            UnsafeMutableRawPointer(to).copyMemory(from: from, byteCount: taken)
            session.input = session.input.part(taken, session.input.count - taken)
            return Int32(taken)
        }
        BIO_meth_set_write(method) { bio, from, count in
            let session = Unmanaged<TLSSession>.fromOpaque(BIO_get_data(bio)).takeUnretainedValue()
            session.sealed.append(UnsafeRawBufferPointer(start: from, count: Int(count)))
            return count
        }
        BIO_meth_set_ctrl(method) { _, command, _, _ in command == BIO_CTRL_FLUSH ? 1 : 0 }
        return UInt(bitPattern: method)
    }()
}

/// The buffer into which the sessions of one loop put plain bytes: made when the loop has its first connection with TLS.
final class PlainBuffer {
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: TLSSession.openCapacity, alignment: 64)
    deinit { bytes.deallocate() }
}
