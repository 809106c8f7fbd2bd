import Basics
import JSONCoding
import OpenTelemetry
import ProtobufCoding

/// Sorts an OTLP export request into a delivery. Records that are wrong are counted and the first few told; the others count.
struct OTLPIngest {
    /// Records of one request; a body of 16 MiB has room for more only if they are empty.
    static let recordLimit = 200_000
    /// One record's bytes; what is larger is no log line and no span. Also of a resource, and of a scope.
    static let recordBytes = 128 << 10
    /// Different sentences about rejections told in the answer.
    static let told = 5
    /// Fields, attributes and values of one request, all told: twice what 16 MiB of ordinary telemetry have.
    static let workLimit = 4_000_000
    /// Bytes that one request may become: its resources are stored with each correlation that has records under them.
    static let storedBytes = 64 << 20

    let maximumAge: Duration
    let window: Duration

    struct Outcome {
        var delivery = Delivery()
        /// `span 3: its end lies before its start`; or `span 3 and 11 more: …` where one sentence holds for several.
        var problems: [String] = []
    }

    /// Reads the protobuf form.
    func read(_ request: UnsafeRawBufferPointer, _ signal: OTLP.Signal, now: WallTime) throws(ProtobufFailure) -> Outcome {
        var sorting = Sorting(self, signal, now)
        var work = WorkBudget(limit: OTLPIngest.workLimit)
        try OTLP.visit(request, signal, &work) { (around, record, work) throws(ProtobufFailure) in
            try sorting.take(record, around, checked: false, &work)
        }
        return sorting.outcome
    }

    /// Reads the JSON form.
    func read(_ request: JSONElement, _ signal: OTLP.Signal, now: WallTime) throws(ProtobufFailure) -> Outcome {
        var sorting = Sorting(self, signal, now)
        var work = WorkBudget(limit: OTLPIngest.workLimit)
        try OTLP.visit(json: request, signal, &work) { (around, record, work) throws(ProtobufFailure) in
            try sorting.take(record, around, checked: true, &work)
        }
        return sorting.outcome
    }
}

/// The records of one request, as they are sorted.
private struct Sorting {
    private let ingest: OTLPIngest
    private let signal: OTLP.Signal
    private let limit: AgeLimit
    private var builder = DeliveryBuilder()
    private var source = Source()
    private var index = 0
    /// Sentences in the order in which they came first, the record that each was about, and how many it was about.
    private var problems: [(sentence: String, first: Int, count: Int)] = []

    init(_ ingest: OTLPIngest, _ signal: OTLP.Signal, _ now: WallTime) {
        self.ingest = ingest
        self.signal = signal
        limit = AgeLimit(maximumAge: ingest.maximumAge, now: now)
    }

    var outcome: OTLPIngest.Outcome {
        let kind = signal == .traces ? "span" : "log record"
        let sentences = problems.map { problem in
            "\(kind) \(problem.first)\(problem.count > 1 ? " and \(problem.count - 1) more" : ""): \(problem.sentence)"
        }
        return OTLPIngest.Outcome(delivery: builder.delivery, problems: sentences)
    }

    /// Throws when the request as a whole is too much; a record that is wrong is noted. `checked`: it was written by us, and is a message.
    mutating func take(
        _ record: UnsafeRawBufferPointer, _ around: OTLP.Surroundings, checked: Bool, _ work: inout WorkBudget
    ) throws(ProtobufFailure) {
        if index == OTLPIngest.recordLimit {
            throw ProtobufFailure("has more than \(OTLPIngest.recordLimit) records; split it", isTooMuch: true)
        }
        do throws(ProtobufFailure) {
            if let problem = around.problem { throw problem }
            try check(around)
            guard record.count <= OTLPIngest.recordBytes else { throw OTLPIngest.tooLarge("", record.count) }
            if !checked { try OTLP.schema.check(record, as: signal.record, &work) }
            if signal == .traces { try span(record, around) } else { try log(record, around) }
        } catch {
            if work.isSpent { throw error }
            builder.reject()
            note(error.description)
        }
        index += 1
        guard builder.bytes <= OTLPIngest.storedBytes else {
            throw ProtobufFailure(
                "takes more than \(OTLPIngest.storedBytes >> 20) MiB to store, because resources and scopes are kept with each correlation "
                    + "that has records under them; split it, or send smaller resources", isTooMuch: true)
        }
    }

    private mutating func note(_ sentence: String) {
        if let known = problems.firstIndex(where: { $0.sentence == sentence }) {
            problems[known].count += 1
        } else if problems.count < OTLPIngest.told {
            problems.append((sentence, index, 1))
        }
    }

    /// What holds for all records of a resource and scope is looked at once.
    private mutating func check(_ around: OTLP.Surroundings) throws(ProtobufFailure) {
        if source.number != around.resourceNumber {
            // Its bytes first: reading a resource costs with its size.
            source = Source(number: around.resourceNumber)
            if around.resource.count + around.resourceSchema.count > OTLPIngest.recordBytes {
                source.problem = OTLPIngest.tooLarge("its resource ", around.resource.count + around.resourceSchema.count)
            } else {
                try source.read(around.resource)
            }
        }
        if let problem = source.problem { throw problem }
        guard around.scope.count + around.scopeSchema.count <= OTLPIngest.recordBytes else {
            throw OTLPIngest.tooLarge("its scope ", around.scope.count + around.scopeSchema.count)
        }
    }

    private struct Source {
        var number = -1
        var service = ""
        var host = ""
        var identity: UInt64 = 0
        var problem: ProtobufFailure?

        init(number: Int = -1) { self.number = number }

        mutating func read(_ bytes: UnsafeRawBufferPointer) throws(ProtobufFailure) {
            let resource = try OTLP.Resource(bytes)
            service = resource.service
            host = resource.host
            identity = hash64("\(resource.service)|\(resource.host)|\(resource.instance)")
        }
    }

    private mutating func span(_ record: UnsafeRawBufferPointer, _ around: OTLP.Surroundings) throws(ProtobufFailure) {
        let span = try OTLP.Span(record)
        guard span.traceID.count == 16, !span.traceID.isZero else {
            throw ProtobufFailure("traceId must be 16 bytes that are not all zero")
        }
        guard span.spanID.count == 8, !span.spanID.isZero else { throw ProtobufFailure("spanId must be 8 bytes that are not all zero") }
        guard span.parentID.isNone || span.parentID.count == 8 else { throw ProtobufFailure("parentSpanId must be 8 bytes or none") }
        guard span.end >= span.start else { throw ProtobufFailure("endTimeUnixNano lies before startTimeUnixNano") }
        // A span is as old as its end: a job may have begun long before.
        if let reason = limit.refusal(of: Sorting.milliseconds(span.end)) { throw ProtobufFailure("endTimeUnixNano \(reason)") }
        guard span.start > 0 else { throw ProtobufFailure("startTimeUnixNano is missing") }
        builder.add(
            CorrelationKey(traceID: span.traceID), Marks.kind(spanWithError: span.status == 2),
            hash: hash64(span.spanID, seed: source.identity ^ UInt64(truncatingIfNeeded: span.kind)),
            record: record, isSpan: true, isRoot: span.parentID.isNone, around: around)
    }

    private mutating func log(_ record: UnsafeRawBufferPointer, _ around: OTLP.Surroundings) throws(ProtobufFailure) {
        let log = try OTLP.LogRecord(record)
        guard log.traceID.isNone || log.traceID.count == 16 else { throw ProtobufFailure("traceId must be 16 bytes or none") }
        guard log.spanID.isNone || log.spanID.count == 8 else { throw ProtobufFailure("spanId must be 8 bytes or none") }
        // A log without any time is of now, as the specification has the receiver do.
        let nanoseconds = log.time != 0 ? log.time : log.observed
        let time = nanoseconds == 0 ? limit.now.milliseconds : Sorting.milliseconds(nanoseconds)
        if let reason = limit.refusal(of: time) {
            throw ProtobufFailure("\(log.time != 0 ? "timeUnixNano" : "observedTimeUnixNano") \(reason)")
        }
        let key: CorrelationKey
        if log.traceID.isNone {
            let length = ingest.window.milliseconds
            key = .window(service: source.service, host: source.host, start: time / length * length)
        } else {
            key = CorrelationKey(traceID: log.traceID)
        }
        let kind = Marks.kind(log: Severity(number: log.severityNumber, text: log.severityText)),
            hash = hash64(record, seed: source.identity)
        guard nanoseconds == 0 else { return builder.add(key, kind, hash: hash, record: record, isSpan: false, around: around) }
        var stamped = ProtobufWriter(reserving: record.count + 9)
        stamped.fixed64(OTLP.Field.logObservedTime, UInt64(max(time, 0)).multipliedClamped(by: 1_000_000))
        // Fields may come in any order; what is appended holds.
        (Array(record) + stamped.bytes).withUnsafeBytes { builder.add(key, kind, hash: hash, record: $0, isSpan: false, around: around) }
    }

    private static func milliseconds(_ nanoseconds: UInt64) -> Int64 { Int64(nanoseconds / 1_000_000) }
}

extension OTLPIngest {
    fileprivate static func tooLarge(_ what: String, _ bytes: Int) -> ProtobufFailure {
        ProtobufFailure("\(what)has \(bytes) bytes; at most \(recordBytes) are taken")
    }
}

extension UnsafeRawBufferPointer {
    fileprivate var isZero: Bool { allSatisfy { $0 == 0 } }
    /// An id that is missing, or whose bytes are all zero, of whatever length.
    fileprivate var isNone: Bool { isZero }
}
