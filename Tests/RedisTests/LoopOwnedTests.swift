import Basics
import EventLoops
import Redis
import Synchronization
import TestSupport
import Testing

/// What belongs to a loop ends on it, wherever the last reference to its owner is dropped.
@Suite struct LoopOwnedTests {
    private final class Tally: Sendable {
        let onLoop = Atomic<Int>(0)
        let elsewhere = Atomic<Int>(0)
        var count: Int { onLoop.load(ordering: .relaxed) + elsewhere.load(ordering: .relaxed) }
    }

    private final class Witness {
        let loop: EventLoop
        let tally: Tally
        init(_ loop: EventLoop, _ tally: Tally) {
            self.loop = loop
            self.tally = tally
        }
        deinit {
            if loop.isCurrent { tally.onLoop.add(1, ordering: .relaxed) } else { tally.elsewhere.add(1, ordering: .relaxed) }
        }
    }

    @Test func aValueEndsOnItsLoop() async throws {
        try await withLoop { loop in
            let tally = Tally()
            await withTaskGroup(of: Void.self) { group in
                for i in 0..<200 {
                    // Ends when it has dropped its value.
                    group.addTask {
                        let owned = LoopOwned(Witness(loop, tally), on: loop)
                        if i % 2 == 0 { _ = try? await loop.run { owned.value.tally.count } }
                    }
                }
            }
            let all = await eventually { tally.count == 200 }
            #expect(all && tally.elsewhere.load(ordering: .relaxed) == 0)
        }
    }

    /// A client that is dropped without `close` answers what it was asked, and leaves no connection.
    @Test func aClientThatIsDroppedIsClosed() async throws {
        try await withRedis { redis in
            try await withLoop { loop in
                for _ in 0..<50 {
                    let tally = Tally()
                    do {
                        let client = RedisClient(url: try RedisURL(redis.url), loop: loop)
                        client.start()
                        _ = try await client.send(RedisCommand("PING"))
                        try await loop.run {
                            client.submit(RedisCommand("BLPOP", "none", "0")) { _ in tally.onLoop.add(1, ordering: .relaxed) }
                        }
                    }
                    let isAnswered = await eventually { tally.count == 1 }
                    #expect(isAnswered)
                }
                try await redis.withClient(loop) { client in
                    let isAlone = try await eventually {
                        (try await client.send(RedisCommand("CLIENT LIST")).string ?? "").split(whereSeparator: \.isNewline).count == 1
                    }
                    #expect(isAlone)
                }
            }
        }
    }
}
