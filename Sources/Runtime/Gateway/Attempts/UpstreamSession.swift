import Basics
import EventLoops
import HTTP
import HTTP2

/// A connection of HTTP/2 to a replica, with places for many requests. The least of what the replica allows and `mostStreams` of them are
/// used; beyond it, another connection is made.
final class UpstreamSession: Stream, HTTP2SessionOwner {
    let replica: Replica
    let gateway: GatewayLoop
    private(set) var session: HTTP2Session?
    private(set) var everConnected = false
    /// Why the connection has ended; nil: it has not.
    private(set) var lostFor: CloseReason?
    private var timer: LoopTimer?
    private var isReceiving = false
    private var isProducing = false

    static let mostStreams = 100
    private static let most = 65_536
    /// What may come for all streams together: of answers that clients read slowly so much waits here.
    private static let window = 8 << 20

    init(replica: Replica, gateway: GatewayLoop) {
        self.replica = replica
        self.gateway = gateway
        super.init(loop: gateway.loop)
        var settings = HTTP2Settings()
        settings.connectionWindow = UpstreamSession.window
        settings.fieldBytes = gateway.upstreamLimits.head
        settings.fieldCount = gateway.upstreamLimits.fields
        session = HTTP2Session(.client, settings, owner: self)
        timer = LoopTimer(loop: loop) { [unowned self] in close(.ours) }
    }

    var table: HeadTable { gateway.upstreamTable }

    /// Whether one more request may be sent on this connection.
    var hasPlace: Bool {
        guard lostFor == nil, let session, !session.isLeaving else { return false }
        return session.streams.count < min(UpstreamSession.mostStreams, session.peerStreams)
    }

    var isIdle: Bool { session?.streams.isEmpty ?? true }

    func streamBegan() -> HTTP2Stream { HTTP2Stream() }
    func hasOutput() { if isConnected { awaitTurnEnd() } }
    func peerLeaves(last: Int32, code: UInt32) { gateway.sessions.forget(self) }
    func pingAnswered() {}
    func touched(_ stream: UpstreamStream) { session?.tellReadFinished(stream) }

    // MARK: bytes

    override func connected() {
        everConnected = true
        for case let stream as UpstreamStream in Array(session?.streams.values ?? [:].values) { stream.connectionStands() }
        awaitTurnEnd()
    }

    override func received(_ bytes: UnsafeRawBufferPointer) {
        guard let session else { return }
        isReceiving = true
        let goesOn = session.receive(bytes, now: loop.now)
        isReceiving = false
        if !goesOn, isOpen {
            produce()
            close(.ours)
        }
    }

    override func turnEnds() { produce() }
    override func drained() { produce() }

    private func produce() {
        guard isOpen, let session, !isProducing, !isReceiving else { return }
        isProducing = true
        while isOpen, waiting < UpstreamSession.most {
            gateway.http2.frames.clear(keeping: 1 << 20)
            session.produce(into: &gateway.http2.frames, most: UpstreamSession.most)
            if gateway.http2.frames.isEmpty { break }
            write(gateway.http2.frames.bytes)
        }
        isProducing = false
        if isOpen, session.isLeaving, session.streams.isEmpty { close(.ours) }
    }

    // MARK: the end

    func streamEnded() {
        guard lostFor == nil, isIdle else {
            timer?.cancel()
            return
        }
        timer?.schedule(at: loop.now + UpstreamConnection.idleTime)
        awaitTurnEnd()
    }

    /// A question begins.
    func placeTaken() { timer?.cancel() }

    /// The connection did not come about in the time of one of its requests; the others fail with it.
    func giveUpConnecting() { if !isConnected { close(.ours) } }

    override func closed(_ reason: CloseReason) {
        timer?.cancel()
        lostFor = reason
        gateway.sessions.forget(self)
        session?.lost()
        session = nil
    }
}

/// The connections of HTTP/2 to replicas, on one loop.
final class UpstreamSessions {
    private unowned let gateway: GatewayLoop
    private var byReplica: [ObjectIdentifier: [UpstreamSession]] = [:]

    init(_ gateway: GatewayLoop) { self.gateway = gateway }

    /// A place on a connection to a replica: the one with the fewest requests that has room, or a new one.
    func place(at replica: Replica) -> UpstreamStream {
        let known = byReplica[ObjectIdentifier(replica)] ?? []
        if let free = known.first(where: \.hasPlace) {
            free.placeTaken()
            return UpstreamStream(free)
        }
        let session = UpstreamSession(replica: replica, gateway: gateway)
        byReplica[ObjectIdentifier(replica), default: []].append(session)
        session.connect(to: replica.endpoint)
        return UpstreamStream(session)
    }

    /// Gives a connection no further requests.
    func forget(_ session: UpstreamSession) {
        let id = ObjectIdentifier(session.replica)
        guard var left = byReplica[id] else { return }
        left.removeAll { $0 === session }
        byReplica[id] = left.isEmpty ? nil : left
    }

    /// Closes the connections without requests to all replicas that are not in `wanted`.
    func closeIdle(but wanted: Set<ObjectIdentifier> = []) {
        for (id, sessions) in byReplica where !wanted.contains(id) { for session in sessions where session.isIdle { session.close() } }
    }
}
