import Basics
import COpenSSL

/// The certificate that a client has shown, for those who are told of it.
public struct PeerCertificate: Sendable {
    /// In one line, for people.
    public let subject: String
    /// SHA-256 of the certificate, in hexadecimal digits.
    public let fingerprint: String
    /// The certificate, and those that lead from it to the authority, which is left out: DER in Base64.
    public let certificate: String
    public let chain: [String]
    public let tellsSubject: Bool
    public let tellsFingerprint: Bool

    /// Header fields for a backend, as whole lines: RFC 9440's two, and what else the rule tells.
    public var lines: [UInt8] {
        var text = "Client-Cert: :\(certificate):\r\n"
        if !chain.isEmpty { text += "Client-Cert-Chain: \(chain.map { ":\($0):" }.joined(separator: ", "))\r\n" }
        if tellsSubject {
            let plain = String(decoding: subject.utf8.map { $0 >= 32 && $0 < 127 ? $0 : 63 }, as: UTF8.self)
            text += "X-Client-Cert-Subject: \(plain)\r\n"
        }
        if tellsFingerprint { text += "X-Client-Cert-Fingerprint: \(fingerprint)\r\n" }
        return Array(text.utf8)
    }
}

extension TLSSession {
    /// The certificate that the client of a server's connection has shown, which was verified; nil: it has shown none.
    public var peerCertificate: PeerCertificate? {
        guard let rule, let leaf = SSL_get0_peer_certificate(ssl), SSL_get_verify_result(ssl) == Int(X509_V_OK) else { return nil }
        var chain: [String] = []
        if let verified = SSL_get0_verified_chain(ssl) {
            // Without the leaf, and without the authority at the end.
            for i in 1..<max(1, OPENSSL_sk_num(verified) - 1) {
                if let certificate = OPENSSL_sk_value(verified, i) { chain.append(TLSSession.text(OpaquePointer(certificate))) }
            }
        }
        var digest = [UInt8](repeating: 0, count: 32)
        var count: UInt32 = 0
        X509_digest(leaf, EVP_sha256(), &digest, &count)
        return PeerCertificate(
            subject: TLSCertificate(leaf).subject, fingerprint: digest.withUnsafeBytes { hexText($0) }, certificate: TLSSession.text(leaf),
            chain: chain, tellsSubject: rule.tellsSubject, tellsFingerprint: rule.tellsFingerprint)
    }

    private static func text(_ certificate: OpaquePointer) -> String {
        var memory: UnsafeMutablePointer<UInt8>?
        let count = i2d_X509(certificate, &memory)
        guard count > 0, let memory else { return "" }
        defer { CRYPTO_free(memory, #file, #line) }
        // Four characters for three bytes, and a zero.
        var text = [UInt8](repeating: 0, count: (Int(count) + 2) / 3 * 4 + 1)
        let length = EVP_EncodeBlock(&text, memory, count)
        return String(decoding: text.prefix(Int(length)), as: UTF8.self)
    }
}
