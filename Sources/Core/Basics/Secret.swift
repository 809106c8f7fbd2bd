/// A text that only its receiver may see: a URL with a password in it. Printing it, or a value that contains it, shows that there is
/// one and not what it says; `reveal` gives the text itself.
public struct Secret: Sendable, Equatable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    /// The text itself, for the environment of a process or for a connection. Never for a log, an argument or a message.
    public let reveal: String

    /// A secret of this text.
    public init(_ text: String) { reveal = text }

    public var description: String { "(secret)" }
    public var debugDescription: String { description }
    public var customMirror: Mirror { Mirror(self, children: [(label: String?, value: Any)]()) }
}
