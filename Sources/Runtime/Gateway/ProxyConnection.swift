import Balancing
import Basics
import EventLoops
import HTTP
import Resilience

/// A client's connection to the gateway, and the exchange that is under way on it.
///
/// The request, as it goes to a replica, is gathered in `outgoing` and sent when a read is finished, so that head and body leave in
/// one write. As long as it fits into the route's `retry.body` it stays there for another try; beyond it, it is only passed
/// through and the exchange has one try.
final class ProxyConnection: HTTPServerConnection {
    private enum Phase {
        /// No request is under way.
        case idle
        /// A request is under way; nothing of a response has been sent to the client.
        case asking
        /// The response's head has been sent (or gathered).
        case responding
    }

    private let gateway: GatewayLoop
    private let peerText: [UInt8]
    private var phase = Phase.idle
    private var route: RouteOnLoop?
    private var upstream: UpstreamConnection?
    private var replica: Replica?
    private var outgoing = ByteBuffer()
    private var sent = 0
    private var keepsBody = true
    private var bodyPassing = HeadRewriter.Passing.none
    private var chunksRequest = false
    private(set) var requestIsComplete = false
    private var lastFailure = TryFailure.notSent
    private var isHead = false
    private var isOld = false
    private var isIdempotent = false
    private var tried = TriedSet()
    private var tries = 0
    /// What a hash goes by.
    private var key: UInt64?
    private var marks = HeadRewriter.Marks()
    private var markBytes = ByteBuffer()
    private var bodyCount = 0
    private var started = MonotonicTime(nanoseconds: 0)
    private var status = 0
    private var responseBytes = 0

    /// With more than this waiting on one side, the other side is not read.
    private static let window = 256 * 1024

    init(gateway: GatewayLoop, peer: SocketAddress) {
        self.gateway = gateway
        peerText = Array((peer.port == nil ? "unix" : peer.host).utf8)
        super.init(context: gateway.context, peer: peer)
    }

    var responseTime: Duration { route?.route.spec.responseTime ?? .seconds(60) }

    // MARK: the request

    override func requestHead(_ table: HeadTable) {
        started = loop.now
        phase = .asking
        tried = TriedSet()
        tries = 0
        status = 0
        responseBytes = 0
        sent = 0
        keepsBody = true
        requestIsComplete = false
        isHead = table.isHead
        isOld = table.minorVersion == 0
        chunksRequest = table.framing == .chunked
        outgoing.clear()
        marks = HeadRewriter.request(table, into: &outgoing, peer: peerText, nextID: gateway.nextID)
        guard let found = gateway.routes.find(table.targetText) else {
            route = nil
            return answer(.noRoute)
        }
        route = found
        let spec = found.route.spec
        key = found.route.method == .hashTrace ? traceKey(table) : nil
        if !found.route.deny.isEmpty, isDenied(table.targetText, found.route) { return answer(.denied) }
        if hasDotSegments(table.targetText) { return answer(.badPath) }
        isIdempotent = spec.isIdempotent || table.methodIsIdempotent || table.contains(.idempotencyKey)
        bodyCount = 0
        if case .length(let count) = table.framing, count > spec.bodyLimit { return answer(.bodyTooLarge) }
        found.budget.requestArrived(loop.now)
    }

    /// Compared with the path as it is, and as a backend may read it: escapes, doubled slashes and parameters must not open what is
    /// denied. (Dot segments are refused altogether.)
    private func isDenied(_ target: UnsafeRawBufferPointer, _ route: Route) -> Bool {
        for prefix in route.deny where Route.matches(prefix, target) { return true }
        guard target.contains(37) || target.contains(59) || target.string.contains("//") else { return false }
        let path = target.string.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)[0]
        guard let decoded = percentDecoded(path) else { return true }
        let segments = decoded.split(separator: "/").map { $0.prefix { $0 != ";" } }
        let normal = Array(("/" + segments.joined(separator: "/")).utf8)
        return route.deny.contains { prefix in normal.withUnsafeBytes { Route.matches(prefix, $0) } }
    }

    /// `.` and `..` as segments, escaped or not: a client resolves them before it asks (RFC 3986, 5.2.4), and a route chosen before a
    /// backend resolves them would not be the route of what is served.
    private func hasDotSegments(_ target: UnsafeRawBufferPointer) -> Bool {
        guard target.contains(46) || target.contains(37) else { return false }
        let path = target.string.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)[0]
        for segment in path.split(separator: "/") {
            let plain = segment.lowercased().split(separator: ";", omittingEmptySubsequences: false)[0]
            if [".", "..", "%2e", ".%2e", "%2e.", "%2e%2e"].contains(plain) { return true }
        }
        return false
    }

    override func requestBody(_ bytes: UnsafeRawBufferPointer) {
        // A replica that answers before it has read everything still gets the rest.
        guard phase == .asking || (phase == .responding && upstream != nil) else { return }
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
        upstream?.abandon()
        upstream = nil
        if phase == .asking { return answer(.bodyTooLarge) }
        finish()
        resetOnClose()
        close()
    }

    override func requestEnd() {
        guard phase == .asking || (phase == .responding && upstream != nil) else { return }
        requestIsComplete = true
        if chunksRequest { outgoing.append("0\r\n\r\n") }
        sendOn()
    }

    override func readFinished() { if phase == .asking || (phase == .responding && upstream != nil) { sendOn() } }

    /// Gives the replica what has been gathered, choosing it first if need be.
    private func sendOn() {
        guard outgoing.count > sent || upstream == nil else { return }
        if upstream == nil, !connectToNext() { return }
        guard let upstream else { return }
        upstream.send(outgoing.bytes.part(sent, outgoing.count - sent))
        sent = outgoing.count
        upstream.watchAnswer()
        if outgoing.count > (route?.route.spec.keptBody ?? 0) + 32_768, !requestIsComplete || outgoing.count > 1 << 20 { forgetBody() }
        if upstream.waiting > ProxyConnection.window { holdBody(true) }
    }

    /// The request is too large to be kept for another try.
    private func forgetBody() {
        if keepsBody {
            keepsBody = false
            markBytes.clear()
            markBytes.append(outgoing.bytes.part(0, marks.id.upperBound))
        }
        outgoing.clear(keeping: 131_072)
        sent = 0
    }

    private func connectToNext() -> Bool {
        // When every replica has been tried, one that failed may have come back (or its connection was merely stale).
        guard let route, let (next, place, reason) = route.pick(tried, key: key) ?? (tries > 0 ? route.pick(TriedSet(), key: key) : nil) else {
            answer(tries > 0 ? GatewayFailure(lastFailure) : .noReplica)
            return false
        }
        tried.insert(place)
        tries += 1
        replica = next
        next.requests.add()
        next.began()
        gateway.noteRouting(route, next, reason, tries: tries)
        upstream = gateway.connection(to: next)
        let spec = route.route.spec
        upstream!.take(self, isHead: isHead, connectTime: spec.connectTime)
        return true
    }

    // MARK: the response

    func upstreamHead(_ table: HeadTable) {
        guard phase == .asking else { return }
        phase = .responding
        replica?.succeeded()
        status = table.status
        let close = mustClose()
        context.scratch.clear()
        bodyPassing = HeadRewriter.response(
            table, into: &context.scratch, id: mark(marks.id), clientIsOld: isOld, close: close)
    }

    func upstreamBody(_ bytes: UnsafeRawBufferPointer) {
        responseBytes += bytes.count
        if bodyPassing == .chunked {
            context.scratch.append(hex: bytes.count)
            context.scratch.append("\r\n")
        }
        context.scratch.append(bytes)
        if bodyPassing == .chunked { context.scratch.append("\r\n") }
    }

    func upstreamReadFinished() {
        flushScratch()
        if waiting > ProxyConnection.window { upstream?.pauseReading() }
        watchWriting()
    }

    private func flushScratch() {
        if context.scratch.isEmpty { return }
        write(context.scratch.bytes)
        context.scratch.clear(keeping: 262_144)
    }

    func upstreamEnd() {
        guard isOpen else { return finish() }
        if bodyPassing == .chunked { context.scratch.append("0\r\n\r\n") }
        flushScratch()
        let close = bodyPassing == .untilClose
        finish()
        responseFinished(close: close)
    }

    func upstreamDrained() { holdBody(false) }

    override func drained() {
        if let upstream, upstream.isPaused {
            upstream.resumeReading()
            upstream.watchAnswer()
        }
        super.drained()
    }

    // MARK: failure

    func upstreamFailed(_ failure: TryFailure, _ detail: String) {
        let failed = replica
        releaseReplica()
        upstream = nil
        guard phase != .idle, let route, let failed else { return }
        route.route.metrics.failures.add()
        if let ejection = failed.failed(loop.now, cause: detail) { gateway.journal.append(ejection) }
        lastFailure = failure
        if phase == .responding {
            context.scratch.clear()
            // The client has a part of an answer: only a broken connection tells it that the rest is missing.
            gateway.noteBroken(route, failed, detail)
            finish()
            resetOnClose()
            return close()
        }
        let now = loop.now
        let verdict = route.route.retry.verdict(failure, tries: tries, isIdempotent: isIdempotent, bodyIsHere: keepsBody) {
            route.budget.tryRetry(now)
        }
        gateway.journal.append(
            route.route.retry.record(
                verdict, failure, tries: tries, isIdempotent: isIdempotent, subject: failed.name, budget: route.budget.inputs))
        guard verdict == .retry else { return answer(GatewayFailure(failure)) }
        route.route.metrics.retries.add()
        sent = 0
        holdBody(false)
        sendOn()
    }

    /// Answers for the backend.
    private func answer(_ failure: GatewayFailure) {
        guard isOpen, phase == .asking else { return }
        phase = .responding
        status = failure.status
        let close = mustClose()
        let body = "{\"error\":{\"code\":\"\(failure.rawValue)\",\"message\":\"\(failure.message)\"}}\n"
        context.scratch.clear()
        context.scratch.append(
            text: "HTTP/1.1 \(failure.status) \(reasonPhrase(failure.status))\r\nContent-Type: application/json\r\nContent-Length: \(body.utf8.count)\r\n")
        context.scratch.append(context.dateLine())
        context.scratch.append("X-Request-Id: ")
        context.scratch.append(mark(marks.id))
        context.scratch.append("\r\n")
        if failure.status == 503 { context.scratch.append("Retry-After: 1\r\n") }
        if close { context.scratch.append("Connection: close\r\n") }
        context.scratch.append("\r\n")
        if !isHead { context.scratch.append(text: body) }
        responseBytes = body.utf8.count
        flushScratch()
        finish()
        responseFinished(close: close)
    }

    // MARK: the end

    private func mark(_ range: Range<Int>) -> UnsafeRawBufferPointer {
        (keepsBody ? outgoing.bytes : markBytes.bytes).part(range.lowerBound, range.count)
    }

    private func releaseReplica() {
        replica?.ended()
        replica = nil
    }

    /// Counts and logs the exchange and forgets it.
    private func finish() {
        guard phase != .idle else { return }
        phase = .idle
        context.scratch.clear(keeping: 262_144)
        let name = replica?.name ?? "-"
        releaseReplica()
        upstream = nil
        let total = MonotonicTime.now - started
        if let metrics = route?.route.metrics {
            metrics.classes[min(max(status / 100, 1), 5) - 1].add()
            metrics.duration.observe(total)
        } else {
            gateway.unrouted.add()
        }
        gateway.accessLog.line(
            peer: peerText, method: mark(marks.method), target: mark(marks.target), status: status, bytes: responseBytes,
            replica: name, total: total, tries: tries, id: mark(marks.id))
        outgoing.clear(keeping: 0)
        markBytes.clear(keeping: 0)
        route = nil
    }

    override func requestRefused(_ status: Int) {
        // The exchange (if one had begun) ends here: its body was malformed or came too slowly.
        if phase == .asking {
            self.status = status
            upstream?.abandon()
            finish()
        }
    }

    override func connectionClosed(_ reason: CloseReason) {
        guard phase != .idle else { return }
        // 499: nginx's number for a client that went away.
        if phase == .asking { status = 499 }
        upstream?.abandon()
        finish()
    }
}
