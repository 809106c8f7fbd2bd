import Basics
import EventLoops

/// What a server's messages, its end and the time do to the statements of a connection.
extension PostgresLink {
    /// Takes whole messages from the front of `bytes`; returns how many bytes they were.
    func take(_ bytes: UnsafeRawBufferPointer) -> Int {
        var used = 0
        do throws(ProtocolFailure) {
            while isOpen, !isHeldBack, bytes.count - used >= 5 {
                let rest = bytes.part(used, bytes.count - used)
                guard let frame = try MessageFrame.next(rest, limit: bound(rest[0])) else { break }
                used += frame.body.upperBound
                let body = rest.part(frame.body.lowerBound, frame.body.count)
                if state == .loggingIn { try takeLogin(frame.kind, body) } else { try handle(frame.kind, body) }
            }
        } catch {
            if isOpen {
                let outcome: PostgresError.Outcome = state == .ready ? .mayHaveRun : .notSent
                failure = PostgresError(error.isTooLarge ? .tooLarge : .malformed, outcome, place: place, message: error.reason)
                close()
            }
        }
        return used
    }

    private func bound(_ kind: UInt8) -> Int {
        if state != .ready { return PostgresLimits.loginBytes }
        return kind == 68 || kind == 100 ? limits.messageBytes : limits.controlBytes
    }

    private func handle(_ kind: UInt8, _ body: UnsafeRawBufferPointer) throws(ProtocolFailure) {
        switch kind {
        case 90:
            guard case .readyForQuery(let status) = try BackendMessage(kind: kind, body) else { return }
            try ready(status)
        case 83, 65: try told(try BackendMessage(kind: kind, body))
        case 71, 72, 100, 99, 87: try copy(kind, body)
        case 69, 78: try word(kind, body)
        default:
            guard let first = flight.first else { throw ProtocolFailure("a message \(MessageFrame.name(kind)) that nobody asked for") }
            try first.answer.received(kind, body)
        }
    }

    private func told(_ message: BackendMessage) throws(ProtocolFailure) {
        switch message {
        case .parameterStatus(let name, let value): parameters.set(name.string, value.string)
        case .notificationResponse(let process, let channel, let payload):
            onNotification(PostgresNotification(process: process, channel: channel.string, payload: payload.string))
        default: break
        }
    }

    /// An error or a notice.
    private func word(_ kind: UInt8, _ body: UnsafeRawBufferPointer) throws(ProtocolFailure) {
        if let first = flight.first { try first.answer.received(kind, body) }
        var reader = MessageReader(body, "ErrorResponse")
        let message = try ServerMessage(&reader)
        if kind == 78 { return onNotice(message) }
        if message.endsSession || flight.isEmpty { ending = message }
        switch flight.first?.work {
        case .copyIn(_, let feed): feed.serverFailed()
        default: break
        }
    }

    // MARK: COPY

    private func copy(_ kind: UInt8, _ body: UnsafeRawBufferPointer) throws(ProtocolFailure) {
        guard kind != 87, let first = flight.first, first.answer.error == nil else {
            throw ProtocolFailure("a message \(MessageFrame.name(kind)) of COPY out of its order")
        }
        switch (kind, first.work) {
        case (71, .copyIn(_, let feed)):
            _ = try BackendMessage(kind: kind, body)
            guard feed.begin(self) else { throw ProtocolFailure("COPY begins twice") }
        case (71, _):
            // Behind it are statements that the server takes for the data of COPY now.
            guard flight.count == 1 else {
                failure = PostgresError(
                    .misuse, .mayHaveRun, place: place,
                    message: "COPY FROM STDIN was sent as an ordinary statement, with others behind it: use copyIn")
                return close()
            }
            first.misuse = "COPY FROM STDIN was sent as an ordinary statement: use copyIn"
            put(FrontendMessage.copyFail("use copyIn").encoded)
            // The Sync that was sent was taken while COPY ran, and does not end the error.
            if case .extended = first.work { put(FrontendMessage.sync.encoded) }
        case (72, .copyOut(_, let tap)):
            _ = try BackendMessage(kind: kind, body)
            guard tap.begin(self) else { throw ProtocolFailure("COPY begins twice") }
        case (72, _): first.misuse = "COPY TO STDOUT was sent as an ordinary statement: use copyOut"
        case (100, .copyOut(_, let tap)):
            guard tap.take(body) else { throw ProtocolFailure("data of COPY before its beginning") }
            progressed(first)
        case (99, .copyOut): break
        case (100, _), (99, _):
            guard first.misuse != nil else { throw ProtocolFailure("data of COPY that nobody asked for") }
        default: throw ProtocolFailure("a message \(MessageFrame.name(kind)) of COPY out of its order")
        }
    }

    /// COPY has no time limit as a whole, only from one progress to the next.
    func progressed(_ operation: PostgresOperation) {
        if operation.wish == .none, let limit = operation.limit { operation.deadline = loop.now + limit }
    }

    func holdBack() {
        isHeldBack = true
        pauseReading()
    }

    func release() {
        guard isHeldBack else { return }
        isHeldBack = false
        let bound = LoopBound(self, on: loop)
        // Later: whoever calls may have been called from the middle of `take`.
        loop.execute {
            bound.value.takeInput()
            if bound.value.isOpen, !bound.value.isHeldBack { bound.value.resumeReading() }
        }
    }

    // MARK: the end of an answer

    private func ready(_ status: BackendMessage.TransactionStatus) throws(ProtocolFailure) {
        guard let first = flight.first else { throw ProtocolFailure("ReadyForQuery that nobody asked for") }
        try first.answer.finish()
        transaction = status
        _ = flight.removeFirst()
        if mayRepeat(first) {
            first.isRepeated = true
            send(first)
        } else {
            conclude(first)
        }
        guard isOpen else { return }
        if let next = flight.first, next.wish != .none { askToStop(next) }
        sendMore()
        if flight.isEmpty, line.isEmpty {
            timer?.cancel()
            if isEnding { endSession() }
        }
    }

    /// Whether a statement failed only because what was prepared is gone or has become another (26000, 0A000 of a cached plan), so that it did
    /// not run and may be sent once more: outside of a transaction, which the error has ended, and with nothing behind it, which it would
    /// overtake.
    private func mayRepeat(_ operation: PostgresOperation) -> Bool {
        guard let error = operation.answer.error else { return false }
        forgetWhatFailed(operation, error)
        guard case .extended(let statements) = operation.work, statements.count == 1, transaction == .idle, flight.isEmpty,
            !operation.isRepeated, !operation.isOver, operation.wish == .none, let part = operation.answer.failedParts.first,
            let kept = part.kept, kept.failure == nil, !part.isNew
        else { return false }
        return PostgresLink.isStale(error)
    }

    private static func isStale(_ error: ServerMessage) -> Bool {
        error.state == "26000" || error.state == "0A000" && error.routine == "RevalidateCachedQuery"
    }

    private func forgetWhatFailed(_ operation: PostgresOperation, _ error: ServerMessage) {
        for (i, part) in operation.answer.failedParts.enumerated() {
            guard let kept = part.kept else { continue }
            if i > 0 {
                // Passed over with its Parse.
                if part.isNew { prepared.forget(kept) }
            } else if operation.answer.stage == .parse || operation.answer.stage == .close {
                kept.failure = error
                prepared.forget(kept)
            } else if PostgresLink.isStale(error) {
                prepared.forget(kept)
            }
        }
    }

    private func conclude(_ operation: PostgresOperation) {
        let answer = operation.answer
        if answer.results.contains(where: { $0.tag == "DISCARD ALL" || $0.tag == "DEALLOCATE ALL" }) { prepared.forgetAll() }
        switch operation.work {
        case .copyIn(_, let feed): feed.end()
        case .copyOut(_, let tap): tap.end()
        default: break
        }
        if let misuse = operation.misuse {
            return operation.fail(
                PostgresError(.misuse, answer.error == nil ? .mayHaveRun : .refused, place: place, message: misuse))
        }
        if let error = answer.error { return failed(operation, error) }
        if answer.isOverfull {
            let message = "the rows of the answer are more than \(limits.rowBytes) bytes; they were dropped. Ask for fewer, or use COPY"
            return operation.fail(PostgresError(.tooLarge, .mayHaveRun, place: place, message: message))
        }
        operation.finish(answer.results.map { .success($0) })
    }

    private func failed(_ operation: PostgresOperation, _ error: ServerMessage) {
        let answer = operation.answer
        // The server's own words for the text, where only the name's absence was told.
        let told = error.state == "26000" ? answer.failedParts.first?.kept?.failure ?? error : error
        var code = PostgresError.Code.server
        if error.state == "57014" {
            if operation.wish == .late { code = .timeout } else if operation.wish == .cancelled { code = .cancelled }
        }
        let failure = PostgresError(code, answer.hasCommitted ? .mayHaveRun : .refused, place: place, told)
        guard case .extended(let statements) = operation.work, statements.count > 1 else { return operation.finish([.failure(failure)]) }
        operation.finish(
            statements.indices.map { i in
                if i == answer.place { return .failure(failure) }
                let message =
                    i < answer.place
                    ? "undone, because statement \(answer.place + 1) of the batch failed: \(told.text)"
                    : "not begun, because statement \(answer.place + 1) of the batch failed: \(told.text)"
                return .failure(PostgresError(.skipped, .refused, place: place, message: message))
            })
    }

    // MARK: time and cancellation

    func timePassed() {
        guard state == .ready else {
            let time = settings.connectTime.brief
            let message =
                switch state {
                case .connecting: "no connection within \(time)"
                case .askingTLS: "no answer to the question for TLS within \(time)"
                case .shakingHands: "no TLS handshake within \(time)"
                default: "the login was not through within \(time)"
                }
            return refuse(.timeout, message)
        }
        let now = max(loop.now, .now)
        for operation in line.elements {
            guard !operation.isOver, let deadline = operation.deadline, deadline <= now else { continue }
            let message =
                "it was not sent within \(operation.limit?.brief ?? "its time"): \(flight.count) statements are under way before it"
            operation.fail(PostgresError(.timeout, .notSent, place: place, message: message))
        }
        for (i, operation) in flight.elements.enumerated() {
            if let giveUp = operation.giveUp, giveUp <= now {
                gaveUp(operation, isFirst: i == 0)
            } else if operation.wish == .none, let deadline = operation.deadline, deadline <= now {
                operation.wish = .late
                operation.giveUp = now + limits.cancelTime
            }
        }
        guard isOpen else { return }
        if let first = flight.first, first.wish != .none, first.askAgain.map({ $0 <= now }) ?? true { askToStop(first) }
        for operation in line.elements + flight.elements { watch(operation) }
    }

    /// The time for an answer to the cancellation has passed. Answers are matched by their order, so without the first one's the connection
    /// is of no use; another's caller only stops waiting.
    private func gaveUp(_ operation: PostgresOperation, isFirst: Bool) {
        let word = operation.wish == .late ? "no answer within \(operation.limit?.brief ?? "its time")" : "it was cancelled"
        let error = PostgresError(
            operation.wish == .late ? .timeout : .cancelled, .mayHaveRun, place: place,
            message: "\(word), nor \(limits.cancelTime.brief) after the server was asked to cancel it")
        operation.fail(error)
        if isFirst {
            failure = PostgresError(.lost, .mayHaveRun, place: place, message: "closed: a statement had \(error.message)")
            close()
        } else {
            operation.giveUp = nil
            operation.deadline = nil
        }
    }

    /// Cancels the operation of this number: it is not sent, or the server is asked to stop it when it is the one that runs.
    func cancel(_ id: UInt64) {
        if let found = (flight.elements + line.elements).first(where: { $0.id == id }) { return cancel(found) }
        // It comes later, or was through already: such a number stays here for nothing, so they are forgotten when there are many.
        if earlyCancels.count >= 1024 { earlyCancels = [] }
        if state != .gone { earlyCancels.insert(id) }
    }

    private func cancel(_ operation: PostgresOperation) {
        guard !operation.isOver, operation.wish == .none else { return }
        guard operation.isSent else {
            return operation.fail(PostgresError(.cancelled, .notSent, place: place, message: "cancelled before it was sent"))
        }
        operation.wish = .cancelled
        operation.giveUp = max(loop.now, .now) + limits.cancelTime
        if flight.first === operation { askToStop(operation) }
        watch(operation)
    }

    /// Asks the server, on a connection of its own, to cancel what runs. Only ever for the first statement: the server cancels whatever runs
    /// when the request arrives. Until the request has arrived nothing else is sent.
    private func askToStop(_ operation: PostgresOperation) {
        guard cancelling == nil, isOpen else { return }
        let now = max(loop.now, .now)
        if operation.giveUp == nil { operation.giveUp = now + limits.cancelTime }
        // A server that waits for COPY's data looks at no cancellation: it is told on the spot.
        if case .copyIn(_, let feed) = operation.work, feed.isOpen {
            feed.finish(operation.wish == .late ? "no progress within \(operation.limit?.brief ?? "its time")" : "cancelled")
            return watch(operation)
        }
        // The request may have come before the statement was begun, which ignores it.
        operation.askAgain = now + .milliseconds(250)
        let request = CancelLink(loop: loop, endpoint, tls == nil ? nil : settings.tls, process: process, secret: secret)
        cancelling = request
        request.onEnd = { [unowned self] in
            cancelling = nil
            guard isOpen else { return }
            if let first = flight.first, first.wish != .none, first.askAgain == nil { askToStop(first) }
            sendMore()
        }
        request.open(within: limits.cancelTime)
        watch(operation)
        if let again = operation.askAgain, timer?.deadline.map({ $0 > again }) ?? true { timer?.schedule(at: again) }
    }

    // MARK: the end

    func ended(_ reason: CloseReason) {
        let wasReady = state == .ready
        state = .gone
        timer?.cancel()
        timer = nil
        cancelling?.onEnd = {}
        cancelling?.close()
        cancelling = nil
        let own = reason == .ours && failure == nil && isEnding
        let error = failure ?? closingError(reason, wasReady: wasReady)
        if failure == nil { failure = error }
        let left = queued - unsentAtClose
        var isFirst = true
        while let operation = flight.removeFirst() {
            switch operation.work {
            case .copyIn(_, let feed): feed.end()
            case .copyOut(_, let tap): tap.end()
            default: break
            }
            operation.fail(fate(operation, error, isFirst: isFirst, left: left))
            isFirst = false
        }
        while let operation = line.removeFirst() { operation.fail(error.with(.notSent)) }
        onClosed(own ? nil : error)
        onGone()
    }

    private func closingError(_ reason: CloseReason, wasReady: Bool) -> PostgresError {
        let code: PostgresError.Code = wasReady ? .lost : .unavailable
        if let ending { return PostgresError(code, .notSent, place: place, ending) }
        return PostgresError(code, .notSent, place: place, message: reason.description, isOwnWant: reason.isOwnWant)
    }

    private func fate(_ operation: PostgresOperation, _ error: PostgresError, isFirst: Bool, left: Int) -> PostgresError {
        if operation.runs > left { return error.with(.notSent) }
        guard ending != nil else { return error.with(.mayHaveRun) }
        // The server said why it ends the session: what it was at is undone, unless it was through with it, and the rest was not begun.
        if !isFirst { return error.with(.notSent) }
        return error.with(operation.answer.sawComplete ? .mayHaveRun : .refused)
    }
}

extension PostgresError {
    func with(_ outcome: Outcome) -> PostgresError {
        if let server { return PostgresError(code, outcome, place: place, server) }
        return PostgresError(code, outcome, place: place, message: message, isOwnWant: isOwnWant)
    }
}

/// What NOTIFY sent to a channel that this session listens to.
public struct PostgresNotification: Sendable, Equatable {
    /// The process of the session that notified.
    public let process: Int32
    public let channel: String
    public let payload: String
}
