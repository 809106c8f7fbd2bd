import Basics
import EventLoops
import Glibc
import HTTP
import JSONCoding
import TestSupport
import Testing

/// The alerts, the dashboard and the runbooks that ship with a stack.
@Suite struct AlertTests {
    private let stack = projectFolder + "/stacks/correlation"

    @Test func promtoolPassesTheRulesAndTheirTests() async throws {
        for arguments in [["check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]] {
            let (status, output) = try await run(try systemProgram("promtool"), arguments, folder: stack)
            #expect(status == 0, "\(output)")
        }
    }

    @Test func everyAlertHasItsRunbook() throws {
        let text = try #require(Files.text(stack + "/alerts.yaml"))
        let alerts = Set(
            text.split(separator: "\n").compactMap { line in
                line.contains("- alert: ") ? line.split(separator: " ").last.map(String.init) : nil
            })
        #expect(alerts.isSuperset(of: ["CorrelationEngineDown", "RedisConnectionErrors", "HighRedisLatency", "CorrelationQueueFull"]))
        for alert in alerts { #expect(Files.exists("\(projectFolder)/docs/runbooks/\(alert).md"), "\(alert)") }
    }

    /// Every series that a rule or a panel asks for is one that an engine has.
    @Test func whatIsAskedForIsExported() async throws {
        var names: Set<String> = []
        let words = { (text: String) in text.split { !($0.isLetter || $0.isNumber || $0 == "_" || $0 == ":") }.map(String.init) }
        for file in ["alerts.yaml", "dashboard.json"] {
            for word in words(try #require(Files.text("\(stack)/\(file)")))
            where ["correlation_", "redis_", "instance_", "http_re", "process_"].contains(where: { word.hasPrefix($0) }) {
                names.insert(word)
            }
        }
        // Recorded by the rules themselves, and labels.
        names = names.filter { !$0.contains(":") && !$0.hasPrefix("correlation_engine_") && $0 != "instance_id" }
        try await withLoop { loop in
            try await withRedis { redis in
                try await withEngine([
                    "USE_REDIS_STATE": "true", "REDIS_URL": redis.url, "LOKI_URL": "http://127.0.0.1:1", "TEMPO_URL": "http://127.0.0.1:1",
                ]) {
                    engine, _ in
                    let client = HTTPClient(loop: loop)
                    _ = try await client.send(
                        "POST", "/v1/traces", to: engine, headers: [("Content-Type", "application/x-protobuf")], body: [])
                    let page = try await client.send("GET", "/metrics", to: engine).text
                    let exported = Set(
                        page.split(separator: "\n").filter { !$0.hasPrefix("#") }.map { $0.prefix { $0 != "{" && $0 != " " } }.map(
                            String.init))
                    #expect(names.count > 15)
                    #expect(names.subtracting(exported).isEmpty, "\(names.subtracting(exported).sorted())")
                    client.close()
                }
            }
        }
    }

    @Test func theDashboardIsWhatGrafanaReads() throws {
        let rows = try JSONDocument().parse(try Files.read(stack + "/dashboard.json")) { root in
            #expect(root["uid"]?.string == "muster-correlation" && root["schemaVersion"]?.int == 39)
            var places: Set<String> = []
            for panel in root["panels"]?.array ?? [] {
                let grid = panel["gridPos"]
                let isAlone = places.insert("\(grid?["x"]?.int ?? -1),\(grid?["y"]?.int ?? -1)").inserted
                let asks = (panel["targets"]?.array ?? []).map { $0["expr"]?.string ?? "" }
                #expect(isAlone && (panel["type"]?.string == "row" || !asks.isEmpty && !asks.contains("")))
            }
            return (root["panels"]?.array ?? []).filter { $0["type"]?.string == "row" }.compactMap { $0["title"]?.string }
        }
        #expect(rows.count >= 5 && rows.contains { $0.contains("Ledger") }, "\(rows)")
    }

    /// A real Prometheus scrapes a real engine and evaluates every rule without an error; an engine that goes is told.
    @Test func prometheusEvaluatesTheRulesOnAnEngine() async throws {
        try await withLoop { loop in
            try await withFolder { folder in
                let port = TestPorts.server()
                try await withEngine([:]) { engine, process in
                    let configuration = """
                        global: { scrape_interval: 1s, evaluation_interval: 1s }
                        rule_files: [alerts.yaml]
                        scrape_configs: [{ job_name: correlation-engine, static_configs: [{ targets: ["\(engine)"] }] }]
                        """
                    // Every second, in place of every thirty.
                    let rules = try #require(Files.text(stack + "/alerts.yaml")).replacing("interval: 30s", with: "interval: 1s")
                    try Files.replace(folder + "/alerts.yaml", with: Array(rules.utf8))
                    try Files.replace(folder + "/prometheus.yaml", with: Array(configuration.utf8))
                    let prometheus = try Child(
                        try systemProgram("prometheus"),
                        [
                            "--config.file=\(folder)/prometheus.yaml", "--storage.tsdb.path=\(folder)/data",
                            "--web.listen-address=127.0.0.1:\(port)", "--log.level=error",
                        ],
                        log: folder + "/log", folder: folder)
                    let result: Result<Void, any Error>
                    do {
                        try await follow(.address(.loopback(port: port)), process, HTTPClient(loop: loop))
                        result = .success(())
                    } catch { result = .failure(error) }
                    await prometheus.destroy()
                    #expect(throws: Never.self) { try result.get() }
                }
            }
        }
    }

    private func follow(_ prometheus: Endpoint, _ engine: Child, _ client: HTTPClient) async throws {
        func rules() async throws -> [(name: String, health: String, state: String)] {
            let answer = try await client.send("GET", "/api/v1/rules", to: prometheus)
            return try JSONDocument().parse(answer.body) { root -> [(name: String, health: String, state: String)] in
                var all: [(name: String, health: String, state: String)] = []
                let groups: [JSONElement] = root["data"]?["groups"]?.array ?? []
                for group in groups {
                    let rules: [JSONElement] = group["rules"]?.array ?? []
                    for rule in rules {
                        all.append(
                            (
                                (rule["name"]?.string ?? "") + (rule["labels"]?["scope"]?.string.map { ":" + $0 } ?? ""),
                                rule["health"]?.string ?? "",
                                rule["state"]?.string ?? ""
                            ))
                    }
                }
                return all
            }
        }
        let evaluated = await eventually(.seconds(30)) {
            guard let all = try? await rules() else { return false }
            return all.count >= 14 && all.allSatisfy { $0.health == "ok" }
        }
        let all = try await rules()
        #expect(evaluated, "\(all)")
        let scraped = await eventually(.seconds(20)) {
            let answer = try? await client.send("GET", "/api/v1/query?query=correlation_ledger_imbalance", to: prometheus)
            return answer?.text.contains("\"__name__\":\"correlation_ledger_imbalance\"") ?? false
        }
        #expect(scraped)
        let isQuiet = try await rules().contains { $0.name == "CorrelationEngineDown:instance" && $0.state == "inactive" }
        #expect(isQuiet)
        engine.send(SIGTERM)
        let told = await eventually(.seconds(20)) {
            (try? await rules())?.contains { $0.name == "CorrelationEngineDown:instance" && $0.state != "inactive" } ?? false
        }
        #expect(told)
        client.close()
    }
}
