import Basics
import EventLoops
import HTTP

/// An upgraded connection (WebSocket and the like): bytes pass both ways, each side slowed down to what the other takes.
extension Exchange {
    func beginTunnel() {
        phase = .tunnel
        flushScratch()
        route?.route.metrics.tunnels.add(1)
        if tunnelTimer == nil { tunnelTimer = LoopTimer(loop: loop) { [unowned self] in endTunnel() } }
        touchTunnel()
        client.beginTunnel()
    }

    /// Something moved.
    private func touchTunnel() { tunnelTimer?.schedule(at: loop.now + (route?.route.spec.timeout.tunnel ?? .seconds(3600))) }

    func clientTunnelReceived(_ bytes: UnsafeRawBufferPointer) {
        guard phase == .tunnel, let upstream = first?.upstream else { return }
        touchTunnel()
        bodyCount += bytes.count
        upstream.write(bytes)
        if upstream.waiting > Exchange.window { client.holdBody(true) }
    }

    func upstreamTunnelReceived(_ bytes: UnsafeRawBufferPointer) {
        guard phase == .tunnel, let client else { return }
        touchTunnel()
        responseBytes += bytes.count
        client.write(bytes)
        if client.waiting > Exchange.window { first?.upstream.pauseReading() }
    }

    /// The client sends no more, but may still read.
    func clientTunnelEnded() {
        guard phase == .tunnel else { return }
        clientEnded = true
        if upstreamEnded { return endTunnel() }
        if let upstream = first?.upstream, upstream.waiting == 0 { upstream.shutdownSending() }
    }

    func upstreamTunnelEnded() {
        guard phase == .tunnel, let client else { return }
        upstreamEnded = true
        if clientEnded { return endTunnel() }
        if client.waiting == 0 { client.shutdownSending() }
    }

    /// The replica's connection is gone; what it sent before still goes to the client.
    func upstreamTunnelLost() { endTunnel() }

    func endTunnel() {
        guard phase == .tunnel, let client else { return }
        abandonAttempts()
        finish()
        client.responseFinished(close: true)
    }
}
