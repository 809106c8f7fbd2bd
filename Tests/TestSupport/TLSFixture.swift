import Basics
import EventLoops
import Glibc

/// Two CAs and certificates of one test, made by OpenSSL's command line: `server` is for 127.0.0.1 and localhost, `elsewhere` for another
/// host, `expired` ended yesterday, `client` is a client's; all signed by `ca`.
public struct TLSFixture: Sendable {
    public let folder: String

    public init(folder: String) async throws {
        self.folder = folder
        let script = """
            set -e
            ec="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
            authority() { openssl req -x509 $ec -keyout $1.key -out $1.pem -days 2 -subj "/CN=$2"; }
            leaf() {
                openssl req $ec -keyout $1.key -out $1.csr -subj "/CN=$1"
                echo "subjectAltName=$2" > $1.ext
                openssl x509 -req -in $1.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days $3 -extfile $1.ext -out $1.pem
            }
            authority ca "Muster test CA"
            authority other "Another CA"
            leaf server IP:127.0.0.1,DNS:localhost 2
            leaf elsewhere DNS:redis.example,IP:10.0.0.1 2
            leaf expired IP:127.0.0.1 -1
            leaf client DNS:client 2
            openssl ec -aes128 -passout pass:secret -in client.key -out locked.key
            """
        let result = try await run(try systemProgram("sh"), ["-c", script], folder: folder)
        guard result.status == 0 else { throw SystemError("openssl: \(result.output)", EINVAL) }
    }

    public func file(_ name: String) -> String { "\(folder)/\(name)" }
    public var authority: String { file("ca.pem") }

    /// A client that trusts `ca` and shows no certificate.
    public var trusting: TLSContext { get throws { try TLSContext(authorities: authority) } }

    /// Lines for redis-server.
    public func redis(port: UInt16, certificate: String = "server", clients: Bool = false) -> [String] {
        [
            "tls-port \(port)", "tls-cert-file \(file(certificate)).pem", "tls-key-file \(file(certificate)).key",
            "tls-ca-cert-file \(authority)",
            "tls-auth-clients \(clients ? "yes" : "no")",
        ]
    }
}

/// `openssl s_server`, told what to do and what to send through a named pipe.
public final class TLSPeer: Sendable {
    public let port: UInt16
    public let child: Child
    private let pipe: Int32

    public init(_ fixture: TLSFixture, _ options: [String]) async throws {
        port = TestPorts.server()
        let path = fixture.file("input-\(port)")
        guard mkfifo(path, 0o600) == 0 else { throw SystemError("mkfifo") }
        pipe = open(path, O_RDWR | O_CLOEXEC)
        let words = ["openssl", "s_server", "-accept", "127.0.0.1:\(port)", "-cert", "server.pem", "-key", "server.key"] + options
        child = try Child(
            try systemProgram("sh"), ["-c", "exec \(words.joined(separator: " ")) < \(path)"], log: fixture.file("peer-\(port).log"),
            folder: fixture.folder)
        let child = child
        // Its own word: a connection made to see whether it listens would be its first client.
        let isUp = await eventually { child.output.contains("ACCEPT") }
        guard isUp else { throw SystemError("s_server did not start: \(child.output)", ECONNREFUSED) }
    }

    deinit { close(pipe) }

    public func type(_ text: String) { _ = write(pipe, text, text.utf8.count) }

    /// Bytes that were typed and not read yet. OpenSSL takes a letter for an order at the beginning of a read only.
    public var untaken: Int32 {
        var count: Int32 = 0
        _ = ioctl(pipe, UInt(FIONREAD), &count)
        return count
    }
}

public func withTLSPeer<T>(_ fixture: TLSFixture, _ options: [String], _ body: (TLSPeer) async throws -> T) async throws -> T {
    let peer = try await TLSPeer(fixture, options)
    let result: Result<T, any Error>
    do { result = .success(try await body(peer)) } catch { result = .failure(error) }
    await peer.child.destroy()
    return try result.get()
}
