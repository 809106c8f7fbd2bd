import Basics
import COpenSSL
import CTLS

/// A certificate and its key as PEM.
public struct KeyAndCertificate: Sendable {
    public let certificate: [UInt8]
    public let key: [UInt8]

    public init(certificate: [UInt8], key: [UInt8]) {
        self.certificate = certificate
        self.key = key
    }
}

/// Makes certificates of ECDSA on P-256: an authority that may sign for some names only, and what it signs.
///
/// Names are host names and numeric addresses in the form that the stack file's reader takes: letters, digits, `-`, `_`, `.`, `:` and a `*` as
/// the first label.
public enum CertificateMaking {
    private static let authorityDays = 3650
    /// Before this day of its life's end an authority makes room for another one.
    private static let margin = 60

    /// An authority whose certificates count for `names`, and those below them, only.
    public static func authority(for names: [String]) throws(TLSFailure) -> KeyAndCertificate {
        try make(
            subject: "Muster development CA \(hex(4))", days: authorityDays, by: nil,
            extensions: [
                (NID_basic_constraints, "critical,CA:TRUE,pathlen:0"), (NID_key_usage, "critical,keyCertSign,cRLSign"),
                (NID_subject_key_identifier, "hash"), (NID_name_constraints, "critical," + constraints(names)),
            ])
    }

    /// A server's certificate.
    public static func leaf(for names: [String], days: Int, by authority: KeyAndCertificate) throws(TLSFailure) -> KeyAndCertificate {
        let alternatives = names.map { IPAddress($0) == nil ? "DNS:\($0)" : "IP:\($0)" }.joined(separator: ",")
        return try make(
            subject: String((names.first ?? "").prefix(60)), days: days, by: authority,
            extensions: [
                (NID_basic_constraints, "critical,CA:FALSE"), (NID_key_usage, "critical,digitalSignature"),
                (NID_ext_key_usage, "serverAuth"),
                (NID_subject_key_identifier, "hash"), (NID_authority_key_identifier, "keyid"), (NID_subject_alt_name, alternatives),
            ])
    }

    /// Whether an authority's certificates for these names count, and will for a while.
    public static func covers(_ authority: KeyAndCertificate, _ names: [String]) -> Bool {
        guard let made = try? leaf(for: names, days: 1, by: authority), let root = PEM.certificates(authority.certificate, most: 1).first
        else {
            return false
        }
        defer { X509_free(root) }
        guard TLSCertificate(root).ends - WallTime.now.milliseconds / 1000 > Int64(margin) * 86400,
            let leaf = PEM.certificates(made.certificate, most: 1).first
        else { return false }
        defer { X509_free(leaf) }
        return isSigned(leaf, by: root)
    }

    /// Whether a chain of the two is good: signature, times, name constraints.
    static func isSigned(_ leaf: OpaquePointer, by root: OpaquePointer) -> Bool {
        // All fail for want of memory only.
        let store = X509_STORE_new()!, context = X509_STORE_CTX_new()!
        defer {
            X509_STORE_CTX_free(context)
            X509_STORE_free(store)
            ERR_clear_error()
        }
        X509_STORE_add_cert(store, root)
        return X509_STORE_CTX_init(context, store, leaf, nil) == 1 && X509_verify_cert(context) == 1
    }

    /// What an authority may sign (RFC 5280, 4.2.1.10). A kind of name that is not wanted gets a name that nobody has (RFC 6761, RFC 5737): a
    /// kind without a constraint would be free.
    private static func constraints(_ names: [String]) -> String {
        var permitted: [String] = []
        let hosts = names.filter { IPAddress($0) == nil }
        for host in hosts { permitted.append("DNS:\(host.hasPrefix("*.") ? String(host.dropFirst(2)) : host)") }
        if hosts.isEmpty { permitted.append("DNS:invalid") }
        let addresses = names.compactMap { IPAddress($0) }
        for address in addresses {
            permitted.append("IP:\(address)/\(address.ipv4 == nil ? "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" : "255.255.255.255")")
        }
        if !addresses.contains(where: { $0.ipv4 != nil }) { permitted.append("IP:192.0.2.0/255.255.255.255") }
        return permitted.map { "permitted;\($0)" }.joined(separator: ",")
    }

    private static func hex(_ count: Int) -> String {
        var bytes = [UInt8](repeating: 0, count: count)
        RAND_bytes(&bytes, Int32(count))
        return bytes.withUnsafeBytes { hexText($0) }
    }

    private static func make(
        subject: String, days: Int, by authority: KeyAndCertificate?, extensions: [(Int32, String)]
    ) throws(TLSFailure) -> KeyAndCertificate {
        ERR_clear_error()
        let failure = { () -> TLSFailure in TLSFailure(.settings, "OpenSSL makes no certificate: \(TLSErrorQueue.take().text)") }
        guard let key = muster_new_key(), let made = X509_new() else { throw failure() }
        defer {
            EVP_PKEY_free(key)
            X509_free(made)
        }
        var issuer = made, signer = key, owned: [OpaquePointer] = []
        defer { for certificate in owned { X509_free(certificate) } }
        if let authority {
            owned = PEM.certificates(authority.certificate, most: 1)
            guard let first = owned.first, let secret = PEM.privateKey(authority.key) else { throw failure() }
            (issuer, signer) = (first, secret)
        }
        defer { if authority != nil { EVP_PKEY_free(signer) } }
        X509_set_version(made, 2)
        setSerial(made)
        // An hour back, for clients whose clock is behind.
        X509_gmtime_adj(X509_getm_notBefore(made), -3600)
        X509_gmtime_adj(X509_getm_notAfter(made), days * 86400)
        X509_NAME_add_entry_by_txt(X509_get_subject_name(made), "CN", MBSTRING_FLAG | 0x1000, subject, -1, -1, 0)
        X509_set_issuer_name(made, X509_get_subject_name(issuer))
        X509_set_pubkey(made, key)
        var context = X509V3_CTX()
        X509V3_set_ctx(&context, issuer, made, nil, nil, 0)
        for (kind, value) in extensions {
            guard let one = X509V3_EXT_conf_nid(nil, &context, kind, value) else { throw failure() }
            X509_add_ext(made, one, -1)
            X509_EXTENSION_free(one)
        }
        guard X509_sign(made, signer, EVP_sha256()) > 0 else { throw failure() }
        guard let certificate = text({ PEM_write_bio_X509($0, made) }),
            let secret = text({ PEM_write_bio_PrivateKey($0, key, nil, nil, 0, nil, nil) })
        else { throw failure() }
        return KeyAndCertificate(certificate: certificate, key: secret)
    }

    /// Sets a random serial number of 127 bits, as the CA/Browser Forum wants 64 or more.
    private static func setSerial(_ certificate: OpaquePointer) {
        let number = BN_new()
        defer { BN_free(number) }
        BN_rand(number, 127, -1, 0)
        if let serial = BN_to_ASN1_INTEGER(number, nil) {
            X509_set_serialNumber(certificate, serial)
            ASN1_INTEGER_free(serial)
        }
    }

    private static func text(_ write: (OpaquePointer) -> Int32) -> [UInt8]? {
        guard let memory = BIO_new(BIO_s_mem()) else { return nil }
        defer { BIO_free(memory) }
        guard write(memory) == 1 else { return nil }
        var out: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while true {
            let got = BIO_read(memory, &chunk, Int32(chunk.count))
            if got <= 0 { return out }
            out += chunk[..<Int(got)]
        }
    }
}

extension ServerCertificate {
    /// Whether the authority in a PEM text has signed it, and the chain of the two is good now.
    public func isSigned(by authority: [UInt8]) -> Bool {
        guard let root = PEM.certificates(authority, most: 1).first else { return false }
        defer { X509_free(root) }
        return CertificateMaking.isSigned(leaf.pointer, by: root)
    }
}
