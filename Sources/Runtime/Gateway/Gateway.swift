import Balancing
import Basics
import EventLoops
import HTTP
import Observability
import Synchronization
import Topology

/// The L7 gateway: listens, chooses a replica for each request, passes bytes both ways, tries again where that is safe.
///
/// Routes and replicas come and go while it runs: `apply` publishes new ones to every loop, and requests under way finish on the
/// old ones.
public final class Gateway: Sendable {
    public struct Failure: Error, CustomStringConvertible {
        public let description: String
    }

    public let metrics: MetricsRegistry
    public let journal: Journal
    private let loops: [EventLoop]
    private let parts: [LoopBound<GatewayLoop>]
    private let logger: Logger
    private let state = Mutex(State())

    private struct State {
        var routes: [Route] = []
        var address: SocketAddress?
    }

    /// Makes the loops (a thread each). `accessLog` is a descriptor, or -1.
    public init(threads: Int, metrics: MetricsRegistry, journal: Journal, logger: Logger, accessLog: Int32) throws(SystemError) {
        self.metrics = metrics
        self.journal = journal
        self.logger = logger
        var loops: [EventLoop] = []
        var parts: [LoopBound<GatewayLoop>] = []
        // Bodies are bounded by their route; the connection's own limit is the largest a route may set.
        var limits = HTTPLimits()
        limits.body = 1 << 40
        for i in 0..<threads {
            let loop = try EventLoop.start(name: "gateway-\(i)")
            let part = GatewayLoop(loop: loop, limits: limits, journal: journal, accessLog: accessLog, metrics: metrics, logger: logger)
            loops.append(loop)
            parts.append(LoopBound(part, on: loop))
        }
        self.loops = loops
        self.parts = parts
        for (loop, part) in zip(loops, parts) { Gateway.keepTime(part, loop) }
    }

    /// Listens on all loops; the kernel spreads connections over them.
    public func listen(on address: SocketAddress) async throws {
        var address = address
        for (loop, part) in zip(loops, parts) {
            let wanted = address, shared = loops.count > 1
            address = try await loop.run { try part.value.listen(wanted, shared: shared) }
        }
        let bound = address
        state.withLock { $0.address = bound }
    }

    public var address: SocketAddress? { state.withLock { $0.address } }
    public var routes: [Route] { state.withLock { $0.routes } }

    /// Publishes routes. `replicas` gives those of a service; for declared backends, a replica that was there before is kept with
    /// what is known of its health. Returns when every loop has taken them.
    public func apply(_ specs: [RouteSpec], replicas: (String) -> [Replica]) async throws(Failure) {
        let before = routes
        var routes: [Route] = []
        for spec in specs {
            let label = spec.path
            let members: [Replica]
            switch spec.target {
            case .service(let name): members = replicas(name)
            case .backends(let backends):
                let known = before.first { $0.spec.path == spec.path }?.replicas ?? []
                members = try backends.map { (backend) throws(Failure) in try Gateway.replica(backend, spec, known) }
            }
            routes.append(Route(spec: spec, label: label, replicas: members, metrics: RouteMetrics(metrics, route: label)))
        }
        let published = routes
        state.withLock { $0.routes = published }
        for (loop, part) in zip(loops, parts) {
            _ = try? await loop.run { part.value.apply(published) }
        }
    }

    private static func replica(_ backend: BackendSpec, _ spec: RouteSpec, _ known: [Replica]) throws(Failure) -> Replica {
        guard let endpoint = Endpoint(backend.address) else {
            throw Failure(description: "route \(spec.path): backend '\(backend.address)' is no host:port (line \(backend.line))")
        }
        if let same = known.first(where: { $0.endpoint == endpoint && $0.weight == backend.weight }) { return same }
        return Replica(name: backend.address, endpoint: endpoint, weight: backend.weight, eject: eject(spec))
    }

    /// A route's ejection rule in the balancer's terms.
    public static func eject(_ spec: RouteSpec) -> PassiveHealth.Settings {
        PassiveHealth.Settings(
            failures: spec.eject.failures, window: spec.eject.within, ejection: spec.eject.time, longest: max(.seconds(60), spec.eject.time))
    }

    /// Something about replicas changed that idle connections should follow (one drains, one is down).
    public func replicasChanged() {
        for (loop, part) in zip(loops, parts) { loop.execute { part.value.closeUnwantedIdle() } }
    }

    /// Ends ejections whose time has come, four times a second.
    private static func keepTime(_ part: LoopBound<GatewayLoop>, _ loop: EventLoop) {
        loop.execute {
            let keeper = TimeKeeper()
            keeper.timer = LoopTimer(loop: part.value.loop) {
                let gateway = part.value
                for route in gateway.routes.routes { for replica in route.route.replicas { replica.timePassed(gateway.loop.now) } }
                keeper.timer?.schedule(after: .milliseconds(250))
            }
            keeper.timer?.schedule(after: .milliseconds(250))
        }
    }

    private final class TimeKeeper { var timer: LoopTimer? }

    /// Stops listening, lets requests finish for at most `grace`, closes the rest. Returns how many connections were cut.
    public func drain(grace: Duration) async -> Int {
        for (loop, part) in zip(loops, parts) { _ = try? await loop.run { part.value.drain() } }
        let deadline = MonotonicTime.now + grace
        while MonotonicTime.now < deadline {
            var quiet = true
            for (loop, part) in zip(loops, parts) where (try? await loop.run({ part.value.isQuiet })) == false { quiet = false }
            if quiet { break }
            await loops[0].sleep(.milliseconds(20))
        }
        var cut = 0
        for (loop, part) in zip(loops, parts) {
            cut +=
                (try? await loop.run {
                    let left = part.value.context.connections.count
                    part.value.closeAll()
                    return left
                }) ?? 0
        }
        return cut
    }

    public func stop() { for loop in loops { loop.stop() } }

    public var connectionCounts: [Int] {
        get async {
            var counts: [Int] = []
            for (loop, part) in zip(loops, parts) { counts.append((try? await loop.run { part.value.context.connections.count }) ?? 0) }
            return counts
        }
    }
}
