import Basics
import EventLoops
import Glibc
import JSONCoding
import Redis
import Sharding
import Synchronization
import TestSupport

/// A cluster as a user makes it: by the built `muster redis create`, on ports of its own, in a folder of its own.
final class LocalCluster: Sendable {
    let folder: String
    let ports: [UInt16]
    let loop: EventLoop
    let password: String

    var passwordFile: String { folder + "/password" }
    var directory: String { folder + "/nodes" }

    /// Eight ports in a row: six to begin with and two to grow.
    init(folder: String, loop: EventLoop) throws {
        self.folder = folder
        self.loop = loop
        password = secretHex(bytes: 16)
        let first = TestPorts.cluster(of: 8)
        ports = Array(first..<first + 8)
        try Files.replace(passwordFile, with: Array((password + "\n").utf8), mode: 0o600)
    }

    func muster(_ arguments: [String], limit: Duration = .seconds(120)) async throws -> (status: Int32, output: String) {
        try await run(builtProgram("muster"), ["redis"] + arguments, folder: folder, limit: limit)
    }

    /// An operation on the cluster, asked at its first node.
    func operate(_ arguments: String...) async throws -> (status: Int32, output: String) { try await muster(arguments + access) }
    var access: [String] { ["--address", "127.0.0.1:\(ports[1])", "--password-file", passwordFile] }

    func create(_ more: String...) async throws -> (status: Int32, output: String) {
        try await muster(["create", "--ports", "\(ports[0])-\(ports[5])", "--dir", directory, "--password-file", passwordFile] + more)
    }

    func pid(_ i: Int) -> Int32 {
        (Files.text("\(directory)/node-\(ports[i])/process") ?? "").split(separator: " ").dropFirst().first.flatMap { Int32($0) } ?? 0
    }

    /// Whatever of it still runs; also nodes that were added.
    func destroy() async {
        let pids = ports.indices.map { pid($0) }.filter { $0 > 0 && isNode($0) }
        for pid in pids { kill(pid, SIGKILL) }
        _ = await eventually { !pids.contains { isNode($0) } }
    }

    /// The pid is a redis-server of this folder, not another process that has its number by now.
    private func isNode(_ pid: Int32) -> Bool {
        (Files.text("/proc/\(pid)/cmdline") ?? "").contains("redis-server")
            && Files.absolute("/proc/\(pid)/cwd").hasPrefix(Files.absolute(directory))
    }

    func ask(_ port: UInt16, _ commands: RedisCommand...) async throws -> [RESPValue] {
        let client = RedisClient(url: try RedisURL("redis://:\(password)@127.0.0.1:\(port)"), loop: loop)
        client.start()
        defer { client.close() }
        return try await client.pipeline(commands).map { try $0.get() }
    }

    /// `muster redis status --json`: whether all is well, and what stands in it.
    func status() async throws -> (isWhole: Bool, text: String) {
        let (status, text) = try await operate("status", "--json")
        return (status == 0, text)
    }
}

func withLocalCluster<T>(create: Bool = true, _ body: (LocalCluster) async throws -> T) async throws -> T {
    try await withLoop { loop in
        try await withFolder { folder in
            let cluster = try LocalCluster(folder: folder, loop: loop)
            let result: Result<T, any Error>
            do {
                if create {
                    let (status, output) = try await cluster.create("--node-timeout", "2s", "--memory", "64Mi", "--yes")
                    guard status == 0 else { throw SystemError("create: \(output)", EINVAL) }
                }
                result = .success(try await body(cluster))
            } catch { result = .failure(error) }
            await cluster.destroy()
            return try result.get()
        }
    }
}

/// Writes and reads through the cluster client. Counting up is no command that is repeated: whatever else than an answer comes is an error.
final class FollowingClient: Sendable {
    private let client: RedisClient

    init(_ cluster: LocalCluster) throws {
        let places = cluster.ports[..<6].map { "127.0.0.1:\($0)" }.joined(separator: ",")
        client = RedisClient(url: try RedisURL("redis+cluster://:\(cluster.password)@\(places)"), loop: cluster.loop)
        client.start()
    }

    func close() { client.close() }

    func send(_ command: RedisCommand) async throws -> RESPValue { try await client.send(command) }

    /// Keys of every type, with binary content and lifetimes.
    func fill(_ count: Int) async throws {
        for i in 0..<count {
            var set = RedisCommand("SET", "plain:\(i)")
            set.add([0, 13, 10, UInt8(truncatingIfNeeded: i), 255])
            _ = try await send(set)
            _ = try await send(RedisCommand("HSET", "hash:\(i)", "a", "\(i)", "b", "x"))
            _ = try await send(RedisCommand("RPUSH", "list:\(i)", "1", "2", "\(i)"))
            _ = try await send(RedisCommand("ZADD", "zset:\(i)", "1", "a", "2.5", "\(i)"))
            _ = try await send(RedisCommand("EXPIREAT", "zset:\(i)", "4102444800"))
        }
    }

    /// Every byte of them, and when they end.
    func contents(_ count: Int) async throws -> [String: [RESPValue]] {
        var out: [String: [RESPValue]] = [:]
        for i in 0..<count {
            for key in ["plain:\(i)", "hash:\(i)", "list:\(i)", "zset:\(i)"] {
                out[key] = [try await send(RedisCommand("DUMP", key)), try await send(RedisCommand("EXPIRETIME", key))]
            }
        }
        return out
    }
}

/// Counts up many counters, four at a time, until it is told to end. What it was told to have done must be there.
final class SteadyWriter: Sendable {
    static let counters = 2_000
    private let client: FollowingClient
    private let ends = Atomic<Bool>(false)
    private let done = Mutex<[Int: Int]>([:])
    let failures = Mutex<[String]>([])

    init(_ client: FollowingClient) { self.client = client }

    func run<T: Sendable>(_ body: () async throws -> T) async throws -> T {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for lane in 0..<4 { group.addTask { await self.write(lane) } }
            let result: Result<T, any Error>
            do { result = .success(try await body()) } catch { result = .failure(error) }
            ends.store(true, ordering: .relaxed)
            try await group.waitForAll()
            return try result.get()
        }
    }

    private func write(_ lane: Int) async {
        var i = lane
        while !ends.load(ordering: .relaxed) {
            let counter = i % Self.counters
            i += 4
            do {
                _ = try await client.send(RedisCommand("INCR", "counter:\(counter)"))
                done.withLock { $0[counter, default: 0] += 1 }
            } catch { failures.withLock { $0.append("\(error)") } }
        }
    }

    var written: Int { done.withLock { $0.values.reduce(0, +) } }

    /// Counters whose value is not what was acknowledged.
    func wrong() async throws -> [Int] {
        var out: [Int] = []
        for (counter, expected) in done.withLock({ $0 }) {
            let found = try await client.send(RedisCommand("GET", "counter:\(counter)")).string.flatMap { Int($0) }
            if found != expected { out.append(counter) }
        }
        return out
    }
}
