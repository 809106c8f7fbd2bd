import Basics
import EventLoops
import Glibc

/// A CA of the gateway's own, for development: it signs certificates for the names that the stack file gives, and for no others.
///
/// It stands in two files of a folder that only its owner may enter. Its name constraints (RFC 5280, 4.2.1.10) hold it to its names, so whoever
/// trusts it trusts it for those only. Other names need another authority, which clients have to trust anew.
struct OwnAuthority {
    let folder: String

    var file: String { folder + "/ca.pem" }
    private var key: String { folder + "/ca.key" }

    /// A leaf is renewed when a third of its life is left.
    private static let leafDays = 30
    static let renewal = Int64(leafDays / 3) * 86400

    private func leaf(_ names: [String]) -> String {
        folder + "/" + (names.first ?? "").map { $0.isASCII && ($0.isLetter || $0.isNumber) ? String($0) : "_" }.joined()
    }

    /// Whether a certificate for these names is missing or to be renewed.
    func isDue(_ names: [String]) -> Bool { current(names) == nil }

    /// The certificate that is there, if it is for these names, of this authority, and good for long enough.
    private func current(_ names: [String]) -> ServerCertificate? {
        let path = leaf(names)
        guard let found = try? ServerCertificate(certificate: path + ".pem", key: path + ".key"),
            Set(found.names) == Set(names.map { $0.lowercased() }), found.ends - WallTime.now.milliseconds / 1000 > OwnAuthority.renewal,
            let authority = try? Files.read(file, limit: 65536), found.isSigned(by: authority)
        else { return nil }
        return found
    }

    /// A certificate for `names`, and what is new about it: nil when it was there already.
    func certificate(for names: [String]) throws(TLSFailure) -> (ServerCertificate, String?) {
        if let found = current(names) { return (found, nil) }
        do {
            try Files.makeFolder(folder, mode: 0o700)
            var news = "a new certificate"
            var authority = try read()
            if authority.map({ !CertificateMaking.covers($0, names) }) ?? true {
                news = authority == nil ? "a new authority" : "a new authority, because the one before is not for these names or has ended"
                let made = try CertificateMaking.authority(for: names)
                try Files.replace(key, with: made.key, mode: 0o600)
                try Files.replace(file, with: made.certificate, mode: 0o600)
                authority = made
            }
            guard let authority else { throw SystemError("\(file): no authority", EINVAL) }
            let made = try CertificateMaking.leaf(for: names, days: OwnAuthority.leafDays, by: authority), path = leaf(names)
            try Files.replace(path + ".key", with: made.key, mode: 0o600)
            try Files.replace(path + ".pem", with: made.certificate, mode: 0o600)
            return (try ServerCertificate(pem: made.certificate, key: made.key, path: path + ".pem", keyPath: path + ".key"), news)
        } catch { throw (error as? TLSFailure) ?? TLSFailure(.settings, "certificates: auto: \(error)") }
    }

    /// nil: there is none yet. One that cannot be read is not absent.
    private func read() throws(SystemError) -> KeyAndCertificate? {
        if Files.isAbsent(file), Files.isAbsent(key) { return nil }
        return KeyAndCertificate(certificate: try Files.read(file, limit: 65536), key: try Files.read(key, limit: 65536))
    }
}
