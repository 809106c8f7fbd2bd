import Basics
import HTTP
import JSONCoding

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
        var groups: [RecordGroup] = []
        var rejected: [Rejection] = []
        var recordCount = 0
        /// Trace ids that are not the 32 hex digits of W3C: taken all the same, and counted.
        var irregularTraceIDs = 0
    }

    static let recordLimit = 10_000
    static let nameLimit = 256
    static let messageLimit = 65_536
    static let traceLimit = 128
    /// Clocks differ: a record may be this far in the future.
    static let futureLimit = Duration.seconds(300)

    let maximumAge: Duration
    let window: Duration

    func parse(_ document: JSONDocument, _ body: [UInt8], now: WallTime) throws -> Batch {
        do {
            return try document.parse(body) { try batch($0, now: now) }
        } catch let failure as JSONFailure {
            throw APIError(400, "invalid_json", "the body is not valid JSON: \(failure.description)")
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
        guard let records = list.array else { throw wrongType("records", "an array", list) }
        guard !records.isEmpty else { throw APIError(400, "empty_batch", "records has no record", field: "records") }
        guard records.count <= IngestParser.recordLimit else {
            throw APIError(413, "too_many_records", "a batch has at most \(IngestParser.recordLimit) records; split it", field: "records")
        }
        var batch = Batch()
        batch.recordCount = records.count
        var places: [CorrelationKey: Int] = [:]
        for (index, element) in records.enumerated() {
            do throws(Problem) {
                let (key, record, irregular) = try self.record(element, service: service, host: host, environment: environment, now: now)
                if irregular { batch.irregularTraceIDs += 1 }
                if let place = places[key] {
                    batch.groups[place].records.append(record)
                } else {
                    places[key] = batch.groups.count
                    batch.groups.append(RecordGroup(key: key, service: service, host: host, records: [record]))
                }
            } catch {
                let field = error.field.isEmpty ? "records[\(index)]" : "records[\(index)].\(error.field)"
                batch.rejected.append(Rejection(index: index, field: field, message: error.message))
            }
        }
        if batch.groups.isEmpty, let first = batch.rejected.first {
            throw APIError(400, "invalid_record", first.message, field: first.field)
        }
        return batch
    }

    private struct Problem: Error {
        let field: String
        let message: String
    }

    private func record(
        _ element: JSONElement, service: String, host: String, environment: String, now: WallTime
    ) throws(Problem) -> (CorrelationKey, LogRecord, irregular: Bool) {
        guard element.kind == .object else { throw Problem(field: "", message: "must be an object, not \(element.kind.article)") }
        let time = try timestamp(element["timestamp"], now: now)
        guard let severityText = try text(element["severity"], "severity", limit: 13),
            let severity = Severity(text: severityText)
        else { throw Problem(field: "severity", message: "must be one of TRACE, DEBUG, INFO, WARN, ERROR, FATAL") }
        guard let message = try text(element["message"], "message", limit: IngestParser.messageLimit) else {
            throw Problem(field: "message", message: "is missing")
        }
        let (trace, irregular) = try traceID(element["trace_id"])
        let span = try optional(element["span_id"], "span_id")
        let identity = try optional(element["id"], "id")
        let key: CorrelationKey
        if let trace {
            key = .trace(trace)
        } else {
            let length = window.nanoseconds / 1_000_000
            key = .window(service: service, host: host, start: time.milliseconds / length * length)
        }
        let stamp = CalendarTime.render(time)
        let fingerprint =
            if let identity { digest(["id", identity]) } else {
                digest(["content", stamp, severity.rawValue, message.string, service, host, span ?? ""])
            }
        var json = JSONWriter(reserving: message.count + 200)
        json.beginObject()
        json.member("timestamp", stamp)
        json.member("severity", severity.rawValue)
        json.key("message")
        json.string(message)
        json.member("service", service)
        json.member("host", host)
        if !environment.isEmpty { json.member("env", environment) }
        if let span { json.member("span_id", span) }
        if let identity { json.member("id", identity) }
        json.endObject()
        return (key, LogRecord(fingerprint: fingerprint, time: time, severity: severity, json: json.bytes), irregular)
    }

    private func timestamp(_ element: JSONElement?, now: WallTime) throws(Problem) -> WallTime {
        guard let text = try text(element, "timestamp", limit: 40) else { throw Problem(field: "timestamp", message: "is missing") }
        let time: WallTime
        do throws(CalendarTime.Failure) { time = try CalendarTime.parse(text) } catch {
            let reason = error == .syntax ? "must be an RFC 3339 time such as 2026-11-21T03:30:00Z" : "is not a time that exists"
            throw Problem(field: "timestamp", message: reason)
        }
        if time.milliseconds > now.milliseconds + IngestParser.futureLimit.nanoseconds / 1_000_000 {
            throw Problem(field: "timestamp", message: "is more than \(IngestParser.futureLimit.brief) in the future")
        }
        if time.milliseconds < now.milliseconds - maximumAge.nanoseconds / 1_000_000 {
            throw Problem(field: "timestamp", message: "is older than \(maximumAge.brief) (MAX_CORRELATION_AGE_HOURS)")
        }
        return time
    }

    /// nil when absent, null or empty. 32 hex digits are W3C's form and become lower case.
    private func traceID(_ element: JSONElement?) throws(Problem) -> (String?, irregular: Bool) {
        guard let element, !element.isNull else { return (nil, false) }
        guard let bytes = element.stringBytes else { throw Problem(field: "trace_id", message: "must be a string, not \(element.kind.article)") }
        if bytes.isEmpty { return (nil, false) }
        guard bytes.count <= IngestParser.traceLimit else {
            throw Problem(field: "trace_id", message: "is longer than \(IngestParser.traceLimit) characters")
        }
        for byte in bytes {
            let ok = (byte | 32) &- 97 < 26 || byte &- 48 < 10 || byte == 45 || byte == 46 || byte == 95
            if !ok { throw Problem(field: "trace_id", message: "may have letters, digits, '-', '_' and '.' only") }
        }
        let text = bytes.string
        return (IngestParser.normal(text), !IngestParser.isRegular(text))
    }

    static func isRegular(_ trace: String) -> Bool {
        trace.utf8.count == 32 && trace.utf8.allSatisfy { $0 &- 48 < 10 || ($0 | 32) &- 97 < 6 }
    }

    /// W3C's form in lower case, anything else as it is.
    static func normal(_ trace: String) -> String { isRegular(trace) ? trace.lowercased() : trace }

    private func optional(_ element: JSONElement?, _ field: String) throws(Problem) -> String? {
        guard let element, !element.isNull else { return nil }
        guard let text = try text(element, field, limit: IngestParser.nameLimit), !text.isEmpty else { return nil }
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

extension JSONElement.Kind {
    var article: String { self == .array || self == .object ? "an \(rawValue)" : self == .null ? "null" : "a \(rawValue)" }
}
