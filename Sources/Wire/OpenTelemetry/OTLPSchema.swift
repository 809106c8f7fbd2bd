import ProtobufCoding

/// OTLP's messages (opentelemetry-proto 1.x), as far as logs and traces need them.
public enum OTLP {
    /// Indices into `schema.messages`.
    public enum Message {
        public static let traceRequest = 0, logsRequest = 1, resourceSpans = 2, resourceLogs = 3, scopeSpans = 4, scopeLogs = 5
        public static let resource = 6, scope = 7, span = 8, event = 9, link = 10, status = 11, logRecord = 12
        public static let keyValue = 13, anyValue = 14, arrayValue = 15, keyValueList = 16, entityRef = 17
    }

    /// Numbers of the fields that this code reads or writes by itself.
    public enum Field {
        public static let resourceAttributes = 1, key = 1, value = 2, stringValue = 1
        public static let spanTraceID = 1, spanID = 2, parentSpanID = 4, spanName = 5, spanKind = 6, spanStart = 7, spanEnd = 8,
            spanStatus = 15
        public static let logTime = 1, logSeverity = 2, logSeverityText = 3, logBody = 5, logAttributes = 6
        public static let logTraceID = 9, logSpanID = 10, logObservedTime = 11
    }

    public static let schema = ProtobufSchema([
        .init("ExportTraceServiceRequest", [.init(1, "resourceSpans", .message(Message.resourceSpans), repeated: true)]),
        .init("ExportLogsServiceRequest", [.init(1, "resourceLogs", .message(Message.resourceLogs), repeated: true)]),
        .init(
            "ResourceSpans",
            [
                .init(1, "resource", .message(Message.resource)), .init(2, "scopeSpans", .message(Message.scopeSpans), repeated: true),
                .init(3, "schemaUrl", .string),
            ]),
        .init(
            "ResourceLogs",
            [
                .init(1, "resource", .message(Message.resource)), .init(2, "scopeLogs", .message(Message.scopeLogs), repeated: true),
                .init(3, "schemaUrl", .string),
            ]),
        .init(
            "ScopeSpans",
            [
                .init(1, "scope", .message(Message.scope)), .init(2, "spans", .message(Message.span), repeated: true),
                .init(3, "schemaUrl", .string),
            ]),
        .init(
            "ScopeLogs",
            [
                .init(1, "scope", .message(Message.scope)), .init(2, "logRecords", .message(Message.logRecord), repeated: true),
                .init(3, "schemaUrl", .string),
            ]),
        .init(
            "Resource",
            [
                .init(1, "attributes", .message(Message.keyValue), repeated: true), .init(2, "droppedAttributesCount", .uint32),
                .init(3, "entityRefs", .message(Message.entityRef), repeated: true),
            ]),
        .init(
            "InstrumentationScope",
            [
                .init(1, "name", .string), .init(2, "version", .string), .init(3, "attributes", .message(Message.keyValue), repeated: true),
                .init(4, "droppedAttributesCount", .uint32),
            ]),
        .init(
            "Span",
            [
                .init(1, "traceId", .hex), .init(2, "spanId", .hex), .init(3, "traceState", .string), .init(4, "parentSpanId", .hex),
                .init(5, "name", .string), .init(6, "kind", .enumeration), .init(7, "startTimeUnixNano", .fixed64),
                .init(8, "endTimeUnixNano", .fixed64), .init(9, "attributes", .message(Message.keyValue), repeated: true),
                .init(10, "droppedAttributesCount", .uint32), .init(11, "events", .message(Message.event), repeated: true),
                .init(12, "droppedEventsCount", .uint32), .init(13, "links", .message(Message.link), repeated: true),
                .init(14, "droppedLinksCount", .uint32), .init(15, "status", .message(Message.status)), .init(16, "flags", .fixed32),
            ]),
        .init(
            "Event",
            [
                .init(1, "timeUnixNano", .fixed64), .init(2, "name", .string),
                .init(3, "attributes", .message(Message.keyValue), repeated: true), .init(4, "droppedAttributesCount", .uint32),
            ]),
        .init(
            "Link",
            [
                .init(1, "traceId", .hex), .init(2, "spanId", .hex), .init(3, "traceState", .string),
                .init(4, "attributes", .message(Message.keyValue), repeated: true), .init(5, "droppedAttributesCount", .uint32),
                .init(6, "flags", .fixed32),
            ]),
        .init("Status", [.init(2, "message", .string), .init(3, "code", .enumeration)]),
        .init(
            "LogRecord",
            [
                .init(1, "timeUnixNano", .fixed64), .init(2, "severityNumber", .enumeration), .init(3, "severityText", .string),
                .init(5, "body", .message(Message.anyValue)), .init(6, "attributes", .message(Message.keyValue), repeated: true),
                .init(7, "droppedAttributesCount", .uint32), .init(8, "flags", .fixed32), .init(9, "traceId", .hex),
                .init(10, "spanId", .hex), .init(11, "observedTimeUnixNano", .fixed64), .init(12, "eventName", .string),
            ]),
        .init("KeyValue", [.init(1, "key", .string), .init(2, "value", .message(Message.anyValue)), .init(3, "keyStrindex", .int32)]),
        .init(
            "AnyValue",
            [
                .init(1, "stringValue", .string), .init(2, "boolValue", .bool), .init(3, "intValue", .int64),
                .init(4, "doubleValue", .double),
                .init(5, "arrayValue", .message(Message.arrayValue)), .init(6, "kvlistValue", .message(Message.keyValueList)),
                .init(7, "bytesValue", .bytes), .init(8, "stringValueStrindex", .int32),
            ]),
        .init("ArrayValue", [.init(1, "values", .message(Message.anyValue), repeated: true)]),
        .init("KeyValueList", [.init(1, "values", .message(Message.keyValue), repeated: true)]),
        .init(
            "EntityRef",
            [
                .init(1, "schemaUrl", .string), .init(2, "type", .string), .init(3, "idKeys", .string, repeated: true),
                .init(4, "descriptionKeys", .string, repeated: true),
            ]),
    ])

    /// Which of OTLP's requests: both have the same shape.
    public enum Signal: String, Sendable {
        case traces, logs
        var request: Int { self == .traces ? Message.traceRequest : Message.logsRequest }
        public var record: Int { self == .traces ? Message.span : Message.logRecord }
    }
}
