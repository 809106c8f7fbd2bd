import Basics
import EventLoops
import Glibc
import HTTP
import JSONCoding
import Redis
import Sharding
import Synchronization
import TestSupport
import Testing

/// A firing alert that is waited for: its name, and labels it must have.
struct AlertSign: Sendable, CustomStringConvertible {
    let name: String
    let labels: [String: String]

    init(_ name: String, _ labels: [String: String] = [:]) {
        self.name = name
        self.labels = labels
    }

    var description: String { "\(name) \(labels)" }
    func isMet(by alert: [String: String]) -> Bool { alert["alertname"] == name && labels.allSatisfy { alert[$0.key] == $0.value } }
}

/// A real exporter and a real Prometheus that watch a real cluster by the files of `stacks/redis-cluster`.
///
/// Time runs about sixty times faster there, by `faster` alone: no other word of the files is changed but the addresses.
final class RedisMonitoring: Sendable {
    static let stack = projectFolder + "/stacks/redis-cluster"
    private static let shipped = (1...6).map { "\"127.0.0.1:700\($0)\"" }.joined(separator: ", ")

    let cluster: RedisClusterFixture
    let loop: EventLoop
    private let folder: String
    private let prometheusPort: UInt16
    private let exporterPort: UInt16
    private let client: HTTPClient
    private let prometheus: Child
    private let exporter: Mutex<Child?>
    /// Names of the alerts that have fired here.
    private let fired = Mutex<Set<String>>([])

    private init(_ cluster: RedisClusterFixture, _ loop: EventLoop, folder: String) throws {
        self.cluster = cluster
        self.loop = loop
        self.folder = folder
        prometheusPort = TestPorts.server()
        exporterPort = TestPorts.server()
        client = HTTPClient(loop: loop)
        exporter = Mutex(nil)
        let passwords = cluster.nodes.map { "\"redis://127.0.0.1:\($0.port)\": \"\(cluster.password)\"" }
        try Files.replace(folder + "/passwords.json", with: Array("{\(passwords.joined(separator: ","))}".utf8), mode: 0o600)
        let rules = RedisMonitoring.faster(try #require(Files.text(RedisMonitoring.stack + "/alerts.yml")))
        try Files.replace(folder + "/alerts.yml", with: Array(rules.utf8))
        try RedisMonitoring.writeTargets(cluster.nodes.map(\.port), exporterPort, to: folder)
        prometheus = try Child(
            try systemProgram("prometheus"),
            [
                "--config.file=\(folder)/prometheus.yml", "--storage.tsdb.path=\(folder)/data",
                "--web.listen-address=127.0.0.1:\(prometheusPort)",
                "--log.level=error",
            ], log: folder + "/prometheus.log", folder: folder)
        try startExporter()
    }

    /// A duration of N minutes becomes N seconds, one of seconds becomes 1 s: where `for`, `interval`, `scrape_…` or a range in brackets
    /// has it.
    static func faster(_ text: String) -> String {
        text.split(separator: "\n", omittingEmptySubsequences: false).map { line -> String in
            let isTime = ["for: ", "interval: ", "scrape_interval: ", "scrape_timeout: "].contains { word in
                line.drop { $0 == " " }.hasPrefix(word)
            }
            guard isTime, let value = line.split(separator: " ").last else { return String(line).replacing("m]", with: "s]") }
            return String(line).replacing(value, with: value.hasSuffix("m") ? "\(value.dropLast())s" : "1s")
        }.joined(separator: "\n")
    }

    private static func writeTargets(_ ports: [UInt16], _ exporter: UInt16, to folder: String) throws {
        let targets = ports.map { "\"127.0.0.1:\($0)\"" }.joined(separator: ", ")
        let text = try #require(Files.text(stack + "/prometheus.yml"))
        #expect(text.contains("[\(shipped)]") && text.contains("127.0.0.1:9121"))
        let ours = faster(text).replacing(shipped, with: targets).replacing("127.0.0.1:9121", with: "127.0.0.1:\(exporter)")
        try Files.replace(folder + "/prometheus.yml", with: Array(ours.utf8))
    }

    func startExporter() throws {
        let child = try Child(
            try systemProgram("prometheus-redis-exporter"),
            [
                "-redis.addr=", "-redis.password-file=\(folder)/passwords.json", "-connection-timeout=500ms",
                "-web.listen-address=127.0.0.1:\(exporterPort)",
            ], log: folder + "/exporter.log", folder: folder)
        exporter.withLock { $0 = child }
    }

    func killExporter() async {
        let child = exporter.withLock { exporter in
            defer { exporter = nil }
            return exporter
        }
        await child?.destroy()
    }

    /// Prometheus forgets all targets but these nodes.
    func watch(only nodes: [Int]) throws {
        try RedisMonitoring.writeTargets(nodes.map { cluster.nodes[$0].port }, exporterPort, to: folder)
        prometheus.send(SIGHUP)
    }

    func instance(_ i: Int) -> [String: String] { ["instance": "127.0.0.1:\(cluster.nodes[i].port)"] }

    /// What Prometheus answers, as its JSON.
    private func ask<T: Sendable>(_ path: String, _ read: (JSONElement) -> T) async throws -> T {
        let answer = try await client.send("GET", path, to: .address(.loopback(port: prometheusPort)))
        return try JSONDocument().parse(answer.body) { root in
            guard let data = root["data"] else { throw SystemError("\(path): \(answer.text)", EPROTO) }
            return read(data)
        }
    }

    /// The values of an instant query.
    func values(_ expression: String) async throws -> [String] {
        let hex = Array("0123456789ABCDEF")
        let escaped = expression.utf8.map { "%\(hex[Int($0 >> 4)])\(hex[Int($0 & 15)])" }.joined()
        return try await ask("/api/v1/query?query=\(escaped)") { data in
            (data["result"]?.array ?? []).compactMap { $0["value"]?.array?.last?.string }
        }
    }

    /// Labels of the alerts that fire.
    func firing() async throws -> [[String: String]] {
        let names: [StaticString] = ["alertname", "instance", "scope", "measure", "kind", "cluster"]
        return try await ask("/api/v1/alerts") { data in
            (data["alerts"]?.array ?? []).filter { $0["state"]?.string == "firing" }.map { alert in
                var labels: [String: String] = [:]
                for name in names { labels["\(name)"] = alert["labels"]?[name]?.string }
                return labels
            }
        }
    }

    /// Rules that were evaluated, with their health.
    func ruleHealth() async throws -> [String] {
        try await ask("/api/v1/rules") { data in
            (data["groups"]?.array ?? []).flatMap { $0["rules"]?.array ?? [] }.map { $0["health"]?.string ?? "" }
        }
    }

    /// Waits until each sign has fired, meanwhile doing `again` every time it looks.
    func expectFires(_ signs: [AlertSign], again: () async throws -> Void = {}, at place: SourceLocation = #_sourceLocation) async throws {
        var missing = signs
        _ = try await eventually(.seconds(60)) {
            try await again()
            let alerts = (try? await firing()) ?? []
            missing.removeAll { sign in alerts.contains { sign.isMet(by: $0) } }
            fired.withLock { $0.formUnion(alerts.compactMap { $0["alertname"] }) }
            return missing.isEmpty
        }
        #expect(missing.isEmpty, "did not fire: \(missing); \(Files.text(folder + "/prometheus.log") ?? "")", sourceLocation: place)
    }

    /// Waits until no alert fires any more.
    func expectQuiet(at place: SourceLocation = #_sourceLocation) async throws {
        var left: [[String: String]] = []
        let isQuiet = await eventually(.seconds(60)) {
            left = (try? await firing()) ?? [["alertname": "Prometheus does not answer"]]
            return left.isEmpty
        }
        #expect(isQuiet, "still firing: \(left)", sourceLocation: place)
    }

    var haveFired: Set<String> { fired.withLock { $0 } }

    /// A key in a slot of the `shard`th third.
    static func key(_ name: String, shard: Int) -> String {
        let slots = HashSlot.count * shard / 3..<HashSlot.count * (shard + 1) / 3
        return (0...).lazy.map { "{\($0)}\(name)" }.first { slots.contains(HashSlot.of($0)) }!
    }

    static func with<T>(_ cluster: RedisClusterFixture, _ loop: EventLoop, _ body: (RedisMonitoring) async throws -> T) async throws -> T {
        try await withFolder { folder in
            let monitoring = try RedisMonitoring(cluster, loop, folder: folder)
            let result: Result<T, any Error>
            do {
                let isUp = await eventually(.seconds(60)) {
                    let health = (try? await monitoring.ruleHealth()) ?? []
                    return health.count > 15 && health.allSatisfy { $0 == "ok" }
                }
                #expect(isUp, "\(Files.text(folder + "/prometheus.log") ?? "")")
                result = .success(try await body(monitoring))
            } catch { result = .failure(error) }
            monitoring.client.close()
            await monitoring.killExporter()
            await monitoring.prometheus.destroy()
            return try result.get()
        }
    }
}
