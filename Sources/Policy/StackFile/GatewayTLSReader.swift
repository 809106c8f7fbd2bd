import Basics
import StackModel

/// The gateway's listeners and their TLS.
extension StackReader {
    /// Where the gateway listens: each address once, and none that another one takes as well.
    mutating func listeners(_ object: CheckedObject) -> [ListenerSpec] {
        let entries = object.objects("listen").filter { $0.address("address") != nil }
        let firstSecure = entries.first { $0.boolean("tls") == true }?.address("address")
        var all: [ListenerSpec] = []
        for entry in entries {
            guard let address = entry.address("address") else { continue }
            if let clash = all.first(where: { $0.address.overlaps(address) }) {
                report(object, "listen", "gateway.listen: \(address) is taken by \(clash) already")
            }
            let isSecure = entry.boolean("tls") ?? false
            var redirect: SecureRedirect?
            if let wanted = entry.object("redirect") {
                if isSecure { report(entry, "redirect", "gateway.listen: \(address) has tls already; redirect belongs to a plain one") }
                let port = wanted.integer("port").flatMap { UInt16(exactly: $0) } ?? firstSecure?.port
                if port == nil {
                    report(entry, "redirect", "gateway.listen: no listener has tls; add one, or say the port where https is served")
                }
                redirect = SecureRedirect(port: port ?? 443)
            }
            all.append(ListenerSpec(address, isSecure: isSecure, redirect: redirect))
        }
        if all.isEmpty, object.values["listen"] != nil { report(object, "listen", "gateway.listen: at least one address is needed") }
        // Only where another error is told already.
        return all.isEmpty ? [ListenerSpec(ListenAddress(host: "127.0.0.1", port: 1))] : all
    }

    mutating func tls(_ object: CheckedObject, _ listeners: [ListenerSpec]) -> TLSSpec? {
        guard let tls = object.object("tls") else {
            if let secure = listeners.first(where: \.isSecure) {
                report(object, "listen", "gateway.listen: \(secure) has tls, so gateway.tls must name its certificates")
            }
            return nil
        }
        let entries = tls.objects("certificates")
        if tls.values["certificates"] != nil, entries.isEmpty {
            report(tls, "certificates", "gateway.tls.certificates: at least one is needed")
        }
        let certificates = entries.enumerated().compactMap { certificate($1, "gateway.tls.certificates[\($0)]") }
        if let hsts = tls.duration("hsts"), hsts.nanoseconds % 1_000_000_000 != 0 {
            report(tls, "hsts", "gateway.tls.hsts: whole seconds only; browsers know no others")
        }
        let tickets = tls.object("tickets")
        return TLSSpec(
            certificates: certificates, isStrict: tls.boolean("strict") ?? false,
            tickets: TicketSpec(file: tickets?.string("file"), rotation: tickets?.duration("rotate") ?? .seconds(12 * 3600)),
            clients: tls.objects("clients").enumerated().map { clients($1, "gateway.tls.clients[\($0)]") },
            hsts: tls.duration("hsts").flatMap { $0 > .zero ? $0 : nil })
    }

    private mutating func certificate(_ entry: CheckedObject, _ path: String) -> CertificateSpec? {
        let names = entry.strings("auto"), file = entry.string("certificate")
        if entry.places["auto"] != nil {
            if file != nil || entry.string("key") != nil {
                checker.report(entry.line, entry.column, "\(path): files, or auto with names, not both")
            }
            if names.isEmpty { report(entry, "auto", "\(path).auto: name what it is for, such as localhost") }
            for name in names where !StackReader.isCertificateName(name) {
                report(entry, "auto", "\(path).auto: '\(name)' is no host name and no address")
            }
            return .own(names: names.map { $0.lowercased() })
        }
        if file == "auto" { return .own(names: ["localhost", "127.0.0.1", "::1"]) }
        guard let file, !file.isEmpty else {
            checker.report(entry.line, entry.column, "\(path): give certificate, a PEM file, or auto")
            return nil
        }
        return .files(certificate: file, key: entry.string("key"))
    }

    private static let secureScheme = "https://"

    /// A backend's address as an endpoint: without its scheme, with https's port where it names none.
    static func plainAddress(_ text: String) -> String {
        guard text.hasPrefix(secureScheme) else { return text }
        let rest = String(text.dropFirst(secureScheme.utf8.count))
        let port = rest.hasSuffix("]") ? nil : rest.lastIndex(of: ":")
        return port == nil ? rest + ":443" : rest
    }

    /// Whether anything of a route asks for TLS to its backends.
    func isSecure(_ object: CheckedObject) -> Bool {
        let entries = object.objects("backends") + (object.object("canary")?.objects("backends") ?? [])
        return object.places["backend-tls"] != nil || entries.contains { ($0.string("address") ?? "").hasPrefix(StackReader.secureScheme) }
    }

    /// How a route's backends are spoken to over TLS: where they are https://, or `backend-tls` stands (for those that are found).
    mutating func backendTLS(_ object: CheckedObject, _ path: String) -> BackendTLSSpec? {
        let entries = object.objects("backends") + (object.object("canary")?.objects("backends") ?? [])
        let secure = entries.filter { ($0.string("address") ?? "").hasPrefix(StackReader.secureScheme) }.count
        let tls = object.object("backend-tls")
        guard secure > 0 || tls != nil else { return nil }
        if secure < entries.count {
            report(object, "backends", "\(path).backends: either all of a route's backends are spoken to over TLS (https://) or none")
        }
        if object.places["service"] != nil || object.object("canary")?.places["service"] != nil {
            report(object, "backend-tls", "\(path): services of this stack are spoken to in plain; TLS is for backends")
        }
        let name = tls?.string("name")
        if let name, !StackReader.isCertificateName(name) || name.hasPrefix("*") {
            if let tls { report(tls, "name", "\(path).backend-tls.name: '\(name)' is no host name and no address") }
        }
        if let tls, tls.string("key") != nil, tls.string("certificate") == nil {
            report(tls, "key", "\(path).backend-tls.key: it has no certificate; give the certificate's file too")
        }
        return BackendTLSSpec(
            authorities: tls?.string("ca"), name: name, certificate: tls?.string("certificate"), key: tls?.string("key"))
    }

    private mutating func clients(_ entry: CheckedObject, _ path: String) -> ClientCertificateSpec {
        for name in entry.strings("names") where !StackReader.isCertificateName(name) {
            report(entry, "names", "\(path).names: '\(name)' is no host name")
        }
        return ClientCertificateSpec(
            authorities: entry.string("ca") ?? "", revoked: entry.string("crl"), isNeeded: entry.boolean("need") ?? true,
            names: entry.strings("names").map { $0.lowercased() }, tellsSubject: entry.boolean("subject") ?? false,
            tellsFingerprint: entry.boolean("fingerprint") ?? false)
    }

    /// Whether a certificate may be for this name: a numeric address, a host name, or one whose first label is a star.
    private static func isCertificateName(_ name: String) -> Bool {
        if IPAddress(name) != nil { return true }
        let labels = name.split(separator: ".", omittingEmptySubsequences: false)
        return name.utf8.count <= 253
            && labels.enumerated().allSatisfy { place, label in
                (place == 0 && label == "*" && labels.count > 1)
                    || (1...63).contains(label.utf8.count) && label.utf8.first != 45 && label.utf8.last != 45
                        && label.utf8.allSatisfy { ($0 | 32) &- 97 < 26 || $0 &- 48 < 10 || $0 == 45 || $0 == 95 }
            }
    }
}
