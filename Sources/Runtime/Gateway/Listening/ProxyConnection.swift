import Basics
import EventLoops
import HTTP

/// A client's connection to the gateway. Between requests it holds nothing else; what a request needs is an `Exchange`, lent to the
/// connection.
final class ProxyConnection: HTTPServerConnection {
    private let gateway: GatewayLoop
    private var exchange: Exchange?
    /// Whether the client is a trusted proxy: the socket's own peer, or the address in a PROXY header.
    private(set) var comesFromTrusted: Bool
    /// Whether the request under way is one of HTTP/1.0.
    private(set) var isOld = false
    /// Whether the request under way is HEAD.
    private(set) var isHead = false
    /// How the body of the answer under way goes to the client.
    var bodyForm = BodyForm.none
    /// The address under which the connection was counted.
    var counted: IPAddress?
    /// What its listener does with those who come.
    let kind: ListenerKind
    /// Whether its listener has nothing to say about requests.
    let isOrdinary: Bool
    /// The certificate that the client has shown.
    let certificate: PeerCertificate?

    init(gateway: GatewayLoop, peer: SocketAddress, _ kind: ListenerKind, certificate: PeerCertificate? = nil) {
        self.gateway = gateway
        self.kind = kind
        isOrdinary = kind == .plain
        self.certificate = certificate
        comesFromTrusted = gateway.settings.trusts(peer.ip)
        super.init(context: gateway.context, peer: peer)
    }

    override func peerNamed() {
        comesFromTrusted = gateway.settings.trusts(peer.ip)
        gateway.countNamed(self)
    }

    /// A client of HTTP/2 that knows what is spoken here: a connection of that kind goes on with the socket.
    override func prefaceCame(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard kind == .plain else { return false }
        let next = HTTP2Connection(gateway: gateway, peer: peer, comesFromTrusted: comesFromTrusted, counted: counted)
        counted = nil
        handOver(to: next)
        next.begin(bytes)
        return true
    }

    override func requestHead(_ table: HeadTable) {
        let exchange = gateway.lendExchange()
        self.exchange = exchange
        isOld = table.minorVersion == 0
        isHead = table.isHead
        exchange.begin(.http1(self), table)
    }

    override func requestBody(_ bytes: UnsafeRawBufferPointer) { exchange?.requestBody(bytes) }
    override func requestEnd() { exchange?.requestEnd() }
    override func readFinished() { exchange?.requestReadFinished() }
    override func requestRefused(_ status: Int, bodyBytes: Int) {
        if let exchange { return exchange.requestRefused(status, bodyBytes: bodyBytes) }
        gateway.noteRefused(peer.ip, status: status, bodyBytes: bodyBytes)
    }
    override func requesterEnded() { exchange?.requesterEnded() }
    override func tunnelReceived(_ bytes: UnsafeRawBufferPointer) { exchange?.clientTunnelReceived(bytes) }
    override func tunnelEnded() { exchange?.clientTunnelEnded() }

    override func drained() {
        exchange?.clientDrained()
        super.drained()
    }

    override func connectionClosed(_ reason: CloseReason) {
        exchange?.clientGone()
        gateway.forgetClient(self)
    }

    /// Takes back an exchange that is over and no longer needed.
    func giveBack(_ used: Exchange) {
        guard exchange === used else { return }
        exchange = nil
        // What it had gathered and not sent goes to nobody else.
        context.scratch.clear(keeping: 262_144)
        gateway.takeBack(used)
    }
}
