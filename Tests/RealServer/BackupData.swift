import Basics
import EventLoops
import Provisioning
import Redis
import TestSupport
import Testing

/// Keys of every type, and what a test sees of all keys of some servers: read by itself, not by the code under test.
enum BackupData {
    static let library = "#!lua name=muster_test\nredis.register_function('answer', function() return 42 end)"

    static func client(_ url: String, _ loop: EventLoop) throws -> RedisClient {
        var options = RedisClient.Options()
        options.patience = .seconds(20)
        options.commandTime = .seconds(20)
        let client = RedisClient(url: try RedisURL(url), loop: loop, options: options)
        client.start()
        return client
    }

    /// Some hundred keys: every type in both of its forms, with times and without, names and values that are no text, keys with hash tags.
    static func fill(_ client: RedisClient) async throws {
        var commands: [RedisCommand] = []
        let binary: [UInt8] = (0...255).map { $0 }
        for i in 0..<60 {
            commands.append(RedisCommand("SET", "string:\(i)", String(repeating: "v\(i)", count: i * 7)))
            commands.append(RedisCommand("SET", "number:\(i)", String(i * i * 1_000_003)))
            commands.append(RedisCommand("SET", "timed:\(i)", "x", "PXAT", String(4_102_444_800_000 + i * 1237)))
            commands.append(RedisCommand("HSET", "hash:\(i)", "a", "1", "b", "\(i)"))
            commands.append(RedisCommand("RPUSH", "list:{\(i % 7)}:\(i)", "one", "two", String(repeating: "three", count: 50), "\(i)"))
            commands.append(RedisCommand("SADD", "set:\(i)", "1", "2", "\(i)"))
            commands.append(RedisCommand("ZADD", "zset:\(i)", "1.5", "a", "-inf", "b", "0.1", "c", "17976931348623157e292", "d"))
            commands.append(RedisCommand("XADD", "stream:\(i)", "5-\(i)", "field", "value", "other", "\(i)"))
            var odd = RedisCommand("SET")
            odd.add(binary + [UInt8(i)])
            odd.add(binary)
            commands.append(odd)
        }
        for i in 0..<3 {
            var hash = RedisCommand("HSET", "table:hash:\(i)"), set = RedisCommand("SADD", "table:set:\(i)"),
                zset = RedisCommand("ZADD", "table:zset:\(i)")
            for n in 0..<700 {
                for word in ["field:\(n)", "value:\(n * i)"] { hash.add(word) }
                set.add("member:\(n)")
                for word in [String(Double(n) * 1.1 + Double(i)), "member:\(n)"] { zset.add(word) }
            }
            commands += [hash, set, zset, RedisCommand("PEXPIREAT", "table:hash:\(i)", "4102444800123")]
        }
        commands += [
            RedisCommand("XGROUP CREATE", "stream:1", "workers", "0"), RedisCommand("XADD", "stream:1", "9-1", "f", "v"),
            RedisCommand("XREADGROUP", "GROUP", "workers", "alice", "COUNT", "1", "STREAMS", "stream:1", ">"),
            RedisCommand("XGROUP CREATECONSUMER", "stream:1", "workers", "bob"), RedisCommand("PFADD", "hyper", "a", "b", "c"),
            RedisCommand("SETBIT", "bits", "100001", "1"), RedisCommand("GEOADD", "places", "13.4", "52.5", "Berlin"),
        ]
        for result in await client.pipeline(commands) { _ = try result.get() }
    }

    /// One key of each type that is moved in pieces: above 4 MiB.
    static func fillLarge(_ client: RedisClient) async throws {
        var commands: [RedisCommand] = []
        for part in 0..<3 {
            let noise = (0..<4096).map { i in UInt8(truncatingIfNeeded: (i &* 2_654_435_761) >> 7 ^ part) }
            var command = RedisCommand("APPEND", "large:string")
            command.add((0..<768).flatMap { _ in noise })
            commands.append(command)
        }
        for part in 0..<24 {
            var hash = RedisCommand("HSET", "large:hash"), set = RedisCommand("SADD", "large:set"),
                zset = RedisCommand("ZADD", "large:zset")
            var list = RedisCommand("RPUSH", "large:list")
            for n in part * 100..<(part + 1) * 100 {
                let text = "\(n):" + String(repeating: "x", count: 2000)
                for word in ["field:\(n)", text] { hash.add(word) }
                set.add(text)
                for word in [String(Double(n) / 7), text] { zset.add(word) }
                list.add(text)
            }
            commands += [hash, set, zset, list]
        }
        commands.append(RedisCommand("PEXPIREAT", "large:hash", "4102444800321"))
        for result in await client.pipeline(commands) { _ = try result.get() }
    }

    static func take(_ session: ClusterSession, _ folder: String, fromReplicas: Bool = false) async throws -> BackupManifest {
        try await Backup.plan(session, folder: folder, fromReplicas: fromReplicas).take(session) { _ in }
    }

    /// Closes the session.
    static func restore(_ folder: String, _ session: ClusterSession, _ change: (inout Restore.Options) -> Void) async throws
        -> RestoreReport
    {
        defer { session.close() }
        var options = Restore.Options(folder: folder)
        change(&options)
        let restore = try await Restore.plan(session, options) { _ in }
        defer { restore.close() }
        return try await restore.run { _ in }
    }

    /// Key to content and time. What DUMP writes, byte by byte; of hash tables, whose order each server has for itself, the sorted
    /// elements; of lists the elements, because their nodes may be cut elsewhere.
    static func everything(_ urls: [String], _ loop: EventLoop) async throws -> [[UInt8]: [RESPValue]] {
        var found: [[UInt8]: [RESPValue]] = [:]
        for url in urls {
            let client = try client(url, loop)
            defer { client.close() }
            var cursor = "0"
            repeat {
                let answer = try await client.send(RedisCommand("SCAN", cursor, "COUNT", "200")).array ?? []
                let names = answer[1].array?.compactMap(\.bytes) ?? []
                let types = await client.pipeline(names.map { key("TYPE", $0) }),
                    times = await client.pipeline(names.map { key("PEXPIRETIME", $0) })
                for (i, name) in names.enumerated() {
                    let content: RESPValue
                    switch try types[i].get().string {
                    case "hash":
                        let flat = try await client.send(key("HGETALL", name)).array?.map { $0.bytes ?? [] } ?? []
                        let pairs = stride(from: 0, to: flat.count, by: 2).map { flat[$0] + [0] + flat[$0 + 1] }
                        content = .array(pairs.sorted { $0.lexicographicallyPrecedes($1) }.map { .bulk($0) })
                    case "set":
                        let members = try await client.send(key("SMEMBERS", name)).array?.map { $0.bytes ?? [] } ?? []
                        content = .array(members.sorted { $0.lexicographicallyPrecedes($1) }.map { .bulk($0) })
                    case "list":
                        var range = key("LRANGE", name)
                        for word in ["0", "-1"] { range.add(word) }
                        content = try await client.send(range)
                    default: content = try await client.send(key("DUMP", name))
                    }
                    found[name] = [try types[i].get(), try times[i].get(), content]
                }
                cursor = answer[0].string ?? "0"
            } while cursor != "0"
        }
        return found
    }

    private static func key(_ verb: String, _ name: [UInt8]) -> RedisCommand {
        var command = RedisCommand(verb)
        command.add(name)
        return command
    }

    static func expectEqual(_ a: [[UInt8]: [RESPValue]], _ b: [[UInt8]: [RESPValue]]) {
        #expect(a.count == b.count)
        for (name, content) in a where b[name] != content {
            let text = String(decoding: name.prefix(40), as: UTF8.self)
            Issue.record("'\(text)' differs: time \(content[1]) and \(b[name]?[1] ?? .null)")
        }
    }
}
