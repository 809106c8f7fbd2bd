import Balancing
import Basics
import EventLoops
import HTTP
import Observability
import Resilience
import StackModel

/// One request and its answer, from the arrival of the head to the line in the log. Reused for one request after the other.
///
/// The exchange is the wiring between parts that each know one thing: `RequestState` (what is asked), `OutgoingRequest` (what a replica is
/// sent), `LimitState` (whether it may go on), `AttemptMachine` and `Questions` (who is asked), `AnswerState` and `ClientSide` (what the
/// client gets). What it does stands in files by subject: `begin` and the filters here, the body in `ExchangeBody`, the limits in
/// `ExchangeLimits`, the tries in `ExchangeAttempts`, waiting in `ExchangeHold`, the answer in `ExchangeAnswer`, and tunnels in
/// `ExchangeTunnel`.
final class Exchange {
    let gateway: GatewayLoop
    /// Where the request came from; nil when no request is under way.
    var client: ClientSide?
    /// Number that tells this request from those before and after it.
    private(set) var generation = 0
    var route: RouteOnLoop?
    var pool: PoolOnLoop?

    var request = RequestState()
    var outgoing = OutgoingRequest()
    var limits = LimitState()
    var attempts = AttemptMachine()
    var questions = Questions()
    var wait = HoldState()
    var answer = AnswerState()
    var tunnel = TunnelState()
    /// Whether the route has a cache; then `visit` is the request's way through it.
    var usesCache = false
    /// Whether the client's answer comes from the cache, or through it.
    var isServedByCache = false
    var visit: CacheVisit?

    /// The request's own time.
    private var deadlineTimer: LoopTimer?
    var hedgeTimer: LoopTimer?
    var tunnelTimer: LoopTimer?

    /// When more bytes than this wait on one side, the other side is not read.
    static let window = 256 * 1024

    init(gateway: GatewayLoop) { self.gateway = gateway }

    var loop: EventLoop { gateway.loop }
    var responseTime: Duration { route?.route.spec.timeout.response ?? .seconds(60) }

    // MARK: the head

    /// Begins with a request's head. `table` is valid until this returns; the body follows.
    ///
    /// The order of what may answer a request: no route; the route's filters; a path that could be another route's; `Max-Forwards: 0`; a
    /// body that is too large; the rate limits, which are asked last and answer first; then whatever of the others has found an answer
    /// (`proceed`). A cache belongs there as well: after the limits, before the guards, because what is stored needs no replica.
    func begin(_ client: ClientSide, _ table: HeadTable) {
        reset(chunked: table.framing == .chunked)
        self.client = client
        request.take(table, now: loop.now) { gateway.nextID() }
        request.clientAddress = gateway.settings.clientAddress(table, peer: client.peer.ip, isTrusted: client.comesFromTrusted)
        if let given = table.first(.xMusterExplain) { request.wantsReason = gateway.settings.isAdminToken(given) }
        gateway.accessLog.noteFields(table, into: self)
        if !client.isOrdinary, !enters(client, table) { return }
        guard let found = gateway.routes.find(table) else { return refuse(.noRoute) }
        self.route = found.route
        let onLoop = found.route, route = onLoop.route
        answer.ready = gateway.routes.refusal(found, table)
        for filter in route.filters {
            filter.apply(table, route, client: request.clientAddress, scheme: scheme(table, client), &answer)
        }
        pool = onLoop.main
        if route.spec.balancing.sticky != nil || route.canary != nil { choosePool(table, onLoop) }
        if answer.ready == nil { answer.ready = gateway.routes.verdict(on: table, onLoop) }
        if answer.ready == nil, table.forwardsLeft == 0 { answer.ready = .lastRecipient(trace: HeadRewriter.trace(table)) }
        if case .length(let count) = table.framing, count > route.spec.bodyLimit { answer.ready = answer.ready ?? .failure(.bodyTooLarge) }
        request.key = hashKey(table, route)
        request.settleIdempotency(table, route.spec)
        if route.spec.compresses { request.coding = ContentCoding.wanted(table) }
        if let cache = route.cache, answer.ready == nil {
            lookInCache(cache, table, scheme(table, client), trusted: client.comesFromTrusted)
        }
        if answer.ready?.needsNoHead != true { writeHead(table, route, client) }
        settleAttempts(route)
        if !route.guards.limiters.isEmpty { return askLimits(table, route) }
        proceed()
    }

    func reset(chunked: Bool) {
        generation &+= 1
        route = nil
        pool = nil
        request.reset()
        outgoing.reset(chunked: chunked)
        limits = LimitState()
        attempts.begin()
        questions.reset()
        wait = HoldState()
        answer.reset()
        tunnel = TunnelState()
        usesCache = false
        isServedByCache = false
    }

    /// Tells the tries what the route and the request allow.
    func settleAttempts(_ route: Route) {
        attempts.settle(
            AttemptRules(
                retry: route.retry, hedge: route.spec.retry.hedge, isIdempotent: request.isIdempotent,
                isBare: !request.hasBody && !request.upgrades, deadline: request.deadline))
    }

    /// The scheme that the client used: a trusted proxy may have taken the request over TLS.
    private func scheme(_ table: HeadTable, _ client: ClientSide) -> StaticString {
        if client.comesFromTrusted, let told = table.first(.xForwardedProto) { return told.equals("https") ? "https" : "http" }
        return client.isSecure ? "https" : "http"
    }

    /// Chooses between the route's replicas and its canary, and reads the cookie that names a replica.
    private func choosePool(_ table: HeadTable, _ found: RouteOnLoop) {
        let route = found.route
        if let cookie = route.spec.balancing.sticky, let value = table.cookie(Array(cookie.utf8)), value.count == 16,
            let bytes = decodeHex(value)
        {
            request.sticky = bytes.reduce(0) { $0 << 8 | UInt64($1) }
        }
        guard let canary = route.canary, let other = found.canary else { return }
        let choice = canary.decide(
            headerValue: canary.header.flatMap { table.value(Array($0.utf8)) },
            cookieValue: canary.cookie.flatMap { table.cookie(Array($0.utf8)) },
            draw: gateway.draw())
        pool = choice.toCanary ? other : found.main
        // Who was sent to one of them stays there, unless told otherwise.
        if choice.reason == .share, let sticky = request.sticky {
            if other.replicas.contains(where: { $0.identity == sticky }) {
                pool = other
            } else if found.main.replicas.contains(where: { $0.identity == sticky }) {
                pool = found.main
            }
        }
    }

    private func hashKey(_ table: HeadTable, _ route: Route) -> UInt64? {
        let address = request.clientAddress
        switch route.method {
        case .ipHash: return address.map { ClientAddressKey.network(ipv6High: $0.high, low: $0.low) }
        case .hash(let source):
            switch source {
            case .trace: return traceKey(table)
            case .path: return RendezvousHash.key(PathRules.path(table.targetText))
            case .clientAddress: return address.map { ClientAddressKey.address(ipv6High: $0.high, low: $0.low) }
            case .header(let name): return table.value(Array(name.utf8)).map { RendezvousHash.key($0) }
            case .cookie(let name): return table.cookie(Array(name.utf8)).map { RendezvousHash.key($0) }
            }
        default: return nil
        }
    }

    private func writeHead(_ table: HeadTable, _ route: Route, _ client: ClientSide) {
        var forwarding = Forwarding()
        forwarding.client = request.clientAddress
        forwarding.isTrusted = client.comesFromTrusted
        forwarding.peer = client.peer.ip
        if client.isSecure {
            forwarding.isSecure = true
            forwarding.certificate = client.certificateLines
        }
        if usesCache { prepare(&forwarding) }
        switch rewritten(table, route) {
        case .refused(let why)?:
            answer.ready = .failure(.badPath, why)
            return
        case .to(let target)?: forwarding.target = target
        case .stays?, nil: break
        }
        forwarding.host = route.host
        forwarding.guarded = gateway.routes.fieldsGoneBy
        if route.spec.speaksHTTP2 { outgoing.leaveFramingOut() }
        if !route.spec.speaksHTTP2, let wanted = table.upgrade,
            route.upgrades.contains(where: { $0.withUnsafeBytes { equalIgnoringCase($0, wanted) } })
        {
            forwarding.upgrade = wanted
            request.upgrades = true
        }
        request.settleDeadline(table, route.spec)
        if let deadline = request.deadline {
            forwarding.hasDeadline = forwarding.cached?.isFetch != true
            schedule(deadline)
        }
        if let tracer = gateway.tracer {
            let (context, parent) = tracer.context(for: table)
            request.trace = context
            request.parentSpan = parent
            forwarding.trace = context
            forwarding.beginsTrace = parent == 0
        }
        let id = request.id
        outgoing.writeHead { HeadRewriter.request(table, into: &$0, forwarding, id: id, edits: route.requestEdits) }
    }

    /// What becomes of the target: a route with a cache does not send on what is not in its key.
    private func rewritten(_ table: HeadTable, _ route: Route) -> Rewrite.Outcome? {
        guard usesCache, let target = visit?.target else { return route.rewrite?.apply(table.targetText) }
        let outcome = route.rewrite.map { rewrite in target.withUnsafeBytes { rewrite.apply($0) } }
        if case .stays? = outcome { return .to(target) }
        return outcome ?? .to(target)
    }

    /// Sets the time by which there must be an answer.
    func schedule(_ deadline: MonotonicTime) {
        if deadlineTimer == nil { deadlineTimer = LoopTimer(loop: loop) { [unowned self] in deadlinePassed() } }
        deadlineTimer?.schedule(at: deadline)
    }

    private func deadlinePassed() {
        guard let route, case .giveUp(let why) = attempts.take(.deadline, now: loop.now, budget: &route.budget).action else { return }
        // Only a replica whose turn it was for half of the time or more: the rest may be the client's slowness, a wait, or another replica.
        if let time = request.routesTime, let first = questions.first, let since = first.upstream.turnBegan,
            loop.now - since >= time / 2
        {
            noteFailure(first.replica, .responseTimeout, "the request's time was over", .replica)
        }
        abandonAttempts()
        refuse(GatewayFailure(why))
    }

    // MARK: the end

    /// Ends the exchange because its body was malformed or came too slowly.
    func requestRefused(_ status: Int, bodyBytes: Int) {
        guard attempts.isOpen else { return }
        answer.status = status
        answer.bytes = bodyBytes
        abandonAttempts()
        finish()
    }

    /// Takes what the log needs of a refused message that never became a request: who sent it, and what was answered.
    func becomeRefusal(_ address: IPAddress?, status: Int, bodyBytes: Int) {
        reset(chunked: false)
        attempts.end()
        request.clientAddress = address
        answer.status = status
        answer.bytes = bodyBytes
    }

    func clientGone() {
        guard attempts.state != .idle else { return }
        // 499: nginx's number for a client that went away.
        if !answer.hasBegun { answer.status = 499 }
        abandonAttempts()
        finish()
    }

    func stopTimers() {
        deadlineTimer?.cancel()
        hedgeTimer?.cancel()
        tunnelTimer?.cancel()
    }

    /// Counts and logs the exchange and gives it back for the next request.
    func finish() {
        guard attempts.state != .idle, let client else { return }
        if attempts.state == .tunnel { route?.route.metrics.tunnels.add(-1) }
        attempts.end()
        stopTimers()
        if gateway.held > 0 { gateway.endedWhileHolding(self) }
        let answered = questions.first?.replica ?? (answer.status < 500 ? questions.lastReplica : nil)
        questions.first?.replica.ended()
        questions.first = nil
        let now = MonotonicTime.now, total = now - request.started, isFill = client.isFill
        if let route = route?.route {
            leaveGuards(route.guards, now)
            if !isFill {
                route.metrics.classes[min(max(answer.status / 100, 1), 5) - 1].add()
                route.metrics.duration.observe(total)
                gateway.recent.note(self, route, total: total)
            }
        } else {
            gateway.unrouted.add()
        }
        if request.isHTTP2 { gateway.http2.requests.add() }
        if !isServedByCache, let replica = questions.lastReplica {
            if request.bodyCount > 0 { replica.bytesIn.add(request.bodyCount) }
            if answer.bytes > 0 { replica.bytesOut.add(answer.bytes) }
        }
        if !isFill { gateway.accessLog.line(self, replica: answered?.name ?? "-", total: total) }
        if usesCache { leaveCache() }
        if let trace = request.trace, trace.isSampled { gateway.tracer?.add(self, trace, total: total) }
        self.client = nil
        client.giveBack(self)
    }
}
