import Basics
import EventLoops
import Glibc

/// A CA of one test, and the certificates that it signs, made by OpenSSL's command line.
public struct CertificateFixture: Sendable {
    public let folder: String

    public init(folder: String) async throws {
        self.folder = folder
        try await shell(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 30 "
                + "-subj '/CN=Muster test CA' -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign")
    }

    public func file(_ name: String) -> String { "\(folder)/\(name)" }
    public var authority: String { file("ca.pem") }

    /// Makes `NAME.pem` and `NAME.key` for `names`, such as `DNS:a.example,IP:127.0.0.1`.
    public func leaf(_ name: String, _ names: String, days: Int = 2, isRSA: Bool = false, more: String = "", ca: String = "ca") async throws
    {
        let key = isRSA ? "-newkey rsa:2048" : "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
        try await shell(
            """
            openssl req \(key) -nodes -keyout \(name).key -out \(name).csr -subj "/CN=\(name)"
            printf 'subjectAltName=\(names)\\nbasicConstraints=critical,CA:FALSE\\nkeyUsage=critical,digitalSignature\\n\(more)' > \(name).ext
            openssl x509 -req -in \(name).csr -CA \(ca).pem -CAkey \(ca).key -CAcreateserial -days \(days) -extfile \(name).ext -out \(name).pem
            """)
    }

    @discardableResult
    public func shell(_ script: String) async throws -> String {
        let result = try await run(try systemProgram("sh"), ["-ec", script], folder: folder)
        guard result.status == 0 else { throw SystemError("openssl: \(result.output)", EINVAL) }
        return result.output
    }
}

public func withCertificates<T>(_ body: (CertificateFixture) async throws -> T) async throws -> T {
    try await withFolder { try await body(CertificateFixture(folder: $0)) }
}
