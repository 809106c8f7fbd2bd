import Glibc

/// An IPv4 or IPv6 address without a port. IPv4 is kept as IPv4-mapped IPv6 (`::ffff:a.b.c.d`, RFC 4291, 2.5.5.2), so that one comparison
/// serves both and a client that came over a dual-stack socket is the same client.
public struct IPAddress: Hashable, Sendable, CustomStringConvertible {
    /// The address in network order, as two halves.
    public let high: UInt64
    public let low: UInt64

    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// An IPv4 address from 32 bits in host byte order.
    public init(ipv4: UInt32) { self.init(high: 0, low: 0xFFFF << 32 | UInt64(ipv4)) }

    /// Reads `192.0.2.1`, `2001:db8::1` or `[2001:db8::1]`; nil for anything else.
    public init?(_ text: some StringProtocol) {
        // The system's reader stops at a NUL.
        guard text.utf8.count <= 47, !text.utf8.contains(0) else { return nil }
        let whole = String(text)
        var v4 = in_addr()
        if inet_pton(AF_INET, whole, &v4) == 1 {
            self.init(ipv4: UInt32(bigEndian: v4.s_addr))
            return
        }
        let bare = whole.hasPrefix("[") && whole.hasSuffix("]") ? String(whole.dropFirst().dropLast()) : whole
        var v6 = in6_addr()
        guard inet_pton(AF_INET6, bare, &v6) == 1 else { return nil }
        let halves = withUnsafeBytes(of: &v6) {
            (UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self)), UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
        }
        self.init(high: halves.0, low: halves.1)
    }

    public var isIPv4: Bool { high == 0 && low >> 32 == 0xFFFF }
    /// The IPv4 address in host byte order; nil for IPv6.
    public var ipv4: UInt32? { isIPv4 ? UInt32(truncatingIfNeeded: low) : nil }

    public var description: String {
        if let value = ipv4 { return "\(value >> 24).\(value >> 16 & 255).\(value >> 8 & 255).\(value & 255)" }
        var address = in6_addr()
        withUnsafeMutableBytes(of: &address) {
            $0.storeBytes(of: high.bigEndian, as: UInt64.self)
            $0.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
        }
        var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        inet_ntop(AF_INET6, &address, &text, socklen_t(INET6_ADDRSTRLEN))
        return text.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    }
}

/// Addresses with the same beginning: `10.0.0.0/8`, `2001:db8::/32`, or one address.
public struct AddressRange: Hashable, Sendable, CustomStringConvertible {
    private let network: IPAddress
    /// Of 128 bits; an IPv4 prefix counts from bit 96.
    private let bits: Int

    /// nil when the text is no address, or the prefix is longer than the address. Bits beyond the prefix are ignored.
    public init?(_ text: String) {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let address = IPAddress(parts[0]) else { return nil }
        let width = address.isIPv4 ? 32 : 128
        var prefix = width
        if parts.count == 2 {
            guard parts[1].utf8.count <= 3, parts[1].utf8.allSatisfy({ $0 &- 48 < 10 }), let given = Int(parts[1]), given <= width else {
                return nil
            }
            prefix = given
        }
        bits = 128 - width + prefix
        network = AddressRange.masked(address, bits)
    }

    private static func masked(_ address: IPAddress, _ bits: Int) -> IPAddress {
        let high: UInt64 = bits >= 64 ? .max : bits == 0 ? 0 : ~(UInt64.max >> UInt64(bits))
        let low: UInt64 = bits >= 128 ? .max : bits <= 64 ? 0 : ~(UInt64.max >> UInt64(bits - 64))
        return IPAddress(high: address.high & high, low: address.low & low)
    }

    public func contains(_ address: IPAddress) -> Bool { AddressRange.masked(address, bits) == network }

    public var description: String { "\(network)/\(network.isIPv4 ? bits - 96 : bits)" }
}
