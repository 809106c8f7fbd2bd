import Basics
import COpenSSL
import Glibc

/// A certificate's own statements, for the sentence that tells why it is not accepted.
struct TLSCertificate {
    private let pointer: OpaquePointer

    init(_ pointer: OpaquePointer) { self.pointer = pointer }

    /// The sentence that tells why the certificate is not accepted. `code` is one of X509_V_ERR. This is the certificate of the chain that
    /// the error is about, `leaf` the peer's own. `name` is the host that we asked for, `authorities` those that we trust.
    func complaint(_ code: Int32, leaf: TLSCertificate, name: String, authorities: String) -> String {
        switch code {
        case X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH:
            let names = names(most: 8)
            return "the server's certificate is for \(names.isEmpty ? subject : names.joined(separator: ", ")), not \(name)"
        case X509_V_ERR_CERT_HAS_EXPIRED:
            return "the certificate of \(subject) ended on \(TLSCertificate.day(X509_get0_notAfter(pointer))): it must be renewed"
        case X509_V_ERR_CERT_NOT_YET_VALID:
            return
                "the certificate of \(subject) begins on \(TLSCertificate.day(X509_get0_notBefore(pointer))): is this machine's clock "
                + "right?"
        // Whoever the chain ends with, the server's own certificate is what people know.
        case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT,
            X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, X509_V_ERR_CERT_SIGNATURE_FAILURE:
            return
                "no CA in \(authorities) signed the certificate of \(leaf.subject) (issuer \(leaf.issuer)): give the file of the CA that "
                + "did"
        default:
            let words = X509_verify_cert_error_string(Int(code)).map { String(cString: $0) } ?? "error \(code)"
            return "the certificate of \(subject) is not accepted: \(words)"
        }
    }

    var subject: String { TLSCertificate.line(X509_get_subject_name(pointer)) }
    private var issuer: String { TLSCertificate.line(X509_get_issuer_name(pointer)) }

    /// OpenSSL writes what is not printable as `\x..`. A peer's text is cut at 200 bytes.
    private static func line(_ name: OpaquePointer?) -> String {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 200) { buffer in
            X509_NAME_oneline(name, buffer.baseAddress, 200).map { String(cString: $0) } ?? "?"
        }
    }

    /// When it ends, in seconds since 1970; 0 when that cannot be read.
    var ends: Int64 {
        var parts = tm()
        guard ASN1_TIME_to_tm(X509_get0_notAfter(pointer), &parts) == 1 else { return 0 }
        return Int64(timegm(&parts))
    }

    /// The names that a server with this certificate may have, in lower case; the subject's common name where it has no others.
    var serverNames: [String] {
        let all = names(most: 1000).map { $0.lowercased() }
        if !all.isEmpty { return all }
        return withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { buffer in
            let count = X509_NAME_get_text_by_NID(X509_get_subject_name(pointer), NID_commonName, buffer.baseAddress, 256)
            return count > 0 ? [String(cString: buffer.baseAddress!).lowercased()] : []
        }
    }

    /// DNS names and addresses, the first `most` of them.
    private func names(most: Int) -> [String] {
        guard let raw = X509_get_ext_d2i(pointer, NID_subject_alt_name, nil, nil) else { return [] }
        let list = OpaquePointer(raw)
        defer { GENERAL_NAMES_free(list) }
        return (0..<min(Int32(clamping: most), OPENSSL_sk_num(list))).compactMap { i in
            guard let name = OPENSSL_sk_value(list, i)?.assumingMemoryBound(to: GENERAL_NAME.self).pointee else { return nil }
            switch name.type {
            case GEN_DNS: return TLSCertificate.bytes(name.d.dNSName).map { TLSCertificate.printable($0) }
            case GEN_IPADD: return TLSCertificate.bytes(name.d.iPAddress).flatMap { TLSCertificate.address($0) }
            default: return nil
            }
        }
    }

    private static func bytes(_ string: UnsafeMutablePointer<ASN1_STRING>?) -> UnsafeRawBufferPointer? {
        guard let string else { return nil }
        return UnsafeRawBufferPointer(start: ASN1_STRING_get0_data(string), count: Int(ASN1_STRING_length(string)))
    }

    private static func printable(_ bytes: UnsafeRawBufferPointer) -> String {
        String(decoding: bytes.prefix(255).map { (33...126).contains($0) ? $0 : 63 }, as: UTF8.self)
    }

    private static func address(_ bytes: UnsafeRawBufferPointer) -> String? {
        switch bytes.count {
        case 4: IPAddress(ipv4: UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self))).description
        case 16:
            IPAddress(
                high: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)),
                low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
            ).description
        default: nil
        }
    }

    private static func day(_ time: UnsafePointer<ASN1_TIME>?) -> String {
        var parts = tm()
        guard ASN1_TIME_to_tm(time, &parts) == 1 else { return "a day that cannot be read" }
        func two(_ value: Int32) -> String { value < 10 ? "0\(value)" : "\(value)" }
        return "\(parts.tm_year + 1900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))"
    }
}
