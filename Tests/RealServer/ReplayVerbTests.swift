import Basics
import EventLoops
import Glibc
import HTTP
import JSONCoding
import TestSupport
import Testing

/// `muster replay` as a program: tables, journals, and a real Prometheus whose past is written with its own promtool.
@Suite struct ReplayVerbTests {
    private static let stack = """
        stack: replayed
        services:
          api:
            command: api
            replicas: 1..10
            resources: { cpu: 500m }
            scale:
              metrics: [{ cpu: 50% }]
        """

    /// Runs the verb in a folder that holds the stack. What it says on standard error is part of the output.
    private func replay(_ folder: String, _ arguments: [String]) async throws -> (status: Int32, output: String) {
        try Files.replace(folder + "/muster.yaml", with: Array(Self.stack.utf8))
        try Files.replace(folder + "/wide.yaml", with: Array(Self.stack.replacing("1..10", with: "4..10").utf8))
        // A build for tests computes slowly, and others compute beside it.
        return try await run(builtProgram("muster"), ["replay"] + arguments, folder: folder, limit: .seconds(240))
    }

    private struct Figures {
        let replicaHours: [Double]
        let overloadMinutes: [Double]
        let cheaper: String?
        let steps: Int
        let peak: Double
    }

    private func figures(_ output: String) throws -> Figures {
        try JSONDocument().parse(Array(output.utf8)) { root in
            let service = try #require(root["services"]?.array?.first, "\(output)")
            let policies = service["policies"]?.array ?? []
            return Figures(
                replicaHours: policies.compactMap { $0["replica_hours"]?.double },
                overloadMinutes: policies.compactMap { $0["overload_minutes"]?.double },
                cheaper: service["comparison"]?["cheaper"]?.string, steps: service["steps"]?.int ?? 0,
                peak: service["metrics"]?.array?.first?["peak"]?.double ?? -1)
        }
    }

    /// Tables as other tools write them, and as nobody does. Each ends soon, with a replay or with a sentence, and never with a trap.
    @Test(
        arguments: [
            // microseconds, nanoseconds, before 1970, no time at all
            ("1795231800000000,api,cpu,1\n", Int32(2), "lies after the year 9999"),
            ("1795231800000000000,api,cpu,1\n", 2, "no microseconds"),
            ("1e18,api,cpu,1\n", 2, "lies after the year 9999"), ("1e308,api,cpu,1\n", 2, "lies after the year 9999"),
            ("-5,api,cpu,1\n", 2, "is no time"), ("nan,api,cpu,1\n", 2, "is no time"), ("inf,api,cpu,1\n", 2, "lies after the year 9999"),
            ("2026-11-21 08:00:00,api,cpu,1\n", 2, "is no time as RFC 3339 writes it"),
            // gaps of years: two units in one table, a year of two digits
            ("1000,api,cpu,1\n1795231800,api,cpu,1\n", 2, "is a time written in another unit?"),
            ("0001-01-01T00:00:00Z,api,cpu,1\n0900-01-01T00:00:00Z,api,cpu,1\n", 2, "years, and at most 100 are replayed"),
            ("0001-01-01T00:00:00Z,api,cpu,1\n9999-12-31T23:59:59Z,api,cpu,1\n", 2, "years, and at most 100 are replayed"),
            // in order or not, twice, with offsets
            ("1030,api,cpu,1\n1015,api,cpu,1\n1000,api,cpu,1\n", 0, "put in order"),
            ("1000,api,cpu,1\n1000,api,cpu,2\n1000,api,cpu,3\n", 0, "the same time comes again"),
            ("2026-11-21T09:00:00+01:00,api,cpu,1\n2026-11-21T08:00:15Z,api,cpu,1\n", 0, "replica-hours"),
            // values at the ends of what a double can be
            ("1000,api,cpu,1.7e308\n1015,api,cpu,1e308\n", 0, "replica-hours"),
            ("1000,api,cpu,1e-320\n1015,api,cpu,0\n", 0, "replica-hours"),
            ("1000,api,cpu,1e999\n1015,api,cpu,1\n", 0, "no finite numbers"), ("1000,api,cpu,-0\n1015,api,cpu,1\n", 0, "replica-hours"),
            ("1000,api,cpu,1\n1000,api,replicas,1e300\n1015,api,cpu,1\n", 0, "replica-hours"),
            ("1000,api,cpu,1e200\n1000,api,cpu,1\n1015,api,cpu_percent,1e308\n", 2, "in percent and in figures"),
            ("1000,api,cpu_total,1e308\n1015,api,cpu_total,0\n1030,api,cpu_total,1.7e308\n", 0, "replica-hours"),
        ] as [(String, Int32, String)])
    func aTableOfAnotherToolIsReplayedOrRefused(rows: String, status: Int32, told: String) async throws {
        try await withFolder { folder in
            try Files.replace(folder + "/t.csv", with: Array(("time,service,metric,value\n" + rows).utf8))
            for more in [[], ["--json"], ["--report", "r.html"]] {
                let outcome = try await replay(folder, ["t.csv", "--policy", "muster.yaml"] + more)
                #expect(outcome.status == status, "\(outcome.output)")
                if more.isEmpty { #expect(outcome.output.contains(told), "\(outcome.output)") }
            }
        }
    }

    /// Too much work is refused before it is begun, or when it has become too much.
    @Test func workWithoutEndIsRefused() async throws {
        try await withFolder { folder in
            // Ten million steps of an hour are more nanoseconds than there are; of a second, of 4,000 replicas, more than anybody waits for.
            let far = "time,service,metric,value\n0,api,cpu,1\n630720000,api,cpu,1\n"
            try Files.replace(folder + "/far.csv", with: Array(far.utf8))
            let hourly = try await replay(folder, ["far.csv", "--policy", "muster.yaml", "--step", "1h"])
            #expect(hourly.status == 0, "\(hourly.output)")
            let zero = try await replay(folder, ["far.csv", "--policy", "muster.yaml", "--step", "0s"])
            #expect(zero.status == 2 && zero.output.contains("--step: '0s' is not from 1s to 1h"), "\(zero.output)")
            let metrics = (0..<2000).map { "0,api,m\($0),1\n90000,api,m\($0),1\n" }.joined()
            try Files.replace(folder + "/wide.csv", with: Array(("time,service,metric,value\n" + metrics).utf8))
            let wide = try await replay(folder, ["wide.csv", "--policy", "muster.yaml", "--step", "1s"])
            #expect(wide.status == 2 && wide.output.contains("2000 metrics at 90001 steps"), "\(wide.output)")
            let replicas = (0..<3000).map { "0,api,cpu,1,\($0)\n400000,api,cpu,1,\($0)\n" }.joined()
            try Files.replace(folder + "/many.csv", with: Array(("time,service,metric,value,replica\n" + replicas).utf8))
            let many = try await replay(folder, ["many.csv", "--policy", "muster.yaml", "--step", "1s"])
            #expect(many.status == 2 && many.output.contains("figures of replicas would be laid on"), "\(many.output)")
            let early = try await replay(
                folder,
                [
                    "--prometheus", "127.0.0.1:1", "--query", "cpu=up", "--from", "1900-01-01T00:00:00Z", "--to", "10", "--policy",
                    "muster.yaml",
                ])
            #expect(early.status == 2 && early.output.contains("are replayed: take a longer --step"), "\(early.output)")
        }
    }

    /// An hour of 0.2 cores: one replica of 500m at 50 % carries it, four are declared in the other file.
    @Test func aTableUnderTwoPolicies() async throws {
        try await withFolder { folder in
            let rows = (0..<240).map { "\(1_794_787_200 + $0 * 15),api,cpu,0.2\n" }.joined()
            try Files.replace(folder + "/day.csv", with: Array(("time,service,metric,value\n" + rows).utf8))
            let json = try await replay(folder, ["day.csv", "--policy", "muster.yaml", "--against", "wide.yaml", "--json"])
            #expect(json.status == 0, "\(json.output)")
            let found = try figures(json.output)
            #expect(
                found.steps == 240 && found.replicaHours == [1, 4] && found.overloadMinutes == [0, 0] && found.cheaper == "muster.yaml")
            let text = try await replay(
                folder, ["day.csv", "--policy", "muster.yaml", "--against", "wide.yaml", "--report", "r.html", "--svg", "r.svg"])
            #expect(text.status == 0 && text.output.contains("muster.yaml is cheaper by 3.0 replica-hours (75 %) and as safe"))
            #expect(!text.output.contains("\u{1B}"))
            #expect(Files.text(folder + "/r.html")?.hasPrefix("<!doctype html>") ?? false)
            #expect(Files.text(folder + "/r.svg")?.hasPrefix("<?xml") ?? false)
            let explained = try await replay(folder, ["day.csv", "--policy", "muster.yaml", "--explain", "2026-11-16T00:30:00Z"])
            #expect(
                explained.status == 0
                    && explained.output.contains("api stays at 1 replica: cpu is 40 % of the request against a target of 50 %"),
                "\(explained.output)")
        }
    }

    @Test func whatIsWrongIsToldAndStatusIsTwo() async throws {
        try await withFolder { folder in
            try Files.replace(folder + "/day.csv", with: Array("time,service,metric,value\n1000,api,cpu,x\n".utf8))
            try Files.replace(folder + "/other.csv", with: Array("time,service,metric,value\n1000,web,cpu,1\n".utf8))
            try Files.replace(folder + "/requests.csv", with: Array("time,service,metric,value\n1000,api,requests,1\n".utf8))
            for (arguments, message) in [
                (["day.csv"], "which policy?"), (["day.csv", "--policy", "muster.yaml"], "day.csv: line 2: 'x' is no number"),
                (["none.csv", "--policy", "muster.yaml"], "open none.csv: No such file or directory"),
                (["--policy", "muster.yaml"], "what is to be replayed?"),
                (["other.csv", "--policy", "muster.yaml"], "the recording knows of web, and muster.yaml scales api: nothing is in both"),
                (
                    ["requests.csv", "--policy", "muster.yaml"],
                    "muster.yaml scales api by cpu, and of these nothing is recorded: the recording has requests"
                ),
                (["requests.csv", "--policy", "muster.yaml", "--capacity", "cpu"], "is not METRIC=AMOUNT"),
                (["--prometheus", "https://x", "--query", "cpu=up", "--from", "1d", "--policy", "muster.yaml"], "only http:// is spoken"),
                (["--prometheus", "x", "--from", "1d", "--policy", "muster.yaml"], "needs --query"),
            ] {
                let (status, output) = try await replay(folder, arguments)
                #expect(status == 2 && output.contains(message), "\(output)")
            }
        }
    }

    // MARK: Prometheus

    /// A day of two pods' counters, a minute apart: 0.3 and 0.2 cores, and from noon 1.8 and 0.2.
    private func past(from start: Int64) -> String {
        var text = "# HELP cpu_seconds CPU.\n# TYPE cpu_seconds counter\n"
        for (pod, early, late) in [("a", 0.3, 1.8), ("b", 0.2, 0.2)] {
            var total = 0.0
            for minute in 0...1440 {
                text += "cpu_seconds_total{pod=\"\(pod)\"} \(total) \(start + Int64(minute) * 60)\n"
                total += 60 * (minute < 720 ? early : late)
            }
        }
        return text + "# EOF\n"
    }

    @Test func aRangeOfARealPrometheus() async throws {
        try await withFolder { folder in
            let end = WallTime.now.milliseconds / 60_000 * 60 - 600, start = end - 86_400
            try Files.replace(folder + "/past.txt", with: Array(past(from: start).utf8))
            let made = try await run(
                try systemProgram("promtool"), ["tsdb", "create-blocks-from", "openmetrics", "past.txt", "data"], folder: folder)
            #expect(made.status == 0, "\(made.output)")
            try Files.replace(folder + "/prometheus.yml", with: Array("global: {}\n".utf8))
            let port = TestPorts.server()
            let prometheus = try Child(
                try systemProgram("prometheus"),
                [
                    "--config.file=\(folder)/prometheus.yml", "--storage.tsdb.path=\(folder)/data", "--storage.tsdb.retention.time=30d",
                    "--web.listen-address=127.0.0.1:\(port)", "--log.level=error",
                ], log: folder + "/prometheus.log", folder: folder)
            let result: Result<Void, any Error>
            do { result = .success(try await replayDay(folder, "http://127.0.0.1:\(port)", start, end)) } catch { result = .failure(error) }
            await prometheus.destroy()
            try result.get()
        }
    }

    private func replayDay(_ folder: String, _ place: String, _ start: Int64, _ end: Int64) async throws {
        let common = ["--prometheus", place, "--from", String(start), "--to", String(end), "--policy", "muster.yaml"]
        var answer: (status: Int32, output: String) = (1, "")
        // Until it has started.
        _ = try await eventually(.seconds(30)) {
            answer = try await replay(folder, common + ["--query", "cpu=rate(cpu_seconds_total[2m])", "--json"])
            return answer.status == 0
        }
        #expect(answer.status == 0, "\(answer.output) \(Files.text(folder + "/prometheus.log") ?? "")")
        let each = try figures(answer.output)
        // 0.5 cores on two replicas at a target of 250m each, from noon 2.0 on eight.
        #expect(each.steps > 5700 && each.steps <= 5761 && abs(each.peak - 2) < 0.01)
        #expect(abs(each.replicaHours[0] - (12 * 2 + 12 * 8)) < 1, "\(each.replicaHours)")
        // Steps of 5 s are more than Prometheus answers at once. The sum is the same load.
        let fine = try await replay(folder, common + ["--query", "cpu=sum(rate(cpu_seconds_total[2m]))", "--step", "5s", "--json"])
        let summed = try figures(fine.output)
        #expect(
            fine.status == 0 && summed.steps > 17_000 && abs(summed.replicaHours[0] - each.replicaHours[0]) < 1,
            "\(fine.output.prefix(300))")
        let refused = try await replay(folder, common + ["--query", "cpu=sum("])
        #expect(
            refused.status == 1 && refused.output.contains("Prometheus refuses the query 'sum(': bad_data:")
                && refused.output.contains("parse error"),
            "\(refused.output)")
        let nothing = try await replay(folder, common + ["--query", "cpu=no_such_metric"])
        #expect(nothing.status == 2, "\(nothing.output)")
    }

    @Test func nobodyAtTheAddress() async throws {
        try await withFolder { folder in
            let port = TestPorts.server()
            let (status, output) = try await replay(
                folder, ["--prometheus", "127.0.0.1:\(port)", "--query", "cpu=up", "--from", "1h", "--policy", "muster.yaml"])
            #expect(status == 1 && output.contains("no Prometheus answers at 127.0.0.1:\(port)"), "\(output)")
        }
    }
}
