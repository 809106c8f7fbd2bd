import Basics
import EventLoops

/// The client's side of one HTTP/1.1 connection: one request at a time, its response told in pieces.
///
/// The caller writes the request's bytes itself (`write`) after `begin`. States: `idle` → `head` → `body` → `idle`.
open class HTTPClientConnection: Stream {
    private enum State {
        case idle
        case head
        case fixedBody(remaining: Int)
        case chunkedBody(ChunkDecoder)
        case bodyUntilClose
        /// Upgraded: HTTP is over.
        case tunnel
    }

    /// Why a request failed: its response broke the rules, or the connection ended in the middle of one.
    public enum Failure: Error, Equatable, CustomStringConvertible {
        /// Nothing of the request left this machine.
        case notConnected(CloseReason)
        /// The request (or a part of it) was sent and no complete response came.
        case lost(CloseReason, responseBegun: Bool)
        case malformed(HTTPFailure)

        /// Whether this process lacked something of its own (see `SystemError.isOwnWant`): then the peer has no part in it.
        public var isOwnWant: Bool {
            switch self {
            case .notConnected(let reason), .lost(let reason, _): reason.isOwnWant
            case .malformed: false
            }
        }

        public var description: String {
            switch self {
            case .notConnected(let reason): "could not connect: \(reason)"
            case .lost(let reason, let begun): "\(begun ? "lost in the middle of the response" : "lost before the response"): \(reason)"
            case .malformed(let failure): "malformed response: \(failure.message)"
            }
        }
    }

    private let table: HeadTable
    private let limits: HTTPLimits
    private var state = State.idle
    private var scanner = HeadScanner()
    private var input = ByteBuffer()
    private var toHead = false
    private var mayUpgrade = false
    private var isTunnel = false
    private var everConnected = false
    private var mayStayOpen = true
    /// Interim responses to this request: how many, and their bytes.
    private var interims = 0
    private var interimBytes = 0

    public init(loop: EventLoop, table: HeadTable, limits: HTTPLimits) {
        self.table = table
        self.limits = limits
        super.init(loop: loop)
    }

    // MARK: what subclasses are told

    open func connectionReady() {}
    /// Called with the head of the response. `table` is valid until this returns.
    open func responseHead(_ table: HeadTable) {}
    /// Called with an interim response (1xx, but for 101 after an upgrade): any number of them, within `HTTPLimits`, before the head.
    /// `table` is valid until this returns.
    open func interimResponse(_ table: HeadTable) {}
    open func responseBody(_ bytes: UnsafeRawBufferPointer) {}
    /// Called with the fields that follow a body; `responseEnd` comes next. `table` is valid until this returns.
    open func responseTrailers(_ table: HeadTable) {}
    /// Called at the end of the response. The connection is idle again, or closing if `reusable` is false.
    open func responseEnd(reusable: Bool) {}
    /// Called when everything that one read brought has been told.
    open func readFinished() {}
    /// Called with bytes after an upgrade, and at the end of the peer's side of it.
    open func tunnelReceived(_ bytes: UnsafeRawBufferPointer) {}
    open func tunnelEnded() { close(.endOfFile) }
    /// Called last: a request was under way or (`nil`) none was.
    open func connectionClosed(_ failure: Failure?) {}

    // MARK: requests

    public var isIdle: Bool { if case .idle = state { true } else { false } }

    /// Expects a response to the request that is about to be written. With `mayUpgrade`, 101 is an answer: it is told as a head, and what
    /// follows as `tunnelReceived`.
    public func begin(isHead: Bool, mayUpgrade: Bool = false) {
        toHead = isHead
        self.mayUpgrade = mayUpgrade
        interims = 0
        interimBytes = 0
        state = .head
    }

    public final override func connected() {
        everConnected = true
        connectionReady()
    }

    public final override func received(_ bytes: UnsafeRawBufferPointer) {
        if isTunnel { return tunnelReceived(bytes) }
        if input.isEmpty {
            let used = process(bytes)
            if isOpen, used < bytes.count { input.append(bytes.part(used, bytes.count - used)) }
        } else {
            input.append(bytes)
            let used = process(input.bytes)
            if isOpen { input.consume(used) }
            if input.isEmpty { input.clear(keeping: 0) }
        }
        if case .tunnel = state, input.isEmpty { isTunnel = true }
        readFinished()
    }

    private func process(_ bytes: UnsafeRawBufferPointer) -> Int {
        var used = 0
        do throws(HTTPFailure) {
            while isOpen, used < bytes.count {
                guard let more = try step(bytes.part(used, bytes.count - used)) else { return used }
                used += more
            }
        } catch {
            failure = .malformed(error)
            close(.ours)
        }
        return used
    }

    private var failure: Failure?

    private func step(_ bytes: UnsafeRawBufferPointer) throws(HTTPFailure) -> Int? {
        switch state {
        case .idle:
            // Bytes that nobody asked for: what follows could be taken for the next response.
            throw .badStatusLine
        case .head:
            guard let length = try scanner.scan(bytes, limits: limits) else { return nil }
            try HeadParser.parseResponse(bytes.part(0, length), into: table, toHead: toHead, limits: limits)
            if table.status < 200 {
                guard table.status == 101 else {
                    interims += 1
                    interimBytes += length
                    guard interims <= limits.interims, interimBytes <= limits.head else { throw .tooManyInterims }
                    interimResponse(table)
                    return length
                }
                guard mayUpgrade, table.wantsUpgrade else { throw .badStatusLine }
                state = .tunnel
                responseHead(table)
                // What came with the head is told from `process`, in its order.
                return length
            }
            mayStayOpen = table.keepsAlive && table.framing != .untilClose && !table.saysBodyWhereNoneMayBe
            switch table.framing {
            case .none: break
            case .length(let count): state = .fixedBody(remaining: count)
            case .chunked: state = .chunkedBody(ChunkDecoder())
            case .untilClose: state = .bodyUntilClose
            }
            let framing = table.framing
            responseHead(table)
            if framing == .none { ended() }
            return length
        case .fixedBody(let remaining):
            let part = min(remaining, bytes.count)
            state = .fixedBody(remaining: remaining - part)
            responseBody(bytes.part(0, part))
            if part == remaining, isOpen { ended() }
            return part
        case .chunkedBody(var decoder):
            let used = try decoder.decode(bytes) { (piece) throws(HTTPFailure) -> Bool in
                responseBody(piece)
                return isOpen
            }
            guard isOpen else { return used }
            state = .chunkedBody(decoder)
            if decoder.isDone {
                // More of them than a head may have are dropped, as all were before anybody passed them on.
                if let trailers = decoder.trailers, HeadParser.readTrailers(trailers.text.bytes, into: table, limits: limits) {
                    responseTrailers(table)
                }
                ended()
            }
            return used
        case .bodyUntilClose:
            responseBody(bytes)
            return bytes.count
        case .tunnel:
            tunnelReceived(bytes)
            return bytes.count
        }
    }

    private func ended() {
        state = .idle
        let reusable = mayStayOpen && isOpen
        responseEnd(reusable: reusable)
        if !reusable { close(.ours) }
    }

    public final override func receivedEnd() {
        if case .bodyUntilClose = state {
            mayStayOpen = false
            return ended()
        }
        if case .tunnel = state { return tunnelEnded() }
        close(.endOfFile)
    }

    public final override func closed(_ reason: CloseReason) {
        if let failure { return connectionClosed(failure) }
        if !everConnected { return connectionClosed(.notConnected(reason)) }
        switch state {
        case .idle: connectionClosed(nil)
        case .head: connectionClosed(.lost(reason, responseBegun: !input.isEmpty))
        default: connectionClosed(.lost(reason, responseBegun: true))
        }
    }
}
