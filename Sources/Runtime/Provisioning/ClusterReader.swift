import Basics
import Redis
import Sharding

/// What one node says of itself and of the others.
public struct NodeReport: Sendable {
    public let asked: NodeAddress
    public let nodes: ClusterNodes
    /// `CLUSTER INFO`.
    public let cluster: [String: String]
    /// `INFO`: replication, memory, clients, stats, persistence, server.
    public let info: [String: String]
    /// Keys of its database.
    public let keys: Int
    /// `cluster-node-timeout`; nil where CONFIG is not allowed.
    public let nodeTimeout: Duration?
    /// `bind-source-addr`, where it is set.
    public let bindSource: String?

    public var id: String { nodes.myself.id }
    public func number(_ field: String) -> Int { info[field].flatMap { Int($0) } ?? 0 }
}

/// The nodes of a cluster, each asked at the same time. One that does not answer is a fact, not a failure.
public struct ClusterReading: Sendable {
    public struct Silence: Sendable {
        public let address: NodeAddress
        public let failure: ProvisioningFailure
    }

    public let reports: [NodeReport]
    public let silent: [Silence]
    public let view: ClusterView

    init(_ reports: [NodeReport], _ silent: [Silence]) {
        self.reports = reports
        self.silent = silent
        view = ClusterView(reports.map(\.nodes), askedAt: reports.map(\.asked))
    }

    public func report(_ id: String) -> NodeReport? { reports.first { $0.id == id } }

    /// What each replica that answered says of its copy, by its id.
    var copies: [String: ReplicaCopy] {
        var out: [String: ReplicaCopy] = [:]
        for report in reports where !report.nodes.myself.isMaster { out[report.id] = ReplicaCopy(report.info) }
        return out
    }
}

extension ClusterSession {
    /// Begins at the seeds and asks every node that they, and those behind them, know. Fails only when no seed answers.
    public func read() async throws(ProvisioningFailure) -> ClusterReading {
        var reports: [NodeReport] = []
        var silent: [ClusterReading.Silence] = []
        var asked: Set<NodeAddress> = []
        var next = seeds
        while !next.isEmpty {
            asked.formUnion(next)
            for answer in await readAll(next) {
                if let report = answer.report, !reports.contains(where: { $0.id == report.id }) { reports.append(report) }
                if let failure = answer.failure { silent.append(.init(address: answer.address, failure: failure)) }
            }
            var more: Set<NodeAddress> = []
            for report in reports {
                for node in report.nodes.nodes
                where !node.flags.contains(.myself) && !node.isInHandshake && !node.flags.contains(.noAddress) {
                    if !node.address.host.isEmpty, !reports.contains(where: { $0.id == node.id }) { more.insert(node.address) }
                }
            }
            next = more.subtracting(asked).sorted()
        }
        if reports.isEmpty, let first = silent.first { throw first.failure }
        return ClusterReading(reports, silent)
    }

    /// What one node answered: a report, or why there is none. A value of its own, because the optimizer of Swift 6.3 breaks a task group
    /// whose element is a tuple with a typed `Result`.
    private final class Answer: Sendable {
        let address: NodeAddress
        let report: NodeReport?
        let failure: ProvisioningFailure?

        init(_ address: NodeAddress, _ report: NodeReport?, _ failure: ProvisioningFailure?) {
            self.address = address
            self.report = report
            self.failure = failure
        }
    }

    private func answer(of address: NodeAddress) async -> Answer {
        do { return Answer(address, try await report(of: address), nil) } catch { return Answer(address, nil, error) }
    }

    private func readAll(_ addresses: [NodeAddress]) async -> [Answer] {
        await withTaskGroup(of: Answer.self) { group in
            for address in addresses {
                // Ends with the node's answer, or its time limit.
                group.addTask { await self.answer(of: address) }
            }
            var out: [Answer] = []
            for await answer in group { out.append(answer) }
            return out.sorted { $0.address < $1.address }
        }
    }

    /// One node, asked in one round trip.
    func report(of address: NodeAddress) async throws(ProvisioningFailure) -> NodeReport {
        let client = try client(address)
        let answers = try await client.ask(all: [
            RedisCommand("CLUSTER NODES"), RedisCommand("CLUSTER INFO"), RedisCommand("INFO"), RedisCommand("DBSIZE"),
        ])
        let nodes: ClusterNodes
        do { nodes = try ClusterNodes(answers[0].string ?? "") } catch { throw ProvisioningFailure(.server, "\(error)", node: address) }
        let settings =
            (try? await client.ask("CONFIG GET", "cluster-node-timeout", "bind-source-addr").array)?.map { $0.string ?? "" } ?? []
        func setting(_ name: String) -> String? {
            settings.firstIndex(of: name).flatMap { $0 + 1 < settings.count && !settings[$0 + 1].isEmpty ? settings[$0 + 1] : nil }
        }
        return NodeReport(
            asked: address, nodes: nodes, cluster: ClusterSession.fields(answers[1]), info: ClusterSession.fields(answers[2]),
            keys: answers[3].int ?? 0,
            nodeTimeout: setting("cluster-node-timeout").flatMap { Int($0) }.map { .milliseconds(max(0, $0)) },
            bindSource: setting("bind-source-addr"))
    }

    /// The answer to `INFO keyspace`: databases that have keys, with how many.
    static func databases(_ value: RESPValue) -> [(number: Int, keys: Int)] {
        var out: [(number: Int, keys: Int)] = []
        for (name, text) in fields(value) where name.hasPrefix("db") {
            guard let number = Int(name.dropFirst(2)) else { continue }
            let keys = text.split(separator: ",").first { $0.hasPrefix("keys=") }.flatMap { Int($0.dropFirst(5)) } ?? 0
            if keys > 0 { out.append((number, keys)) }
        }
        return out.sorted { $0.number < $1.number }
    }

    /// Lines of `name:value`.
    static func fields(_ value: RESPValue) -> [String: String] {
        var out: [String: String] = [:]
        // "\r\n" is one Character.
        for line in (value.string ?? "").split(whereSeparator: \.isNewline) {
            guard let colon = line.firstIndex(of: ":") else { continue }
            out[String(line[..<colon])] = String(line[line.index(after: colon)...])
        }
        return out
    }
}
