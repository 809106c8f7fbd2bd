import HTTP

/// What an end of a connection announces, and keeps to. `docs/guides/gateway-reference.md` tells the figures.
public struct HTTP2Settings: Sendable {
    /// Streams that a client may have open at once; beyond it a stream is refused (REFUSED_STREAM) and may be asked again.
    public var concurrentStreams = 128
    /// How much of a body may come before any of it has gone on.
    public var streamWindow = 256 << 10
    /// The same for all streams of the connection.
    public var connectionWindow = 1 << 20
    /// The largest list of fields, in bytes, with 32 for each field; and the most fields.
    public var fieldBytes = HTTPLimits().head
    public var fieldCount = HTTPLimits().fields

    public init() {}
}
