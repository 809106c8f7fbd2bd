import Basics
import EventLoops
import HTTP
import Resilience

/// The answer: a replica's, passed on, or one of the gateway's own.
///
/// A replica's answer passes through three calls, and no other way: `upstreamHead`, `upstreamBody`, `upstreamEnd`; `upstreamFailed` ends it
/// early. Whoever wants to keep a copy (a cache) listens there.
extension Exchange {
    func upstreamHead(_ upstream: Upstream, _ table: HeadTable) {
        guard let route, let client else { return }
        let side: AttemptSide = questions.second?.upstream === upstream ? .second : .first
        let head = AttemptEvent.head(side, upgrades: table.status == 101)
        guard case .answer(_, let abandoned) = attempts.take(head, now: loop.now, budget: &route.budget).action else { return }
        if abandoned != nil { keepWinner(side) }
        guard let replica = questions.first?.replica else { return }
        answer.hasBegun = true
        stopTimers()
        answer.status = table.status
        noteAnswer(replica, route)
        if let cookie = route.route.spec.balancing.sticky { setSticky(cookie, on: replica) }
        if request.wantsReason { writeReason() }
        if usesCache { passesCache(table) }
        var additions = HeadRewriter.Additions(id: request.id, lines: answer.fields.bytes, edits: route.route.responseEdits)
        if route.route.spec.compresses, !client.isFill { settleCoding(table, &additions) }
        client.respond(table, additions)
        if attempts.state == .tunnel { beginTunnel(client) }
    }

    /// Passes an interim response on at once (RFC 9110, 15.2). None goes to a client of HTTP/1.0, which would take it for the answer, and
    /// `100` only to a client that still waits for one: otherwise what the client asked for was answered here already.
    func upstreamInterim(_ upstream: Upstream, _ table: HeadTable) {
        guard attempts.isOpen, let client, client.takesInterims, table.status != 101, table.status != 100 || client.awaitsContinue else {
            return
        }
        client.interim(table, route?.route.responseEdits)
    }

    /// When two replicas were asked, keeps the one that answered first and abandons the other.
    private func keepWinner(_ side: AttemptSide) {
        guard let other = questions.second else { return }
        if side == .second {
            if let first = questions.first { giveUp(first) }
            questions.first = other
        } else {
            giveUp(other)
        }
        questions.second = nil
        questions.noteAsked(questions.first)
    }

    private func noteAnswer(_ replica: Replica, _ route: RouteOnLoop) {
        // What it took to answer a request that it did not have whole is the client's time as well: it is not measured.
        if let sent = questions.first?.sentWhole, request.isWhole, sent.nanoseconds > 0 {
            let time = MonotonicTime.now - sent
            answer.upstreamTime = time
            replica.took(time)
        }
        guard answer.status >= 500 else {
            limits.isJudged = true
            replica.succeeded()
            return route.route.guards.succeeded()
        }
        // It has read all that the client has sent so far, and may have waited in vain for the rest: the client has had time for it.
        if !request.isWhole, questions.first?.upstream.waiting == 0, loop.now - request.started >= Exchange.patienceWithUploads { return }
        limits.isJudged = true
        replica.errors.add()
        guard route.route.spec.eject.countsErrors else { return route.route.guards.succeeded() }
        blame(replica, route, reason: "status \(answer.status)", cause: "status \(answer.status)")
    }

    /// When a replica answers with an error sooner than this after the request's beginning, and before the request's end, the cause is no
    /// slow client: nobody gives up waiting so soon. The figure is ours, far below any server's time limit and far above an answer given at
    /// once.
    private static let patienceWithUploads = Duration.milliseconds(50)

    func upstreamBody(_ bytes: UnsafeRawBufferPointer) {
        guard let client else { return }
        _ = pass(bytes, to: client)
    }

    func upstreamReadFinished() {
        guard let client else { return }
        if answer.coder != nil { drainCoder(isLast: false, to: client) }
        client.flush()
        if client.waiting > Exchange.window { questions.first?.upstream.pauseForClient() }
        if attempts.state != .tunnel { client.watchWriting() }
    }

    /// Keeps the fields that follow the replica's body, for a client that takes them.
    func upstreamTrailers(_ table: HeadTable) { if request.takesTrailers { TrailerFields.write(table, into: &answer.trailers) } }

    func upstreamEnd() {
        guard let client, client.isOpen else { return finish() }
        if answer.coder != nil { drainCoder(isLast: true, to: client) }
        client.endBody(answer.trailers.bytes)
        finish()
        client.release()
    }

    func upstreamDrained() {
        client?.holdBody(false)
        client?.bodyWentOn(allBut: 0)
        if attempts.state == .tunnel, tunnel.clientEnded { passOnClientsEnd() }
    }

    func clientDrained() {
        if isServedByCache { return sendFromCache() }
        guard let upstream = questions.first?.upstream else { return }
        if upstream.isPaused { upstream.resumeForClient() }
        if attempts.state == .tunnel, tunnel.upstreamEnded { client?.shutdownSending() }
    }

    // MARK: the gateway's own

    /// Answers in place of the backend.
    func refuse(_ failure: GatewayFailure, _ message: String? = nil) {
        if request.isGRPC { return refuseCall(failure, message) }
        if failure == .noReplica || failure == .holdEnded || failure == .shortage { answer.fields.field("Retry-After", decimal: 1) }
        respond(
            failure.status, type: "application/json",
            body: Array("{\"error\":{\"code\":\"\(failure.rawValue)\",\"message\":\"\(message ?? failure.message)\"}}\n".utf8))
    }

    /// Answers a call of gRPC: by fields alone. The log and the metrics have the failure's own status.
    private func refuseCall(_ failure: GatewayFailure, _ message: String?) {
        answer.fields.field("grpc-status", decimal: GRPC.code(failure))
        answer.fields.field("grpc-message", text: GRPC.message(message ?? failure.message))
        respond(failure.status, type: "application/grpc", body: [], shown: 200)
    }

    /// `shown`: the status that the client sees, where it is another one than is noted.
    func respond(_ status: Int, type: String?, body: [UInt8], shown: Int? = nil) {
        guard let client, client.isOpen, !answer.hasBegun else { return }
        answer.hasBegun = true
        attempts.answeredHere()
        stopTimers()
        answer.status = status
        if request.wantsReason { writeReason() }
        // 204 and 304 have no body, whatever is said (RFC 9110, 6.4.1); 205 has an empty one.
        let body = [204, 205, 304].contains(status) ? [] : body
        answer.bytes = body.count
        client.respond(
            OwnAnswer(status: shown ?? status, type: type, body: body, toHead: request.isHead),
            HeadRewriter.Additions(id: request.id, lines: answer.fields.bytes, edits: route?.route.responseEdits))
        finish()
        client.release()
    }

    private func setSticky(_ cookie: String, on replica: Replica) {
        guard request.sticky != replica.identity else { return }
        answer.fields.append(text: "Set-Cookie: \(cookie)=")
        HeadRewriter.hex(replica.identity, into: &answer.fields)
        answer.fields.append("; Path=/; HttpOnly; SameSite=Lax\r\n")
    }

    /// Adds `X-Muster-Why`, which names the candidates and the reason of the choice, for clients that have the admin token.
    func writeReason() {
        var text = "route=\(route?.route.label ?? "-")"
        if let selection = questions.selection, let replica = questions.lastReplica, let pool, let route {
            text +=
                "; replica=\(replica.name); balance=\(route.route.method.rawValue); reason=\(selection.reason.rawValue); "
                + "tries=\(attempts.tries); candidates="
            text += zip(pool.replicas, questions.candidates).map { "\($0.name):\(RecentRequests.text($1))" }.joined(separator: ",")
        }
        if wait.time > .zero { text += "; held=\(wait.time.brief)" }
        answer.fields.field("X-Muster-Why", text: String(decoding: text.utf8.map { $0 >= 32 && $0 < 127 ? $0 : 63 }, as: UTF8.self))
    }
}
