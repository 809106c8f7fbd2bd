import Basics
import COpenSSL
import CTLS
import Glibc

/// A server's certificate with its chain and its key, as they stood in their files when they were read.
///
/// Key and certificate belong together, or this is not made. The key never leaves OpenSSL, and no word of it gets into a message.
public final class ServerCertificate: Sendable {
    public enum Kind: String, Sendable { case ecdsa, rsa }

    /// Most bytes of a file, and most certificates of a chain: far beyond any that a client would take.
    private static let fileLimit = 1 << 20
    private static let chainLimit = 16

    public let path: String
    public let kind: Kind
    /// The names that it is for, in lower case: DNS names, `*.` ones among them, and numeric addresses.
    public let names: [String]
    /// Whom it is for, in one line, for people.
    public let subject: String
    /// When it ends, in seconds since 1970.
    public let ends: Int64
    let leaf: TLSAddress
    private let chain: TLSAddress
    private let key: TLSAddress

    /// - Parameters:
    ///   - certificate: a PEM file: the certificate first, then those that lead to the CA.
    ///   - key: the PEM file of its private key, without a passphrase; nil: it stands in the certificate's file.
    public convenience init(certificate: String, key: String? = nil) throws(TLSFailure) {
        let text = try PEM.read(certificate, "certificate", limit: ServerCertificate.fileLimit)
        let keyText = try key.map { (path) throws(TLSFailure) in try PEM.read(path, "key", limit: ServerCertificate.fileLimit) } ?? text
        try self.init(pem: text, key: keyText, path: certificate, keyPath: key ?? certificate)
    }

    /// `path` and `keyPath` stand for the two in messages.
    public init(pem: [UInt8], key: [UInt8], path: String, keyPath: String) throws(TLSFailure) {
        self.path = path
        var certificates = PEM.certificates(pem, most: ServerCertificate.chainLimit)
        defer { for certificate in certificates { X509_free(certificate) } }
        guard let first = certificates.first, certificates.count <= ServerCertificate.chainLimit else {
            throw TLSFailure(
                .settings,
                certificates.isEmpty
                    ? "certificate file \(path) holds no certificate in PEM form"
                    : "certificate file \(path) has more than \(ServerCertificate.chainLimit) certificates: give the certificate and those "
                        + "that lead to its CA")
        }
        guard let key = PEM.privateKey(key) else {
            throw TLSFailure(
                .settings, "key file \(keyPath) holds no private key in PEM form without a passphrase (\(TLSErrorQueue.take().text))")
        }
        guard X509_check_private_key(first, key) == 1 else {
            EVP_PKEY_free(key)
            ERR_clear_error()
            throw TLSFailure(.settings, "key file \(keyPath) does not belong to the certificate \(path)")
        }
        switch EVP_PKEY_get_base_id(key) {
        case EVP_PKEY_RSA, EVP_PKEY_RSA_PSS: kind = .rsa
        case EVP_PKEY_EC: kind = .ecdsa
        default:
            EVP_PKEY_free(key)
            throw TLSFailure(.settings, "key file \(keyPath) has a key that is neither RSA nor ECDSA: browsers know no others")
        }
        let stack = OPENSSL_sk_new_null()!
        for certificate in certificates.dropFirst() { OPENSSL_sk_push(stack, UnsafeRawPointer(certificate)) }
        certificates = []
        leaf = TLSAddress(first)
        chain = TLSAddress(stack)
        self.key = TLSAddress(key)
        let reader = TLSCertificate(first)
        names = reader.serverNames
        subject = reader.subject
        ends = reader.ends
    }

    deinit {
        X509_free(leaf.pointer)
        while let certificate = OPENSSL_sk_pop(chain.pointer) { X509_free(OpaquePointer(certificate)) }
        OPENSSL_sk_free(chain.pointer)
        EVP_PKEY_free(key.pointer)
    }

    /// Gives it to a server's context, beside one of the other kind of key. False: OpenSSL does not take it, and says why in its queue.
    func use(in context: OpaquePointer) -> Bool {
        ERR_clear_error()
        return SSL_CTX_use_cert_and_key(context, leaf.pointer, key.pointer, chain.pointer, 1) == 1
    }
}
