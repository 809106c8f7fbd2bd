import Basics
import EventLoops
import Observability
import Resilience

/// The requests of one route that wait, on one loop, until their service has a replica: in order of arrival, each for a bounded time.
///
/// States, by what is in line and what the route has:
/// - empty: nobody waits, and no timer runs. Left by `join`.
/// - waiting: there is no replica. The timer runs to the earliest deadline, or to the next reminder of those who can start one. Left by
///   `follow` with a replica, or when all have left.
/// - releasing: there are replicas, and all have as many requests as they take. The timer runs to the earliest deadline or for
///   `releaseInterval`, because a place may become free on another loop; one on this loop is told by `placeFreed`. Left when the last one
///   has got its place or has left.
///
/// `refuseAll` leads from each state to empty, so that nobody waits for a gateway that stops or a route that is gone.
final class HoldQueue {
    private unowned let gateway: GatewayLoop
    private var line = WaitingLine<Exchange>()
    private var timer: LoopTimer?
    private var isReleasing = false
    private var reminder = MonotonicTime(nanoseconds: 0)
    /// Number of requests that wait for each pool. There are at most two pools: the route's and its canary's.
    private var counts: [(pool: PoolOnLoop, count: Int)] = []

    /// Interval of the checks for a place on a replica that became free on another loop.
    private static let releaseInterval = Duration.milliseconds(10)
    /// Interval at which whoever starts replicas is told again that some are wanted: the first word may have come while the last replica
    /// was ending.
    private static let reminderInterval = Duration.seconds(1)

    init(_ gateway: GatewayLoop) {
        self.gateway = gateway
        timer = LoopTimer(loop: gateway.loop) { [unowned self] in timePassed() }
    }

    var isEmpty: Bool { line.isEmpty }

    /// Whether others wait for the same replicas and all of those are full: then a request that comes now is not served before them.
    func isFull(_ pool: PoolOnLoop) -> Bool { isReleasing && counts.contains { $0.pool === pool && $0.count > 0 } }

    private func count(_ pool: PoolOnLoop?, _ change: Int) {
        guard let pool else { return }
        if let place = counts.firstIndex(where: { $0.pool === pool }) {
            counts[place].count += change
            if counts[place].count <= 0 { counts.remove(at: place) }
        } else if change > 0 {
            counts.append((pool, change))
        }
    }

    func join(_ exchange: Exchange, for patience: Duration) -> Int {
        if line.isEmpty { reminder = gateway.loop.now + HoldQueue.reminderInterval }
        let number = line.join(exchange, until: gateway.loop.now + patience)
        count(exchange.pool, 1)
        arm()
        return number
    }

    func leave(_ number: Int, _ pool: PoolOnLoop?) {
        if line.leave(number) { count(pool, -1) }
        if line.isEmpty { arm() }
    }

    /// Call when a replica of the route may have a place again. Acts in a turn of its own, because the caller is not done yet.
    func placeFreed() { if isReleasing { timer?.schedule(at: gateway.loop.now) } }

    /// Takes the route as it is now; nil: the route is gone. Requests that wait for a target that the route no longer leads to are refused.
    func follow(_ route: RouteOnLoop?) {
        guard let route else { return refuseAll(.holdEnded) }
        for place in line.places where isThere(place) {
            if place.element.route?.route.spec.target == route.route.spec.target {
                place.element.follow(route)
            } else {
                place.element.endWait(.refused, .holdEnded)
            }
        }
        // They wait for other pools now, and some wait no more.
        counts = []
        for place in line.places { count(place.element.pool, 1) }
        release()
    }

    /// Whether the request still waits: ending one wait may have ended another, because several may be of one client.
    private func isThere(_ place: WaitingLine<Exchange>.Place) -> Bool { place.element.wait.place?.number == place.number }

    /// Gives waiting requests to replicas, as long as these take any.
    private func release() {
        isReleasing = false
        // Those who wait for a pool that takes nobody need not be asked one by one: it may be a hundred thousand.
        var closed: [PoolOnLoop] = []
        var number = 0
        while counts.contains(where: { count in !closed.contains { $0 === count.pool } }), let place = line.first(after: number) {
            number = place.number
            let exchange = place.element
            guard isThere(place), let pool = exchange.pool, !closed.contains(where: { $0 === pool }) else { continue }
            if exchange.goOn() || !isThere(place) { continue }
            closed.append(pool)
            if !pool.isVacant { isReleasing = true }
        }
        arm()
    }

    func refuseAll(_ failure: GatewayFailure) {
        for place in line.places where isThere(place) { place.element.endWait(.refused, failure) }
        arm()
    }

    private func timePassed() {
        let now = gateway.loop.now
        for place in line.overdue(now) where isThere(place) { place.element.endWait(.timedOut, .wakeTimeout) }
        if now >= reminder {
            reminder = now + HoldQueue.reminderInterval
            for service in Set(line.places.compactMap(\.element.awaitedService)) { gateway.demand(service) }
        }
        release()
    }

    private func arm() {
        guard let earliest = line.earliest else {
            isReleasing = false
            timer?.cancel()
            return
        }
        let next = isReleasing ? gateway.loop.now + HoldQueue.releaseInterval : reminder
        timer?.schedule(at: min(earliest, next))
    }
}
