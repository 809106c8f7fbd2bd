import Basics
import EventLoops
import HTTP
import LoadPlanning

/// One kept connection of the load generator: a request at a time.
final class LoadConnection: HTTPClientConnection {
    /// A request on its way. Times are nanoseconds from the start of the run.
    struct Exchange {
        let request: Int
        let number: Int
        let due: Int64
        let begun: Int64
        let isRepeated: Bool
    }

    private unowned let engine: LoadEngine
    /// Whose it is; nil: of the open phases.
    private(set) weak var user: LoadUser?
    /// Also after its user has gone.
    let isUsers: Bool
    private var exchange: Exchange?
    private var status = 0
    /// Requests that were answered on it.
    private var served = 0
    private var timer: LoopTimer?

    init(engine: LoadEngine, user: LoadUser?) {
        self.engine = engine
        self.user = user
        isUsers = user != nil
        super.init(loop: engine.loop, table: engine.table, limits: engine.limits)
    }

    /// Connects first if it must; `LoadEngine.ended` or `repeats` follows exactly once.
    func send(_ exchange: Exchange, isHead: Bool, _ bytes: UnsafeRawBufferPointer) {
        self.exchange = exchange
        let isFresh = !isOpen
        if isFresh { connect(to: engine.endpoint) }
        begin(isHead: isHead)
        write(bytes)
        // A timer that goes on to a later time costs nothing until its first one.
        if timer == nil { timer = LoopTimer(loop: loop) { [weak self] in self?.timedOut() } }
        timer?.schedule(at: engine.time(exchange.begun) + engine.timeout)
    }

    /// No more is to come of it.
    func leave() {
        timer?.cancel()
        exchange = nil
        close()
    }

    override func connectionReady() { engine.report.connected() }

    override func responseHead(_ table: HeadTable) {
        status = table.status
        engine.report.received(bytes: table.bytes.count)
    }

    override func responseBody(_ bytes: UnsafeRawBufferPointer) { engine.report.received(bytes: bytes.count) }

    override func responseEnd(reusable: Bool) {
        served += 1
        finish(.status(status), keeps: reusable) { "status \(self.status)" }
    }

    private func timedOut() {
        guard exchange != nil else { return }
        let isConnected = isConnected
        finish(.failed(isConnected ? .timeout : .connect), keeps: false) {
            isConnected ? "no answer within \(self.engine.timeout.brief)" : "no connection within \(self.engine.timeout.brief)"
        }
        close()
    }

    override func connectionClosed(_ failure: Failure?) {
        engine.closed(self)
        guard let exchange, let failure else { return }
        if failure.isOwnWant { return finish(.failed(.own), keeps: false) { failure.description } }
        switch failure {
        case .notConnected: finish(.failed(.connect), keeps: false) { failure.description }
        case .malformed: finish(.failed(.malformed), keeps: false) { failure.description }
        case .lost(_, responseBegun: true): finish(.failed(.cut), keeps: false) { failure.description }
        case .lost(_, responseBegun: false):
            // The server closed a kept connection as we took it.
            if served > 0, !exchange.isRepeated, engine.mayRepeat(exchange) {
                timer?.cancel()
                self.exchange = nil
                return engine.repeats(exchange, user)
            }
            finish(.failed(.closed), keeps: false) { failure.description }
        }
    }

    private func finish(_ outcome: LoadOutcome, keeps: Bool, _ why: () -> String) {
        guard let exchange else { return }
        self.exchange = nil
        timer?.cancel()
        engine.ended(exchange, outcome, self, keeps: keeps, why)
    }
}
