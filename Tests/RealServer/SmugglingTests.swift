import Basics
import EventLoops
import Glibc
import TestSupport
import Testing

/// Each case of the table goes through a real gateway to a real nginx, which writes down every request that it understood as one.
/// The cases come from addresses of their own: what nginx saw is put down to the connection that it came in on, whatever it says of itself.
@Suite struct SmugglingTests {
    /// The fields of nginx's log beyond those that it has for every request: its name here and its name there.
    private static let fields = [
        ("connection", "connection"), ("upgrade", "upgrade"), ("expect", "expect"), ("te", "te"), ("trailer", "trailer"),
        ("keep-alive", "keep_alive"),
        ("proxy-connection", "proxy_connection"), ("proxy-authorization", "proxy_authorization"), ("http2-settings", "http2_settings"),
        ("forwarded", "forwarded"), ("forwarded-port", "x_forwarded_port"), ("forwarded-for", "x_forwarded_for"),
        ("forwarded-host", "x_forwarded_host"),
        ("forwarded-proto", "x_forwarded_proto"), ("id", "x_request_id"),
        ("cookie", "cookie"), ("authorization", "authorization"), ("content-type", "content_type"), ("key", "idempotency_key"),
        ("probe", "x_probe"),
        ("override", "x_http_method_override"),
    ]

    /// Hop-by-hop fields (RFC 9110, 7.6.1), which no backend may see.
    private static let hopByHop = [
        "connection", "upgrade", "expect", "te", "trailer", "keep-alive", "proxy-connection", "proxy-authorization",
    ]

    private typealias Row = [String: String]

    /// What came back for a case: final statuses, how many of them the gateway gave by itself, and whether it ended the connection.
    private struct Answer {
        let statuses: [Int]
        let own: Int
        let ended: Bool
    }

    @Test func whatReachesTheBackendIsWhatTheTableSays() async throws {
        let cases = try SmugglingTable.read(projectFolder + "/Tests/RealServer/Smuggling/cases.txt")
        #expect(cases.count >= 150 && Set(cases.map(\.name)).count == cases.count)
        try await withFolder { folder in
            let nginx = TestPorts.server(), gateway = TestPorts.server()
            try Files.replace(folder + "/nginx.conf", with: Array(configuration(folder, nginx).utf8))
            try Files.replace(folder + "/gateway.yaml", with: Array(declaration(gateway, admin: TestPorts.server(), nginx).utf8))
            let children = [
                try Child(
                    try systemProgram("nginx"), ["-e", folder + "/error.log", "-c", folder + "/nginx.conf"], log: folder + "/nginx.out",
                    folder: folder),
                try Child(builtProgram("muster"), ["gateway", folder + "/gateway.yaml"], log: folder + "/gateway.out", folder: folder),
            ]
            let result: Result<[String], any Error>
            do { result = .success(try await wrong(cases, gateway, nginx, folder)) } catch { result = .failure(error) }
            for child in children { await child.destroy() }
            let wrong = try result.get()
            if !wrong.isEmpty { Issue.record("\(wrong.count) wrong with \(cases.count) cases:\n\(wrong.joined(separator: "\n"))") }
        }
    }

    /// The outer server reads and records; that it passes requests on makes it read their bodies whole.
    private func configuration(_ folder: String, _ port: UInt16) -> String {
        let more = Self.fields.map { "\\t\($0.0)=$http_\($0.1)" }.joined()
        let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map { "\($0)_temp_path \(folder)/\($0);" }.joined(separator: " ")
        return """
            daemon off;
            master_process off;
            pid \(folder)/nginx.pid;
            events { worker_connections 1024; }
            http {
                \(places)
                client_header_buffer_size 64k;
                large_client_header_buffers 4 64k;
                client_body_buffer_size 128k;
                client_body_in_single_buffer on;
                log_format seen "source=$http_x_real_ip\\tstatus=$status\\trequest=$request\\turi=$uri\\thost=$http_host"
                    "\\tlength=$http_content_length\\tcoding=$http_transfer_encoding\\tbody=$request_body\(more)";
                server {
                    listen 127.0.0.1:\(port);
                    access_log \(folder)/seen.log seen;
                    location / { proxy_pass http://unix:\(folder)/inner.sock; }
                }
                server {
                    listen unix:\(folder)/inner.sock;
                    access_log off;
                    location / { return 200; }
                }
            }
            """
    }

    private func declaration(_ port: UInt16, admin: UInt16, _ nginx: UInt16) -> String {
        """
        gateway:
          http2: false  # The cases are HTTP/1's: the preface of HTTP/2 is a wrong request there.
          listen: 127.0.0.1:\(port)
          admin: 127.0.0.1:\(admin)
          access-log: false
          routes:
            - { path: /, deny: [/denied], body: 64Ki, backends: ["127.0.0.1:\(nginx)"] }
            - { path: /open, backends: ["127.0.0.1:\(nginx)"] }
            - { path: /small, body: 1Ki, backends: ["127.0.0.1:\(nginx)"] }
        """
    }

    /// What is wrong, a line for each case.
    private func wrong(_ cases: [SmugglingCase], _ gateway: UInt16, _ nginx: UInt16, _ folder: String) async throws -> [String] {
        for port in [nginx, gateway] {
            let isUp = await eventually { (try? RawSocket(port: port)) != nil }
            try #require(isUp, "\(Files.text(folder + "/nginx.out") ?? "") \(Files.text(folder + "/gateway.out") ?? "")")
        }
        var answers: [Answer] = []
        for (index, one) in cases.enumerated() { answers.append(try play(one, from: Self.source(index), gateway)) }
        // nginx has one thread and writes without a buffer: when this line is there, so are all before it.
        let last = try RawSocket(port: gateway)
        last.send("GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        _ = last.receive()
        let isWhole = await eventually {
            Files.text(folder + "/seen.log")?.contains("source=127.0.0.1\tstatus=200\trequest=GET /last HTTP/1.1\t") ?? false
        }
        try #require(isWhole)
        var rows = Dictionary(grouping: Self.rows(try Files.read(folder + "/seen.log")), by: { $0["source"] ?? "" })
        rows["127.0.0.1"] = nil
        var wrong: [String] = []
        for (index, one) in cases.enumerated() {
            let source = Self.text(Self.source(index))
            let complaints = Self.judge(one, answers[index], rows.removeValue(forKey: source) ?? [], source)
            if !complaints.isEmpty { wrong.append("\(one.category): \(one.name): \(complaints.joined(separator: "; "))") }
        }
        // What nginx refused before it had read the fields: something that two parsers read differently was passed on.
        for row in rows.values.joined() {
            wrong.append("nginx answered \(row["status"] ?? "") to '\(row["request"] ?? "")' of source \(row["source"] ?? "")")
        }
        return wrong
    }

    /// Sends a case. Where the gateway has to end the connection by itself, it is waited for; else the client says that it has sent
    /// everything.
    private func play(_ one: SmugglingCase, from source: UInt32, _ port: UInt16) throws -> Answer {
        let socket = try RawSocket(port: port, timeout: 3, source: source)
        socket.send(one.bytes)
        if !one.endsByItself { socket.finishSending() }
        let expected = one.statuses
        let answer = socket.receive {
            let got = Self.statuses($0)
            return one.endsByItself && (got.count > expected.count || got != Array(expected.prefix(got.count)))
        }
        return Answer(
            statuses: Self.statuses(answer), own: answer.split(separator: "{\"error\":{\"code\":").count - 1, ended: socket.peerEnded)
    }

    private static func judge(_ one: SmugglingCase, _ answer: Answer, _ rows: [Row], _ source: String) -> [String] {
        var complaints: [String] = []
        let isAnswered = answer.statuses == one.statuses
        if !isAnswered { complaints.append("answered \(answer.statuses), not \(one.statuses)") }
        if answer.own != one.own { complaints.append("\(answer.own) of the answers are the gateway's own, not \(one.own)") }
        // With other answers than those, its end was not waited for.
        if isAnswered, !answer.ended { complaints.append("the connection was not ended") }
        if rows.count != one.seen.count {
            complaints.append(
                "\(rows.count) requests reached the backend, not \(one.seen.count): \(rows.map { $0["request"]?.prefix(60) ?? "" })")
        }
        for (seen, row) in zip(one.seen, rows) {
            var wanted = ["request": logged(seen.line), "status": "200"]
            for (name, value) in seen.fields {
                wanted[name] = logged(value).replacing("{source}", with: source)
            }
            for (name, value) in wanted.sorted(by: { $0.key < $1.key }) where row[name] != value {
                complaints.append("\(name) '\(row[name]?.prefix(80) ?? "")', not '\(value.prefix(80))'")
            }
            complaints += canonical(row, source)
        }
        return complaints
    }

    /// What holds for everything that is passed on.
    private static func canonical(_ row: Row, _ source: String) -> [String] {
        var complaints: [String] = []
        let parts = (row["request"] ?? "").split(separator: " ", omittingEmptySubsequences: false)
        if parts.count != 3 || parts[2] != "HTTP/1.1" || !parts[1].hasPrefix("/") { complaints.append("the request line is not canonical") }
        // Passed on whole, as the route allows it: nothing is a tunnel before the backend has said 101.
        let asksForWebSocket = row["upgrade"] == "websocket" && row["connection"] == "Upgrade"
        for name in hopByHop where row[name] != "-" && !(asksForWebSocket && ["upgrade", "connection"].contains(name)) {
            complaints.append("\(name) was passed on")
        }
        if row["coding"] != "-", row["coding"] != "chunked" { complaints.append("the coding is not canonical") }
        if row["coding"] != "-", row["length"] != "-" { complaints.append("both framings were passed on") }
        let path = row["forwarded-for"] ?? ""
        if path != source, !path.hasSuffix(", " + source) { complaints.append("X-Forwarded-For does not end with the client") }
        let served = row["uri"] ?? ""
        if served == "/denied" || served.hasPrefix("/denied/") { complaints.append("the backend served \(served)") }
        return complaints
    }

    /// The final statuses among what the gateway sent.
    private static func statuses(_ answer: String) -> [Int] {
        answer.utf8.split(separator: 10).compactMap { line in
            guard line.starts(with: "HTTP/1.1 ".utf8), line.count > 12, let status = Int(Substring(line.dropFirst(9).prefix(3))),
                status >= 200
            else { return nil }
            return status
        }
    }

    private static func rows(_ log: [UInt8]) -> [Row] {
        log.split(separator: 10).map { line in
            var row: Row = [:]
            for field in line.split(separator: 9) {
                let parts = field.split(separator: 61, maxSplits: 1, omittingEmptySubsequences: false)
                let value = parts.count == 2 ? String(decoding: parts[1], as: UTF8.self) : ""
                row[String(decoding: parts[0], as: UTF8.self)] = value.isEmpty ? "-" : value
            }
            return row
        }
    }

    /// As nginx writes bytes into its log.
    private static func logged(_ bytes: [UInt8]) -> String {
        bytes.map { byte in
            if byte >= 32, byte < 127, byte != 34, byte != 92 { return String(UnicodeScalar(byte)) }
            let hex = String(byte, radix: 16, uppercase: true)
            return "\\x" + (byte < 16 ? "0" : "") + hex
        }.joined()
    }

    /// Of 127.1.0.0/16, one for each case.
    private static func source(_ index: Int) -> UInt32 { 0x7F01_0000 + UInt32(index / 250) << 8 + UInt32(index % 250 + 1) }
    private static func text(_ address: UInt32) -> String { "127.1.\(address >> 8 & 255).\(address & 255)" }
}
