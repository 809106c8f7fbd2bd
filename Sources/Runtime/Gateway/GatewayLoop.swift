import Balancing
import Basics
import EventLoops
import HTTP
import Observability
import Resilience

/// What the gateway has on one loop: its listener's connections, its idle connections to replicas, its turn in each route.
final class GatewayLoop {
    let loop: EventLoop
    let context: HTTPServerContext
    let journal: Journal
    let accessLog: AccessLog
    let unrouted: Counter
    let upstreamTable = HeadTable()
    let upstreamLimits: HTTPLimits
    private(set) var routes: RouteTableOnLoop
    private var idle: [ObjectIdentifier: [UpstreamConnection]] = [:]
    private var listeners: [Listener] = []
    private var idPrefix: UInt64
    private var idCount: UInt64 = 0
    private var routed = 0
    private let logger: Logger

    /// Idle connections kept to one replica, on one loop.
    private static let idleLimit = 64
    /// One routing decision in this many goes to the journal; panics always do.
    private static let routeSample = 1024

    init(loop: EventLoop, limits: HTTPLimits, journal: Journal, accessLog: Int32, metrics: MetricsRegistry, logger: Logger) {
        self.loop = loop
        self.journal = journal
        self.logger = logger
        context = HTTPServerContext(loop: loop, limits: limits)
        self.accessLog = AccessLog(descriptor: accessLog, loop: loop)
        unrouted = metrics.counter("gateway_unrouted_total", "Requests that no route took.")
        var upstream = HTTPLimits()
        upstream.head = 65_536
        upstream.fields = 200
        upstreamLimits = upstream
        routes = RouteTableOnLoop([])
        var random = SystemRandomNumberGenerator()
        idPrefix = random.next()
        context.onRefusal = { failure in
            metrics.counter("gateway_refused_total", "Messages that were refused, by reason.", labels: [("reason", failure.rawValue)]).add()
        }
    }

    func listen(_ address: SocketAddress, shared: Bool) throws(SystemError) -> SocketAddress {
        let listener = try Listener(loop: loop, address: address, shared: shared) { [unowned self] fd, peer in
            let connection = ProxyConnection(gateway: self, peer: peer)
            do throws(SystemError) { try connection.start(fd) } catch { closeDescriptor(fd) }
        }
        listeners.append(listener)
        return listener.address
    }

    /// Takes new routes; exchanges under way keep theirs. Idle connections to replicas that are gone or leaving are closed.
    func apply(_ new: [Route]) {
        routes = RouteTableOnLoop(new)
        closeUnwantedIdle()
    }

    func closeUnwantedIdle() {
        var wanted: Set<ObjectIdentifier> = []
        for route in routes.routes {
            for replica in route.route.replicas where replica.obstacles.isDisjoint(with: [.draining, .down]) { wanted.insert(ObjectIdentifier(replica)) }
        }
        for (id, connections) in idle where !wanted.contains(id) {
            idle[id] = nil
            for connection in connections {
                connection.isKept = false
                connection.close()
            }
        }
    }

    /// Ids that do not repeat within a process and hardly between processes: a random start, then counting by a large odd step.
    func nextID() -> UInt64 {
        idCount &+= 1
        return idPrefix &+ idCount &* 0x9E37_79B9_7F4A_7C15
    }

    // MARK: connections to replicas

    func connection(to replica: Replica) -> UpstreamConnection {
        let id = ObjectIdentifier(replica)
        while let connection = idle[id]?.popLast() {
            connection.isKept = false
            if connection.isOpen { return connection }
        }
        let connection = UpstreamConnection(replica: replica, gateway: self)
        connection.connect(to: replica.endpoint)
        return connection
    }

    /// Keeps a connection for the next request; false when it is not wanted.
    func keep(_ connection: UpstreamConnection) -> Bool {
        let id = ObjectIdentifier(connection.replica)
        if context.isDraining || !connection.replica.obstacles.isDisjoint(with: [.draining, .down]) {
            connection.close()
            return false
        }
        if idle[id, default: []].count >= GatewayLoop.idleLimit {
            connection.close()
            return false
        }
        connection.isKept = true
        idle[id, default: []].append(connection)
        return true
    }

    func forget(_ connection: UpstreamConnection) {
        idle[ObjectIdentifier(connection.replica)]?.removeAll { $0 === connection }
    }

    // MARK: notes

    func noteRouting(_ route: RouteOnLoop, _ replica: Replica, _ reason: Selection.Reason, tries: Int) {
        routed &+= 1
        if reason == .panic || routed % GatewayLoop.routeSample == 1 { journal.append(route.record(replica, reason, tries: tries)) }
    }

    func noteBroken(_ route: RouteOnLoop, _ replica: Replica, _ detail: String) {
        logger.warning("response_broken", .init("route", route.route.spec.path), .init("replica", replica.name), .init("error", detail))
    }

    // MARK: ending

    func drain() {
        for listener in listeners { listener.close() }
        listeners = []
        context.drain()
        closeUnwantedIdle()
        accessLog.flush()
    }

    var isQuiet: Bool { context.connections.isEmpty }

    func closeAll() {
        context.closeAll()
        accessLog.flush()
    }
}
