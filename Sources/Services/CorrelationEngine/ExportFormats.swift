import Basics
import JSONCoding
import OpenTelemetry
import ProtobufCoding

/// Loki's push API in JSON: `{"streams":[{"stream":{labels},"values":[[ns, line, {metadata}]]}]}`.
///
/// Labels are few and bounded (service, environment, level), because each combination is a stream of its own in Loki. Everything that
/// varies (trace, span, host, attributes) is structured metadata.
enum LokiFormat {
    static let path = "/loki/api/v1/push"
    static let contentType = "application/json"

    /// nil when there is no log among them.
    static func body(_ correlations: [StoredCorrelation]) -> [UInt8]? {
        var streams: [Stream: JSONWriter] = [:]
        var order: [Stream] = []
        for stored in correlations {
            _ = stored.read { correlation in
                for entry in correlation.logs {
                    let source = correlation.sources[entry.source]
                    let stream = Stream(
                        service: source.service.isEmpty ? "unknown_service" : source.service, environment: source.environment,
                        level: entry.severity)
                    if streams[stream] == nil {
                        streams[stream] = JSONWriter(reserving: 1024)
                        streams[stream]!.beginArray()
                        order.append(stream)
                    }
                    write(entry, source, stored.key, to: &streams[stream]!)
                }
            }
        }
        if order.isEmpty { return nil }
        var json = JSONWriter(reserving: 4096)
        json.beginObject()
        json.key("streams")
        json.beginArray()
        for stream in order {
            streams[stream]!.endArray()
            json.beginObject()
            json.key("stream")
            json.beginObject()
            json.member("service_name", stream.service)
            if !stream.environment.isEmpty { json.member("env", stream.environment) }
            json.member("level", stream.level.rawValue.lowercased())
            json.endObject()
            json.key("values")
            json.raw(streams[stream]!.bytes)
            json.endObject()
        }
        json.endArray()
        json.endObject()
        return json.bytes
    }

    private struct Stream: Hashable {
        let service: String
        let environment: String
        let level: Severity
    }

    private static func write(_ entry: Correlation.LogEntry, _ source: OTLP.Resource, _ key: CorrelationKey, to json: inout JSONWriter) {
        json.beginArray()
        json.string(nineteenDigits(entry.time))
        json.string(OTLP.text(entry.log.body))
        json.beginObject()
        var used: Set<String> = ["trace_id", "span_id", "host"]
        if let trace = key.traceID { json.member("trace_id", trace) }
        if entry.log.spanID.number != 0 { json.member("span_id", hexText(entry.log.spanID)) }
        if !source.host.isEmpty { json.member("host", source.host) }
        try? OTLP.forEachAttribute(entry.log.raw, field: OTLP.Field.logAttributes) { name, value in
            let label = label(name.string)
            if used.insert(label).inserted { json.member(label, OTLP.text(value)) }
        }
        json.endObject()
        json.endArray()
    }

    /// Loki has nanoseconds as text; times of our century have nineteen digits.
    private static func nineteenDigits(_ time: Int64) -> String {
        let text = String(max(time, 0))
        return String(repeating: "0", count: max(19 - text.utf8.count, 0)) + text
    }

    /// Letters, digits and underscores, not beginning with a digit.
    static func label(_ name: String) -> String {
        let bytes = name.utf8.map { byte in (byte | 32) &- 97 < 26 || byte &- 48 < 10 || byte == 95 ? byte : 95 }
        let text = String(decoding: bytes, as: UTF8.self)
        return text.utf8.first.map { $0 &- 48 < 10 } ?? true ? "_" + text : text
    }
}

/// Tempo takes OTLP: the spans go out byte for byte as they came in, under the resources and scopes they came with, with
/// their schema URLs.
enum TempoFormat {
    static let path = "/v1/traces"
    static let contentType = "application/x-protobuf"

    /// nil when there is no span among them.
    static func body(_ correlations: [StoredCorrelation]) -> [UInt8]? {
        var out: [UInt8] = []
        for stored in correlations { stored.text.withUnsafeBytes { append($0, to: &out) } }
        return out.isEmpty ? nil : out
    }

    private static func append(_ text: UnsafeRawBufferPointer, to out: inout [UInt8]) {
        var resource = UnsafeRawBufferPointer(start: nil, count: 0), scope = resource
        var resourceSchema = resource, scopeSchema = resource
        var spans: [UInt8] = [], scopes: [UInt8] = []
        func closeScope() {
            if spans.isEmpty { return }
            var inner: [UInt8] = []
            if !scope.isEmpty { ProtobufWriter.append(1, scope, to: &inner) }
            inner += spans
            if !scopeSchema.isEmpty { ProtobufWriter.append(3, scopeSchema, to: &inner) }
            inner.withUnsafeBytes { ProtobufWriter.append(2, $0, to: &scopes) }
            spans = []
        }
        func closeResource() {
            closeScope()
            if scopes.isEmpty { return }
            var inner: [UInt8] = []
            ProtobufWriter.append(1, resource, to: &inner)
            inner += scopes
            if !resourceSchema.isEmpty { ProtobufWriter.append(3, resourceSchema, to: &inner) }
            inner.withUnsafeBytes { ProtobufWriter.append(1, $0, to: &out) }
            scopes = []
        }
        var reader = ProtobufReader(text)
        while let field = try? reader.next() {
            switch field.number {
            case RecordGroup.Field.resource:
                closeResource()
                resource = field.bytes
                scope = UnsafeRawBufferPointer(start: nil, count: 0)
                (resourceSchema, scopeSchema) = (scope, scope)
            case RecordGroup.Field.scope:
                closeScope()
                scope = field.bytes
                scopeSchema = UnsafeRawBufferPointer(start: nil, count: 0)
            case RecordGroup.Field.resourceSchema: resourceSchema = field.bytes
            case RecordGroup.Field.scopeSchema: scopeSchema = field.bytes
            case RecordGroup.Field.span: ProtobufWriter.append(2, field.bytes, to: &spans)
            default: break
            }
        }
        closeResource()
    }
}
