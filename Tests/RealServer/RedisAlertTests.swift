import Basics
import EventLoops
import JSONCoding
import Redis
import TestSupport
import Testing

/// The files of `stacks/redis-cluster`, and the pages that its alerts point to.
@Suite struct RedisAlertTests {
    private let stack = RedisMonitoring.stack

    @Test func promtoolPassesTheFiles() async throws {
        for arguments in [
            ["check", "rules", "--lint=all", "--lint-fatal", "alerts.yml"], ["check", "config", "prometheus.yml"],
            ["test", "rules", "alerts.test.yml"],
        ] {
            let (status, output) = try await run(try systemProgram("promtool"), arguments, folder: stack)
            #expect(status == 0, "\(output)")
        }
    }

    /// Its page, a case in which it fires, and one in which it does not.
    @Test func everyAlertIsTestedAndHasItsRunbook() throws {
        let rules = try #require(Files.text(stack + "/alerts.yml")).split(separator: "\n")
        let cases = try #require(Files.text(stack + "/alerts.test.yml"))
        let list = try #require(Files.text(projectFolder + "/docs/runbooks/README.md"))
        let alerts = Set(rules.filter { $0.contains("- alert: ") }.compactMap { $0.split(separator: " ").last.map(String.init) })
        #expect(alerts.isSuperset(of: ["RedisClusterDown", "RedisNodeDown", "RedisMasterWithoutReplica"]))
        for alert in alerts {
            let page = Files.text("\(projectFolder)/docs/runbooks/\(alert).md") ?? ""
            #expect(page.hasPrefix("# \(alert)\n") && page.contains("## What to do") && page.contains("## It is over when"), "\(alert)")
            #expect(
                rules.contains { $0.hasSuffix("runbook_url: docs/runbooks/\(alert).md") } && list.contains("](\(alert).md)"), "\(alert)")
            #expect(cases.contains("alertname: \(alert)\n") && cases.contains("alertname: \(alert), exp_alerts: []"), "\(alert)")
        }
    }

    @Test func theDashboardIsWhatGrafanaReads() throws {
        try JSONDocument().parse(try Files.read(stack + "/dashboard.json")) { root in
            #expect(root["uid"]?.string == "muster-redis-cluster" && root["schemaVersion"]?.int == 39)
            #expect(root["templating"]?["list"]?.array?.first?["type"]?.string == "datasource")
            var places: Set<String> = []
            for panel in root["panels"]?.array ?? [] {
                let grid = panel["gridPos"]
                let isAlone = places.insert("\(grid?["x"]?.int ?? -1),\(grid?["y"]?.int ?? -1)").inserted
                #expect(isAlone, "\(panel["title"]?.string ?? "")")
                for target in panel["targets"]?.array ?? [] { #expect(target["datasource"]?["uid"]?.string == "${datasource}") }
            }
            #expect(places.count > 30)
        }
    }

    /// Every query of the dashboard, on a real cluster that is used: each has an answer, and a number in it.
    @Test func everyPanelHasData() async throws {
        let queries = try JSONDocument().parse(try Files.read(stack + "/dashboard.json")) { root in
            (root["panels"]?.array ?? []).flatMap { $0["targets"]?.array ?? [] }.compactMap { $0["expr"]?.string }
        }
        #expect(queries.count > 40)
        try await withRedisCluster(extra: ["maxmemory 64mb", "maxmemory-policy noeviction"]) { cluster, loop in
            try await RedisMonitoring.with(cluster, loop) { watch in
                for query in queries {
                    let asked = query.replacing("$cluster", with: "redis").replacing("$__rate_interval", with: "10s")
                    var values: [String] = []
                    let hasData = try await eventually(.seconds(30)) {
                        for shard in 0..<3 {
                            let key = RedisMonitoring.key("panel", shard: shard)
                            _ = try await cluster.ask(shard, loop, RedisCommand("SET", key, "1"))
                            _ = try await cluster.ask(shard, loop, RedisCommand("GET", key))
                        }
                        values = try await watch.values(asked)
                        return values.contains { $0 != "NaN" }
                    }
                    #expect(hasData, "\(asked): \(values)")
                }
            }
        }
    }
}
