import Basics
import HTTP
import JSONCoding
import TestSupport
import Testing

/// The alerts, the dashboard and the runbooks that ship with a stack.
@Suite struct AlertTests {
    private let root = #filePath.split(separator: "/").dropLast(3).reduce("") { $0 + "/" + $1 }
    private var stack: String { root + "/stacks/correlation" }

    @Test func promtoolPassesTheRulesAndTheirTests() async throws {
        for arguments in [["check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]] {
            let (status, output) = try await run(try systemProgram("promtool"), arguments, folder: stack)
            #expect(status == 0, "\(output)")
        }
    }

    @Test func everyAlertHasItsRunbook() throws {
        let text = try #require(Files.text(stack + "/alerts.yaml"))
        let alerts = Set(text.split(separator: "\n").compactMap { line in line.contains("- alert: ") ? line.split(separator: " ").last.map(String.init) : nil })
        #expect(alerts.isSuperset(of: ["CorrelationEngineDown", "RedisConnectionErrors", "HighRedisLatency", "CorrelationQueueFull"]))
        for alert in alerts { #expect(Files.exists("\(root)/docs/runbooks/\(alert).md"), "\(alert)") }
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
                try await withEngine(["USE_REDIS_STATE": "true", "REDIS_URL": redis.url, "LOKI_URL": "http://127.0.0.1:1", "TEMPO_URL": "http://127.0.0.1:1"]) {
                    engine, _ in
                    let client = HTTPClient(loop: loop)
                    _ = try await client.send("POST", "/v1/traces", to: engine, headers: [("Content-Type", "application/x-protobuf")], body: [])
                    let page = try await client.send("GET", "/metrics", to: engine).text
                    let exported = Set(page.split(separator: "\n").filter { !$0.hasPrefix("#") }.map { $0.prefix { $0 != "{" && $0 != " " } }.map(String.init))
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
}
