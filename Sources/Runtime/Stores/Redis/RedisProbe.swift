import Basics
import EventLoops
import Redis
import StoreKinds

/// Asks a Redis how it is, over one connection: a node of ours, or an external one.
final class RedisProbe: NodeProbe {
    private enum Target {
        /// A node of ours.
        case node(port: UInt16, isCluster: Bool)
        case external(RedisURL)
    }

    private let target: Target
    private let client: RedisClient
    private let loop: EventLoop

    private static let firstWordsTime = Duration.seconds(1)

    /// For the node on `port`, whose login `url` has.
    init(_ url: RedisURL, port: UInt16, isCluster: Bool, loop: EventLoop) {
        target = .node(port: port, isCluster: isCluster)
        self.loop = loop
        client = RedisProbe.client(url, loop)
    }

    /// For an external one.
    init(_ url: RedisURL, loop: EventLoop) {
        target = .external(url)
        self.loop = loop
        client = RedisProbe.client(url, loop)
    }

    private static func client(_ url: RedisURL, _ loop: EventLoop) -> RedisClient {
        var options = RedisClient.Options()
        options.maxConnections = 1
        // Of a master that is being replaced: the next probe asks again.
        options.patience = .seconds(2)
        options.name = "muster-supervisor"
        let client = RedisClient(url: url, loop: loop, options: options)
        client.start()
        return client
    }

    func close() { client.close() }

    private var isCluster: Bool {
        switch target {
        case .node(_, let isCluster): isCluster
        case .external(let url): if case .cluster = url.topology { true } else { false }
        }
    }

    /// Whether there are parts, and whether they are this one server's.
    private var hasRole: Bool {
        switch target {
        case .node(_, let isCluster): isCluster
        case .external(let url): if case .single = url.topology { true } else { false }
        }
    }

    func ask() async -> ProbeReport {
        let commands =
            [RedisCommand("PING")] + (isCluster ? [RedisCommand("CLUSTER INFO")] : []) + (hasRole ? [RedisCommand("ROLE")] : [])
        let results = await client.pipeline(commands)
        if case .failure(let error) = results[0] { return ProbeReport(await answer(error)) }
        var role: String?
        // Who is not allowed to ask has no role to show; that is no fault.
        if hasRole, case .success(let value) = results[results.count - 1] {
            role = value.array?.first?.string.map { $0 == "slave" ? "replica" : $0 }
        }
        guard isCluster else { return ProbeReport(.ready, role: role) }
        switch results[1] {
        case .success(let value):
            return ProbeReport(
                value.string?.hasPrefix("cluster_state:ok") == true
                    ? .ready : .degraded("CLUSTER INFO: the cluster does not serve all slots"), role: role)
        case .failure(let error) where error.serverCode == "NOPERM": return ProbeReport(.ready, role: role)
        case .failure(let error): return ProbeReport(await answer(error), role: role)
        }
    }

    /// What an error says of the server.
    private func answer(_ error: RedisError) async -> NodeAnswer {
        if let answer = RedisProbe.answer(error.message, isAnswer: [.server, .authentication, .malformed].contains(error.code)) {
            return answer
        }
        if error.isOwnWant { return .unasked("PING on \(error.place): \(error.message)") }
        guard case .node(let port, _) = target else { return .failed("PING on \(error.place): \(error.message)") }
        let loop = loop
        // The client says why it has no connection, not whether the server reacts.
        let said = await withUnsafeContinuation { continuation in
            FirstWords.ask(port: port, within: RedisProbe.firstWordsTime, on: loop) { continuation.resume(returning: $0) }
        }
        guard case .words(let said) = said else {
            if case .unasked(let want) = said { return .unasked("PING on 127.0.0.1:\(port): \(want)") }
            return .failed("PING on 127.0.0.1:\(port): \(error.message)")
        }
        return RedisProbe.answer(said, isAnswer: said.hasPrefix("-") && !said.hasPrefix("-NOAUTH"))
            ?? .unready("PING on 127.0.0.1:\(port): \(error.message)")
    }

    /// What an error of Redis means: it answers, and says what ails it. nil: `text` is no answer of the server's.
    private static func answer(_ text: String, isAnswer: Bool) -> NodeAnswer? {
        guard isAnswer else { return nil }
        let words = "PING was answered with: \(text.hasPrefix("-") ? String(text.dropFirst()) : text)"
        return switch text.drop(while: { $0 == "-" }).prefix(while: { $0 != " " }) {
        case "LOADING", "BUSY": .occupied(words)
        // A user who may not ask is logged in all the same.
        case "NOPERM": .ready
        // It reads and answers; what it refuses, its clients are told.
        case "MISCONF", "MASTERDOWN", "OOM", "READONLY", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN": .degraded(words)
        default: .unready(words)
        }
    }

    /// Of this server; of an external cluster, whose servers are asked in turn, there are none.
    func figures() async -> [StoreFigure] {
        if case .external = target, isCluster { return [] }
        guard let info = try? await client.send(RedisCommand("INFO")).string else { return [] }
        let names: [Substring: StoreFigure.Name] = [
            "used_memory": .memory, "maxmemory": .memoryLimit, "connected_clients": .connections,
        ]
        var figures: [StoreFigure] = [], items = 0
        for line in info.split(whereSeparator: \.isNewline) {
            let parts = line.split(separator: ":", maxSplits: 1)
            guard parts.count == 2 else { continue }
            if let name = names[parts[0]], let value = Int(parts[1]) { figures.append(StoreFigure(name, value)) }
            // db0:keys=5,expires=0,avg_ttl=0
            if parts[0].hasPrefix("db"), parts[1].hasPrefix("keys=") {
                items = items.addingClamped(Int(parts[1].dropFirst(5).prefix { $0 != "," }) ?? 0)
            }
        }
        return figures + [StoreFigure(.items, items)]
    }
}
