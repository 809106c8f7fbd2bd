import Basics
import EventLoops

/// The life of one connection of an HTTP/1 server, without its socket: what is expected next, what became of the answer, and by when
/// something must have happened. Whoever has the socket tells what comes and what leaves, does what the returned `Action` says, and keeps
/// a timer to `deadline`.
struct ServerConnectionMachine: ~Copyable {
    enum State {
        /// A PROXY header is expected. Left by it to `head`, or by the connection's end.
        case proxyHeader
        /// The connection is idle, or a part of a head has come (`begun`). Left by a whole head, or by the end.
        case head(begun: Bool)
        /// So many bytes of the body are still to come. Left to `answering`.
        case fixedBody(remaining: Int)
        case chunkedBody(ChunkDecoder)
        /// The request is whole, and its answer is not. Left to `head`, or to `leaving`.
        case answering
        /// An answer is on its way, and then the connection ends: what still comes in is thrown away. Left by the end only.
        case leaving
        /// Upgraded: HTTP is over. Left to `leaving`.
        case tunnel
    }

    /// How far the answer to the request at hand has come.
    enum Answer { case none, begun, whole }

    /// What the connection sees of its socket, and of the server, when it asks.
    struct Facts {
        /// Bytes that have come and were not looked at.
        var input = 0
        /// Bytes that wait for the peer to take them.
        var waiting = 0
        /// How many of those that waited have left, in all.
        var left = 0
        /// Whether bytes are being looked at further up the stack.
        var isProcessing = false
        /// Whether the server takes no further requests.
        var isDraining = false
    }

    enum Action: Equatable {
        case nothing
        /// End the connection, by a reset where it cuts an answer off (see `cuts`).
        case close(CloseReason)
        /// Refuse the request (see `refusal`).
        case refuse(HTTPFailure)
        /// What was read is worth nothing any more: when all that waits has left, tell `drained`.
        case leave
        /// End our sending side, and wait until the peer has closed or `deadline` comes.
        case farewell
        /// Tell that the request is whole.
        case endRequest
        /// The connection takes the next request: go on with what waits.
        case next
        /// Tell that the peer sends no more, while its request is under way.
        case requesterEnded
        case tunnelEnded
        /// Read once more what the kernel has, then end the connection if nothing came.
        case readOnce
    }

    private(set) var state = State.head(begun: false)
    private(set) var answer = Answer.none
    /// By when the peer must have sent what is expected of it next (a head, a body, another request), or must have gone; nil: nothing is.
    private var readBy: MonotonicTime? { didSet { deadlineMoved = true } }
    /// By when some of what waits for the peer must have left; nil: nothing waits, or nobody watches. What the peer sends moves it not.
    private var writeBy: MonotonicTime? { didSet { deadlineMoved = true } }
    private var deadlineMoved = false
    /// Whether the client waits for `100 Continue`, and none has been sent to it.
    private(set) var wantsContinue = false
    /// Whether the peer sends no more; it may still read.
    private(set) var peerEnded = false
    /// Whether the connection has been given its last second to ask.
    private(set) var isHurried = false
    private var keepsAlive = true
    private var hasServed = false
    private var pipelineHeld = false
    private var bodyHeld = false
    /// Bytes of the body's data, and when the body began.
    private var bodyBytes = 0
    private var bodyStarted = MonotonicTime(nanoseconds: 0)
    /// Since when the body's time limit stands still.
    private var bodySuspended: MonotonicTime?
    /// How much had left when `writeBy` was set.
    private var lastLeft = 0

    /// Most bytes that may wait here while a response is under way; beyond it the kernel keeps the rest.
    static let pipelineLimit = 65536
    /// When more bytes than this of earlier answers wait for the peer, its next request is not looked at before all of them have left.
    static let answerLimit = 256 << 10
    /// How long a refused connection may go on sending, so that the peer can read why.
    static let lingerTime = Duration.seconds(2)
    /// How long an idle connection may still ask when the server drains gently, or when it has not asked yet.
    static let hurryTime = Duration.seconds(1)

    /// By when something must have happened, the earlier of the two; nil: nothing is waited for. `timePassed` is to be told when it comes.
    var deadline: MonotonicTime? {
        guard let readBy, let writeBy else { return readBy ?? writeBy }
        return min(readBy, writeBy)
    }

    // MARK: the request

    /// The connection was accepted.
    mutating func start(expectsProxyHeader: Bool, _ now: MonotonicTime, _ limits: borrowing HTTPLimits) {
        if expectsProxyHeader { state = .proxyHeader }
        readBy = now + limits.headTime
    }

    mutating func tookProxyHeader() { state = .head(begun: false) }

    /// A part of a head has come. The clock for a head starts with its first byte.
    mutating func tookPartOfHead(_ now: MonotonicTime, _ limits: borrowing HTTPLimits) {
        guard case .head(begun: false) = state else { return }
        state = .head(begun: true)
        readBy = now + limits.headTime
    }

    /// A head is whole: from now on it is not this connection's fault any more if it takes time.
    mutating func tookHead() { state = .head(begun: false) }

    /// A head was read. Throws when its body would be too large.
    mutating func took(
        framing: BodyFraming, keepsAlive: Bool, expectsContinue: Bool, _ now: MonotonicTime, _ limits: borrowing HTTPLimits
    ) throws(HTTPFailure) {
        self.keepsAlive = keepsAlive
        wantsContinue = expectsContinue
        answer = .none
        bodyBytes = 0
        bodyStarted = now
        bodySuspended = nil
        hasServed = true
        isHurried = false
        switch framing {
        case .length(let count):
            if count > limits.body { throw .bodyTooLarge }
            state = .fixedBody(remaining: count)
            readBy = now + limits.bodyTime
        case .chunked:
            state = .chunkedBody(ChunkDecoder())
            readBy = now + limits.bodyTime
        case .none, .untilClose:
            state = .answering
            readBy = nil
        }
    }

    /// Whether `100 Continue` is to be sent now: the body is wanted, and nobody has answered yet.
    mutating func saysContinue() -> Bool {
        guard wantsContinue, isInBody, answer != .whole else { return false }
        wantsContinue = false
        return true
    }

    /// Takes at most `count` bytes of a body of known length; returns how many, and whether they are its last.
    mutating func tookBody(_ count: Int, _ now: MonotonicTime, _ limits: borrowing HTTPLimits) -> (part: Int, isLast: Bool) {
        guard case .fixedBody(let remaining) = state else { return (0, false) }
        let part = min(remaining, count)
        keepBodyTime(part, now, limits)
        if part < remaining { state = .fixedBody(remaining: remaining - part) }
        return (part, part == remaining)
    }

    /// Takes the decoder back after some of a chunked body was read. What frames the data is no progress of the body.
    mutating func tookChunks(_ decoder: ChunkDecoder, data: Int, _ now: MonotonicTime, _ limits: borrowing HTTPLimits) {
        guard case .chunkedBody = state else { return }
        state = .chunkedBody(decoder)
        if data > 0 { keepBodyTime(data, now, limits) }
    }

    /// A body may take `bodyTime`, and a second more for each KiB of its data that has come, but its data may never stand still for
    /// `bodyTime`: slow links finish, drips and stalls do not hold a connection for ever.
    private mutating func keepBodyTime(_ count: Int, _ now: MonotonicTime, _ limits: borrowing HTTPLimits) {
        bodyBytes += count
        if bodySuspended != nil { return }
        let wholeBody = bodyStarted + limits.bodyTime + .seconds(bodyBytes / 1024)
        readBy = min(wholeBody, now + limits.bodyTime)
    }

    /// The body is whole.
    mutating func bodyEnded(_ facts: Facts, _ now: MonotonicTime, _ limits: borrowing HTTPLimits) -> Action {
        guard isInBody else { return .nothing }
        readBy = nil
        state = .answering
        return answer == .whole ? next(facts, now, limits) : .endRequest
    }

    /// Stops and resumes reading the body. While it is not read, something else is waited for, which is not the peer's fault: the body's
    /// time stands still.
    mutating func holdBody(_ hold: Bool, _ now: MonotonicTime, _ limits: borrowing HTTPLimits) {
        bodyHeld = hold
        if hold, bodySuspended == nil {
            bodySuspended = now
            if isInBody { readBy = nil }
        } else if !hold, let since = bodySuspended {
            bodySuspended = nil
            bodyStarted = bodyStarted + (now - since)
            if isInBody { readBy = now + limits.bodyTime }
        }
    }

    /// Requests that wait for the one before them, or for answers to leave, are read up to a limit; the rest stays with the kernel.
    mutating func holdPipeline(_ input: Int, waiting: Int = 0) {
        let isMuch = input > ServerConnectionMachine.pipelineLimit
        switch state {
        case .answering: pipelineHeld = isMuch
        // The beginning of a large head needs its rest.
        case .head(let begun): pipelineHeld = isMuch && !begun && (!ServerConnectionMachine.takesHead(waiting) || pipelineHeld)
        default: pipelineHeld = pipelineHeld && isMuch
        }
    }

    /// Whether a further request is taken from a peer for which so many bytes of earlier answers wait.
    static func takesHead(_ waiting: Int) -> Bool { waiting <= answerLimit }

    // MARK: the answer

    /// The answer begins: from now on a request that turns out malformed can only be cut off. Returns whether the answer's head must say
    /// that the connection ends.
    mutating func beginAnswer(isDraining: Bool) -> Bool {
        if answer == .none { answer = .begun }
        if isDraining || isInBody { keepsAlive = false }
        return !keepsAlive
    }

    /// The whole answer has been written.
    mutating func finishAnswer(close: Bool, _ facts: Facts, _ now: MonotonicTime, _ limits: borrowing HTTPLimits) -> Action {
        answer = .whole
        if close || !keepsAlive { return leave() }
        if case .answering = state { return next(facts, now, limits) }
        return .nothing
    }

    private mutating func next(_ facts: Facts, _ now: MonotonicTime, _ limits: borrowing HTTPLimits) -> Action {
        if facts.isDraining || (peerEnded && facts.input == 0 && !facts.isProcessing) { return leave() }
        state = .head(begun: false)
        // A failure from here on is the next request's own.
        answer = .none
        bodyHeld = false
        // The peer's time for another request begins when the answers before have left.
        if facts.waiting > 0 {
            readBy = nil
            watchWriting(facts, now, limits)
        } else {
            awaitRequest(facts, now, limits)
        }
        return .next
    }

    private mutating func awaitRequest(_ facts: Facts, _ now: MonotonicTime, _ limits: borrowing HTTPLimits) {
        readBy = now + (facts.input == 0 ? limits.idleTime : limits.headTime)
    }

    /// All that waited for the peer has left, and the connection goes on: the next request is looked at, or waited for. (`facts.waiting` is
    /// not 0 when more was written meanwhile.)
    mutating func answersLeft(_ facts: Facts, _ now: MonotonicTime, _ limits: borrowing HTTPLimits) -> Action {
        if facts.waiting == 0 { writeBy = nil }
        guard case .head(begun: false) = state else { return .nothing }
        awaitRequest(facts, now, limits)
        return .next
    }

    /// From here on the connection is no longer HTTP.
    mutating func beginTunnel() {
        state = .tunnel
        answer = .whole
        pipelineHeld = false
        readBy = nil
        writeBy = nil
    }

    // MARK: the end

    /// Whether an end of the connection now would cut an answer off that may have no other end than the connection's (HTTP/1.0): a part of it
    /// was never written, or waits here still. The peer must see a reset then, because an end in good order would make it look whole.
    func cuts(waiting: Int) -> Bool { answer == .begun || (isLeaving && waiting > 0) }

    /// What is to be done about a request that is refused by the connection itself.
    enum Refusal { case nothing, close, reset, leave, answer }

    var refusal: Refusal {
        switch state {
        case .leaving: return .nothing
        case .tunnel: return .close
        default: break
        }
        return switch answer {
        case .none: .answer
        case .begun: .reset
        case .whole: .leave
        }
    }

    /// The connection ends after what was written has left; until the peer has closed or `lingerTime` is over, what it still sends is read
    /// and dropped, because closing with unread bytes would reset the answer away.
    @discardableResult
    mutating func leave() -> Action {
        state = .leaving
        pipelineHeld = false
        bodyHeld = false
        readBy = nil
        return .leave
    }

    /// All that waited has been sent.
    mutating func drained(_ now: MonotonicTime) -> Action {
        guard isLeaving else { return .nothing }
        writeBy = nil
        if peerEnded { return .close(.ours) }
        readBy = now + ServerConnectionMachine.lingerTime
        return .farewell
    }

    /// The peer sends no more. It may still read: what waits for it leaves first.
    mutating func peerEnds(input: Int, waiting: Int = 0) -> Action {
        peerEnded = true
        switch state {
        // It has sent its whole request and may still read the answer; so may one whose next requests wait here.
        case .answering: return .requesterEnded
        case .head(begun: false) where input > 0: return .nothing
        case .head where waiting > 0: return leave()
        case .leaving where waiting > 0: return .nothing
        case .tunnel: return .tunnelEnded
        default: return .close(.endOfFile)
        }
    }

    /// What waited was looked at: ends the connection of a peer that sends no more, unless whole requests wait here still, for the answers
    /// before them to leave.
    mutating func inputLookedAt(_ facts: Facts) -> Action {
        guard peerEnded, case .head(let begun) = state else { return .nothing }
        if !begun, facts.input > 0, !ServerConnectionMachine.takesHead(facts.waiting) { return .nothing }
        return facts.waiting > 0 ? leave() : .close(.endOfFile)
    }

    /// The peer has ended its side, or is gone, while it is not read. `seen`: bytes that came, in all; `isExact`: whether more cannot lie
    /// anywhere.
    func hungUp(seen: Int, isExact: Bool) -> Action {
        switch state {
        // It has ended its side before its body's end: the rest will never come.
        case .fixedBody(let remaining) where isExact && seen < remaining: .close(.endOfFile)
        case .answering, .fixedBody, .chunkedBody: .requesterEnded
        default: .nothing
        }
    }

    /// Watches that a client that reads makes progress: within `writeTime` some of what waits for it has to leave, whatever it sends
    /// meanwhile, and whatever is added to what waits.
    mutating func watchWriting(_ facts: Facts, _ now: MonotonicTime, _ limits: borrowing HTTPLimits) {
        guard facts.waiting > 0, writeBy == nil || facts.left != lastLeft else { return }
        lastLeft = facts.left
        writeBy = now + limits.writeTime
    }

    /// The deadline has come.
    mutating func timePassed(_ facts: Facts, _ now: MonotonicTime, _ limits: borrowing HTTPLimits) -> Action {
        // The timer has run out: it is to be set again, if only one of the two times is over.
        deadlineMoved = true
        if let readBy, readBy <= now {
            switch state {
            case .head(begun: true): return .refuse(.headTimeout)
            case .fixedBody, .chunkedBody: return .refuse(.bodyTimeout)
            case .proxyHeader, .head(begun: false), .leaving: return .close(.ours)
            // Nothing is expected of it.
            case .answering, .tunnel: self.readBy = nil
            }
        }
        guard let writeBy, writeBy <= now else { return .nothing }
        if facts.waiting > 0, facts.left == lastLeft { return .close(.ours) }
        self.writeBy = nil
        watchWriting(facts, now, limits)
        return .nothing
    }

    /// Ends an idle connection. One that has not asked yet gets a moment to do so; one that has is read once more, because a request may be
    /// waiting in the kernel, and closing over it would reset it.
    mutating func closeIfIdle(gently: Bool, _ facts: Facts, _ now: MonotonicTime) -> Action {
        guard isIdle(facts) else { return .nothing }
        guard !hasServed || gently else { return .readOnce }
        // The second is given once: asked again and again, it would never pass.
        if isHurried { return .nothing }
        isHurried = true
        readBy = now + ServerConnectionMachine.hurryTime
        return .nothing
    }

    // MARK: what it is

    /// Whether no request is under way, and none has begun to arrive.
    func isIdle(_ facts: Facts) -> Bool {
        if case .head(begun: false) = state { facts.input == 0 && facts.waiting == 0 } else { false }
    }

    var isInBody: Bool {
        switch state {
        case .fixedBody, .chunkedBody: true
        default: false
        }
    }

    var isLeaving: Bool { if case .leaving = state { true } else { false } }
    var isTunnel: Bool { if case .tunnel = state { true } else { false } }
    /// Whether the peer is not to be read now.
    var holdsReading: Bool { pipelineHeld || bodyHeld }

    /// The deadline, if it was set since this was last called.
    mutating func takeDeadline() -> MonotonicTime?? {
        guard deadlineMoved else { return nil }
        deadlineMoved = false
        return .some(deadline)
    }
}
