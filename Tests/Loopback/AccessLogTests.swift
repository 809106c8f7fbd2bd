import Basics
import EventLoops
import Gateway
import Glibc
import Observability
import TestSupport
import Testing

/// Each field of the access log, for requests that have it, that have nothing in it, and for those that never were requests.
@Suite struct AccessLogTests {
    /// The lines that these bytes leave in a log of this form, one connection each.
    private func lines(_ format: String, _ texts: [String], keys: [String] = []) async throws -> [String] {
        var out: [String] = []
        try await withNamed("a") { port in
            out = try await withFolder { folder in
                let file = open(folder + "/log", O_WRONLY | O_CREAT | O_APPEND, 0o600)
                let spec = try gatewaySpec(["{ path: /, backends: [127.0.0.1:\(port)] }"], keys: ["access-log: \(format)"] + keys)
                let logger = Logger(level: .error, format: .text, descriptor: 2, immediate: true)
                let gateway = try Gateway(spec, metrics: MetricsRegistry(), journal: Journal(), logger: logger, accessLog: file)
                try await gateway.apply(spec) { _ in [] }
                try await gateway.listen(on: .loopback(port: 0))
                for text in texts {
                    let client = try RawPeer(port: gateway.address!.port!)
                    client.send(text)
                    _ = client.readToEnd()
                }
                _ = await gateway.drain(grace: .seconds(1))
                func read() -> [String] { (Files.text(folder + "/log") ?? "").split(separator: "\n").map(String.init) }
                _ = await eventually(.seconds(2)) { read().count >= texts.count }
                gateway.stop()
                close(file)
                return read()
            }
        }
        return out
    }

    private static let form = "'$host|$user_agent|$trace_id|$held_ms|$upstream_ms|$method|$uri|$route|$replica|$tries|$status'"

    @Test func whatIsUnknownIsADash() async throws {
        let lines = try await lines(
            Self.form,
            [
                "GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\nHost: h\r\nUser-Agent:\r\n\r\n", "GET / HTTP/1.0\r\nUser-Agent:  \t \r\n\r\n",
            ])
        #expect(lines.allSatisfy { $0.hasSuffix("|200") }, "\(lines)")
        let starts = lines.map { $0.split(separator: "|", omittingEmptySubsequences: false).prefix(4).joined(separator: "|") }
        #expect(starts == ["-|-|-|-", "h|-|-|-", "-|-|-|-"])
        #expect(lines.allSatisfy { !$0.contains("||") && $0.contains("|GET|/|/|127.0.0.1:") })
    }

    /// Malformed, too large, of no known version, turned away: each has a line.
    @Test func whatNeverWasARequestHasALine() async throws {
        let refused = [
            ("GET /\r\n\r\n", "400"), ("GET / HTTP/1.1\r\n\r\n", "400"), ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", "505"),
            ("GET /\(String(repeating: "a", count: 9000)) HTTP/1.1\r\n", "414"),
            ("GET / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n", "417"),
            ("GET / HTTP/1.1\r\nHost: a\r\nA: \(String(repeating: "a", count: 40_000))\r\n\r\n", "431"),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "501"), ("\u{16}\u{3}\u{1}\n", "400"),
        ]
        let lines = try await lines(Self.form, refused.map(\.0))
        #expect(lines == refused.map { "-|-|-|-|-|-|-|-|-|0|\($0.1)" })
        let text = try await self.lines("true", ["GET /\r\n\r\n"])
        #expect(text.count == 1 && text[0].contains(" 127.0.0.1 \"- -\" 400 ") && text[0].hasSuffix(" id=-"), "\(text)")
        let json = try await self.lines("json", ["GET /\r\n\r\n"])
        #expect(json.count == 1 && json[0].contains("\"host\":\"-\"") && json[0].contains("\"status\":400"), "\(json)")
    }

    /// A refused message after a good one on the same loop has nothing of the good one in its line.
    @Test(arguments: ["true", "json", "'$method|$uri|$request_id|$status'"]) func aRefusalAfterARequestIsItsOwn(form: String) async throws {
        let good = "GET /secret HTTP/1.1\r\nHost: a\r\n\r\n"
        let lines = try await lines(form, [good + "GET /\r\n\r\n", "GET /\r\n\r\n"])
        #expect(lines.count == 3 && lines[0].contains("/secret"), "\(lines)")
        #expect(lines.dropFirst().allSatisfy { $0.contains("400") && !$0.contains("secret") }, "\(lines)")
    }

    /// A body that turns out malformed belongs to a request, which has one line.
    /// Nor does it count the good one's tries.
    @Test func aRefusalAfterARequestCountsNoTries() async throws {
        let lines = try await lines("'$tries|$held_ms|$replica|$status'", ["GET / HTTP/1.0\r\n\r\n", "GET /\r\n\r\n"])
        #expect(lines.count == 2 && lines[0].hasPrefix("1|-|127.0.0.1:") && lines[0].hasSuffix("|200"), "\(lines)")
        #expect(lines.last == "0|-|-|400", "\(lines)")
    }

    @Test func aBodyThatIsMalformedHasOneLine() async throws {
        let lines = try await lines(
            "'$method|$uri|$status'", ["POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"])
        #expect(lines == ["POST|/x|400"])
    }
}
