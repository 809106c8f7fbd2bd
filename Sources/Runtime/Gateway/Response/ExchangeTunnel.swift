import Basics
import EventLoops
import HTTP

/// How far a tunnel has come.
struct TunnelState {
    /// When something last passed through the tunnel.
    var lastMoved = MonotonicTime(nanoseconds: 0)
    var clientEnded = false
    var upstreamEnded = false
}

/// An upgraded connection (WebSocket and the like): bytes pass both ways, each side slowed down to what the other takes.
extension Exchange {
    func beginTunnel(_ client: ClientSide) {
        client.flush()
        route?.route.metrics.tunnels.add(1)
        if tunnelTimer == nil { tunnelTimer = LoopTimer(loop: loop) { [unowned self] in watchTunnel() } }
        tunnel.lastMoved = loop.now
        watchTunnel()
        client.beginTunnel()
    }

    /// Ends the tunnel when nothing has moved for too long. Bytes that move only note the time.
    private func watchTunnel() {
        let end = tunnel.lastMoved + (route?.route.spec.timeout.tunnel ?? .seconds(3600))
        if end <= loop.now { endTunnel() } else { tunnelTimer?.schedule(at: end) }
    }

    func clientTunnelReceived(_ bytes: UnsafeRawBufferPointer) {
        guard attempts.state == .tunnel, let upstream = questions.first?.upstream else { return }
        tunnel.lastMoved = loop.now
        request.bodyCount += bytes.count
        upstream.write(bytes)
        if upstream.waiting > Exchange.window { client?.holdBody(true) }
        client?.bodyWentOn(allBut: upstream.waiting)
    }

    func upstreamTunnelReceived(_ bytes: UnsafeRawBufferPointer) {
        guard attempts.state == .tunnel, let client else { return }
        tunnel.lastMoved = loop.now
        answer.bytes += bytes.count
        client.write(bytes)
        if client.waiting > Exchange.window { questions.first?.upstream.pauseReading() }
    }

    /// Called when the client sends no more; it may still read.
    func clientTunnelEnded() {
        guard attempts.state == .tunnel else { return }
        tunnel.clientEnded = true
        if questions.first?.upstream.waiting == 0 { passOnClientsEnd() }
    }

    /// Called when all that the client sent has left. If the replica has sent everything, too, the tunnel ends; else the replica is told of
    /// the client's end.
    func passOnClientsEnd() { if tunnel.upstreamEnded { endTunnel() } else { questions.first?.upstream.shutdownSending() } }

    func upstreamTunnelEnded() {
        guard attempts.state == .tunnel, let client else { return }
        tunnel.upstreamEnded = true
        if tunnel.clientEnded, questions.first?.upstream.waiting == 0 { return endTunnel() }
        if client.waiting == 0 { client.shutdownSending() }
    }

    /// Called when the replica's connection is gone; what it sent before still goes to the client.
    func upstreamTunnelLost() { endTunnel() }

    func endTunnel() {
        guard attempts.state == .tunnel, let client else { return }
        abandonAttempts()
        finish()
        client.endTunnel()
    }
}
