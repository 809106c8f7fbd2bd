import Basics
import EventLoops
import Glibc
import HTTP
import LoadPlanning
import Loading
import TestSupport
import Testing

/// A stack that scales by itself, with real processes under a real load.
@Suite(.serialized) struct AutoscaleTests {
    private static func scale(_ more: String = "") -> String {
        // Beside the service's other keys, which stand four deep.
        """
        resources: { cpu: 1000m, memory: 512Mi }
            scale: { metrics: [{ requests: 40/s }], every: 1s, up: { pods: 8, every: 1s }, down: { pods: 8, every: 1s, stabilization: 5s }\(more) }
        """
    }

    private static func load(_ stack: StackFixture, _ phases: [LoadPhase]) async throws -> LoadReport {
        let body =
            #"{"resource":{"service":"load","host":"h"},"records":[{"timestamp":"{{now}}","severity":"INFO","message":"m","trace_id":"{{uuid}}"}]}"#
        let scenario = Scenario(
            requests: [
                LoadRequest("POST", try LoadText("/api/logs"), headers: [("Content-Type", "application/json")], body: try LoadText(body)),
                LoadRequest("GET", try LoadText("/api/correlations?limit=1")),
            ], phases: phases, timeout: .seconds(30))
        return try await LoadRun(scenario, to: stack.gateway, on: stack.loop).run()
    }

    @Test func threeToEightToThreeUnderLoadWithoutAFailedRequest() async throws {
        try await withStack(up: false) { stack in
            try stack.write(replicas: "3..8", level: "warn", keys: Self.scale())
            let (status, output) = try await stack.muster("up", "-d", stack.file)
            #expect(status == 0, "\(output)")
            async let loading = Self.load(
                stack,
                [.hold(.arrivals, 90, for: .seconds(6)), .hold(.arrivals, 330, for: .seconds(25)), .hold(.arrivals, 60, for: .seconds(30))])
            let grown = try await eventually(.seconds(40)) {
                try await stack.engines().filter { $0.state == "ready" || $0.state == "degraded" }.count == 8
            }
            let (_, whenGrown) = try await stack.muster("why", "correlation-engine", "--stack", stack.file)
            #expect(grown, "\(whenGrown)")
            let report = try await loading
            let shrunk = try await eventually(.seconds(30)) { try await stack.engines().count == 3 }
            let (_, whenShrunk) = try await stack.muster("why", "correlation-engine", "--stack", stack.file)
            #expect(shrunk, "\(whenShrunk)")
            #expect(report.total.errors == 0, "\(report.firstFailure ?? "") \(report.statuses) \(report.failures)")
            #expect(report.total.ended > 8000)
            try await theJournalExplainsEveryStep(stack)
            try await theRecordingReplays(stack)
        }
    }

    /// Every size that there was follows from a decision that says why.
    private func theJournalExplainsEveryStep(_ stack: StackFixture) async throws {
        let (_, text) = try await stack.muster("why", "correlation-engine", "--json", "--stack", stack.file)
        let changes = try JSONValue.parse(Array(text.utf8)).list.filter {
            $0["kind"].string == "scale" && $0["inputs"]["replicas"].string != $0["outcome"].string
        }
        var size = 3, most = 3
        for change in changes {
            #expect(change["inputs"]["replicas"].string == String(size), "a step is missing before: \(change["sentence"])")
            size = Int(change["outcome"].string ?? "") ?? -1
            most = max(most, size)
            let sentence = change["sentence"].string ?? ""
            #expect(sentence.contains("goes from") && sentence.contains("requests is"), "\(sentence)")
            #expect(change["flip"].string?.isEmpty == false)
        }
        #expect(size == 3 && most == 8, "\(changes.map { $0["sentence"] })")
        let (_, now) = try await stack.muster("why", "correlation-engine", "--stack", stack.file)
        #expect(now.hasPrefix("now           correlation-engine stays at 3 replicas: "), "\(now.prefix(200))")
        #expect(now.contains("otherwise if: "))
    }

    /// What the autoscaler has seen, replayed under the policy that it had, comes to about as many.
    private func theRecordingReplays(_ stack: StackFixture) async throws {
        let (_, csv) = try await stack.muster("why", "correlation-engine", "--csv", "--stack", stack.file)
        #expect(csv.hasPrefix("time,service,metric,value\n") && csv.contains(",correlation-engine,requests,"), "\(csv.prefix(300))")
        try Files.replace(stack.folder + "/run.csv", with: Array(csv.utf8))
        let (status, output) = try await stack.muster("replay", stack.folder + "/run.csv", "--policy", stack.file, "--step", "1s", "--json")
        #expect(status == 0, "\(output)")
    }

    @Test func aHandHoldsItAndLetsItGo() async throws {
        try await withStack(up: false) { stack in
            try stack.write(replicas: "1..4", level: "warn", keys: Self.scale())
            let up = try await stack.muster("up", "-d", stack.file),
                held = try await stack.muster("scale", "correlation-engine=3", stack.file)
            #expect(up.status == 0 && held.status == 0, "\(up.output)\(held.output)")
            // Without a request the autoscaler would go to one; a hand holds three.
            try await Task.sleep(for: .seconds(9))
            let before = try await stack.engines().count
            #expect(before == 3)
            let freed = try await stack.muster("scale", "correlation-engine=auto", stack.file)
            let shrunk = try await eventually(.seconds(30)) { try await stack.engines().count == 1 }
            #expect(freed.status == 0 && shrunk, "\(freed.output)")
            let (_, why) = try await stack.muster("why", "correlation-engine", "--stack", stack.file)
            #expect(why.contains("somebody asked for it, and the autoscaler is held until it is let go"))
            #expect(why.contains("belongs to the autoscaler again"))
        }
    }

    /// The last one ends, the next request waits at the gateway until one is up again, and is answered.
    @Test func itSleepsAndIsWokenByARequest() async throws {
        try await withStack(up: false) { stack in
            try stack.write(replicas: "0..3", level: "warn", keys: Self.scale(", idle: 3s"))
            let up = try await stack.muster("up", "-d", stack.file)
            #expect(up.status == 0, "\(up.output)")
            for _ in 0..<2 {
                let asleep = try await eventually(.seconds(40)) { try await stack.engines().isEmpty }
                #expect(asleep)
                async let first = stack.client.send("GET", "/api/correlations?limit=1", to: stack.gateway, timeout: .seconds(30))
                async let second = stack.client.send("GET", "/api/correlations?limit=1", to: stack.gateway, timeout: .seconds(30))
                let statuses = try await [first.status, second.status]
                #expect(statuses == [200, 200])
            }
            let (_, why) = try await stack.muster("why", "correlation-engine", "--stack", stack.file)
            #expect(why.contains("no request has come for 3s") && why.contains("for it at the gateway"), "\(why)")
        }
    }

    /// Where the metrics let it go to 0 and nothing says `idle`, a request is held and wakes it all the same.
    @Test func aRequestWakesItWithoutIdleToo() async throws {
        try await withStack(up: false) { stack in
            let scale =
                "scale: { metrics: [{ redis: state, list: jobs, average: 10 }], every: 1s, down: { pods: 8, every: 1s, stabilization: 2s } }"
            try stack.write(replicas: "0..3", level: "warn", keys: scale)
            let up = try await stack.muster("up", "-d", stack.file)
            #expect(up.status == 0, "\(up.output)")
            for _ in 0..<2 {
                let asleep = try await eventually(.seconds(40)) { try await stack.engines().isEmpty }
                #expect(asleep)
                let answer = try await stack.client.send("GET", "/api/correlations?limit=1", to: stack.gateway, timeout: .seconds(30))
                #expect(answer.status == 200)
            }
        }
    }
}
