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
            KeySpec("certificate", .string, required: true, "a PEM file: the certificate, then those that lead to its CA"),
            KeySpec("key", .string, "the PEM file of its key; default: the same file"),
        ])
    static let tls = ObjectSpec(
        "TLS of the listeners",
        [
            KeySpec(
                "certificates", .list(.objectOr(certificate, short: "certificate")), required: true,
                "each for the names that stand in it; the first is for clients that name nobody"),
            KeySpec("strict", .boolean, "clients that ask for a name of no certificate are refused; default false: they get the first one"),
        ])
}
