import Basics
import EventLoops
import Glibc
import JSONCoding
import OpenTelemetry
import ProtobufCoding
import Synchronization
import TestSupport
import Testing

/// What the gateway writes down and tells of its requests.
@Suite struct GatewayRecordsTests {
    private static func route(_ backend: RawBackend, _ path: String = "/") -> String {
        "{ path: \(path), backends: [127.0.0.1:\(backend.port)] }"
    }

    /// The lines of a log once there are so many.
    private func lines(_ path: String, _ count: Int) async throws -> [Substring] {
        let areThere = await eventually { (Files.text(path) ?? "").split(separator: "\n").count >= count }
        try #require(areThere, "\(Files.text(path) ?? "nothing")")
        return (Files.text(path) ?? "").split(separator: "\n")
    }

    /// The heads that a backend of the test's own has got; it answers each with an empty 200.
    private final class Heads: Sendable {
        private let all = Mutex<[String]>([])
        var seen: [String] { all.withLock { $0 } }

        func keep(_ peer: RawPeer) {
            while true {
                let head = peer.head()
                guard head.contains("HTTP/1.1\r\n") else { return }
                all.withLock { $0.append(head) }
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            }
        }
    }

    // MARK: access log

    private func askPlainly(_ gateway: GatewayProcess) throws {
        let client = try RawPeer(port: gateway.port)
        for target in ["/plain", "/a\"b\\c?d=\"", "/nowhere/%22"] {
            client.send("GET \(target) HTTP/1.1\r\nHost: host.example\r\nUser-Agent: agent \"x\" \\ \u{e9}\r\nX-Request-Id: id-1\r\n\r\n")
            _ = client.answer()
        }
    }

    @Test func eachLineOfTheTextLogParses() async throws {
        try await withPlainBackend { backend in
            try await withGatewayProcess([Self.route(backend, "/plain")], more: ["access-log: true"]) { gateway in
                try askPlainly(gateway)
                #expect(await gateway.logged(" 404 ", times: 1))
                let lines = gateway.log.split(separator: "\n").filter { $0.contains(" tries=") }
                #expect(lines.count >= 2)
                for line in lines {
                    // The one text in quotes has no quote inside.
                    let parts = line.split(separator: "\"", omittingEmptySubsequences: false)
                    #expect(parts.count == 3, "\(line)")
                    let words = parts[2].split(separator: " ")
                    #expect(
                        words.count == 6 && Int(words[0]) != nil && Int(words[1]) != nil && words[3].hasPrefix("total=")
                            && words[5] == "id=id-1", "\(line)")
                }
            }
        }
    }

    /// The log was moved away and a new one is asked for, while something in the file is wrong: the log is a new one all the same.
    @Test func aWrongFileDoesNotKeepTheLog() async throws {
        try await withPlainBackend { backend in
            let more = ["access-log: { format: json, file: FOLDER/access.log }"]
            try await withGatewayProcess([Self.route(backend, "/plain")], more: more) { gateway in
                let log = gateway.folder + "/access.log"
                try askPlainly(gateway)
                let before = try await lines(log, 3).count
                try gateway.write(["{ path: /, bakends: [a:1] }"])
                #expect(rename(log, log + ".1") == 0)
                gateway.child.send(SIGHUP)
                #expect(await gateway.logged("reload_failed"))
                try askPlainly(gateway)
                #expect(try await lines(log, 3).count == 3)
                #expect((Files.text(log + ".1") ?? "").split(separator: "\n").count == before)
            }
        }
    }

    @Test func eachLineOfTheJSONLogParses() async throws {
        try await withPlainBackend { backend in
            let more = ["access-log: { format: json, file: FOLDER/access.log }"]
            try await withGatewayProcess([Self.route(backend, "/plain")], more: more) { gateway in
                try askPlainly(gateway)
                let accepted = try await lines(gateway.folder + "/access.log", 2)
                var statuses: [Int] = []
                for line in accepted {
                    try JSONDocument().parse(Array(line.utf8)) { root in
                        statuses.append(root["status"]?.int ?? 0)
                        #expect(
                            root["host"]?.string == "host.example" && root["request_id"]?.string == "id-1"
                                && root["remote_addr"]?.string == "127.0.0.1")
                        #expect(root["user_agent"]?.string?.hasPrefix("agent \"x\" \\ ") == true && root["duration_ms"]?.double != nil)
                        if statuses.last == 200 {
                            #expect(root["replica"]?.string == "127.0.0.1:\(backend.port)" && root["upstream_ms"]?.double != nil)
                        }
                    }
                }
                #expect(statuses.first == 200 && statuses.contains(404))
            }
        }
    }

    @Test func aLogOfOnesOwnFormat() async throws {
        try await withPlainBackend { backend in
            let more = [
                "access-log: { format: \"$status|$method|$uri|$host|$route|$tries|$trace_id|$user_agent\", file: FOLDER/access.log }"
            ]
            try await withGatewayProcess([Self.route(backend, "/plain")], more: more) { gateway in
                try askPlainly(gateway)
                let lines = try await lines(gateway.folder + "/access.log", 2)
                #expect(lines[0].hasPrefix("200|GET|/plain|host.example|/plain|1|-|agent %22x%22 \\ "), "\(lines[0])")
                for line in lines {
                    #expect(line.split(separator: "|", omittingEmptySubsequences: false).count == 8 && !line.contains("\""), "\(line)")
                }
            }
        }
    }

    // MARK: traces

    private struct Span: Sendable, Equatable {
        let trace: String, span: String, parent: String, name: String, kind: Int, status: String
    }

    /// Takes export requests and decodes them; answers with `status`.
    private func withReceiver(_ body: (RawBackend, _ spans: @escaping @Sendable () -> [Span]) async throws -> Void) async throws {
        let spans = Mutex<[Span]>([])
        try await withRaw({ peer, _ in
            while true {
                let head = peer.head()
                guard head.hasPrefix("POST /v1/traces HTTP/1.1\r\n") else { return }
                var length = 0
                for line in head.split(separator: "\r\n") where line.lowercased().hasPrefix("content-length:") {
                    length = Int(line.dropFirst(15).filter(\.isNumber)) ?? 0
                }
                let decoded = Self.decode(peer.read(length))
                spans.withLock { $0 += decoded }
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            }
        }) { receiver in try await body(receiver) { spans.withLock { $0 } } }
    }

    private static func decode(_ body: [UInt8]) -> [Span] {
        func hex(_ bytes: UnsafeRawBufferPointer) -> String { bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() }
        var out: [Span] = []
        body.withUnsafeBytes { bytes in
            try? OTLP.visit(bytes, .traces) { (around, record) throws(ProtobufFailure) in
                let span = try OTLP.Span(record)
                var status = ""
                try OTLP.forEachAttribute(record, field: 9) { (key, value) throws(ProtobufFailure) in
                    if key.string == "http.response.status_code" { status = OTLP.text(value) }
                }
                let resource = try OTLP.Resource(around.resource)
                guard resource.service == "muster-gateway" else { return }
                out.append(
                    Span(
                        trace: hex(span.traceID), span: hex(span.spanID), parent: hex(span.parentID), name: span.name.string,
                        kind: span.kind, status: status))
            }
        }
        return out
    }

    private static let id = "0af7651916cd43dd8448eb211c80319c"

    /// A client's trace goes on with the gateway's span between; what is malformed begins a new one.
    @Test func tracesAreContinuedAndStarted() async throws {
        let heads = Heads()
        try await withRaw({ peer, _ in heads.keep(peer) }) { backend in
            try await withReceiver { receiver, spans in
                let more = ["access-log: false", "tracing: { otlp: \"http://127.0.0.1:\(receiver.port)/v1/traces\", sample: 100% }"]
                try await withGatewayProcess([Self.route(backend)], more: more) { gateway in
                    let state = ("tracestate", "vendor=1")
                    let given = [
                        "00-\(Self.id)-b7ad6b7169203331-01", "00-\(Self.id)-b7ad6b7169203331-00",
                        "00-\(Self.id.uppercased())-b7ad6b7169203331-01", nil,
                    ]
                    for parent in given { _ = try await gateway.send(headers: parent.map { [("traceparent", $0), state] } ?? [state]) }
                    let areThere = await eventually { spans().count >= 3 }
                    let seen = heads.seen.map { head in
                        head.split(separator: "\r\n").filter { $0.lowercased().hasPrefix("trace") }.map(String.init)
                    }
                    try #require(areThere && seen.count == 4, "\(spans()) \(seen)")
                    for fields in seen { #expect(fields.filter { $0.hasPrefix("traceparent:") }.count == 1) }
                    func parent(_ i: Int) -> [Substring] {
                        seen[i].first { $0.hasPrefix("traceparent:") }!.dropFirst(13).split(separator: "-")
                    }
                    #expect(
                        parent(0)[1] == Self.id && parent(0)[2] != "b7ad6b7169203331" && parent(0)[3] == "01"
                            && seen[0].contains("tracestate: vendor=1"))
                    // The client does not record it, so neither do we.
                    #expect(parent(1)[1] == Self.id && parent(1)[3] == "00")
                    // Without a valid parent what is said of its state means nothing.
                    for i in 2...3 {
                        #expect(
                            parent(i)[1] != Self.id && parent(i)[3] == "01" && !seen[i].contains { $0.hasPrefix("tracestate") },
                            "\(seen[i])")
                    }
                    let recorded = spans()
                    #expect(recorded.count == 3)
                    let first = try #require(recorded.first { $0.trace == Self.id })
                    #expect(
                        first.parent == "b7ad6b7169203331" && first.span == String(parent(0)[2]) && first.name == "GET /" && first.kind == 2
                            && first.status == "200")
                    #expect(recorded.filter { $0.trace != Self.id }.allSatisfy { $0.parent.isEmpty })
                }
            }
        }
    }

    /// What was asked right before the end is told, too.
    @Test func theLastSpansAreSent() async throws {
        try await withPlainBackend { backend in
            try await withReceiver { receiver, spans in
                let more = ["access-log: false", "tracing: { otlp: \"http://127.0.0.1:\(receiver.port)/v1/traces\", sample: 100% }"]
                try await withGatewayProcess([Self.route(backend)], more: more) { gateway in
                    for _ in 0..<3 { _ = try await gateway.send() }
                    gateway.client.close()
                    gateway.child.send(SIGTERM)
                    let code = await gateway.child.end()
                    let areThere = await eventually { spans().count == 3 }
                    #expect(code == 0 && areThere, "\(spans().count)")
                }
            }
        }
    }

    /// Nobody takes the spans: they are dropped and counted, and requests do not notice.
    @Test func withoutATargetSpansAreDropped() async throws {
        let dead = TestPorts.server()
        try await withPlainBackend { backend in
            let more = ["access-log: false", "tracing: { otlp: \"http://127.0.0.1:\(dead)\", sample: 100% }"]
            try await withGatewayProcess([Self.route(backend)], more: more) { gateway in
                for _ in 0..<20 { _ = try await gateway.send() }
                let isCounted = try await eventually {
                    try await gateway.ask("/metrics").text.contains("gateway_spans_total{outcome=\"dropped\"} 20")
                }
                #expect(isCounted)
                let answer = try await gateway.send()
                #expect(answer.text == "ok")
            }
        }
    }

    // MARK: statistics

    /// As HAProxy's exporter reads it: columns by name, as many in every line.
    @Test func statisticsInHAProxysForm() async throws {
        let dead = TestPorts.server()
        try await withPlainBackend { backend in
            let routes = [
                "{ path: /, balance: round-robin, probe: { interval: 50ms }, backends: [127.0.0.1:\(backend.port), 127.0.0.1:\(dead)] }",
                "{ path: /fixed, answer: { body: x } }",
            ]
            try await withGatewayProcess(routes, more: ["access-log: false", "admin-token-file: FOLDER/token"]) { gateway in
                let isDown = try await eventually { try await gateway.ask("/stats;csv").text.contains(",DOWN,") }
                for _ in 0..<5 { _ = try await gateway.send() }
                _ = try await gateway.send("/fixed")
                _ = try await eventually {
                    try await gateway.ask("/metrics").text.contains("gateway_requests_total{route=\"/fixed\",status=\"2xx\"} 1")
                }
                let text = try await gateway.ask("/stats;csv").text
                let lines = text.split(separator: "\n")
                #expect(isDown && lines[0].hasPrefix("# pxname,svname,qcur,qmax,scur,"))
                let names = lines[0].dropFirst(2).split(separator: ",", omittingEmptySubsequences: false).map(String.init)
                var rows: [[String: String]] = []
                for line in lines.dropFirst() {
                    let values = line.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
                    #expect(values.count == names.count, "\(line)")
                    rows.append(Dictionary(zip(names, values), uniquingKeysWith: { first, _ in first }))
                }
                func row(_ proxy: String, _ server: String) throws -> [String: String] {
                    try #require(rows.first { $0["pxname"] == proxy && $0["svname"] == server }, "\(text)")
                }
                #expect(rows.count == 6)
                let front = try row("/", "FRONTEND"), back = try row("/", "BACKEND"), fixed = try row("/fixed", "FRONTEND")
                #expect(front["status"] == "OPEN" && front["type"] == "0" && front["hrsp_2xx"] == "5" && fixed["hrsp_2xx"] == "1")
                #expect(back["status"] == "UP" && back["act"] == "1" && back["type"] == "1")
                let up = try row("/", "127.0.0.1:\(backend.port)"), down = try row("/", "127.0.0.1:\(dead)")
                #expect(up["status"] == "UP" && down["status"] == "DOWN" && up["stot"] == "5" && up["type"] == "2" && up["weight"] == "1")
                for row in rows {
                    for name in ["scur", "stot", "bin", "bout", "type", "iid", "sid", "pid"] {
                        #expect(row[name].flatMap { Int($0) } != nil, "\(name) \(row)")
                    }
                }
                let out = try await gateway.ask(
                    "/api/replicas?name=127.0.0.1:\(backend.port)&state=disabled", "POST",
                    headers: [("Authorization", "Bearer a-token-of-the-tests")])
                let after = try await gateway.ask("/stats;csv").text
                #expect(out.status == 200 && after.contains(",MAINT,"))
            }
        }
    }

    /// The page of metrics is what Prometheus reads, and what clients say does not become a label.
    @Test func metricsAreWellFormedAndBounded() async throws {
        try await withPlainBackend { backend in
            try await withGatewayProcess([Self.route(backend, "/a"), "{ path: /q, headers: { x-key: 'va\"l\\ue' }, answer: { body: x } }"])
            { gateway in
                for i in 0..<30 {
                    _ = try await gateway.send("/a/\(i)?x=\(i)", headers: [("Host", "host\(i).example"), ("User-Agent", "agent\(i)")])
                }
                for i in 0..<10 { _ = try await gateway.send("/unknown\(i)") }
                // A request is counted right after its answer has left.
                let isCounted = try await eventually {
                    let page = try await gateway.ask("/metrics").text
                    return page.contains("gateway_requests_total{route=\"/a\",status=\"2xx\"} 30")
                        && page.contains("gateway_unrouted_total 10")
                }
                let page = try await gateway.ask("/metrics")
                #expect(isCounted && page.status == 200)
                #expect(!page.text.contains("host1") && !page.text.contains("unknown") && !page.text.contains("agent"))
                let before = page.text.split(separator: "\n").count
                for i in 0..<30 { _ = try await gateway.send("/a/more\(i)") }
                let after = try await gateway.ask("/metrics").text.split(separator: "\n").count
                #expect(before == after)
                try Files.replace(gateway.folder + "/page", with: page.body)
                let checked = try await run(
                    "/bin/sh", ["-c", "if command -v promtool > /dev/null; then promtool check metrics < \(gateway.folder)/page; fi"])
                #expect(checked.status == 0, "\(checked.output)")
            }
        }
    }

    // MARK: explanations

    @Test func requestsAreExplainedToWhoeverMayKnow() async throws {
        let heads = Heads()
        try await withRaw({ peer, _ in heads.keep(peer) }) { backend in
            try await withGatewayProcess([Self.route(backend)], more: ["access-log: false", "admin-token-file: FOLDER/token"]) { gateway in
                let told = try await gateway.send(headers: [("X-Muster-Explain", "a-token-of-the-tests"), ("X-Request-Id", "known")])
                let why = told.header("x-muster-why") ?? ""
                for part in ["route=/;", "replica=127.0.0.1:\(backend.port);", "balance=least-connections;", "reason=fewest", "tries=1"] {
                    #expect(why.contains(part), "\(why)")
                }
                for wrong in ["", "wrong", "1", "a-token-of-the-test"] {
                    let answer = try await gateway.send(headers: [("X-Muster-Explain", wrong)])
                    #expect(answer.status == 200 && answer.header("x-muster-why") == nil)
                }
                let seen = heads.seen
                #expect(seen.count == 5 && seen.allSatisfy { !$0.lowercased().contains("x-muster") })
                let found = try await gateway.ask("/api/requests/known"), missing = try await gateway.ask("/api/requests/unknown")
                #expect(
                    found.status == 200 && found.text.contains("Request known went to 127.0.0.1:\(backend.port)") && missing.status == 404)
            }
            // Without a token there is nothing that anybody could say.
            try await withGatewayProcess([Self.route(backend)]) { gateway in
                let answer = try await gateway.send(headers: [("X-Muster-Explain", "")])
                #expect(answer.status == 200 && answer.header("x-muster-why") == nil)
            }
        }
    }

    // MARK: a browser

    /// A page in a real browser talks with a real WebSocket server through the gateway.
    @Test func aBrowserSpeaksWebSocketThroughTheGateway() async throws {
        let server = """
            import base64, hashlib, socket, struct, sys, threading
            page = b'''<!doctype html><p id=p>waiting</p><img src=/wait><script>
            const s = new WebSocket("ws://" + location.host + "/socket"), big = "x".repeat(70000);
            s.onopen = () => { s.send("hello"); s.send(big); };
            let seen = [];
            s.onmessage = e => { seen.push(e.data); if (seen.length == 2) s.close(1000); };
            s.onclose = e => { document.getElementById("p").textContent = "echo " + seen[0] + " " + (seen[1] === big) + " " + e.code; fetch("/done"); };
            </script>'''
            done = threading.Event()
            def read(f, n):
                d = f.read(n)
                if len(d) < n: raise EOFError
                return d
            def serve(c):
                f = c.makefile("rb")
                try:
                    while True:
                        head = b""
                        while not head.endswith(b"\\r\\n\\r\\n"): head += read(f, 1)
                        fields = {l.split(b":", 1)[0].lower(): l.split(b":", 1)[1].strip() for l in head.split(b"\\r\\n")[1:] if b":" in l}
                        if b"sec-websocket-key" in fields: break
                        # The page is loaded, and looked at, when it has said that it is done.
                        if head.startswith(b"GET /done "): done.set()
                        if head.startswith(b"GET /wait "): done.wait(20)
                        c.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Type: text/html\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(page) + page)
                    key = base64.b64encode(hashlib.sha1(fields[b"sec-websocket-key"] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
                    c.sendall(b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Accept: " + key + b"\\r\\n\\r\\n")
                    while True:
                        a, b = read(f, 2)
                        n = b & 127
                        if n == 126: n = struct.unpack(">H", read(f, 2))[0]
                        elif n == 127: n = struct.unpack(">Q", read(f, 8))[0]
                        mask = read(f, 4)
                        data = bytes(x ^ mask[i % 4] for i, x in enumerate(read(f, n)))
                        size = bytes([n]) if n < 126 else b"\\x7e" + struct.pack(">H", n) if n < 65536 else b"\\x7f" + struct.pack(">Q", n)
                        c.sendall(bytes([a]) + size + data)
                        if a & 15 == 8: return
                except (EOFError, OSError): pass
                finally: c.close()
            l = socket.create_server(("127.0.0.1", int(sys.argv[1])))
            print("ready", flush=True)
            while True: threading.Thread(target=serve, args=(l.accept()[0],), daemon=True).start()
            """
        try await withFolder { folder in
            let port = TestPorts.server()
            let echo = try Child(try systemProgram("python3"), ["-c", server, "\(port)"], log: folder + "/echo.out")
            let isReady = await eventually { echo.output.contains("ready") }
            let result: Result<Void, any Error>
            do {
                try #require(isReady, "\(echo.output)")
                try await withGatewayProcess(["{ path: /, backends: [127.0.0.1:\(port)] }"]) { gateway in
                    let (status, dom) = try await run(
                        try systemProgram("chromium"),
                        [
                            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                            "--user-data-dir=\(folder)/chromium",
                            "--dump-dom", "http://127.0.0.1:\(gateway.port)/",
                        ])
                    #expect(status == 0 && dom.contains("echo hello true 1000"), "\(dom.suffix(600))")
                    let isOver = try await eventually { try await gateway.ask("/metrics").text.contains("gateway_tunnels{route=\"/\"} 0") }
                    #expect(isOver)
                }
                result = .success(())
            } catch { result = .failure(error) }
            await echo.destroy()
            try result.get()
        }
    }
}
