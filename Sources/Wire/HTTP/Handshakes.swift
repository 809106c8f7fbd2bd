import Basics
import EventLoops

/// The connections of one loop whose TLS handshake is not done yet.
///
/// Nobody has shown anything yet who is in here, so all of it is bounded: each has `HTTPLimits.headTime` from its first moment to the end of
/// its handshake; of more than `most` the oldest go; and at most `perTurn` handshakes begin in one turn of the loop, because an RSA signature
/// takes a quarter of a millisecond in which nobody else is served. The others wait in the order in which their hellos were whole.
public final class Handshakes {
    /// Handshakes that begin in one turn of the loop.
    static let perTurn = 8

    public let context: HTTPServerContext
    /// The certificates of connections that begin from now on; nil: none is taken.
    public var server: TLSServer?
    /// Most connections at once; beyond it the oldest is closed.
    public var most = 2048
    /// Called when a handshake is done, inside of the handshake's own call: whoever takes the connection over lets it `handOver`, or closes it.
    public var onDone: (Handshake) -> Void = { $0.close() }
    /// Called when a client's address is known, before its handshake begins. False: it is closed.
    public var onNamed: (Handshake) -> Bool = { _ in true }
    /// Called when one ended without a connection, with a word for the metrics.
    public var onFailure: (Handshake, String) -> Void = { _, _ in }

    /// By their numbers, which grow with their age.
    private var all: [UInt64: Handshake] = [:]
    private var nextNumber: UInt64 = 0
    private var oldest: UInt64 = 0
    private var line: [Handshake] = []
    private var begun = 0
    private var turn = MonotonicTime(nanoseconds: 0)
    private var turnTimer: LoopTimer?
    private var ageTimer: LoopTimer?

    public init(context: HTTPServerContext) {
        self.context = context
        turnTimer = LoopTimer(loop: context.loop) { [unowned self] in beginWaiting() }
        ageTimer = LoopTimer(loop: context.loop) { [unowned self] in endOld() }
    }

    /// How many are not done.
    public var count: Int { all.count }

    /// Takes an accepted socket.
    public func take(_ descriptor: Int32, peer: SocketAddress) throws(SystemError) {
        let handshake = Handshake(self, number: nextNumber, peer: peer, expectsProxyHeader: context.expectsProxyHeader(peer))
        try handshake.adopt(descriptor)
        all[nextNumber] = handshake
        nextNumber &+= 1
        if all.count == 1 { watchAge() }
        if server == nil { return handshake.end("no_certificate") }
        if context.connections.count + all.count > context.connectionLimit { return handshake.end("too_many_connections") }
        if all.count > most { first?.end("crowded") }
    }

    /// The oldest of those that are not done.
    private var first: Handshake? {
        while oldest < nextNumber {
            if let found = all[oldest] { return found }
            oldest &+= 1
        }
        return nil
    }

    /// Closes all.
    public func closeAll() { for handshake in Array(all.values) { handshake.end("closed_here") } }

    /// Forgets one that is done or has ended.
    func forget(_ handshake: Handshake) { all[handshake.number] = nil }

    private func watchAge() { if let first { ageTimer?.schedule(at: first.began + context.limits.headTime) } }

    private func endOld() {
        while let first, first.began + context.limits.headTime <= context.loop.now { first.end("timeout") }
        watchAge()
    }

    /// Whether a handshake may begin in this turn; otherwise it is called when it may.
    func mayBegin(_ handshake: Handshake) -> Bool {
        if turn != context.loop.now {
            turn = context.loop.now
            begun = 0
        }
        if begun < Handshakes.perTurn, line.isEmpty {
            begun += 1
            return true
        }
        line.append(handshake)
        if line.count == 1 { turnTimer?.schedule(after: .zero) }
        return false
    }

    private func beginWaiting() {
        let chosen = line.prefix(Handshakes.perTurn)
        turn = context.loop.now
        begun = chosen.count
        line.removeFirst(chosen.count)
        for handshake in chosen { handshake.beginHandshake() }
        if !line.isEmpty { turnTimer?.schedule(after: .zero) }
    }
}

/// An accepted connection until its TLS handshake is done. Then another stream takes it over: which kind depends on `applicationProtocol`.
///
/// First a PROXY header, where the peer sends one; then the client's hello is gathered until its first record is whole, so that a client that
/// drips it costs no signature and one that speaks plain HTTP is told so. Both have a bound in bytes: `ProxyHeader.limit`, and a record's
/// 16 KiB.
public final class Handshake: Stream {
    /// The client's address: the socket's peer, or the address in a PROXY header.
    public private(set) var peer: SocketAddress
    /// The address under which whoever counts clients has counted this one.
    public var counted: IPAddress?
    let began: MonotonicTime
    let number: UInt64
    private let line: Handshakes
    private var expectsProxyHeader: Bool
    /// Whether a proxy has said for whom it speaks.
    public private(set) var hasProxyHeader = false
    private var isNamed = false
    private var isLeaving = false
    private var input = ByteBuffer()
    /// Runs while a client is given time to read why it is refused.
    private var farewell: LoopTimer?
    private static let lingerTime = Duration.seconds(1)
    /// Why it was ended by us; nil: it was not.
    private var word: String?

    init(_ line: Handshakes, number: UInt64, peer: SocketAddress, expectsProxyHeader: Bool) {
        self.line = line
        self.number = number
        self.peer = peer
        self.expectsProxyHeader = expectsProxyHeader
        began = line.context.loop.now
        super.init(loop: line.context.loop)
    }

    /// What both ends speak above TLS; HTTP/1.1 where the client offered nothing.
    public var applicationProtocol: ApplicationProtocol { tls?.applicationProtocol ?? .http1 }

    public override func received(_ bytes: UnsafeRawBufferPointer) {
        if isLeaving { return }
        input.append(bytes)
        if expectsProxyHeader, !readProxyHeader() { return }
        if !isNamed {
            isNamed = true
            guard line.onNamed(self) else { return end("too_many_connections") }
        }
        switch Handshake.form(of: input.bytes) {
        case .unfinished: return
        case .hello:
            // What comes meanwhile stays with the kernel.
            pauseReading()
            if line.mayBegin(self) { beginHandshake() }
        case .other:
            if input.bytes.first.map({ $0 &- 65 < 26 }) == true { return explain() }
            end("no_tls")
        }
    }

    /// False while more must come, or when it is no header.
    private func readProxyHeader() -> Bool {
        do throws(ProxyHeader.Failure) {
            guard let header = try ProxyHeader.parse(input.bytes) else { return false }
            expectsProxyHeader = false
            hasProxyHeader = true
            if let source = header.source { peer = source }
            input.consume(header.length)
            return true
        } catch {
            line.context.onRefusal(.badProxyHeader)
            resetOnClose()
            end("bad_proxy_header")
            return false
        }
    }

    enum Form { case unfinished, hello, other }

    /// Looks at the first record's header (RFC 8446, 5.1): a handshake, some version 3, at most 16 KiB.
    static func form(of bytes: UnsafeRawBufferPointer) -> Form {
        guard let first = bytes.first else { return .unfinished }
        if first != 22 || bytes.count > 1 && bytes[1] != 3 { return .other }
        guard bytes.count >= 5 else { return .unfinished }
        let length = Int(bytes[3]) << 8 | Int(bytes[4])
        if length < 4 || length > 16384 { return .other }
        return bytes.count >= 5 + length ? .hello : .unfinished
    }

    func beginHandshake() {
        guard isOpen, let server = line.server else { return end("no_certificate") }
        resumeReading()
        let hello = ByteBuffer(input.bytes)
        input.clear(keeping: 0)
        beginTLS(server.session(), with: hello.bytes)
    }

    /// Tells a client that it speaks plain HTTP where TLS is spoken, and ends.
    private func explain() {
        word = "plain_http"
        isLeaving = true
        let body =
            "{\"error\":{\"code\":\"plain_http\",\"message\":\"this port speaks TLS: ask https:// instead of http://\"}}\n"
        var out = ByteBuffer()
        out.append("HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ")
        out.append(decimal: body.utf8.count)
        out.append("\r\n\r\n")
        out.append(text: body)
        write(out.bytes)
        // What it still sends is read and dropped for a moment: closing over it would reset the answer away.
        shutdownSending()
        farewell = LoopTimer(loop: loop) { [unowned self] in close() }
        farewell?.schedule(after: Handshake.lingerTime)
    }

    public override func connected() { line.onDone(self) }

    /// Ends it; `word` says why.
    func end(_ word: String) {
        self.word = self.word ?? word
        close()
    }

    public override func closed(_ reason: CloseReason) {
        line.forget(self)
        farewell?.cancel()
        farewell = nil
        if let word { return line.onFailure(self, word) }
        switch reason {
        case .tls(let failure): line.onFailure(self, failure.word)
        case .ours: break
        case .endOfFile, .system: line.onFailure(self, "client_closed")
        }
    }

    /// Called when another stream has taken the connection over.
    public override func handedOver() { line.forget(self) }
}
