import Basics
import Compression
import EventLoops
import HTTP
import JSONCoding
import Observability
import OpenTelemetry
import ProtobufCoding
import Redis
import SharedState
import Synchronization
import TestSupport
import Testing

@testable import CorrelationEngine

/// What the engine makes of parameters, of its store's answers, and of its targets' answers: through sockets.
@Suite struct EngineAnswersTests {
    private static func log(_ trace: String, _ service: String = "s") -> [UInt8] {
        let record = #"{"timestamp":"\#(CalendarTime.render(.now))","severity":"INFO","message":"m","trace_id":"\#(trace)"}"#
        return Array(#"{"resource":{"service":"\#(service)"},"records":[\#(record)]}"#.utf8)
    }

    // MARK: parameters

    static let wrong: [(String, String)] = [
        ("service=%ff", "service"), ("service=%zz", "service"), ("service=a%", "service"), ("trace_id=%ff", "trace_id"),
        ("status=%ff", "status"), ("status=wrong", "status"), ("from=%c3%28", "from"), ("from=yesterday", "from"), ("to=%", "to"),
        ("limit=%ff", "limit"), ("limit=0", "limit"), ("limit=9223372036854775808", "limit"), ("min_duration_ms=-1", "min_duration_ms"),
        ("cursor=%ff", "cursor"), ("cursor=1.x", "cursor"), ("cursor=-1.t-a", "cursor"), ("cursor=99999999999999999999.t-a", "cursor"),
        ("service=a&service=b", "service"), ("servce=a", "servce"), ("%ff=a", "%ff"), ("service=a&status=ok&status=ok", "status"),
    ]

    @Test func whatCannotBeReadIsNamed() async throws {
        try await withLoop { loop in
            try await withEngine([:]) { engine, _ in
                let client = HTTPClient(loop: loop)
                for service in ["a", "b c"] {
                    #expect(
                        try await client.send("POST", "/api/logs", to: engine, body: Self.log("t-\(service.first!)", service)).status == 202
                    )
                }
                for path in ["/api/correlations", "/api/correlations/stream"] {
                    for (query, field) in Self.wrong {
                        // The stream has no pages.
                        let answer = try await client.send("GET", "\(path)?\(query)", to: engine)
                        #expect(answer.status == 400, "\(path)?\(query): \(answer.status)")
                        #expect(try JSONValue.parse(answer.body)["error"]["field"].string == field, "\(path)?\(query): \(answer.text)")
                    }
                }
                for query in ["limit=5", "cursor=1.t-a"] {
                    #expect(try await client.send("GET", "/api/correlations/stream?\(query)", to: engine).status == 400)
                }
                for query in ["scope=%ff", "scope=x", "scop=fleet", "scope=fleet&scope=fleet"] {
                    #expect(try await client.send("GET", "/api/ledger?\(query)", to: engine).status == 400, "\(query)")
                }
                // A plus is a blank, and is said to be where that makes a value wrong.
                let found = try await client.send("GET", "/api/correlations?service=b+c", to: engine)
                #expect(try JSONValue.parse(found.body)["correlations"].list.count == 1)
                let plus = try await client.send("GET", "/api/correlations?from=2026-11-21T03:30:00+01:00", to: engine)
                #expect(plus.status == 400 && plus.text.contains("%2B"))
                #expect(
                    try await client.send("GET", "/api/correlations?from=2026-11-21T03:30:00%2B01:00&service=", to: engine).status == 200)
                for twice in [["Content-Type", "Content-Type"], ["Content-Type", "Content-Encoding", "Content-Encoding"]] {
                    let headers = twice.map { ($0, $0 == "Content-Type" ? "application/json" : "gzip") }
                    for path in ["/api/logs", "/v1/logs"] {
                        #expect(try await client.send("POST", path, to: engine, headers: headers, body: Self.log("x")).status == 400)
                    }
                }
                // Packed in every way in.
                let packed = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")]
                #expect(
                    try await client.send("POST", "/api/logs", to: engine, headers: packed, body: Gzip.pack(Self.log("zipped"))).status
                        == 202)
                client.close()
            }
        }
    }

    /// The ways in: a wrong record costs itself, ids that mean none are none, a span is as old as its end, each logger's words count.
    @Test func theWaysInGiveOneGuarantee() async throws {
        try await withLoop { loop in
            try await withEngine([:]) { engine, _ in
                let client = HTTPClient(loop: loop)
                let now = UInt64(WallTime.now.milliseconds) * 1_000_000
                func post(_ path: String, _ type: String, _ body: [UInt8]) async throws -> String {
                    let answer = try await client.send("POST", path, to: engine, headers: [("Content-Type", type)], body: body)
                    #expect(answer.status < 300, "\(path) \(answer.text)")
                    return answer.text
                }
                let json = "application/json"
                let api =
                    #"{"resource":{"service":"api"},"records":[5,{"timestamp":"\#(CalendarTime.render(.now))","severity":"SEVERE","#
                    + #""message":"m","trace_id":"0","span_id":"-"}]}"#
                #expect(try await post("/api/logs", json, Array(api.utf8)).contains(#""accepted":1,"#))
                let log = #"{"timeUnixNano":"\#(now)","severityText":"crit","traceId":"null","spanId":"-"}"#
                let resource = #""resource":{"attributes":[{"key":"service.name","value":{"stringValue":"otlp"}}]}"#
                let logs = #"{"resourceLogs":[{\#(resource),"scopeLogs":[{"logRecords":[{"traceId":"zz"},{"traceId":"zz"},\#(log),7]}]}]}"#
                let told = try await post("/v1/logs", json, Array(logs.utf8))
                #expect(told.contains(#""rejectedLogRecords":"3""#) && told.contains("log record 0 and 1 more: traceId must be"), "\(told)")
                let span =
                    #"{"traceId":"0102","spanId":"03"},{"traceId":"01010101010101010101010101010101","spanId":"0000000000000001","#
                    + #""parentSpanId":"0000000000000000","#
                    + #""startTimeUnixNano":"\#(now - 25 * 3_600_000_000_000)","endTimeUnixNano":"\#(now)"}"#
                let traces = #"{"resourceSpans":[{\#(resource),"scopeSpans":[{"spans":[\#(span)]}]}]}"#
                #expect(try await post("/v1/traces", json, Array(traces.utf8)).contains(#""rejectedSpans":"1""#))
                var request = ProtobufWriter()
                request.message(1) { outer in
                    outer.message(1) { $0.attribute(1, "service.name", "protobuf") }
                    outer.message(2) { scope in
                        scope.bytes(2, [42, 1, 0xFF])
                        scope.message(2) { log in
                            log.fixed64(1, now)
                            log.string(3, "FINEST")
                            log.bytes(9, Array(repeating: 0, count: 16))
                        }
                    }
                }
                let answer = try await client.send(
                    "POST", "/v1/logs", to: engine, headers: [("Content-Type", "application/x-protobuf")], body: request.bytes)
                #expect(answer.status == 200 && answer.body.starts(with: [10]))
                let page = try JSONValue.parse(try await client.send("GET", "/api/correlations", to: engine).body)["correlations"].list
                // Three windows, and the trace.
                #expect(page.count == 4 && page.filter { $0["trace_id"].isNull }.count == 3)
                let severities = page.flatMap { $0["severities"].members.keys }.sorted()
                #expect(severities == ["ERROR", "FATAL", "TRACE"], "\(severities)")
                let trace = try #require(page.first { !$0["trace_id"].isNull })
                #expect(trace["root"]["span_id"].string == "0000000000000001" && trace["duration_ms"].double == 90_000_000)
                let ledger = try JSONValue.parse(try await client.send("GET", "/api/ledger", to: engine).body)
                #expect(ledger["received"].int == 10 && ledger["rejected"].int == 6 && ledger["imbalance"].int == 0, "\(ledger)")
                client.close()
            }
        }
    }

    @Test func aStreamHasTheFiltersOfTheList() async throws {
        try await withLoop { loop in
            try await withEngine(["CORRELATION_QUIET_SECONDS": "0.2"]) { engine, _ in
                let client = HTTPClient(loop: loop)
                // A blocking reader, off the loop: ends with what it waits for, or after ten seconds.
                let reader = Task.detached {
                    let socket = try RawSocket(port: engine.testPort)
                    socket.send("GET /api/correlations/stream?trace_id=wanted HTTP/1.1\r\nHost: x\r\n\r\n")
                    return socket.receive { $0.contains("t-wanted") }
                }
                try await Task.sleep(for: .milliseconds(300))
                for trace in ["other", "wanted"] {
                    _ = try await client.send("POST", "/api/logs", to: engine, body: Self.log(trace))
                    try await Task.sleep(for: .milliseconds(500))
                }
                let text = try await reader.value
                #expect(text.contains("t-wanted") && !text.contains("t-other"))
                client.close()
            }
        }
    }

    /// Places at the edges of 64 bits, of another layout, and of a time to come: whoever gives one gets all that is remembered, or 400.
    @Test(arguments: [false, true]) func eventIdsAtTheEdges(withRedis uses: Bool) async throws {
        try await withRedis { redis in
            try await withLoop { loop in
                var environment = ["CORRELATION_QUIET_SECONDS": "0.1"]
                if uses { environment.merge(["USE_REDIS_STATE": "true", "REDIS_URL": redis.url]) { $1 } }
                try await withEngine(environment) { engine, _ in
                    let client = HTTPClient(loop: loop)
                    _ = try await client.send("POST", "/api/logs", to: engine, body: Self.log("one"))
                    try await Task.sleep(for: .seconds(1))
                    func open(_ id: String) async throws -> String {
                        // A blocking reader, off the loop: ends with what it waits for, or after three seconds.
                        try await Task.detached {
                            let socket = try RawSocket(port: engine.testPort, timeout: 3)
                            socket.send("GET /api/correlations/stream HTTP/1.1\r\nHost: x\r\nLast-Event-ID: \(id)\r\n\r\n")
                            return socket.receive { $0.contains("t-one") || $0.contains("\r\n\r\n{") }
                        }.value
                    }
                    for id in ["18446744073709551615-18446744073709551615", "9223372036854775807-0", "0-18446744073709551615", "1-1.2-2"] {
                        let text = try await open(id)
                        #expect(text.hasPrefix("HTTP/1.1 200 ") && text.contains("t-one"), "\(id): \(text)")
                    }
                    for id in ["18446744073709551616-0", "+1-0", "-1-0", "1", "a-b", "1-", "1-0.", "\u{e4}-1"] {
                        let text = try await open(id)
                        #expect(text.hasPrefix("HTTP/1.1 400 ") && text.contains("Last-Event-ID"), "\(id): \(text)")
                    }
                    client.close()
                }
            }
        }
    }

    // MARK: the store

    /// Keys of another type: told by name, counted, nothing half done; and all is well when they are gone.
    @Test func keysOfAnotherTypeAreToldByName() async throws {
        try await withRedis { redis in
            try await withLoop { loop in
                try await redis.withClient(loop) { keys in
                    let environment = [
                        "USE_REDIS_STATE": "true", "REDIS_URL": redis.url, "CORRELATION_QUIET_SECONDS": "0.1",
                        "LOKI_URL": "http://127.0.0.1:\(TestPorts.server())",
                    ]
                    try await withEngine(environment) { engine, child in
                        let client = HTTPClient(loop: loop)
                        let cases: [(String, RedisCommand)] = [
                            ("corr:ledger", RedisCommand("SET", "corr:ledger", "x")),
                            ("corr:time_index", RedisCommand("SET", "corr:time_index", "x")),
                            ("corr:cursor", RedisCommand("LPUSH", "corr:cursor", "x")),
                            ("corr:rooted", RedisCommand("SET", "corr:rooted", "x")),
                            ("corr:ledger", RedisCommand("HSET", "corr:ledger", "1:received", "9223372036854775807")),
                            ("corr:ledger", RedisCommand("HSET", "corr:ledger", "1:pending", "many")),
                            ("corr:cursor", RedisCommand("SET", "corr:cursor", "soon")),
                        ]
                        for (number, (key, command)) in cases.enumerated() {
                            _ = try await keys.send(RedisCommand("FLUSHDB"))
                            _ = try await keys.send(command)
                            for _ in 0..<2 {
                                let answer = try await client.send("POST", "/api/logs", to: engine, body: Self.log("trace-\(number)"))
                                #expect(answer.status == 503 && answer.text.contains("state_broken"), "\(key): \(answer.text)")
                                #expect(answer.text.contains("the key \(key) ") && answer.header("retry-after") != nil, "\(answer.text)")
                            }
                            #expect(try await keys.send(RedisCommand("EXISTS", "corr:t-trace-\(number)")).int == 0)
                            #expect(try await client.send("GET", "/health/live", to: engine).status == 200)
                            _ = try await keys.send(RedisCommand("DEL", key))
                            let mended = try await client.send("POST", "/api/logs", to: engine, body: Self.log("trace-\(number)"))
                            #expect(mended.status == 202, "\(key): \(mended.text)")
                        }
                        for key in ["corr:export:loki", "corr:emitted", "corr:settler"] {
                            _ = try await keys.send(RedisCommand("FLUSHDB"))
                            _ = try await keys.send(RedisCommand("SET", key, "x"))
                            if key == "corr:settler" { _ = try await keys.send(RedisCommand("DEL", key)) }
                            if key == "corr:settler" { _ = try await keys.send(RedisCommand("LPUSH", key, "x")) }
                            _ = try await client.send("POST", "/api/logs", to: engine, body: Self.log("settled"))
                            let told = await eventually(.seconds(15)) { child.output.contains("the key \(key)") }
                            #expect(told, "\(key)")
                            _ = try await keys.send(RedisCommand("DEL", key))
                            let mended = try await eventually {
                                try await client.send("GET", "/api/ledger", to: engine).text.contains(#""pending":0"#)
                            }
                            #expect(mended, "\(key)")
                        }
                        let page = try await client.send("GET", "/metrics", to: engine).text
                        let counted = page.split(separator: "\n").contains {
                            $0.hasPrefix("redis_errors_total{") && $0.contains("server") && !$0.hasSuffix(" 0")
                        }
                        #expect(counted)
                        client.close()
                    }
                }
            }
        }
    }

    /// What a full correlation had no room for was not accepted, by whichever way it came.
    @Test func whatAFullCorrelationRefusesCountsAsPartial() async throws {
        try await withLoop { loop in
            try await withEngine([:]) { engine, _ in
                let client = HTTPClient(loop: loop), now = CalendarTime.render(.now)
                func records(_ numbers: Range<Int>) -> [UInt8] {
                    let all = numbers.map { #"{"timestamp":"\#(now)","severity":"INFO","message":"\#($0)","trace_id":"full"}"# }
                    return Array(#"{"resource":{"service":"s"},"records":[\#(all.joined(separator: ","))]}"#.utf8)
                }
                let bound = CorrelationBounds().records
                for start in stride(from: 0, to: bound, by: 1000) {
                    let answer = try await client.send("POST", "/api/logs", to: engine, body: records(start..<start + 1000))
                    #expect(answer.status == 202)
                }
                let over = try await client.send("POST", "/api/logs", to: engine, body: records(bound..<bound + 3))
                let told = try JSONValue.parse(over.body)
                #expect(over.status == 202 && told["accepted"].int == 0 && told["rejected"].list.count == 1, "\(over.text)")
                let name = "correlation_requests_total{signal=\"api_logs\",encoding=\"json\",outcome="
                try await metric(client, engine, name + "\"partial\"}", 1)
                try await metric(client, engine, name + "\"accepted\"}", bound / 1000)
                client.close()
            }
        }
    }

    /// A request that is refused before a record of it was read counts as refused too.
    @Test func everyRefusedRequestIsCounted() async throws {
        try await withLoop { loop in
            try await withEngine([:]) { engine, _ in
                let client = HTTPClient(loop: loop)
                for (headers, body) in [
                    ([("Content-Type", "text/plain")], Self.log("a")), ([("Content-Encoding", "br")], Self.log("a")), ([], Array("{".utf8)),
                    ([("Content-Encoding", "gzip")], Self.log("a")), ([], Array("{}".utf8)),
                ] {
                    let answer = try await client.send("POST", "/api/logs", to: engine, headers: headers, body: body)
                    #expect((400..<500).contains(answer.status))
                }
                let taken = try await client.send("POST", "/api/logs", to: engine, body: Self.log("a"))
                #expect(taken.status == 202)
                func name(_ outcome: String) -> String {
                    "correlation_requests_total{signal=\"api_logs\",encoding=\"json\",outcome=\"\(outcome)\"}"
                }
                try await metric(client, engine, name("refused"), 5)
                try await metric(client, engine, name("accepted"), 1)
                try await metric(client, engine, name("unavailable"), 0)
                client.close()
            }
        }
    }

    // MARK: leases

    /// Taken and renewed within one millisecond of Redis' clock, a batch is still the holder's own; once another has it, it is not.
    @Test func aLeaseIsTheHoldersUntilAnotherHasIt() async throws {
        try await withRedis { redis in
            try await withLoop { loop in
                try await redis.withClient(loop) { client in
                    let make = { @Sendable (instance: String) in
                        var rule = CompletionRule()
                        rule.quiet = .milliseconds(1)
                        var limits = ExportLimits()
                        limits.lease = .milliseconds(150)
                        limits.correlations = 1
                        return RedisCorrelationStore(
                            redis: RedisOperations(client: client, metrics: MetricsRegistry()), prefix: "corr:", lifetime: .seconds(60),
                            instance: instance, rule: rule, targets: [.loki], exports: limits)
                    }
                    let first = try await loop.run { make("1") }, second = try await loop.run { make("2") }
                    for i in 0..<300 {
                        let body = Array(EngineAnswersTests.log("trace-\(i)"))
                        let delivery = try IngestParser(maximumAge: .seconds(86_400), window: .seconds(60)).parse(
                            JSONDocument(), body, now: .now
                        )
                        .delivery
                        _ = try await first.ingest(delivery)
                    }
                    var settled = 0
                    #expect(
                        try await eventually {
                            settled += try await first.settle().byQuiet
                            return settled == 300
                        })
                    let queue = first.exports(.loki), other = second.exports(.loki)
                    for _ in 0..<290 {
                        let batch = try #require(try await queue.take(1).first)
                        #expect(!batch.redelivered)
                        let renewed = try #require(try await queue.renew(batch))
                        let again = try #require(try await queue.renew(renewed))
                        try await queue.finish(again)
                    }
                    let held = try #require(try await queue.take(1).first)
                    try await Task.sleep(for: .milliseconds(200))
                    let taken = try #require(try await other.take(1).first)
                    #expect(taken.text == held.text && taken.redelivered)
                    #expect(try await queue.renew(held) == nil)
                    // Nor can it give back what is no longer its own.
                    try await queue.giveBack(held, left: held)
                    #expect(try await other.renew(taken) != nil)
                    try await other.finish(taken)
                    #expect(try await other.depth() == 9)
                }
            }
        }
    }

    /// Exports come within a second or two of completion, and not when a lease has run out.
    @Test func exportsDoNotWaitForTheirLease() async throws {
        try await withRedis { redis in
            try await withLoop { loop in
                let receiver = Receiver()
                try await withServer(loop, receiver.router(loop)) { peer in
                    let environment = [
                        "USE_REDIS_STATE": "true", "REDIS_URL": redis.url, "CORRELATION_QUIET_SECONDS": "0.1", "LOKI_URL": "http://\(peer)",
                    ]
                    try await withEngine(environment) { engine, _ in
                        let client = HTTPClient(loop: loop)
                        for i in 0..<150 {
                            _ = try await client.send("POST", "/api/logs", to: engine, body: Self.log("trace-\(i)"))
                            try await Task.sleep(for: .milliseconds(20))
                        }
                        // The lease is 60 s.
                        let sent = try await eventually(.seconds(10)) {
                            let page = try await client.send("GET", "/metrics", to: engine).text
                            return page.contains(#"correlation_exports_total{target="loki",outcome="sent"} 150"#)
                        }
                        let page = try await client.send("GET", "/metrics", to: engine).text
                        #expect(sent && page.contains(#"correlation_exports_total{target="loki",outcome="redelivered"} 0"#))
                        client.close()
                    }
                }
            }
        }
    }

    // MARK: targets

    private func withTarget(
        _ answer: @escaping @Sendable (Int) -> HTTPResponse, _ body: (HTTPClient, Endpoint, Tally) async throws -> Void
    ) async throws {
        try await withLoop { loop in
            let requests = Tally()
            var router = Router()
            router.post("/v1/traces") { _, _ in
                requests.add()
                return answer(requests.count)
            }
            try await withServer(loop, router) { peer in
                try await withEngine(["CORRELATION_QUIET_SECONDS": "0.1", "TEMPO_URL": "http://\(peer)"]) { engine, _ in
                    let client = HTTPClient(loop: loop)
                    let now = WallTime.now.milliseconds
                    let spans = (1...3).map {
                        #"{"traceId":"0101010101010101010101010101010\#($0)","spanId":"0000000000000001","#
                            + #""startTimeUnixNano":"\#(now)000000","endTimeUnixNano":"\#(now)000000"}"#
                    }
                    let request = #"{"resourceSpans":[{"scopeSpans":[{"spans":[\#(spans.joined(separator: ","))]}]}]}"#
                    let stored = try await client.send(
                        "POST", "/v1/traces", to: engine, headers: [("Content-Type", "application/json")], body: Array(request.utf8))
                    #expect(stored.status == 200 && stored.text == "{}")
                    try await body(client, engine, requests)
                    client.close()
                }
            }
        }
    }

    private func metric(
        _ client: HTTPClient, _ engine: Endpoint, _ name: String, _ value: Int, place: SourceLocation = #_sourceLocation
    ) async throws {
        let shown = try await eventually(.seconds(15)) {
            try await client.send("GET", "/metrics", to: engine).text.contains("\(name) \(value)\n")
        }
        #expect(shown, "\(name) is not \(value)", sourceLocation: place)
    }

    private static func outcome(_ name: String) -> String { "correlation_exports_total{target=\"tempo\",outcome=\"\(name)\"}" }
    private static let refused = "correlation_export_refused_records_total{target=\"tempo\"}"

    @Test(arguments: [100_000, 900_000, 8 << 20]) func aLongAnswerOf2xxIsTaken(size: Int) async throws {
        try await withTarget({ _ in HTTPResponse(body: .bytes(Array(repeating: 120, count: size))) }) { client, engine, requests in
            try await metric(client, engine, Self.outcome("sent"), 3)
            try await Task.sleep(for: .seconds(1))
            #expect(requests.count == 1)
            try await metric(client, engine, Self.outcome("retried"), 0)
        }
    }

    @Test func whatATargetSaysInItsBodyIsCounted() async throws {
        let some = OTLP.response(rejected: 2, message: "too large", .traces, json: false)
        try await withTarget({ _ in HTTPResponse(headers: [("Content-Type", "application/x-protobuf")], body: .bytes(some)) }) {
            client, engine, requests in
            try await metric(client, engine, Self.refused, 2)
            try await metric(client, engine, Self.outcome("sent"), 3)
            #expect(requests.count == 1)
        }
        try await withTarget({ _ in .json(Array(#"{"status":"error","error":"no tenant"}"#.utf8)) }) { client, engine, requests in
            try await metric(client, engine, Self.refused, 3)
            try await metric(client, engine, Self.outcome("rejected"), 3)
            try await metric(client, engine, Self.outcome("sent"), 0)
            #expect(requests.count == 1)
        }
    }

    /// `Retry-After` as a date is waited for: three seconds, where one's own patience were a fifth.
    @Test func aDateIsWaitedFor() async throws {
        let first = Mutex<MonotonicTime?>(nil), waited = Mutex<Duration?>(nil)
        try await withTarget({ number in
            if number > 1 {
                waited.withLock { waited in waited = waited ?? MonotonicTime.now - (first.withLock { $0 } ?? .now) }
                return HTTPResponse()
            }
            first.withLock { $0 = .now }
            let then = CalendarTime.render(WallTime(milliseconds: WallTime.now.milliseconds + 4000))
            let days = Array(then.utf8)
            func part(_ from: Int, _ count: Int) -> String { String(decoding: days[from..<from + count], as: UTF8.self) }
            let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
            let date = "Sun, \(part(8, 2)) \(months[(Int(part(5, 2)) ?? 1) - 1]) \(part(0, 4)) \(part(11, 8)) GMT"
            return HTTPResponse(status: 429, headers: [("Retry-After", date)])
        }) { client, engine, requests in
            try await metric(client, engine, Self.outcome("sent"), 3)
            let wait = waited.withLock { $0 } ?? .zero
            #expect(wait > .seconds(2) && wait < .seconds(8) && requests.count == 2, "\(wait.brief)")
        }
    }

    @Test func aTargetThatTakesNoGzipGetsNone() async throws {
        try await withLoop { loop in
            let plain = Tally()
            var router = Router()
            router.post("/v1/traces") { request, _ in
                if request.header("content-encoding") != nil { return HTTPResponse(status: 415) }
                plain.add()
                return HTTPResponse()
            }
            try await withServer(loop, router) { peer in
                try await withEngine(["CORRELATION_QUIET_SECONDS": "0.1", "TEMPO_URL": "http://\(peer)"]) { engine, _ in
                    let client = HTTPClient(loop: loop)
                    let now = WallTime.now.milliseconds
                    let span =
                        #"{"traceId":"01010101010101010101010101010101","spanId":"0000000000000001","#
                        + #""startTimeUnixNano":"\#(now)000000","endTimeUnixNano":"\#(now)000000","#
                        + #""name":"\#(String(repeating: "n", count: 3000))"}"#
                    _ = try await client.send(
                        "POST", "/v1/traces", to: engine, headers: [("Content-Type", "application/json")],
                        body: Array(#"{"resourceSpans":[{"scopeSpans":[{"spans":[\#(span)]}]}]}"#.utf8))
                    try await metric(client, engine, Self.outcome("sent"), 1)
                    #expect(plain.count == 1)
                    client.close()
                }
            }
        }
    }
}
