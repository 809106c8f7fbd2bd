import Observability
import StackModel
import Synchronization

/// How a route holds requests while its service has no replica: the declaration, how many wait on all loops together, and how their waits
/// ended.
final class RouteHold: Sendable {
    let spec: HoldSpec
    let waiting: HeldCount
    let metrics: HoldMetrics

    /// After a reload `waiting` is the predecessor's, so that requests that wait stay counted.
    init(_ spec: HoldSpec, waiting: HeldCount, metrics: HoldMetrics) {
        self.spec = spec
        self.waiting = waiting
        self.metrics = metrics
    }
}

/// How many requests of a route wait, over all loops.
final class HeldCount: Sendable {
    private let count = Atomic<Int>(0)

    var current: Int { count.load(ordering: .relaxed) }

    /// Takes one of `most` places. Returns nil when it got one, else how many are taken.
    func enter(most: Int) -> Int? {
        let before = count.wrappingAdd(1, ordering: .relaxed).oldValue
        if before < most { return nil }
        count.wrappingSubtract(1, ordering: .relaxed)
        return before
    }

    func leave() { count.wrappingSubtract(1, ordering: .relaxed) }
}

/// How a wait at the gateway ended.
enum HoldOutcome: String, CaseIterable {
    /// A replica was there and got the request.
    case released
    /// The time to wait, or the request's own time, was over.
    case timedOut = "timed_out"
    /// Too many waited already, or the gateway stopped or lost the route.
    case refused
    /// The client went away.
    case gone
}

/// Counters of one route that holds requests.
struct HoldMetrics: Sendable {
    let held: Gauge
    private let outcomes: [Counter]

    init(_ registry: MetricsRegistry, route: String) {
        let limit = MetricsRegistry.configuredSeriesLimit
        held = registry.gauge(
            "gateway_held_requests", "Requests that wait until their service has a replica.", labels: [("route", route)], limit: limit)
        outcomes = HoldOutcome.allCases.map {
            registry.counter(
                "gateway_held_total", "Requests that found no replica, by what became of their wait.",
                labels: [("route", route), ("outcome", $0.rawValue)], limit: limit)
        }
    }

    func count(_ outcome: HoldOutcome) { outcomes[HoldOutcome.allCases.firstIndex(of: outcome)!].add() }
}
