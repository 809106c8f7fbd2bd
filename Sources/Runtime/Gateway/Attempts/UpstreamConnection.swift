import Basics
import EventLoops
import HTTP
import Resilience
import StackModel

/// The gateway's side of a connection to a replica. Belongs to one exchange at a time, or waits among its loop's idle ones.
final class UpstreamConnection: HTTPClientConnection {
    let replica: Replica
    private let gateway: GatewayLoop
    private(set) var owner: Exchange?
    private var timer: LoopTimer?
    private var written = 0
    private var timedOut: TryFailure?
    /// Whether the replica was told of one client: then the connection serves nobody else.
    private var isPrivate = false
    /// What its loop remembers of the replica; set when the connection first serves a request.
    var kept: ReplicaConnections.Kept?
    /// Whether it waits among its loop's idle connections.
    var isKept = false
    /// Whether it serves a request, as `ReplicaConnections` counts it.
    var isLent = false
    /// When the replica's turn began: to take the connection, to read what waits for it, or to answer. nil: it is the client's turn, or
    /// nobody's.
    private(set) var turnBegan: MonotonicTime?
    /// Time by which the replica must have moved in its turn, and how much of the request it had taken when that time was set.
    private var due: MonotonicTime?
    private var takenAtDue = 0
    /// Whether the head of the answer has come; interim responses do not count.
    private var hasHead = false
    /// Whether this read brought something of the answer itself, as opposed to interim responses, chunk framing and parts of a head.
    private var moved = false
    /// Whether the replica ended its side while we did not read, because the client did not.
    private var hungUpWhilePaused = false
    /// When we stopped reading, because the client does not read; nil while we read.
    private var pausedAt: MonotonicTime?
    /// How much of the answer has come since the client last held up the replica for longer than `patience`; nil when the client never did.
    private var cameSinceHeldUp: Int?

    /// A replica that cannot send for a shorter time than this does not give up because of that. The figure is ours, far below any server's
    /// time limit for sending.
    private static let patience = Duration.milliseconds(50)
    /// What the kernels of both sides may still hold of an answer whose sender has given up: the largest buffers that Linux gives by itself
    /// are 4 MiB to send and 6 MiB to receive (`tcp_wmem`, `tcp_rmem`).
    private static let mostUnderWay = 16 << 20

    /// Idle time after which a kept connection is closed: sooner than any backend closes its own (nginx 75 s; Node.js, with 5 s, is the
    /// exception that idempotent retries cover).
    static let idleTime = Duration.seconds(30)

    init(replica: Replica, gateway: GatewayLoop) {
        self.replica = replica
        self.gateway = gateway
        super.init(loop: gateway.loop, table: gateway.upstreamTable, limits: gateway.upstreamLimits)
        timer = LoopTimer(loop: gateway.loop) { [unowned self] in timePassed() }
    }

    /// Begins an exchange on this connection. Bytes written before it is connected wait in the stream.
    func take(_ owner: Exchange, isHead: Bool, mayUpgrade: Bool, connectTime: Duration) {
        self.owner = owner
        isKept = false
        written = 0
        timedOut = nil
        turnBegan = loop.now
        due = nil
        hasHead = false
        moved = false
        hungUpWhilePaused = false
        pausedAt = nil
        cameSinceHeldUp = nil
        begin(isHead: isHead, mayUpgrade: mayUpgrade)
        if isConnected {
            timer?.cancel()
        } else {
            connectBy = loop.now + connectTime
            timer?.schedule(at: loop.now + connectTime)
        }
    }

    /// Tells the replica, by a PROXY header, which client the connection is for; from then on it serves nobody else.
    func introduce(_ version: RouteSpec.ProxyHeader, client: SocketAddress) {
        isPrivate = true
        var header = ByteBuffer()
        ProxyHeader.render(version == .v1 ? .one : .two, source: client, into: &header)
        // Before TLS, as whoever reads it expects.
        if tls == nil { write(header.bytes) } else { writeBeforeTLS(header.bytes) }
    }

    /// Closes the connection, which its exchange no longer wants: what is under way on it is worthless.
    func abandon() {
        owner = nil
        close()
    }

    func send(_ bytes: UnsafeRawBufferPointer) {
        if waiting == 0 { due = nil }
        written += bytes.count
        write(bytes)
    }

    /// Measures the replica's time, which runs only while it is the replica's turn: when bytes wait to be read by it, or when it has the
    /// whole request and we read its answer. So a slow client is not taken for a slow replica. Within its turn the replica has
    /// `timeout.response` to take some more of the request, then as long again for the head of its answer (which neither interim responses
    /// nor parts of a head renew), and then between two parts of the answer's body.
    func watchAnswer() {
        guard isConnected, let owner else { return }
        if owner.attempts.state == .tunnel { return }
        guard !isPaused, owner.request.isWhole || waiting > 0 else {
            turnBegan = nil
            due = nil
            timer?.cancel()
            return
        }
        if turnBegan == nil { turnBegan = loop.now }
        if due == nil || moved {
            due = loop.now + owner.responseTime
            takenAtDue = written - waiting
            moved = false
        }
        if let due { timer?.schedule(at: due) }
    }

    override func connectionReady() { watchAnswer() }

    override func interimResponse(_ table: HeadTable) { owner?.upstreamInterim(.http1(self), table) }

    override func responseHead(_ table: HeadTable) {
        hasHead = true
        moved = true
        owner?.upstreamHead(.http1(self), table)
        if table.status == 101 { timer?.cancel() }
    }
    override func tunnelReceived(_ bytes: UnsafeRawBufferPointer) { owner?.upstreamTunnelReceived(bytes) }
    override func tunnelEnded() { owner?.upstreamTunnelEnded() }
    override func responseBody(_ bytes: UnsafeRawBufferPointer) {
        moved = true
        if cameSinceHeldUp != nil { cameSinceHeldUp! &+= bytes.count }
        owner?.upstreamBody(bytes)
    }

    override func responseTrailers(_ table: HeadTable) { owner?.upstreamTrailers(table) }

    override func responseEnd(reusable: Bool) {
        let owner = owner
        self.owner = nil
        // An answer that came before the whole request was sent: what is missing would be read as the next request.
        let isWhole = owner?.request.isWhole == true && waiting == 0 && canSend && !isPrivate
        if !isWhole { close() }
        if reusable, isWhole, gateway.keep(self) { timer?.schedule(at: loop.now + UpstreamConnection.idleTime) } else { timer?.cancel() }
        owner?.upstreamEnd()
    }

    override func readFinished() {
        guard let owner else { return }
        owner.upstreamReadFinished()
        watchAnswer()
    }

    override func hungUp() { hungUpWhilePaused = true }

    /// Reads no more until the client has taken what waits for it.
    func pauseForClient() {
        if pausedAt == nil { pausedAt = loop.now }
        pauseReading()
    }

    /// Goes on reading after a pause, and begins the replica's time anew: it was the client that did not read.
    func resumeForClient() {
        if let pausedAt, loop.now - pausedAt >= UpstreamConnection.patience { cameSinceHeldUp = 0 }
        pausedAt = nil
        resumeReading()
        due = nil
        watchAnswer()
    }

    override func drained() {
        // It has read all that waited: from now on it has its time for the answer.
        due = nil
        owner?.upstreamDrained()
        watchAnswer()
    }

    private func timePassed() {
        if isConnected, owner != nil, waiting > 0, written - waiting > takenAtDue {
            due = nil
            return watchAnswer()
        }
        if owner != nil { timedOut = isConnected ? .responseTimeout : .connectTimeout }
        close()
    }

    /// Decides whose fault it is that the connection has ended with a request on it.
    private func fault(_ failure: Failure?, of owner: Exchange) -> Exchange.Fault {
        if isUnresolved { return .nobody }
        if timedOut != nil { return .replica }
        guard let failure else { return .replica }
        if failure.isOwnWant { return .gateway }
        guard case .lost = failure else { return .replica }
        // A replica that gives up waiting for a client, to send or to read, does what it should. Its end may stand in the kernel's buffers
        // behind megabytes that it had sent before, and is seen when the client has read them.
        if hasHead {
            return hungUpWhilePaused || cameSinceHeldUp.map { $0 <= UpstreamConnection.mostUnderWay } == true ? .client : .replica
        }
        return owner.request.isWhole || unsentAtClose > 0 ? .replica : .client
    }

    override func connectionClosed(_ failure: Failure?) {
        timer?.cancel()
        timer = nil
        if isKept { gateway.connections.forget(self) }
        gateway.connections.returned(self)
        guard let owner else { return }
        self.owner = nil
        let kind: TryFailure
        var detail = isUnresolved ? "the name was not resolved in time" : "timed out"
        if let timedOut {
            kind = timedOut
        } else {
            detail = failure?.description ?? "closed"
            switch failure {
            case .notConnected(.tls): kind = .tlsFailed
            case .notConnected(let reason): kind = reason.isOwnWant ? .shortage : .notSent
            case .lost(_, responseBegun: false): kind = unsentAtClose == written && written > 0 ? .notSent : .noResponse
            default: kind = .brokenResponse
            }
        }
        owner.upstreamFailed(.http1(self), kind, detail, fault(failure, of: owner))
    }
}
