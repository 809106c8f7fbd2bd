import Basics
import EventLoops
import Glibc
import Redis
import Sharding
import Synchronization

/// A real Redis Cluster of one test: `masters` masters, each with `replicas` replicas, on 127.0.0.1, with a password, formed by the
/// protocol's own commands. Node 0..<masters are the first masters; replica `r` of master `m` is node `masters + r * masters + m`.
public final class RedisClusterFixture: Sendable {
    public struct Node: Sendable {
        public let port: UInt16
        public let folder: String
    }

    public let nodes: [Node]
    public let masters: Int
    public let password = "cluster-password"
    public let nodeTimeout: Int
    private let extra: [String]
    /// Its ports speak TLS alone.
    private let tls: TLSFixture?
    /// What its nodes are, each with a configuration file `PORT.conf` in `configurations`; nil: the redis-server that is installed, without
    /// files.
    private let program: String?
    private let children: Mutex<[Child?]>

    /// `redis+cluster://` of all nodes.
    public var url: String { "redis+cluster://:\(password)@" + nodes.map { "127.0.0.1:\($0.port)" }.joined(separator: ",") }
    public func nodeURL(_ i: Int) -> String {
        let place = ":\(password)@127.0.0.1:\(nodes[i].port)"
        return tls.map { "rediss://\(place)?ca=\($0.authority)&cert=\($0.file("client.pem"))&key=\($0.file("client.key"))" }
            ?? "redis://\(place)"
    }

    /// Starts the processes and forms the cluster; returns when every node says that its state is ok and every replica is in step.
    /// `nodeTimeout` in milliseconds. `form: false` leaves the nodes bare.
    public init(
        folder: String, loop: EventLoop, masters: Int = 3, replicas: Int = 1, nodeTimeout: Int = 500, tls: TLSFixture? = nil,
        extra: [String] = [], form: Bool = true, program: String? = nil
    ) async throws {
        self.program = program
        self.tls = tls
        self.masters = masters
        self.nodeTimeout = nodeTimeout
        self.extra = extra
        var nodes: [Node] = []
        for i in 0..<masters * (replicas + 1) {
            let port = TestPorts.cluster(besides: nodes.map(\.port))
            let path = "\(folder)/node-\(i)"
            try Files.makeFolder(path, mode: 0o700)
            nodes.append(Node(port: port, folder: path))
        }
        self.nodes = nodes
        children = Mutex(Array(repeating: nil, count: nodes.count))
        do { try await begin(loop, form: form) } catch {
            await destroy()
            throw error
        }
    }

    private func begin(_ loop: EventLoop, form: Bool) async throws {
        for i in nodes.indices { try start(i) }
        for i in nodes.indices {
            let port = nodes[i].port
            let isUp = await eventually(.seconds(10)) { (try? RawSocket(port: port)) != nil }
            guard isUp else {
                throw SystemError("redis-server \(port) did not start: \(Files.text(nodes[i].folder + "/redis.log") ?? "")", ECONNREFUSED)
            }
        }
        if form { try await self.form(loop) }
    }

    /// Where the nodes' configuration files are: in one folder for all of them, as under /etc.
    public var configurations: String { Files.folder(of: nodes[0].folder) + "/etc" }
    public func configuration(_ i: Int) -> String { "\(configurations)/\(nodes[i].port).conf" }

    /// Starts node `i`, again after it was killed.
    public func start(_ i: Int) throws {
        let node = nodes[i]
        let lines =
            [
                "bind 127.0.0.1", tls == nil ? "port \(node.port)" : "port 0\ntls-port \(node.port)", "dir \(node.folder)",
                "requirepass \(password)",
                "masterauth \(password)", "appendonly yes", "save \"\"",
                "cluster-enabled yes", "cluster-config-file nodes.conf", "cluster-node-timeout \(nodeTimeout)",
                "repl-diskless-sync-delay 0",
                "repl-diskless-load swapdb",
            ] + extra
        let text = Array((lines.joined(separator: "\n") + "\n").utf8), log = node.folder + "/redis.log"
        let child: Child
        if let program {
            try Files.makeFolder(configurations, mode: 0o700)
            try Files.replace(configuration(i), with: text, mode: 0o600)
            child = try Child(program, [configuration(i)], log: log, folder: node.folder)
        } else {
            child = try Child(try systemProgram("redis-server"), ["-"], log: log, folder: node.folder, input: text)
        }
        children.withLock { $0[i] = child }
    }

    /// A signal to node `i`: SIGKILL, SIGSTOP, SIGCONT.
    public func signal(_ i: Int, _ number: Int32) { children.withLock { $0[i] }?.send(number) }
    public func pid(_ i: Int) -> Int32 { children.withLock { $0[i]?.pid ?? 0 } }

    /// kill -9, and reaped.
    public func kill(_ i: Int) async {
        let child = children.withLock { children in
            defer { children[i] = nil }
            return children[i]
        }
        await child?.destroy()
    }

    public func destroy() async { for i in nodes.indices { await kill(i) } }

    /// One command to node `i`, over a connection of its own.
    public func ask(_ i: Int, _ loop: EventLoop, _ command: RedisCommand) async throws -> RESPValue {
        let client = RedisClient(url: try RedisURL(nodeURL(i)), loop: loop)
        client.start()
        defer { client.close() }
        return try await client.send(command)
    }

    private func form(_ loop: EventLoop) async throws {
        let all = SlotSet.all.slots.count
        for i in 0..<masters {
            _ = try await ask(
                i, loop, RedisCommand("CLUSTER ADDSLOTSRANGE", String(all * i / masters), String(all * (i + 1) / masters - 1)))
            _ = try await ask(i, loop, RedisCommand("CLUSTER SET-CONFIG-EPOCH", String(i + 1)))
        }
        for i in 1..<nodes.count { _ = try await ask(i, loop, RedisCommand("CLUSTER MEET", "127.0.0.1", String(nodes[0].port))) }
        var ids: [String] = []
        for i in nodes.indices {
            ids.append(try await ask(i, loop, RedisCommand("CLUSTER MYID")).string ?? "")
            let knowsAll = try await eventually(.seconds(20)) {
                try await ask(i, loop, RedisCommand("CLUSTER INFO")).string?.contains("cluster_known_nodes:\(nodes.count)\r\n") == true
            }
            guard knowsAll else { throw SystemError("node \(i) does not know all nodes", ETIMEDOUT) }
        }
        for i in masters..<nodes.count {
            let id = ids[i % masters]
            let done = await eventually { (try? await ask(i, loop, RedisCommand("CLUSTER REPLICATE", id))) != nil }
            guard done else { throw SystemError("node \(i) does not replicate", ETIMEDOUT) }
        }
        guard await isWhole(loop) else { throw SystemError("the cluster does not become ok", ETIMEDOUT) }
    }

    /// Waits until every node that runs says that the state is ok and every replica's link is up.
    public func isWhole(_ loop: EventLoop, within limit: Duration = .seconds(20)) async -> Bool {
        for i in nodes.indices where pid(i) > 0 {
            let isOK = await eventually(limit) {
                let info = (try? await ask(i, loop, RedisCommand("CLUSTER INFO")).string) ?? ""
                let replication = (try? await ask(i, loop, RedisCommand("INFO", "replication")).string) ?? ""
                return info.contains("cluster_state:ok")
                    && (replication.contains("role:master") || replication.contains("master_link_status:up"))
            }
            if !isOK { return false }
        }
        return true
    }
}

public func withRedisCluster<T>(
    masters: Int = 3, replicas: Int = 1, nodeTimeout: Int = 500, tls: TLSFixture? = nil, extra: [String] = [], form: Bool = true,
    _ body: (RedisClusterFixture, EventLoop) async throws -> T
) async throws -> T {
    try await withLoop { loop in
        try await withFolder { folder in
            let cluster = try await RedisClusterFixture(
                folder: folder, loop: loop, masters: masters, replicas: replicas, nodeTimeout: nodeTimeout, tls: tls, extra: extra,
                form: form)
            let result: Result<T, any Error>
            do { result = .success(try await body(cluster, loop)) } catch { result = .failure(error) }
            await cluster.destroy()
            return try result.get()
        }
    }
}
