import Basics
import EventLoops
import Gateway
import Glibc
import HTTP
import Observability
import Redis
import StackFile
import StackModel
import TestSupport
import Testing

/// Limits that several gateways count together, in a real Redis and without it.
@Suite struct SharedLimitTests {
    private struct Pair {
        let gateways: [Gateway]
        let client: HTTPClient

        func ask(_ i: Int, key: String) async throws -> HTTPClientResponse {
            try await client.send("GET", "/", to: .address(gateways[i % gateways.count].address!), headers: [("X-Key", key)])
        }

        /// How many of so many requests with a key of their own, sent to the gateways in turn, were let through; and the answer to one
        /// more.
        func allowed(of count: Int) async throws -> (allowed: Int, last: HTTPClientResponse) {
            let key = "key-\(UInt64.random(in: 0 ... .max))"
            var allowed = 0
            for i in 0..<count { if try await ask(i, key: key).status == 200 { allowed += 1 } }
            return (allowed, try await ask(0, key: key))
        }

        /// The same, with nothing counted here: a call may take too long on a busy machine, and then it is done again.
        func together(of count: Int) async throws -> (allowed: Int, last: HTTPClientResponse)? {
            for _ in 0..<50 {
                let before = counter("gateway_limit_local_total")
                let result = try await allowed(of: count)
                if counter("gateway_limit_local_total") == before { return result }
                try await Task.sleep(for: .milliseconds(200))
            }
            return nil
        }

        func counter(_ name: String) -> Int { gateways.reduce(0) { $0 + $1.metrics.counter(name, "").current } }
        /// What was told of the store, by one of them.
        func told(_ i: Int) -> [String] { gateways[i].journal.entries(subject: "limit-store").map(\.record.outcome) }
    }

    private func withGateways(_ limit: String, store: String, count: Int = 2, _ body: (Pair) async throws -> Void) async throws {
        try await withLoop { loop in
            let text = """
                gateway:
                  listen: 127.0.0.1:1
                  limit-store: "\(store)"
                  routes:
                    - { path: /, limit: [\(limit)], answer: { body: x } }
                """
            let spec = try #require(try Stack.read(Array(text.utf8), path: "test.yaml").gateway)
            let logger = Logger(level: .error, format: .text, descriptor: 2, immediate: true)
            var gateways: [Gateway] = []
            defer { for gateway in gateways { gateway.stop() } }
            for _ in 0..<count {
                let gateway = try Gateway(spec, metrics: MetricsRegistry(), journal: Journal(), logger: logger, accessLog: -1)
                gateways.append(gateway)
                try await gateway.apply(spec) { _ in [] }
                try await gateway.listen(on: .loopback(port: 0))
            }
            let client = HTTPClient(loop: loop)
            let pair = Pair(gateways: gateways, client: client)
            let result: Result<Void, any Error>
            do { result = .success(try await body(pair)) } catch { result = .failure(error) }
            client.close()
            for gateway in gateways { _ = await gateway.drain(grace: .milliseconds(100)) }
            try result.get()
        }
    }

    /// One in an hour and nine at once: what is let through does not depend on how long a test takes.
    private let limit = "{ rate: 1/h, burst: 9, by: \"header:X-Key\", shared: true }"

    @Test func twoGatewaysTogetherKeepTheRate() async throws {
        try await withRedis { redis in
            try await withGateways(limit, store: redis.url) { pair in
                let result = try #require(try await pair.together(of: 30))
                #expect(result.allowed == 10)
                #expect(
                    result.last.status == 429 && result.last.header("ratelimit-limit") == "10"
                        && result.last.header("ratelimit-remaining") == "0")
                let wait = Int(result.last.header("retry-after") ?? "") ?? 0
                #expect(wait > 3500 && wait <= 3600 && pair.counter("gateway_limit_calls_total") > 0)
            }
        }
    }

    /// A request that one limit refuses costs none of the others anything: two shared ones in either order, and a shared one beside one that
    /// the gateway counts by itself.
    @Test(arguments: [(true, true), (true, false), (false, true)]) func aRefusedRequestIsFree(each: Bool, all: Bool) async throws {
        let one = "{ rate: 1/h, burst: 1, by: \"header:X-Key\"\(each ? ", shared: true" : "") }"
        let whole = "{ rate: 1/h, burst: 8, by: route\(all ? ", shared: true" : "") }"
        for limits in ["\(one), \(whole)", "\(whole), \(one)"] {
            // A call may take too long on a busy machine, and is counted here then: a new store, and once more.
            var seen: [Int] = [], isTogether = false
            for _ in 0..<20 where !isTogether {
                try await withRedis { redis in
                    try await withGateways(limits, store: redis.url, count: 1) { pair in
                        seen = []
                        for name in ["a", "a", "a", "a", "b", "b", "b", "c", "c", "c", "d", "d", "d", "e", "f"] {
                            seen.append(try await pair.ask(0, key: name).status)
                        }
                        isTogether = pair.counter("gateway_limit_local_total") == 0
                    }
                }
            }
            // Two of each key, nine in all: what was refused for its key has taken none of the nine.
            let expected = [200, 200, 429, 429, 200, 200, 429, 200, 200, 429, 200, 200, 429, 200, 429]
            #expect(isTogether && seen == expected, "\(limits): \(seen)")
        }
    }

    /// Redis' clock may go back, with another master: what was written by the clock before holds nobody up for longer than the limit does.
    @Test func aClockThatGoesBackHoldsNobodyUp() async throws {
        try await withRedis { redis in
            try await withGateways("{ rate: 10/s, burst: 0, by: route, shared: true }", store: redis.url, count: 1) { pair in
                try await withLoop { loop in
                    try await redis.withClient(loop) { client in
                        /// Whether the store, and not the gateway, has let one through.
                        func isAllowed() async throws -> Bool {
                            let before = pair.counter("gateway_limit_local_total")
                            return try await pair.ask(0, key: "a").status == 200 && pair.counter("gateway_limit_local_total") == before
                        }
                        let isCounted = try await eventually { try await isAllowed() }
                        let names = try await client.send(RedisCommand("KEYS", SharedLimitTests.tag + "/*")).array ?? []
                        #expect(isCounted && names.count == 1)
                        let name = try #require(names.first?.string)
                        let time = try await client.send(RedisCommand("TIME")).array?.compactMap { $0.string.flatMap { Int($0) } } ?? []
                        let ahead = try #require(time.first) + 3600
                        _ = try await client.send(RedisCommand("SET", name, "\(ahead)000000", "EX", "7200"))
                        _ = try await client.send(RedisCommand("ZADD", SharedLimitTests.tag + "gateways", "\(ahead)", "gone"))
                        let isBack = try await eventually { try await isAllowed() }
                        #expect(isBack)
                        // Nor does a gateway that has gone count for an hour.
                        let members = try await client.send(RedisCommand("ZCARD", SharedLimitTests.tag + "gateways")).int
                        #expect(members == 1)
                    }
                }
            }
        }
    }

    private static let tag = "{muster:limit}:"

    /// Half of the rate and of the burst each; told once; and together again when Redis is back.
    @Test func withoutRedisEachCountsItsShare() async throws {
        try await withFolder { folder in
            let redis = try await RedisFixture(folder: folder)
            try await withGateways(limit, store: redis.url) { pair in
                // Twice, so that each has been told of the other.
                for _ in 0..<2 { _ = try #require(try await pair.together(of: 4)) }
                await redis.stop()
                let away = try await eventually {
                    for i in 0..<2 { _ = try await pair.ask(i, key: "warm") }
                    return pair.told(0).last == "count here" && pair.told(1).last == "count here"
                }
                #expect(away)
                let before = pair.counter("gateway_limit_local_total")
                let alone = try await pair.allowed(of: 30)
                #expect(alone.allowed == 10 && alone.last.status == 429)
                #expect(pair.counter("gateway_limit_local_total") == before + 31)
                let sentence = pair.gateways[0].journal.entries(subject: "limit-store").last?.record.sentence ?? ""
                #expect(sentence.contains("1/2 of each rate") && !sentence.contains(redis.password))
                let again = try await RedisFixture(folder: folder, port: redis.port)
                let back = try await eventually {
                    for i in 0..<2 { _ = try await pair.ask(i, key: "warm") }
                    return pair.told(0).last == "count in Redis" && pair.told(1).last == "count in Redis"
                }
                #expect(back)
                let result = try await pair.together(of: 30)
                #expect(result?.allowed == 10)
                await again.destroy()
            }
            await redis.destroy()
        }
    }

    /// A password that Redis does not take is an outage like another.
    @Test func aStoreThatRefusesIsAway() async throws {
        try await withRedis { redis in
            try await withGateways(limit, store: "redis://:wrong@127.0.0.1:\(redis.port)", count: 1) { pair in
                let result = try await pair.allowed(of: 15)
                #expect(result.allowed == 10 && pair.told(0) == ["count here"] && pair.counter("gateway_limit_local_total") == 16)
            }
        }
    }
}
