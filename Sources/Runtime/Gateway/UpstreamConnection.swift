import Basics
import EventLoops
import HTTP
import Resilience

/// The gateway's side of a connection to a replica. Belongs to one exchange at a time, or waits among its loop's idle ones.
final class UpstreamConnection: HTTPClientConnection {
    let replica: Replica
    private let gateway: GatewayLoop
    private(set) weak var owner: ProxyConnection?
    private var timer: LoopTimer?
    private var written = 0
    private var timedOut: TryFailure?
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
    func take(_ owner: ProxyConnection, isHead: Bool, connectTime: Duration, responseTime: Duration) {
        self.owner = owner
        isKept = false
        written = 0
        timedOut = nil
        begin(isHead: isHead)
        timer?.schedule(at: loop.now + (isConnected ? responseTime : connectTime))
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

    /// The answer may take this long from now.
    func waitForAnswer(_ time: Duration) { if isConnected { timer?.schedule(at: loop.now + time) } }

    override func connectionReady() { if let owner { timer?.schedule(at: loop.now + owner.responseTime) } }

    override func responseHead(_ table: HeadTable) { owner?.upstreamHead(table) }
    override func responseBody(_ bytes: UnsafeRawBufferPointer) { owner?.upstreamBody(bytes) }

    override func responseEnd(reusable: Bool) {
        let owner = owner
        self.owner = nil
        if reusable, gateway.keep(self) { timer?.schedule(at: loop.now + UpstreamConnection.idleTime) } else { timer?.cancel() }
        owner?.upstreamEnd()
    }

    override func readFinished() {
        guard let owner else { return }
        timer?.schedule(at: loop.now + owner.responseTime)
        owner.upstreamReadFinished()
    }

    override func drained() { owner?.upstreamDrained() }

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
        owner.upstreamFailed(kind, detail)
    }
}
