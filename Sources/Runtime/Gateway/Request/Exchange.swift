import Balancing
import Basics
import EventLoops
import HTTP
import Observability
import Resilience
import StackModel

/// One request and its answer, from the arrival of the head to the line in the log. Reused for one request after the other.
///
/// The request, as it goes to a replica, is gathered in `outgoing` and sent when a read is finished, so that head and body leave in
/// one write. As long as it fits into the route's `retry.body` it stays there for another try; beyond it, it is only passed
/// through and the exchange has one try.
final class Exchange {
    /// A question to one replica.
    struct Attempt {
        let upstream: UpstreamConnection
        let replica: Replica
        let selection: Selection
        /// Whether a second replica is asked when this one takes its time.
        let hedges: Bool
    }

    let gateway: GatewayLoop
    let context: HTTPServerContext
    var client: ProxyConnection!
    /// Number that tells this request from those before and after it.
    private(set) var generation = 0

    // The request.
    var route: RouteOnLoop?
    var pool: PoolOnLoop?
    var outgoing = ByteBuffer()
    /// Method, target and id, as the log wants them.
    var line = ByteBuffer()
    var methodEnd = 0
    var targetEnd = 0
    /// Whole lines to be added to the head of the response.
    var additions = ByteBuffer()
    var sent = 0
    var chunksRequest = false
    var requestIsComplete = false
    var isHead = false
    var isOld = false
    var isIdempotent = false
    var hasBody = false
    var bodyCount = 0
    var clientAddress: IPAddress?
    var host: [UInt8] = []
    var userAgent: [UInt8] = []
    /// The answer that needs no replica, once the limits have let the request through.
    var ready: ReadyAnswer?
    /// Key for hash balancing; the replica named by the client's sticky cookie.
    var key: UInt64?
    var sticky: UInt64?
    /// Whether the request is held: it waits for a limit's word, or for a replica.
    var isHeld = false
    /// The request's place in line while it waits for a replica.
    var place: HoldPlace?
    /// How long the request waited for a replica.
    var held = Duration.zero
    var awaited = 0
    /// How long a request that the limits allow must still be delayed.
    var patience = Duration.zero
    var verdict: TokenBucket.Verdict?
    var verdictLimit = 0
    var deadline: MonotonicTime?
    var deadlineAt = 0
    /// The time that the route itself gives, if that is less than the client's own: a replica whose turn has lasted half of it or more has
    /// failed. nil: the client wants less, and nobody has failed.
    private var routesTime: Duration?
    var upgrade = false
    /// Whether the route's guards have let the request in, and (`isJudged`) whether they have been told how it went.
    var hasPlace = false
    var guardPlace = RouteGuards.Place()
    var isJudged = false
    var trace: TraceContext?
    var parentSpan: UInt64 = 0
    var wantsReason = false

    // The tries.
    var attempts = AttemptMachine()
    var first: Attempt?
    var second: Attempt?
    var tried = TriedSet()
    var selection: Selection?
    var lastReplica: Replica?
    /// The candidates when the choice was made: requests under way and state of each.
    var candidates: [UInt32] = []
    var timer: LoopTimer?
    var hedgeTimer: LoopTimer?
    var tunnelTimer: LoopTimer?

    // The response.
    var bodyPassing = HeadRewriter.Passing.none
    var started = MonotonicTime(nanoseconds: 0)
    var sentWhole = MonotonicTime(nanoseconds: 0)
    var upstreamTime: Duration?
    var status = 0
    /// Whether the head of an answer has been given to the client's connection.
    var hasBegun = false
    var responseBytes = 0
    /// When something last passed through the tunnel.
    var lastMoved = MonotonicTime(nanoseconds: 0)
    var clientEnded = false
    var upstreamEnded = false

    enum ReadyAnswer {
        case failure(GatewayFailure)
        case page(status: Int, body: [UInt8], type: String)
        case redirect(to: String, status: Int)
        case preflight
        /// For a request that may not be passed on any further (`Max-Forwards: 0`). `trace`: what a TRACE sees of itself; nil for OPTIONS.
        case lastRecipient(trace: [UInt8]?)
    }

    /// When more bytes than this wait on one side, the other side is not read.
    static let window = 256 * 1024

    init(gateway: GatewayLoop) {
        self.gateway = gateway
        context = gateway.context
    }

    var loop: EventLoop { gateway.loop }
    var responseTime: Duration { route?.route.spec.timeout.response ?? .seconds(60) }
    var method: UnsafeRawBufferPointer { line.bytes.part(0, methodEnd) }
    var target: UnsafeRawBufferPointer { line.bytes.part(methodEnd, targetEnd - methodEnd) }
    var id: UnsafeRawBufferPointer { line.bytes.part(targetEnd, line.count - targetEnd) }

    // MARK: the request

    func begin(_ client: ProxyConnection, _ table: HeadTable) {
        reset()
        self.client = client
        started = loop.now
        attempts.begin()
        isHead = table.isHead
        isOld = table.minorVersion == 0
        hasBody = table.framing != .none
        chunksRequest = table.framing == .chunked
        line.append(table.methodText)
        methodEnd = line.count
        line.append(table.targetText)
        targetEnd = line.count
        if let given = table.first(.xRequestID), HeadRewriter.acceptable(given) {
            line.append(given)
        } else {
            HeadRewriter.hex(gateway.nextID(), into: &line)
        }
        clientAddress = gateway.settings.clientAddress(table, peer: client.peer.ip, isTrusted: client.comesFromTrusted)
        if let given = table.first(.xMusterExplain) { wantsReason = gateway.settings.isAdminToken(given) }
        gateway.accessLog.noteFields(table, into: self)
        guard let found = gateway.routes.find(table) else { return answer(.noRoute) }
        route = found
        let route = found.route
        if !route.isPlain || route.canary != nil || route.spec.balancing.sticky != nil { prepareRules(table, found) }
        pool = pool ?? found.main
        if ready == nil { ready = verdictOfPath(table, found) }
        if ready == nil, table.forwardsLeft == 0 { ready = .lastRecipient(trace: Exchange.trace(table)) }
        key = hashKey(table, route)
        isIdempotent =
            route.spec.isIdempotent || table.methodIsIdempotent
            || (table.contains(.idempotencyKey) && !isNominated(table, "idempotency-key"))
        if case .length(let count) = table.framing, count > route.spec.bodyLimit { ready = ready ?? .failure(.bodyTooLarge) }
        if ready == nil { writeHead(table, route) }
        settleAttempts(route)
        if !route.guards.limiters.isEmpty { return askLimits(table, route) }
        proceed()
    }

    /// Tells the tries what the route and the request allow.
    func settleAttempts(_ route: Route) {
        let retry = route.spec.retry
        attempts.settle(
            AttemptRules(
                retry: route.retry, hedge: retry.hedge, isIdempotent: isIdempotent, isBare: !hasBody && !upgrade, deadline: deadline))
    }

    private func verdictOfPath(_ table: HeadTable, _ found: RouteOnLoop) -> ReadyAnswer? {
        PathForm.isAmbiguous(table.targetText) || gateway.routes.mayMeanAnother(table, than: found) ? .failure(.badPath) : nil
    }

    /// The request as it came, for the answer to a TRACE, without what may be secret (RFC 9110, 9.3.8); nil when it is no TRACE.
    private static func trace(_ table: HeadTable) -> [UInt8]? {
        guard table.methodText.isExactly("TRACE") else { return nil }
        var text = Array(table.methodText) + [32] + Array(table.targetText) + Array(" HTTP/1.\(table.minorVersion)\r\n".utf8)
        for field in table.fields where [.host, .via, .maxForwards, .connection].contains(field.known) {
            text += Array(table.text(field.name)) + [58, 32] + Array(table.text(field.value)) + [13, 10]
        }
        return text + [13, 10]
    }

    private func isNominated(_ table: HeadTable, _ name: StaticString) -> Bool {
        table.nominatesFields && table.fields.contains { table.text($0.name).equals(name) && table.isNominated($0.name) }
    }

    private func reset() {
        generation &+= 1
        route = nil
        pool = nil
        outgoing.clear(keeping: 16_384)
        line.clear(keeping: 16_384)
        methodEnd = 0
        targetEnd = 0
        additions.clear(keeping: 4096)
        sent = 0
        requestIsComplete = false
        bodyCount = 0
        host = []
        userAgent = []
        ready = nil
        key = nil
        sticky = nil
        isHeld = false
        held = .zero
        awaited = 0
        patience = .zero
        verdict = nil
        deadline = nil
        deadlineAt = 0
        upgrade = false
        hasPlace = false
        guardPlace = RouteGuards.Place()
        isJudged = false
        trace = nil
        parentSpan = 0
        wantsReason = false
        tried = TriedSet()
        selection = nil
        lastReplica = nil
        candidates.removeAll(keepingCapacity: true)
        bodyPassing = .none
        upstreamTime = nil
        sentWhole = MonotonicTime(nanoseconds: 0)
        status = 0
        hasBegun = false
        responseBytes = 0
        clientEnded = false
        upstreamEnded = false
    }

    /// Applies everything of a route that looks at the head before a replica is chosen.
    private func prepareRules(_ table: HeadTable, _ found: RouteOnLoop) {
        let route = found.route, access = route.access
        ready = verdictOfRules(table, route)
        if let cors = access.cors, case .preflight? = ready {
            additions.append(text: cors.lines(table, isPreflight: true))
        } else if let cors = access.cors {
            additions.append(text: cors.lines(table, isPreflight: false))
        }
        if let cookie = route.spec.balancing.sticky, let value = table.cookie(Array(cookie.utf8)), value.count == 16,
            let bytes = decodeHex(value)
        {
            sticky = bytes.reduce(0) { $0 << 8 | UInt64($1) }
        }
        guard let canary = route.canary, let other = found.canary else { return }
        let choice = canary.decide(
            headerValue: canary.header.flatMap { table.value(Array($0.utf8)) },
            cookieValue: canary.cookie.flatMap { table.cookie(Array($0.utf8)) },
            draw: gateway.draw())
        if choice.toCanary { pool = other } else { pool = found.main }
        // Who was sent to one of them stays there, unless told otherwise.
        if choice.reason == .share, let sticky {
            if other.replicas.contains(where: { $0.identity == sticky }) {
                pool = other
            } else if found.main.replicas.contains(where: { $0.identity == sticky }) {
                pool = found.main
            }
        }
    }

    private func verdictOfRules(_ table: HeadTable, _ route: Route) -> ReadyAnswer? {
        let access = route.access
        if !access.admits(clientAddress) { return .failure(.addressRefused) }
        if !route.deny.isEmpty {
            // As the client wrote it, and as the backend will be asked for it.
            if PathRules.isDenied(table.targetText, route.deny) { return .failure(.denied) }
            if let rewritten = route.rewrite?.apply(table.targetText), rewritten.withUnsafeBytes({ PathRules.isDenied($0, route.deny) }) {
                return .failure(.denied)
            }
        }
        if access.cors != nil, CrossOrigin.isPreflight(table) { return .preflight }
        if let credentials = access.credentials, !credentials.admits(table.value(Array("authorization".utf8))) {
            additions.append(text: "WWW-Authenticate: \(credentials.challenge)\r\n")
            return .failure(.unauthorized)
        }
        switch route.answer {
        case .page(let status, let body, let type)?: return .page(status: status, body: body, type: type)
        case .redirect(let template, let status)?:
            let target = table.targetText.string, host = (table.first(.host) ?? table.targetText.part(0, 0)).string
            // HTTP/1.0 need not name a host.
            if host.isEmpty, template.names("host") { return .failure(.noHost) }
            guard let place = template.place(scheme: scheme(table), host: host, target: target) else { return .failure(.badPath) }
            return .redirect(to: place, status: status)
        case nil: return nil
        }
    }

    /// The scheme that the client used: a trusted proxy may have taken the request over TLS.
    private func scheme(_ table: HeadTable) -> String {
        client.comesFromTrusted && table.first(.xForwardedProto)?.equals("https") == true ? "https" : "http"
    }

    private func hashKey(_ table: HeadTable, _ route: Route) -> UInt64? {
        switch route.method {
        case .ipHash: return clientAddress.map { ClientAddressKey.network(ipv6High: $0.high, low: $0.low) }
        case .hash(let source):
            switch source {
            case .trace: return traceKey(table)
            case .path: return RendezvousHash.key(PathRules.path(table.targetText))
            case .clientAddress:
                return clientAddress.map { ClientAddressKey.address(ipv6High: $0.high, low: $0.low) }
            case .header(let name): return table.value(Array(name.utf8)).map { RendezvousHash.key($0) }
            case .cookie(let name): return table.cookie(Array(name.utf8)).map { RendezvousHash.key($0) }
            }
        default: return nil
        }
    }

    private func writeHead(_ table: HeadTable, _ route: Route) {
        var forwarding = Forwarding()
        forwarding.client = clientAddress
        forwarding.isTrusted = client.comesFromTrusted
        forwarding.peer = client.peer.ip
        forwarding.target = route.rewrite?.apply(table.targetText)
        forwarding.host = route.host
        if let wanted = table.upgrade, route.upgrades.contains(where: { $0.withUnsafeBytes { equalIgnoringCase($0, wanted) } }) {
            forwarding.upgrade = wanted
            upgrade = true
        }
        if route.spec.timeout.total != nil || table.contains(.xRequestTimeout) { settleDeadline(table, route) }
        forwarding.hasDeadline = deadline != nil
        if let tracer = gateway.tracer {
            let (context, parent) = tracer.context(for: table)
            trace = context
            parentSpan = parent
            forwarding.trace = context
            forwarding.beginsTrace = parent == 0
        }
        deadlineAt = HeadRewriter.request(table, into: &outgoing, forwarding, id: id, edits: route.requestEdits)
    }

    /// Sets the deadline: the shorter of the route's time and the client's. A client's time without a unit is not guessed at.
    private func settleDeadline(_ table: HeadTable, _ route: Route) {
        var time = route.spec.timeout.total
        routesTime = time
        if let given = table.first(.xRequestTimeout), given.count <= 16, let wish = Duration(text: given.string), wish > .zero,
            wish < time ?? .seconds(9_999)
        {
            time = wish
            routesTime = nil
        }
        // More than the digits hold is no deadline that anybody waits for.
        guard let time, time < .seconds(9_999) else { return }
        deadline = started + time
        if timer == nil { timer = LoopTimer(loop: loop) { [unowned self] in deadlinePassed() } }
        timer?.schedule(at: deadline!)
    }

    private func deadlinePassed() {
        guard let route, case .giveUp(let why) = attempts.take(.deadline, now: loop.now, budget: &route.budget).action else { return }
        // Only a replica whose turn it was for half of the time or more: the rest may be the client's slowness, a wait, or another replica.
        if let time = routesTime, let first, let since = first.upstream.turnBegan, loop.now - since >= time / 2 {
            noteFailure(first.replica, .responseTimeout, "the request's time was over", .replica)
        }
        abandonAttempts()
        answer(GatewayFailure(why))
    }

    // MARK: the body

    /// Whether the request still goes to a replica.
    private var isWanted: Bool { attempts.isOpen || (attempts.state == .answering && first != nil) }

    func requestBody(_ bytes: UnsafeRawBufferPointer) {
        // A replica that answers before it has read everything still gets the rest.
        guard isWanted else { return }
        bodyCount += bytes.count
        if let limit = route?.route.spec.bodyLimit, bodyCount > limit { return bodyTooLarge() }
        if chunksRequest {
            outgoing.append(hex: bytes.count)
            outgoing.append("\r\n")
        }
        outgoing.append(bytes)
        if chunksRequest { outgoing.append("\r\n") }
        if outgoing.count - sent > 65_536 { sendOn() }
    }

    private func bodyTooLarge() {
        abandonAttempts()
        if attempts.isOpen { return answer(.bodyTooLarge) }
        let client = client!
        finish()
        client.resetOnClose()
        client.close()
    }

    func requestEnd() {
        guard isWanted else { return }
        requestIsComplete = true
        if hasPlace { route?.route.guards.becameWhole(&guardPlace) }
        if chunksRequest { outgoing.append("0\r\n\r\n") }
        sendOn()
    }

    func requestReadFinished() {
        guard isWanted else { return }
        sendOn()
        // It is the client's turn: what it takes its time for must not keep others from trying.
        if !requestIsComplete { route?.route.guards.handOn(&guardPlace) }
    }

    /// Sends the replica what has been gathered, choosing it first if need be.
    func sendOn() {
        if isHeld {
            // Of one that waits for a replica no body is read; when it is all here, its client's going is to be seen.
            if place != nil {
                if requestIsComplete { client.holdBody(false) }
            } else if outgoing.count > Exchange.window {
                client.holdBody(true)
            }
            return
        }
        guard outgoing.count > sent || first == nil else { return }
        if first == nil, !connectToNext() { return }
        guard let upstream = first?.upstream else { return }
        upstream.send(outgoing.bytes.part(sent, outgoing.count - sent))
        sent = outgoing.count
        if requestIsComplete { sentWhole = loop.now }
        upstream.watchAnswer()
        if outgoing.count > (route?.route.spec.retry.keptBody ?? 0) + 32_768, !requestIsComplete || outgoing.count > 1 << 20 {
            forgetBody()
        }
        if upstream.waiting > Exchange.window { client.holdBody(true) }
    }

    /// Stops keeping the request for another try, because it is too large.
    private func forgetBody() {
        attempts.forgotBody()
        outgoing.clear(keeping: 131_072)
        sent = 0
    }

    // MARK: the client

    /// Ends the exchange because its body was malformed or came too slowly.
    func requestRefused(_ status: Int, bodyBytes: Int) {
        guard attempts.isOpen else { return }
        self.status = status
        responseBytes = bodyBytes
        abandonAttempts()
        finish()
    }

    /// Takes what the log needs of a refused message that never became a request: who sent it, and what was answered.
    func becomeRefusal(_ client: ProxyConnection, status: Int, bodyBytes: Int) {
        reset()
        clientAddress = client.peer.ip
        self.status = status
        responseBytes = bodyBytes
    }

    func clientGone() {
        guard attempts.state != .idle else { return }
        // 499: nginx's number for a client that went away.
        if !hasBegun { status = 499 }
        abandonAttempts()
        finish()
    }

    func setSticky(_ cookie: String, on replica: Replica) {
        guard sticky != replica.identity else { return }
        additions.append(text: "Set-Cookie: \(cookie)=")
        HeadRewriter.hex(replica.identity, into: &additions)
        additions.append("; Path=/; HttpOnly; SameSite=Lax\r\n")
    }
}
