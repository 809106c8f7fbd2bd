import Balancing
import Basics
import EventLoops
import Glibc
import HTTP
import Observability
import Redis
import Resilience
import StackModel
import Synchronization

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
    let started = MonotonicTime.now
    private let loops: [EventLoop]
    private let parts: [LoopBound<GatewayLoop>]
    private let logger: Logger
    private let state = Mutex(State())
    private let shortage: Shortage
    let demand = DemandBoard()
    /// The stored answers of all routes that have a cache.
    let cache: ResponseCache
    let certificates: Certificates

    private struct State {
        var routes: [Route] = []
        /// The addresses that are listened on, in the order of the calls.
        var addresses: [SocketAddress] = []
        var settings = GatewaySettings()
        /// The backends that discovery has found, by route: the route has them beside those that the file declares.
        var found: [String: [BackendSpec]] = [:]
        /// The backends that were set over the API, by route: until the next reload the route has these and no others.
        var set: [String: [BackendSpec]] = [:]
        /// The names of replicas that were taken out by hand, the latest last: one that leaves and comes back stays out.
        var takenOut: [String] = []

        /// The backends of a route that declares `declared`.
        func backends(_ label: String, _ declared: [BackendSpec]) -> [BackendSpec] {
            if let set = set[label] { return set }
            guard let found = found[label] else { return declared }
            return declared + found.filter { one in !declared.contains { $0.address == one.address } }
        }
    }

    /// Makes the loops (a thread each). `accessLog` is a descriptor, or -1.
    ///
    /// `folder`: where the gateway may keep an authority of its own; nil: nowhere.
    public init(
        _ spec: GatewaySpec, metrics: MetricsRegistry, journal: Journal, logger: Logger, accessLog: Int32, folder: String? = nil
    ) throws {
        certificates = Certificates(
            folder: folder, rotation: spec.tls?.tickets.rotation ?? TicketKeys.defaultRotation, logger: logger, journal: journal)
        self.metrics = metrics
        self.journal = journal
        self.logger = logger
        cache = ResponseCache(spec.cache ?? .standard, metrics: metrics)
        var loops: [EventLoop] = []
        var parts: [LoopBound<GatewayLoop>] = []
        // Bodies are bounded by their route; the connection's own limit is the largest a route may set.
        var limits = HTTPLimits()
        limits.body = 1 << 40
        limits.head = spec.limits.head
        limits.fields = spec.limits.fields
        limits.headTime = spec.limits.headTime
        limits.idleTime = spec.limits.idleTime
        let clients = ClientCounts(), connections = ConnectionCount()
        let shortage = Shortage(metrics: metrics, logger: logger)
        let idle = max(1, Gateway.idleConnections(descriptors: Gateway.descriptorLimit) / spec.threads)
        let output = LogSink(descriptor: accessLog) { _, trouble in
            switch trouble {
            case .began(let why): logger.error("access_log_dropped", .init("error", why), .init("now", "lines are dropped and counted"))
            case .ended(let lines): logger.info("access_log_writes_again", .init("lines_dropped", lines))
            }
        }
        metrics.counter("gateway_log_dropped_total", "Lines of the process's own log that could not be written.") {
            Double(logger.dropped)
        }
        metrics.counter("gateway_access_log_dropped_total", "Lines of the access log that could not be written.") {
            Double(output.dropped)
        }
        let store = try spec.limitStore.map { (text) throws(Failure) in
            do throws(RedisURL.Failure) { return try RedisURL(text) } catch { throw Failure(description: "gateway.limit-store: \(error)") }
        }
        var random = SystemRandomNumberGenerator()
        let name = String(random.next(), radix: 16)
        for i in 0..<spec.threads {
            let loop = try EventLoop.start(name: "gateway-\(i)")
            let part = GatewayLoop(
                loop: loop, limits: limits, journal: journal,
                accessLog: AccessLog(accessLog < 0 ? nil : output, format: spec.accessLog.format, loop: loop), clients: clients,
                metrics: metrics, demand: demand, shortage: shortage, idleConnections: idle, logger: logger)
            // Counted over all loops: the kernel spreads connections by chance, and not evenly.
            part.context.connectionLimit = spec.limits.connections
            part.context.connectionCount = connections
            if let tracing = spec.tracing {
                part.tracer = Tracer(target: tracing.target, sample: tracing.sample, loop: loop, metrics: metrics) { [unowned part] in
                    part.drawBits()
                }
            }
            if let store {
                let client = RedisClient(url: store, loop: loop, options: SharedRateLimits.options())
                part.sharedLimits = SharedRateLimits(redis: client, name: name, journal: journal, metrics: metrics)
                loop.execute { client.start() }
            }
            loops.append(loop)
            parts.append(LoopBound(part, on: loop))
            cache.join(loop, LoopBound(part, on: loop))
        }
        self.loops = loops
        self.parts = parts
        self.shortage = shortage
        for (i, (loop, part)) in zip(loops, parts).enumerated() { Gateway.keepTime(part, loop, cache: i == 0 ? cache : nil) }
    }

    /// Listens on all loops; the kernel spreads connections over them. May be called once for each of several addresses. `inherited`: a
    /// predecessor's listening sockets of this address, one a loop.
    public func listen(on address: SocketAddress, as kind: ListenerKind = .plain, inherited: [Int32] = []) async throws {
        var address = address
        for (i, (loop, part)) in zip(loops, parts).enumerated() {
            let wanted = address, shared = loops.count > 1
            let descriptor = i < inherited.count ? inherited[i] : nil
            address = try await loop.run { try part.value.listen(wanted, as: kind, shared: shared, joins: i > 0, inherited: descriptor) }
        }
        for descriptor in inherited.dropFirst(loops.count) { closeDescriptor(descriptor) }
        let bound = address
        state.withLock { $0.addresses.append(bound) }
    }

    /// The listening sockets of each address, in the order in which the addresses were listened on; of an address one a loop.
    public var listening: [[Int32]] {
        get async {
            var all = [[Int32]](repeating: [], count: addresses.count)
            for (loop, part) in zip(loops, parts) {
                let descriptors = (try? await loop.run { part.value.listening }) ?? []
                for (i, descriptor) in descriptors.enumerated() where i < all.count { all[i].append(descriptor) }
            }
            return all
        }
    }

    /// The addresses that are listened on, with the ports that the kernel chose where 0 was wanted.
    public var addresses: [SocketAddress] { state.withLock { $0.addresses } }
    public var address: SocketAddress? { addresses.first }
    public var routes: [Route] { state.withLock { $0.routes } }
    var settings: GatewaySettings { state.withLock { $0.settings } }

    /// Takes a configuration: reads the files that it names (credentials, tokens, pages), once, and publishes its routes. `replicas` gives
    /// the replicas of a service; a declared backend that was there before keeps what is known of its health. Returns when every loop has
    /// taken the routes. When something is wrong (a file that cannot be read), the error says what, and nothing has changed.
    public func apply(_ spec: GatewaySpec, replicas: (String) -> [Replica]) async throws(Failure) {
        let tls = try spec.tls.map { (tls) throws(Failure) in try certificates.read(tls, takesHTTP2: spec.takesHTTP2) }
        let settings = try GatewaySettings(spec, tls: tls)
        cache.apply(spec.cache ?? .standard)
        let known = Dictionary(routes.map { ($0.label, $0) }) { first, _ in first }
        var prepared: [Route] = []
        for route in spec.routes {
            let old = known[route.label]
            let guards =
                old.flatMap { $0.guards.spec == route.guards ? $0.guards : nil }
                ?? RouteGuards(route.guards, route: route.label, journal: journal)
            prepared.append(
                try Route(
                    spec: route, replicas: [], canaryReplicas: [], metrics: RouteMetrics(metrics, route: route.label), guards: guards,
                    hold: hold(route, old), cache: cache, registry: metrics))
        }
        // Files have been read. The replicas are chosen from what the gateway has at this moment: backends that were found or set while the
        // files were being read are not lost.
        let before = try state.withLock { (state) throws(Failure) in
            // What was set by hand is over with a reload; what is being discovered stays until it is found anew.
            var next = state
            next.set = [:]
            let discovered = Set(spec.routes.filter { $0.discovery != nil }.map(\.label))
            next.found = state.found.filter { discovered.contains($0.key) }
            let known = Dictionary(state.routes.map { ($0.label, $0) }) { first, _ in first }
            let isFirst = state.routes.isEmpty
            next.routes = []
            for route in prepared {
                // Connections that are idle speak as the route did; so do replicas that are kept.
                let old = known[route.label].flatMap { $0.spec.backendTLS == route.spec.backendTLS ? $0 : nil }
                let main = try members(route.spec, next, old?.replicas ?? [], isFirst: isFirst, replicas)
                let canary = try canaries(route.spec, next, old?.canaryReplicas ?? [], isFirst: isFirst, replicas)
                next.routes.append(Route(route, replicas: main, canaryReplicas: canary))
            }
            next.settings = settings
            // From here on nothing can fail.
            let before = state.routes
            state = next
            for route in next.routes {
                // Those of services follow their supervisor.
                if case .backends(let declared) = route.spec.target {
                    Gateway.follow(next.backends(route.label, declared), route.replicas)
                    for replica in route.replicas { replica.follow(Gateway.eject(route.spec)) }
                }
                guard let canary = route.spec.canary, canary.service == nil else { continue }
                Gateway.follow(canary.backends, route.canaryReplicas)
                for replica in route.canaryReplicas { replica.follow(Gateway.eject(route.spec)) }
            }
            return before
        }
        certificates.use(tls, spec.tls)
        await publish(before, replicas)
    }

    /// Publishes other replicas of services, under the configuration that was applied last. Reads no file and cannot fail: a replica that
    /// starts, moves to another port or goes never depends on a file. Returns when every loop has taken the routes.
    public func apply(replicas: (String) -> [Replica]) async {
        let before = state.withLock { state in
            let before = state.routes
            state.routes = before.map { route in
                if route.services.isEmpty { return route }
                let main: [Replica]
                if case .service(let name) = route.spec.target { main = replicas(name) } else { main = route.replicas }
                return Route(route, replicas: main, canaryReplicas: route.spec.canary?.service.map(replicas) ?? route.canaryReplicas)
            }
            return before
        }
        await publish(before, replicas)
    }

    private func publish(_ before: [Route], _ replicas: (String) -> [Replica]) async {
        for service in Set(routes.flatMap(\.services)) where replicas(service).contains(where: { !$0.obstacles.contains(.draining) }) {
            demand.woke(service)
        }
        await publish()
        rememberRequests(before)
    }

    /// Gives every loop the routes that are current when the loop takes them: of two publications at a time, the older one never overwrites
    /// the newer one. (A loop that has stopped serves nobody, and takes nothing.)
    private func publish() async {
        for (loop, part) in zip(loops, parts) {
            _ = try? await loop.run { [self] in
                let (routes, settings) = state.withLock { ($0.routes, $0.settings) }
                part.value.apply(routes, settings)
            }
        }
    }

    /// Gives new connections of every loop another TLS.
    func put(_ server: TLSServer) async {
        state.withLock { $0.settings.tls = server }
        await publish()
    }

    private func members(
        _ spec: RouteSpec, _ state: State, _ known: [Replica], isFirst: Bool, _ replicas: (String) -> [Replica]
    ) throws(Failure) -> [Replica] {
        switch spec.target {
        case .service(let name): return replicas(name)
        case .backends(let declared):
            return try Gateway.replicas(state.backends(spec.label, declared), spec, known, state.takenOut, isFirst: isFirst)
        case .answer, .redirect: return []
        }
    }

    private func canaries(
        _ spec: RouteSpec, _ state: State, _ known: [Replica], isFirst: Bool, _ replicas: (String) -> [Replica]
    ) throws(Failure) -> [Replica] {
        guard let canary = spec.canary else { return [] }
        if let service = canary.service { return replicas(service) }
        return try Gateway.replicas(canary.backends, spec, known, state.takenOut, isFirst: isFirst)
    }

    /// A replica for each backend, in their order. A replica that is known at the same address is kept, with all that is known of it, also
    /// when its weight or priority changes: `follow` tells it those once nothing can fail any more.
    private static func replicas(
        _ backends: [BackendSpec], _ spec: RouteSpec, _ known: [Replica], _ takenOut: [String], isFirst: Bool
    ) throws(Failure) -> [Replica] {
        var endpoints: [Endpoint] = []
        for backend in backends {
            guard let endpoint = Endpoint(backend.address) else {
                throw Failure(
                    description:
                        "route \(spec.label): backend '\(backend.address)' is no "
                        + "host:port\(backend.line > 0 ? " (line \(backend.line))" : "")"
                )
            }
            endpoints.append(endpoint)
        }
        var left = Dictionary(grouping: known, by: \.endpoint)
        // One address may stand there twice: each has its own replica, the one with the same weight and priority if there is one.
        func taken(_ place: Int, where fits: (Replica) -> Bool) -> Replica? {
            left[endpoints[place]]?.firstIndex(where: fits).flatMap { left[endpoints[place]]?.remove(at: $0) }
        }
        var out: [Replica?] = backends.indices.map { place in
            taken(place) { $0.weight == backends[place].weight && $0.priority == backends[place].priority }
        }
        for place in backends.indices where out[place] == nil {
            let backend = backends[place]
            if let known = taken(place, where: { _ in true }) {
                out[place] = known
                continue
            }
            let new = Replica(
                name: backend.address, endpoint: endpoints[place], weight: backend.weight, priority: backend.priority, isNew: !isFirst,
                eject: eject(spec))
            if takenOut.contains(new.name) { new.add(.disabled, because: "taken out by hand, over the API, before it left and came back") }
            out[place] = new
        }
        return out.compactMap(\.self)
    }

    /// Gives replicas the weights and priorities of the backends that they stand for.
    private static func follow(_ backends: [BackendSpec], _ replicas: [Replica]) {
        for (backend, replica) in zip(backends, replicas) { replica.follow(weight: backend.weight, priority: backend.priority) }
    }

    /// A route's ejection rule in the balancer's terms.
    public static func eject(_ spec: RouteSpec) -> PassiveHealth.Settings {
        PassiveHealth.Settings(
            failures: spec.eject.failures, window: spec.eject.within, ejection: spec.eject.time, longest: max(.seconds(60), spec.eject.time)
        )
    }

    /// Sets other backends for one route, from the API: the route has these and no others, until they are set again or the configuration is
    /// read anew. Backends that stay keep their health.
    public func setBackends(_ backends: [BackendSpec], of label: String) async throws(Failure) {
        try await changeBackends(of: label) { $0.set[label] = backends }
    }

    /// The most replicas that are remembered as taken out while they are not there; beyond it the first are forgotten.
    private static let takenOutLimit = 1000

    /// Takes all replicas of a name out by hand, or puts them back. It is remembered as long as this process runs: who leaves the backends and
    /// comes back stays as it was set. Returns the replica's state then; nil when there is no such replica, and none was taken out.
    func setByHand(_ name: String, isOut: Bool) -> String? {
        let (replicas, wasOut) = state.withLock { state in
            let replicas = state.routes.flatMap { $0.allReplicas }.filter { $0.name == name }
            let before = state.takenOut.count
            state.takenOut.removeAll { $0 == name }
            let wasOut = state.takenOut.count < before
            if isOut, wasOut || !replicas.isEmpty {
                if state.takenOut.count >= Gateway.takenOutLimit { state.takenOut.removeFirst() }
                state.takenOut.append(name)
            }
            return (replicas, wasOut)
        }
        for replica in replicas {
            if isOut {
                replica.add(.disabled, because: "taken out by hand, over the API")
            } else {
                replica.remove(.disabled, because: "put back by hand, over the API")
                replica.seenServing()
            }
        }
        replicasChanged()
        return replicas.first?.state ?? (wasOut ? (isOut ? "disabled" : "ready") : nil)
    }

    /// Takes the backends that discovery has found for a route, beside those that it declares.
    func setFound(_ backends: [BackendSpec], of label: String) async throws(Failure) {
        try await changeBackends(of: label) { $0.found[label] = backends }
    }

    private func changeBackends(of label: String, _ change: (inout State) -> Void) async throws(Failure) {
        try state.withLock { (state) throws(Failure) in
            guard let place = state.routes.firstIndex(where: { $0.label == label }),
                case .backends(let declared) = state.routes[place].spec.target
            else { throw Failure(description: "there is no route '\(label)' with backends of its own") }
            var next = state
            change(&next)
            let old = state.routes[place], backends = next.backends(label, declared)
            let replicas = try Gateway.replicas(backends, old.spec, old.replicas, next.takenOut, isFirst: old.replicas.isEmpty)
            next.routes[place] = Route(old, replicas: replicas, canaryReplicas: old.canaryReplicas)
            // From here on nothing can fail.
            state = next
            Gateway.follow(backends, replicas)
        }
        await publish()
    }

    /// What discovery has found for a route; nil: nothing yet.
    func found(of label: String) -> [BackendSpec]? { state.withLock { $0.found[label] } }

    /// A route's current backends, as a file would declare them.
    public func backends(of label: String) -> [BackendSpec]? {
        state.withLock { state in
            guard case .backends(let declared)? = state.routes.first(where: { $0.label == label })?.spec.target else { return nil }
            return state.backends(label, declared)
        }
    }

    /// Call when something about replicas changed that idle connections should follow (one drains, one is down).
    public func replicasChanged() {
        for (loop, part) in zip(loops, parts) { loop.execute { part.value.closeUnwantedIdle() } }
    }

    /// Notes that this process lacked something for a connection to somebody else, who has no part in it. Told in the log and by a metric.
    func ranShort(_ detail: String) { shortage.happened(detail) }

    /// How many connections to replicas may be idle, on all loops together: an eighth of the descriptors that the process may have.
    static func idleConnections(descriptors: Int) -> Int { max(1, descriptors / 8) }

    private static var descriptorLimit: Int {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1024 }
        return Int(clamping: limit.rlim_cur)
    }

    /// Ends ejections whose time has come and tells which failures and shortages are over, four times a second.
    private static func keepTime(_ part: LoopBound<GatewayLoop>, _ loop: EventLoop, cache: ResponseCache?) {
        loop.execute {
            let keeper = TimeKeeper()
            keeper.timer = LoopTimer(loop: part.value.loop) {
                part.value.timePassed()
                if let cache { cache.sweep(part.value.loop.now) }
                keeper.timer?.schedule(after: .milliseconds(250))
            }
            keeper.timer?.schedule(after: .milliseconds(250))
        }
    }

    private final class TimeKeeper { var timer: LoopTimer? }

    /// Stops listening, lets requests finish for at most `grace`, closes the rest. Returns how many connections were cut. With `gently` a
    /// successor has the listening sockets, and idle connections may ask once more.
    public func drain(grace: Duration, gently: Bool = false) async -> Int {
        for (loop, part) in zip(loops, parts) { _ = try? await loop.run { part.value.drain(gently: gently) } }
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
                    let left = part.value.connectionCount
                    part.value.closeAll()
                    return left
                }) ?? 0
        }
        await sendLastSpans()
        return cut
    }

    /// Waits until the spans of the last second are sent, but for no longer than two seconds if their target is slow to take them.
    private func sendLastSpans() async {
        let deadline = MonotonicTime.now + .seconds(2)
        for (loop, part) in zip(loops, parts) {
            while MonotonicTime.now < deadline, (try? await loop.run({ part.value.tracer?.isIdle ?? true })) == false {
                await loop.sleep(.milliseconds(10))
            }
        }
    }

    public func stop() { for loop in loops { loop.stop() } }

    public var connectionCounts: [Int] {
        get async {
            var counts: [Int] = []
            for (loop, part) in zip(loops, parts) { counts.append((try? await loop.run { part.value.connectionCount }) ?? 0) }
            return counts
        }
    }

    /// Finds what became of a request, if it is among the latest.
    func request(_ id: String) async -> (at: WallTime, record: DecisionRecord)? {
        var newest: (at: WallTime, record: DecisionRecord)?
        for (loop, part) in zip(loops, parts) {
            guard let found = try? await loop.run({ part.value.recent.find(id) }) else { continue }
            if let known = newest, known.at >= found.at { continue }
            newest = found
        }
        return newest
    }
}
