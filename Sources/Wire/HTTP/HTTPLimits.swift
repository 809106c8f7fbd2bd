/// How much of a message is read before it is refused. The defaults are those people know from nginx and
/// Node.js (8 KiB lines, 32 KiB heads, 100 fields, 60 s); each is a `let` so that no connection sees it change.
public struct HTTPLimits: Sendable {
    /// The request line with its CRLF, in bytes; beyond: 414.
    public var requestLine = 8192
    /// All header fields together, in bytes; beyond: 431.
    public var head = 32768
    /// Beyond: 431.
    public var fields = 100
    /// The decoded body, in bytes; beyond: 413.
    public var body = 10 << 20
    /// From the first byte of a head (or from accepting) to its end; beyond: 408.
    public var headTime = Duration.seconds(10)
    /// From the end of the head to the end of the body; beyond: 408.
    public var bodyTime = Duration.seconds(60)
    /// Between two requests; beyond: the connection is closed without a word.
    public var idleTime = Duration.seconds(75)

    public init() {}
}
