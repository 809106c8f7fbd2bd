/// A place in PostgreSQL's write-ahead log (an LSN): a count of bytes since the cluster was made.
public struct LogPosition: Comparable, Hashable, Sendable, CustomStringConvertible {
    public let bytes: UInt64

    public init(_ bytes: UInt64) { self.bytes = bytes }

    /// Reads PostgreSQL's own form, such as `16/B374D848`: two hexadecimal numbers of at most eight digits. Nil: it is none.
    public init?(text: some StringProtocol) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, let high = LogPosition.hex(parts[0], digits: 8), let low = LogPosition.hex(parts[1], digits: 8) else {
            return nil
        }
        bytes = high << 32 | low
    }

    /// A hexadecimal number of 1 to `digits` digits, without a sign.
    static func hex(_ text: some StringProtocol, digits: Int) -> UInt64? {
        guard (1...digits).contains(text.utf8.count), text.utf8.allSatisfy({ $0 &- 48 < 10 || ($0 | 32) &- 97 < 6 }) else { return nil }
        return UInt64(text, radix: 16)
    }

    public static func < (a: Self, b: Self) -> Bool { a.bytes < b.bytes }

    /// The bytes from `earlier` to this place; 0 when `earlier` is not before it.
    public func distance(from earlier: LogPosition) -> UInt64 { bytes > earlier.bytes ? bytes - earlier.bytes : 0 }

    public var description: String {
        String(bytes >> 32, radix: 16, uppercase: true) + "/" + String(bytes & 0xffff_ffff, radix: 16, uppercase: true)
    }
}
