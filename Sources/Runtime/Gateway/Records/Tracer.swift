import Basics
import EventLoops
import HTTP
import Observability
import OpenTelemetry
import ProtobufCoding

/// Sends the gateway's own spans, one per request, in batches by OTLP/HTTP. Lives on one loop.
///
/// Bounds: `batchLimit` spans wait at most; while the target is away or slow the newest are dropped and counted.
final class Tracer {
    private let loop: EventLoop
    private let endpoint: Endpoint
    private let path: String
    private let sample: Double
    private let client: HTTPClient
    private let draw: () -> UInt64
    private var spans: [[UInt8]] = []
    private var isSending = false
    private var isEnding = false
    private var timer: LoopTimer?
    private let sent: Counter
    private let dropped: Counter

    private static let batchLimit = 4096
    private static let sendAt = 512
    private static let interval = Duration.seconds(1)

    /// nil when the target is no `http://host[:port]/path`.
    init?(target: String, sample: Double, loop: EventLoop, metrics: MetricsRegistry, draw: @escaping () -> UInt64) {
        let rest = target.dropFirst("http://".count)
        let slash = rest.firstIndex(of: "/") ?? rest.endIndex
        guard target.hasPrefix("http://"), let endpoint = Endpoint(String(rest[..<slash]), defaultPort: 80) else { return nil }
        self.loop = loop
        self.endpoint = endpoint
        path = slash == rest.endIndex ? "/v1/traces" : String(rest[slash...])
        self.sample = sample
        self.draw = draw
        client = HTTPClient(loop: loop, responseLimit: 65_536, passesOver: true)
        sent = metrics.counter("gateway_spans_total", "Spans of the gateway's own, by what became of them.", labels: [("outcome", "sent")])
        dropped = metrics.counter(
            "gateway_spans_total", "Spans of the gateway's own, by what became of them.", labels: [("outcome", "dropped")])
        timer = LoopTimer(loop: loop) { [unowned self] in flush() }
    }

    /// The context that is passed on, and the span that a client named as its own (0: none). A trace that exists already goes on as its
    /// sender decided; otherwise a trace begins here.
    func context(for table: HeadTable) -> (TraceContext, parent: UInt64) {
        let span = max(draw(), 1)
        if let given = table.value(Array("traceparent".utf8)).flatMap(TraceContext.init) {
            return (TraceContext(traceHigh: given.traceHigh, traceLow: given.traceLow, span: span, isSampled: given.isSampled), given.span)
        }
        let isSampled = Double(draw() >> 11) / Double(1 << 53) < sample
        return (TraceContext(traceHigh: draw(), traceLow: max(draw(), 1), span: span, isSampled: isSampled), 0)
    }

    func add(_ exchange: Exchange, _ trace: TraceContext, total: Duration) {
        guard spans.count < Tracer.batchLimit else { return dropped.add() }
        let end = UInt64(WallTime.now.milliseconds) * 1_000_000
        var span = ProtobufWriter(reserving: 256)
        span.bytes(OTLP.Field.spanTraceID, Tracer.bytes(trace.traceHigh) + Tracer.bytes(trace.traceLow))
        span.bytes(OTLP.Field.spanID, Tracer.bytes(trace.span))
        if exchange.request.parentSpan != 0 { span.bytes(OTLP.Field.parentSpanID, Tracer.bytes(exchange.request.parentSpan)) }
        // The semantic conventions' name for a server's span: method and route.
        span.string(OTLP.Field.spanName, "\(exchange.request.method.string) \(exchange.route?.route.label ?? "-")")
        span.varint(OTLP.Field.spanKind, 2)
        span.fixed64(OTLP.Field.spanStart, end &- UInt64(clamping: total.nanoseconds))
        span.fixed64(OTLP.Field.spanEnd, end)
        Tracer.attribute(9, "http.request.method", exchange.request.method.string, &span)
        Tracer.attribute(9, "url.path", PathRules.path(exchange.request.target).string, &span)
        Tracer.attribute(9, "http.route", exchange.route?.route.label ?? "-", &span)
        Tracer.attribute(9, "client.address", exchange.request.clientAddress?.description ?? "unix", &span)
        Tracer.attribute(9, "muster.replica", exchange.questions.lastReplica?.name ?? "-", &span)
        Tracer.attribute(9, "muster.request_id", exchange.request.id.string, &span)
        span.message(9) {
            $0.string(OTLP.Field.key, "http.response.status_code")
            $0.message(OTLP.Field.value) { $0.varint(3, UInt64(exchange.answer.status)) }
        }
        if exchange.answer.status >= 500 { span.message(OTLP.Field.spanStatus) { $0.varint(3, 2) } }
        spans.append(span.bytes)
        if spans.count == 1 { timer?.schedule(after: Tracer.interval) }
        if spans.count >= Tracer.sendAt { flush() }
    }

    private static func bytes(_ value: UInt64) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }

    private static func attribute(_ number: Int, _ key: String, _ value: String, _ out: inout ProtobufWriter) {
        out.message(number) {
            $0.string(OTLP.Field.key, key)
            $0.message(OTLP.Field.value) { $0.string(OTLP.Field.stringValue, value) }
        }
    }

    /// Whether no span waits and none is on its way.
    var isIdle: Bool { spans.isEmpty && !isSending }

    /// Sends the spans that have come together; one call at a time.
    func flush() {
        guard !spans.isEmpty, !isSending else { return }
        isSending = true
        let batch = spans
        spans = []
        var request = ProtobufWriter(reserving: batch.count * 256)
        // ResourceSpans { resource = 1; scope_spans = 2 { spans = 2 } }
        var inner = ProtobufWriter(reserving: batch.count * 256)
        for span in batch { inner.bytes(2, span) }
        request.message(1) { all in
            all.message(1) { Tracer.attribute(OTLP.Field.resourceAttributes, "service.name", "muster-gateway", &$0) }
            all.bytes(2, inner.bytes)
        }
        let body = request.bytes, client = client, endpoint = endpoint, path = path
        let bound = LoopBound(self, on: loop)
        // Ends with its answer, or after the client's ten seconds.
        Task(executorPreference: loop) {
            let response = try? await client.send(
                "POST", path, to: endpoint, headers: [("Content-Type", "application/x-protobuf")], body: body)
            let isTaken = response.map { (200..<300).contains($0.status) } ?? false
            bound.value.answered(batch.count, rejected: isTaken ? Tracer.rejected(response?.body ?? [], of: batch.count) : batch.count)
        }
    }

    /// How many of `count` spans a collector has rejected, by its answer to all of them (`ExportTraceServiceResponse`: partial_success = 1 {
    /// rejected_spans = 1 }). An answer that cannot be read says nothing of any.
    static func rejected(_ answer: [UInt8], of count: Int) -> Int {
        answer.withUnsafeBytes { bytes in
            guard let partial = field(1, .bytes, in: bytes), let rejected = field(1, .varint, in: partial.bytes) else { return 0 }
            // An int64: a number below 0 is none.
            return min(max(Int(truncatingIfNeeded: rejected.scalar), 0), count)
        }
    }

    /// The last field of this number: that one counts, by protobuf's rules.
    private static func field(_ number: Int, _ wire: ProtobufField.Wire, in bytes: UnsafeRawBufferPointer) -> ProtobufField? {
        var reader = ProtobufReader(bytes), found: ProtobufField?
        do throws(ProtobufFailure) {
            while let field = try reader.next() { if field.number == number, field.wire == wire { found = field } }
        } catch { return nil }
        return found
    }

    private func answered(_ count: Int, rejected: Int) {
        isSending = false
        if rejected < count { sent.add(count - rejected) }
        if rejected > 0 { dropped.add(rejected) }
        if isEnding { flush() } else if !spans.isEmpty { timer?.schedule(after: Tracer.interval) }
    }

    /// Sends the spans that are left: no more will come.
    func end() {
        isEnding = true
        flush()
    }
}
