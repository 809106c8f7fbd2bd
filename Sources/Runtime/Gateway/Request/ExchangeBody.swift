import Basics
import EventLoops
import HTTP

/// The request's body on its way to a replica.
///
/// It is gathered in `outgoing` and sent when a read is finished, so that head and body leave in one write. As long as it fits into the
/// route's `retry.body` it stays there for another try; beyond it, it is only passed through and the exchange has one try.
extension Exchange {
    /// Whether the request still goes to a replica: one that answers before it has read everything still gets the rest.
    private var isWanted: Bool { attempts.isOpen || (attempts.state == .answering && questions.first != nil) }

    func requestBody(_ bytes: UnsafeRawBufferPointer) {
        guard isWanted else { return }
        request.bodyCount += bytes.count
        if let limit = route?.route.spec.bodyLimit, request.bodyCount > limit { return bodyTooLarge() }
        outgoing.append(bytes)
        if outgoing.unsentCount > 65_536 { sendOn() }
    }

    private func bodyTooLarge() {
        abandonAttempts()
        if attempts.isOpen { return refuse(.bodyTooLarge) }
        let client = client
        finish()
        client?.reset()
    }

    /// Takes the fields that follow the body, for a replica that gets the body in chunks or over HTTP/2.
    func requestTrailers(_ table: HeadTable) { if isWanted { outgoing.take(trailers: table) } }

    func requestEnd() {
        guard isWanted else { return }
        request.isWhole = true
        if limits.hasPlace { route?.route.guards.becameWhole(&limits.place) }
        outgoing.end()
        sendOn()
    }

    func requestReadFinished() {
        guard isWanted else { return }
        sendOn()
        // It is the client's turn: what it takes its time for must not keep others from trying.
        if !request.isWhole { route?.route.guards.handOn(&limits.place) }
    }

    /// Sends the replica what has been gathered, choosing it first if need be.
    func sendOn() {
        if limits.areAsked {
            if outgoing.count > Exchange.window { client?.holdBody(true) }
            return
        }
        if attempts.state == .held {
            // No more of its body is read; when it is all here, its client's going is to be seen.
            if request.isWhole { client?.holdBody(false) }
            return
        }
        guard outgoing.unsentCount > 0 || questions.first == nil || (outgoing.isPlain && request.isWhole) else { return leftBefore() }
        if questions.first == nil, !connectToNext() { return }
        guard let upstream = questions.first?.upstream else { return }
        upstream.send(outgoing.unsent)
        outgoing.allSent()
        if request.isWhole {
            questions.first?.sentWhole = loop.now
            upstream.endRequest(outgoing.trailers.bytes)
        }
        upstream.watchAnswer()
        if outgoing.count > (route?.route.spec.retry.keptBody ?? 0) + 32_768, !request.isWhole || outgoing.count > 1 << 20 {
            attempts.forgotBody()
            outgoing.forget()
        }
        if upstream.waiting > Exchange.window { client?.holdBody(true) }
        client?.bodyWentOn(allBut: upstream.waiting)
    }

    /// Begins the replica's time for its answer where the request turned out to be whole only after the last of it had left.
    private func leftBefore() {
        guard request.isWhole, let first = questions.first else { return }
        if first.sentWhole.nanoseconds == 0 { questions.first?.sentWhole = loop.now }
        first.upstream.watchAnswer()
    }
}
