import Basics
import EventLoops
import Glibc
import Redis

/// A real redis-server of one test: password, loopback, data in the test's folder.
public final class RedisFixture: Sendable {
    public let port: UInt16
    public let password = "test-password"
    private let folder: String
    private let child: Child

    public var url: String { "redis://:\(password)@127.0.0.1:\(port)" }

    /// `extra` are configuration lines, such as `maxmemory 1mb`.
    public init(folder: String, port: UInt16? = nil, extra: [String] = []) async throws {
        let port = port ?? TestPorts.server()
        self.port = port
        self.folder = folder
        let lines = ["bind 127.0.0.1", "port \(port)", "dir \(folder)", "requirepass \(password)", "appendonly yes", "save \"\""] + extra
        child = try Child(
            try systemProgram("redis-server"), ["-"], log: folder + "/redis.log", folder: folder,
            input: Array((lines.joined(separator: "\n") + "\n").utf8))
        let isUp = await eventually(.seconds(10)) { (try? RawSocket(port: port)) != nil }
        guard isUp else { throw SystemError("redis-server did not start: \(child.output)", ECONNREFUSED) }
    }

    /// As an administrator stops it: data is written out.
    public func stop() async {
        child.send(SIGTERM)
        _ = await child.end()
    }

    public func destroy() async { await child.destroy() }

    public func withClient<T>(_ loop: EventLoop, _ body: (RedisClient) async throws -> T) async throws -> T {
        let client = RedisClient(url: try RedisURL(url), loop: loop)
        client.start()
        defer { client.close() }
        return try await body(client)
    }
}

public func withRedis<T>(extra: [String] = [], _ body: (RedisFixture) async throws -> T) async throws -> T {
    try await withFolder { folder in
        let redis = try await RedisFixture(folder: folder, extra: extra)
        let result: Result<T, any Error>
        do { result = .success(try await body(redis)) } catch { result = .failure(error) }
        await redis.destroy()
        return try result.get()
    }
}
