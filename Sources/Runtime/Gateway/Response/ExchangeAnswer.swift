import Basics
import EventLoops
import HTTP
import Resilience

/// The response: a replica's, passed on, or one of the gateway's own.
extension Exchange {
    func upstreamHead(_ upstream: UpstreamConnection, _ table: HeadTable) {
        guard let route else { return }
        let side: AttemptSide = second?.upstream === upstream ? .second : .first
        let head = AttemptEvent.head(side, upgrades: table.status == 101)
        guard case .answer(_, let abandoned) = attempts.take(head, now: loop.now, budget: &route.budget).action else { return }
        if abandoned != nil { keepWinner(side) }
        guard let replica = first?.replica else { return }
        hasBegun = true
        stopTimers()
        status = table.status
        noteAnswer(replica, route)
        if let cookie = route.route.spec.balancing.sticky { setSticky(cookie, on: replica) }
        if wantsReason { writeReason() }
        let isUpgrade = status == 101
        let close = isUpgrade ? false : client.mustClose()
        context.scratch.clear()
        bodyPassing = HeadRewriter.response(
            table, into: &context.scratch,
            .init(
                id: id, lines: additions.bytes, edits: route.route.responseEdits, date: context.dateLine(), clientIsOld: isOld,
                close: close,
                upgrade: isUpgrade))
        if isUpgrade { beginTunnel() }
    }

    /// Passes an interim response on at once (RFC 9110, 15.2). None goes to a client of HTTP/1.0, which would take it for the answer, and
    /// `100` only to a client that still waits for one: otherwise what the client asked for was answered here already.
    func upstreamInterim(_ upstream: UpstreamConnection, _ table: HeadTable) {
        guard attempts.isOpen, !isOld, let client, table.status != 101, table.status != 100 || client.awaitsContinue else { return }
        context.scratch.clear()
        HeadRewriter.interim(table, into: &context.scratch, edits: route?.route.responseEdits)
        flushScratch()
    }

    /// When two replicas were asked, keeps the one that answered first and abandons the other.
    private func keepWinner(_ side: AttemptSide) {
        guard let other = second else { return }
        if side == .second {
            first?.upstream.abandon()
            first?.replica.ended()
            first = other
        } else {
            other.upstream.abandon()
            other.replica.ended()
        }
        second = nil
        noteAsked(first)
    }

    private func noteAnswer(_ replica: Replica, _ route: RouteOnLoop) {
        // What it took to answer a request that it did not have whole is the client's time as well: it is not measured.
        if requestIsComplete, sentWhole.nanoseconds > 0 {
            let time = MonotonicTime.now - sentWhole
            upstreamTime = time
            replica.latency.add(Int(time.nanoseconds))
            replica.answers.add()
        }
        guard status >= 500 else {
            isJudged = true
            replica.succeeded()
            return route.route.guards.succeeded()
        }
        // It has read all that the client has sent so far, and may have waited in vain for the rest: the client has had time for it.
        if !requestIsComplete, first?.upstream.waiting == 0, loop.now - started >= Exchange.patienceWithUploads { return }
        isJudged = true
        replica.errors.add()
        guard route.route.spec.eject.countsErrors else { return route.route.guards.succeeded() }
        blame(replica, route, reason: "status \(status)", cause: "status \(status)")
    }

    /// When a replica answers with an error sooner than this after the request's beginning, and before the request's end, the cause is no
    /// slow client: nobody gives up waiting so soon. The figure is ours, far below any server's time limit and far above an answer given at
    /// once.
    private static let patienceWithUploads = Duration.milliseconds(50)

    func upstreamBody(_ bytes: UnsafeRawBufferPointer) {
        // Of a status that has no body (205), nothing is passed on.
        if bodyPassing == .none { return }
        responseBytes += bytes.count
        // Large pieces go on as they stand in the read buffer; what is small is worth a copy that saves a call.
        if bodyPassing == .asIs, bytes.count >= 16_384, context.scratch.isEmpty { return client.write(bytes) }
        if bodyPassing == .chunked {
            context.scratch.append(hex: bytes.count)
            context.scratch.append("\r\n")
        }
        context.scratch.append(bytes)
        if bodyPassing == .chunked { context.scratch.append("\r\n") }
    }

    func upstreamReadFinished() {
        guard let client else { return }
        flushScratch()
        if client.waiting > Exchange.window { first?.upstream.pauseForClient() }
        if attempts.state != .tunnel { client.watchWriting() }
    }

    func flushScratch() {
        if context.scratch.isEmpty { return }
        client.write(context.scratch.bytes)
        context.scratch.clear(keeping: 262_144)
    }

    func upstreamEnd() {
        guard let client, client.isOpen else { return finish() }
        if bodyPassing == .chunked { context.scratch.append("0\r\n\r\n") }
        flushScratch()
        let close = bodyPassing == .untilClose
        finish()
        client.responseFinished(close: close)
    }

    func upstreamDrained() {
        client?.holdBody(false)
        if attempts.state == .tunnel, clientEnded { passOnClientsEnd() }
    }

    func clientDrained() {
        guard let upstream = first?.upstream else { return }
        if upstream.isPaused { upstream.resumeForClient() }
        if attempts.state == .tunnel, upstreamEnded { client.shutdownSending() }
    }

    // MARK: the gateway's own

    /// Answers in place of the backend.
    func answer(_ failure: GatewayFailure, _ message: String? = nil) {
        if failure == .noReplica || failure == .holdEnded || failure == .shortage { additions.append("Retry-After: 1\r\n") }
        respond(
            failure.status, type: "application/json",
            body: Array("{\"error\":{\"code\":\"\(failure.rawValue)\",\"message\":\"\(message ?? failure.message)\"}}\n".utf8))
    }

    func respond(_ status: Int, type: String?, body: [UInt8]) {
        guard let client, client.isOpen, !hasBegun else { return }
        hasBegun = true
        attempts.answeredHere()
        stopTimers()
        self.status = status
        if wantsReason { writeReason() }
        let close = client.mustClose()
        context.scratch.clear()
        context.scratch.append(text: "HTTP/1.1 \(status) \(reasonPhrase(status))\r\n")
        let edits = route?.route.responseEdits
        if let type, edits?.leavesOut("content-type") != true { context.scratch.append(text: "Content-Type: \(type)\r\n") }
        // 204 and 304 have no body, whatever is said (RFC 9110, 6.4.1); 205 has an empty one.
        let body = [204, 205, 304].contains(status) ? [] : body
        if status != 204, status != 304 { context.scratch.append(text: "Content-Length: \(body.count)\r\n") }
        context.scratch.append(context.dateLine())
        if edits?.leavesOut("x-request-id") != true {
            context.scratch.append("X-Request-Id: ")
            context.scratch.append(id)
            context.scratch.append("\r\n")
        }
        context.scratch.append(additions.bytes)
        if let edits { context.scratch.append(edits.lines) }
        if close { context.scratch.append("Connection: close\r\n") }
        context.scratch.append("\r\n")
        if !isHead { context.scratch.append(body) }
        responseBytes = body.count
        flushScratch()
        finish()
        client.responseFinished(close: close)
    }

    /// Adds `X-Muster-Why`, which names the candidates and the reason of the choice, for clients that have the admin token.
    private func writeReason() {
        var text = "X-Muster-Why: route=\(route?.route.label ?? "-")"
        if let selection, let replica = lastReplica, let pool {
            text +=
                "; replica=\(replica.name); balance=\(route!.route.method.rawValue); reason=\(selection.reason.rawValue); "
                + "tries=\(attempts.tries); candidates="
            text += zip(pool.replicas, candidates).map { "\($0.name):\(RecentRequests.text($1))" }.joined(separator: ",")
        }
        if held > .zero { text += "; held=\(held.brief)" }
        additions.append(text: String(decoding: text.utf8.map { $0 >= 32 && $0 < 127 ? $0 : 63 }, as: UTF8.self) + "\r\n")
    }

    // MARK: the end

    /// Counts and logs the exchange and gives it back for the next request.
    func finish() {
        guard attempts.state != .idle, let client else { return }
        if attempts.state == .tunnel { route?.route.metrics.tunnels.add(-1) }
        attempts.end()
        stopTimers()
        if gateway.held > 0 { gateway.endedWhileHolding(self) }
        context.scratch.clear(keeping: 262_144)
        let answered = first?.replica ?? (status < 500 ? lastReplica : nil)
        first?.replica.ended()
        first = nil
        let now = MonotonicTime.now, total = now - started
        if let route = route?.route {
            route.metrics.classes[min(max(status / 100, 1), 5) - 1].add()
            route.metrics.duration.observe(total)
            // A quick refusal is not a fast service: only answers that did the work are measured.
            if hasPlace { route.guards.ended(now, &guardPlace, latency: status < 500 && status != 429 ? upstreamTime : nil) }
            // Answered here before any replica had its say, or the client went away: whoever was to try leaves that to the next one.
            if hasPlace, !isJudged { route.guards.handOn(&guardPlace) }
            gateway.recent.note(self, route, total: total)
        } else {
            gateway.unrouted.add()
        }
        if let lastReplica {
            if bodyCount > 0 { lastReplica.bytesIn.add(bodyCount) }
            if responseBytes > 0 { lastReplica.bytesOut.add(responseBytes) }
        }
        gateway.accessLog.line(self, replica: answered?.name ?? "-", total: total)
        if let trace, trace.isSampled { gateway.tracer?.add(self, trace, total: total) }
        self.client = nil
        client.giveBack(self)
    }
}
