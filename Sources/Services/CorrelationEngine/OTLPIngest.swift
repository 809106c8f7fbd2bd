import Basics
import OpenTelemetry
import ProtobufCoding

/// Sorts an OTLP export request into a delivery. Records that are wrong are counted and the first few told; the others count.
struct OTLPIngest {
    /// Records of one request; a body of 16 MiB has room for more only if they are empty.
    static let recordLimit = 200_000
    /// One record's bytes; what is larger is no log line and no span.
    static let recordBytes = 128 << 10
    /// Rejections told in the answer.
    static let told = 5

    let maximumAge: Duration
    let window: Duration

    struct Outcome {
        var delivery = Delivery()
        /// `span 3: its end lies before its start`
        var problems: [String] = []
    }

    func read(_ request: UnsafeRawBufferPointer, _ signal: OTLP.Signal, now: WallTime) throws(ProtobufFailure) -> Outcome {
        var builder = DeliveryBuilder()
        var problems: [String] = []
        var source = Source()
        var index = 0
        let limit = AgeLimit(maximumAge: maximumAge, now: now)
        try OTLP.visit(request, signal) { (around, record) throws(ProtobufFailure) in
            if index == OTLPIngest.recordLimit {
                throw ProtobufFailure("a request has at most \(OTLPIngest.recordLimit) records; split it")
            }
            if source.number != around.resourceNumber { source = try Source(around) }
            do throws(ProtobufFailure) {
                guard record.count <= OTLPIngest.recordBytes else {
                    throw ProtobufFailure("has \(record.count) bytes; at most \(OTLPIngest.recordBytes) are taken")
                }
                try OTLP.schema.check(record, as: signal.record)
                if signal == .traces {
                    try span(record, around, source, limit, &builder)
                } else {
                    try log(record, around, source, limit, &builder)
                }
            } catch {
                builder.reject()
                if problems.count < OTLPIngest.told {
                    problems.append("\(signal == .traces ? "span" : "log record") \(index): \(error.description)")
                }
            }
            index += 1
        }
        return Outcome(delivery: builder.delivery, problems: problems)
    }

    private struct Source {
        var number = -1
        var service = ""
        var host = ""
        var identity: UInt64 = 0

        init() {}

        init(_ around: OTLP.Surroundings) throws(ProtobufFailure) {
            let resource = try OTLP.Resource(around.resource)
            number = around.resourceNumber
            service = resource.service
            host = resource.host
            identity = hash64("\(resource.service)|\(resource.host)|\(resource.instance)")
        }
    }

    private func span(
        _ record: UnsafeRawBufferPointer, _ around: OTLP.Surroundings, _ source: Source, _ limit: AgeLimit, _ builder: inout DeliveryBuilder
    ) throws(ProtobufFailure) {
        let span = try OTLP.Span(record)
        guard span.traceID.count == 16, !span.traceID.isZero else {
            throw ProtobufFailure("traceId must be 16 bytes that are not all zero")
        }
        guard span.spanID.count == 8, !span.spanID.isZero else { throw ProtobufFailure("spanId must be 8 bytes that are not all zero") }
        guard span.parentID.isEmpty || span.parentID.count == 8 else { throw ProtobufFailure("parentSpanId must be 8 bytes or none") }
        guard span.end >= span.start else { throw ProtobufFailure("endTimeUnixNano lies before startTimeUnixNano") }
        if let reason = limit.refusal(of: OTLPIngest.milliseconds(span.end)) { throw ProtobufFailure("endTimeUnixNano \(reason)") }
        if let reason = limit.refusal(of: OTLPIngest.milliseconds(span.start)) { throw ProtobufFailure("startTimeUnixNano \(reason)") }
        builder.add(
            CorrelationKey(traceID: span.traceID), Marks.kind(spanWithError: span.status == 2),
            hash: hash64(span.spanID, seed: source.identity ^ UInt64(truncatingIfNeeded: span.kind)),
            record: record, isSpan: true, isRoot: span.parentID.isEmpty || span.parentID.isZero, around: around)
    }

    private func log(
        _ record: UnsafeRawBufferPointer, _ around: OTLP.Surroundings, _ source: Source, _ limit: AgeLimit, _ builder: inout DeliveryBuilder
    ) throws(ProtobufFailure) {
        let log = try OTLP.LogRecord(record)
        guard log.traceID.isEmpty || log.traceID.count == 16 else { throw ProtobufFailure("traceId must be 16 bytes or none") }
        guard log.spanID.isEmpty || log.spanID.count == 8 else { throw ProtobufFailure("spanId must be 8 bytes or none") }
        // A log without any time is of now, as the specification has the receiver do.
        let nanoseconds = log.time != 0 ? log.time : log.observed
        let time = nanoseconds == 0 ? limit.now.milliseconds : OTLPIngest.milliseconds(nanoseconds)
        if let reason = limit.refusal(of: time) {
            throw ProtobufFailure("\(log.time != 0 ? "timeUnixNano" : "observedTimeUnixNano") \(reason)")
        }
        let key: CorrelationKey
        if log.traceID.isEmpty || log.traceID.isZero {
            let length = window.nanoseconds / 1_000_000
            key = .window(service: source.service, host: source.host, start: time / length * length)
        } else {
            key = CorrelationKey(traceID: log.traceID)
        }
        let kind = Marks.kind(log: Severity(number: log.severityNumber, text: log.severityText)),
            hash = hash64(record, seed: source.identity)
        guard nanoseconds == 0 else { return builder.add(key, kind, hash: hash, record: record, isSpan: false, around: around) }
        var stamped = ProtobufWriter(reserving: record.count + 9)
        stamped.fixed64(OTLP.Field.logObservedTime, UInt64(time) * 1_000_000)
        // Fields may come in any order; what is appended holds.
        (Array(record) + stamped.bytes).withUnsafeBytes { builder.add(key, kind, hash: hash, record: $0, isSpan: false, around: around) }
    }

    private static func milliseconds(_ nanoseconds: UInt64) -> Int64 { Int64(nanoseconds / 1_000_000) }
}

extension UnsafeRawBufferPointer {
    fileprivate var isZero: Bool { allSatisfy { $0 == 0 } }
}
