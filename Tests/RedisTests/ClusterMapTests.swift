import Basics
import EventLoops
import Sharding
import Testing

@testable import Redis

@Suite struct HashSlotTests {
    /// From the cluster's specification and `CLUSTER KEYSLOT` of a real server.
    @Test(arguments: [
        ("123456789", 12739), ("foo", 12182), ("{user1000}.following", 3443), ("user1000", 3443), ("foo{}{bar}", 8363),
        ("foo{{bar}}zap", 4015), ("{bar", 4015), ("", 0),
    ])
    func isRedis(key: String, slot: Int) {
        if key == "foo{{bar}}zap" {
            #expect(HashSlot.of(key) == HashSlot.of("{bar"))
        } else if key != "{bar" {
            #expect(HashSlot.of(key) == slot)
        }
    }
}

@Suite struct CommandTableTests {
    static let cases: [(RedisCommand, CommandTable.Target)] = [
        (RedisCommand("GET", "foo"), .slot(12182)), (RedisCommand("set", "foo", "1"), .slot(12182)), (RedisCommand("PING"), .any),
        (RedisCommand("CLUSTER INFO"), .any),
        (RedisCommand("MGET", "{a}1", "{a}2"), .slot(15495)), (RedisCommand("DEL", "a", "b"), .split("a", "b")),
        (RedisCommand("MSET", "{a}1", "v", "{a}2", "b"), .slot(15495)),
        (RedisCommand("EVAL", "return 1", "0"), .any), (RedisCommand("EVALSHA", "d", "2", "{a}x", "{a}y", "other"), .slot(15495)),
        (RedisCommand("EVAL", "return 1", "2", "a", "b"), .split("a", "b")),
        (RedisCommand("XREAD", "COUNT", "1", "STREAMS", "{a}1", "{a}2", "0", "0"), .slot(15495)),
        (RedisCommand("BLPOP", "{a}1", "{a}2", "1"), .slot(15495)), (RedisCommand("OBJECT ENCODING", "foo"), .slot(12182)),
        (RedisCommand("UNHEARD", "foo", "x"), .slot(12182)),
        (RedisCommand("INFO").routed(by: "foo"), .slot(12182)), (RedisCommand("BITOP", "AND", "{a}1", "{a}2"), .slot(15495)),
        (RedisCommand("EVAL", "x", "99", "foo"), .slot(12182)),
        (RedisCommand("GET"), .any),
    ]

    @Test(arguments: cases.indices) func findsKeys(i: Int) { #expect(CommandTable.target(of: Self.cases[i].0) == Self.cases[i].1) }

    @Test func readsAreRepeatableAndWritesAreNot() {
        #expect(
            RedisCommand("GET", "k").isRepeatable && RedisCommand("hgetall", "k").isRepeatable
                && RedisCommand("CLUSTER SLOTS").isRepeatable == false)
        #expect(
            !RedisCommand("INCR", "k").isRepeatable && !RedisCommand("EVALSHA", "d", "0").isRepeatable
                && RedisCommand("EVALSHA", "d", "0").repeatable().isRepeatable)
    }
}

@Suite struct SlotMapTests {
    private let asked = Endpoint("10.0.0.9:7000")!

    private func node(_ host: RESPValue, _ port: Int) -> RESPValue { .array([host, .int(port), .simple("id"), .array([])]) }
    private func range(_ from: Int, _ to: Int, _ nodes: [RESPValue]) -> RESPValue { .array([.int(from), .int(to)] + nodes) }

    @Test func readsRangesReplicasAndUnnamedHosts() throws {
        let map = try SlotMap(
            .array([
                range(0, 100, [node(.simple("10.0.0.1"), 7001), node(.simple("::1"), 7004)]), range(101, 16383, [node(.null, 7002)]),
            ]), asked: asked)
        #expect(map.shard(of: 50) == SlotMap.Shard(master: Endpoint("10.0.0.1:7001")!, replicas: [Endpoint("[::1]:7004")!]))
        #expect(map.shard(of: 16383)?.master == Endpoint("10.0.0.9:7002")! && map.covered == 16384)
    }

    @Test func aSlotMoves() throws {
        var map = try SlotMap(.array([range(0, 16383, [node(.simple("h"), 1)])]), asked: asked)
        map.move(7, to: Endpoint("h:2")!)
        #expect(map.shard(of: 7)?.master == Endpoint("h:2")! && map.shard(of: 8)?.master == Endpoint("h:1")!)
    }

    @Test func refusesWhatIsNoMap() {
        for wrong: RESPValue in [
            .null, .int(3), .array([.int(1)]), .array([range(5, 4, [node(.simple("h"), 1)])]),
            .array([range(0, 16384, [node(.simple("h"), 1)])]),
            .array([range(0, 1, [])]), .array([range(0, 1, [node(.simple("h"), 0)])]), .array([range(0, 1, [node(.simple("a b"), 1)])]),
            .array([range(-1, 1, [node(.simple("h"), 1)])]),
        ] { #expect(throws: SlotMap.Failure.self) { try SlotMap(wrong, asked: asked) } }
    }

    @Test func readsRedirections() {
        #expect(SlotMap.redirection("MOVED 3999 127.0.0.1:6381", asked: asked).map { "\($0.slot) \($0.to)" } == "3999 127.0.0.1:6381")
        #expect(SlotMap.redirection("ASK 3999 :6381", asked: asked)?.to == Endpoint("10.0.0.9:6381")!)
        #expect(SlotMap.redirection("MOVED 1 2001:db8::1:6381", asked: asked)?.to == Endpoint("[2001:db8::1]:6381")!)
        for wrong in ["MOVED", "MOVED x h:1", "MOVED 16384 h:1", "MOVED 1 h", "MOVED 1 h:0", "MOVED 1 h:99999"] {
            #expect(SlotMap.redirection(wrong, asked: asked) == nil)
        }
    }
}

@Suite struct RefreshPaceTests {
    @Test func oneQuestionAtATimeAndThenSlower() throws {
        var pace = RefreshPace(seed: 1)
        var now = MonotonicTime(nanoseconds: 1_000_000_000)
        let first = pace.doubt(now)
        #expect(first.map { $0 <= RefreshPace.eager } == true)
        #expect(pace.doubt(now) == nil)
        pace.asked()
        #expect(pace.doubt(now) == nil)
        // Doubted while the question was out: asked again although nothing waits.
        #expect(pace.answered(now, isSettled: true) != nil)
        pace.asked()
        for (since, gap) in [(0.5, RefreshPace.eager), (5, RefreshPace.steady), (60, RefreshPace.idle)] {
            let wait = pace.answered(now + .nanoseconds(Int64(since * 1e9)), isSettled: false)
            #expect(wait.map { $0 >= gap && $0 <= gap * 2 } == true)
            pace.asked()
        }
        now = now + .seconds(60)
        #expect(pace.answered(now, isSettled: true) == nil)
        #expect(pace.doubt(now) != nil)
    }
}

@Suite struct ReplicaAgeTests {
    @Test func aReplicaIsAsOldAsTheLastTimeWhoseOffsetItHas() {
        let start = MonotonicTime(nanoseconds: 0)
        var history = MasterOffsets()
        for (ms, offset) in [(0, 100), (200, 200), (400, 300)] { history.add(offset: offset, at: start + .milliseconds(Int64(ms))) }
        let now = start + .milliseconds(500)
        #expect(ReplicaLag(offset: 300).age(now: now, history: history) == .milliseconds(100))
        #expect(ReplicaLag(offset: 299).age(now: now, history: history) == .milliseconds(300))
        #expect(ReplicaLag(offset: 99).age(now: now, history: history) == nil)
        #expect(ReplicaLag().age(now: now, history: history) == nil)
        history.add(offset: 5, at: now)
        #expect(
            ReplicaLag(offset: 300).age(now: now, history: history) == .zero && ReplicaLag(offset: 4).age(now: now, history: history) == nil
        )
    }
}
