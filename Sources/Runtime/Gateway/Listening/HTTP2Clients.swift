import Basics
import HTTP
import HTTP2
import Observability

/// What the connections of HTTP/2 of one loop have in common: their number, their settings, and buffers that each uses for a moment.
final class HTTP2Clients {
    let settings: HTTP2Settings
    /// Frames on their way to a socket.
    var frames = ByteBuffer()
    /// Fields of the answer that is being written.
    var fields = OutgoingFields()
    private(set) var connections: [ObjectIdentifier: HTTP2Connection] = [:]
    private unowned let context: HTTPServerContext
    private let metrics: MetricsRegistry
    private let open: Gauge
    private let streamsRefused: Counter
    /// Requests that came over HTTP/2.
    let requests: Counter

    init(context: HTTPServerContext, metrics: MetricsRegistry) {
        self.context = context
        self.metrics = metrics
        var settings = HTTP2Settings()
        settings.fieldBytes = context.limits.head
        settings.fieldCount = context.limits.fields
        self.settings = settings
        open = metrics.gauge("gateway_http2_connections", "Open connections of HTTP/2.")
        requests = metrics.counter("gateway_http2_requests_total", "Requests that came over HTTP/2.")
        streamsRefused = metrics.counter(
            "gateway_http2_refused_streams_total", "Streams that were refused because the client had as many open as it may.")
    }

    /// Counts a connection; whether there are more of clients now than there may be.
    func add(_ connection: HTTP2Connection) -> Bool {
        connections[ObjectIdentifier(connection)] = connection
        open.add(1)
        return context.connectionCount.add() > context.connectionLimit
    }

    func remove(_ connection: HTTP2Connection) {
        guard connections.removeValue(forKey: ObjectIdentifier(connection)) != nil else { return }
        context.connectionCount.remove()
        open.add(-1)
        if let refused = connection.session?.refusedStreams, refused > 0 { streamsRefused.add(refused) }
    }

    func noteFlood(_ reason: FloodAccount.Reason) {
        metrics.counter(
            "gateway_http2_floods_total", "Connections of HTTP/2 that were ended for what they cost, by reason.",
            labels: [("reason", reason.rawValue)]
        ).add()
    }

    func noteFault(_ fault: FieldFault) {
        metrics.counter(
            "gateway_refused_total", "Messages that were refused, by reason.", labels: [("reason", "h2_" + fault.rawValue)]
        ).add()
    }

    /// Takes no further streams: every connection ends when its streams have.
    func drain() { for connection in Array(connections.values) { connection.end() } }

    func closeAll() { for connection in Array(connections.values) { connection.close() } }

    /// Ends up to `most` connections without streams, because something else needs their descriptors.
    func closeIdle(atMost most: Int) {
        var left = most
        for connection in Array(connections.values) where left > 0 && connection.isIdle {
            connection.end()
            left -= 1
        }
    }
}
