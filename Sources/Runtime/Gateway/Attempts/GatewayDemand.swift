import Basics
import Observability
import StackModel

/// For whoever starts and ends replicas: whether a replica of a service is wanted, and whether any is needed still.
extension Gateway {
    /// Called when requests wait for a service without a replica: once for a request that begins to wait, at most every 100 ms for each
    /// service and loop, and every second again as long as any waits. Called on a loop's thread: it must not block. Set it before `listen`.
    public var onDemand: (@Sendable (_ service: String) -> Void)? {
        get { demand.onDemand }
        set { demand.onDemand = newValue }
    }

    /// When a request for a service last went to a replica (each try counts) or began to wait for one, to about the length of a loop's
    /// turn; nil: never since the gateway began. What the gateway answered itself (limits, refusals, pages) does not count.
    public func lastRequest(service: String) -> MonotonicTime? { demand.latest(service, and: Gateway.latest(replicas(of: service))) }

    /// Requests under way on the replicas that the service's routes have, upgraded connections too, and those that wait for one. Those that
    /// wait on a route with a canary count for both services.
    public func inFlight(service: String) -> Int { replicas(of: service).reduce(waiting(for: service)) { $0 + $1.inFlight } }

    /// Requests that wait for a replica of a service.
    public func waiting(for service: String) -> Int {
        routes.reduce(0) { $0 + ($1.leads(to: service) ? $1.hold?.waiting.current ?? 0 : 0) }
    }

    private static func latest(_ replicas: [Replica]) -> MonotonicTime? { replicas.compactMap(\.lastRequest).max() }

    /// The replicas of a service, each once, although several routes may lead to it.
    private func replicas(of service: String) -> [Replica] {
        var seen: Set<ObjectIdentifier> = []
        return routes.flatMap { $0.replicas(of: service) }.filter { seen.insert(ObjectIdentifier($0)).inserted }
    }

    /// Remembers the last requests of replicas that routes no longer have.
    func rememberRequests(_ old: [Route]) {
        for service in Set(old.flatMap(\.services)) {
            _ = demand.latest(service, and: Gateway.latest(old.flatMap { $0.replicas(of: service) }))
        }
    }

    /// How a route holds requests, when it may; the predecessor's count goes on.
    func hold(_ spec: RouteSpec, _ old: Route?) -> RouteHold? {
        spec.hold.map { RouteHold($0, waiting: old?.hold?.waiting ?? HeldCount(), metrics: HoldMetrics(metrics, route: spec.label)) }
    }
}

extension Route {
    /// The services that the route leads to: that of its main pool, then that of its canary.
    var services: [String] {
        var all: [String] = []
        if case .service(let name) = spec.target { all.append(name) }
        if let name = spec.canary?.service { all.append(name) }
        return all
    }

    func leads(to service: String) -> Bool { services.contains(service) }

    fileprivate func replicas(of service: String) -> [Replica] {
        var all = spec.target == .service(service) ? replicas : []
        if spec.canary?.service == service { all += canaryReplicas }
        return all
    }
}
