import Basics

/// A position in PostgreSQL's write-ahead log, in bytes since its beginning. Positions of one timeline can be compared; of two timelines
/// only up to where they part.
public struct WALPosition: Comparable, Hashable, Sendable, CustomStringConvertible {
    public let bytes: UInt64

    public init(_ bytes: UInt64) { self.bytes = bytes }

    /// Reads what PostgreSQL writes: two hexadecimal numbers of up to eight digits with a slash between, as in `0/16B3748`. nil for
    /// anything else.
    public init?(text: some StringProtocol) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, parts.allSatisfy({ (1...8).contains($0.utf8.count) && $0.utf8.allSatisfy(WALPosition.isHex) }),
            let high = UInt64(parts[0], radix: 16), let low = UInt64(parts[1], radix: 16)
        else { return nil }
        bytes = high << 32 | low
    }

    private static func isHex(_ byte: UInt8) -> Bool { byte &- 48 < 10 || (byte | 32) &- 97 < 6 }

    public static func < (a: Self, b: Self) -> Bool { a.bytes < b.bytes }

    /// The bytes from `other` up to here; 0 when `other` is further.
    public func bytes(beyond other: WALPosition) -> UInt64 { bytes.subtractingClamped(other.bytes) }

    public var description: String {
        String(bytes >> 32, radix: 16, uppercase: true) + "/" + String(bytes & 0xFFFF_FFFF, radix: 16, uppercase: true)
    }
}
