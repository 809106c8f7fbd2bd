import Basics
import EventLoops
import HTTP
import Observability
import Resilience

/// How one request waits for a replica, or has waited.
struct HoldState {
    /// A place in the waiting line.
    struct Place {
        let queue: HoldQueue
        let number: Int
        let hold: RouteHold
        let since: MonotonicTime
    }

    /// The request's place in line while it waits.
    var place: Place?
    /// How long the request waited.
    var time = Duration.zero
}

/// A request whose service has no replica waits for one, if its route holds requests.
///
/// While it waits its body is not read (what came with its head stays), its connection takes no further requests, and its places in the
/// route's limits stay taken. A client that ends its side is taken for gone: otherwise clients that gave up would keep the places of
/// clients that wait.
extension Exchange {
    /// The service that the request waits for, or would wait for.
    var awaitedService: String? {
        guard let route, let pool else { return nil }
        if let canary = route.canary, pool === canary { return route.route.spec.canary?.service }
        if case .service(let name) = route.route.spec.target { return name }
        return nil
    }

    /// Refuses the request as overloaded, and returns true, if others wait for the same replicas and all of those are full: a newcomer is
    /// told what the others would be told, and does not pass them.
    func isBehindOthers() -> Bool {
        guard let route, let pool, gateway.queue(of: route.route)?.isFull(pool) == true else { return false }
        shed(.overloaded, retryAfter: 1)
        return true
    }

    /// Begins a try with the current routes: a request that took its time to arrive may have an older list of replicas than there is.
    func attemptOnNewRoute() -> Attempt? {
        guard attempts.tries == 0, let route, route.route.hold != nil, let newer = gateway.successor(of: route), newer !== route else {
            return nil
        }
        follow(newer)
        return attempts.isOpen && !isBehindOthers() ? nextAttempt() : nil
    }

    /// Whether the request may wait for a replica: its route holds requests, there is nobody, and there is a client that still listens.
    var mayWait: Bool {
        guard let route, let pool, route.route.hold != nil, awaitedService != nil else { return false }
        return pool.isVacant && !gateway.context.isDraining && client?.peerHasEnded == false
    }

    /// Puts the request in line, or answers it when the line is full.
    func waitForReplica() {
        guard let route, let hold = route.route.hold, let service = awaitedService else { return }
        if let waiting = hold.waiting.enter(most: hold.spec.most) {
            hold.metrics.count(.refused)
            answer.fields.field("Retry-After", decimal: 1)
            refuse(
                .wakingUp,
                "\(service) is waking up and \(waiting) requests wait already; send again after the seconds that Retry-After names")
            return
        }
        let now = loop.now, queue = gateway.holdQueue(route.route)
        wait.place = HoldState.Place(queue: queue, number: queue.join(self, for: hold.spec.time), hold: hold, since: now)
        gateway.held += 1
        // Nothing is tried while it waits.
        route.route.guards.handOn(&limits.place)
        hold.metrics.held.add(1)
        client?.holdBody(!request.isWhole)
        gateway.noteHold(route.route, hold, service, now)
        gateway.demand(service)
    }

    /// Gives the request to a replica; false when none takes it now, and it goes on waiting.
    func goOn() -> Bool {
        guard let attempt = nextAttempt() else {
            guard let route else { return false }
            // A reload may have taken the waiting away while there was nobody.
            let vacancy: Vacancy = route.route.hold == nil && pool?.isVacant == true ? .none : .mayWait
            if case .giveUp(let why) = attempts.take(.foundNone(vacancy), now: loop.now, budget: &route.budget).action {
                endWait(.refused, GatewayFailure(why))
            }
            return false
        }
        leaveLine(.released)
        ask(attempt)
        client?.holdBody(false)
        sendOn()
        return true
    }

    /// Ends the wait with an answer.
    func endWait(_ outcome: HoldOutcome, _ failure: GatewayFailure) {
        let service = awaitedService ?? "the service", patience = wait.place?.hold.spec.time ?? .zero
        leaveLine(outcome)
        guard failure == .wakeTimeout else { return refuse(failure) }
        // About what a small service takes to start: until then there is nothing new.
        answer.fields.field("Retry-After", decimal: 5)
        refuse(
            .wakeTimeout,
            "no replica of \(service) was ready within \(patience.brief); send again later, and see why with: muster why \(service)")
    }

    func leaveLine(_ outcome: HoldOutcome) {
        guard let place = wait.place else { return }
        wait.place = nil
        wait.time = loop.now - place.since
        place.queue.leave(place.number, pool)
        place.hold.waiting.leave()
        place.hold.metrics.held.add(-1)
        place.hold.metrics.count(outcome)
        gateway.held -= 1
    }

    /// Leaves the line when the exchange ends while it waits: by its own deadline (504), by new limits of its route, or because its client
    /// has gone.
    func leaveLineAtEnd() { leaveLine(answer.status == 504 ? .timedOut : answer.status >= 500 ? .refused : .gone) }

    /// Closes the connection of a waiting request whose client has ended its side: a client that has gone reads no answer, and whether it
    /// has gone cannot be known.
    func requesterEnded() { if wait.place != nil { client?.close() } }

    /// Goes on with the route as it is now: with its replicas, and with its limits if those have changed.
    func follow(_ new: RouteOnLoop) {
        guard let old = route, old !== new else { return }
        let wasCanary = old.canary != nil && pool === old.canary
        pool = wasCanary ? new.canary ?? new.main : new.main
        route = new
        settleAttempts(new.route)
        new.budget.requestArrived(loop.now)
        let before = old.route.guards
        guard new.route.guards !== before else { return }
        if limits.hasPlace {
            limits.hasPlace = false
            before.ended(loop.now, &limits.place, latency: nil)
            before.handOn(&limits.place)
        }
        _ = takePlace(new)
    }
}
