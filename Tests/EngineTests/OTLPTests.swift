import Basics
import Compression
import JSONCoding
import OpenTelemetry
import ProtobufCoding
import TestSupport
import Testing

@testable import CorrelationEngine

/// Requests as clients send them, made with the writer.
enum Sample {
    static let now = try! CalendarTime.parse("2026-11-21T12:00:00Z")
    static let nanoseconds = UInt64(now.milliseconds) * 1_000_000

    struct Span {
        var trace: UInt8 = 1
        var id: UInt64 = 1
        var parent: UInt64 = 0
        var name = "s"
        var start = nanoseconds
        var length: UInt64 = 1_000_000
        var failed = false
    }

    static func id(_ number: UInt64) -> [UInt8] { withUnsafeBytes(of: number.bigEndian) { Array($0) } }
    static func trace(_ number: UInt8) -> [UInt8] { Array(repeating: number, count: 16) }

    static func traces(_ services: [(String, [Span])]) -> [UInt8] {
        request(services) { span, out in
            out.bytes(1, trace(span.trace))
            out.bytes(2, id(span.id))
            if span.parent != 0 { out.bytes(4, id(span.parent)) }
            out.string(5, span.name)
            out.fixed64(7, span.start)
            out.fixed64(8, span.start + span.length)
            out.attribute(9, "key", "value")
            if span.failed { out.message(15) { $0.varint(3, 2) } }
        }
    }

    static func logs(_ services: [(String, [(trace: UInt8, severity: UInt64, text: String)])]) -> [UInt8] {
        request(services) { log, out in
            out.fixed64(1, nanoseconds)
            out.varint(2, log.severity)
            out.message(5) { $0.string(1, log.text) }
            if log.trace != 0 { out.bytes(9, trace(log.trace)) }
        }
    }

    private static func request<T>(_ services: [(String, [T])], _ write: (T, inout ProtobufWriter) -> Void) -> [UInt8] {
        var out = ProtobufWriter()
        for (service, records) in services {
            out.message(1) { outer in
                outer.message(1) { $0.attribute(1, "service.name", service) }
                outer.message(2) { scope in
                    scope.message(1) { $0.string(1, "scope") }
                    for record in records { scope.message(2) { write(record, &$0) } }
                }
            }
        }
        return out.bytes
    }

    static func read(_ body: [UInt8], _ signal: OTLP.Signal) throws -> OTLPIngest.Outcome {
        try body.withUnsafeBytes { try OTLPIngest(maximumAge: .seconds(24 * 3600), window: .seconds(60)).read($0, signal, now: now) }
    }

    /// All that deliveries brought for one trace, as a store keeps it.
    static func stored(_ deliveries: [Delivery]) -> StoredCorrelation {
        let groups = deliveries.flatMap(\.groups)
        return StoredCorrelation(
            key: groups[0].key, marks: Marks(bytes: groups.flatMap(\.marks.bytes)), text: groups.flatMap(\.piece), pending: 0, revision: 1)
    }
}

@Suite struct CorrelationTests {
    private func whole(_ reversed: Bool) throws -> StoredCorrelation {
        let parts = [
            try Sample.read(
                Sample.traces([
                    ("gateway", [.init(id: 1, name: "GET /", length: 9_000_000)]),
                    ("orders", [.init(id: 2, parent: 1, start: Sample.nanoseconds + 1_000_000, length: 5_000_000, failed: true)]),
                ]), .traces
            ).delivery,
            try Sample.read(
                Sample.traces([
                    ("payments", [.init(id: 3, parent: 2, name: "pay", start: Sample.nanoseconds + 2_000_000, failed: true)]),
                    ("audit", [.init(id: 4, parent: 1, start: Sample.nanoseconds + 7_000_000)]),
                ]), .traces
            ).delivery,
            try Sample.read(Sample.logs([("mailer", [(1, 9, "sent")]), ("orders", [(1, 17, "broke"), (1, 13, "hm")])]), .logs).delivery,
        ]
        return Sample.stored(reversed ? parts.reversed() : parts)
    }

    /// Whatever order the pieces came in.
    @Test(arguments: [false, true]) func joinsServicesInCallOrderAndFindsTheOrigin(reversed: Bool) throws {
        let json = try #require(try whole(reversed).read { $0.json() })
        try JSONDocument().parse(json) { root in
            #expect(root["services"]?.array?.compactMap(\.string) == ["gateway", "orders", "payments", "audit", "mailer"])
            #expect(root["root"]?["name"]?.string == "GET /" && root["duration_ms"]?.double == 9)
            // The failed span below which no other failed one lies.
            #expect(root["critical_error"]?["name"]?.string == "pay" && root["critical_error"]?["service"]?.string == "payments")
            #expect(root["span_count"]?.int == 4 && root["log_count"]?.int == 3 && root["status"]?.string == "error")
            #expect(
                root["severities"]?["ERROR"]?.int == 1 && root["severities"]?["WARN"]?.int == 1 && root["severities"]?["INFO"]?.int == 1)
            #expect(
                root["exemplars"]?.array?.count == 3 && root["complete"]?.bool == true
                    && root["trace_id"]?.string == String(repeating: "01", count: 16))
        }
    }

    @Test func aCircleOfParentsAndALostOneEndSomewhere() throws {
        let outcome = try Sample.read(
            Sample.traces([("s", [.init(id: 1, parent: 2), .init(id: 2, parent: 1), .init(id: 3, parent: 99), .init(id: 4, parent: 4)])]),
            .traces)
        #expect(Sample.stored([outcome.delivery]).read { $0.spans.count } == 4)
        #expect(Sample.stored([outcome.delivery]).read { $0.root } == .some(nil))
    }

    @Test func tempoGetsTheSpansByteForByteAndLokiTheLogs() throws {
        let stored = try whole(false)
        let tempo = try #require(TempoFormat.body([stored]))
        let again = try Sample.read(tempo, .traces).delivery
        #expect(again.groups.count == 1 && Set(again.groups[0].marks.hashes) == Set(stored.marks.hashes.prefix(4)))
        let loki = try #require(LokiFormat.body([stored]))
        try JSONDocument().parse(loki) { root in
            let streams = root["streams"]?.array ?? []
            #expect(streams.count == 3)
            #expect(streams.compactMap { $0["stream"]?["service_name"]?.string }.sorted() == ["mailer", "orders", "orders"])
            let entry = streams.first?["values"]?.array?.first?.array
            #expect(entry?[0].string == String(Sample.nanoseconds) && entry?[2]["trace_id"]?.string == String(repeating: "01", count: 16))
        }
        #expect(LokiFormat.label("http.route") == "http_route" && LokiFormat.label("9a") == "_9a")
    }
}

extension Marks {
    fileprivate var hashes: [UInt64] { (0..<count).map { self[$0].hash } }
}

@Suite struct OTLPTests {
    @Test func sortsByTraceAndKnowsWhatCameTwice() throws {
        let body = Sample.traces([
            ("a", [.init(trace: 1, id: 1), .init(trace: 2, id: 2), .init(trace: 1, id: 1)]), ("b", [.init(trace: 1, id: 3, parent: 1)]),
        ])
        let delivery = try Sample.read(body, .traces).delivery
        #expect(delivery.groups.map(\.marks.count) == [2, 1] && delivery.duplicates == 1 && delivery.rejected == 0)
        #expect(delivery.groups.map(\.hasRoot) == [true, true])
        #expect(delivery.groups[0].key.id == "t-" + String(repeating: "01", count: 16))
    }

    static let wrongSpans: [(Sample.Span, String)] = [
        (.init(trace: 0), "traceId"), (.init(id: 0), "spanId"), (.init(), "endTimeUnixNano lies before"),
        (.init(start: Sample.nanoseconds - 365 * 86_400_000_000_000), "endTimeUnixNano is older"),
        (.init(start: Sample.nanoseconds + 365 * 86_400_000_000_000), "endTimeUnixNano is more than"),
        (.init(start: 0), "endTimeUnixNano is older"),
    ]

    @Test(arguments: wrongSpans) func aWrongSpanIsToldAndTheOthersCount(span: Sample.Span, reason: String) throws {
        let outcome = try Sample.read(traces(span, endsEarly: reason.hasSuffix("before")), .traces)
        #expect(outcome.delivery.rejected == 1 && outcome.delivery.recordCount == 1)
        #expect(outcome.problems.count == 1 && outcome.problems[0].contains(reason), "\(outcome.problems)")
    }

    private func traces(_ span: Sample.Span, endsEarly: Bool) -> [UInt8] {
        guard endsEarly else { return Sample.traces([("s", [.init(trace: 9, id: 9), span])]) }
        var early = ProtobufWriter()
        early.message(1) { outer in
            outer.message(2) { scope in
                for end in [Sample.nanoseconds, Sample.nanoseconds - 1] {
                    scope.message(2) { out in
                        out.bytes(1, Sample.trace(1))
                        out.bytes(2, Sample.id(1))
                        out.fixed64(7, Sample.nanoseconds)
                        out.fixed64(8, end)
                    }
                }
            }
        }
        return early.bytes
    }

    @Test func aTraceOfAHundredThousandSpansIsManyBoundedGroups() throws {
        let spans = (1...100_000).map { Sample.Span(id: UInt64($0), parent: $0 == 1 ? 0 : 1) }
        let delivery = try Sample.read(Sample.traces([("s", spans + spans.prefix(10))]), .traces).delivery
        #expect(delivery.recordCount == 100_000 && delivery.duplicates == 10)
        #expect(
            delivery.groups.allSatisfy { $0.marks.count <= 500 && $0.piece.count < 700_000 } && Set(delivery.groups.map(\.key)).count == 1)
    }

    @Test func truncatedBodiesAreRefusedOrMeanWhatIsLeft() throws {
        let body = Sample.traces([("a", [.init(id: 1), .init(id: 2)]), ("b", [.init(id: 3)])])
        for count in 0..<body.count {
            guard let outcome = try? Sample.read(Array(body.prefix(count)), .traces) else { continue }
            // Only a cut between two resources leaves a request.
            #expect([0, 2].contains(outcome.delivery.received))
        }
    }

    /// Whatever comes in, what is taken can be read, shown and sent on.
    @Test func mutatedBodiesNeverBreakWhatIsStored() throws {
        var random = SeededRandom(seed: 3)
        let spans = Sample.traces([("a", [.init(id: 1), .init(id: 2, failed: true)]), ("b", [.init(id: 3, parent: 1)])])
        let logs = Sample.logs([("a", [(1, 9, "one"), (0, 17, "two")])])
        var taken = 0, refused = 0
        for round in 0..<20_000 {
            let signal = round % 2 == 0 ? OTLP.Signal.traces : .logs
            var body = signal == .traces ? spans : logs
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let at = Int.random(in: 0..<body.count, using: &random)
                switch Int.random(in: 0..<3, using: &random) {
                case 0: body[at] = UInt8.random(in: 0...255, using: &random)
                case 1: body.remove(at: at)
                default: body.insert(UInt8.random(in: 0...255, using: &random), at: at)
                }
            }
            guard let outcome = try? Sample.read(body, signal) else {
                refused += 1
                continue
            }
            taken += outcome.delivery.recordCount
            for group in outcome.delivery.groups {
                let stored = StoredCorrelation(key: group.key, marks: group.marks, text: group.piece, pending: 0, revision: 1)
                let json = try #require(stored.read { $0.json() })
                let isObject = try JSONDocument().parse(json) { $0.kind == .object }
                #expect(isObject)
                if let tempo = TempoFormat.body([stored]) {
                    try tempo.withUnsafeBytes { try OTLP.schema.check($0, as: OTLP.Message.traceRequest) }
                }
                if let loki = LokiFormat.body([stored]) { _ = try JSONDocument().parse(loki) { $0.kind } }
            }
        }
        #expect(taken > 1000 && refused > 1000)
    }

    @Test func oddNumbersAreOnlyNumbers() throws {
        for kind in [UInt64.max, 1 << 40, 99] {
            var request = ProtobufWriter()
            request.message(1) { outer in
                outer.message(2) { scope in
                    scope.message(2) { out in
                        out.bytes(1, Sample.trace(1))
                        out.bytes(2, Sample.id(1))
                        out.varint(6, kind)
                        out.fixed64(7, Sample.nanoseconds)
                        out.fixed64(8, Sample.nanoseconds)
                        out.message(15) { $0.varint(3, kind) }
                    }
                }
            }
            let delivery = try Sample.read(request.bytes, .traces).delivery
            #expect(delivery.recordCount == 1 && Sample.stored([delivery]).read { $0.json().isEmpty } == false)
        }
    }

    @Test func aLogWithoutATimeIsOfNow() throws {
        var request = ProtobufWriter()
        request.message(1) { outer in outer.message(2) { scope in scope.message(2) { $0.bytes(9, Sample.trace(1)) } } }
        let delivery = try Sample.read(request.bytes, .logs).delivery
        #expect(Sample.stored([delivery]).read { $0.first } == Int64(Sample.nanoseconds))
        let again = try Sample.read(request.bytes, .logs).delivery
        #expect(again.groups[0].marks == delivery.groups[0].marks)
    }

    /// Whoever writes into the store by hand: what is no correlation of ours is none, and nothing traps.
    @Test func garbageInTheStoreIsNoCorrelation() throws {
        for text in [[0x22, 0x00], [0x1A, 0x00], [0x0A], [0xFF], Array("{}".utf8)] as [[UInt8]] {
            let stored = StoredCorrelation(key: .trace("t"), marks: Marks(bytes: [1, 2, 3]), text: text, pending: 0, revision: 0)
            #expect(stored.read { $0.json() } == nil)
        }
        #expect(StoredState(Array("1|0|0|;1=9223372036854775807;2=9|".utf8)) != nil)
        #expect(StoredState(Array("garbage".utf8)) == nil && ExportBatch(text: "x y|z").emissions.isEmpty)
    }

    @Test func farTimesAreOnlyFar() throws {
        let stored = Sample.stored([try Sample.read(Sample.traces([("s", [.init()])]), .traces).delivery])
        var query = CorrelationQuery()
        query.to = try CalendarTime.parse("9999-12-31T23:59:59Z")
        query.from = try CalendarTime.parse("0001-01-01T00:00:00Z")
        #expect(stored.read { query.matches($0) } == true)
    }

    @Test func jsonAndProtobufMeanTheSame() throws {
        let json = """
            {"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"a"}}]},"scopeSpans":[{"scope":{"name":"scope"},"spans":[
            {"traceId":"01010101010101010101010101010101","spanId":"0000000000000001","name":"s","startTimeUnixNano":"\(Sample.nanoseconds)",
            "endTimeUnixNano":"\(Sample.nanoseconds + 1_000_000)","attributes":[{"key":"key","value":{"stringValue":"value"}}]}]}]}]}
            """
        let body = try OTLP.protobuf(Array(json.utf8), .traces, JSONDocument())
        #expect(body == Sample.traces([("a", [.init()])]))
        let failure = #expect(throws: ProtobufFailure.self) {
            try OTLP.protobuf(Array(#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"zz"}]}]}]}"#.utf8), .traces, JSONDocument())
        }
        #expect(failure?.description.hasPrefix("resourceSpans[0].scopeSpans[0].spans[0].traceId") == true)
    }

    @Test func answersAsTheSpecificationHasThem() {
        #expect(OTLP.response(rejected: 0, message: "", .traces, json: false).isEmpty)
        #expect(String(decoding: OTLP.response(rejected: 0, message: "", .logs, json: true), as: UTF8.self) == "{}")
        #expect(OTLP.response(rejected: 3, message: "m", .traces, json: false) == [10, 5, 8, 3, 18, 1, 109])
        #expect(
            String(decoding: OTLP.response(rejected: 3, message: "m", .logs, json: true), as: UTF8.self)
                == #"{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"m"}}"#)
        #expect(OTLP.status(code: 3, message: "m", json: false) == [8, 3, 18, 1, 109])
    }
}

@Suite struct OTLPFuzzReplayTests {
    /// The fuzzer's corpus, and what it found, once more.
    @Test func theCorpusIsReadWithoutATrap() throws {
        let folder = projectFolder + "/Fuzz/corpus/otlp"
        let names = Files.list(folder)
        #expect(names.count > 20)
        var records = 0
        for name in names {
            let bytes = try Files.read("\(folder)/\(name)")
            guard let first = bytes.first else { continue }
            let signal = first % 2 == 0 ? OTLP.Signal.traces : .logs
            try? Array(bytes.dropFirst()).withUnsafeBytes { body in
                try OTLP.visit(body, signal) { (_, record) throws(ProtobufFailure) in
                    try OTLP.schema.check(record, as: signal.record)
                    records += 1
                }
            }
        }
        #expect(records > 100)
    }
}
