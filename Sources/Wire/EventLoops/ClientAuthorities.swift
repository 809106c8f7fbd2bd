import Basics
import COpenSSL
import CTLS

/// Which clients are known by their certificates: the authorities that sign those, and what they have revoked. Files are read when this is
/// made.
public final class ClientAuthorities: Sendable {
    /// Most certificates between a client's own and an authority's.
    private static let depth: Int32 = 4
    private static let fileLimit = 4 << 20

    /// Whether a client without a certificate is refused.
    public let isNeeded: Bool
    /// The names for which it holds, in lower case, `*.` ones among them; empty: all.
    let names: Set<String>
    /// What backends are told beside the certificate: its subject and its fingerprint.
    let tellsSubject: Bool
    let tellsFingerprint: Bool
    private let store: TLSAddress
    private let subjects: TLSAddress

    /// - Parameters:
    ///   - authorities: a PEM file of CAs.
    ///   - revoked: a PEM file of CRLs; nil: nothing is revoked.
    public init(
        authorities: String, revoked: String?, isNeeded: Bool, names: [String], tellsSubject: Bool = false, tellsFingerprint: Bool = false
    ) throws(TLSFailure) {
        self.isNeeded = isNeeded
        self.names = Set(names.map { $0.lowercased() })
        self.tellsSubject = tellsSubject
        self.tellsFingerprint = tellsFingerprint
        let certificates = PEM.certificates(try PEM.read(authorities, "CA", limit: ClientAuthorities.fileLimit), most: 1000)
        defer { for certificate in certificates { X509_free(certificate) } }
        guard !certificates.isEmpty else { throw TLSFailure(.settings, "CA file \(authorities) holds no certificate in PEM form") }
        var lists: [OpaquePointer] = []
        defer { for list in lists { X509_CRL_free(list) } }
        if let revoked {
            lists = PEM.revocations(try PEM.read(revoked, "CRL", limit: ClientAuthorities.fileLimit), most: 1000)
            guard !lists.isEmpty else { throw TLSFailure(.settings, "CRL file \(revoked) holds no list in PEM form") }
        }
        // Both fail for want of memory only.
        let store = X509_STORE_new()!, subjects = OPENSSL_sk_new_null()!
        self.store = TLSAddress(store)
        self.subjects = TLSAddress(subjects)
        for certificate in certificates {
            X509_STORE_add_cert(store, certificate)
            if let name = X509_NAME_dup(X509_get_subject_name(certificate)) { OPENSSL_sk_push(subjects, UnsafeRawPointer(name)) }
        }
        for list in lists { X509_STORE_add_crl(store, list) }
        if !lists.isEmpty { X509_STORE_set_flags(store, UInt(X509_V_FLAG_CRL_CHECK)) }
    }

    deinit {
        X509_STORE_free(store.pointer)
        while let name = OPENSSL_sk_pop(subjects.pointer) { X509_NAME_free(OpaquePointer(name)) }
        OPENSSL_sk_free(subjects.pointer)
    }

    /// Whether it holds for a name in lower case.
    func holds(for name: String) -> Bool {
        if names.isEmpty || names.contains(name) { return true }
        guard let dot = name.firstIndex(of: "."), dot > name.startIndex else { return false }
        return names.contains("*" + name[dot...])
    }

    /// Makes a connection ask its client for a certificate. False for want of memory.
    func ask(_ ssl: OpaquePointer) -> Bool {
        guard muster_tls_ask(ssl, store.pointer, subjects.pointer, ClientAuthorities.depth) == 1 else { return false }
        SSL_set_verify(ssl, SSL_VERIFY_PEER | (isNeeded ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0)) { accepted, chain in
            TLSSession.judge(accepted, chain)
        }
        return true
    }
}

/// Reads what stands in PEM files.
enum PEM {
    static func read(_ path: String, _ what: String, limit: Int) throws(TLSFailure) -> [UInt8] {
        do throws(SystemError) { return try Files.read(path, limit: limit) } catch {
            throw TLSFailure(.settings, "\(what) file \(path) cannot be read: \(error)")
        }
    }

    /// The certificates of a text, at most one more than `most`. The caller frees them.
    static func certificates(_ text: [UInt8], most: Int) -> [OpaquePointer] {
        all(text, most) { PEM_read_bio_X509($0, nil, { _, _, _, _ in -1 }, nil) }
    }

    /// The lists of what is revoked, at most one more than `most`. The caller frees them.
    static func revocations(_ text: [UInt8], most: Int) -> [OpaquePointer] {
        all(text, most) { PEM_read_bio_X509_CRL($0, nil, { _, _, _, _ in -1 }, nil) }
    }

    /// A private key without a passphrase: nobody sits at a terminal, so one with a passphrase is refused instead of asked for. The caller
    /// frees it.
    static func privateKey(_ text: [UInt8]) -> OpaquePointer? { one(text) { PEM_read_bio_PrivateKey($0, nil, { _, _, _, _ in -1 }, nil) } }

    private static func all(_ text: [UInt8], _ most: Int, _ next: (OpaquePointer) -> OpaquePointer?) -> [OpaquePointer] {
        one(text) { source in
            var found: [OpaquePointer] = []
            while found.count <= most, let one = next(source) { found.append(one) }
            // The end of the text is an error of OpenSSL's, too.
            ERR_clear_error()
            return found
        } ?? []
    }

    private static func one<T>(_ text: [UInt8], _ read: (OpaquePointer) -> T?) -> T? {
        text.withUnsafeBytes { bytes in
            guard let source = BIO_new_mem_buf(bytes.baseAddress, Int32(clamping: bytes.count)) else { return nil }
            defer { BIO_free(source) }
            ERR_clear_error()
            return read(source)
        }
    }
}
