import Basics
import EventLoops
import Glibc

/// The common part of the connections of one loop and one listener: limits, the reused tables, the way to all of them when the server
/// drains.
open class HTTPServerContext {
    public let loop: EventLoop
    public var limits: HTTPLimits
    public let table = HeadTable()
    /// The buffer in which a response's head is put together; it leaves at once.
    public var scratch = ByteBuffer()
    public private(set) var isDraining = false
    public internal(set) var connections: [ObjectIdentifier: HTTPServerConnection] = [:]
    /// Connections beyond this are answered 503 and closed.
    public var connectionLimit = 10_000
    /// Whether a peer begins its connections with a PROXY header.
    public var expectsProxyHeader: (SocketAddress) -> Bool = { _ in false }
    /// Called for each message that was refused.
    public var onRefusal: (HTTPFailure) -> Void = { _ in }
    private var dateSecond: Int64 = -1
    private var date: [UInt8] = []

    public init(loop: EventLoop, limits: HTTPLimits = HTTPLimits()) {
        self.loop = loop
        self.limits = limits
    }

    /// Takes no further requests: idle connections close now, busy ones after their response. With `gently`, idle ones get a second for one
    /// more request, whose answer tells the client that the connection ends: so none is lost on its way.
    public func drain(gently: Bool = false) {
        isDraining = true
        for connection in Array(connections.values) { connection.closeIfIdle(gently: gently) }
    }

    public func closeAll() {
        for connection in Array(connections.values) { connection.close() }
    }

    /// Closes up to `most` connections on which no request is under way, because something else needs their descriptors. Those that have not
    /// asked yet get a second to do so.
    public func closeIdle(atMost most: Int) {
        var closed = 0
        for connection in Array(connections.values) where connection.isIdle && !connection.isHurried {
            connection.closeIfIdle(gently: false)
            closed += 1
            if closed == most { return }
        }
    }

    /// `Date: …\r\n` (RFC 9110, 5.6.7), made once a second.
    public func dateLine() -> [UInt8] {
        let second = WallTime.now.milliseconds / 1000
        if second != dateSecond {
            dateSecond = second
            date = Array("Date: \(httpDate(seconds: second))\r\n".utf8)
        }
        return date
    }
}

/// The server's side of one HTTP/1.1 connection: reads requests one after the other and tells its subclass.
/// Pipelined requests wait (bounded, in the kernel) until the response before them is finished.
///
/// States: `head` (idle or reading a head) → `body` → `answering` → `head` …; `leaving` from anywhere: an answer is on
/// its way and then the connection ends, what still comes in is thrown away.
open class HTTPServerConnection: Stream {
    private enum State {
        case proxyHeader
        case head
        case fixedBody(remaining: Int)
        case chunkedBody(ChunkDecoder)
        /// The request is complete; its response is not.
        case answering
        case leaving
        /// Upgraded: HTTP is over.
        case tunnel
    }

    public let context: HTTPServerContext
    /// The client's address: the socket's peer, or the address in a PROXY header.
    public private(set) var peer: SocketAddress
    private var state = State.head
    private var scanner = HeadScanner()
    private var input = ByteBuffer()
    private var isProcessing = false
    private var bodyCount = 0
    private var bodyBytes = 0
    private var deadline: LoopTimer?
    private var answered = false
    private var answerBegun = false
    private var keepsAlive = true
    private var wantsContinue = false
    private var isTold = false
    /// Whether the connection is upgraded, and not leaving yet.
    private var isTunnel = false
    private var pipelineHeld = false
    private var bodyHeld = false
    /// Whether the peer sends no more; it may still read.
    private var peerEnded = false
    private var bodyStarted = MonotonicTime(nanoseconds: 0)
    /// Since when the body's time limit stands still.
    private var bodySuspended: MonotonicTime?
    private var served = 0
    private var lastWaiting = 0

    /// Most bytes that may wait here while a response is under way; beyond it the kernel keeps the rest.
    private static let pipelineLimit = 65536
    /// How long a refused connection may go on sending, so that the peer can read why.
    private static let lingerTime = Duration.seconds(2)

    public init(context: HTTPServerContext, peer: SocketAddress) {
        self.context = context
        self.peer = peer
        super.init(loop: context.loop)
    }

    /// Takes over an accepted socket.
    public func start(_ descriptor: Int32) throws(SystemError) {
        try adopt(descriptor)
        context.connections[ObjectIdentifier(self)] = self
        isTold = true
        deadline = LoopTimer(loop: loop) { [unowned self] in timePassed() }
        deadline?.schedule(after: context.limits.headTime)
        if context.expectsProxyHeader(peer) { state = .proxyHeader }
        if context.connections.count > context.connectionLimit {
            refuse(status: 503, code: "too_many_connections", message: "this server has as many connections as it takes")
        }
    }

    // MARK: what subclasses are told

    /// Called when a head has arrived; `table` is valid until this returns. Body and end follow.
    open func requestHead(_ table: HeadTable) {}
    open func requestBody(_ bytes: UnsafeRawBufferPointer) {}
    open func requestEnd() {}
    /// Called when everything that one read brought has been told: a time to send on what was gathered.
    open func readFinished() {}
    /// Called when a PROXY header has named the peer.
    open func peerNamed() {}
    /// Called with bytes after `beginTunnel`, and at the end of the peer's side.
    open func tunnelReceived(_ bytes: UnsafeRawBufferPointer) {}
    open func tunnelEnded() { close(.endOfFile) }
    /// Called when the connection ended. A response may have been under way.
    open func connectionClosed(_ reason: CloseReason) {}
    /// Called when the peer sends no more while its request is under way: it has gone, or it only waits for the answer. Nobody can tell
    /// which.
    open func requesterEnded() {}
    /// Called when the connection itself refused a request: it was malformed, too large or too slow, or the connection was turned away. The
    /// request may not have got as far as `requestHead`. The answer has been written; its body has `bodyBytes`.
    open func requestRefused(_ status: Int, bodyBytes: Int) {}

    // MARK: reading

    public final override func received(_ bytes: UnsafeRawBufferPointer) {
        if isTunnel, input.isEmpty { return tunnelReceived(bytes) }
        if input.isEmpty {
            let used = process(bytes)
            if isOpen, used < bytes.count { input.append(bytes.part(used, bytes.count - used)) }
        } else {
            input.append(bytes)
            processInput()
        }
        holdPipeline()
        if isOpen { readFinished() }
    }

    /// Requests that wait for the one before them are read up to a limit; the rest stays with the kernel.
    private func holdPipeline() {
        var waits = false
        if case .answering = state { waits = input.count > HTTPServerConnection.pipelineLimit }
        pipelineHeld = waits || (pipelineHeld && input.count > HTTPServerConnection.pipelineLimit)
        applyHolds()
    }

    /// Stops and resumes reading the body, for whoever passes it on. While it is not read, something else is waited for, which is not the
    /// peer's fault: the body's time stands still.
    public func holdBody(_ hold: Bool) {
        bodyHeld = hold
        if hold, bodySuspended == nil {
            bodySuspended = loop.now
            if isInBody { deadline?.cancel() }
        } else if !hold, let since = bodySuspended {
            bodySuspended = nil
            bodyStarted = bodyStarted + (loop.now - since)
            if isInBody { deadline?.schedule(at: loop.now + context.limits.bodyTime) }
        }
        applyHolds()
    }

    private var isInBody: Bool {
        switch state {
        case .fixedBody, .chunkedBody: true
        default: false
        }
    }

    /// Whether the peer is known to send no more. It may still read.
    public var peerHasEnded: Bool { peerEnded || sawHangUp }

    private func applyHolds() {
        guard isOpen else { return }
        if pipelineHeld || bodyHeld { pauseReading() } else if isPaused { resumeReading() }
    }

    private func processInput() {
        let used = process(input.bytes)
        guard isOpen else { return }
        if answeredAndLeaving { return input.clear(keeping: 0) }
        input.consume(used)
        if input.isEmpty { input.clear(keeping: 0) }
    }

    private func process(_ bytes: UnsafeRawBufferPointer) -> Int {
        isProcessing = true
        defer { isProcessing = false }
        var used = 0
        do throws(HTTPFailure) {
            while isOpen, used < bytes.count {
                let rest = bytes.part(used, bytes.count - used)
                guard let more = try step(rest) else { break }
                used += more
            }
        } catch {
            refuse(error)
            return bytes.count
        }
        return used
    }

    /// Consumes the beginning of `bytes`; nil when more must come first.
    private func step(_ bytes: UnsafeRawBufferPointer) throws(HTTPFailure) -> Int? {
        switch state {
        case .proxyHeader:
            return readProxyHeader(bytes)
        case .tunnel:
            tunnelReceived(bytes)
            return bytes.count
        case .head:
            return try readHead(bytes)
        case .fixedBody(let remaining):
            keepBodyTime(bytes.count)
            let part = min(remaining, bytes.count)
            if part < remaining { state = .fixedBody(remaining: remaining - part) }
            requestBody(bytes.part(0, part))
            if part == remaining { bodyEnded() }
            return part
        case .chunkedBody(var decoder):
            let limit = context.limits.body
            var data = 0
            let used = try decoder.decode(bytes) { (piece) throws(HTTPFailure) -> Bool in
                data += piece.count
                bodyCount += piece.count
                if bodyCount > limit { throw .bodyTooLarge }
                requestBody(piece)
                return isOpen && !answeredAndLeaving
            }
            if answeredAndLeaving || !isOpen { return used }
            state = .chunkedBody(decoder)
            // What frames the data is no progress of the body.
            if data > 0 { keepBodyTime(data) }
            if decoder.isDone { bodyEnded() }
            return used
        case .answering:
            return nil
        case .leaving:
            return bytes.count
        }
    }

    private func readProxyHeader(_ bytes: UnsafeRawBufferPointer) -> Int? {
        do throws(ProxyHeader.Failure) {
            guard let header = try ProxyHeader.parse(bytes) else { return nil }
            state = .head
            if let source = header.source {
                peer = source
                peerNamed()
            }
            return header.length
        } catch {
            // Whoever does not speak the agreed protocol is not answered in another.
            context.onRefusal(.badProxyHeader)
            resetOnClose()
            close(.ours)
            return bytes.count
        }
    }

    /// From here on the connection is no longer HTTP: what came after the request, and all that comes, is told as `tunnelReceived`. Call it
    /// while a request's answer (101) is being written.
    public func beginTunnel() {
        guard isOpen else { return }
        state = .tunnel
        isTunnel = true
        answered = true
        pipelineHeld = false
        deadline?.cancel()
        applyHolds()
        guard !isProcessing, !input.isEmpty || peerEnded else { return }
        let bound = LoopBound(self, on: loop)
        loop.execute { bound.value.tellTunnelOfInput() }
    }

    /// What came before the tunnel began: bytes, and perhaps the end already.
    private func tellTunnelOfInput() {
        if isOpen, !input.isEmpty { processInput() }
        if isOpen, peerEnded, case .tunnel = state { tunnelEnded() }
    }

    /// A body may take `bodyTime`, and a second more for each KiB of its data that has come, but its data may never stand still for
    /// `bodyTime`: slow links finish, drips and stalls do not hold a connection for ever.
    private func keepBodyTime(_ count: Int) {
        bodyBytes += count
        if bodySuspended != nil { return }
        let wholeBody = bodyStarted + context.limits.bodyTime + .seconds(bodyBytes / 1024)
        deadline?.schedule(at: min(wholeBody, loop.now + context.limits.bodyTime))
    }

    private var answeredAndLeaving: Bool { if case .leaving = state { true } else { false } }

    private func readHead(_ bytes: UnsafeRawBufferPointer) throws(HTTPFailure) -> Int? {
        guard let length = try scanner.scan(bytes, limits: context.limits) else {
            // The clock for a head starts with its first byte.
            if !headStarted {
                headStarted = true
                deadline?.schedule(after: context.limits.headTime)
            }
            return nil
        }
        headStarted = false
        let table = context.table
        try HeadParser.parseRequest(bytes.part(0, length), into: table, limits: context.limits)
        keepsAlive = table.keepsAlive
        wantsContinue = table.expectsContinue
        answered = false
        answerBegun = false
        bodyCount = 0
        bodyBytes = 0
        bodyStarted = loop.now
        bodySuspended = nil
        served += 1
        isHurried = false
        let framing = table.framing
        switch framing {
        case .length(let count):
            if count > context.limits.body { throw .bodyTooLarge }
            state = .fixedBody(remaining: count)
            deadline?.schedule(after: context.limits.bodyTime)
        case .chunked:
            state = .chunkedBody(ChunkDecoder())
            deadline?.schedule(after: context.limits.bodyTime)
        default:
            state = .answering
            deadline?.cancel()
        }
        requestHead(table)
        if wantsContinue, isOpen, !answered, !answeredAndLeaving, framing != .none {
            wantsContinue = false
            write(HTTPServerConnection.continueLine)
        }
        // The response may have been finished inside requestHead; then `state` is `.head` again or `.leaving`.
        if framing == .none, isOpen { endWithoutBody() }
        return length
    }

    /// Whether the client waits for `100 Continue`, and none has been sent to it.
    public var awaitsContinue: Bool { wantsContinue }

    private var headStarted = false
    private static let continueText: StaticString = "HTTP/1.1 100 Continue\r\n\r\n"
    private static var continueLine: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: continueText.utf8Start, count: continueText.utf8CodeUnitCount)
    }

    private func endWithoutBody() {
        if case .answering = state, !answered { requestEnd() }
    }

    private func bodyEnded() {
        guard isOpen, !answeredAndLeaving else { return }
        deadline?.cancel()
        state = .answering
        if answered { nextRequest() } else { requestEnd() }
    }

    // MARK: answering

    /// Whether the head of the response must say `Connection: close`. Ask right before writing it: from then on the answer counts
    /// as begun, and a request that turns out malformed can only be cut off.
    public func mustClose() -> Bool {
        answerBegun = true
        if context.isDraining { keepsAlive = false }
        if case .fixedBody = state { keepsAlive = false }
        if case .chunkedBody = state { keepsAlive = false }
        return !keepsAlive
    }

    /// The whole response has been written. With `close` (or when the client asked for it) the connection ends.
    public func responseFinished(close: Bool = false) {
        guard isOpen else { return }
        answered = true
        if close || !keepsAlive { return leave() }
        if case .answering = state { nextRequest() }
    }

    private func nextRequest() {
        if context.isDraining || (peerEnded && input.isEmpty && !isProcessing) { return leave() }
        state = .head
        // A failure from here on is the next request's own.
        answered = false
        answerBegun = false
        deadline?.schedule(after: input.isEmpty ? context.limits.idleTime : context.limits.headTime)
        bodyHeld = false
        holdPipeline()
        if !isProcessing, !input.isEmpty {
            // From a turn of its own, so that a client that pipelines cannot deepen the stack.
            let bound = LoopBound(self, on: loop)
            loop.execute { bound.value.continueWithInput() }
        }
    }

    private func continueWithInput() {
        guard isOpen, !isProcessing, !input.isEmpty else { return }
        processInput()
        holdPipeline()
        if isOpen { readFinished() }
        if peerEnded, case .head = state { close(.endOfFile) }
    }

    /// Answers a failure and leaves.
    private func refuse(_ failure: HTTPFailure) {
        context.onRefusal(failure)
        refuse(status: failure.status, code: failure.rawValue, message: failure.message)
    }

    /// Refuses a connection that has just been taken.
    public func turnAway(status: Int, code: String, message: String) { refuse(status: status, code: code, message: message) }

    private func refuse(status: Int, code: String, message: String) {
        guard isOpen else { return }
        if case .leaving = state { return }
        if case .tunnel = state { return close(.ours) }
        if answerBegun, !answered {
            resetOnClose()
            return close(.ours)
        }
        if !answered {
            let body = Array("{\"error\":{\"code\":\"\(code)\",\"message\":\"\(message)\"}}\n".utf8)
            let retry = status == 503 ? "Retry-After: 1\r\n" : ""
            let head =
                "HTTP/1.1 \(status) \(reasonPhrase(status))\r\nContent-Type: application/json\r\n\(retry)Content-Length: "
                + "\(body.count)\r\nConnection: close\r\n"
            var out = ByteBuffer()
            out.append(text: head)
            out.append(context.dateLine())
            out.append("\r\n")
            out.append(body)
            write(out.bytes)
            requestRefused(status, bodyBytes: body.count)
        }
        leave()
    }

    /// Ends the connection after what was written has left; until the peer has closed or `lingerTime` is over, what it
    /// still sends is read and dropped, because closing with unread bytes would reset the answer away.
    private func leave() {
        guard isOpen else { return }
        state = .leaving
        isTunnel = false
        pipelineHeld = false
        bodyHeld = false
        applyHolds()
        // While its bytes are being looked at, the input is cleared by whoever looks.
        if !isProcessing { input.clear(keeping: 0) }
        if waiting == 0 { farewell() } else { watchWriting() }
    }

    /// Called when all has been sent: ends our side, and waits a little for the peer to close.
    private func farewell() {
        if peerEnded { return close(.ours) }
        shutdownSending()
        deadline?.schedule(after: HTTPServerConnection.lingerTime)
    }

    open override func drained() { if case .leaving = state { farewell() } }

    open override func receivedEnd() {
        peerEnded = true
        switch state {
        // It has sent its whole request and may still read the answer; so may one whose next requests wait here.
        case .answering: requesterEnded()
        case .head where !input.isEmpty && !headStarted: break
        case .tunnel: tunnelEnded()
        default: close(.endOfFile)
        }
    }

    public final override func hungUp() {
        // Nobody reads an answer any more, and what of the request was not read is worth nothing without one.
        if peerIsGone { return close(.system(SystemError("recv", ECONNRESET))) }
        switch state {
        // It has ended its side before its body's end: the rest will never come. With TLS this cannot be told from what the kernel has,
        // which is sealed, and a part of a record may lie in the session.
        case .fixedBody(let remaining) where tls == nil && input.count + unread < remaining: close(.endOfFile)
        case .answering, .fixedBody, .chunkedBody: requesterEnded()
        default: break
        }
    }

    /// Watches that a client that reads makes progress: within `writeTime` some of what waits for it has to leave.
    public func watchWriting() {
        guard isOpen, waiting > 0 else { return }
        lastWaiting = waiting
        deadline?.schedule(after: HTTPServerConnection.writeTime)
    }

    /// As nginx's send_timeout.
    private static let writeTime = Duration.seconds(60)

    private func timePassed() {
        if case .head = state, headStarted { return refuse(.headTimeout) }
        switch state {
        // Its body is not read now, so the time that has passed is that of what is written to it.
        case .fixedBody where bodySuspended != nil, .chunkedBody where bodySuspended != nil:
            if waiting > 0 { if waiting < lastWaiting { watchWriting() } else { close(.ours) } }
        case .fixedBody, .chunkedBody: refuse(.bodyTimeout)
        case .answering where waiting == 0: break
        case .tunnel where waiting == 0: break
        case .proxyHeader: close(.ours)
        default:
            if waiting > 0, waiting < lastWaiting { watchWriting() } else { close(.ours) }
        }
    }

    /// Closes the connection if it is idle. One that has not asked yet gets a moment to do so; one that has is read once more, because a
    /// request may be waiting in the kernel, and closing over it would reset it.
    fileprivate func closeIfIdle(gently: Bool) {
        guard isIdle else { return }
        if served == 0 || gently {
            // The second is given once: asked again and again, it would never pass.
            if isHurried { return }
            isHurried = true
            deadline?.schedule(after: .seconds(1))
            return
        }
        readNow()
        if case .head = state, !headStarted, input.isEmpty { close(.ours) }
    }

    /// Whether the connection has been given its last second to ask.
    fileprivate var isHurried = false

    /// Whether no request is under way, and none has begun to arrive.
    fileprivate var isIdle: Bool {
        guard case .head = state else { return false }
        return isOpen && !headStarted && input.isEmpty && waiting == 0
    }

    public final override func closed(_ reason: CloseReason) {
        deadline?.cancel()
        deadline = nil
        if isTold { context.connections[ObjectIdentifier(self)] = nil }
        connectionClosed(reason)
    }
}
