import Basics
import EventLoops
import HTTP
import Resilience
import Topology

/// The gateway's side of a connection to a replica. Belongs to one exchange at a time, or waits among its loop's idle ones.
final class UpstreamConnection: HTTPClientConnection {
    let replica: Replica
    private let gateway: GatewayLoop
    private(set) var owner: Exchange?
    private var timer: LoopTimer?
    private var written = 0
    private var timedOut: TryFailure?
    /// It has told the replica of one client.
    private var isPrivate = false
    /// Among the idle ones.
    var isKept = false

    /// A kept connection is closed after this: sooner than any backend closes its own (nginx 75 s, Node.js 5 s is the exception
    /// that idempotent retries cover).
    static let idleTime = Duration.seconds(30)

    init(replica: Replica, gateway: GatewayLoop) {
        self.replica = replica
        self.gateway = gateway
        super.init(loop: gateway.loop, table: gateway.upstreamTable, limits: gateway.upstreamLimits)
        timer = LoopTimer(loop: gateway.loop) { [unowned self] in timePassed() }
    }

    /// Begins an exchange. What is written before the connection stands waits in the stream.
    func take(_ owner: Exchange, isHead: Bool, mayUpgrade: Bool, connectTime: Duration) {
        self.owner = owner
        isKept = false
        written = 0
        timedOut = nil
        begin(isHead: isHead, mayUpgrade: mayUpgrade)
        if isConnected { timer?.cancel() } else { timer?.schedule(at: loop.now + connectTime) }
    }

    /// Tells the replica whose connection this is; from then on it serves nobody else.
    func introduce(_ version: RouteSpec.ProxyHeader, client: SocketAddress) {
        isPrivate = true
        var header = ByteBuffer()
        ProxyHeader.render(version == .v1 ? .one : .two, source: client, into: &header)
        write(header.bytes)
    }

    /// The exchange no longer wants this connection: what is under way on it is worthless.
    func abandon() {
        owner = nil
        close()
    }

    func send(_ bytes: UnsafeRawBufferPointer) {
        written += bytes.count
        write(bytes)
    }

    /// The replica's time runs only while it is its turn: when it has the whole request and we read its answer. A slow client must not be
    /// taken for a slow replica.
    func watchAnswer() {
        guard isConnected, let owner else { return }
        if owner.phase == .tunnel { return }
        if owner.requestIsComplete, !isPaused { timer?.schedule(at: loop.now + owner.responseTime) } else { timer?.cancel() }
    }

    override func connectionReady() { watchAnswer() }

    override func responseHead(_ table: HeadTable) {
        owner?.upstreamHead(self, table)
        if table.status == 101 { timer?.cancel() }
    }
    override func tunnelReceived(_ bytes: UnsafeRawBufferPointer) { owner?.upstreamTunnelReceived(bytes) }
    override func tunnelEnded() { owner?.upstreamTunnelEnded() }
    override func responseBody(_ bytes: UnsafeRawBufferPointer) { owner?.upstreamBody(bytes) }

    override func responseEnd(reusable: Bool) {
        let owner = owner
        self.owner = nil
        // An answer that came before the whole request was sent: what is missing would be read as the next request.
        let isWhole = owner?.requestIsComplete == true && waiting == 0 && canSend && !isPrivate
        if !isWhole { close() }
        if reusable, isWhole, gateway.keep(self) { timer?.schedule(at: loop.now + UpstreamConnection.idleTime) } else { timer?.cancel() }
        owner?.upstreamEnd()
    }

    override func readFinished() {
        guard let owner else { return }
        owner.upstreamReadFinished()
        watchAnswer()
    }

    override func drained() {
        owner?.upstreamDrained()
        watchAnswer()
    }

    private func timePassed() {
        if owner != nil { timedOut = isConnected ? .responseTimeout : .connectTimeout }
        close()
    }

    override func connectionClosed(_ failure: Failure?) {
        timer?.cancel()
        timer = nil
        if isKept { gateway.forget(self) }
        guard let owner else { return }
        self.owner = nil
        let kind: TryFailure
        var detail = "timed out"
        if let timedOut {
            kind = timedOut
        } else {
            detail = failure?.description ?? "closed"
            switch failure {
            case .notConnected: kind = .notSent
            case .lost(_, responseBegun: false): kind = unsentAtClose == written && written > 0 ? .notSent : .noResponse
            default: kind = .brokenResponse
            }
        }
        owner.upstreamFailed(self, kind, detail)
    }
}
