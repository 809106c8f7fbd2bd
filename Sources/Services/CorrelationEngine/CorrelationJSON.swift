import Basics
import JSONCoding
import OpenTelemetry
import ProtobufCoding

extension Correlation {
    /// Logs and spans shown; further ones are counted.
    static let shown = 1000
    /// Bytes of JSON of one correlation by itself, and of one in a list: spans take at most two thirds, then logs come until it is full. What
    /// is passed by more is one record. Control characters take six times their room in JSON, so that bytes are counted there.
    static let single = 4 << 20, listed = 1 << 20
    /// Of a name or message in a summary, in bytes; it stands in full among spans and logs.
    static let summaryText = 16 << 10

    /// The whole correlation, as `GET /api/correlations/{id}` answers, in about `limit` bytes.
    func json(limit: Int = Correlation.single) -> [UInt8] {
        var json = JSONWriter(reserving: 2048)
        json.beginObject()
        writeSummary(to: &json)
        json.key("exemplars")
        json.beginArray()
        for i in exemplars where json.bytes.count + logs[i].log.raw.count <= limit / 3 { write(logs[i], to: &json) }
        json.endArray()
        var spansShown = 0, logsShown = 0
        json.key("spans")
        json.beginArray()
        for entry in spans.prefix(Correlation.shown) {
            if json.bytes.count + entry.span.raw.count > limit / 3 * 2 { break }
            write(entry, to: &json)
            spansShown += 1
        }
        json.endArray()
        json.member("spans_dropped", counts.spans - spansShown)
        json.key("logs")
        json.beginArray()
        for entry in logs.prefix(Correlation.shown) {
            if json.bytes.count + entry.log.raw.count > limit { break }
            write(entry, to: &json)
            logsShown += 1
        }
        json.endArray()
        json.member("logs_dropped", counts.logs.values.reduce(0, +) - logsShown)
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
        if let root { write(spans[root], to: &json, cut: Correlation.summaryText) } else { json.null() }
        json.key("critical_error")
        switch critical {
        case .span(let i)?: write(spans[i], to: &json, cut: Correlation.summaryText)
        case .log(let i)?: write(logs[i], to: &json, cut: Correlation.summaryText)
        case nil: json.null()
        }
    }

    private static let spanKinds = ["unspecified", "internal", "server", "client", "producer", "consumer"]

    /// Texts longer than `cut` are cut there, at a whole character.
    private func write(_ entry: SpanEntry, to json: inout JSONWriter, cut: Int = .max) {
        let span = entry.span
        json.beginObject()
        json.member("span_id", hexText(span.spanID))
        if span.parentID.number != 0 { json.member("parent_span_id", hexText(span.parentID)) }
        json.key("name")
        json.string(span.name.beginning(cut))
        json.member("service", sources[entry.source].service)
        if !sources[entry.source].instance.isEmpty { json.member("instance", sources[entry.source].instance) }
        json.member("kind", Correlation.spanKinds.indices.contains(span.kind) ? Correlation.spanKinds[span.kind] : String(span.kind))
        json.member("start", CalendarTime.render(nanoseconds: Int64(clamping: span.start)))
        json.member("duration_ms", Double(span.length / 1000) / 1000)
        json.member("status", span.status == 2 ? "error" : span.status == 1 ? "ok" : "unset")
        if !span.statusMessage.isEmpty {
            json.key("message")
            json.string(span.statusMessage.beginning(cut))
        }
        json.endObject()
    }

    /// A message longer than `cut` is cut there; then the attributes are left out too if the record is longer.
    private func write(_ entry: LogEntry, to json: inout JSONWriter, cut: Int = .max) {
        let source = sources[entry.source]
        json.beginObject()
        json.member("timestamp", CalendarTime.render(nanoseconds: entry.time))
        json.member("severity", entry.severity.rawValue)
        json.key("message")
        var message = OTLP.text(entry.log.body)
        message.withUTF8 { json.string(UnsafeRawBufferPointer($0).beginning(cut)) }
        json.member("service", source.service)
        json.member("host", source.host)
        if !source.environment.isEmpty { json.member("env", source.environment) }
        writeAttributes(of: entry.log, to: &json, withOthers: entry.log.raw.count <= cut)
        json.endObject()
    }

    /// A log's own id, and a span id of another form than OTLP's, stand beside its fields; other attributes by themselves. What the record
    /// says in a field of its own wins: an attribute `span_id` of a record that has a span id stands among the attributes.
    private func writeAttributes(of log: OTLP.LogRecord, to json: inout JSONWriter, withOthers: Bool) {
        var others: [(key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer)] = []
        var identity: String?
        var span = log.spanID.number != 0 ? hexText(log.spanID) : nil
        let hasSpan = span != nil
        try? OTLP.forEachAttribute(log.raw, field: OTLP.Field.logAttributes) { key, value in
            switch key.string {
            case IngestParser.identityAttribute: identity = OTLP.text(value)
            case IngestParser.spanAttribute where !hasSpan: span = OTLP.text(value)
            default: others.append((key, value))
            }
        }
        if let span { json.member("span_id", span) }
        if let identity { json.member("id", identity) }
        if others.isEmpty || !withOthers { return }
        json.key("attributes")
        OTLP.writeOnce(others, to: &json)
    }
}

extension UnsafeRawBufferPointer {
    /// At most so many bytes, and no half character of UTF-8 at the end.
    fileprivate func beginning(_ most: Int) -> UnsafeRawBufferPointer {
        guard count > most else { return self }
        var end = most
        while end > 0, self[end] & 0xC0 == 0x80 { end -= 1 }
        return UnsafeRawBufferPointer(rebasing: self[..<end])
    }
}

extension CalendarTime {
    static func render(nanoseconds: Int64) -> String { render(WallTime(milliseconds: nanoseconds / 1_000_000)) }
}
