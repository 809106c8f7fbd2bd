import Basics
import EventLoops
import Glibc
import HTTP
import JSONCoding
import TestSupport
import Testing

/// `muster load` as a user has it: what it prints where, and how it ends.
@Suite struct LoadVerbTests {
    private func withTarget(_ body: (_ port: UInt16, _ folder: String, _ served: Tally) async throws -> Void) async throws {
        let served = Tally()
        var router = Router()
        router.get("/page") { _, _ in
            served.add()
            return .text("ok")
        }
        try await withLoop { loop in
            try await withServer(loop, router) { endpoint in
                try await withFolder { folder in try await body(endpoint.testPort, folder, served) }
            }
        }
    }

    private func muster(_ arguments: [String], _ folder: String) async throws -> (status: Int32, output: String) {
        try await run(builtProgram("muster"), ["load"] + arguments, folder: folder)
    }

    @Test func aURLAloneIsEnough() async throws {
        try await withTarget { port, folder, served in
            let url = "http://127.0.0.1:\(port)/page"
            let (status, output) = try await muster([url, "--rate", "100/s", "--for", "2s", "--expect", "p95<1s,errors<=0"], folder)
            #expect(status == 0 && served.count == 200, "\(output)")
            for text in [
                "200 requests in ", "0 errors (0%)", "from when it was due", "from when it was sent", "answers  200: 200",
                "holds  p95<1s: ",
            ] {
                #expect(output.contains(text), "\(text) is missing: \(output)")
            }
            let closed = try await muster([url, "--users", "5", "--for", "1s", "--think", "100ms"], folder)
            #expect(
                closed.status == 0 && closed.output.contains("not corrected") && !closed.output.contains("from when it was sent"),
                "\(closed.output)")
        }
    }

    @Test func whatDoesNotHoldIsNamed() async throws {
        try await withTarget { port, folder, _ in
            let (status, output) = try await muster(
                ["http://127.0.0.1:\(port)/nowhere", "--rate", "50/s", "--for", "1s", "--expect", "p95<1s,errors<1%,max<1us"], folder)
            #expect(status == 1)
            #expect(
                output.contains("FAILS  errors<1%: 100% measured") && output.contains("FAILS  max<1us: ")
                    && output.contains("holds  p95<1s: "), "\(output)")
            #expect(output.contains("muster load: errors<1%: 100% measured, which it is not") && output.contains("first error  status 404"))
        }
    }

    @Test func theWholeResultAsJSON() async throws {
        try await withTarget { port, folder, _ in
            let text = """
                load: whole
                target: http://127.0.0.1:\(port)
                requests: [{ get: /page }]
                phases: [{ rate: 50/s, for: 2s }, { ramp: 0..10, for: 2s, think: 100ms }]
                expect: errors<=0
                """
            try Files.replace(folder + "/s.yaml", with: Array(text.utf8))
            let (status, output) = try await muster(["s.yaml", "--json"], folder)
            #expect(status == 0, "\(output)")
            let line = try #require(output.split(separator: "\n").first { $0.hasPrefix("{") })
            try JSONDocument().parse(Array(line.utf8)) { root in
                #expect(root["load"]?.string == "whole" && root["model"]?.string == "open and closed" && root["holds"]?.bool == true)
                #expect((root["ended"]?.int ?? 0) > 110 && root["ended"]?.int == root["sent"]?.int && root["errors"]?.int == 0)
                let timeline = root["timeline"]?.array ?? []
                #expect(timeline.count >= 3 && timeline[0]["ended"]?.int ?? 0 >= 45 && timeline[2]["users"]?.int ?? 0 > 0)
                let response = root["response_ms"]?["p99.9"]?.double, service = root["service_ms"]?["p50"]?.double,
                    delay = root["delay_ms"]?["max"]?.double
                #expect(response != nil && service != nil && delay != nil)
                #expect(root["failures"]?["timeout"]?.int == 0 && root["statuses"]?["200"]?.int == root["ended"]?.int)
            }
            // Another target and other expectations than the file's.
            let other = try await muster(
                ["s.yaml", "--target", "http://127.0.0.1:\(TestPorts.server())", "--expect", "rate>1/s"], folder)
            #expect(
                other.status == 1 && other.output.contains("no request was answered") && other.output.contains("connect: "),
                "\(other.output)")
        }
    }

    @Test func anInterruptGivesTheResultSoFar() async throws {
        try await withTarget { port, folder, served in
            let child = try Child(
                builtProgram("muster"), ["load", "http://127.0.0.1:\(port)/page", "--rate", "100/s", "--for", "10m"], log: folder + "/out",
                folder: folder)
            let isUnderWay = await eventually { served.count > 50 }
            child.send(SIGINT)
            let status = await child.end()
            if status == nil { await child.destroy() }
            #expect(isUnderWay && status == 0)
            #expect(child.output.contains("; ended early") && child.output.contains("answers  200: \(served.count)\n"), "\(child.output)")
        }
    }

    @Test(arguments: [
        (["http://192.0.2.1/", "--rate", "1/s", "--for", "1s"], "is not this machine"),
        (["http://example.org/", "--rate", "1/s", "--for", "1s"], "say --anywhere if it is meant"),
        (["https://127.0.0.1/", "--rate", "1/s", "--for", "1s"], "speaks http:// only"),
        (["http://127.0.0.1/", "--rate", "1/s"], "for how long?"),
        (["http://127.0.0.1/", "--for", "1s"], "give one of --rate and --users"),
        (["http://127.0.0.1/", "--for", "1s", "--rate", "5"], "--rate: expected a rate up to 100000/s"),
        (["http://127.0.0.1/", "--for", "1s", "--users", "0"], "--users: expected a number from 1 to 50000"),
        (
            ["http://127.0.0.1/", "--for", "1s", "--rate", "5/s", "--expect", "p95<1"],
            "--expect 'p95<1' at character 5: p95: expected a time"
        ),
        (["http://127.0.0.1/", "--for", "1s", "--rate", "5/s", "--render", "jmeter"], "expected k6"),
        (["missing.yaml"], "missing.yaml: No such file"),
        (["wrong.yaml"], "wrong.yaml:1:1: unknown key 'request' in the scenario; did you mean 'requests'?"),
        (["wrong.yaml", "--rate", "5/s"], "--rate is for a URL"),
        ([], "what? A scenario or a URL"),
    ])
    func whatIsWrongIsStatusTwo(arguments: [String], sentence: String) async throws {
        try await withFolder { folder in
            try Files.replace(folder + "/wrong.yaml", with: Array("request: []\nphases: []\n".utf8))
            let (status, output) = try await muster(arguments, folder)
            #expect(status == 2 && output.contains(sentence), "\(output)")
        }
    }
}
