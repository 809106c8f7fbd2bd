import Balancing
import Basics
import HTTP
import Observability
import Resilience
import Topology

/// A route as the gateway serves it: the declaration, and the replicas behind it. Immutable; a change makes a new table, and
/// requests under way keep theirs.
public final class Route: Sendable {
    public let spec: RouteSpec
    public let label: String
    public let replicas: [Replica]
    let path: [UInt8]
    let deny: [[UInt8]]
    let method: BalanceMethod
    let retry: RetryPolicy
    let metrics: RouteMetrics

    init(spec: RouteSpec, label: String, replicas: [Replica], metrics: RouteMetrics) {
        self.spec = spec
        self.label = label
        self.replicas = replicas
        self.metrics = metrics
        path = Array(spec.path.utf8)
        deny = spec.deny.map { Array($0.utf8) }
        method = BalanceMethod(rawValue: spec.balance) ?? .leastConnections
        retry = RetryPolicy(attempts: spec.attempts)
    }

    /// `/a` matches `/a`, `/a/b` and `/a?q`, not `/ab`; `/` matches everything.
    static func matches(_ prefix: [UInt8], _ target: UnsafeRawBufferPointer) -> Bool {
        guard target.count >= prefix.count else { return false }
        for i in 0..<prefix.count where target[i] != prefix[i] { return false }
        if target.count == prefix.count || prefix.last == 47 { return true }
        return target[prefix.count] == 47 || target[prefix.count] == 63
    }
}

/// Counters of one route, made once.
struct RouteMetrics: Sendable {
    let classes: [Counter]
    let duration: Histogram
    let retries: Counter
    let failures: Counter

    init(_ registry: MetricsRegistry, route: String) {
        classes = (1...5).map {
            registry.counter("gateway_requests_total", "Requests answered, by route and class of status.", labels: [("route", route), ("status", "\($0)xx")])
        }
        duration = registry.histogram("gateway_request_duration_seconds", "From a request's head to the end of its answer.", labels: [("route", route)])
        retries = registry.counter("gateway_retries_total", "Tries after the first.", labels: [("route", route)])
        failures = registry.counter("gateway_upstream_failures_total", "Tries that got no whole response.", labels: [("route", route)])
    }
}

/// What one loop remembers of a route: whose turn it is, and what of the retry budget is left.
final class RouteOnLoop {
    let route: Route
    var balancer: Balancer
    var candidates: [Candidate]
    var budget: RetryBudget

    init(_ route: Route) {
        self.route = route
        balancer = Balancer(route.method)
        candidates = route.replicas.map { Candidate(weight: $0.weight, identity: RendezvousHash.key($0.name.utf8)) }
        budget = RetryBudget(share: route.spec.retryBudget)
    }

    /// The replica for the next try. With none eligible, any that is not leaving: an answer from a doubtful replica beats none.
    func pick(_ tried: TriedSet, key: UInt64?) -> (replica: Replica, place: Int, reason: Selection.Reason)? {
        for place in candidates.indices {
            let replica = route.replicas[place]
            candidates[place].isEligible = replica.isEligible
            candidates[place].inFlight = replica.inFlight
        }
        if let selection = balancer.pick(candidates, tried: tried, key: key) {
            return (route.replicas[selection.index], selection.index, selection.reason)
        }
        for place in candidates.indices { candidates[place].isEligible = !route.replicas[place].obstacles.contains(.draining) }
        guard let selection = balancer.pick(candidates, tried: tried, key: key) else { return nil }
        return (route.replicas[selection.index], selection.index, .panic)
    }

    /// Why this replica, for the journal.
    func record(_ replica: Replica, _ reason: Selection.Reason, tries: Int) -> DecisionRecord {
        let inputs = route.replicas.map {
            DecisionRecord.Input($0.name, "\($0.inFlight) under way, weight \($0.weight), \($0.state)")
        }
        let why: [Selection.Reason: String] = [
            .turn: "it was next in turn", .share: "its share by weight was the furthest behind",
            .home: "its trace belongs there", .spill: "the one that its trace belongs to had more than its share under way",
            .fewest: "it had the fewest requests under way for its weight", .panic: "no replica was fit, so any serves",
        ]
        return DecisionRecord(
            .route, subject: replica.name, inputs: inputs + [.init("try", tries)], raw: route.method.rawValue, outcome: reason.rawValue,
            sentence: "A request for \(route.spec.path) went to \(replica.name): \(why[reason]!).",
            flip: reason == .panic ? "one fit replica" : "another load or another turn")
    }
}

/// All routes of a loop, the longest path first.
final class RouteTableOnLoop {
    let routes: [RouteOnLoop]

    init(_ routes: [Route]) {
        self.routes = routes.sorted { $0.path.count > $1.path.count }.map(RouteOnLoop.init)
    }

    func find(_ target: UnsafeRawBufferPointer) -> RouteOnLoop? {
        for route in routes where Route.matches(route.route.path, target) { return route }
        return nil
    }
}
