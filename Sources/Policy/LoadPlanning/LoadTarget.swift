import Basics

/// The server that gets the load: `http://host:port`, with the path of the quick form.
public struct LoadTarget: Sendable, Equatable, CustomStringConvertible {
    public let host: String
    public let port: UInt16
    /// The path; `/` when none was given.
    public let path: String

    /// Why a text is no target.
    public struct Failure: Error, Equatable, Sendable {
        public let message: String
    }

    public init(host: String, port: UInt16, path: String = "/") {
        self.host = host
        self.port = port
        self.path = path
    }

    /// Reads `http://127.0.0.1:8080/path`. `http://` may be left out; without a port it is 80.
    public init(_ text: String) throws(Failure) {
        if text.hasPrefix("https://") {
            throw Failure(message: "'\(text)': the load generator speaks http:// only; aim it at the plain port behind TLS")
        }
        var rest = text[...]
        if rest.hasPrefix("http://") { rest = rest.dropFirst(7) }
        let slash = rest.firstIndex { $0 == "/" || $0 == "?" } ?? rest.endIndex
        let authority = rest[..<slash], tail = String(rest[slash...])
        path = tail.isEmpty ? "/" : tail.hasPrefix("?") ? "/" + tail : tail
        guard path.utf8.allSatisfy({ $0 > 32 && $0 < 127 && $0 != 35 }), path.utf8.count <= 4096 else {
            throw Failure(message: "'\(text)': a path has printable ASCII without spaces and #, and at most 4096 bytes")
        }
        var name = authority, port: UInt16? = 80
        if let colon = authority.lastIndex(of: ":"), !authority[colon...].contains("]") {
            name = authority[..<colon]
            port = UInt16(authority[authority.index(after: colon)...])
        }
        if name.hasPrefix("["), name.hasSuffix("]") { name = name.dropFirst().dropLast() }
        let plausible =
            !name.isEmpty && name.utf8.count <= 253
            && (IPAddress(String(name)) != nil
                || name.utf8.allSatisfy { ($0 | 32) &- 97 < 26 || $0 &- 48 < 10 || $0 == 45 || $0 == 46 || $0 == 95 })
        guard plausible, let port, port > 0 else { throw Failure(message: "'\(text)' is no target: expected http://host:port/path") }
        host = name == "localhost" ? "127.0.0.1" : String(name)
        self.port = port
    }

    /// Whether the target is this machine: an address of 127.0.0.0/8, or ::1. A name (but localhost) does not count, wherever it leads.
    public var isLoopback: Bool {
        guard let address = IPAddress(host) else { return false }
        if let four = address.ipv4 { return four >> 24 == 127 }
        return address.high == 0 && address.low == 1
    }

    /// `host:port`, as a Host field and a connection want it.
    public var authority: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
    public var description: String { "http://\(authority)" }
}
