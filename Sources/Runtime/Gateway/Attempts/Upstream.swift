import Basics
import EventLoops
import HTTP
import Resilience
import StackModel

/// A replica's side of one question: a place on a connection to the replica. A connection of HTTP/1 has one place, one of HTTP/2 has many.
///
/// One case for each protocol, for the reason that `ClientSide` gives.
enum Upstream {
    case http1(UpstreamConnection)
    case http2(UpstreamStream)

    /// Bytes of the request that have not left yet.
    var waiting: Int {
        switch self {
        case .http1(let connection): connection.waiting
        case .http2(let stream): stream.waiting
        }
    }
    /// Whether the answer is not read, because the client does not read it.
    var isPaused: Bool {
        switch self {
        case .http1(let connection): connection.isPaused
        case .http2(let stream): stream.isPaused
        }
    }
    /// When the replica's turn began; nil: it is the client's turn, or nobody's.
    var turnBegan: MonotonicTime? {
        switch self {
        case .http1(let connection): connection.turnBegan
        case .http2(let stream): stream.turnBegan
        }
    }

    /// Begins a question.
    func take(_ owner: Exchange, isHead: Bool, mayUpgrade: Bool, connectTime: Duration) {
        switch self {
        case .http1(let connection): connection.take(owner, isHead: isHead, mayUpgrade: mayUpgrade, connectTime: connectTime)
        case .http2(let stream): stream.take(owner, connectTime: connectTime)
        }
    }

    func introduce(_ version: RouteSpec.ProxyHeader, client: SocketAddress) {
        switch self {
        case .http1(let connection): connection.introduce(version, client: client)
        // The stack file allows no PROXY header beside HTTP/2: a connection has many clients.
        case .http2: break
        }
    }

    /// Sends a part of the request. The first part has all of its head.
    func send(_ bytes: UnsafeRawBufferPointer) {
        switch self {
        case .http1(let connection): connection.send(bytes)
        case .http2(let stream): stream.send(bytes)
        }
    }

    /// All of the request has been given to `send`. Over HTTP/1 its framing says so.
    func endRequest(_ trailers: UnsafeRawBufferPointer) {
        switch self {
        case .http1: break
        case .http2(let stream): stream.endRequest(trailers)
        }
    }

    func watchAnswer() {
        switch self {
        case .http1(let connection): connection.watchAnswer()
        case .http2(let stream): stream.watchAnswer()
        }
    }

    /// Ends a question whose answer nobody wants any more.
    func abandon() {
        switch self {
        case .http1(let connection): connection.abandon()
        case .http2(let stream): stream.abandon()
        }
    }

    func pauseForClient() {
        switch self {
        case .http1(let connection): connection.pauseForClient()
        case .http2(let stream): stream.pauseForClient()
        }
    }

    func resumeForClient() {
        switch self {
        case .http1(let connection): connection.resumeForClient()
        case .http2(let stream): stream.resumeForClient()
        }
    }

    // MARK: after an upgrade, which only HTTP/1 has

    func write(_ bytes: UnsafeRawBufferPointer) { if case .http1(let connection) = self { connection.write(bytes) } }
    func pauseReading() { if case .http1(let connection) = self { connection.pauseReading() } }
    func shutdownSending() { if case .http1(let connection) = self { connection.shutdownSending() } }

    static func === (one: Upstream?, other: Upstream) -> Bool {
        switch (one, other) {
        case (.http1(let one)?, .http1(let other)): one === other
        case (.http2(let one)?, .http2(let other)): one === other
        default: false
        }
    }
}
