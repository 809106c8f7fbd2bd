import Balancing
import Basics
import EventLoops
import HTTP
import Observability
import Resilience
import Synchronization

/// The gateway's part on one loop: its listener's connections, its idle connections to replicas, its turn in each route.
final class GatewayLoop {
    let loop: EventLoop
    let context: HTTPServerContext
    let http2: HTTP2Clients
    let journal: Journal
    let accessLog: AccessLog
    let unrouted: Counter
    let recent: RecentRequests
    let upstreamTable = HeadTable()
    let upstreamLimits: HTTPLimits
    private(set) var settings = GatewaySettings()
    private(set) var routes: RouteTableOnLoop
    var sharedLimits: SharedRateLimits?
    var tracer: Tracer?
    let clients: ClientCounts
    /// Connections of clients whose TLS handshake is not done.
    let handshakes: Handshakes
    /// Connections to replicas.
    let connections: ReplicaConnections
    /// Connections of HTTP/2 to replicas.
    private(set) lazy var sessions = UpstreamSessions(self)
    let retryNotes: RetryNotes
    /// This loop's way to the hottest stored answers.
    let front = FrontTable()
    private let shortage: Shortage
    /// When idle clients were last closed to free their descriptors.
    private var reclaimed = MonotonicTime(nanoseconds: 0)
    private var listeners: [Listener] = []
    private var spare: [Exchange] = []
    private var delayed: [Int: LoopTimer] = [:]
    private var delays = 0
    /// Queues of waiting requests, by route.
    private var holdQueues: [String: HoldQueue] = [:]
    /// Number of requests that wait for a replica.
    var held = 0
    private let demandBoard: DemandBoard
    /// When demand was last told, by service.
    private var demanded: [String: MonotonicTime] = [:]
    private var random: SeededRandom
    private let idPrefix: UInt64
    private var idCount: UInt64 = 0
    private var routed = 0
    private let logger: Logger

    /// Number of idle clients that are closed at once when descriptors run out, at most ten times a second. As nginx does it.
    private static let reclaimAtOnce = 32
    /// One routing decision in this many goes to the journal; of panics their beginning and their end do.
    private static let routeSample = 1024
    /// Spare exchanges kept for reuse, per loop; a burst's surplus is freed.
    private static let spareLimit = 256

    init(
        loop: EventLoop, limits: HTTPLimits, journal: Journal, accessLog: AccessLog, clients: ClientCounts, metrics: MetricsRegistry,
        demand: DemandBoard,
        shortage: Shortage, idleConnections: Int, logger: Logger
    ) {
        self.loop = loop
        self.shortage = shortage
        connections = ReplicaConnections(loop: loop, most: idleConnections)
        retryNotes = RetryNotes(journal: journal)
        demandBoard = demand
        self.journal = journal
        self.logger = logger
        self.clients = clients
        context = HTTPServerContext(loop: loop, limits: limits)
        http2 = HTTP2Clients(context: context, metrics: metrics)
        handshakes = Handshakes(context: context)
        self.accessLog = accessLog
        recent = RecentRequests()
        unrouted = metrics.counter("gateway_unrouted_total", "Requests that no route took.")
        var upstream = HTTPLimits()
        upstream.head = 65_536
        upstream.fields = 200
        upstreamLimits = upstream
        var system = SystemRandomNumberGenerator()
        idPrefix = system.next()
        random = SeededRandom(seed: system.next())
        routes = RouteTableOnLoop([], seed: 0)
        context.onRefusal = { failure in
            metrics.counter("gateway_refused_total", "Messages that were refused, by reason.", labels: [("reason", failure.rawValue)]).add()
        }
        followHandshakes(metrics)
        context.expectsProxyHeader = { [unowned self] peer in settings.takesProxyProtocol && settings.trusts(peer.ip) }
    }

    /// Opens a listening socket, or takes over a descriptor that listens already.
    func listen(
        _ address: SocketAddress, as kind: ListenerKind, shared: Bool, joins: Bool, inherited: Int32? = nil
    ) throws(SystemError) -> SocketAddress {
        let listener = try Listener(loop: loop, address: address, shared: shared, joins: joins, inherited: inherited) {
            [unowned self] fd, peer in
            accept(fd, peer, kind)
        }
        listener.onTrouble = { [unowned self] in ranShort($0.description) }
        listeners.append(listener)
        return listener.address
    }

    /// The listening descriptors, one for each address, for a successor.
    var listening: [Int32] { listeners.map(\.descriptor) }

    /// Takes new routes; exchanges under way keep theirs. Idle connections to replicas that are gone or leaving are closed.
    func apply(_ new: [Route], _ settings: GatewaySettings) {
        self.settings = settings
        context.takesHTTP2 = settings.takesHTTP2
        handshakes.server = settings.tls
        routes = RouteTableOnLoop(new, seed: random.next(), after: routes.routes)
        closeUnwantedIdle()
        followRoutes()
    }

    func closeUnwantedIdle() {
        var wanted: Set<ObjectIdentifier> = []
        for route in routes.routes {
            for replica in route.route.allReplicas where replica.obstacles.isDisjoint(with: [.draining, .down, .disabled]) {
                wanted.insert(ObjectIdentifier(replica))
            }
        }
        connections.closeIdle(but: wanted)
        sessions.closeIdle(but: wanted)
    }

    /// Call when a connection could not be made or taken because this process lacks something. Tells it, and closes idle connections, which
    /// gives back what they use.
    func ranShort(_ detail: String) {
        shortage.happened(detail)
        // Each closed connection to a replica holds its port for a while: at every failed try, this would make a shortage of ports worse.
        guard loop.now - reclaimed >= .milliseconds(100) else { return }
        reclaimed = loop.now
        connections.closeIdle()
        sessions.closeIdle()
        context.closeIdle(atMost: GatewayLoop.reclaimAtOnce)
        http2.closeIdle(atMost: GatewayLoop.reclaimAtOnce)
    }

    /// Called a few times a second.
    func timePassed() {
        for route in routes.routes {
            for replica in route.route.allReplicas { replica.timePassed(loop.now) }
            for record in route.endedPanics(loop.now) { journal.append(record) }
        }
        retryNotes.timePassed(loop.now)
        shortage.timePassed(loop.now)
    }

    /// Ids that do not repeat within a process and hardly between processes: a random start, then counting by a large odd step.
    func nextID() -> UInt64 {
        idCount &+= 1
        return idPrefix &+ idCount &* 0x9E37_79B9_7F4A_7C15
    }

    /// A random number of 0..<1.
    func draw() -> Double { Double(random.next() >> 11) / Double(1 << 53) }
    func drawBits() -> UInt64 { random.next() }

    /// Runs `body` after `wait`, in a turn of its own.
    func delay(_ wait: Duration, _ body: @escaping () -> Void) {
        delays &+= 1
        let number = delays
        let timer = LoopTimer(loop: loop) { [unowned self] in
            let timer = delayed.removeValue(forKey: number)
            body()
            // Until here it must live: this is its own action.
            withExtendedLifetime(timer) {}
        }
        delayed[number] = timer
        timer.schedule(after: wait)
    }

    // MARK: exchanges

    func lendExchange() -> Exchange { spare.popLast() ?? Exchange(gateway: self) }
    func takeBack(_ exchange: Exchange) { if spare.count < GatewayLoop.spareLimit { spare.append(exchange) } }

    // MARK: connections to replicas

    func connection(to replica: Replica, fresh: Bool, _ tls: UpstreamTLS? = nil) -> UpstreamConnection {
        if !fresh, let connection = connections.take(replica) {
            connections.lent(connection)
            return connection
        }
        let connection = UpstreamConnection(replica: replica, gateway: self)
        connections.lent(connection)
        if let tls { connection.tls = tls.session(to: replica.endpoint) }
        connection.connect(to: replica.endpoint)
        return connection
    }

    /// Keeps a connection for the next request; false when it is not wanted.
    func keep(_ connection: UpstreamConnection) -> Bool {
        if context.isDraining || !connection.replica.obstacles.isDisjoint(with: [.draining, .down, .disabled])
            || !connections.keep(connection)
        {
            connection.close()
            return false
        }
        return true
    }

    // MARK: requests that wait for a replica

    /// Demand for one service is told at most this often.
    private static let demandInterval = Duration.milliseconds(100)

    func demand(_ service: String) {
        if let last = demanded[service], loop.now < last + GatewayLoop.demandInterval { return }
        demanded[service] = loop.now
        demandBoard.onDemand?(service)
    }

    func queue(of route: Route) -> HoldQueue? { holdQueues[route.label] }

    func holdQueue(_ route: Route) -> HoldQueue {
        if let queue = holdQueues[route.label] { return queue }
        let queue = HoldQueue(self)
        holdQueues[route.label] = queue
        return queue
    }

    /// The current version of a route; nil when there is none that leads to the same place.
    func successor(of route: RouteOnLoop) -> RouteOnLoop? {
        routes.routes.first { $0.route.label == route.route.label && $0.route.spec.target == route.route.spec.target }
    }

    /// Makes waiting requests follow the new routes; queues without a route end.
    private func followRoutes() {
        for (label, queue) in holdQueues {
            let route = routes.routes.first { $0.route.label == label }
            queue.follow(route)
            if route?.route.hold == nil, queue.isEmpty { holdQueues[label] = nil }
        }
    }

    /// Called when a request ends while others wait: it may have waited itself, or its place may go to one that waits.
    func endedWhileHolding(_ exchange: Exchange) {
        exchange.leaveLineAtEnd()
        if let route = exchange.route { queue(of: route.route)?.placeFreed() }
    }

    /// Journals that requests wait for a service, once for each wake.
    func noteHold(_ route: Route, _ hold: RouteHold, _ service: String, _ now: MonotonicTime) {
        guard demandBoard.held(service, at: now, patience: hold.spec.time) else { return }
        let patience = hold.spec.time.brief
        journal.append(
            DecisionRecord(
                .route, subject: service,
                inputs: [.init("route", route.label), .init("replicas", 0), .init("most", hold.spec.most), .init("for", patience)],
                raw: "no replica", outcome: "held",
                sentence:
                    "A request for \(route.label) waits, because \(service) has no replica: up to \(hold.spec.most) wait, each for at "
                    + "most \(patience).",
                flip: "a replica of \(service)"))
    }

    // MARK: notes

    func noteRouting(_ route: RouteOnLoop, _ pool: PoolOnLoop, _ selection: Selection, tries: Int) {
        routed &+= 1
        let isNews = selection.reason == .panic ? route.notePanic(pool, loop.now) : routed % GatewayLoop.routeSample == 1
        if isNews { journal.append(route.record(pool, selection, tries: tries)) }
    }

    /// Logs a message that was refused before it became a request: the log has a line for it, like for any request.
    func noteRefused(_ client: IPAddress?, status: Int, bodyBytes: Int) {
        let exchange = lendExchange()
        exchange.becomeRefusal(client, status: status, bodyBytes: bodyBytes)
        accessLog.line(exchange, replica: "-", total: .zero)
        takeBack(exchange)
    }

    func noteBroken(_ route: RouteOnLoop, _ replica: Replica, _ detail: String) {
        logger.warning("response_broken", .init("route", route.route.label), .init("replica", replica.name), .init("error", detail))
    }

    // MARK: ending

    /// Drains this loop. With `gently`, idle connections may ask once more before they are closed: their clients do not know yet.
    func drain(gently: Bool = false) {
        for listener in listeners { listener.close(keepingQueue: gently) }
        listeners = []
        context.drain(gently: gently)
        http2.drain()
        // Nobody starts a replica for a gateway that ends.
        for queue in holdQueues.values { queue.refuseAll(.holdEnded) }
        connections.closeIdle()
        sessions.closeIdle()
        accessLog.flush()
    }

    var isQuiet: Bool { connectionCount == 0 && handshakes.count == 0 }
    /// Open connections of clients.
    var connectionCount: Int { context.connections.count + http2.connections.count }

    func closeAll() {
        handshakes.closeAll()
        context.closeAll()
        http2.closeAll()
        // They hold this loop's part, which holds them.
        spare = []
        connections.closeIdle()
        sessions.closeIdle()
        accessLog.flush()
        tracer?.end()
    }
}

/// Counts the connections of each client address, over all loops. Counts nothing while no limit is set.
final class ClientCounts: Sendable {
    private let counts = Mutex<[IPAddress: Int]>([:])

    func add(_ address: IPAddress, limit: Int) -> Bool {
        counts.withLock { counts in
            let count = counts[address, default: 0]
            if count >= limit { return false }
            counts[address] = count + 1
            return true
        }
    }

    func remove(_ address: IPAddress) {
        counts.withLock { counts in
            let left = (counts[address] ?? 1) - 1
            counts[address] = left > 0 ? left : nil
        }
    }
}
