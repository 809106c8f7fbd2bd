import Basics
import HTTP
import JSONCoding
import Testing

@testable import CorrelationEngine

@Suite struct IngestParserTests {
    private let now = try! CalendarTime.parse("2026-11-21T12:00:00Z")

    private func parse(_ body: String) throws -> IngestParser.Batch {
        try IngestParser(maximumAge: .seconds(24 * 3600), window: .seconds(60)).parse(JSONDocument(), Array(body.utf8), now: now)
    }

    private func body(_ records: String, resource: String = #"{"service":"s","host":"h","env":"dev"}"#) -> String {
        #"{"resource":\#(resource),"records":[\#(records)]}"#
    }
    private func record(
        _ extra: String = "", timestamp: String = #""2026-11-21T12:00:00Z""#, severity: String = #""INFO""#, message: String = #""m""#
    ) -> String {
        #"{"timestamp":\#(timestamp),"severity":\#(severity),"message":\#(message)\#(extra)}"#
    }

    @Test func readsTheDocumentsBody() throws {
        let batch = try parse(body(record(#","trace_id":"abc123def456""#))).delivery
        #expect(batch.groups.count == 1)
        #expect(batch.groups[0].key == .trace("abc123def456"))
        #expect(batch.irregularTraceIDs == 1)
        let stored = StoredCorrelation(
            key: batch.groups[0].key, marks: batch.groups[0].marks, text: batch.groups[0].piece, pending: 1, revision: 0)
        let json = try #require(stored.read { $0.json() })
        let logs = try JSONDocument().parse(json) { root in
            #expect(root["id"]?.string == "t-abc123def456" && root["trace_id"]?.string == "abc123def456" && root["complete"]?.bool == false)
            return root["logs"]?.array?.map { log in log.members?.map { "\($0.key)=\($0.value.string ?? "")" } ?? [] }
        }
        #expect(logs == [["timestamp=2026-11-21T12:00:00.000Z", "severity=INFO", "message=m", "service=s", "host=h", "env=dev"]])
    }

    @Test func tracesOfW3CBecomeLowerCase() throws {
        let batch = try parse(body(record(#","trace_id":"4BF92F3577B34DA6A3CE929D0E0E4736""#))).delivery
        #expect(batch.groups[0].key.traceID == "4bf92f3577b34da6a3ce929d0e0e4736")
        #expect(batch.irregularTraceIDs == 0)
    }

    @Test func recordsWithoutATraceAreJoinedByServiceHostAndWindow() throws {
        func key(_ time: String, _ trace: String) throws -> CorrelationKey {
            try parse(body(record(trace, timestamp: "\"\(time)\""))).delivery.groups[0].key
        }
        let first = try key("2026-11-21T11:59:00Z", "")
        #expect(try key("2026-11-21T11:59:59.999Z", #","trace_id":null"#) == first)
        #expect(try key("2026-11-21T12:00:00Z", #","trace_id":"""#) != first)
        #expect(first.id.hasPrefix("w-") && CorrelationKey(id: first.id) == first)
    }

    @Test func contentOrIdIdentifiesARecord() throws {
        let batch = try parse(
            body(
                [record(), record(), record(#","id":"1""#), record(#","id":"1""#, message: #""other""#), record(#","span_id":"x""#)].joined(
                    separator: ","))
        ).delivery
        #expect(batch.groups[0].marks.count == 3 && batch.duplicates == 2)
    }

    static let wholeBody: [(String, Int, String?)] = [
        ("", 400, nil), ("{", 400, nil), ("[]", 400, "body"), ("{}", 400, "resource"), (#"{"resource":1}"#, 400, "resource"),
        (#"{"resource":{}}"#, 400, "resource.service"),
        (#"{"resource":{"service":5}}"#, 400, "resource.service"), (#"{"resource":{"service":""}}"#, 400, "resource.service"),
        (#"{"resource":{"service":"s","host":[]}}"#, 400, "resource.host"),
        (#"{"resource":{"service":"s"}}"#, 400, "records"), (#"{"resource":{"service":"s"},"records":{}}"#, 400, "records"),
        (#"{"resource":{"service":"s"},"records":[]}"#, 400, "records"),
        ("{\"resource\":{\"service\":\"\u{1}\"}}", 400, nil),
    ]

    @Test(arguments: wholeBody) func refusesAWrongBody(text: String, status: Int, field: String?) {
        let error = #expect(throws: APIError.self) { try parse(text) }
        #expect(error?.status == status)
        #expect(error?.field == field)
    }

    static let wrongRecords: [(String, String)] = [
        ("5", ""), (#"{}"#, "timestamp"), (#"{"timestamp":5,"severity":"INFO","message":"m"}"#, "timestamp"),
        (#"{"timestamp":"x","severity":"INFO","message":"m"}"#, "timestamp"),
        (#"{"timestamp":"2026-11-21T12:10:00Z","severity":"INFO","message":"m"}"#, "timestamp"),
        (#"{"timestamp":"2026-11-19T12:00:00Z","severity":"INFO","message":"m"}"#, "timestamp"),
        (#"{"timestamp":"2026-13-19T12:00:00Z","severity":"INFO","message":"m"}"#, "timestamp"),
        (#"{"timestamp":"9999-12-31T23:59:59Z","severity":"INFO","message":"m"}"#, "timestamp"),
        (#"{"timestamp":"2026-11-21T12:00:00Z","message":"m"}"#, "severity"),
        (#"{"timestamp":"2026-11-21T12:00:00Z","severity":"LOUD","message":"m"}"#, "severity"),
        (#"{"timestamp":"2026-11-21T12:00:00Z","severity":1,"message":"m"}"#, "severity"),
        (#"{"timestamp":"2026-11-21T12:00:00Z","severity":"INFO"}"#, "message"),
        (#"{"timestamp":"2026-11-21T12:00:00Z","severity":"INFO","message":{}}"#, "message"),
        (#"{"timestamp":"2026-11-21T12:00:00Z","severity":"INFO","message":"m","trace_id":5}"#, "trace_id"),
        (#"{"timestamp":"2026-11-21T12:00:00Z","severity":"INFO","message":"m","trace_id":"a b"}"#, "trace_id"),
        (
            #"{"timestamp":"2026-11-21T12:00:00Z","severity":"INFO","message":"m","trace_id":"\#(String(repeating: "a", count: 129))"}"#,
            "trace_id"
        ),
        (#"{"timestamp":"2026-11-21T12:00:00Z","severity":"INFO","message":"\#(String(repeating: "a", count: 65537))"}"#, "message"),
        (#"{"timestamp":"2026-11-21T12:00:00Z","severity":"INFO","message":"m","id":7}"#, "id"),
    ]

    @Test(arguments: wrongRecords) func aWrongRecordIsNamedAndTheOthersCount(text: String, field: String) throws {
        let batch = try parse(body(record() + "," + text))
        #expect(batch.delivery.groups.count == 1 && batch.delivery.rejected == 1)
        #expect(batch.rejected.map(\.field) == [field.isEmpty ? "records[1]" : "records[1].\(field)"])
        #expect(try parse(body(text)).delivery.groups.isEmpty)
    }

    @Test func tooManyRecordsAre413() {
        let many = Array(repeating: record(), count: IngestParser.recordLimit + 1).joined(separator: ",")
        #expect(#expect(throws: APIError.self) { try parse(body(many)) }?.status == 413)
    }
}

@Suite struct ConfigurationTests {
    private func read(_ values: [String: String]) throws -> Configuration { try Configuration { values[$0] } }

    @Test func readsDocument000sNames() throws {
        let configuration = try read([
            "USE_REDIS_STATE": "true", "REDIS_URL": "redis://:secret@h:1", "REDIS_MAX_CONNECTIONS": "7", "REDIS_KEY_PREFIX": "x:",
            "CORRELATION_TTL_SECONDS": "60",
            "MAX_CORRELATION_AGE_HOURS": "2", "LOG_LEVEL": "warn", "PORT": "9", "INSTANCE_ID": "3", "DEPLOYMENT_ENV": "prod",
        ])
        #expect(
            configuration.redis?.password == "secret" && configuration.redisLabel == "redis://:***@h:1"
                && configuration.redisConnections == 7)
        #expect(
            configuration.lifetime == .seconds(60) && configuration.maximumAge == .seconds(7200) && configuration.port == 9
                && configuration.instanceID == "3")
    }

    @Test func aSocketIsAPathThatASocketCanHave() throws {
        #expect(try read([:]).socket == nil && read(["SOCKET": ""]).socket == nil)
        let longest = "/" + String(repeating: "s", count: 106)
        #expect(try read(["SOCKET": longest]).socket == longest)
        let failure = #expect(throws: Configuration.Failure.self) { try read(["SOCKET": longest + "s"]) }
        #expect(failure?.description.contains("at most 107 bytes") == true)
    }

    @Test(arguments: [
        "PORT", "SOCKET", "USE_REDIS_STATE", "CORRELATION_TTL_SECONDS", "LOG_LEVEL", "LOG_FORMAT", "REDIS_MAX_CONNECTIONS",
        "MAX_CORRELATION_AGE_HOURS", "LOKI_URL", "TEMPO_URL",
        "CORRELATION_QUIET_SECONDS", "CORRELATION_COMPLETE", "EXPORT_QUEUE_CAPACITY", "CORRELATION_MEMORY_MB",
    ])
    func aWrongValueNamesItsVariable(name: String) {
        let failure = #expect(throws: Configuration.Failure.self) { try read([name: "nonsense"]) }
        #expect(failure?.description.hasPrefix(name) == true)
    }
}
