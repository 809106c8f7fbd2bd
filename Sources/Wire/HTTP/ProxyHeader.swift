import Basics
import EventLoops

/// The PROXY protocol (HAProxy's proxy-protocol.txt, versions 1 and 2): one header before a connection's first byte, by which a proxy names
/// the client that it speaks for.
public enum ProxyHeader {
    public enum Version: Sendable { case one, two }

    public enum Failure: Error, Equatable {
        /// Neither `PROXY ` nor version 2's signature.
        case missing
        case malformed
    }

    public struct Parsed: Equatable {
        /// The client's address; nil: the proxy speaks for itself (LOCAL, UNKNOWN) or for a family that has no address here.
        public let source: SocketAddress?
        /// How many bytes the header has.
        public let length: Int
    }

    /// Most bytes of a header: version 1 has at most 107; of version 2 we take no more than this with all its TLVs.
    public static let limit = 4096
    private static let signature: [UInt8] = [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A]

    /// The header at the beginning of `bytes`; nil while more must come.
    public static func parse(_ bytes: UnsafeRawBufferPointer) throws(Failure) -> Parsed? {
        guard let first = bytes.first else { return nil }
        if first == 80 { return try parseOne(bytes) }
        for i in 0..<min(bytes.count, signature.count) where bytes[i] != signature[i] { throw .missing }
        return try parseTwo(bytes)
    }

    /// `PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\n`
    private static func parseOne(_ bytes: UnsafeRawBufferPointer) throws(Failure) -> Parsed? {
        let word: StaticString = "PROXY "
        for i in 0..<min(bytes.count, 6) where bytes[i] != word.utf8Start[i] { throw .missing }
        guard let feed = bytes.prefix(107).firstIndex(of: 10) else {
            if bytes.count >= 107 { throw .malformed }
            return nil
        }
        guard feed > 6, bytes[feed - 1] == 13 else { throw .malformed }
        let words = bytes[6..<feed - 1].split(separator: 32, omittingEmptySubsequences: false).map { String(decoding: $0, as: UTF8.self) }
        if words.first == "UNKNOWN" { return Parsed(source: nil, length: feed + 1) }
        guard words.count == 5, words[0] == "TCP4" || words[0] == "TCP6" else { throw .malformed }
        guard let source = IPAddress(words[1]), let target = IPAddress(words[2]), !words[1].hasPrefix("["), !words[2].hasPrefix("[") else {
            throw .malformed
        }
        let isFour = words[0] == "TCP4"
        guard words[1].contains(":") != isFour, words[2].contains(":") != isFour, target.isIPv4 == source.isIPv4 || !isFour else {
            throw .malformed
        }
        guard let port = decimalPort(words[3]), decimalPort(words[4]) != nil else { throw .malformed }
        return Parsed(source: SocketAddress(source, port: port), length: feed + 1)
    }

    private static func decimalPort(_ text: String) -> UInt16? {
        guard !text.isEmpty, text.utf8.count <= 5, text.utf8.allSatisfy({ $0 &- 48 < 10 }), text == "0" || text.utf8.first != 48 else {
            return nil
        }
        return UInt16(text)
    }

    private static func parseTwo(_ bytes: UnsafeRawBufferPointer) throws(Failure) -> Parsed? {
        guard bytes.count >= 16 else { return nil }
        guard bytes[12] >> 4 == 2, bytes[12] & 15 <= 1 else { throw .malformed }
        let length = Int(bytes[14]) << 8 | Int(bytes[15])
        guard length <= limit - 16 else { throw .malformed }
        guard bytes.count >= 16 + length else { return nil }
        if bytes[12] & 15 == 0 { return Parsed(source: nil, length: 16 + length) }
        func number(_ at: Int, _ count: Int) -> UInt64 { (0..<count).reduce(0) { $0 << 8 | UInt64(bytes[at + $1]) } }
        switch bytes[13] {
        case 0x11:
            guard length >= 12 else { throw .malformed }
            return Parsed(source: .ipv4(UInt32(number(16, 4)), port: UInt16(number(24, 2))), length: 16 + length)
        case 0x21:
            guard length >= 36 else { throw .malformed }
            let ip = IPAddress(high: number(16, 8), low: number(24, 8))
            return Parsed(source: SocketAddress(ip, port: UInt16(number(48, 2))), length: 16 + length)
        // Unspecified, datagrams and Unix sockets: the address is of no use here.
        case 0x00, 0x12, 0x22, 0x31, 0x32: return Parsed(source: nil, length: 16 + length)
        default: throw .malformed
        }
    }

    /// Writes the header that tells a backend of `source`; its own address stands as `target` (the gateway's connection).
    public static func render(_ version: Version, source: SocketAddress, into out: inout ByteBuffer) {
        guard let ip = source.ip, let port = source.port else {
            if version == .one { return out.append("PROXY UNKNOWN\r\n") }
            out.append(signature)
            return out.append([0x20, 0x00, 0x00, 0x00])
        }
        // The gateway's own address is nobody's business behind it, but the form wants one of the same family.
        let target = ip.isIPv4 ? IPAddress(ipv4: 0) : IPAddress(high: 0, low: 0)
        if version == .one {
            return out.append(text: "PROXY \(ip.isIPv4 ? "TCP4" : "TCP6") \(ip) \(target) \(port) 0\r\n")
        }
        out.append(signature)
        out.append([0x21, ip.isIPv4 ? 0x11 : 0x21, 0, ip.isIPv4 ? 12 : 36])
        for address in [ip, target] {
            if let four = address.ipv4 {
                append(UInt64(four), 4, into: &out)
            } else {
                append(address.high, 8, into: &out)
                append(address.low, 8, into: &out)
            }
        }
        append(UInt64(port), 2, into: &out)
        append(0, 2, into: &out)
    }

    private static func append(_ value: UInt64, _ count: Int, into out: inout ByteBuffer) {
        for i in 0..<count { out.append(UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - i)))) }
    }
}
