/// Bounds of one connection. Each has an error of its own when it is reached, which says so.
public struct PostgresLimits: Sendable {
    /// Most bytes of one message with a row or with COPY's data. A larger one ends the connection: it could only be skipped by reading it.
    public var messageBytes = 64 << 20
    /// Most bytes of any other message: descriptions, errors, notifications. A larger one ends the connection.
    public var controlBytes = 4 << 20
    /// Most bytes of rows that one statement's answer keeps in memory. Beyond it the rows are dropped, the statement fails (`tooLarge`), the
    /// rest of its rows is read and dropped, and the connection stays usable.
    public var rowBytes = 64 << 20
    /// Most bytes of such a rest: beyond it the connection is closed.
    public var discardBytes = 256 << 20
    /// Most columns of an answer. PostgreSQL's own limit is 1,664. More end the connection.
    public var columns = 1664
    /// Most statements that wait to be sent, and most that are under way. One more fails at once (`overloaded`, not sent).
    public var waiting = 1024
    public var underWay = 128
    /// Prepared statements that the connection keeps; the one that was used the longest time ago goes first.
    public var preparedStatements = 100
    /// Time limit of a statement that names none; nil: none. For COPY it is the longest time without any progress.
    public var statementTime: Duration? = .seconds(60)
    /// After a cancellation was asked for: how long the server has to answer it. Then the connection is closed.
    public var cancelTime = Duration.seconds(5)

    public init() {}

    /// Notices that are kept of one statement; further ones are dropped.
    static let notices = 32
    /// Most bytes of one message before the login is through.
    static let loginBytes = 65_536
}
