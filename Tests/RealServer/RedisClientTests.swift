import Basics
import EventLoops
import Observability
import Redis
import SharedState
import Synchronization
import TestSupport
import Testing

@Suite struct RedisClientTests {
    private func at<T>(_ loop: EventLoop, _ client: RedisClient, _ command: RedisCommand, _ read: (RESPValue) -> T) async throws -> T {
        read(try await client.send(command))
    }

    @Test func speaksRESP3AndPipelines() async throws {
        try await withRedis { redis in
            try await withLoop { loop in
                try await redis.withClient(loop) { client in
                    let results = await client.pipeline(
                        (0..<500).map { RedisCommand("SET", "k\($0)", "v\($0)") } + [RedisCommand("NO-SUCH"), RedisCommand("GET", "k499")])
                    #expect(results.count == 502)
                    #expect(try results[501].get().string == "v499")
                    if case .failure(let error) = results[500] {
                        #expect(error.code == .server && error.execution == .answered)
                    } else {
                        Issue.record("no error")
                    }
                    let protocolVersion = try await client.send(RedisCommand("CLIENT INFO")).string ?? ""
                    #expect(protocolVersion.contains("resp=3"))
                }
            }
        }
    }

    @Test func aScriptIsSentOnceItIsUnknown() async throws {
        try await withRedis { redis in
            try await withLoop { loop in
                try await redis.withClient(loop) { client in
                    let script = RedisScript("return tonumber(ARGV[1]) + 1")
                    let calls = (0..<5).map { i -> RedisCommand in
                        var call = script.call(keys: [])
                        call.add(i)
                        return call
                    }
                    #expect(try await client.run(script, calls).map { try $0.get().int } == [1, 2, 3, 4, 5])
                    _ = try await client.send(RedisCommand("SCRIPT FLUSH"))
                    #expect(try await client.run(script, calls).map { try $0.get().int } == [1, 2, 3, 4, 5])
                }
            }
        }
    }

    @Test func aWrongPasswordIsToldAndAnOutageIsSurvived() async throws {
        try await withFolder { folder in
            let redis = try await RedisFixture(folder: folder)
            try await withLoop { loop in
                let wrong = RedisClient(url: try RedisURL("redis://:wrong@127.0.0.1:\(redis.port)"), loop: loop)
                wrong.start()
                let refused = await #expect(throws: RedisError.self) { try await wrong.send(RedisCommand("PING")) }
                #expect(refused?.code == .authentication && refused?.message.contains("WRONGPASS") == true)
                // Between two attempts, too.
                for _ in 0..<20 {
                    let again = await #expect(throws: RedisError.self) { try await wrong.send(RedisCommand("PING")) }
                    #expect(again?.code == .authentication)
                    await loop.sleep(.milliseconds(5))
                }
                wrong.close()
                try await redis.withClient(loop) { client in
                    _ = try await client.send(RedisCommand("SET", "k", "v"))
                    await redis.stop()
                    let away = await #expect(throws: RedisError.self) { try await client.send(RedisCommand("PING")) }
                    #expect(away?.code == .unavailable || away?.code == .lost)
                    let again = try await RedisFixture(folder: folder, port: redis.port)
                    let back = await eventually { (try? await client.send(RedisCommand("GET", "k")).string) == "v" }
                    #expect(back)
                    await again.destroy()
                }
            }
        }
    }

    @Test func aServerThatHangsIsTimedOutAndWhatWasSentMayHaveRun() async throws {
        try await withFolder { folder in
            let redis = try await RedisFixture(folder: folder)
            try await withLoop { loop in
                var options = RedisClient.Options()
                options.commandTime = .milliseconds(300)
                let client = RedisClient(url: try RedisURL(redis.url), loop: loop, options: options)
                client.start()
                _ = try await client.send(RedisCommand("PING"))
                // A script that runs for a second stands for a hang.
                let busy = await #expect(throws: RedisError.self) {
                    try await client.send(
                        RedisCommand("EVAL", "local t = redis.call('TIME')[1] while redis.call('TIME')[1] - t < 2 do end return 1", "0"))
                }
                #expect(busy?.code == .timeout && busy?.execution == .maybeExecuted)
                client.close()
            }
            await redis.destroy()
        }
    }

    /// A store of state that is full refuses; nothing that it holds goes away.
    @Test func aFullStoreOfStateRefusesAndEvictsNothing() async throws {
        try await withRedis(extra: ["maxmemory 3mb", "maxmemory-policy noeviction"]) { redis in
            try await withLoop { loop in
                try await redis.withClient(loop) { client in
                    let value = String(repeating: "x", count: 10_000)
                    var stored = 0
                    var refusal: RedisError?
                    for i in 0..<1000 {
                        do throws(RedisError) { _ = try await client.send(RedisCommand("SET", "k\(i)", value)) } catch {
                            refusal = error
                            break
                        }
                        stored += 1
                    }
                    #expect(refusal?.serverCode == "OOM" && refusal?.execution == .notExecuted)
                    let size = try await client.send(RedisCommand("DBSIZE")).int
                    #expect(size == stored)
                }
            }
        }
    }
}
