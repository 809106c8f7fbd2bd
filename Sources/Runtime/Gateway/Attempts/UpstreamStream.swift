import Basics
import EventLoops
import HTTP
import HTTP2
import Resilience

/// One request to a replica over HTTP/2.
///
/// The request is kept in HTTP/1's form, which can be sent again to whoever is asked next; its head is taken apart here. The replica may send
/// as much of its answer as the window holds, and gets more when the client has taken what came.
final class UpstreamStream: HTTP2Stream {
    let connection: UpstreamSession
    private var owner: Exchange?
    private var timer: LoopTimer?
    private var timedOut: TryFailure?
    private var isSubmitted = false
    private var answerBegan = false
    private var interims = 0
    private(set) var isPaused = false
    private(set) var turnBegan: MonotonicTime?
    private var due: MonotonicTime?
    private var moved = false

    init(_ connection: UpstreamSession) {
        self.connection = connection
        super.init()
    }

    private var loop: EventLoop { connection.loop }

    func take(_ owner: Exchange, connectTime: Duration) {
        self.owner = owner
        turnBegan = loop.now
        timer = LoopTimer(loop: loop) { [unowned self] in timePassed() }
        if !connection.isConnected { timer?.schedule(at: loop.now + connectTime) }
    }

    // MARK: the request

    func send(_ bytes: UnsafeRawBufferPointer) {
        guard let owner else { return }
        if isSubmitted {
            append(bytes)
            return send()
        }
        isSubmitted = true
        let http2 = connection.gateway.http2
        let headEnd = UpstreamStream.write(bytes, takesTrailers: owner.request.takesTrailers, into: &http2.fields)
        let ends = owner.request.isWhole && headEnd == bytes.count
        guard let session = connection.session, session.request(self, &http2.fields, ends: ends) else { return failLater() }
        if ends || headEnd == bytes.count { return }
        append(bytes.part(headEnd, bytes.count - headEnd))
        send()
    }

    func endRequest(_ trailers: UnsafeRawBufferPointer) {
        guard !trailers.isEmpty else { return end() }
        var fields = OutgoingFields()
        fields.addLines(trailers)
        end(trailers: fields)
    }

    /// Writes the head that stands at the beginning of `text` as fields of HTTP/2, and returns where it ends. The text is the gateway's own.
    static func write(_ text: UnsafeRawBufferPointer, takesTrailers: Bool, into out: inout OutgoingFields) -> Int {
        out.clear()
        var at = 0
        func next() -> UnsafeRawBufferPointer {
            var end = at
            while end < text.count, text[end] != 13 { end += 1 }
            defer { at = min(end + 2, text.count) }
            return text.part(at, end - at)
        }
        let line = next()
        guard let first = line.firstIndex(of: 32), let last = line.lastIndex(of: 32), last > first else { return text.count }
        let fields = at
        var host = UnsafeRawBufferPointer(start: nil, count: 0)
        while case let field = next(), !field.isEmpty {
            if field.count > 5, field.part(0, 5).equals("host:") { host = trimmed(field[5...]) }
        }
        out.add(":method", line.part(0, first))
        out.add(":scheme", "http")
        out.add(":authority", host)
        out.add(":path", line.part(first + 1, last - first - 1))
        out.addLines(text.part(fields, at - fields), but: .host)
        if takesTrailers { out.add("te", "trailers") }
        return at
    }

    /// The connection takes no further stream: the request goes to another one, in a turn of its own.
    private func failLater() {
        let bound = LoopBound(self, on: loop)
        loop.execute { bound.value.fail(.notSent, "the connection takes no more requests", .nobody) }
    }

    func abandon() {
        owner = nil
        timer?.cancel()
        reset(.cancel)
    }

    // MARK: the answer

    override func interimCame(_ table: HeadTable) {
        interims += 1
        if interims > connection.gateway.upstreamLimits.interims { return refused(.malformed) }
        owner?.upstreamInterim(.http2(self), table)
    }

    override func headCame(_ table: HeadTable, ends: Bool) {
        answerBegan = true
        moved = true
        owner?.upstreamHead(.http2(self), table)
        if ends { return }
        connection.touched(self)
    }

    override func bodyCame(_ bytes: UnsafeRawBufferPointer) {
        moved = true
        owner?.upstreamBody(bytes)
    }

    override func trailersCame(_ table: HeadTable) { owner?.upstreamTrailers(table) }

    override func ended() {
        guard let owner else { return }
        self.owner = nil
        timer?.cancel()
        // An answer that came before the whole request was sent: nobody needs the rest.
        if !owner.request.isWhole || waiting > 0 { reset(.cancel) }
        owner.upstreamEnd()
    }

    override func readFinished() {
        guard let owner else { return credit(allBut: 0) }
        owner.upstreamReadFinished()
        if !isPaused { credit(allBut: 0) }
        watchAnswer()
    }

    override func refused(_ fault: FieldFault) {
        reset(.protocolError)
        fail(.brokenResponse, "the answer's fields are malformed: \(fault.rawValue)", .replica)
    }

    override func mustAnswer(_ failure: HTTPFailure, ends: Bool) {
        reset(.cancel)
        fail(.brokenResponse, failure.message, .replica)
    }

    func pauseForClient() { isPaused = true }

    func resumeForClient() {
        isPaused = false
        due = nil
        credit(allBut: 0)
        watchAnswer()
    }

    override func drained() {
        due = nil
        owner?.upstreamDrained()
        watchAnswer()
    }

    // MARK: time and failure

    /// The connection stands: from now on it is the replica's turn.
    func connectionStands() {
        timer?.cancel()
        watchAnswer()
    }

    /// Measures the replica's time as `UpstreamConnection.watchAnswer` does.
    func watchAnswer() {
        guard connection.isConnected, let owner else { return }
        guard !isPaused, owner.request.isWhole || waiting > 0 else {
            turnBegan = nil
            due = nil
            timer?.cancel()
            return
        }
        if turnBegan == nil { turnBegan = loop.now }
        if due == nil || moved {
            due = loop.now + owner.responseTime
            moved = false
        }
        if let due { timer?.schedule(at: due) }
    }

    private func timePassed() {
        let failure: TryFailure = connection.isConnected ? .responseTimeout : .connectTimeout
        reset(.cancel)
        fail(failure, "timed out", .replica)
        if failure == .connectTimeout { connection.giveUpConnecting() }
    }

    private func fail(_ failure: TryFailure, _ detail: String, _ fault: Exchange.Fault) {
        timer?.cancel()
        guard let owner else { return }
        self.owner = nil
        owner.upstreamFailed(.http2(self), failure, detail, fault)
    }

    override func closed(_ code: UInt32) {
        timer?.cancel()
        defer { connection.streamEnded() }
        guard owner != nil else { return }
        if let reason = connection.lostFor {
            if !connection.everConnected {
                return fail(reason.isOwnWant ? .shortage : .notSent, reason.description, reason.isOwnWant ? .gateway : .replica)
            }
            return fail(answerBegan ? .brokenResponse : .noResponse, "the connection was lost: \(reason)", .replica)
        }
        // The replica says that it has done nothing with the request, or leaves in good order without having looked at it.
        if code == HTTP2Code.refusedStream.rawValue, !answerBegan { return fail(.notSent, "the replica refused the stream", .nobody) }
        fail(answerBegan ? .brokenResponse : .noResponse, "the replica reset the stream with code \(code)", .replica)
    }
}
