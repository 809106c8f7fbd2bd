import Basics
import Compression
import EventLoops
import Glibc
import HTTP
import JSONCoding
import OpenTelemetry
import ProtobufCoding
import Synchronization
import TestSupport
import Testing

/// Takes what an engine exports, as Loki and Tempo would.
final class Receiver: Sendable {
    let bodies = Mutex<[(path: String, body: [UInt8])]>([])
    /// What the next requests meet instead of an answer; afterwards all goes well.
    let script = Mutex<[Behaviour]>([])
    /// Bodies with this text are refused for good.
    let poison = Mutex<String?>(nil)

    enum Behaviour: Sendable { case status(Int, retryAfter: Int? = nil), slow(Duration), dies }

    func router(_ loop: EventLoop) -> Router {
        var router = Router()
        for path in ["/loki/api/v1/push", "/v1/traces"] { router.post(path) { request, _ in try await self.answer(request, loop) } }
        return router
    }

    private func answer(_ request: HTTPRequest, _ loop: EventLoop) async throws -> HTTPResponse {
        switch script.withLock({ $0.isEmpty ? nil : $0.removeFirst() }) {
        case .status(let status, let wait)?: return HTTPResponse(status: status, headers: wait.map { [("Retry-After", String($0))] } ?? [])
        case .slow(let time)?: await loop.sleep(time)
        // The head, and then the connection is gone.
        case .dies?: return HTTPResponse(body: .stream { _ in throw APIError(500, "dies", "dies") })
        case nil: break
        }
        let body = request.header("content-encoding") == "gzip" ? try Gzip.unpack(request.body, limit: 64 << 20) : request.body
        if let text = poison.withLock({ $0 }), String(decoding: body, as: UTF8.self).contains(text) { return HTTPResponse(status: 400) }
        bodies.withLock { $0.append((request.path, body)) }
        return HTTPResponse(status: 204)
    }

    /// How often each span (by its id) and each log (by its own id) arrived.
    func arrived() throws -> (spans: [String: Int], logs: [String: Int]) {
        var spans: [String: Int] = [:], logs: [String: Int] = [:]
        for (path, body) in bodies.withLock({ $0 }) {
            if path == "/v1/traces" {
                try body.withUnsafeBytes { bytes in
                    try OTLP.visit(bytes, .traces) { (_, record) throws(ProtobufFailure) in
                        spans[hexText(try OTLP.Span(record).spanID), default: 0] += 1
                    }
                }
            } else {
                try JSONDocument().parse(body) { root in
                    for stream in root["streams"]?.array ?? [] {
                        for value in stream["values"]?.array ?? [] {
                            logs[value.array?[2]["log_record_uid"]?.string ?? "", default: 0] += 1
                        }
                    }
                }
            }
        }
        return (spans, logs)
    }
}

/// The engine alone, as a process.
func withEngine<T>(_ environment: [String: String], _ body: (Endpoint, Child) async throws -> T) async throws -> T {
    try await withFolder { folder in
        let port = TestPorts.server()
        let engine = try Child(
            builtProgram("correlation-engine"), [], environment: environment.merging(["PORT": "\(port)", "LOG_LEVEL": "error"]) { $1 },
            log: folder + "/log")
        let result: Result<T, any Error>
        do {
            _ = await eventually { (try? RawSocket(port: port)) != nil }
            result = .success(try await body(.address(.loopback(port: port)), engine))
        } catch { result = .failure(error) }
        engine.send(SIGTERM)
        if await engine.end() == nil { await engine.destroy() }
        return try result.get()
    }
}

/// Scripts of Tests/Python, with the packages that `./muster test` installed.
func python(_ script: String, _ arguments: [String]) async throws -> (status: Int32, output: String) {
    try await run(
        try systemProgram("python3"), ["\(projectFolder)/Tests/Python/\(script)"] + arguments,
        environment: ["PYTHONPATH": "\(projectFolder)/.build/python"],
        limit: .seconds(120))
}

@Suite struct OpenTelemetryTests {
    /// The published message classes write; we read.
    @Test func readsWhatThePublishedClassesWrite() async throws {
        try await withFolder { folder in
            let (status, output) = try await python("make_bodies.py", [folder])
            #expect(status == 0, "\(output)")
            var cases = 0
            for number in 1...99 {
                let name = number < 10 ? "0\(number)" : "\(number)"
                guard let expected = try? Files.read("\(folder)/expected-\(name).json") else { continue }
                cases += 1
                for signal in [OTLP.Signal.traces, .logs] {
                    let wanted = try JSONDocument().parse(expected) { root in
                        (root[signal == .traces ? "spans" : "logs"]?.array ?? []).map { OpenTelemetryTests.wanted($0, signal) }
                    }
                    let binary = try Files.read("\(folder)/\(signal.rawValue)-\(name).bin")
                    #expect(try OpenTelemetryTests.read(binary, signal) == wanted, "\(signal) \(name).bin")
                    let json = try Files.read("\(folder)/\(signal.rawValue)-\(name).json")
                    #expect(
                        try OpenTelemetryTests.read(try OTLP.protobuf(json, signal, JSONDocument()), signal) == wanted,
                        "\(signal) \(name).json")
                }
            }
            #expect(cases >= 12)
        }
    }

    private static func wanted(_ record: JSONElement, _ signal: OTLP.Signal) -> [String] {
        func text(_ name: StaticString) -> String { record[name]?.string ?? record[name]?.int.map(String.init) ?? "" }
        return signal == .traces
            ? [
                text("service"), text("trace_id"), text("span_id"), text("parent_span_id"), text("name"), text("kind"), text("start"),
                text("end"), text("status_code"),
                text("attribute_count"), text("event_count"), text("link_count"),
            ] : [text("service"), text("trace_id"), text("span_id"), text("severity_number"), text("time"), text("attribute_count")]
    }

    private static func read(_ body: [UInt8], _ signal: OTLP.Signal) throws -> [[String]] {
        var out: [[String]] = []
        func count(_ record: UnsafeRawBufferPointer, _ number: Int) throws(ProtobufFailure) -> String {
            var reader = ProtobufReader(record)
            var count = 0
            while let field = try reader.next() { if field.number == number { count += 1 } }
            return String(count)
        }
        try body.withUnsafeBytes { bytes in
            try OTLP.visit(bytes, signal) { (around, record) throws(ProtobufFailure) in
                try OTLP.schema.check(record, as: signal.record)
                let service = try OTLP.Resource(around.resource).service
                if signal == .traces {
                    let span = try OTLP.Span(record)
                    out.append([
                        service, hexText(span.traceID), hexText(span.spanID), hexText(span.parentID), span.name.string, String(span.kind),
                        String(span.start),
                        String(span.end), String(span.status), try count(record, 9), try count(record, 11), try count(record, 13),
                    ])
                } else {
                    let log = try OTLP.LogRecord(record)
                    out.append([
                        service, hexText(log.traceID), hexText(log.spanID), String(log.severityNumber),
                        String(log.time != 0 ? log.time : log.observed),
                        try count(record, 6),
                    ])
                }
            }
        }
        return out
    }

    /// The official SDK for Python sends, unchanged; its traces and logs come out joined, and what is exported passes the published
    /// classes.
    @Test(arguments: ["gzip", "none"]) func theOfficialSDKsTracesAndLogsComeOutJoined(compression: String) async throws {
        try await withLoop { loop in
            let receiver = Receiver()
            try await withServer(loop, receiver.router(loop)) { peer in
                let url = "http://\(peer)"
                try await withEngine(["CORRELATION_QUIET_SECONDS": "0.5", "LOKI_URL": url, "TEMPO_URL": url]) { engine, _ in
                    let (status, output) = try await python(
                        "sdk_sender.py", ["http://\(engine)", "--traces", "9", "--compression", compression])
                    #expect(status == 0, "\(output)")
                    let client = HTTPClient(loop: loop)
                    var failed = 0
                    let sent = try JSONDocument().parse(Array((output.split(separator: "\n").last ?? "").utf8)) { root in
                        (root["traces"]?.array ?? []).map {
                            (
                                id: $0["trace_id"]?.string ?? "", services: $0["services"]?.array?.compactMap(\.string) ?? [],
                                spans: $0["spans"]?.int ?? 0,
                                logs: $0["logs"]?.int ?? 0, error: $0["error"]?.bool ?? false, root: $0["root"]?.string ?? ""
                            )
                        }
                    }
                    #expect(sent.count == 9)
                    for trace in sent {
                        let answer = try await client.send("GET", "/api/correlations/t-\(trace.id)", to: engine)
                        try JSONDocument().parse(answer.body) { root in
                            #expect(root["services"]?.array?.compactMap(\.string) == trace.services)
                            #expect(root["span_count"]?.int == trace.spans && root["log_count"]?.int == trace.logs)
                            #expect(root["status"]?.string == (trace.error ? "error" : "ok") && root["root"]?["name"]?.string == trace.root)
                            #expect((root["critical_error"]?.isNull == false) == trace.error)
                        }
                        if trace.error { failed += 1 }
                    }
                    #expect(failed == 3)
                    let spans = sent.reduce(0) { $0 + $1.spans }
                    #expect(try await eventually { try receiver.arrived().spans.count == spans })
                    client.close()
                }
                try await withFolder { folder in
                    for (i, entry) in receiver.bodies.withLock({ $0 }).enumerated() {
                        try Files.replace("\(folder)/\(entry.path == "/v1/traces" ? "tempo-\(i).bin" : "loki-\(i).json")", with: entry.body)
                    }
                    let (status, output) = try await python("check_bodies.py", [folder])
                    #expect(status == 0, "\(output)")
                }
            }
        }
    }

    /// Over HTTP: content types, encodings, partial success, failures in the request's own form.
    @Test func answersAsTheSpecificationHasIt() async throws {
        try await withLoop { loop in
            try await withEngine([:]) { engine, _ in
                let client = HTTPClient(loop: loop)
                func post(_ path: String, _ type: String?, _ body: [UInt8], _ encoding: String? = nil) async throws -> HTTPClientResponse {
                    let headers = (type.map { [("Content-Type", $0)] } ?? []) + (encoding.map { [("Content-Encoding", $0)] } ?? [])
                    return try await client.send("POST", path, to: engine, headers: headers, body: body)
                }
                let json = "application/json", protobuf = "application/x-protobuf"
                var answer = try await post("/v1/traces", protobuf, [])
                #expect(answer.status == 200 && answer.body.isEmpty && answer.header("content-type") == protobuf)
                answer = try await post("/v1/logs", json + "; charset=utf-8", Array("{}".utf8))
                #expect(answer.status == 200 && answer.text == "{}" && answer.header("content-type") == json)
                let wrong = #"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"01","spanId":"02"}]}]}]}"#
                answer = try await post("/v1/traces", json, Array(wrong.utf8))
                #expect(
                    answer.status == 200 && answer.text.contains(#""rejectedSpans":"1","errorMessage":"span 0: traceId must be 16 bytes"#),
                    "\(answer.text)")
                for (type, body, encoding, status) in [
                    (protobuf, [10], nil, 400), (json, Array("{".utf8), nil, 400), ("text/plain", [], nil, 415), (nil, [], nil, 415),
                    (protobuf, [], "br", 415),
                    (protobuf, [1, 2, 3], "gzip", 400), (protobuf, Gzip.pack(Array(repeating: 0, count: 64 << 20)), "gzip", 413),
                ] as [(String?, [UInt8], String?, Int)] {
                    answer = try await post("/v1/traces", type, body, encoding)
                    #expect(answer.status == status && !answer.body.isEmpty, "\(type ?? "-") \(encoding ?? "-"): \(answer.status)")
                }
                // Still there, and everything counted.
                let ledger = try await client.send("GET", "/api/ledger", to: engine)
                #expect(
                    ledger.text.hasPrefix(
                        #"{"received":1,"correlated":0,"pending":0,"expired":0,"rejected":1,"duplicate":0,"imbalance":0}"#),
                    "\(ledger.text)")
                client.close()
            }
        }
    }

    /// A target that nobody is at: the breaker opens, and the engine tells why, and stays ready.
    @Test func aTargetThatIsAwayIsTold() async throws {
        try await withLoop { loop in
            let port = TestPorts.server()
            try await withEngine(["CORRELATION_QUIET_SECONDS": "0.1", "LOKI_URL": "http://127.0.0.1:\(port)"]) { engine, _ in
                let client = HTTPClient(loop: loop)
                let body =
                    #"{"resource":{"service":"s"},"records":[{"timestamp":"\#(CalendarTime.render(.now))","severity":"INFO","message":"m"}]}"#
                #expect(try await client.send("POST", "/api/logs", to: engine, body: Array(body.utf8)).status == 202)
                let told = try await eventually(.seconds(20)) {
                    let why = try await client.send("GET", "/api/why", to: engine).text
                    return why.contains(#""subject":"correlation-engine/loki""#) && why.contains("failed 5 times in a row")
                }
                #expect(told)
                let ready = try await client.send("GET", "/health/ready", to: engine)
                #expect(ready.status == 200 && ready.text.contains(#""exporters":"away: loki""#), "\(ready.text)")
                client.close()
            }
        }
    }

    @Test func newOnesAreStreamed() async throws {
        try await withLoop { loop in
            try await withEngine(["CORRELATION_QUIET_SECONDS": "0.2"]) { engine, _ in
                let client = HTTPClient(loop: loop)
                func log(_ trace: String, _ service: String) async throws {
                    let body =
                        #"{"resource":{"service":"\#(service)"},"records":[{"timestamp":"\#(CalendarTime.render(.now))","severity":"INFO","message":"m","trace_id":"\#(trace)"}]}"#
                    #expect(try await client.send("POST", "/api/logs", to: engine, body: Array(body.utf8)).status == 202)
                }
                // A blocking reader, off the loop.
                let reader = Task.detached {
                    let socket = try RawSocket(port: engine.testPort)
                    socket.send("GET /api/correlations/stream?service=wanted HTTP/1.1\r\nHost: x\r\n\r\n")
                    return socket.receive { $0.contains("t-second") && $0.contains("id: 0-3") }
                }
                try await Task.sleep(for: .milliseconds(300))
                try await log("first", "wanted")
                try await log("other", "unwanted")
                try await Task.sleep(for: .milliseconds(600))
                try await log("second", "wanted")
                let text = try await reader.value
                #expect(
                    text.contains("text/event-stream") && text.contains("event: correlation\ndata: {") && text.contains("id: 0-")
                        && text.contains(#""id":"t-first""#),
                    "\(text)")
                #expect(!text.contains("t-other"))
                let bad = try await client.send("GET", "/api/correlations/stream", to: engine, headers: [("Last-Event-ID", "x")])
                #expect(bad.status == 400)
                client.close()
            }
        }
    }
}
