import Basics
import EventLoops
import HTTP
import HTTP2

/// A client's connection of HTTP/2: the socket, the session that knows frames, and the time. Each of its streams is an exchange.
///
/// What is to be sent leaves at the end of a turn of the loop, for all streams at once, and only while the socket takes it: what has been
/// handed over can be neither reordered nor cancelled.
///
/// States: serving; `isEnding` (no further streams, those that are open finish); `isLeaving` (what waits is sent, then the connection ends).
final class HTTP2Connection: Stream, HTTP2SessionOwner {
    let gateway: GatewayLoop
    let peer: SocketAddress
    /// Whether the client is a trusted proxy.
    let comesFromTrusted: Bool
    /// The address under which the connection was counted.
    var counted: IPAddress?
    /// The certificate that the client has shown.
    let certificate: PeerCertificate?
    private var made: HTTP2Session?
    private var timer: LoopTimer?
    private var isProducing = false
    private var isReceiving = false
    private var hasServed = false
    private(set) var isEnding = false
    private(set) var isLeaving = false
    /// When a second GOAWAY names the last stream, unless the client has answered the PING before.
    private var refuseMoreBy: MonotonicTime?
    /// When a connection without streams ends; when one that leaves is cut.
    private var idleBy: MonotonicTime
    private var leaveBy: MonotonicTime?
    /// When bytes last left while some waited, and how many had left then.
    private var leftAt = MonotonicTime(nanoseconds: 0)
    private var leftThen = 0

    /// Bytes that are handed to the socket before it has taken them.
    private static let most = 65_536
    /// How often a connection with streams looks at their time limits.
    private static let tick = Duration.seconds(1)
    /// How long a client may still begin streams after it was asked not to: it may not have read that yet.
    private static let noticeTime = Duration.seconds(1)
    private static let lingerTime = Duration.seconds(2)

    init(gateway: GatewayLoop, peer: SocketAddress, comesFromTrusted: Bool, counted: IPAddress?, certificate: PeerCertificate? = nil) {
        self.certificate = certificate
        self.gateway = gateway
        self.peer = peer
        self.comesFromTrusted = comesFromTrusted
        self.counted = counted
        idleBy = gateway.loop.now + gateway.context.limits.headTime
        super.init(loop: gateway.loop)
    }

    var session: HTTP2Session? { made }
    var table: HeadTable { gateway.context.table }
    private var limits: HTTPLimits { gateway.context.limits }
    private var streams: Int { made?.streams.count ?? 0 }

    /// Begins, once the socket is this connection's. `bytes` came already.
    func begin(_ bytes: UnsafeRawBufferPointer) {
        made = HTTP2Session(.server, gateway.http2.settings, owner: self)
        if gateway.http2.add(self) { return close() }
        timer = LoopTimer(loop: loop) { [unowned self] in timePassed() }
        timer?.schedule(at: idleBy)
        awaitTurnEnd()
        if gateway.context.isDraining { end() }
        if bytes.count > 0 { received(bytes) }
    }

    // MARK: bytes

    override func received(_ bytes: UnsafeRawBufferPointer) {
        guard let made, !isLeaving else { return }
        isReceiving = true
        let goesOn = made.receive(bytes, now: loop.now)
        isReceiving = false
        if !goesOn { leave() }
    }

    func hasOutput() { awaitTurnEnd() }
    override func turnEnds() { produce() }

    override func drained() {
        leftAt = loop.now
        produce()
    }

    private func produce() {
        guard isOpen, let made, !isProducing, !isReceiving else { return }
        isProducing = true
        let hadWaiting = waiting > 0
        while isOpen, waiting < HTTP2Connection.most {
            gateway.http2.frames.clear(keeping: 1 << 20)
            made.produce(into: &gateway.http2.frames, most: HTTP2Connection.most)
            if gateway.http2.frames.isEmpty { break }
            write(gateway.http2.frames.bytes)
        }
        isProducing = false
        guard isOpen else { return }
        if waiting > 0, !hadWaiting {
            leftAt = loop.now
            leftThen = leftLater
        }
        if made.isOver || isEnding && made.isLeaving && streams == 0 { leave() }
        if isLeaving, waiting == 0 { farewell() }
    }

    // MARK: streams

    func streamBegan() -> HTTP2Stream {
        if streams == 0 { timer?.schedule(at: loop.now + HTTP2Connection.tick) }
        hasServed = true
        return ClientStream(self)
    }

    /// A stream has ended.
    func streamEnded() {
        guard streams == 0 else { return }
        idleBy = loop.now + limits.idleTime
        made?.releaseMemory()
        releaseBuffers()
        awaitTurnEnd()
    }

    func peerLeaves(last: Int32, code: UInt32) {}

    func pingAnswered() { if refuseMoreBy != nil { refuseMore() } }

    // MARK: the end

    /// Takes no further streams and ends when those that are open have. The client is told before it is held to it: streams that are on
    /// their way meanwhile are served.
    func end() {
        guard isOpen, !isEnding else { return }
        isEnding = true
        made?.announceEnd()
        let by = loop.now + HTTP2Connection.noticeTime
        refuseMoreBy = by
        timer?.schedule(at: by)
    }

    private func refuseMore() {
        refuseMoreBy = nil
        made?.refuseMore()
        awaitTurnEnd()
    }

    var isIdle: Bool { isOpen && streams == 0 && !isEnding && !isLeaving }

    /// Ends the connection after what waits has left. What the client still sends is read and dropped: closing with unread bytes would
    /// reset away what tells it why.
    private func leave() {
        guard isOpen, !isLeaving else { return }
        isLeaving = true
        if let flood = made?.flood { gateway.http2.noteFlood(flood) }
        made?.lost()
        leaveBy = loop.now + HTTP2Connection.lingerTime
        timer?.schedule(at: loop.now + HTTP2Connection.lingerTime)
        awaitTurnEnd()
    }

    private var saidFarewell = false

    private func farewell() {
        guard !saidFarewell else { return }
        saidFarewell = true
        shutdownSending()
    }

    override func receivedEnd() { close(.endOfFile) }

    override func closed(_ reason: CloseReason) {
        timer?.cancel()
        timer = nil
        made?.lost()
        gateway.http2.remove(self)
        if let counted { gateway.forget(counted) }
    }

    // MARK: time

    private func timePassed() {
        let now = loop.now
        guard isOpen, let made else { return }
        if let leaveBy, leaveBy <= now { return close(.ours) }
        if leaveBy != nil { return }
        if let by = refuseMoreBy, by <= now { refuseMore() }
        if waiting > 0 {
            if leftLater != leftThen {
                leftThen = leftLater
                leftAt = now
            } else if now - leftAt >= limits.writeTime {
                resetOnClose()
                return close(.ours)
            }
        }
        if let began = made.fieldsBegan, now - began >= limits.headTime {
            made.end(.enhanceYourCalm)
            return leave()
        }
        for case let stream as ClientStream in Array(made.streams.values) { stream.timePassed(now, limits) }
        if streams == 0, idleBy <= now {
            made.refuseMore()
            return leave()
        }
        let next = streams > 0 || made.fieldsBegan != nil || waiting > 0 ? now + HTTP2Connection.tick : idleBy
        timer?.schedule(at: min(next, refuseMoreBy ?? next))
    }
}
