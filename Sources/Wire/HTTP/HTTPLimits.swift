/// How much of a message is read before it is refused. The defaults are those people know from nginx and
/// Node.js (8 KiB lines, 32 KiB heads, 100 fields, 60 s).
public struct HTTPLimits: Sendable {
    /// The request line with its CRLF, in bytes; beyond: 414.
    public var requestLine = 8192
    /// All header fields together, in bytes, at most `headCeiling`; beyond: 431.
    public var head = 32768
    /// The most that `head` and `requestLine` may be: places in a head are told in 32 bits, and a head is kept in memory whole.
    public static let headCeiling = 16 << 20
    /// Interim responses (1xx) before one answer; together they may have as many bytes as a head. Beyond: the answer is malformed.
    public var interims = 256
    /// Number of header fields; beyond: 431.
    public var fields = 100
    /// The decoded body, in bytes; beyond: 413.
    public var body = 10 << 20
    /// Time from the first byte of a head (or from accepting) to its end; beyond: 408.
    public var headTime = Duration.seconds(10)
    /// Time from the end of the head to the end of the body; beyond: 408.
    public var bodyTime = Duration.seconds(60)
    /// Time between two requests; beyond: the connection is closed without a word.
    public var idleTime = Duration.seconds(75)
    /// Time in which some of what waits for the peer has to leave (nginx's `send_timeout`); beyond: the connection is cut.
    public var writeTime = Duration.seconds(60)

    public init() {}
}
