import Basics
import HTTP
import JSONCoding
import OpenTelemetry
import ProtobufCoding
import TestSupport
import Testing

@testable import CorrelationEngine

/// The ways in (OTLP in protobuf, OTLP in JSON, `/api/logs`) give one guarantee: a wrong record costs itself, and what means "none" is none.
@Suite struct WaysInTests {
    private static let hour: UInt64 = 3_600_000_000_000
    private static let ingest = OTLPIngest(maximumAge: .seconds(24 * 3600), window: .seconds(60))

    static func readJSON(_ text: String, _ signal: OTLP.Signal) throws -> OTLPIngest.Outcome {
        try JSONDocument().parse(Array(text.utf8)) { try ingest.read($0, signal, now: Sample.now) }
    }

    private func traces(_ spans: String, resource: String = "{}", more: String = "") -> String {
        #"{"resourceSpans":[{"resource":\#(resource),"scopeSpans":[{"spans":[\#(spans)]}]}\#(more)]}"#
    }
    private func span(_ id: Int, _ more: String = "") -> String {
        let time = Sample.nanoseconds
        return #"{"traceId":"01010101010101010101010101010101","spanId":"000000000000000\#(id)","startTimeUnixNano":"\#(time)","#
            + #""endTimeUnixNano":"\#(time)"\#(more)}"#
    }
    private func logs(_ records: String) -> String { #"{"resourceLogs":[{"scopeLogs":[{"logRecords":[\#(records)]}]}]}"# }
    private func log(_ more: String) -> String { #"{"timeUnixNano":"\#(Sample.nanoseconds)","body":{"stringValue":"m"}\#(more)}"# }

    // MARK: one bad record costs itself

    static let badSpans = [
        #"{"traceId":"zz"}"#, "5", "null", "[]", #"{"traceId":7}"#, #"{"name":5}"#, #"{"kind":1.5}"#, #"{"startTimeUnixNano":"x"}"#,
        #"{"attributes":{}}"#, #"{"attributes":[5]}"#, #"{"events":[{"attributes":[{"value":{"intValue":"x"}}]}]}"#, #"{"status":[]}"#,
        #"{"links":[{"traceId":"0g"}]}"#, #"{"flags":-1}"#, #"{"attributes":[{"value":{"bytesValue":"!"}}]}"#, "{}",
    ]

    @Test(arguments: badSpans) func aBadSpanInJSONCostsItself(bad: String) throws {
        let outcome = try Self.readJSON(traces([span(1), bad, span(2)].joined(separator: ",")), .traces)
        #expect(outcome.delivery.recordCount == 2 && outcome.delivery.rejected == 1)
        #expect(outcome.problems.count == 1 && outcome.problems[0].hasPrefix("span 1: "), "\(outcome.problems)")
    }

    @Test func aBadLogInJSONCostsItself() throws {
        for bad in [#"{"traceId":"0"}"#, #"{"body":5,"x":1}"#, "7", #"{"severityNumber":"x"}"#, #"{"timeUnixNano":"1"}"#] {
            let outcome = try Self.readJSON(logs([log(""), bad].joined(separator: ",")), .logs)
            // An id of zeros is none: that one is taken.
            let taken = bad.contains("traceId") ? 2 : 1
            #expect(outcome.delivery.recordCount == taken && outcome.delivery.rejected == 2 - taken, "\(bad)")
        }
    }

    /// What stands around records costs those that stand under it, and no others.
    @Test func aBadResourceOrScopeCostsItsRecords() throws {
        for (resource, more) in [
            (#"{"attributes":5}"#, ""), ("7", ""), ("{}", #",{"scopeSpans":[{"scope":5,"spans":[\#(span(4))]}]}"#),
            ("{}", #",{"schemaUrl":5,"scopeSpans":[{"spans":[\#(span(4))]}]}"#), ("{}", ",5"), ("{}", #",{"scopeSpans":5}"#),
            ("{}", #",{"scopeSpans":[5]}"#), ("{}", #",{"scopeSpans":[{"spans":5}]}"#),
        ] {
            let good = #",{"scopeSpans":[{"spans":[\#(span(2))]}]}"#
            let outcome = try Self.readJSON(traces(span(1), resource: resource, more: more + good), .traces)
            #expect(outcome.delivery.recordCount == (resource == "{}" ? 2 : 1) && outcome.delivery.rejected == 1, "\(resource) \(more)")
            #expect(outcome.problems.count == 1)
        }
        for wrong in ["5", "[]", #"{"resourceSpans":5}"#] {
            #expect(throws: ProtobufFailure.self) { try Self.readJSON(wrong, .traces) }
        }
    }

    @Test func theSameInProtobuf() throws {
        var request = ProtobufWriter()
        let good = { (out: inout ProtobufWriter, id: UInt64) in
            out.message(2) { span in
                span.bytes(1, Sample.trace(1))
                span.bytes(2, Sample.id(id))
                span.fixed64(7, Sample.nanoseconds)
                span.fixed64(8, Sample.nanoseconds)
            }
        }
        request.message(1) { outer in
            outer.message(1) { $0.bytes(1, [10, 2, 0xFF, 0xFE]) }
            outer.message(2) { good(&$0, 1) }
        }
        request.message(1) { outer in
            outer.message(2) { scope in
                good(&scope, 2)
                scope.varint(2, 7)
                scope.bytes(2, [10, 2, 1])
                scope.bytes(2, [42, 1, 0xFF])
                good(&scope, 3)
            }
            outer.varint(2, 1)
            outer.message(2) {
                $0.bytes(3, [0xFF])
                good(&$0, 4)
            }
        }
        request.varint(1, 9)
        let outcome = try Sample.read(request.bytes, .traces)
        #expect(outcome.delivery.recordCount == 2 && outcome.delivery.rejected == 7, "\(outcome.problems)")
        #expect(outcome.problems.count == 5)
    }

    @Test func equalSentencesAreToldOnceWithTheirNumber() throws {
        let spans = Array(repeating: #"{"traceId":""}"#, count: 9).joined(separator: ",")
        let outcome = try Self.readJSON(traces(spans + "," + span(1)), .traces)
        #expect(outcome.problems == ["span 0 and 8 more: traceId must be 16 bytes that are not all zero"] && outcome.delivery.rejected == 9)
    }

    // MARK: none

    static let noneIDs = [
        "", "-", "null", "nil", "None", "undefined", "N/A", "(null)", "<nil>", " ", "0", "00", "0000000000000000",
        "00000000000000000000000000000000", "00000000-0000-0000-0000-000000000000",
    ]

    @Test(arguments: noneIDs) func whatMeansNoIDIsNoneInAllWaysIn(id: String) throws {
        let otlp = try Self.readJSON(logs(log(#","traceId":"\#(id)","spanId":"\#(id)""#)), .logs)
        let record =
            #"{"timestamp":"2026-11-21T12:00:00Z","severity":"INFO","message":"m","trace_id":"\#(id)","span_id":"\#(id)"}"#
        let api = try IngestParser(maximumAge: .seconds(24 * 3600), window: .seconds(60)).parse(
            JSONDocument(), Array(#"{"resource":{"service":"s"},"records":[\#(record)]}"#.utf8), now: Sample.now)
        for delivery in [otlp.delivery, api.delivery] {
            #expect(delivery.rejected == 0 && delivery.recordCount == 1 && delivery.irregularTraceIDs == 0)
            #expect(delivery.groups.first?.key.id.hasPrefix("w-") == true)
            let json = try #require(Sample.stored([delivery]).read { $0.json() })
            #expect(!String(decoding: json, as: UTF8.self).contains("span_id"), "\(String(decoding: json, as: UTF8.self))")
        }
        let parent = try Self.readJSON(traces(span(1, #","parentSpanId":"\#(id)""#)), .traces)
        #expect(parent.delivery.recordCount == 1 && parent.delivery.groups.first?.hasRoot == true)
        #expect(try Self.readJSON(traces(#"{"traceId":"\#(id)","spanId":"01"}"#), .traces).delivery.rejected == 1)
    }

    @Test func zerosInProtobufAreNoneWhateverTheirLength() throws {
        for count in [0, 8, 16, 32] {
            var request = ProtobufWriter()
            request.message(1) { outer in
                outer.message(2) { scope in
                    scope.message(2) { log in
                        log.fixed64(1, Sample.nanoseconds)
                        log.bytes(9, Array(repeating: 0, count: count))
                        log.bytes(10, Array(repeating: 0, count: count))
                    }
                }
            }
            let delivery = try Sample.read(request.bytes, .logs).delivery
            #expect(delivery.recordCount == 1 && delivery.groups[0].key.id.hasPrefix("w-"))
        }
    }

    /// Records whose own id means none are told apart by what they say.
    @Test func anIdThatMeansNoneIsNoIdentity() throws {
        let records = ["a", "b"].map { #"{"timestamp":"2026-11-21T12:00:00Z","severity":"-","message":"\#($0)","id":"-"}"# }
        let body = #"{"resource":{"service":"s"},"records":[\#(records.joined(separator: ","))]}"#
        let batch = try IngestParser(maximumAge: .seconds(86_400), window: .seconds(60)).parse(
            JSONDocument(), Array(body.utf8), now: Sample.now)
        #expect(batch.delivery.recordCount == 2 && batch.delivery.duplicates == 0 && batch.rejected.isEmpty)
    }

    // MARK: times

    @Test func aSpanIsAsOldAsItsEnd() throws {
        for hours in [25, 24 * 365, 24 * 365 * 50] as [UInt64] {
            let start = Sample.nanoseconds - min(hours * Self.hour, Sample.nanoseconds - 1)
            let body = Sample.traces([("s", [.init(start: start, length: Sample.nanoseconds - start)])])
            let outcome = try Sample.read(body, .traces)
            #expect(outcome.delivery.recordCount == 1, "\(outcome.problems)")
            #expect(Sample.stored([outcome.delivery]).read { $0.json().isEmpty } == false)
        }
        let old = try Sample.read(Sample.traces([("s", [.init(start: Sample.nanoseconds - 26 * Self.hour)])]), .traces)
        #expect(old.delivery.rejected == 1)
    }

    @Test func timesAtTheEdgesOf64BitsAreOnlyTimes() throws {
        for (start, end) in [
            (UInt64.max, UInt64.max), (0, UInt64.max), (1, UInt64.max), (0, 0), (UInt64(Int64.max), UInt64(Int64.max) + 1),
        ] {
            var request = ProtobufWriter()
            request.message(1) { outer in
                outer.message(2) { scope in
                    scope.message(2) { span in
                        span.bytes(1, Sample.trace(1))
                        span.bytes(2, Sample.id(1))
                        span.fixed64(7, start)
                        span.fixed64(8, end)
                    }
                }
            }
            #expect(try Sample.read(request.bytes, .traces).delivery.rejected == 1)
        }
        for time in [UInt64.max, UInt64(Int64.max), 1] {
            let outcome = try Self.readJSON(logs(#"{"timeUnixNano":"\#(time)","observedTimeUnixNano":"\#(time)"}"#), .logs)
            #expect(outcome.delivery.rejected == 1)
        }
    }

    // MARK: what stands beside records

    @Test func schemaURLsGoOnToTempo() throws {
        let json = """
            {"resourceSpans":[{"schemaUrl":"https://a/1","resource":{"droppedAttributesCount":3},"scopeSpans":[
            {"schemaUrl":"https://b/2","scope":{"name":"n","version":"v","droppedAttributesCount":4},"spans":[\(span(1))]},
            {"spans":[\(span(2))]}]},{"scopeSpans":[{"schemaUrl":"https://c/3","spans":[\(span(3))]}]}]}
            """
        let delivery = try Self.readJSON(json, .traces).delivery
        let tempo = try #require(TempoFormat.body([Sample.stored([delivery])]))
        var seen: [[String]] = []
        try tempo.withUnsafeBytes { bytes in
            try OTLP.visit(bytes, .traces) { (around, record) throws(ProtobufFailure) in
                seen.append([around.resourceSchema.string, around.scopeSchema.string, hexText(around.resource), String(around.scope.count)])
            }
        }
        #expect(seen == [["https://a/1", "https://b/2", "1003", "8"], ["https://a/1", "", "1003", "0"], ["", "https://c/3", "", "0"]])
        // Cut to what is new, they are still there.
        let cut = RecordGroup.cut(delivery.groups[0].piece, [false, true, true])
        #expect(
            String(decoding: cut, as: UTF8.self).contains("https://a/1") && String(decoding: cut, as: UTF8.self).contains("https://c/3"))
    }

    @Test func aNameComesOnce() throws {
        let attributes =
            #","attributes":[{"key":"span_id","value":{"stringValue":"x"}},{"key":"k","value":{"stringValue":"1"}},"#
            + #"{"key":"k","value":{"kvlistValue":{"values":[{"key":"i","value":{"intValue":"1"}},{"key":"i","value":{"intValue":"2"}}]}}}]"#
        let delivery = try Self.readJSON(logs(log(#","spanId":"0000000000000009""# + attributes)), .logs).delivery
        let text = String(decoding: try #require(Sample.stored([delivery]).read { $0.json() }), as: UTF8.self)
        #expect(text.contains(#""span_id":"0000000000000009""#) && text.contains(#""attributes":{"span_id":"x","k":{"i":2}}"#), "\(text)")
    }

    // MARK: work

    /// Small bodies with millions of parts: refused in a sentence, and not after seconds.
    @Test func aRequestOfManyEmptyPartsIsTooMuch() throws {
        func nested(_ field: Int, _ inner: [UInt8]) -> [UInt8] {
            var out: [UInt8] = []
            inner.withUnsafeBytes { ProtobufWriter.append(field, $0, to: &out) }
            return out
        }
        let many = Array(repeating: [10, 0] as [UInt8], count: 4_200_000).flatMap { $0 }
        let scopes = Array(repeating: [18, 0] as [UInt8], count: 4_200_000).flatMap { $0 }
        for (body, sentence) in [
            (many, "fields, attributes and values"), (nested(1, scopes), "fields, attributes and values"),
            (nested(1, nested(1, many) + nested(2, [18, 0])), "fields, attributes and values"),
            (nested(1, nested(2, Array(scopes.prefix(600_000)))), "more than 200000 records"),
        ] as [([UInt8], String)] {
            let start = MonotonicTime.now
            let failure = #expect(throws: ProtobufFailure.self) { try Sample.read(body, .traces) }
            #expect(failure?.isTooMuch == true && failure?.description.contains(sentence) == true, "\(failure?.description ?? "")")
            // Without optimization; a tenth of it otherwise.
            #expect(MonotonicTime.now - start < .seconds(20))
        }
        let json = "{\"resourceSpans\":[" + Array(repeating: "{}", count: 400_000).joined(separator: ",") + "]}"
        #expect(#expect(throws: ProtobufFailure.self) { try Self.readJSON(json, .traces) }?.isTooMuch == true)
    }

    /// A resource is stored with each of its correlations: what that makes of a request is bounded too.
    @Test func aLargeResourceOverManyTracesIsTooMuch() throws {
        var request = ProtobufWriter()
        request.message(1) { outer in
            outer.message(1) { $0.attribute(1, "k", String(repeating: "x", count: 100 << 10)) }
            outer.message(2) { scope in
                for trace in 0..<1000 as Range<UInt64> {
                    scope.message(2) { log in
                        log.fixed64(1, Sample.nanoseconds)
                        log.bytes(9, Sample.id(trace + 1) + Sample.id(trace + 1))
                    }
                }
            }
        }
        let failure = #expect(throws: ProtobufFailure.self) { try Sample.read(request.bytes, .logs) }
        #expect(failure?.isTooMuch == true && failure?.description.contains("64 MiB") == true)
    }
}
