import Basics

/// Where one message ends: its kind, and its length before its body.
public struct MessageFrame: Equatable, Sendable {
    /// The message's letter; 0 for the first messages of a connection, which have none.
    public let kind: UInt8
    /// The body's place in the bytes that were looked at.
    public let body: Range<Int>

    /// The first message of `bytes`; nil when it has not come whole. `limit`: most bytes of a body. A length is refused as soon as it has
    /// come, not when so many bytes have.
    public static func next(_ bytes: UnsafeRawBufferPointer, limit: Int) throws(ProtocolFailure) -> MessageFrame? {
        guard bytes.count >= 5 else { return nil }
        return try frame(bytes, kind: bytes[0], at: 1, limit)
    }

    /// The first message of a connection as a server sees it: without a letter.
    public static func opening(_ bytes: UnsafeRawBufferPointer, limit: Int) throws(ProtocolFailure) -> MessageFrame? {
        guard bytes.count >= 4 else { return nil }
        return try frame(bytes, kind: 0, at: 0, limit)
    }

    private static func frame(_ bytes: UnsafeRawBufferPointer, kind: UInt8, at: Int, _ limit: Int) throws(ProtocolFailure) -> MessageFrame?
    {
        let length = Int(Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: at, as: Int32.self)))
        guard length >= 4 else {
            throw ProtocolFailure("message \(MessageFrame.name(kind)): a length of \(length), less than its own 4 bytes")
        }
        guard length - 4 <= limit else {
            throw ProtocolFailure(
                "message \(MessageFrame.name(kind)) has \(length - 4) bytes, more than the \(limit) that are taken", isTooLarge: true)
        }
        let end = at + length
        return end <= bytes.count ? MessageFrame(kind: kind, body: (at + 4)..<end) : nil
    }

    /// How a kind is told in failures: `'D'`.
    static func name(_ kind: UInt8) -> String {
        if kind == 0 { return "at the beginning" }
        return (33...126).contains(kind) ? "'\(Character(UnicodeScalar(kind)))'" : "of kind \(kind)"
    }
}
