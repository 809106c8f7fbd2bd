import Basics
import CLinux
import EventLoops
import Glibc
import HTTP
import LoadPlanning

/// Sends what a scenario says, when it says so, and counts what comes back. Lives on its loop.
///
/// Requests of a rate are sent when they are due, on a free connection or a new one; when `Scenario.connections` are all taken they wait,
/// in their order, and their latency goes on counting. What waits takes no memory: it is the schedule, not yet read. What still waits a
/// `timeout` after the schedule's end is counted as unsent. Users are added and taken away as the phases say.
final class LoadEngine {
    let loop: EventLoop
    let endpoint: Endpoint
    let timeout: Duration
    let table = HeadTable()
    let limits = HTTPLimits()
    var report: LoadReport

    private let scenario: Scenario
    private let pieces: [LoadPiece]
    /// Of `pieces`, the one that `piece(at:)` found last.
    private var current = 0
    private let requests: [RequestBytes]
    private let total: Int64
    private let start: MonotonicTime
    private let processorStart: Int64
    private var arrivals: ArrivalSchedule
    private var next: Int64?
    /// Requests of the schedule that were sent or given up.
    private var taken = 0
    /// The schedule as far as `waiting` has read it, and how many of it were due by then.
    private var ahead: (arrivals: ArrivalSchedule, next: Int64?, due: Int)
    private var choice: RequestChoice
    private var random: SeededRandom
    /// Not from the seed: a second run must not send the ids of the first.
    private var ids = SeededRandom(seed: .random(in: 0 ... .max))
    private var scratch: [UInt8] = []
    private var number = 0
    private var idle: [LoadConnection] = []
    private var pooled = 0
    private var inFlight = 0
    private var users: [LoadUser] = []
    private var leaving = 0
    private var isStopping = false
    private var hasEnded = false
    private var arrivalTimer: LoopTimer?
    private var userTimer: LoopTimer?
    private var secondTimer: LoopTimer?
    private var endTimer: LoopTimer?
    private var secondsTold = 0
    private let onSecond: (@Sendable (LoadSecond) -> Void)?
    private var done: ((LoadReport) -> Void)?

    init(
        _ scenario: Scenario, to endpoint: Endpoint, on loop: EventLoop, onSecond: (@Sendable (LoadSecond) -> Void)?,
        done: @escaping (LoadReport) -> Void
    ) {
        self.scenario = scenario
        self.endpoint = endpoint
        self.loop = loop
        self.onSecond = onSecond
        self.done = done
        timeout = scenario.timeout
        report = LoadReport(scenario)
        pieces = scenario.phases.pieces
        var host = endpoint.description
        if case .address(.unix) = endpoint { host = "localhost" }
        requests = scenario.requests.map { RequestBytes($0, host: host) }
        total = pieces[pieces.count - 1].end
        // A stream of random numbers for each use, so that none depends on how often another is asked.
        arrivals = ArrivalSchedule(pieces, spacing: scenario.spacing, seed: scenario.seed)
        choice = RequestChoice(scenario.requests, seed: scenario.seed &+ 1)
        random = SeededRandom(seed: scenario.seed &+ 2)
        start = .now
        processorStart = LoadEngine.processorTime()
        next = arrivals.next()
        ahead = (arrivals, next, 0)
    }

    func begin() {
        arrivalTimer = LoopTimer(loop: loop) { [unowned self] in sendDue() }
        userTimer = LoopTimer(loop: loop) { [unowned self] in adjustUsers() }
        secondTimer = LoopTimer(loop: loop) { [unowned self] in secondOver() }
        endTimer = LoopTimer(loop: loop) { [unowned self] in timeIsOver() }
        secondTimer?.schedule(at: time(1_000_000_000))
        endTimer?.schedule(at: time(total))
        sendDue()
        if scenario.isClosed { adjustUsers() }
    }

    /// No more is sent; what is under way is waited for.
    func stop() {
        guard !isStopping, !hasEnded else { return }
        isStopping = true
        abandonWaiting()
        endTimer?.cancel()
        arrivalTimer?.cancel()
        userTimer?.cancel()
        setUsers(0, at: elapsed, think: 0...0)
        checkEnd()
    }

    func time(_ nanoseconds: Int64) -> MonotonicTime { start + .nanoseconds(nanoseconds) }
    private var elapsed: Int64 { MonotonicTime.now.nanoseconds - start.nanoseconds }

    // MARK: open phases

    private func sendDue() {
        if isStopping { return }
        var now = elapsed
        while let due = next {
            if due > now {
                now = elapsed
                if due > now {
                    arrivalTimer?.schedule(at: time(due))
                    return
                }
            }
            guard let connection = freeConnection() else { return }
            takeNext()
            send(on: connection, due: due)
        }
    }

    private func takeNext() {
        next = arrivals.next()
        taken += 1
    }

    private func freeConnection() -> LoadConnection? {
        // The one used last: those that a lower rate leaves over may be closed by the server.
        while let connection = idle.popLast() { if connection.isOpen { return connection } }
        guard pooled < scenario.connections else { return nil }
        pooled += 1
        return LoadConnection(engine: self, user: nil)
    }

    // MARK: requests

    func send(on connection: LoadConnection, due: Int64) {
        let exchange = LoadConnection.Exchange(request: choice.next(), number: number, due: due, begun: elapsed, isRepeated: false)
        number += 1
        inFlight += 1
        let count = write(exchange, on: connection)
        report.sent(bytes: count)
    }

    func mayRepeat(_ exchange: LoadConnection.Exchange) -> Bool { requests[exchange.request].isIdempotent }

    /// Once more, on a fresh connection; its time goes on.
    func repeats(_ exchange: LoadConnection.Exchange, _ user: LoadUser?) {
        if let user { return user.repeats(exchange) }
        pooled += 1
        send(again: exchange, on: LoadConnection(engine: self, user: nil))
    }

    func send(again exchange: LoadConnection.Exchange, on connection: LoadConnection) {
        let again = LoadConnection.Exchange(
            request: exchange.request, number: exchange.number, due: exchange.due, begun: exchange.begun, isRepeated: true)
        let count = write(again, on: connection)
        report.repeats(bytes: count)
    }

    private func write(_ exchange: LoadConnection.Exchange, on connection: LoadConnection) -> Int {
        let request = requests[exchange.request]
        return request.with(exchange.number, &ids, &scratch) { bytes in
            connection.send(exchange, isHead: request.isHead, bytes)
            return bytes.count
        }
    }

    func ended(_ exchange: LoadConnection.Exchange, _ outcome: LoadOutcome, _ connection: LoadConnection, keeps: Bool, _ why: () -> String)
    {
        inFlight -= 1
        let now = elapsed
        report.ended(exchange.request, outcome, due: exchange.due, begun: exchange.begun, at: now, why: why())
        if let user = connection.user {
            let wasLeaving = user.isLeaving
            let following = nextRequest(now, outcome)
            user.ended(next: following, atOnce: following <= now, keeps: keeps)
            if wasLeaving { leaving -= 1 }
        } else if !connection.isUsers {
            if keeps { idle.append(connection) }
            if let due = next, due <= now { sendDue() }
        }
        if isStopping || now >= total { checkEnd() }
    }

    /// A connection of the open phases is gone.
    func closed(_ connection: LoadConnection) {
        guard connection.user == nil, !connection.isUsers else { return }
        pooled -= 1
        // Whoever waits for a free one may make another; not from here, where a caller may be in the middle of the old one.
        if let due = next, !isStopping { arrivalTimer?.schedule(at: time(due)) }
    }

    // MARK: closed phases

    // How often the number of users is looked at: 10 ms make a ramp of 10,000 users a second steps of 100.
    private static let userTick: Int64 = 10_000_000
    /// A user that finds nobody there does not ask again at once.
    private static let pauseAfterRefusal: Int64 = 100_000_000

    private func nextRequest(_ now: Int64, _ outcome: LoadOutcome) -> Int64 {
        let think = piece(at: now)?.think ?? 0...0
        let pause = think.upperBound == 0 ? 0 : Int64.random(in: think, using: &random)
        return now + (outcome == .failed(.connect) || outcome == .failed(.own) ? max(pause, LoadEngine.pauseAfterRefusal) : pause)
    }

    /// nil once the schedule is over. Time only goes on, so that the place is remembered.
    private func piece(at now: Int64) -> LoadPiece? {
        while current < pieces.count, pieces[current].end <= now { current += 1 }
        return current < pieces.count ? pieces[current] : nil
    }

    private func adjustUsers() {
        if isStopping { return }
        let now = elapsed
        guard let piece = piece(at: now) else { return setUsers(0, at: now, think: 0...0) }
        let wanted = piece.unit == .users ? Int(clamped: piece.level(at: now)) : 0
        let mean = (piece.think.lowerBound + piece.think.upperBound) / 2
        setUsers(wanted, at: now, think: 0...min(mean, piece.duration / 2))
        let isFlat = piece.from == piece.to || piece.unit == .arrivals
        userTimer?.schedule(at: time(min(isFlat ? piece.end : now + LoadEngine.userTick, total)))
    }

    /// Users that come together are spread over one time of thinking, as if they had been there before.
    private func setUsers(_ wanted: Int, at now: Int64, think: ClosedRange<Int64>) {
        let fresh = wanted - users.count
        for i in 0..<max(fresh, 0) {
            let user = LoadUser(engine: self)
            users.append(user)
            user.begin(at: now + think.upperBound / Int64(fresh) * Int64(i))
        }
        while users.count > wanted, let user = users.popLast() {
            if !user.leave() {
                leaving += 1
                staying.append(user)
            }
        }
        if leaving == 0 { staying.removeAll() }
    }

    /// Keeps those alive that leave with their answer.
    private var staying: [LoadUser] = []

    // MARK: time

    private func secondOver() {
        report.closeSecond(inFlight: inFlight, users: users.count, waiting: waiting())
        secondsTold += 1
        if let second = report.seconds.last { onSecond?(second) }
        secondTimer?.schedule(at: time(Int64(secondsTold + 1) * 1_000_000_000))
    }

    /// Due and not sent, because no connection is free. Each request of the schedule is counted once, however many seconds it waits.
    private func waiting() -> Int {
        let now = elapsed
        guard pooled >= scenario.connections, let due = next, due <= now else {
            // What was sent need not be counted.
            if ahead.due <= taken { ahead = (arrivals, next, taken) }
            return 0
        }
        while let due = ahead.next, due <= now {
            ahead.next = ahead.arrivals.next()
            ahead.due += 1
        }
        return ahead.due - taken
    }

    /// The schedule is over; a second time, what still waits is given up.
    private func timeIsOver() {
        if elapsed >= total + timeout.nanoseconds {
            abandonWaiting()
        } else {
            setUsers(0, at: elapsed, think: 0...0)
            endTimer?.schedule(at: time(total) + timeout)
        }
        checkEnd()
    }

    private func abandonWaiting() {
        let now = elapsed
        while let due = next, due <= now {
            report.ended(choice.next(), .failed(.unsent), due: due, begun: nil, at: now, why: "no connection was free in time")
            takeNext()
        }
        next = nil
    }

    private func checkEnd() {
        guard !hasEnded, inFlight == 0, next == nil, users.isEmpty, isStopping || elapsed >= total else { return }
        hasEnded = true
        for timer in [arrivalTimer, userTimer, secondTimer, endTimer] { timer?.cancel() }
        for connection in idle { connection.leave() }
        idle = []
        report.finish(
            elapsed: max(elapsed, isStopping ? 0 : total), endedEarly: isStopping,
            processorTime: LoadEngine.processorTime() - processorStart)
        // In the next turn: the connection that ended last is still in the middle of its call.
        let bound = LoopBound(self, on: loop)
        loop.execute { bound.value.tellEnd() }
    }

    private func tellEnd() {
        let callback = done
        done = nil
        callback?(report)
    }

    /// Of this thread: what the loop does for others while the test runs is in it.
    private static func processorTime() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    }
}
