import Basics
import EventLoops
import HTTP
import Observability
import StackModel

/// What a listener does with those who come.
public enum ListenerKind: Sendable, Equatable {
    /// HTTP in plain.
    case plain
    /// TLS, and above it what both ends speak.
    case secure
    /// HTTP in plain, of which every request is sent to https on a port.
    case redirect(port: UInt16)

    public init(_ spec: ListenerSpec) {
        self = spec.isSecure ? .secure : spec.redirect.map { .redirect(port: $0.port) } ?? .plain
    }
}

/// How clients get in.
extension GatewayLoop {
    /// Takes an accepted socket.
    func accept(_ fd: Int32, _ peer: SocketAddress, _ kind: ListenerKind) {
        do throws(SystemError) {
            if case .secure = kind { return try handshakes.take(fd, peer: peer) }
            let connection = ProxyConnection(gateway: self, peer: peer, kind)
            try connection.start(fd)
            count(connection)
        } catch {
            closeDescriptor(fd)
            ranShort(error.description)
        }
    }

    private func count(_ connection: ProxyConnection) {
        guard settings.takesProxyProtocol else { return countNamed(connection) }
        // Whoever may not speak for others has nothing to do here; whoever may is counted when it has said for whom.
        if !settings.trusts(connection.peer.ip) {
            connection.turnAway(status: 403, code: "no_proxy", message: "this address may only be used by the proxies before it")
        }
    }

    func countNamed(_ connection: ProxyConnection) {
        guard settings.perClient > 0, let address = connection.peer.ip, connection.isOpen else { return }
        if clients.add(address, limit: settings.perClient) {
            connection.counted = address
        } else {
            connection.turnAway(status: 429, code: "too_many_connections", message: "this address has as many connections as it may have")
        }
    }

    func forgetClient(_ connection: ProxyConnection) { if let address = connection.counted { forget(address) } }

    /// Counts a connection of this client no longer.
    func forget(_ address: IPAddress) { clients.remove(address) }

    /// Says what becomes of handshakes.
    func followHandshakes(_ metrics: MetricsRegistry) {
        handshakes.onNamed = { [unowned self] handshake in
            if settings.takesProxyProtocol, !handshake.hasProxyHeader { return false }
            guard settings.perClient > 0, let address = handshake.peer.ip else { return true }
            guard clients.add(address, limit: settings.perClient) else { return false }
            handshake.counted = address
            return true
        }
        let about = "TLS handshakes of clients that did not succeed, by reason."
        handshakes.onFailure = { [unowned self] handshake, word in
            if let address = handshake.counted { clients.remove(address) }
            metrics.counter("gateway_tls_handshake_failures_total", about, labels: [("reason", word)]).add()
        }
        let full = metrics.counter("gateway_tls_handshakes_total", "TLS handshakes of clients.", labels: [("kind", "full")])
        let resumed = metrics.counter("gateway_tls_handshakes_total", "TLS handshakes of clients.", labels: [("kind", "resumed")])
        handshakes.onDone = { [unowned self] handshake in
            (handshake.tls?.isResumed == true ? resumed : full).add()
            begin(handshake)
        }
    }

    /// A client's handshake is done: the one place where it is decided what its connection becomes. A further protocol is a case here, and a
    /// word among the protocols that `GatewaySettings` offers.
    private func begin(_ handshake: Handshake) {
        switch handshake.applicationProtocol {
        case .http1:
            let connection = ProxyConnection(gateway: self, peer: handshake.peer, .secure, certificate: handshake.tls?.peerCertificate)
            connection.counted = handshake.counted
            connection.start(after: handshake)
        case .http2:
            let trusted = settings.trusts(handshake.peer.ip)
            let connection = HTTP2Connection(
                gateway: self, peer: handshake.peer, comesFromTrusted: trusted, counted: handshake.counted,
                certificate: handshake.tls?.peerCertificate)
            handshake.handOver(to: connection)
            connection.begin(UnsafeRawBufferPointer(start: nil, count: 0))
        }
    }
}
