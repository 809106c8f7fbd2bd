import Basics
import HTTP
import JSONCoding
import OpenTelemetry
import ProtobufCoding

/// Reads the body of `POST /api/logs` (document 000) into groups, one a correlation.
///
/// A body that is not of the form at all is refused whole; a record that is wrong is reported by its index, and the others
/// count. Nothing from outside is used before it has been checked here.
struct IngestParser {
    struct Rejection: Equatable {
        let index: Int
        let field: String
        let message: String
    }

    struct Batch {
        var delivery = Delivery()
        var rejected: [Rejection] = []
    }

    static let recordLimit = 10_000
    static let nameLimit = 256
    static let messageLimit = 65_536
    static let traceLimit = 128
    let maximumAge: Duration
    let window: Duration

    func parse(_ document: JSONDocument, _ body: [UInt8], now: WallTime) throws(APIError) -> Batch {
        do { return try document.parse(body) { try batch($0, now: now) } } catch let error as APIError { throw error } catch {
            throw APIError(400, "invalid_json", "the body is not valid JSON: \(error)")
        }
    }

    private func batch(_ root: JSONElement, now: WallTime) throws(APIError) -> Batch {
        guard root.kind == .object else { throw wrongType("body", "an object", root) }
        guard let resource = root["resource"] else { throw missing("resource") }
        guard resource.kind == .object else { throw wrongType("resource", "an object", resource) }
        let service = try name(resource["service"], "resource.service", required: true)
        let host = try name(resource["host"], "resource.host", required: false)
        let environment = try name(resource["env"], "resource.env", required: false)
        guard let list = root["records"] else { throw missing("records") }
        guard list.kind == .array else { throw wrongType("records", "an array", list) }
        guard list.count > 0 else { throw APIError(400, "empty_batch", "records has no record", field: "records") }
        guard list.count <= IngestParser.recordLimit else {
            throw APIError(413, "too_many_records", "a batch has at most \(IngestParser.recordLimit) records; split it", field: "records")
        }
        var batch = Batch()
        var builder = DeliveryBuilder()
        let source = Source(service: service, host: host, environment: environment)
        var records = list.entries
        var index = 0
        while let (_, element) = records.next() {
            do throws(Problem) { try record(element, source, now: now, &builder) } catch {
                let field = error.field.isEmpty ? "records[\(index)]" : "records[\(index)].\(error.field)"
                batch.rejected.append(Rejection(index: index, field: field, message: error.message))
                builder.reject()
            }
            index += 1
        }
        batch.delivery = builder.delivery
        return batch
    }

    /// What all records of a body have in common, and its OTLP Resource.
    private struct Source {
        let service: String
        let host: String
        let resource: [UInt8]

        init(service: String, host: String, environment: String) {
            self.service = service
            self.host = host
            var writer = ProtobufWriter()
            for (key, value) in [("service.name", service), ("host.name", host), ("deployment.environment.name", environment)]
            where !value.isEmpty {
                writer.attribute(OTLP.Field.resourceAttributes, key, value)
            }
            resource = writer.bytes
        }
    }

    private struct Problem: Error {
        let field: String
        let message: String
    }

    private func record(_ element: JSONElement, _ source: Source, now: WallTime, _ builder: inout DeliveryBuilder) throws(Problem) {
        guard element.kind == .object else { throw Problem(field: "", message: "must be an object, not \(element.kind.article)") }
        let time = try timestamp(element["timestamp"], now: now)
        guard let severityText = try text(element["severity"], "severity", limit: Severity.textLimit) else {
            throw Problem(field: "severity", message: "is missing")
        }
        // What says that it says nothing is INFO, as it is in OTLP.
        guard let severity = meansNone(severityText) ? .info : Severity(text: severityText) else {
            throw Problem(field: "severity", message: "must be one of TRACE, DEBUG, INFO, WARN, ERROR, FATAL, or a common logger's word")
        }
        guard let message = try text(element["message"], "message", limit: IngestParser.messageLimit) else {
            throw Problem(field: "message", message: "is missing")
        }
        let (trace, irregular) = try traceID(element["trace_id"])
        var span = try optional(element["span_id"], "span_id")
        if var text = span, text.withUTF8({ meansNoID(UnsafeRawBufferPointer($0)) }) { span = nil }
        let identity = try optional(element["id"], "id")
        let key =
            trace.map { CorrelationKey.trace($0) }
            ?? .window(
                service: source.service, host: source.host,
                start: time.milliseconds / window.milliseconds * window.milliseconds)
        if irregular { builder.sawIrregularTrace() }
        // Its own id, or its content, makes it the same record when it is delivered again.
        let hash =
            if let identity { hash64(identity, seed: 1) } else {
                hash64("\(time.milliseconds)|\(severity.rawValue)|\(source.service)|\(source.host)|\(span ?? "")|", seed: hash64(message))
            }
        var log = ProtobufWriter(reserving: message.count + 64)
        log.fixed64(OTLP.Field.logTime, UInt64(max(time.milliseconds, 0)).multipliedClamped(by: 1_000_000))
        log.varint(OTLP.Field.logSeverity, UInt64(severity.number))
        log.message(OTLP.Field.logBody) { $0.bytes(OTLP.Field.stringValue, message) }
        if let identity { log.attribute(OTLP.Field.logAttributes, IngestParser.identityAttribute, identity) }
        if let span {
            var text = span
            let bytes = text.withUTF8 { $0.count == 16 ? decodeHex(UnsafeRawBufferPointer($0)) : nil }
            // OTLP has room for 8 bytes only; what another form of id says is kept as it is.
            if let bytes {
                log.bytes(OTLP.Field.logSpanID, bytes)
            } else {
                log.attribute(OTLP.Field.logAttributes, IngestParser.spanAttribute, span)
            }
        }
        log.bytes.withUnsafeBytes { record in
            source.resource.withUnsafeBytes { resource in
                let around = OTLP.Surroundings(
                    resource: resource, scope: UnsafeRawBufferPointer(start: nil, count: 0), resourceNumber: 0, scopeNumber: 0)
                builder.add(key, Marks.kind(log: severity), hash: hash, record: record, isSpan: false, around: around)
            }
        }
    }

    /// OpenTelemetry's name for a log's own id.
    static let identityAttribute = "log.record.uid"
    static let spanAttribute = "span_id"

    private func timestamp(_ element: JSONElement?, now: WallTime) throws(Problem) -> WallTime {
        guard let text = try text(element, "timestamp", limit: 40) else { throw Problem(field: "timestamp", message: "is missing") }
        let time: WallTime
        do throws(CalendarTime.Failure) { time = try CalendarTime.parse(text) } catch {
            let reason = error == .syntax ? "must be an RFC 3339 time such as 2026-11-21T03:30:00Z" : "is not a time that exists"
            throw Problem(field: "timestamp", message: reason)
        }
        if let reason = AgeLimit(maximumAge: maximumAge, now: now).refusal(of: time.milliseconds) {
            throw Problem(field: "timestamp", message: reason)
        }
        return time
    }

    /// nil when absent, null, empty, of zeros, or one of the words for "none". 32 hex digits are W3C's form and become lower case.
    private func traceID(_ element: JSONElement?) throws(Problem) -> (String?, irregular: Bool) {
        guard let element, !element.isNull else { return (nil, false) }
        guard let bytes = element.stringBytes else {
            throw Problem(field: "trace_id", message: "must be a string, not \(element.kind.article)")
        }
        if meansNone(bytes) || meansNoID(bytes) { return (nil, false) }
        guard bytes.count <= IngestParser.traceLimit else {
            throw Problem(field: "trace_id", message: "is longer than \(IngestParser.traceLimit) characters")
        }
        for byte in bytes {
            let ok = (byte | 32) &- 97 < 26 || byte &- 48 < 10 || byte == 45 || byte == 46 || byte == 95
            if !ok { throw Problem(field: "trace_id", message: "may have letters, digits, '-', '_' and '.' only") }
        }
        let text = bytes.string
        if case .w3c = CorrelationKey.trace(text) { return (text, false) }
        return (text, true)
    }

    private func optional(_ element: JSONElement?, _ field: String) throws(Problem) -> String? {
        guard let element, !element.isNull else { return nil }
        guard let text = try text(element, field, limit: IngestParser.nameLimit), !meansNone(text) else { return nil }
        return text.string
    }

    private func text(_ element: JSONElement?, _ field: String, limit: Int) throws(Problem) -> UnsafeRawBufferPointer? {
        guard let element else { throw Problem(field: field, message: "is missing") }
        guard let bytes = element.stringBytes else { throw Problem(field: field, message: "must be a string, not \(element.kind.article)") }
        guard bytes.count <= limit else { throw Problem(field: field, message: "is longer than \(limit) bytes") }
        return bytes
    }

    private func name(_ element: JSONElement?, _ field: String, required: Bool) throws(APIError) -> String {
        guard let element, !element.isNull else {
            if required { throw missing(field) }
            return field == "resource.host" ? "unknown" : ""
        }
        guard let bytes = element.stringBytes else { throw wrongType(field, "a string", element) }
        guard bytes.count <= IngestParser.nameLimit, !required || !bytes.isEmpty else {
            throw APIError(400, "invalid_field", "must have 1 to \(IngestParser.nameLimit) bytes", field: field)
        }
        return bytes.string
    }

    private func missing(_ field: String) -> APIError { APIError(400, "missing_field", "is missing", field: field) }

    private func wrongType(_ field: String, _ wanted: String, _ element: JSONElement) -> APIError {
        APIError(400, "wrong_type", "must be \(wanted), not \(element.kind.article)", field: field)
    }
}

/// Which times are believed. Clocks differ, so that a record may be a little in the future; one that is a year off would be joined with
/// nothing and be kept for nothing.
struct AgeLimit {
    static let future = Duration.seconds(300)

    let maximumAge: Duration
    let now: WallTime

    /// Why a record of this time (milliseconds since 1970) is refused; nil when it is not.
    func refusal(of time: Int64) -> String? {
        if time > now.milliseconds.addingClamped(AgeLimit.future.milliseconds) {
            return "is more than \(AgeLimit.future.brief) in the future"
        }
        if time < now.milliseconds.subtractingClamped(maximumAge.milliseconds) {
            return "is older than \(maximumAge.brief) (MAX_CORRELATION_AGE_HOURS)"
        }
        return nil
    }
}
