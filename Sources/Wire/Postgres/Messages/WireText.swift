/// A text as it stands in a message: bytes in whatever encoding the session has, without the zero byte that ends them. Nothing is repaired,
/// so what is read from one side and written to the other is the same to the byte.
public struct WireText: Hashable, Sendable, ExpressibleByStringLiteral, CustomStringConvertible {
    public var bytes: [UInt8]

    public init(bytes: [UInt8]) { self.bytes = bytes }
    public init(_ text: String) { bytes = Array(text.utf8) }
    public init(stringLiteral text: String) { self.init(text) }

    /// The text, with U+FFFD for what is not UTF-8.
    public var string: String { String(decoding: bytes, as: UTF8.self) }
    public var description: String { string }
}

/// Bytes that are no message of PostgreSQL's protocol, or one that is larger than is taken.
public struct ProtocolFailure: Error, Equatable, Sendable, CustomStringConvertible {
    /// What is wrong and where, in a sentence.
    public let reason: String
    /// Whether the message was in order as far as can be told, and only larger than the bound.
    public let isTooLarge: Bool

    public init(_ reason: String, isTooLarge: Bool = false) {
        self.reason = reason
        self.isTooLarge = isTooLarge
    }

    public var description: String { reason }
}
