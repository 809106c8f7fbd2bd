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
    /// A stream of a connection of HTTP/2, which is one exchange.
    case http2(ClientStream)
    /// A fetch of the cache's, which goes on without a client.
    case fill(CacheFill)

    /// Whether there is no client: then nothing is logged or counted as a request.
    var isFill: Bool { if case .fill = self { true } else { false } }

    /// The socket's peer, or the address in a PROXY header.
    var peer: SocketAddress {
        switch self {
        case .http1(let connection): connection.peer
        case .http2(let stream): stream.connection.peer
        case .fill: .unix("")
        }
    }
    /// Whether what the client says of other clients is believed.
    var comesFromTrusted: Bool {
        switch self {
        case .http1(let connection): connection.comesFromTrusted
        case .http2(let stream): stream.connection.comesFromTrusted
        case .fill: false
        }
    }
    /// Whether the client's connection has TLS.
    var isSecure: Bool {
        switch self {
        case .http1(let connection): connection.tls != nil
        case .http2(let stream): stream.connection.tls != nil
        case .fill: false
        }
    }
    /// Whether the client came through a listener that has nothing to say about its requests.
    var isOrdinary: Bool {
        switch self {
        case .http1(let connection): connection.isOrdinary
        // In plain it came through an ordinary listener: the others take HTTP/1 alone there.
        case .http2(let stream): stream.connection.tls == nil
        case .fill: true
        }
    }
    /// The port of https that the client is sent to; nil: it is served here.
    var redirectPort: UInt16? {
        switch self {
        case .http1(let connection): if case .redirect(let port) = connection.kind { port } else { nil }
        case .http2, .fill: nil
        }
    }
    /// Whether the client's connection may ask for this host (see `TLSSession.mayAsk`).
    func mayAsk(for host: UnsafeRawBufferPointer) -> Bool {
        switch self {
        case .http1(let connection): connection.tls?.mayAsk(for: host) ?? true
        case .http2(let stream): stream.connection.tls?.mayAsk(for: host) ?? true
        case .fill: true
        }
    }
    var hasPublicName: Bool {
        switch self {
        case .http1(let connection): connection.tls?.hasPublicName ?? false
        case .http2(let stream): stream.connection.tls?.hasPublicName ?? false
        case .fill: false
        }
    }
    /// Fields about the certificate that the client has shown, as whole lines.
    var certificateLines: [UInt8] {
        switch self {
        case .http1(let connection): connection.certificate?.lines ?? []
        case .http2(let stream): stream.connection.certificate?.lines ?? []
        // Its head has those of the client that it was made for.
        case .fill: []
        }
    }
    var isOpen: Bool {
        switch self {
        case .http1(let connection): connection.isOpen
        case .http2(let stream): stream.isAlive
        case .fill: true
        }
    }
    /// Whether the client is known to send no more. It may still read.
    var peerHasEnded: Bool {
        switch self {
        case .http1(let connection): connection.peerHasEnded
        case .http2(let stream): stream.peerHasEnded && stream.isConnect || !stream.isOpen
        case .fill: false
        }
    }
    /// Whether the client takes interim answers: those of HTTP/1.0 would take one for the answer.
    var takesInterims: Bool {
        switch self {
        case .http1(let connection): !connection.isOld
        case .http2: true
        case .fill: true
        }
    }
    /// Whether the client waits for `100 Continue`, and none has been sent to it.
    var awaitsContinue: Bool {
        switch self {
        case .http1(let connection): connection.awaitsContinue
        case .http2(let stream): stream.awaitsContinue
        case .fill: false
        }
    }
    /// Bytes that wait for the client to read them.
    var waiting: Int {
        switch self {
        case .http1(let connection): connection.waiting
        case .http2(let stream): stream.waiting
        case .fill(let fill): fill.waiting
        }
    }

    // MARK: the answer

    /// Passes an interim answer (1xx) on.
    func interim(_ table: HeadTable, _ edits: HeaderEdits?) {
        switch self {
        case .http1(let connection): connection.interim(table, edits)
        case .http2(let stream): stream.interim(table, edits)
        case .fill(let fill): fill.interim(table, edits)
        }
    }

    /// Passes the head of a replica's answer on. Nothing leaves before `flush`.
    func respond(_ table: HeadTable, _ additions: HeadRewriter.Additions) {
        switch self {
        case .http1(let connection): connection.respond(table, additions)
        case .http2(let stream): stream.respond(table, additions)
        case .fill(let fill): fill.respond(table)
        }
    }

    /// Sends an answer of the gateway's own, whole.
    func respond(_ answer: OwnAnswer, _ additions: HeadRewriter.Additions) {
        switch self {
        case .http1(let connection): connection.respond(answer, additions)
        case .http2(let stream): stream.respond(answer, additions)
        case .fill(let fill): fill.respond(answer, additions.lines)
        }
    }

    /// Passes the head of a stored answer on. Nothing leaves before `flush`; the body follows as after a replica's head.
    func respond(_ answer: StoredAnswer, _ additions: HeadRewriter.Additions) {
        switch self {
        case .http1(let connection): connection.respond(answer, additions)
        case .http2(let stream): stream.respond(answer, additions)
        case .fill: break
        }
    }

    /// Passes a part of the body on. False when the answer has no body, whatever came: then nothing is passed on.
    func pass(_ bytes: UnsafeRawBufferPointer) -> Bool {
        switch self {
        case .http1(let connection): connection.pass(bytes)
        case .http2(let stream): stream.pass(bytes)
        case .fill(let fill): fill.pass(bytes)
        }
    }

    /// Sends what `respond` and `pass` have gathered.
    func flush() {
        switch self {
        case .http1(let connection): connection.flush()
        case .http2(let stream): stream.send()
        case .fill(let fill): fill.flush()
        }
    }

    /// The body is whole: tells the client so. `trailers` are the lines of fields that follow it.
    func endBody(_ trailers: UnsafeRawBufferPointer) {
        switch self {
        case .http1(let connection): connection.endBody(trailers)
        case .http2(let stream): stream.endBody(trailers)
        case .fill(let fill): fill.endBody()
        }
    }

    /// The exchange is over: the client may go on, or is closed if the end of its connection is the end of its answer.
    func release() {
        switch self {
        case .http1(let connection): connection.release()
        case .http2: break
        case .fill(let fill): fill.release()
        }
    }

    /// Takes the exchange back, which serves this client no longer.
    func giveBack(_ exchange: Exchange) {
        switch self {
        case .http1(let connection): connection.giveBack(exchange)
        case .http2(let stream): stream.giveBack(exchange)
        case .fill(let fill): fill.giveBack(exchange)
        }
    }

    /// Breaks the answer off: the client has a part of it, and must see that the rest is missing.
    func reset() {
        switch self {
        case .http1(let connection): connection.breakOff()
        case .http2(let stream): stream.reset(.internalError)
        case .fill(let fill): fill.reset()
        }
    }

    /// Ends a client that has gone, or that can no longer be answered.
    func close() {
        switch self {
        case .http1(let connection): connection.close()
        case .http2(let stream): stream.reset(.cancel)
        case .fill: break
        }
    }

    /// Watches that a client that reads makes progress.
    func watchWriting() {
        switch self {
        case .http1(let connection): connection.watchWriting()
        case .http2: break
        case .fill(let fill): fill.watchWriting()
        }
    }

    // MARK: the request

    /// Stops and resumes reading the request's body.
    func holdBody(_ hold: Bool) {
        switch self {
        case .http1(let connection): connection.holdBody(hold)
        case .http2: break
        case .fill: break
        }
    }

    /// All of the body that has come has gone on, but `waiting` bytes: the client may send as much more. Over HTTP/1 the kernel's buffers
    /// say so.
    func bodyWentOn(allBut waiting: Int) {
        switch self {
        case .http1: break
        case .http2(let stream): stream.credit(allBut: waiting)
        case .fill: break
        }
    }

    // MARK: after an upgrade

    /// From here on bytes pass both ways.
    func beginTunnel() {
        switch self {
        case .http1(let connection): connection.beginTunnel()
        case .http2(let stream): stream.beginTunnel()
        case .fill: break
        }
    }
    func write(_ bytes: UnsafeRawBufferPointer) {
        switch self {
        case .http1(let connection): connection.write(bytes)
        case .http2(let stream):
            stream.append(bytes)
            stream.send()
        case .fill: break
        }
    }
    /// The replica sends no more; the client may still send.
    func shutdownSending() {
        switch self {
        case .http1(let connection): connection.shutdownSending()
        case .http2(let stream): stream.end()
        case .fill: break
        }
    }
    /// Ends the client after what waits for it has left.
    func endTunnel() {
        switch self {
        case .http1(let connection): connection.responseFinished(close: true)
        case .http2(let stream): stream.end()
        case .fill: break
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

/// The head of an answer that the cache has. Valid during a call.
struct StoredAnswer {
    let status: Int
    /// End-to-end fields as lines, without a length.
    let lines: UnsafeRawBufferPointer
    /// The length of the body as the client gets it (or would, if it had not asked for the head alone); nil: not known yet.
    let length: Int?
    /// Whether a body follows.
    let hasBody: Bool
}
