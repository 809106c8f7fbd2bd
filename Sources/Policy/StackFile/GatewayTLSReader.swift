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
        let certificates = tls.objects("certificates").map { entry in
            CertificateSpec(certificate: entry.string("certificate") ?? "", key: entry.string("key"))
        }
        if tls.values["certificates"] != nil, certificates.isEmpty {
            report(tls, "certificates", "gateway.tls.certificates: at least one is needed")
        }
        return TLSSpec(certificates: certificates, isStrict: tls.boolean("strict") ?? false)
    }
}
