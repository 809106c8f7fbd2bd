import Basics
import HTTP

/// A request as it goes to a replica: its head as HTTP/1 text, and what has come of its body. As long as it is kept whole, it can be sent
/// again from the beginning.
struct OutgoingRequest: ~Copyable {
    private var text = ByteBuffer()
    private var sent = 0
    private var isChunked = false
    /// Whether no framing is written: the replica's connection has its own, and must be told of the end.
    private(set) var isPlain = false
    /// Fields that follow the body, as lines.
    private(set) var trailers = ByteBuffer()
    /// Where in the head the place for the deadline lies; 0: nowhere.
    private var deadlineAt = 0

    /// Forgets the request before. `chunked`: whether the body that comes has no declared length.
    mutating func reset(chunked: Bool) {
        text.clear(keeping: 16_384)
        trailers.clear(keeping: 0)
        sent = 0
        isChunked = chunked
        isPlain = false
        deadlineAt = 0
    }

    /// All that is kept.
    var bytes: UnsafeRawBufferPointer { text.bytes }
    var count: Int { text.count }
    var unsent: UnsafeRawBufferPointer { text.bytes.part(sent, text.count - sent) }
    var unsentCount: Int { text.count - sent }

    /// Writes the head with `body`, which says where in it the deadline's place lies.
    mutating func writeHead(_ body: (inout ByteBuffer) -> Int) { deadlineAt = body(&text) }

    mutating func append(_ bytes: UnsafeRawBufferPointer) {
        if isChunked {
            text.append(hex: bytes.count)
            text.append("\r\n")
        }
        text.append(bytes)
        if isChunked { text.append("\r\n") }
    }

    /// The request goes to a replica that has frames of its own for bodies: none is written here.
    mutating func leaveFramingOut() {
        isChunked = false
        isPlain = true
    }

    /// Takes the fields that follow a body without a declared length. A body of declared length has no place for them.
    mutating func take(trailers table: HeadTable) {
        guard isChunked || isPlain, trailers.isEmpty else { return }
        TrailerFields.write(table, into: &trailers)
    }

    /// The body has ended.
    mutating func end() {
        guard isChunked else { return }
        text.append("0\r\n")
        text.append(trailers.bytes)
        text.append("\r\n")
    }

    mutating func allSent() { sent = text.count }

    /// Begins anew, for another replica.
    mutating func rewind() { sent = 0 }

    /// Forgets what was sent: it cannot be sent again.
    mutating func forget() {
        text.clear(keeping: 131_072)
        sent = 0
    }

    /// Writes the time that is left into the head, in the place kept for it.
    mutating func write(timeLeft: Duration) {
        guard deadlineAt > 0 else { return }
        var figure = "\(max(1, timeLeft.nanoseconds / 1_000_000))ms"
        while figure.utf8.count < HeadRewriter.deadlineWidth { figure += " " }
        figure.withUTF8 { text.overwrite(at: deadlineAt, UnsafeRawBufferPointer($0)) }
    }
}
