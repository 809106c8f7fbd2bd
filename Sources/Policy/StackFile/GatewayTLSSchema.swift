import StackModel

/// The gateway's keys of listeners and of TLS.
extension StackSchema {
    static let secureRedirect = ObjectSpec(
        "a way to https",
        [
            KeySpec("to", .choice(["https"]), required: true, "the same address under https"),
            KeySpec("port", .integer(1...65535), "the port that the new address names; default: that of the first listener with TLS"),
        ])
    static let listener = ObjectSpec(
        "a listener",
        [
            KeySpec("address", .address, required: true, "where; a bare port means every IPv4 address"),
            KeySpec("tls", .boolean, "whether clients speak TLS there; default false"),
            KeySpec(
                "redirect", .objectOr(secureRedirect, short: "to"),
                "https: every request is answered with 308 to the same address under https"),
        ])
    static let certificate = ObjectSpec(
        "a certificate",
        [
            KeySpec(
                "certificate", .string,
                "a PEM file: the certificate, then those that lead to its CA; or auto: one of an own CA for this machine, for development"),
            KeySpec("key", .string, "the PEM file of its key; default: the same file"),
            KeySpec("auto", .list(.string), "or one of an own CA for these names, for development"),
        ])
    static let tickets = ObjectSpec(
        "tickets by which clients resume their sessions",
        [
            KeySpec("file", .string, "their keys, shared with other gateways; made when it is missing, and rotated by one of them"),
            KeySpec("rotate", .time(from: .seconds(1), to: .seconds(86400)), "a new key seals after this time; default 12h"),
        ])
    static let clientCertificates = ObjectSpec(
        "clients that show a certificate",
        [
            KeySpec("ca", .string, required: true, "a PEM file of the CAs that sign them"),
            KeySpec("crl", .string, "a PEM file of what these have revoked"),
            KeySpec("need", .boolean, "whether a client without one is refused; default true"),
            KeySpec("names", .list(.string), "names for which that holds, or *.example.org; default all"),
            KeySpec("subject", .boolean, "backends get X-Client-Cert-Subject, too; default false"),
            KeySpec("fingerprint", .boolean, "backends get X-Client-Cert-Fingerprint, too; default false"),
        ])
    static let backendTLS = ObjectSpec(
        "TLS to the backends",
        [
            KeySpec("ca", .string, "a PEM file of the CAs that sign their certificates; default: the system's"),
            KeySpec("name", .string, "the name that they must have, and are asked for (SNI); default: the host of each address"),
            KeySpec("certificate", .string, "a PEM file of the gateway's own certificate, for backends that ask for one"),
            KeySpec("key", .string, "the PEM file of its key; default: the same file"),
        ])
    static let tls = ObjectSpec(
        "TLS of the listeners",
        [
            KeySpec(
                "certificates", .list(.objectOr(certificate, short: "certificate")), required: true,
                "each for the names that stand in it; the first is for clients that name nobody"),
            KeySpec("strict", .boolean, "clients that ask for a name of no certificate are refused; default false: they get the first one"),
            KeySpec("tickets", .object(tickets), "tickets by which clients resume their sessions"),
            KeySpec("clients", .list(.object(clientCertificates)), "clients that show a certificate; the first entry for a name counts"),
            KeySpec(
                "hsts", .time(from: .seconds(1), orZero: true),
                "browsers ask for https only, for so long after each answer, in whole seconds; default 0s: they are told nothing"),
        ])
}
