import Basics
import EventLoops
import Resilience

/// The common part of clients of servers that take over from each other: commands wait while a master is replaced, and are sent again only
/// where that is safe.
///
/// A command that no server has begun is sent as soon as its master is known and answers, within `patience` (an impatient one: at once, or
/// it fails). One that may have been carried
/// out ends at once with `maybeExecuted`, unless it is repeatable (reads are; see `RedisCommand.repeatable`): then it is sent again, as far
/// as the budget goes. What has waited goes to a new master in small portions, so that it is not buried by all at once.
///
/// Subclasses know where a command belongs (`locate`) and how to find out anew (`ask`).
class FailoverRouter: CommandRouter {
    enum Place {
        case node(RedisNode)
        /// No server for the command is known.
        case nowhere(String)
        case refused(RedisError)
    }

    /// One command on its way.
    final class Attempt {
        let command: RedisCommand
        let deadline: MonotonicTime
        private let done: (Result<RESPValue, RedisError>) -> Void
        var redirections = 0
        /// A replica had its chance.
        var wantsMaster = false
        var failure: RedisError?
        /// Whether a server may have carried it out, whatever became of it since.
        var mayHaveRun = false

        init(_ command: RedisCommand, deadline: MonotonicTime, _ done: @escaping (Result<RESPValue, RedisError>) -> Void) {
            self.command = command
            self.deadline = deadline
            self.done = done
        }

        /// Ends it, once. That it was not carried out is said only of what no server may have carried out before.
        func end(_ result: Result<RESPValue, RedisError>) {
            guard case .failure(let error) = result, mayHaveRun, error.execution == .notExecuted else { return done(result) }
            done(
                .failure(
                    RedisError(error.code, .maybeExecuted, place: error.place, message: error.message, isOwnWant: error.isOwnWant)))
        }
    }

    /// Most commands that wait at a time.
    static let parkingLimit = 10_000
    /// How many waiting commands are sent at once to a master that comes back.
    static let portion = 256
    /// Most answers MOVED and ASK in a row that are followed; a slot that is moved makes two.
    static let redirectionLimit = 8
    static let expiryPause = Duration.milliseconds(5)
    /// A reply later than this makes us ask whether its server is still master.
    static let suspectAfter = Duration.milliseconds(250)

    let loop: EventLoop
    let settings: RedisConnection.Settings
    let options: RedisClient.Options
    private(set) var status = RedisClient.Status.connecting
    var statistics = RedisClient.Statistics()
    var onStatus: (RedisClient.Status) -> Void = { _ in }
    private(set) var nodes: [Endpoint: RedisNode] = [:]
    private(set) var isClosed = false
    private var parked: [Attempt] = []
    private var hasMore = false
    private var pace = RefreshPace(seed: UInt64(MonotonicTime.now.nanoseconds))
    private var budget = RetryBudget(share: 0.2, minimum: 100)
    private var asking: LoopTimer?
    private var watch: LoopTimer?
    /// Ends what has waited for too long, however long a round of questions takes.
    private var expiry: LoopTimer?
    private var expires: MonotonicTime?
    let tie = Tie()

    deinit { tie.holds = false }

    init(loop: EventLoop, settings: RedisConnection.Settings, options: RedisClient.Options) {
        self.loop = loop
        self.settings = settings
        self.options = options
    }

    // MARK: what subclasses know

    func locate(_ attempt: Attempt) -> Place { preconditionFailure("a router says where commands go") }
    /// Finds out who serves what, then calls `done` once, with the reason if that was not found out.
    func ask(_ done: @escaping (_ failure: RedisError?) -> Void) { preconditionFailure("a router asks") }
    /// Called when a server said that a slot is served elsewhere.
    func moved(_ error: RedisError, _ from: RedisNode) -> RedisNode? { nil }
    /// Whether nothing has to wait for another answer.
    var isSettled: Bool { parked.isEmpty }
    func endpoint(slot: Int?) -> Endpoint? { nil }

    // MARK: a command's way

    func start() { doubt() }

    func submit(_ command: RedisCommand, _ done: @escaping (Result<RESPValue, RedisError>) -> Void) {
        budget.requestArrived(loop.now)
        attempt(Attempt(command, deadline: loop.now + (command.isImpatient ? .zero : options.patience), done))
    }

    private func attempt(_ attempt: Attempt) {
        if isClosed {
            return attempt.end(.failure(RedisError(.unavailable, .notExecuted, place: place, message: "the client was closed")))
        }
        switch locate(attempt) {
        case .node(let node):
            // The attempt to connect that is being made may hang for long, like those before it.
            let isLost = if attempt.command.isImpatient, !node.isReady, case .disconnected = node.status { true } else { false }
            if node.isAway || isLost { return park(attempt, away(node)) }
            send(attempt, to: node, asking: false)
        case .nowhere(let reason): park(attempt, RedisError(.unavailable, .notExecuted, place: place, message: reason))
        case .refused(let error): attempt.end(.failure(error))
        }
    }

    private func away(_ node: RedisNode) -> RedisError {
        let reason = if case .disconnected(let text) = node.status { text } else { "not connected" }
        return RedisError(
            .unavailable, .notExecuted, place: node.endpoint.description, message: reason, isOwnWant: node.lastFailure?.isOwnWant ?? false)
    }

    var place: String { nodes.keys.first?.description ?? "redis" }

    private func send(_ attempt: Attempt, to node: RedisNode, asking: Bool) {
        if watch == nil { watch = LoopTimer(loop: loop) { [unowned self, tie] in if tie.holds { look() } } }
        if watch?.isArmed == false { watch?.schedule(after: FailoverRouter.suspectAfter) }
        node.submit(attempt.command, asking: asking) { [self] result in answered(attempt, node, result) }
    }

    private func answered(_ attempt: Attempt, _ node: RedisNode, _ result: Result<RESPValue, RedisError>) {
        guard case .failure(let error) = result else {
            attempt.end(result)
            if hasMore, node.depth <= FailoverRouter.portion / 2 { release() }
            return
        }
        switch error.code {
        case .server: refused(attempt, node, error)
        case .authentication, .overloaded, .crossSlot: attempt.end(result)
        case .notReplicated: again(attempt, error)
        case .unavailable, .timeout, .lost, .malformed:
            doubt()
            if error.execution == .notExecuted { park(attempt, error) } else { again(attempt, error) }
        }
    }

    private func refused(_ attempt: Attempt, _ node: RedisNode, _ error: RedisError) {
        switch error.serverCode {
        case "MOVED", "ASK":
            attempt.redirections += 1
            statistics.redirections += 1
            guard attempt.redirections <= FailoverRouter.redirectionLimit, let other = moved(error, node) else {
                return park(attempt, error)
            }
            if error.serverCode == "ASK" { return send(attempt, to: other, asking: true) }
            doubt()
            self.attempt(attempt)
        case let word where RedisError.changing.contains(word):
            attempt.wantsMaster = true
            park(attempt, error)
        default: attempt.end(.failure(error))
        }
    }

    /// Handles a command that may have been carried out: sends it again if it is repeatable and the budget allows it, else ends it.
    private func again(_ attempt: Attempt, _ error: RedisError) {
        attempt.mayHaveRun = true
        guard attempt.command.isRepeatable else { return attempt.end(.failure(error)) }
        guard budget.tryRetry(loop.now) else {
            statistics.refusedRepeats += 1
            return attempt.end(.failure(error))
        }
        statistics.repeats += 1
        attempt.wantsMaster = true
        park(attempt, error)
    }

    // MARK: waiting for a master

    private func park(_ attempt: Attempt, _ error: RedisError) {
        if isClosed || loop.now >= attempt.deadline {
            doubt()
            return attempt.end(.failure(error))
        }
        guard parked.count < FailoverRouter.parkingLimit else {
            return attempt.end(
                .failure(
                    RedisError(
                        .overloaded, error.execution, place: error.place, message: "too many commands wait for a master: \(error.message)"))
            )
        }
        statistics.parked += 1
        attempt.failure = error
        parked.append(attempt)
        expire(by: attempt.deadline)
        doubt()
    }

    private func expire(by deadline: MonotonicTime) {
        if let expires, expires <= deadline { return }
        expires = deadline
        if expiry == nil { expiry = LoopTimer(loop: loop) { [unowned self, tie] in if tie.holds { endLate() } } }
        expiry?.schedule(at: deadline)
    }

    /// Ends waiting commands whose time is over. Many with different times are gone through at most every few milliseconds.
    private func endLate() {
        expires = nil
        let now = loop.now
        let late = parked.filter { now >= $0.deadline }
        parked.removeAll { now >= $0.deadline }
        if let next = parked.lazy.map(\.deadline).min() { expire(by: max(next, now + FailoverRouter.expiryPause)) }
        for attempt in late { if let failure = attempt.failure { attempt.end(.failure(failure)) } }
    }

    /// Sends waiting commands where there is a master for them now; ends those that have waited too long.
    func release() {
        hasMore = false
        if parked.isEmpty { return }
        let waiting = parked
        parked = []
        var left: [Attempt] = []
        for attempt in waiting {
            if case .node(let node) = locate(attempt), !node.isAway {
                if node.depth < FailoverRouter.portion {
                    send(attempt, to: node, asking: false)
                    continue
                }
                hasMore = true
            }
            if loop.now >= attempt.deadline, let failure = attempt.failure { attempt.end(.failure(failure)) } else { left.append(attempt) }
        }
        // What came back meanwhile stands behind what has waited longer.
        parked = left + parked
    }

    /// Looks for servers that are late: such a server may be dead or cut off, and whether it is still master is asked, not guessed.
    private func look() {
        var isBusy = false
        for node in nodes.values where node.depth > 0 {
            isBusy = true
            if node.age > FailoverRouter.suspectAfter { doubt() }
        }
        if isBusy { watch?.schedule(after: .milliseconds(100)) }
    }

    // MARK: finding out

    func doubt() {
        if let wait = pace.doubt(loop.now) { askSoon(wait) }
    }

    private func askSoon(_ wait: Duration) {
        if isClosed { return }
        if asking == nil { asking = LoopTimer(loop: loop) { [unowned self, tie] in if tie.holds { askNow() } } }
        asking?.schedule(after: wait)
    }

    private func askNow() {
        if isClosed { return }
        pace.asked()
        statistics.refreshes += 1
        ask { [unowned self, tie] failure in
            guard tie.holds, !isClosed else { return }
            if let failure {
                set(.disconnected(failure.message))
                // Waiting does not make a password right.
                if failure.code == .authentication { return refuseParked(failure) }
            }
            release()
            if let wait = pace.answered(loop.now, isSettled: isSettled) { askSoon(wait) }
        }
    }

    private func refuseParked(_ failure: RedisError) {
        let waiting = parked
        parked = []
        if let wait = pace.answered(loop.now, isSettled: true) { askSoon(wait) }
        for attempt in waiting { attempt.end(.failure(failure)) }
    }

    func set(_ new: RedisClient.Status) {
        let old = status
        status = new
        // One word for every reason, or a server that is away would be reported at each attempt.
        if case .disconnected = old, case .disconnected = new { return }
        if old != new { onStatus(new) }
    }

    // MARK: nodes

    /// The pool of a server, made when it is first needed.
    func node(_ endpoint: Endpoint) -> RedisNode {
        if let known = nodes[endpoint] { return known }
        let node = makeNode(endpoint, settings)
        nodes[endpoint] = node
        return node
    }

    func makeNode(_ endpoint: Endpoint, _ settings: RedisConnection.Settings) -> RedisNode {
        let node = RedisNode(
            endpoint, loop: loop, settings: settings, maxConnections: options.maxConnections, backoffLimit: .milliseconds(250))
        node.onStatus = { [unowned self, tie] status in
            guard tie.holds else { return }
            if status == .connected { release() } else { doubt() }
        }
        return node
    }

    /// Ends commands under way at servers that are masters no more and do not answer; forgets servers that are no members.
    func keep(masters: Set<Endpoint>, members: Set<Endpoint>) {
        for (endpoint, node) in nodes where !masters.contains(endpoint) {
            if node.age > FailoverRouter.suspectAfter { node.dropConnections() }
            if !members.contains(endpoint), node.depth == 0 {
                nodes[endpoint] = nil
                node.close()
            }
        }
    }

    func close() {
        isClosed = true
        asking?.cancel()
        watch?.cancel()
        expiry?.cancel()
        for node in nodes.values { node.close() }
        let waiting = parked
        parked = []
        for attempt in waiting {
            attempt.end(.failure(RedisError(.unavailable, .notExecuted, place: place, message: "the client was closed")))
        }
    }
}
