import Basics
import JSONCoding
import ProtobufCoding

extension OTLP {
    /// The parts of a resource that are read. Names are cut to 256 bytes where they are taken as `String`.
    public struct Resource {
        public var service = ""
        public var host = ""
        public var environment = ""
        public var instance = ""

        public init(_ bytes: UnsafeRawBufferPointer) throws(ProtobufFailure) {
            try OTLP.forEachAttribute(bytes, field: Field.resourceAttributes) { key, value in
                // All of the names that count are longer than eight bytes; most attributes' are compared once.
                switch key.string {
                case "service.name": service = OTLP.string(value)
                case "host.name": host = OTLP.string(value)
                case "service.instance.id": instance = OTLP.string(value)
                case "deployment.environment.name", "deployment.environment": environment = OTLP.string(value)
                default: break
                }
            }
        }
    }

    /// A span's own fields. Ids are empty where they are missing.
    public struct Span {
        public let raw: UnsafeRawBufferPointer
        public var traceID = UnsafeRawBufferPointer(start: nil, count: 0)
        public var spanID = UnsafeRawBufferPointer(start: nil, count: 0)
        public var parentID = UnsafeRawBufferPointer(start: nil, count: 0)
        public var name = UnsafeRawBufferPointer(start: nil, count: 0)
        public var kind = 0
        /// Nanoseconds since 1970.
        public var start: UInt64 = 0
        public var end: UInt64 = 0
        /// 0 unset, 1 ok, 2 error.
        public var status = 0
        public var statusMessage = UnsafeRawBufferPointer(start: nil, count: 0)

        /// In nanoseconds; 0 where the end lies before the start.
        public var length: UInt64 { end >= start ? end - start : 0 }

        public init(_ bytes: UnsafeRawBufferPointer) throws(ProtobufFailure) {
            raw = bytes
            var reader = ProtobufReader(bytes)
            while let field = try reader.next() {
                switch field.number {
                case Field.spanTraceID: traceID = field.bytes
                case Field.spanID: spanID = field.bytes
                case Field.parentSpanID: parentID = field.bytes
                case Field.spanName: name = field.bytes
                case Field.spanKind: kind = Int(truncatingIfNeeded: field.scalar)
                case Field.spanStart: start = field.scalar
                case Field.spanEnd: end = field.scalar
                case Field.spanStatus:
                    var inner = ProtobufReader(field.bytes)
                    while let part = try inner.next() {
                        if part.number == 3 {
                            status = Int(truncatingIfNeeded: part.scalar)
                        } else if part.number == 2 {
                            statusMessage = part.bytes
                        }
                    }
                default: break
                }
            }
        }
    }

    public struct LogRecord {
        public let raw: UnsafeRawBufferPointer
        public var time: UInt64 = 0
        public var observed: UInt64 = 0
        /// 1…24, or 0 for none.
        public var severityNumber = 0
        public var severityText = UnsafeRawBufferPointer(start: nil, count: 0)
        public var traceID = UnsafeRawBufferPointer(start: nil, count: 0)
        public var spanID = UnsafeRawBufferPointer(start: nil, count: 0)
        /// An AnyValue; empty when there is none.
        public var body = UnsafeRawBufferPointer(start: nil, count: 0)

        public init(_ bytes: UnsafeRawBufferPointer) throws(ProtobufFailure) {
            raw = bytes
            var reader = ProtobufReader(bytes)
            while let field = try reader.next() {
                switch field.number {
                case Field.logTime: time = field.scalar
                case Field.logObservedTime: observed = field.scalar
                case Field.logSeverity: severityNumber = Int(truncatingIfNeeded: field.scalar)
                case Field.logSeverityText: severityText = field.bytes
                case Field.logTraceID: traceID = field.bytes
                case Field.logSpanID: spanID = field.bytes
                case Field.logBody: body = field.bytes
                default: break
                }
            }
        }
    }

    // MARK: attributes and values

    /// Calls `body` with each key and AnyValue of the repeated KeyValue `field` of `message`.
    public static func forEachAttribute(
        _ message: UnsafeRawBufferPointer, field number: Int,
        _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) throws(ProtobufFailure) -> Void
    ) throws(ProtobufFailure) {
        var reader = ProtobufReader(message)
        while let field = try reader.next() {
            guard field.number == number, field.wire == .bytes else { continue }
            var key = UnsafeRawBufferPointer(start: nil, count: 0), value = key
            var pair = ProtobufReader(field.bytes)
            while let part = try pair.next() {
                if part.number == Field.key { key = part.bytes } else if part.number == Field.value { value = part.bytes }
            }
            try body(key, value)
        }
    }

    /// The value as text: a string as it is (cut to 256 bytes), anything else as JSON.
    static func string(_ value: UnsafeRawBufferPointer) -> String {
        let text = OTLP.text(value)
        return text.utf8.count <= 256 ? text : String(decoding: text.utf8.prefix(256), as: UTF8.self)
    }

    /// The value as text: a string as it is, anything else as JSON; empty for no value.
    public static func text(_ value: UnsafeRawBufferPointer) -> String {
        var reader = ProtobufReader(value)
        var last: ProtobufField?
        while let field = try? reader.next() { if field.number <= 7 { last = field } }
        guard let last else { return "" }
        if last.number == Field.stringValue { return last.bytes.string }
        var json = JSONWriter()
        write(value, to: &json)
        return String(decoding: json.bytes, as: UTF8.self)
    }

    /// Writes an AnyValue as plain JSON: `"text"`, `3`, `[1,2]`, `{"k":true}`; bytes as base64; numbers beyond 2^53 as they are.
    /// The value has been checked when it came in.
    public static func write(_ value: UnsafeRawBufferPointer, to json: inout JSONWriter, depth: Int = 0) {
        var reader = ProtobufReader(value)
        var last: ProtobufField?
        while let field = try? reader.next() { if field.number <= 7 { last = field } }
        guard let last, depth < ProtobufSchema.depthLimit else { return json.null() }
        switch last.number {
        case 1: json.string(last.bytes)
        case 2: json.bool(last.scalar != 0)
        case 3: json.int(Int(last.int64))
        case 4: json.double(last.double)
        case 5:
            json.beginArray()
            var list = ProtobufReader(last.bytes)
            while let element = try? list.next() { if element.number == 1 { write(element.bytes, to: &json, depth: depth + 1) } }
            json.endArray()
        case 6: writeAttributes(last.bytes, field: 1, to: &json, depth: depth + 1)
        default: json.string(encodeBase64(last.bytes))
        }
    }

    /// Writes attributes as one JSON object. A key that comes more than once is written once, with its last value.
    public static func writeAttributes(_ message: UnsafeRawBufferPointer, field: Int, to json: inout JSONWriter, depth: Int = 0) {
        var all: [(key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer)] = []
        try? forEachAttribute(message, field: field) { key, value in all.append((key, value)) }
        writeOnce(all, to: &json, depth: depth)
    }

    /// The same of attributes that have been read.
    public static func writeOnce(
        _ attributes: [(key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer)], to json: inout JSONWriter, depth: Int = 0
    ) {
        json.beginObject()
        var last: [String: Int] = [:]
        for (i, attribute) in attributes.enumerated() { last[attribute.key.string] = i }
        for (i, attribute) in attributes.enumerated() {
            let key = attribute.key.string
            guard last[key] == i else { continue }
            json.key(key)
            write(attribute.value, to: &json, depth: depth)
        }
        json.endObject()
    }
}

extension ProtobufWriter {
    /// Adds a KeyValue with a string to the repeated field `number`.
    public mutating func attribute(_ number: Int, _ key: String, _ value: String) {
        message(number) { pair in
            pair.string(OTLP.Field.key, key)
            pair.message(OTLP.Field.value) { $0.string(OTLP.Field.stringValue, value) }
        }
    }
}
