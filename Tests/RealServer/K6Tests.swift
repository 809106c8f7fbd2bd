import Basics
import EventLoops
import Glibc
import HTTP
import JSONCoding
import Synchronization
import TestSupport
import Testing

/// One scenario, run by `muster load` and, rendered, by the real k6, against the same server: both send the same, and both judge the same.
@Suite struct K6Tests {
    private static let k6 = "\(projectFolder)/.build/python/bin/k6"

    /// What a server has seen of one run.
    private struct Seen {
        var counts: [String: Int] = [:]
        var wrong: [String] = []
        var ids: Set<String> = []
        var total: Int { counts.values.reduce(0, +) }
    }

    /// A server with a page, a place for JSON and one path that fails each tenth time.
    private func withTarget(_ body: (_ port: UInt16, _ take: () -> Seen) async throws -> Void) async throws {
        let seen = Mutex(Seen())
        let odd = Tally()
        var router = Router()
        router.get("/page") { request, _ in
            let isRight = request.queryValue("q") == "it's \"quoted\" & <more>" && request.header("x-text") == "it's a \"text\" \\"
            seen.withLock { seen in
                seen.counts["page", default: 0] += 1
                if !isRight { seen.wrong.append("\(request.query) \(request.header("x-text") ?? "")") }
            }
            return .text("ok")
        }
        router.post("/items") { request, _ in
            let found: (id: String, n: Int?, line: String)? = try? JSONDocument().parse(request.body) { root in
                (root["id"]?.string ?? "", root["n"]?.int, root["line"]?.string ?? "")
            }
            let isRight = found?.id.utf8.count == 36 && found?.n != nil && found?.line == "one\ntwo `${x}` </script> ü"
            seen.withLock { seen in
                seen.counts["items", default: 0] += 1
                seen.ids.insert(found?.id ?? "")
                if !isRight { seen.wrong.append(String(decoding: request.body, as: UTF8.self)) }
            }
            return .text("ok", status: 201)
        }
        router.get("/odd") { _, _ in
            odd.add()
            seen.withLock { $0.counts["odd", default: 0] += 1 }
            return .text("x", status: odd.count % 10 == 0 ? 503 : 200)
        }
        try await withLoop { loop in
            try await withServer(loop, router) { endpoint in
                try await body(endpoint.testPort) {
                    seen.withLock { seen in
                        defer { seen = Seen() }
                        return seen
                    }
                }
            }
        }
    }

    private struct Outcome {
        let status: Int32
        let requests: Int
        let errorShare: Double
        let output: String
    }

    private func muster(_ file: String, _ folder: String) async throws -> Outcome {
        let (status, output) = try await run(builtProgram("muster"), ["load", file, "--json"], folder: folder)
        let line = output.split(separator: "\n").first { $0.hasPrefix("{") } ?? ""
        return try JSONDocument().parse(Array(line.utf8)) { root in
            Outcome(status: status, requests: root["ended"]?.int ?? -1, errorShare: root["error_share"]?.double ?? -1, output: output)
        }
    }

    private func k6(_ file: String, _ folder: String) async throws -> Outcome {
        try #require(Files.exists(Self.k6), "k6 is not installed; ./muster test installs it")
        let script = folder + "/script.js", summary = folder + "/summary.json"
        let rendered = try await run(builtProgram("muster"), ["load", file, "--render", "k6", "-o", script], folder: folder)
        #expect(rendered.status == 0 && rendered.output.isEmpty, "\(rendered.output)")
        let (status, output) = try await run(
            Self.k6, ["run", "--quiet", "--no-color", "--no-usage-report", "--address", "", "--summary-export", summary, script],
            environment: ["HOME": folder],
            folder: folder,
            limit: .seconds(90))
        let text = try Files.read(summary)
        return try JSONDocument().parse(text) { root in
            let metrics = root["metrics"]
            return Outcome(
                status: status, requests: metrics?["http_reqs"]?["count"]?.int ?? -1,
                errorShare: metrics?["http_req_failed"]?["value"]?.double ?? -1, output: output)
        }
    }

    private static func close(_ a: Int, _ b: Int, _ share: Double) -> Bool { Double(abs(a - b)) <= max(Double(max(a, b)) * share, 2) }

    @Test func bothSendTheSameAndBothAgree() async throws {
        try await withTarget { port, take in
            try await withFolder { folder in
                let file = folder + "/both.yaml"
                let text = """
                    target: http://127.0.0.1:\(port)
                    requests:
                      - get: "/page?q=it%27s%20%22quoted%22%20%26%20%3Cmore%3E"
                        weight: 3
                        headers: { X-Text: "it's a \\"text\\" \\\\" }
                      - post: /items
                        headers: { Content-Type: application/json }
                        body: "{\\"id\\":\\"{{uuid}}\\",\\"at\\":\\"{{now}}\\",\\"n\\":{{n}},\\"line\\":\\"one\\\\ntwo `${x}` </script> ü\\"}"
                    phases:
                      - { rate: 100/s, for: 3s }
                      - { ramp: 50/s..150/s, for: 2s }
                      - { users: 10, for: 3s, think: 100ms }
                    expect: [p95<2s, errors<1%, rate>10/s]
                    """
                try Files.replace(file, with: Array(text.utf8))
                let ours = try await muster(file, folder), atOurs = take()
                let theirs = try await k6(file, folder), atTheirs = take()
                #expect(ours.status == 0 && theirs.status == 0, "\(ours.output)\n\(theirs.output)")
                #expect(ours.requests == atOurs.total && theirs.requests == atTheirs.total)
                // 500 of the open phases; ten users who ask about every 100 ms.
                #expect(Self.close(ours.requests, theirs.requests, 0.06), "\(ours.requests) and \(theirs.requests)")
                #expect(atOurs.wrong.isEmpty && atTheirs.wrong.isEmpty, "\(atOurs.wrong.prefix(2)) \(atTheirs.wrong.prefix(2))")
                for seen in [atOurs, atTheirs] {
                    #expect(seen.ids.count == seen.counts["items"])
                    #expect(Self.close((seen.counts["items"] ?? 0) * 4, seen.total, 0.25), "\(seen.counts)")
                }
            }
        }
    }

    /// What k6 has rules about: each scenario is rendered into a script that the real k6 runs.
    @Test(arguments: [
        "{ rate: 20/s, for: 500ms }", "{ spike: 40/s, for: 100ms }", "{ users: 3, for: 999ms, think: 100ms }", "{ rate: 8/s, for: 1500ms }",
        "{ rate: 0.1/s, for: 1s }", "{ rate: 1/h, for: 1s }", "{ rate: 0.00001/h, for: 1s }", "{ rate: 3.1415926/min, for: 1s }",
        "{ ramp: 0/s..20/s, for: 500ms }", "{ ramp: 5..0, for: 500ms }", "{ ramp: 0..5, for: 1s }",
        "{ step: 1/s..2/s, steps: 7, for: 1s }", "{ step: 0..3, steps: 100, for: 100ms }", "{ rate: 10/s, for: 1000.4ms }",
    ])
    func aPhaseThatIsRenderedRuns(phase: String) async throws {
        try await withTarget { port, take in
            try await withFolder { folder in
                let file = folder + "/it's a \"name\".yaml"
                let text = """
                    target: http://127.0.0.1:\(port)
                    timeout: 1ms
                    requests:
                      - { get: "/page?a=%zz&b='\\"<!--", headers: { __proto__: "it's \\\\ \\u2028", "x'y": '"' } }
                      - { post: /items, body: "{{n}}{{n}}" }
                      - { post: "/items/{{n}}{{uuid}}", body: "" }
                    phases: [\(phase)]
                    expect: [errors<=100%, rate>=0.000001/h, errors>=0]
                    """
                try Files.replace(file, with: Array(text.utf8))
                let theirs = try await k6(file, folder)
                #expect(theirs.status == 0 || theirs.status == 99, "\(theirs.output)")
                #expect(!theirs.output.contains("level=error") || theirs.status == 99, "\(theirs.output)")
                _ = take()
            }
        }
    }

    /// What no script can say is refused with its line, and nothing is written.
    @Test func whatK6CannotIsToldWithItsLine() async throws {
        try await withFolder { folder in
            try Files.replace(folder + "/bytes", with: [255, 254] + Array("{{n}}".utf8))
            let text = """
                target: http://127.0.0.1:9
                requests:
                  - { get: / }
                  - { get: /50%/x }
                  - { post: /, body-file: bytes }
                phases:
                  - { rate: 5/s, for: 2s }
                  - { rate: 0.000000000000001/h, for: 2s }
                """
            try Files.replace(folder + "/s.yaml", with: Array(text.utf8))
            let (status, output) = try await run(
                builtProgram("muster"), ["load", folder + "/s.yaml", "--render", "k6", "-o", folder + "/out.js"], folder: folder)
            #expect(status == 2 && !Files.exists(folder + "/out.js"), "\(output)")
            for told in ["line 4: requests[1]: the path has a %", "line 5: requests[2].body: bytes", "line 8: phases[1]: "] {
                #expect(output.contains(told), "\(told) is missing: \(output)")
            }
        }
    }

    /// Open phases alone: the counts are the schedule's, in both.
    @Test func aScheduleIsTheSameToTheRequest() async throws {
        try await withTarget { port, take in
            try await withFolder { folder in
                let file = folder + "/open.yaml"
                let text = """
                    target: http://127.0.0.1:\(port)
                    requests: [{ get: /odd }]
                    phases: [{ rate: 50/s, for: 2s }, { step: 50/s..150/s, steps: 2, for: 2s }, { spike: 300/s, for: 1s }]
                    expect: errors<=15%
                    """
                try Files.replace(file, with: Array(text.utf8))
                let ours = try await muster(file, folder), atOurs = take()
                let theirs = try await k6(file, folder), atTheirs = take()
                #expect(ours.status == 0 && theirs.status == 0, "\(ours.output)\n\(theirs.output)")
                #expect(ours.requests == 600 && atOurs.total == 600)
                #expect(Self.close(theirs.requests, 600, 0.01) && atTheirs.total == theirs.requests, "\(theirs.requests)")
                #expect(abs(ours.errorShare - 0.1) < 0.01 && abs(theirs.errorShare - 0.1) < 0.01)
            }
        }
    }

    @Test(arguments: ["errors<5%", "p50<1us", "rate>1000/s"]) func whatDoesNotHoldFailsInBoth(expectation: String) async throws {
        try await withTarget { port, _ in
            try await withFolder { folder in
                let file = folder + "/failing.yaml"
                let text = """
                    target: http://127.0.0.1:\(port)
                    requests: [{ get: /odd }]
                    phases: [{ rate: 50/s, for: 2s }]
                    expect: [max<20s, \(expectation)]
                    """
                try Files.replace(file, with: Array(text.utf8))
                let ours = try await muster(file, folder), theirs = try await k6(file, folder)
                #expect(ours.status == 1 && ours.output.contains("\(expectation): "), "\(ours.output)")
                // 99: a threshold was crossed.
                #expect(theirs.status == 99, "\(theirs.output)")
            }
        }
    }
}
