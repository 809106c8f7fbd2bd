import Basics
import EventLoops
import Measurement
import Redis
import RedisStores
import TestSupport
import Testing

@Suite struct RedisMeterTests {
    private func value(_ client: RedisClient, _ key: String, _ kind: RedisMeter.Kind) async throws -> MeterFigure {
        try (await RedisMeter(client, key: key, kind: kind).read()).get()
    }

    private func fault(_ client: RedisClient, _ key: String, _ kind: RedisMeter.Kind) async -> MeterFault.Kind? {
        if case .failure(let fault) = await RedisMeter(client, key: key, kind: kind).read() { fault.kind } else { nil }
    }

    @Test func lengthsAndBacklogsAreCounted() async throws {
        try await withRedis { redis in
            try await withLoop { loop in
                try await redis.withClient(loop) { client in
                    for i in 0..<5 { _ = try await client.send(RedisCommand("RPUSH", "list", "\(i)")) }
                    for i in 0..<3 { _ = try await client.send(RedisCommand("ZADD", "set", "\(i)", "m\(i)")) }
                    for i in 1...10 { _ = try await client.send(RedisCommand("XADD", "stream", "\(i)-0", "f", "v")) }
                    _ = try await client.send(RedisCommand("XGROUP", "CREATE", "stream", "group", "0"))
                    #expect(try await value(client, "list", .list).value == 5)
                    #expect(try await value(client, "none", .list).value == 0)
                    #expect(try await value(client, "set", .sortedSet).value == 3)
                    #expect(try await value(client, "stream", .stream).value == 10)
                    #expect(try await value(client, "stream", .group("group")).value == 10)
                    // Read four, acknowledge one: six are unread, three pending.
                    _ = try await client.send(RedisCommand("XREADGROUP", "GROUP", "group", "me", "COUNT", "4", "STREAMS", "stream", ">"))
                    _ = try await client.send(RedisCommand("XACK", "stream", "group", "1-0"))
                    let figure = try await value(client, "stream", .group("group"))
                    #expect(figure.value == 9 && figure.unit == .count && figure.note.isEmpty)
                    // An entry in between is deleted: Redis no longer knows the lag, and all entries are counted.
                    _ = try await client.send(RedisCommand("XDEL", "stream", "7-0"))
                    let bound = try await value(client, "stream", .group("group"))
                    #expect(bound.value == 9 && bound.note.contains("does not know the lag"))
                    let kinds = [
                        await fault(client, "stream", .group("nobody")), await fault(client, "missing", .group("group")),
                        await fault(client, "set", .list),
                        await fault(client, "list", .group("group")),
                    ]
                    #expect(kinds == [.absent, .absent, .wrongType, .wrongType])
                }
            }
        }
    }

    @Test func aServerThatIsAwayIsTold() async throws {
        try await withRedis { redis in
            try await withLoop { loop in
                try await redis.withClient(loop) { client in
                    let before = try await value(client, "list", .list).value
                    #expect(before == 0)
                    await redis.stop()
                    let isTold = await eventually { await fault(client, "list", .list) == .unreachable }
                    #expect(isTold)
                }
            }
        }
    }
}
