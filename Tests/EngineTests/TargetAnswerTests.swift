import Basics
import HTTP
import JSONCoding
import OpenTelemetry
import Testing

@testable import CorrelationEngine

/// What targets say, and what is made of it.
@Suite struct TargetAnswerTests {
    private let now = try! CalendarTime.parse("2026-11-21T12:00:00Z")

    private func judge(_ status: Int, _ body: String = "", _ headers: [(name: String, value: String)] = [], packed: Bool = false)
        -> TargetAnswer
    {
        judge(status, Array(body.utf8), headers, packed: packed)
    }

    private func judge(_ status: Int, _ body: [UInt8], _ headers: [(name: String, value: String)] = [], packed: Bool = false)
        -> TargetAnswer
    {
        TargetAnswer(HTTPClientResponse(status: status, headers: headers, body: body), packed: packed, now: now, JSONDocument())
    }

    @Test func successIsTakenWhateverItSaysBesides() {
        for body in [
            "", "ok", "{}", "{", "[1]", "<html>", #"{"status":"success"}"#, #"{"partialSuccess":{}}"#, #"{"error":null,"errors":[]}"#,
        ] {
            #expect(judge(200, body).verdict == .taken, "\(body)")
        }
        #expect(judge(204).verdict == .taken && judge(299, "{\"a\":1}").verdict == .taken)
    }

    @Test func aPartialSuccessIsRead() {
        let protobuf = [(name: "content-type", value: "application/x-protobuf")]
        let answer = judge(200, OTLP.response(rejected: 3, message: "too old", .traces, json: false), protobuf)
        #expect(answer.verdict == .takenWithout(3) && answer.words == "too old")
        #expect(judge(200, OTLP.response(rejected: 0, message: "hm", .traces, json: false), protobuf).words == "hm")
        #expect(judge(200, [10, 255, 255], protobuf).verdict == .taken)
        for body in [
            #"{"partialSuccess":{"rejectedSpans":"7","errorMessage":"m"}}"#, #"{"partialSuccess":{"rejectedLogRecords":7}}"#,
            #"{"partial_success":{"rejected_spans":7}}"#, #" {"partialSuccess":{"rejectedSpans":7.0}}"#,
        ] {
            #expect(judge(200, body).verdict == .takenWithout(7), "\(body)")
        }
        #expect(judge(200, #"{"partialSuccess":{"rejectedSpans":1e300}}"#).verdict == .takenWithout(.max))
        #expect(judge(200, #"{"partialSuccess":{"rejectedSpans":"-4"}}"#).verdict == .taken)
    }

    @Test func anErrorInTheBodyOfASuccessIsNoSuccess() {
        for (body, words) in [
            (#"{"status":"error","error":"no tenant"}"#, "no tenant"), (#"{"error":{"message":"full"}}"#, "full"),
            (#"{"errors":["a","b"]}"#, "a"), (#"{"status":"error","message":"why"}"#, "why"),
            (#"{"errors":true}"#, "an error without words"),
        ] {
            let answer = judge(200, body)
            #expect(answer.verdict == .takenNothing && answer.words == words, "\(body)")
        }
    }

    @Test func statusesMeanWhatTheySay() {
        for status in [400, 413, 422] { #expect(judge(status, "why").verdict == .refused && judge(status, "why").words.hasSuffix(": why")) }
        for status in [401, 403, 404, 408, 415, 429, 500, 502, 503, 504, 505] { #expect(judge(status).verdict == .later(nil), "\(status)") }
        #expect(judge(415, packed: true).verdict == .notPacked)
        let moved = judge(308, "", [(name: "location", value: "http://other/v1/traces")])
        #expect(moved.verdict == .later(nil) && moved.words.contains("http://other/v1/traces"))
    }

    @Test func retryAfterIsSecondsOrADate() {
        let date = (name: "date", value: "Sat, 21 Nov 2026 11:00:00 GMT")
        let waits: [(String, [(name: String, value: String)], Duration?)] = [
            ("7", [], .seconds(7)), (" 0 ", [], .zero), ("99999999999999999999999", [], .seconds(3600)), ("-1", [], nil), ("soon", [], nil),
            ("", [], nil), ("Sat, 21 Nov 2026 12:00:20 GMT", [], .seconds(20)), ("Saturday, 21-Nov-26 12:00:21 GMT", [], .seconds(21)),
            ("Sat Nov 21 12:00:22 2026", [], .seconds(22)), ("Sat, 21 Nov 2026 11:00:00 GMT", [], .zero),
            ("Fri, 31 Dec 9999 23:59:59 GMT", [], .seconds(3600)), ("Sat, 99 Nov 2026 12:00:20 GMT", [], nil),
            // By the target's own clock, which is an hour behind ours.
            ("Sat, 21 Nov 2026 11:00:05 GMT", [date], .seconds(5)),
        ]
        for (text, others, wait) in waits {
            for status in [429, 503] {
                #expect(judge(status, "", others + [(name: "retry-after", value: text)]).verdict == .later(wait), "\(text)")
            }
        }
    }
}
