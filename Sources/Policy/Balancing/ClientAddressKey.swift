/// The keys by which hash balancing recognises a client.
///
/// `ip-hash` uses the key `network`: neighbours share a replica, so a client whose last digits change keeps its own. `hash(client-ip)` uses
/// the key `address`. An IPv4 address written as IPv6 (`::ffff:a.b.c.d`, RFC 4291) has the key of the IPv4 address. O(1), no allocation.
public enum ClientAddressKey {
    /// The key of an address's /24, as in nginx's `ip_hash`. `ipv4` is in host order: 10.1.2.3 is `0x0A01_0203`.
    public static func network(ipv4: UInt32) -> UInt64 { mix(UInt64(ipv4 >> 8) | 24 << 32) }

    /// The key of an address's /56, the block that a provider gives a household or an office (RFC 6177). nginx hashes all 128 bits, with
    /// which a client with privacy addresses (RFC 8981) changes its replica every day.
    public static func network(ipv6High high: UInt64, low: UInt64) -> UInt64 {
        if let ipv4 = mapped(high, low) { return network(ipv4: ipv4) }
        return mix(high >> 8 | 56 << 56)
    }

    /// The key of one address. `ipv4` is in host order.
    public static func address(ipv4: UInt32) -> UInt64 { mix(UInt64(ipv4) | 32 << 32) }

    /// The key of one address, the first 64 bits in `high`.
    public static func address(ipv6High high: UInt64, low: UInt64) -> UInt64 {
        if let ipv4 = mapped(high, low) { return address(ipv4: ipv4) }
        return mix(mix(high) ^ low)
    }

    private static func mapped(_ high: UInt64, _ low: UInt64) -> UInt32? {
        high == 0 && low >> 32 == 0xFFFF ? UInt32(truncatingIfNeeded: low) : nil
    }

    /// SplitMix64's last step: one bit more or less in the address changes half of the key's.
    private static func mix(_ value: UInt64) -> UInt64 {
        var z = value &+ 0x9E37_79B9_7F4A_7C15
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
