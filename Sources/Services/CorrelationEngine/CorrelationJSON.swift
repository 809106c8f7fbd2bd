import Basics
import JSONCoding
import OpenTelemetry
import ProtobufCoding

extension Correlation {
    /// Logs and spans shown; further ones are counted.
    static let shown = 1000

    /// The whole correlation, as `GET /api/correlations/{id}` answers.
    func json() -> [UInt8] {
        var json = JSONWriter(reserving: 2048)
        json.beginObject()
        writeSummary(to: &json)
        json.key("exemplars")
        json.beginArray()
        for i in exemplars { write(logs[i], to: &json) }
        json.endArray()
        json.key("spans")
        json.beginArray()
        for entry in spans.prefix(Correlation.shown) { write(entry, to: &json) }
        json.endArray()
        json.member("spans_dropped", counts.spans - min(spans.count, Correlation.shown))
        json.key("logs")
        json.beginArray()
        for entry in logs.prefix(Correlation.shown) { write(entry, to: &json) }
        json.endArray()
        json.member("logs_dropped", counts.logs.values.reduce(0, +) - min(logs.count, Correlation.shown))
        json.endObject()
        return json.bytes
    }

    /// Without spans and logs, as the stream of new ones has it.
    func summaryJSON() -> [UInt8] {
        var json = JSONWriter(reserving: 512)
        json.beginObject()
        writeSummary(to: &json)
        json.endObject()
        return json.bytes
    }

    private func writeSummary(to json: inout JSONWriter) {
        json.member("id", key.id)
        json.key("trace_id")
        if let trace = key.traceID { json.string(trace) } else { json.null() }
        json.member("services", services)
        json.member("hosts", hosts)
        json.member("first_seen", CalendarTime.render(nanoseconds: first))
        json.member("last_seen", CalendarTime.render(nanoseconds: last))
        json.member("duration_ms", Double(duration / 1000) / 1000)
        json.member("status", status)
        json.member("complete", pending == 0)
        json.member("revision", revision)
        json.member("span_count", counts.spans)
        json.member("log_count", counts.logs.values.reduce(0, +))
        json.key("severities")
        json.beginObject()
        for severity in Severity.allCases { if let count = counts.logs[severity] { json.member(severity.rawValue, count) } }
        json.endObject()
        json.key("root")
        if let root { write(spans[root], to: &json) } else { json.null() }
        json.key("critical_error")
        switch critical {
        case .span(let i)?: write(spans[i], to: &json)
        case .log(let i)?: write(logs[i], to: &json)
        case nil: json.null()
        }
    }

    private static let spanKinds = ["unspecified", "internal", "server", "client", "producer", "consumer"]

    private func write(_ entry: SpanEntry, to json: inout JSONWriter) {
        let span = entry.span
        json.beginObject()
        json.member("span_id", hexText(span.spanID))
        if span.parentID.number != 0 { json.member("parent_span_id", hexText(span.parentID)) }
        json.key("name")
        json.string(span.name)
        json.member("service", sources[entry.source].service)
        if !sources[entry.source].instance.isEmpty { json.member("instance", sources[entry.source].instance) }
        json.member("kind", Correlation.spanKinds.indices.contains(span.kind) ? Correlation.spanKinds[span.kind] : String(span.kind))
        json.member("start", CalendarTime.render(nanoseconds: Int64(clamping: span.start)))
        json.member("duration_ms", Double(span.length / 1000) / 1000)
        json.member("status", span.status == 2 ? "error" : span.status == 1 ? "ok" : "unset")
        if !span.statusMessage.isEmpty {
            json.key("message")
            json.string(span.statusMessage)
        }
        json.endObject()
    }

    private func write(_ entry: LogEntry, to json: inout JSONWriter) {
        let source = sources[entry.source]
        json.beginObject()
        json.member("timestamp", CalendarTime.render(nanoseconds: entry.time))
        json.member("severity", entry.severity.rawValue)
        json.member("message", OTLP.text(entry.log.body))
        json.member("service", source.service)
        json.member("host", source.host)
        if !source.environment.isEmpty { json.member("env", source.environment) }
        if entry.log.spanID.number != 0 { json.member("span_id", hexText(entry.log.spanID)) }
        writeAttributes(of: entry.log, to: &json)
        json.endObject()
    }

    /// A log's own id and span id of other forms stand beside its fields, as they came; other attributes by themselves.
    private func writeAttributes(of log: OTLP.LogRecord, to json: inout JSONWriter) {
        var others: [(UnsafeRawBufferPointer, UnsafeRawBufferPointer)] = []
        var identity: String?, span: String?
        try? OTLP.forEachAttribute(log.raw, field: OTLP.Field.logAttributes) { key, value in
            switch key.string {
            case IngestParser.identityAttribute: identity = OTLP.text(value)
            case IngestParser.spanAttribute: span = OTLP.text(value)
            default: others.append((key, value))
            }
        }
        if let span { json.member("span_id", span) }
        if let identity { json.member("id", identity) }
        if others.isEmpty { return }
        json.key("attributes")
        json.beginObject()
        for (key, value) in others {
            json.key(key.string)
            OTLP.write(value, to: &json)
        }
        json.endObject()
    }
}

extension CalendarTime {
    static func render(nanoseconds: Int64) -> String { render(WallTime(milliseconds: nanoseconds / 1_000_000)) }
}
