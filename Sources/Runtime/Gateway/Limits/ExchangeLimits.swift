import Basics
import EventLoops
import HTTP
import Resilience

/// Decides whether a request may go on now: first the rate limits, then answers that need no replica, then the breaker and the limit of
/// requests under way.
extension Exchange {
    /// Asks all limits of the route. Whether a limit answers at once or later, from the store, makes no difference: the request goes on, or
    /// is refused, when the last word is there.
    func askLimits(_ table: HeadTable, _ route: Route) {
        let now = loop.now, generation = generation
        isHeld = true
        // This loop is one of those that are waited for.
        awaited = 1
        for limiter in route.guards.limiters {
            let key = limiter.key(table, client: clientAddress)
            guard limiter.spec.isShared, let shared = gateway.sharedLimits else {
                note(limiter.take(key, now: now), limiter)
                if verdict?.allowed == false { break }
                continue
            }
            awaited += 1
            // Kept alive until the answer: the client may leave, and exchanges beyond the spare ones are let go.
            shared.take(limiter, key) { [self] verdict in
                guard self.generation == generation, attempts.isOpen, isHeld else { return }
                note(verdict, limiter)
                awaited -= 1
                guard awaited == 0 else { return }
                limitsAnswered()
                resumeSending()
            }
        }
        awaited -= 1
        if awaited == 0 || verdict?.allowed == false { limitsAnswered() }
    }

    private func limitsAnswered() {
        isHeld = false
        awaited = 0
        if verdict?.allowed == false { return limited() }
        guard patience > .zero else { return proceed() }
        isHeld = true
        let generation = generation, bound = LoopBound(self, on: loop)
        gateway.delay(patience) {
            let exchange = bound.value
            guard exchange.generation == generation, exchange.attempts.isOpen, exchange.isHeld else { return }
            exchange.isHeld = false
            exchange.proceed()
            exchange.resumeSending()
        }
    }

    private func note(_ new: TokenBucket.Verdict, _ limiter: RateLimiter) {
        // A limit that several gateways count has no turn for each request: it does not delay (decision 12).
        if limiter.spec.delays, !limiter.spec.isShared, new.allowed { patience = max(patience, limiter.delay(new)) }
        if let old = verdict, old.allowed, new.allowed, old.remaining <= new.remaining { return }
        if let old = verdict, !old.allowed { return }
        verdict = new
        verdictLimit = limiter.spec.burst + 1
    }

    private func resumeSending() {
        guard attempts.isOpen else { return }
        // What came meanwhile may have filled the window; `sendOn` holds it again if the replica takes less.
        client.holdBody(false)
        if requestIsComplete || outgoing.count > sent { sendOn() }
    }

    private func limited() {
        guard let verdict, let route else { return }
        route.route.metrics.limited.add()
        writeLimitFields()
        let seconds = max(1, (verdict.wait.nanoseconds + 999_999_999) / 1_000_000_000)
        additions.append(text: "Retry-After: \(seconds)\r\n")
        answer(.rateLimited)
    }

    /// Writes the fields of draft-ietf-httpapi-ratelimit-headers in their separate form, which clients know.
    private func writeLimitFields() {
        guard let verdict else { return }
        additions.append("RateLimit-Limit: ")
        additions.append(decimal: verdictLimit)
        additions.append("\r\nRateLimit-Remaining: ")
        additions.append(decimal: verdict.remaining)
        additions.append("\r\nRateLimit-Reset: ")
        additions.append(decimal: Int((verdict.reset.nanoseconds + 999_999_999) / 1_000_000_000))
        additions.append("\r\n")
    }

    /// Goes on with a request that the limits have let through.
    func proceed() {
        guard let route, attempts.isOpen else { return }
        if verdict != nil { writeLimitFields() }
        if let ready { return answer(ready) }
        if !route.route.guards.isOpen, !takePlace(route) { return }
        route.budget.requestArrived(loop.now)
    }

    /// Asks the route's guards to let the request in; false when they did not, and the request has been answered.
    func takePlace(_ route: RouteOnLoop) -> Bool {
        if route.route.guards.isOpen { return true }
        switch route.route.guards.admit(loop.now, isWhole: !hasBody || requestIsComplete, &guardPlace) {
        case nil:
            hasPlace = true
            return true
        case .full?: shed(.overloaded, retryAfter: 1)
        case .breakerOpen(let wait)?: shed(.breakerOpen, retryAfter: max(1, Int((wait.nanoseconds + 999_999_999) / 1_000_000_000)))
        }
        return false
    }

    func shed(_ failure: GatewayFailure, retryAfter: Int) {
        route?.route.metrics.shed.add()
        additions.append(text: "Retry-After: \(retryAfter)\r\n")
        answer(failure)
    }

    private func answer(_ ready: ReadyAnswer) {
        switch ready {
        case .failure(let failure): answer(failure)
        case .page(let status, let body, let type):
            if status == 503 { additions.append("Retry-After: 60\r\n") }
            respond(status, type: type, body: body)
        case .redirect(let place, let status):
            additions.append(text: "Location: \(place)\r\n")
            respond(status, type: "text/plain; charset=utf-8", body: Array("\(place)\n".utf8))
        case .preflight: respond(204, type: nil, body: [])
        case .lastRecipient(let trace): respond(200, type: trace == nil ? nil : "message/http", body: trace ?? [])
        }
    }
}
