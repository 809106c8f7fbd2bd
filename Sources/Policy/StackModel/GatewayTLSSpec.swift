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
    public let tickets: TicketSpec
    public let clients: [ClientCertificateSpec]
    /// How long browsers are told to ask for https only, in whole seconds; nil: they are told nothing.
    public let hsts: Duration?

    public init(
        certificates: [CertificateSpec], isStrict: Bool, tickets: TicketSpec, clients: [ClientCertificateSpec], hsts: Duration?
    ) {
        self.certificates = certificates
        self.isStrict = isStrict
        self.tickets = tickets
        self.clients = clients
        self.hsts = hsts
    }
}

/// A certificate of the gateway's.
public enum CertificateSpec: Sendable, Equatable {
    /// PEM files: the certificate with its chain, and its key (nil: it stands in the certificate's file).
    case files(certificate: String, key: String?)
    /// One of an authority of the gateway's own, for these names: for development.
    case own(names: [String])
}

/// Tickets by which clients resume their sessions.
public struct TicketSpec: Sendable, Equatable {
    /// A file that several gateways share; nil: the keys are this process's own, and its successor's.
    public let file: String?
    /// How long one key seals.
    public let rotation: Duration

    public init(file: String?, rotation: Duration) {
        self.file = file
        self.rotation = rotation
    }
}

/// TLS to the backends of a route.
public struct BackendTLSSpec: Sendable, Equatable {
    /// A PEM file of the authorities that sign their certificates; nil: the system's.
    public let authorities: String?
    /// The name that their certificates must have, and that they are asked for; nil: the host of the backend's address.
    public let name: String?
    /// PEM files of the gateway's own certificate and its key, for backends that ask for one.
    public let certificate: String?
    public let key: String?

    public init(authorities: String?, name: String?, certificate: String?, key: String?) {
        self.authorities = authorities
        self.name = name
        self.certificate = certificate
        self.key = key
    }
}

/// Clients that show a certificate.
public struct ClientCertificateSpec: Sendable, Equatable {
    /// PEM files: the authorities that sign them, and what these have revoked.
    public let authorities: String
    public let revoked: String?
    /// Whether a client without one is refused.
    public let isNeeded: Bool
    /// The names for which that holds, in lower case; empty: all.
    public let names: [String]
    /// Whether backends are told subject and fingerprint beside the certificate.
    public let tellsSubject: Bool
    public let tellsFingerprint: Bool

    public init(authorities: String, revoked: String?, isNeeded: Bool, names: [String], tellsSubject: Bool, tellsFingerprint: Bool) {
        self.authorities = authorities
        self.revoked = revoked
        self.isNeeded = isNeeded
        self.names = names
        self.tellsSubject = tellsSubject
        self.tellsFingerprint = tellsFingerprint
    }
}
