import Balancing
import Basics
import EventLoops
import HTTP
import Observability
import Resilience

/// The tries of a request: which replica is asked, what becomes of it, and whether another one is asked after a failure.
extension Exchange {
    // MARK: tries

    func connectToNext() -> Bool {
        guard let route, attempts.take(.wanted, now: loop.now, budget: &route.budget).action == .ask else { return false }
        if gateway.held > 0, attempts.tries == 0, isBehindOthers() { return false }
        guard let attempt = nextAttempt() ?? attemptOnNewRoute() else {
            foundNone()
            return false
        }
        ask(attempt)
        return true
    }

    /// Does what follows when no replica could be chosen: the request waits for one, or is answered.
    private func foundNone() {
        // A newer route may have refused the request meanwhile.
        guard let route, attempts.isOpen else { return }
        let vacancy: Vacancy = mayWait ? .mayWait : pool?.isFull(questions.tried) == true ? .full : .none
        switch attempts.take(.foundNone(vacancy), now: loop.now, budget: &route.budget).action {
        case .hold: waitForReplica()
        case .giveUp(.full): shed(.overloaded, retryAfter: 1)
        case .giveUp(let why): refuse(GatewayFailure(why))
        default: break
        }
    }

    func ask(_ attempt: Attempt) {
        questions.first = attempt
        guard attempt.hedges, let hedge = route?.route.spec.retry.hedge else { return }
        if hedgeTimer == nil { hedgeTimer = LoopTimer(loop: loop) { [unowned self] in askSecond() } }
        hedgeTimer?.schedule(at: loop.now + hedge)
    }

    /// Chooses a replica and begins a try on it; nil when there is none to choose.
    func nextAttempt() -> Attempt? {
        guard let route, let pool else { return nil }
        let now = loop.now
        // When every replica has been tried, one that failed may have come back (or its connection was merely stale).
        let tried = questions.tried, key = request.key
        guard
            let selection = pool.pick(tried, key: key, sticky: request.sticky, now: now)
                ?? (attempts.tries > 0 ? pool.pick(TriedSet(), key: key, sticky: nil, now: now) : nil)
        else { return nil }
        guard case .send(let hedges) = attempts.take(.chosen, now: now, budget: &route.budget).action else { return nil }
        questions.tried.insert(selection.index)
        let replica = pool.replicas[selection.index]
        questions.selection = selection
        questions.lastReplica = replica
        questions.noteCandidates(pool)
        replica.requests.add()
        replica.began(now)
        gateway.noteRouting(route, pool, selection, tries: attempts.tries)
        let spec = route.route.spec
        if let deadline = request.deadline { outgoing.write(timeLeft: deadline - now) }
        let upstream: Upstream =
            spec.speaksHTTP2
            ? .http2(gateway.sessions.place(at: replica))
            : .http1(gateway.connection(to: replica, fresh: spec.proxyHeader != nil, route.route.tls))
        upstream.take(self, isHead: request.isHead, mayUpgrade: request.upgrades, connectTime: spec.timeout.connect)
        if let version = spec.proxyHeader { upstream.introduce(version, client: origin) }
        return Attempt(upstream: upstream, replica: replica, selection: selection, hedges: hedges)
    }

    /// The client's address as a PROXY header has it. An address from X-Forwarded-For comes without a port that anybody knows.
    private var origin: SocketAddress {
        let peer = client?.peer ?? .unix("")
        guard let address = request.clientAddress, address != peer.ip else { return peer }
        return SocketAddress(address, port: 0)
    }

    /// Asks a second replica the same, because the first has not answered yet.
    private func askSecond() {
        guard let route, let pool else { return }
        let decision = attempts.take(.hedgeTime(others: pool.replicas.count > 1), now: loop.now, budget: &route.budget)
        guard decision.action == .hedge, var attempt = nextAttempt() else { return }
        guard attempt.replica !== questions.first?.replica else {
            attempt.upstream.abandon()
            attempt.replica.ended()
            _ = attempts.take(.hedgeFell, now: loop.now, budget: &route.budget)
            return questions.noteAsked(questions.first)
        }
        if request.isWhole { attempt.sentWhole = loop.now }
        questions.second = attempt
        route.route.metrics.hedges.add()
        attempt.upstream.send(outgoing.bytes)
        if request.isWhole { attempt.upstream.endRequest(outgoing.trailers.bytes) }
        attempt.upstream.watchAnswer()
    }

    func abandonAttempts() {
        if let first = questions.first { giveUp(first) }
        if let second = questions.second { giveUp(second) }
        questions.first = nil
        questions.second = nil
    }

    /// Ends a question that nobody wants an answer to any more. Where none has begun, the time that the replica had counts as its answer's:
    /// the answer would have taken at least that long. So a replica is not fast because others answer in its place, or because clients leave
    /// it. Less time than it takes on average says nothing, unless it was enough for a hedge: whoever leaves early makes nobody slow, nor
    /// fast.
    func giveUp(_ attempt: Attempt) {
        let replica = attempt.replica
        if attempt.sentWhole.nanoseconds > 0, !answer.hasBegun, attempts.state != .tunnel {
            let time = MonotonicTime.now - attempt.sentWhole
            if time >= replica.meanLatency || route?.route.spec.retry.hedge.map({ time >= $0 }) == true { replica.took(time) }
        }
        attempt.upstream.abandon()
        replica.ended()
    }

    // MARK: failure

    /// Who is to blame for a failed try.
    enum Fault {
        case replica
        /// It was the client's turn: to send, or to read.
        case client
        /// This process lacked something of its own.
        case gateway
        /// Nobody has answered what the replica's name stands for; or the replica was in order: it takes no more on this connection, and says
        /// that it has not touched the request.
        case nobody
    }

    func noteFailure(_ replica: Replica, _ failure: TryFailure, _ detail: String, _ fault: Fault) {
        guard let route else { return }
        route.route.metrics.failures.add()
        switch fault {
        case .replica: blame(replica, route, reason: failure.rawValue, cause: detail)
        case .client, .nobody: break
        case .gateway: gateway.ranShort(detail)
        }
    }

    /// Counts a failed try against the route's breaker and the replica.
    func blame(_ replica: Replica, _ route: RouteOnLoop, reason: String, cause: String) {
        let now = loop.now
        limits.isJudged = true
        route.route.guards.failed(now, reason: reason)
        if let ejection = replica.failed(now, cause: cause, mayGo: mayEject) { gateway.journal.append(ejection) }
    }

    /// Whether one more replica may be ejected.
    private func mayEject() -> Bool {
        guard let route, let pool else { return true }
        let out = pool.replicas.reduce(0) { $0 + ($1.obstacles.contains(.ejected) ? 1 : 0) }
        return EjectionCap(share: route.route.spec.eject.atMost).allows(ejected: out, of: pool.replicas.count)
    }

    func upstreamFailed(_ upstream: Upstream, _ failure: TryFailure, _ detail: String, _ fault: Fault) {
        let isSecond = questions.second?.upstream === upstream
        guard let attempt = isSecond ? questions.second : questions.first, attempt.upstream === upstream else { return }
        let failed = attempt.replica
        failed.ended()
        if isSecond { questions.second = nil } else { questions.first = nil }
        guard attempts.state != .idle, let route else { return }
        if attempts.state == .tunnel { return upstreamTunnelLost() }
        noteFailure(failed, failure, detail, fault)
        let now = loop.now
        let decision = attempts.take(.failed(isSecond ? .second : .first, failure), now: now, budget: &route.budget)
        if case .verdict(let verdict) = decision.reason, decision.action != .breakOff {
            gateway.retryNotes.note(failed, failure, verdict, now) {
                route.route.retry.record(
                    verdict, failure, tries: attempts.tries, isIdempotent: request.isIdempotent, subject: failed.name,
                    budget: route.budget.inputs)
            }
        }
        switch decision.action {
        case .breakOff: breakOff(route, failed, detail)
        case .retry: sendAgain(route)
        case .giveUp(let why): refuse(GatewayFailure(why))
        default:
            // The other one may still answer.
            guard let other = questions.first ?? questions.second else { return }
            questions.first = other
            questions.second = nil
            questions.noteAsked(other)
        }
    }

    /// Sends the request to another replica, from its beginning.
    private func sendAgain(_ route: RouteOnLoop) {
        route.route.metrics.retries.add()
        outgoing.rewind()
        // The one that the cookie names has just failed.
        request.sticky = nil
        client?.holdBody(false)
        sendOn()
    }

    /// Breaks the client's connection: the client has a part of an answer, and only a broken connection tells it that the rest is missing.
    private func breakOff(_ route: RouteOnLoop, _ failed: Replica, _ detail: String) {
        gateway.noteBroken(route, failed, detail)
        let client = client
        finish()
        client?.reset()
    }
}
