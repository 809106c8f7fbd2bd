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
        let vacancy: Vacancy = mayWait ? .mayWait : pool?.isFull(tried) == true ? .full : .none
        switch attempts.take(.foundNone(vacancy), now: loop.now, budget: &route.budget).action {
        case .hold: waitForReplica()
        case .giveUp(.full): shed(.overloaded, retryAfter: 1)
        case .giveUp(let why): answer(GatewayFailure(why))
        default: break
        }
    }

    func ask(_ attempt: Attempt) {
        first = attempt
        guard attempt.hedges, let hedge = route?.route.spec.retry.hedge else { return }
        if hedgeTimer == nil { hedgeTimer = LoopTimer(loop: loop) { [unowned self] in askSecond() } }
        hedgeTimer?.schedule(at: loop.now + hedge)
    }

    /// Chooses a replica and begins a try on it; nil when there is none to choose.
    func nextAttempt() -> Attempt? {
        guard let route, let pool else { return nil }
        let now = loop.now
        // When every replica has been tried, one that failed may have come back (or its connection was merely stale).
        guard
            let selection = pool.pick(tried, key: key, sticky: sticky, now: now)
                ?? (attempts.tries > 0 ? pool.pick(TriedSet(), key: key, sticky: nil, now: now) : nil)
        else { return nil }
        guard case .send(let hedges) = attempts.take(.chosen, now: now, budget: &route.budget).action else { return nil }
        tried.insert(selection.index)
        let replica = pool.replicas[selection.index]
        self.selection = selection
        lastReplica = replica
        noteCandidates(pool)
        replica.requests.add()
        replica.began(now)
        gateway.noteRouting(route, pool, selection, tries: attempts.tries)
        let spec = route.route.spec
        if deadlineAt > 0, let deadline { writeDeadline(deadline, now) }
        let upstream = gateway.connection(to: replica, fresh: spec.proxyHeader != nil)
        upstream.take(self, isHead: isHead, mayUpgrade: upgrade, connectTime: spec.timeout.connect)
        if let version = spec.proxyHeader { upstream.introduce(version, client: origin) }
        return Attempt(upstream: upstream, replica: replica, selection: selection, hedges: hedges)
    }

    /// Notes which of two replicas that were asked explanations name.
    func noteAsked(_ attempt: Attempt?) {
        selection = attempt?.selection
        lastReplica = attempt?.replica
    }

    /// The client's address as a PROXY header has it. An address from X-Forwarded-For comes without a port that anybody knows.
    private var origin: SocketAddress {
        guard let clientAddress, clientAddress != client.peer.ip else { return client.peer }
        return SocketAddress(clientAddress, port: 0)
    }

    private func noteCandidates(_ pool: PoolOnLoop) {
        candidates.removeAll(keepingCapacity: true)
        for candidate in pool.candidates.prefix(RecentRequests.candidateLimit) {
            let state: UInt32 = candidate.isLeaving ? 2 : candidate.isEligible ? (candidate.isFull ? 3 : 0) : 1
            candidates.append(UInt32(clamping: min(candidate.inFlight, 0xFFFF)) << 8 | state)
        }
    }

    /// Writes the time that is left into the head, in the place kept for it.
    private func writeDeadline(_ deadline: MonotonicTime, _ now: MonotonicTime) {
        var text = "\(max(1, (deadline - now).nanoseconds / 1_000_000))ms"
        while text.utf8.count < HeadRewriter.deadlineWidth { text += " " }
        text.withUTF8 { outgoing.overwrite(at: deadlineAt, UnsafeRawBufferPointer($0)) }
    }

    /// Asks a second replica the same, because the first has not answered yet.
    private func askSecond() {
        guard let route, let pool else { return }
        let decision = attempts.take(.hedgeTime(others: pool.replicas.count > 1), now: loop.now, budget: &route.budget)
        guard decision.action == .hedge, let attempt = nextAttempt() else { return }
        guard attempt.replica !== first?.replica else {
            attempt.upstream.abandon()
            attempt.replica.ended()
            _ = attempts.take(.hedgeFell, now: loop.now, budget: &route.budget)
            return noteAsked(first)
        }
        second = attempt
        route.route.metrics.hedges.add()
        attempt.upstream.send(outgoing.bytes)
        attempt.upstream.watchAnswer()
    }

    func abandonAttempts() {
        for attempt in [first, second] {
            attempt?.upstream.abandon()
            attempt?.replica.ended()
        }
        first = nil
        second = nil
    }

    func stopTimers() {
        timer?.cancel()
        hedgeTimer?.cancel()
        tunnelTimer?.cancel()
    }

    // MARK: failure

    /// Who is to blame for a failed try.
    enum Fault {
        case replica
        /// It was the client's turn: to send, or to read.
        case client
        /// This process lacked something of its own.
        case gateway
    }

    func noteFailure(_ replica: Replica, _ failure: TryFailure, _ detail: String, _ fault: Fault) {
        guard let route else { return }
        route.route.metrics.failures.add()
        switch fault {
        case .replica: blame(replica, route, reason: failure.rawValue, cause: detail)
        case .client: break
        case .gateway: gateway.ranShort(detail)
        }
    }

    /// Counts a failed try against the route's breaker and the replica.
    func blame(_ replica: Replica, _ route: RouteOnLoop, reason: String, cause: String) {
        let now = loop.now
        isJudged = true
        route.route.guards.failed(now, reason: reason)
        if let ejection = replica.failed(now, cause: cause, mayGo: mayEject) { gateway.journal.append(ejection) }
    }

    /// Whether one more replica may be ejected.
    private func mayEject() -> Bool {
        guard let route, let pool else { return true }
        let out = pool.replicas.reduce(0) { $0 + ($1.obstacles.contains(.ejected) ? 1 : 0) }
        return EjectionCap(share: route.route.spec.eject.atMost).allows(ejected: out, of: pool.replicas.count)
    }

    func upstreamFailed(_ upstream: UpstreamConnection, _ failure: TryFailure, _ detail: String, _ fault: Fault) {
        let isSecond = second?.upstream === upstream
        guard let failed = isSecond ? second?.replica : first?.upstream === upstream ? first?.replica : nil else { return }
        failed.ended()
        if isSecond { second = nil } else { first = nil }
        guard attempts.state != .idle, let route else { return }
        if attempts.state == .tunnel { return upstreamTunnelLost() }
        noteFailure(failed, failure, detail, fault)
        let now = loop.now
        let decision = attempts.take(.failed(isSecond ? .second : .first, failure), now: now, budget: &route.budget)
        if case .verdict(let verdict) = decision.reason, decision.action != .breakOff {
            gateway.retryNotes.note(failed, failure, verdict, now) {
                route.route.retry.record(
                    verdict, failure, tries: attempts.tries, isIdempotent: isIdempotent, subject: failed.name, budget: route.budget.inputs)
            }
        }
        switch decision.action {
        case .breakOff: breakOff(route, failed, detail)
        case .retry: sendAgain(route)
        case .giveUp(let why): answer(GatewayFailure(why))
        default:
            // The other one may still answer.
            guard let other = first ?? second else { return }
            first = other
            second = nil
            noteAsked(other)
        }
    }

    /// Sends the request to another replica, from its beginning.
    private func sendAgain(_ route: RouteOnLoop) {
        route.route.metrics.retries.add()
        sent = 0
        // The one that the cookie names has just failed.
        sticky = nil
        client.holdBody(false)
        sendOn()
    }

    /// Breaks the client's connection: the client has a part of an answer, and only a broken connection tells it that the rest is missing.
    private func breakOff(_ route: RouteOnLoop, _ failed: Replica, _ detail: String) {
        context.scratch.clear()
        gateway.noteBroken(route, failed, detail)
        let client = client!
        finish()
        client.resetOnClose()
        client.close()
    }
}
