import EventLoops
import HTTP

/// The client's side of one exchange: where its answer goes, and where its body comes from. An exchange knows nothing else of its client.
///
/// One case for each protocol. A case more is a branch that the processor predicts; a protocol with witnesses would be an indirect call and
/// a reference counted for each piece of a body.
///
/// The order of calls: any number of `interim`; then one `respond`; after a replica's head `pass` for each part of the body, `flush` when a
/// read is over, and `endBody`; then `release`. Or `reset` at any time, which tells the client that the rest is missing.
enum ClientSide {
    /// A connection of HTTP/1, which carries one exchange at a time.
    case http1(ProxyConnection)

    /// The socket's peer, or the address in a PROXY header.
    var peer: SocketAddress {
        switch self {
        case .http1(let connection): connection.peer
        }
    }
    /// Whether what the client says of other clients is believed.
    var comesFromTrusted: Bool {
        switch self {
        case .http1(let connection): connection.comesFromTrusted
        }
    }
    /// Whether the client's connection has TLS.
    var isSecure: Bool {
        switch self {
        case .http1(let connection): connection.tls != nil
        }
    }
    /// Whether the client came through a listener that has nothing to say about its requests.
    var isOrdinary: Bool {
        switch self {
        case .http1(let connection): connection.isOrdinary
        }
    }
    /// The port of https that the client is sent to; nil: it is served here.
    var redirectPort: UInt16? {
        switch self {
        case .http1(let connection): if case .redirect(let port) = connection.kind { port } else { nil }
        }
    }
    /// Whether the client's connection may ask for this host (see `TLSSession.mayAsk`).
    func mayAsk(for host: UnsafeRawBufferPointer) -> Bool {
        switch self {
        case .http1(let connection): connection.tls?.mayAsk(for: host) ?? true
        }
    }
    var hasPublicName: Bool {
        switch self {
        case .http1(let connection): connection.tls?.hasPublicName ?? false
        }
    }
    /// Fields about the certificate that the client has shown, as whole lines.
    var certificateLines: [UInt8] {
        switch self {
        case .http1(let connection): connection.certificate?.lines ?? []
        }
    }
    var isOpen: Bool {
        switch self {
        case .http1(let connection): connection.isOpen
        }
    }
    /// Whether the client is known to send no more. It may still read.
    var peerHasEnded: Bool {
        switch self {
        case .http1(let connection): connection.peerHasEnded
        }
    }
    /// Whether the client takes interim answers: those of HTTP/1.0 would take one for the answer.
    var takesInterims: Bool {
        switch self {
        case .http1(let connection): !connection.isOld
        }
    }
    /// Whether the client waits for `100 Continue`, and none has been sent to it.
    var awaitsContinue: Bool {
        switch self {
        case .http1(let connection): connection.awaitsContinue
        }
    }
    /// Bytes that wait for the client to read them.
    var waiting: Int {
        switch self {
        case .http1(let connection): connection.waiting
        }
    }

    // MARK: the answer

    /// Passes an interim answer (1xx) on.
    func interim(_ table: HeadTable, _ edits: HeaderEdits?) {
        switch self {
        case .http1(let connection): connection.interim(table, edits)
        }
    }

    /// Passes the head of a replica's answer on. Nothing leaves before `flush`.
    func respond(_ table: HeadTable, _ additions: HeadRewriter.Additions) {
        switch self {
        case .http1(let connection): connection.respond(table, additions)
        }
    }

    /// Sends an answer of the gateway's own, whole.
    func respond(_ answer: OwnAnswer, _ additions: HeadRewriter.Additions) {
        switch self {
        case .http1(let connection): connection.respond(answer, additions)
        }
    }

    /// Passes a part of the body on. False when the answer has no body, whatever came: then nothing is passed on.
    func pass(_ bytes: UnsafeRawBufferPointer) -> Bool {
        switch self {
        case .http1(let connection): connection.pass(bytes)
        }
    }

    /// Sends what `respond` and `pass` have gathered.
    func flush() {
        switch self {
        case .http1(let connection): connection.flush()
        }
    }

    /// The body is whole: tells the client so.
    func endBody() {
        switch self {
        case .http1(let connection): connection.endBody()
        }
    }

    /// The exchange is over: the client may go on, or is closed if the end of its connection is the end of its answer.
    func release() {
        switch self {
        case .http1(let connection): connection.release()
        }
    }

    /// Takes the exchange back, which serves this client no longer.
    func giveBack(_ exchange: Exchange) {
        switch self {
        case .http1(let connection): connection.giveBack(exchange)
        }
    }

    /// Breaks the answer off: the client has a part of it, and must see that the rest is missing.
    func reset() {
        switch self {
        case .http1(let connection): connection.breakOff()
        }
    }

    /// Ends a client that has gone, or that can no longer be answered.
    func close() {
        switch self {
        case .http1(let connection): connection.close()
        }
    }

    /// Watches that a client that reads makes progress.
    func watchWriting() {
        switch self {
        case .http1(let connection): connection.watchWriting()
        }
    }

    // MARK: the request

    /// Stops and resumes reading the request's body.
    func holdBody(_ hold: Bool) {
        switch self {
        case .http1(let connection): connection.holdBody(hold)
        }
    }

    // MARK: after an upgrade

    /// From here on bytes pass both ways.
    func beginTunnel() {
        switch self {
        case .http1(let connection): connection.beginTunnel()
        }
    }
    func write(_ bytes: UnsafeRawBufferPointer) {
        switch self {
        case .http1(let connection): connection.write(bytes)
        }
    }
    /// The replica sends no more; the client may still send.
    func shutdownSending() {
        switch self {
        case .http1(let connection): connection.shutdownSending()
        }
    }
    /// Ends the client after what waits for it has left.
    func endTunnel() {
        switch self {
        case .http1(let connection): connection.responseFinished(close: true)
        }
    }
}

/// An answer of the gateway's own.
struct OwnAnswer {
    let status: Int
    /// The body's type; nil: no `Content-Type` is said.
    let type: String?
    let body: [UInt8]
    /// Whether the request was HEAD: then the body is announced and not sent.
    let toHead: Bool
}
