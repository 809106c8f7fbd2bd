/// The address of a cluster's node: a host (a numeric address or a name) and the port that clients use.
public struct NodeAddress: Hashable, Sendable, Comparable, CustomStringConvertible {
    public let host: String
    public let port: UInt16

    public init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// Reads `10.0.0.1:7001`, `[2001:db8::1]:7001`, `name:7001`; nil for anything else.
    public init?(_ text: some StringProtocol) {
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]), port > 0 else { return nil }
        var host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        guard !host.isEmpty, host.utf8.count <= 253, !host.contains(where: { $0.isWhitespace || $0 == "@" || $0 == "/" }) else {
            return nil
        }
        self.init(host: String(host), port: port)
    }

    /// Whether the host is this machine: 127.0.0.0/8, `::1`, `localhost`.
    public var isLoopback: Bool { host.hasPrefix("127.") || host == "::1" || host == "localhost" }

    public static func < (a: Self, b: Self) -> Bool { (a.host, a.port) < (b.host, b.port) }

    public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}
