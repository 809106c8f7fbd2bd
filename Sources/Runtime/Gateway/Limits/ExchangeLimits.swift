import Basics
import EventLoops
import HTTP
import Resilience

/// What the limits of a route say of one request, and what it occupies in them.
struct LimitState {
    /// Whether the request waits for a limit's word, for its turn, or for the cache.
    var areAsked = false
    /// The strictest answer so far, and the limit of whoever gave it.
    var verdict: TokenBucket.Verdict?
    var verdictLimit = 0
    /// How long a request that the limits allow must still be delayed.
    var patience = Duration.zero
    /// Whether the route's guards have let the request in, and (`isJudged`) whether they have been told how it went.
    var hasPlace = false
    var place = RouteGuards.Place()
    var isJudged = false
}

/// Decides whether a request may go on now: first the rate limits, then answers that need no replica, then the breaker and the limit of
/// requests under way.
extension Exchange {
    /// Asks all limits of the route. A request that one of them refuses costs the others nothing: those that this process counts give back
    /// what they took, and the store charges all or none. Whether a limit answers at once or later, from the store, makes no difference: the
    /// request goes on, or is refused, when the last word is there.
    func askLimits(_ table: HeadTable, _ route: Route) {
        let now = loop.now, generation = generation, limiters = route.guards.limiters
        limits.areAsked = true
        for (place, limiter) in limiters.enumerated() where !isShared(limiter) {
            note(limiter.take(limiter.key(table, client: request.clientAddress), now: now), limiter)
            guard limits.verdict?.allowed == false else { continue }
            for other in limiters[..<place] where !isShared(other) { other.giveBack(other.key(table, client: request.clientAddress)) }
            return limitsAnswered()
        }
        guard let shared = gateway.sharedLimits, limiters.contains(where: isShared) else { return limitsAnswered() }
        let keys = limiters.map { SharedRateLimits.Key(limiter: $0, key: $0.key(table, client: request.clientAddress)) }
        let asked = keys.filter { isShared($0.limiter) }, counted = keys.filter { !isShared($0.limiter) }
        // Kept alive until the answer: the client may leave, and exchanges beyond the spare ones are let go.
        shared.take(asked) { [self] verdicts in
            if verdicts.contains(where: { !$0.allowed }) { for one in counted { one.limiter.giveBack(one.key) } }
            guard self.generation == generation, attempts.isOpen, limits.areAsked else { return }
            for (one, verdict) in zip(asked, verdicts) { note(verdict, one.limiter) }
            limitsAnswered()
            resumeSending()
        }
    }

    /// Whether the store counts the limit, and not this process.
    private func isShared(_ limiter: RateLimiter) -> Bool { limiter.spec.isShared && gateway.sharedLimits != nil }

    private func limitsAnswered() {
        limits.areAsked = false
        if limits.verdict?.allowed == false { return limited() }
        guard limits.patience > .zero else { return proceed() }
        limits.areAsked = true
        let generation = generation, bound = LoopBound(self, on: loop)
        gateway.delay(limits.patience) {
            let exchange = bound.value
            guard exchange.generation == generation, exchange.attempts.isOpen, exchange.limits.areAsked else { return }
            exchange.limits.areAsked = false
            exchange.proceed()
            exchange.resumeSending()
        }
    }

    private func note(_ new: TokenBucket.Verdict, _ limiter: RateLimiter) {
        // A limit that several gateways count has no turn for each request: it does not delay (decision 12).
        if limiter.spec.delays, !limiter.spec.isShared, new.allowed { limits.patience = max(limits.patience, limiter.delay(new)) }
        if let old = limits.verdict, old.allowed, new.allowed, old.remaining <= new.remaining { return }
        if let old = limits.verdict, !old.allowed { return }
        limits.verdict = new
        limits.verdictLimit = limiter.spec.burst + 1
    }

    private func resumeSending() {
        guard attempts.isOpen else { return }
        // What came meanwhile may have filled the window; `sendOn` holds it again if the replica takes less.
        client?.holdBody(false)
        if request.isWhole || outgoing.unsentCount > 0 { sendOn() }
    }

    private func limited() {
        guard let verdict = limits.verdict, let route else { return }
        route.route.metrics.limited.add()
        writeLimitFields()
        let seconds = max(1, (verdict.wait.nanoseconds + 999_999_999) / 1_000_000_000)
        answer.fields.field("Retry-After", decimal: Int(clamping: seconds))
        refuse(.rateLimited)
    }

    /// Writes the fields of draft-ietf-httpapi-ratelimit-headers in their separate form, which clients know.
    private func writeLimitFields() {
        guard let verdict = limits.verdict else { return }
        answer.fields.field("RateLimit-Limit", decimal: limits.verdictLimit)
        answer.fields.field("RateLimit-Remaining", decimal: verdict.remaining)
        answer.fields.field("RateLimit-Reset", decimal: Int((verdict.reset.nanoseconds + 999_999_999) / 1_000_000_000))
    }

    /// Goes on with a request that the limits have let through.
    func proceed() {
        guard let route, attempts.isOpen else { return }
        if limits.verdict != nil { writeLimitFields() }
        if let ready = answer.ready { return give(ready) }
        if usesCache, askCache() { return }
        if !route.route.guards.isOpen, !takePlace(route) { return }
        route.budget.requestArrived(loop.now)
    }

    /// Asks the route's guards to let the request in; false when they did not, and the request has been answered.
    func takePlace(_ route: RouteOnLoop) -> Bool {
        if route.route.guards.isOpen { return true }
        switch route.route.guards.admit(loop.now, isWhole: !request.hasBody || request.isWhole, &limits.place) {
        case nil:
            limits.hasPlace = true
            return true
        case .full?: shed(.overloaded, retryAfter: 1)
        case .breakerOpen(let wait)?: shed(.breakerOpen, retryAfter: max(1, Int((wait.nanoseconds + 999_999_999) / 1_000_000_000)))
        }
        return false
    }

    func shed(_ failure: GatewayFailure, retryAfter: Int) {
        route?.route.metrics.shed.add()
        answer.fields.field("Retry-After", decimal: retryAfter)
        refuse(failure)
    }

    /// Gives the place in the guards back at the request's end.
    func leaveGuards(_ guards: RouteGuards, _ now: MonotonicTime) {
        guard limits.hasPlace else { return }
        // A quick refusal is not a fast service: only answers that did the work are measured.
        guards.ended(now, &limits.place, latency: answer.status < 500 && answer.status != 429 ? answer.upstreamTime : nil)
        // Answered here before any replica had its say, or the client went away: whoever was to try leaves that to the next one.
        if !limits.isJudged { guards.handOn(&limits.place) }
    }

    private func give(_ ready: ReadyAnswer) {
        switch ready {
        case .failure(let failure, let message): refuse(failure, message)
        case .page(let status, let body, let type):
            if status == 503 { answer.fields.field("Retry-After", decimal: 60) }
            respond(status, type: type, body: body)
        case .redirect(let place, let status):
            answer.fields.field("Location", text: place)
            respond(status, type: "text/plain; charset=utf-8", body: Array("\(place)\n".utf8))
        case .preflight: respond(204, type: nil, body: [])
        case .stored: serveFromCache()
        case .lastRecipient(let trace): respond(200, type: trace == nil ? nil : "message/http", body: trace ?? [])
        }
    }
}
