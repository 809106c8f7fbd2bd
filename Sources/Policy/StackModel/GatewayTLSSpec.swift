import Basics

/// A place where the gateway listens.
public struct ListenerSpec: Sendable, Equatable, CustomStringConvertible {
    public let address: ListenAddress
    /// Whether clients speak TLS there.
    public let isSecure: Bool
    /// Whether every request is sent to the same address under https; nil: the routes serve it.
    public let redirect: SecureRedirect?

    public init(_ address: ListenAddress, isSecure: Bool = false, redirect: SecureRedirect? = nil) {
        self.address = address
        self.isSecure = isSecure
        self.redirect = redirect
    }

    public var description: String { address.description }
}

/// Where clients of a plain listener are sent.
public struct SecureRedirect: Sendable, Equatable {
    /// The port that the new address names; 443 is left out.
    public let port: UInt16

    public init(port: UInt16) { self.port = port }
}

/// TLS of the gateway's listeners.
public struct TLSSpec: Sendable, Equatable {
    public let certificates: [CertificateSpec]
    /// Whether a client that asks for a name of no certificate is refused; otherwise it gets the first certificate.
    public let isStrict: Bool

    public init(certificates: [CertificateSpec], isStrict: Bool) {
        self.certificates = certificates
        self.isStrict = isStrict
    }
}

/// A certificate of the gateway's.
public struct CertificateSpec: Sendable, Equatable {
    /// The PEM file of the certificate with its chain.
    public let certificate: String
    /// The PEM file of its key; nil: it stands in the certificate's file.
    public let key: String?

    public init(certificate: String, key: String?) {
        self.certificate = certificate
        self.key = key
    }
}
