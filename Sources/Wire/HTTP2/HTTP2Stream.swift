import Basics
import CNGHTTP2
import HTTP

/// One request and its answer on a connection of HTTP/2. Subclasses are told what comes and say what is sent.
///
/// What is to be sent waits in `pending` until the session asks for it, in the order that the streams' priorities and the peer's windows
/// allow. It is not bounded here: whoever produces watches `waiting` and stops.
///
/// The peer may send as much as its window allows, and gets no more until `credit` returns it: so what was received and has not gone on is
/// bounded by the window, whatever its receiver does.
open class HTTP2Stream {
    public internal(set) var id: Int32 = 0
    /// The session of an open stream; nil once the stream has ended, which also ends the cycle between the two.
    public internal(set) final var session: HTTP2Session?
    /// Whether the stream is open on either side.
    public internal(set) final var isOpen = true
    /// Whether the peer has sent all of its message.
    public internal(set) final var peerHasEnded = false
    /// Whether the message under way has begun to be sent.
    public internal(set) final var hasSentHead = false
    final var pending = ByteBuffer()
    final var hasEnded = false
    /// Fields to be sent after the body.
    final var trailers: OutgoingFields?
    /// Whether the head of the peer's message has been told.
    final var hasHead = false
    final var isDeferred = false
    /// Whether we have reset the stream, and the library has not yet sent it.
    final var wasReset = false
    public final var isReset: Bool { wasReset }
    /// Whether the request is an extended CONNECT (RFC 8441): its body is a tunnel's bytes.
    public internal(set) final var isConnect = false
    /// Whether the peer has used up most of what it may send on this stream, or on its connection.
    public final var isCreditLow: Bool { session?.isCreditLow(self) ?? true }
    /// Bytes received for which no credit was given.
    final var uncredited = 0
    /// Whether a byte was sent since the peer last widened the stream's window.
    final var sentSinceUpdate = false
    /// Whether the stream has been told of bytes since the last read ended.
    final var isTouched = false
    /// How many bytes of the body have left, ever.
    public internal(set) final var left = 0

    public init() {}

    // MARK: what subclasses are told

    /// The head of a message has come. `table` is valid until this returns. `ends`: nothing follows it.
    open func headCame(_ table: HeadTable, ends: Bool) {}
    /// An interim answer has come, on a stream of our own.
    open func interimCame(_ table: HeadTable) {}
    open func bodyCame(_ bytes: UnsafeRawBufferPointer) {}
    /// Fields after the body have come. `ended` follows.
    open func trailersCame(_ table: HeadTable) {}
    /// The peer's message is whole.
    open func ended() {}
    /// Everything that one read brought has been told.
    open func readFinished() {}
    /// The peer's message is no message: the stream is reset, `closed` follows.
    open func refused(_ fault: FieldFault) {}
    /// The peer's head is well-formed, and is answered with this instead of being taken.
    open func mustAnswer(_ failure: HTTPFailure, ends: Bool) {}
    /// Much of what waited has left; `waiting` tells what is left.
    open func drained() {}
    /// The stream is over, by its end or by a reset (`code` is not 0 then); nothing more is told or sent.
    open func closed(_ code: UInt32) {}

    // MARK: sending

    /// Bytes of the body that wait to be sent.
    public final var waiting: Int { pending.count }

    /// Adds to the body. `send` lets it go.
    public final func append(_ bytes: UnsafeRawBufferPointer) { if isOpen, !hasEnded { pending.append(bytes) } }

    /// Lets go what was appended.
    public final func send() { session?.resume(self) }

    /// The body is whole.
    public final func end() {
        guard isOpen, !hasEnded else { return }
        hasEnded = true
        session?.resume(self)
    }

    /// The body is whole, and these fields follow it.
    public final func end(trailers: consuming OutgoingFields) {
        guard isOpen, !hasEnded else { return }
        if !trailers.isEmpty { self.trailers = .some(trailers) }
        end()
    }

    /// Ends the stream at once, in both directions. What waited is dropped.
    public final func reset(_ code: HTTP2Code) {
        guard isOpen, !wasReset, let session else { return }
        pending.clear(keeping: 0)
        hasEnded = true
        wasReset = true
        session.reset(self, code)
    }

    // MARK: receiving

    /// Returns credit to the peer: all that has come but `waiting`, which has not gone on yet.
    public final func credit(allBut waiting: Int) {
        let count = uncredited - max(0, waiting)
        guard count > 0 else { return }
        uncredited -= count
        session?.consume(self, count)
    }
}

/// The error codes of RFC 9113, section 7.
public enum HTTP2Code: UInt32, Sendable {
    case noError = 0
    case protocolError = 1
    case internalError = 2
    case flowControl = 3
    case settingsTimeout = 4
    case streamClosed = 5
    case frameSize = 6
    case refusedStream = 7
    case cancel = 8
    case compression = 9
    case connect = 10
    case enhanceYourCalm = 11
    case inadequateSecurity = 12
    case http11Required = 13
}
