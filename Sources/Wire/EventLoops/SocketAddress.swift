import Basics
import Glibc

/// Where a socket listens or connects: numeric, never a name (see `Resolver`).
public enum SocketAddress: Hashable, Sendable, CustomStringConvertible {
    /// Host byte order.
    case ipv4(UInt32, port: UInt16)
    /// 16 bytes in network order, as two big-endian halves.
    case ipv6(UInt64, UInt64, port: UInt16)
    case unix(String)

    public static func loopback(port: UInt16) -> SocketAddress { .ipv4(0x7F00_0001, port: port) }

    /// A numeric IPv4 or IPv6 host (the latter with or without brackets).
    public init?(host: String, port: UInt16) {
        guard let ip = IPAddress(host) else { return nil }
        self.init(ip, port: port)
    }

    public init(_ ip: IPAddress, port: UInt16) { self = ip.ipv4.map { .ipv4($0, port: port) } ?? .ipv6(ip.high, ip.low, port: port) }

    /// The IP address; nil for a Unix socket. An IPv4 client of a dual-stack socket has its IPv4 address here.
    public var ip: IPAddress? {
        switch self {
        case .ipv4(let value, _): IPAddress(ipv4: value)
        case .ipv6(let high, let low, _): IPAddress(high: high, low: low)
        case .unix: nil
        }
    }

    public var port: UInt16? {
        switch self {
        case .ipv4(_, let port), .ipv6(_, _, let port): port
        case .unix: nil
        }
    }

    /// The host without the port; a Unix socket's path.
    public var host: String {
        switch self {
        case .ipv4, .ipv6: ip!.description
        case .unix(let path): path
        }
    }

    public var description: String {
        switch self {
        case .ipv4(_, let port): "\(host):\(port)"
        case .ipv6(_, _, let port): "[\(host)]:\(port)"
        case .unix(let path): "unix:\(path)"
        }
    }

    public var isLoopback: Bool {
        switch self {
        case .ipv4(let value, _): value >> 24 == 127
        case .ipv6(let high, let low, _): high == 0 && low == 1
        case .unix: true
        }
    }

    var family: Int32 {
        switch self {
        case .ipv4: AF_INET
        case .ipv6: AF_INET6
        case .unix: AF_UNIX
        }
    }

    /// Hands the kernel's form to `body`. A Unix path longer than 107 bytes does not fit and is nil.
    func withSockaddr<T>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> T) -> T? {
        var storage = sockaddr_storage()
        let length: socklen_t
        switch self {
        case .ipv4(let value, let port):
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = port.bigEndian
            address.sin_addr.s_addr = value.bigEndian
            length = socklen_t(MemoryLayout<sockaddr_in>.size)
            withUnsafeMutableBytes(of: &storage) { $0.storeBytes(of: address, as: sockaddr_in.self) }
        case .ipv6(let high, let low, let port):
            var address = sockaddr_in6()
            address.sin6_family = sa_family_t(AF_INET6)
            address.sin6_port = port.bigEndian
            withUnsafeMutableBytes(of: &address.sin6_addr) {
                $0.storeBytes(of: high.bigEndian, as: UInt64.self)
                $0.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
            }
            length = socklen_t(MemoryLayout<sockaddr_in6>.size)
            withUnsafeMutableBytes(of: &storage) { $0.storeBytes(of: address, as: sockaddr_in6.self) }
        case .unix(let path):
            let bytes = Array(path.utf8)
            guard bytes.count < 108 else { return nil }
            length = socklen_t(MemoryLayout<sockaddr_un>.size)
            withUnsafeMutableBytes(of: &storage) {
                $0.storeBytes(of: sa_family_t(AF_UNIX), as: sa_family_t.self)
                $0.baseAddress!.advanced(by: MemoryLayout<sa_family_t>.size).copyMemory(from: bytes, byteCount: bytes.count)
            }
        }
        return withUnsafePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
        }
    }

    init?(_ storage: sockaddr_storage) {
        var storage = storage
        switch Int32(storage.ss_family) {
        case AF_INET:
            let address = withUnsafeBytes(of: &storage) { $0.load(as: sockaddr_in.self) }
            self = .ipv4(UInt32(bigEndian: address.sin_addr.s_addr), port: UInt16(bigEndian: address.sin_port))
        case AF_INET6:
            var address = withUnsafeBytes(of: &storage) { $0.load(as: sockaddr_in6.self) }
            let port = UInt16(bigEndian: address.sin6_port)
            self = withUnsafeBytes(of: &address.sin6_addr) {
                .ipv6(
                    UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self)),
                    UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self)), port: port)
            }
        case AF_UNIX: self = .unix("")
        default: return nil
        }
    }
}

/// A place to connect to, as people write it: `127.0.0.1:9001`, `[::1]:80`, `name:80`, `unix:/path`.
public enum Endpoint: Hashable, Sendable, CustomStringConvertible {
    case address(SocketAddress)
    /// A name to be resolved at each connect (through the resolver's short memory).
    case name(String, port: UInt16)

    public init?(_ text: String, defaultPort: UInt16? = nil) {
        if text.hasPrefix("unix:") {
            let path = String(text.dropFirst(5))
            guard !path.isEmpty, path.utf8.count < 108 else { return nil }
            self = .address(.unix(path))
            return
        }
        let host: Substring
        let port: UInt16
        if let colon = text.lastIndex(of: ":"), !text[colon...].contains("]") {
            guard let parsed = UInt16(text[text.index(after: colon)...]), parsed > 0 else { return nil }
            host = text[..<colon]
            port = parsed
        } else {
            guard let defaultPort else { return nil }
            host = text[...]
            port = defaultPort
        }
        if let address = SocketAddress(host: String(host), port: port) {
            self = .address(address)
            return
        }
        let plausible =
            !host.isEmpty && host.utf8.count <= 253
            && host.utf8.allSatisfy { ($0 | 32 >= 97 && $0 | 32 <= 122) || (48...57).contains($0) || $0 == 45 || $0 == 46 || $0 == 95 }
        guard plausible else { return nil }
        self = .name(String(host), port: port)
    }

    /// The host as a name or a numeric address, and the port; of a Unix socket `localhost` and 0.
    public var hostAndPort: (String, UInt16) {
        switch self {
        case .address(let address): (address.ip?.description ?? "localhost", address.port ?? 0)
        case .name(let host, let port): (host, port)
        }
    }

    public var description: String {
        switch self {
        case .address(let address): address.description
        case .name(let host, let port): "\(host):\(port)"
        }
    }
}
