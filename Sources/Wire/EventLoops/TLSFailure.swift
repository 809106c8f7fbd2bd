import COpenSSL

/// Why a TLS connection cannot be made, or cannot go on. `reason` says what to do where that is known.
public struct TLSFailure: Error, Equatable, Sendable, CustomStringConvertible {
    public enum Kind: String, Sendable {
        /// A file of ours cannot be used.
        case settings
        /// The peer has not shown that it is who we asked for.
        case certificate
        /// The peer refuses us, speaks no TLS, or none that is new enough.
        case handshake
        /// The connection ended without TLS's own end: something between may have cut off what came before.
        case truncated
        /// Records that were changed on their way, or that break the protocol.
        case damaged
    }

    public let kind: Kind
    public let reason: String
    /// One word of few for a server's metrics.
    public let word: String

    public init(_ kind: Kind, _ reason: String, word: String = "broken") {
        self.kind = kind
        self.reason = reason
        self.word = word
    }

    public var description: String { "TLS: \(reason)" }
}

/// The first cause in OpenSSL's queue of errors of this thread.
struct TLSErrorQueue {
    let code: UInt
    let reason: Int32

    /// Clears the queue of errors: errors left by others would be taken for the next call's failure. Clearing walks sixteen entries,
    /// looking does not.
    static func forget() { if ERR_peek_error() != 0 { ERR_clear_error() } }

    /// Empties the queue.
    static func take() -> TLSErrorQueue {
        let code = ERR_get_error()
        ERR_clear_error()
        return TLSErrorQueue(code: code, reason: Int32(ERR_GET_REASON(code)))
    }

    /// The cause in OpenSSL's own words.
    var text: String { ERR_reason_error_string(code).map { String(cString: $0) } ?? "no reason given" }

    /// Explains a failed handshake, or an alert after it, to whoever set the connection up. `certificate` is the file of our own.
    func failure(inHandshake: Bool, certificate: String?, certificateAsked: Bool) -> TLSFailure {
        switch reason {
        case SSL_R_WRONG_VERSION_NUMBER, SSL_R_HTTP_REQUEST, SSL_R_PACKET_LENGTH_TOO_LONG:
            if inHandshake { return TLSFailure(.handshake, "the server speaks no TLS on this port (\(text)): is it the port without TLS?") }
        case SSL_R_UNSUPPORTED_PROTOCOL, SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
            return TLSFailure(.handshake, "the server speaks no TLS 1.2 or newer (\(text))")
        case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
            return TLSFailure(.handshake, "the server asks for a client certificate: give its file and the file of its key")
        case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE, SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
            if certificateAsked {
                return TLSFailure(
                    .handshake, "the server asks for a client certificate and refused us without one: give its file and the file of its key"
                )
            }
        default: break
        }
        if let certificate, TLSErrorQueue.aboutOurCertificate.contains(reason) {
            return TLSFailure(.handshake, "the server does not accept our certificate \(certificate): \(text)")
        }
        if inHandshake { return TLSFailure(.handshake, "the handshake failed: \(text)") }
        return TLSFailure(.damaged, "the connection is broken: \(text)")
    }

    /// Explains to whoever runs a server why a client's handshake failed, or an alert after it.
    func failureOfClient(inHandshake: Bool) -> TLSFailure {
        if !inHandshake { return TLSFailure(.damaged, "the connection is broken: \(text)") }
        let word =
            switch reason {
            case SSL_R_HTTP_REQUEST, SSL_R_WRONG_VERSION_NUMBER: "no_tls"
            case SSL_R_UNSUPPORTED_PROTOCOL, SSL_R_VERSION_TOO_LOW: "old_version"
            case SSL_R_NO_SHARED_CIPHER, SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS, SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM,
                SSL_R_NO_SUITABLE_KEY_SHARE, SSL_R_NO_SHARED_GROUPS:
                "nothing_in_common"
            case SSL_R_NO_APPLICATION_PROTOCOL: "no_protocol"
            case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, SSL_R_CERTIFICATE_VERIFY_FAILED: "client_certificate"
            // The client says what it thinks of us: most often that it does not trust the certificate.
            case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE...SSL_R_TLSV1_ALERT_NO_RENEGOTIATION: "client_refused"
            default: "malformed"
            }
        return TLSFailure(.handshake, "the handshake failed: \(text)", word: word)
    }

    /// Alerts by which a server says what it thinks of a client's certificate (RFC 8446, 6.2). In TLS 1.3 they come after the handshake.
    private static let aboutOurCertificate = [
        SSL_R_TLSV1_ALERT_UNKNOWN_CA, SSL_R_SSLV3_ALERT_BAD_CERTIFICATE, SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED,
        SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN, SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED, SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE,
    ]
}
