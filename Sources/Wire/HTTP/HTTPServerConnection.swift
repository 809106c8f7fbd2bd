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
    /// Whether idle connections may ask once more while the server drains.
    fileprivate private(set) var drainsGently = false
    public internal(set) var connections: [ObjectIdentifier: HTTPServerConnection] = [:]
    /// Connections beyond this are answered 503 and closed. They are counted over all contexts that share `connectionCount`.
    public var connectionLimit = 10_000
    /// Set before there are connections.
    public var connectionCount = ConnectionCount()
    /// Whether a peer begins its connections with a PROXY header.
    public var expectsProxyHeader: (SocketAddress) -> Bool = { _ in false }
    /// Whether a connection may begin with HTTP/2's preface: then `HTTPServerConnection.prefaceCame` is asked.
    public var takesHTTP2 = false
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
        drainsGently = gently
        for connection in Array(connections.values) { connection.closeIfIdle(gently: gently) }
    }

    /// Ends all connections. Whoever has a part of an answer sees that the rest is missing.
    public func closeAll() {
        for connection in Array(connections.values) { connection.end(.ours) }
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
/// What it may do when is decided by a `ServerConnectionMachine`; this has the socket, the bytes and the timer.
open class HTTPServerConnection: Stream {
    public let context: HTTPServerContext
    /// The client's address: the socket's peer, or the address in a PROXY header.
    public private(set) var peer: SocketAddress
    private var machine = ServerConnectionMachine()
    private var scanner = HeadScanner()
    private var input = ByteBuffer()
    private var isProcessing = false
    /// Decoded bytes of a chunked body.
    private var bodyCount = 0
    private var timer: LoopTimer?
    private var isTold = false
    /// Whether nothing has come yet by which the protocol is known.
    private var mayBePreface = false

    public init(context: HTTPServerContext, peer: SocketAddress) {
        self.context = context
        self.peer = peer
        super.init(loop: context.loop)
    }

    /// Takes over an accepted socket.
    public func start(_ descriptor: Int32) throws(SystemError) {
        try adopt(descriptor)
        begin(expectsProxyHeader: context.expectsProxyHeader(peer))
    }

    /// Takes over a connection whose handshake is done, out of `Handshake`'s own call.
    public func start(after handshake: Handshake) {
        handshake.handOver(to: self)
        begin(expectsProxyHeader: false)
        if context.isDraining { closeIfIdle(gently: context.drainsGently) }
    }

    private func begin(expectsProxyHeader: Bool) {
        context.connections[ObjectIdentifier(self)] = self
        isTold = true
        // Over TLS the protocol is known by ALPN.
        mayBePreface = context.takesHTTP2 && tls == nil
        timer = LoopTimer(loop: loop) { [unowned self] in timePassed() }
        machine.start(expectsProxyHeader: expectsProxyHeader, loop.now, context.limits)
        keepDeadline()
        if context.connectionCount.add() > context.connectionLimit {
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
    /// Called with what came of a connection that begins with HTTP/2's preface. True: somebody else has taken it over (`handOver`), with these
    /// bytes.
    open func prefaceCame(_ bytes: UnsafeRawBufferPointer) -> Bool { false }
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
        if machine.isTunnel, input.isEmpty { return tunnelReceived(bytes) }
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

    private var facts: ServerConnectionMachine.Facts {
        .init(input: input.count, waiting: waiting, left: leftLater, isProcessing: isProcessing, isDraining: context.isDraining)
    }

    /// Sets the timer to the machine's deadline.
    private func keepDeadline() {
        guard let deadline = machine.takeDeadline() else { return }
        if let deadline { timer?.schedule(at: deadline) } else { timer?.cancel() }
    }

    private func holdPipeline() {
        machine.holdPipeline(input.count, waiting: waiting)
        applyHolds()
    }

    /// Stops and resumes reading the body, for whoever passes it on. While it is not read, something else is waited for, which is not the
    /// peer's fault: the body's time stands still.
    public func holdBody(_ hold: Bool) {
        machine.holdBody(hold, loop.now, context.limits)
        keepDeadline()
        applyHolds()
    }

    /// Whether the peer is known to send no more. It may still read.
    public var peerHasEnded: Bool { machine.peerEnded || sawHangUp }

    private func applyHolds() {
        guard isOpen else { return }
        if machine.holdsReading { pauseReading() } else if isPaused { resumeReading() }
    }

    private func processInput() {
        let used = process(input.bytes)
        guard isOpen else { return }
        if machine.isLeaving { return input.clear(keeping: 0) }
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
        switch machine.state {
        case .proxyHeader:
            return readProxyHeader(bytes)
        case .tunnel:
            tunnelReceived(bytes)
            return bytes.count
        case .head:
            if mayBePreface, let used = readPreface(bytes) { return used > 0 ? used : nil }
            return ServerConnectionMachine.takesHead(waiting) ? try readHead(bytes) : nil
        case .fixedBody:
            let (part, isLast) = machine.tookBody(bytes.count, loop.now, context.limits)
            keepDeadline()
            requestBody(bytes.part(0, part))
            if isLast { bodyEnded() }
            return part
        case .chunkedBody(var decoder):
            let limit = context.limits.body
            var data = 0
            let used = try decoder.decode(bytes) { (piece) throws(HTTPFailure) -> Bool in
                data += piece.count
                bodyCount += piece.count
                if bodyCount > limit { throw .bodyTooLarge }
                requestBody(piece)
                return isOpen && !machine.isLeaving
            }
            if machine.isLeaving || !isOpen { return used }
            machine.tookChunks(decoder, data: data, loop.now, context.limits)
            keepDeadline()
            if decoder.isDone { bodyEnded() }
            return used
        case .answering:
            return nil
        case .leaving:
            return bytes.count
        }
    }

    /// Looks for HTTP/2's preface. nil: it is none; 0: more must come first.
    private func readPreface(_ bytes: UnsafeRawBufferPointer) -> Int? {
        let preface = HTTPServerConnection.preface, count = min(bytes.count, preface.utf8CodeUnitCount)
        for place in 0..<count where bytes[place] != preface.utf8Start[place] {
            mayBePreface = false
            return nil
        }
        guard count == preface.utf8CodeUnitCount else {
            machine.tookPartOfHead(loop.now, context.limits)
            keepDeadline()
            return 0
        }
        mayBePreface = false
        return prefaceCame(bytes) ? bytes.count : nil
    }

    /// The first bytes of a client of HTTP/2 (RFC 9113, 3.4).
    public static let preface: StaticString = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

    /// A connection of another protocol goes on with the socket: this one has ended, and tells nobody.
    public final override func handedOver() {
        timer?.cancel()
        timer = nil
        context.connections[ObjectIdentifier(self)] = nil
        context.connectionCount.remove()
        isTold = false
    }

    private func readProxyHeader(_ bytes: UnsafeRawBufferPointer) -> Int? {
        do throws(ProxyHeader.Failure) {
            guard let header = try ProxyHeader.parse(bytes) else { return nil }
            machine.tookProxyHeader()
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
        machine.beginTunnel()
        keepDeadline()
        applyHolds()
        guard !isProcessing, !input.isEmpty || machine.peerEnded else { return }
        let bound = LoopBound(self, on: loop)
        loop.execute { bound.value.tellTunnelOfInput() }
    }

    /// What came before the tunnel began: bytes, and perhaps the end already.
    private func tellTunnelOfInput() {
        if isOpen, !input.isEmpty { processInput() }
        if isOpen, machine.peerEnded, machine.isTunnel { tunnelEnded() }
    }

    private func readHead(_ bytes: UnsafeRawBufferPointer) throws(HTTPFailure) -> Int? {
        guard let length = try scanner.scan(bytes, limits: context.limits) else {
            machine.tookPartOfHead(loop.now, context.limits)
            keepDeadline()
            return nil
        }
        machine.tookHead()
        let table = context.table
        try HeadParser.parseRequest(bytes.part(0, length), into: table, limits: context.limits)
        bodyCount = 0
        let framing = table.framing
        try machine.took(
            framing: framing, keepsAlive: table.keepsAlive, expectsContinue: table.expectsContinue, loop.now, context.limits)
        keepDeadline()
        requestHead(table)
        if isOpen, machine.saysContinue() { write(HTTPServerConnection.continueLine) }
        // The response may have been finished inside requestHead: then the next head is expected, or the connection is leaving.
        if framing == .none, isOpen, case .answering = machine.state, machine.answer != .whole { requestEnd() }
        return length
    }

    /// Whether the client waits for `100 Continue`, and none has been sent to it.
    public var awaitsContinue: Bool { machine.wantsContinue }

    private static let continueText: StaticString = "HTTP/1.1 100 Continue\r\n\r\n"
    private static var continueLine: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: continueText.utf8Start, count: continueText.utf8CodeUnitCount)
    }

    private func bodyEnded() {
        guard isOpen else { return }
        carryOut(machine.bodyEnded(facts, loop.now, context.limits))
    }

    /// Does what the machine has decided.
    private func carryOut(_ action: ServerConnectionMachine.Action) {
        keepDeadline()
        switch action {
        case .nothing: break
        case .close(let reason): end(reason)
        case .refuse(let failure): refuse(failure)
        case .leave: leave()
        case .farewell: shutdownSending()
        case .endRequest: requestEnd()
        case .next: nextRequest()
        case .requesterEnded: requesterEnded()
        case .tunnelEnded: tunnelEnded()
        case .readOnce:
            readNow()
            if isOpen, machine.isIdle(facts) { close(.ours) }
        }
    }

    /// Ends the connection: by a reset, where an end in good order would make a part of an answer look whole.
    func end(_ reason: CloseReason) {
        if machine.cuts(waiting: waiting) { resetOnClose() }
        close(reason)
    }

    // MARK: answering

    /// Whether the head of the response must say `Connection: close`. Ask right before writing it: from then on the answer counts
    /// as begun, and a request that turns out malformed can only be cut off.
    public func mustClose() -> Bool { machine.beginAnswer(isDraining: context.isDraining) }

    /// The whole response has been written. With `close` (or when the client asked for it) the connection ends.
    public func responseFinished(close: Bool = false) {
        guard isOpen else { return }
        carryOut(machine.finishAnswer(close: close, facts, loop.now, context.limits))
    }

    private func nextRequest() {
        holdPipeline()
        if waiting == 0 { releaseBuffers() }
        if !isProcessing, !input.isEmpty, ServerConnectionMachine.takesHead(waiting) {
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
        if isOpen { carryOut(machine.inputLookedAt(facts)) }
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
        switch machine.refusal {
        case .nothing: return
        case .close: return close(.ours)
        case .reset:
            resetOnClose()
            return close(.ours)
        case .leave: break
        case .answer: writeRefusal(status: status, code: code, message: message)
        }
        carryOut(machine.leave())
    }

    private func writeRefusal(status: Int, code: String, message: String) {
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

    private func leave() {
        guard isOpen else { return }
        applyHolds()
        // While its bytes are being looked at, the input is cleared by whoever looks.
        if !isProcessing { input.clear(keeping: 0) }
        if waiting == 0 { carryOut(machine.drained(loop.now)) } else { watchWriting() }
    }

    open override func drained() {
        if machine.isLeaving { return carryOut(machine.drained(loop.now)) }
        carryOut(machine.answersLeft(facts, loop.now, context.limits))
        if context.isDraining { closeIfIdle(gently: context.drainsGently) }
    }

    open override func receivedEnd() { carryOut(machine.peerEnds(input: input.count, waiting: waiting)) }

    public final override func hungUp() {
        // Nobody reads an answer any more, and what of the request was not read is worth nothing without one.
        if peerIsGone { return close(.system(SystemError("recv", ECONNRESET))) }
        // With TLS what the kernel has cannot be told, which is sealed, and a part of a record may lie in the session.
        carryOut(machine.hungUp(seen: machine.isInBody ? input.count + unread : 0, isExact: tls == nil))
    }

    /// Watches that a client that reads makes progress: some of what waits for it has to leave within `writeTime`.
    public func watchWriting() {
        guard isOpen, waiting > 0 else { return }
        machine.watchWriting(facts, loop.now, context.limits)
        keepDeadline()
    }

    private func timePassed() { carryOut(machine.timePassed(facts, loop.now, context.limits)) }

    fileprivate func closeIfIdle(gently: Bool) {
        guard isOpen else { return }
        carryOut(machine.closeIfIdle(gently: gently, facts, loop.now))
    }

    /// Whether the connection has been given its last second to ask.
    fileprivate var isHurried: Bool { machine.isHurried }

    /// Whether no request is under way, and none has begun to arrive.
    fileprivate var isIdle: Bool { isOpen && machine.isIdle(facts) }

    public final override func closed(_ reason: CloseReason) {
        timer?.cancel()
        timer = nil
        if isTold {
            context.connections[ObjectIdentifier(self)] = nil
            context.connectionCount.remove()
        }
        connectionClosed(reason)
    }
}
