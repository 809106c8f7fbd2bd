import Basics
import EventLoops
import HTTP
import HTTP2

/// One request of a client of HTTP/2, and its answer. Has an exchange while the request is under way.
final class ClientStream: HTTP2Stream {
    let connection: HTTP2Connection
    private var exchange: Exchange?
    /// How the body of the answer under way goes to the client.
    var hasBody = false
    private var expectsContinue = false
    private var saidContinue = false
    private var isTunnel = false
    /// What came of a tunnel before it was one.
    private var early = ByteBuffer()
    /// When something last came of the body, or left of the answer; and how much had left then.
    private var movedAt: MonotonicTime
    private var leftThen = 0
    /// When the request began.
    private let began: MonotonicTime
    private var bodyBytes = 0

    init(_ connection: HTTP2Connection) {
        self.connection = connection
        began = connection.loop.now
        movedAt = began
        super.init()
    }

    private var gateway: GatewayLoop { connection.gateway }
    var isAlive: Bool { isOpen && !isReset }
    var awaitsContinue: Bool { expectsContinue && !saidContinue }

    // MARK: the request

    override func headCame(_ table: HeadTable, ends: Bool) {
        let exchange = gateway.lendExchange()
        self.exchange = exchange
        expectsContinue = table.expectsContinue && !ends
        exchange.begin(.http2(self), table)
        if expectsContinue, !hasSentHead, isAlive { sayContinue() }
        if isConnect { self.exchange?.requestEnd() }
    }

    private func sayContinue() {
        saidContinue = true
        gateway.http2.fields.clear()
        gateway.http2.fields.add(":status", "100")
        session?.interim(self, &gateway.http2.fields)
    }

    override func bodyCame(_ bytes: UnsafeRawBufferPointer) {
        movedAt = connection.loop.now
        bodyBytes += bytes.count
        if isConnect {
            guard exchange != nil else { return credit(allBut: 0) }
            return isTunnel ? exchange?.clientTunnelReceived(bytes) ?? () : early.append(bytes)
        }
        if let exchange { exchange.requestBody(bytes) } else { credit(allBut: 0) }
    }

    override func trailersCame(_ table: HeadTable) { exchange?.requestTrailers(table) }

    override func ended() {
        if !isConnect { exchange?.requestEnd() } else if isTunnel, early.isEmpty { exchange?.clientTunnelEnded() }
    }

    override func readFinished() { if !isConnect { exchange?.requestReadFinished() } }

    override func refused(_ fault: FieldFault) {
        gateway.http2.noteFault(fault)
        gateway.noteRefused(connection.peer.ip, status: 400, bodyBytes: 0)
    }

    override func mustAnswer(_ failure: HTTPFailure, ends: Bool) {
        gateway.context.onRefusal(failure)
        let body = Array("{\"error\":{\"code\":\"\(failure.rawValue)\",\"message\":\"\(failure.message)\"}}\n".utf8)
        gateway.http2.fields.clear()
        gateway.http2.fields.add(":status", decimal: failure.status)
        gateway.http2.fields.add("content-type", "application/json")
        gateway.http2.fields.add("content-length", decimal: body.count)
        gateway.context.dateLine().withUnsafeBytes { gateway.http2.fields.addLines($0) }
        session?.respond(self, &gateway.http2.fields, ends: false)
        body.withUnsafeBytes { append($0) }
        end()
        gateway.noteRefused(connection.peer.ip, status: failure.status, bodyBytes: body.count)
    }

    override func drained() {
        movedAt = connection.loop.now
        exchange?.clientDrained()
    }

    override func closed(_ code: UInt32) {
        exchange?.clientGone()
        exchange = nil
        connection.streamEnded()
    }

    /// Takes back an exchange that is over.
    func giveBack(_ used: Exchange) {
        guard exchange === used else { return }
        exchange = nil
        gateway.takeBack(used)
        credit(allBut: 0)
    }

    // MARK: a tunnel

    /// The client's extended CONNECT has been agreed to: bytes pass both ways.
    func beginTunnel() {
        isTunnel = true
        guard !early.isEmpty || peerHasEnded else { return }
        let bound = LoopBound(self, on: connection.loop)
        connection.loop.execute { bound.value.tellEarly() }
    }

    private func tellEarly() {
        if !early.isEmpty {
            exchange?.clientTunnelReceived(early.bytes)
            early.clear(keeping: 0)
        }
        if peerHasEnded { exchange?.clientTunnelEnded() }
    }

    // MARK: time

    /// Ends a request whose body has stopped coming, or whose client does not read its answer. A call of gRPC may be silent for as long as its
    /// deadline lets it.
    func timePassed(_ now: MonotonicTime, _ limits: HTTPLimits) {
        guard isAlive, !isTunnel else { return }
        if waiting > 0 {
            if left != leftThen {
                leftThen = left
                movedAt = now
            } else if now - movedAt >= limits.writeTime {
                reset(.cancel)
            }
        } else if !peerHasEnded, !hasSentHead, !isHeld {
            let whole = began + limits.bodyTime + .seconds(bodyBytes / 1024)
            guard now - movedAt >= limits.bodyTime || now >= whole, let exchange, !exchange.request.isGRPC else { return }
            exchange.requestRefused(408, bodyBytes: 0)
            mustAnswer(.bodyTimeout, ends: false)
        }
    }

    /// Whether the client may not send, because what it sent has not gone on: then its time stands still.
    private var isHeld: Bool {
        guard isCreditLow else { return false }
        movedAt = connection.loop.now
        return true
    }
}
