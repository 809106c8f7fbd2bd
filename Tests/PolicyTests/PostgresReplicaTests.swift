import Basics
import PostgresRouting
import Testing

/// Which replica a read goes to, and what a client's own write asks of it.
@Suite struct PostgresReplicaTests {
    private let now = MonotonicTime(nanoseconds: 100_000_000_000)
    private let primary = TimelinePlace(timeline: 3, flushed: LogPosition(1 << 30), forks: [1: LogPosition(1000), 2: LogPosition(5000)])

    private func replica(
        _ name: String = "main/2", isStreaming: Bool = true, timeline: UInt32 = 3, received: UInt64 = 1 << 30, replayed: UInt64 = 1 << 30,
        lastCommit: Duration? = .seconds(60), probed: Duration = .zero, outstanding: Int = 0, isEjected: Bool = false
    ) -> ReplicaState {
        ReplicaState(
            name: name, isStreaming: isStreaming, timeline: timeline, received: LogPosition(received), replayed: LogPosition(replayed),
            lastCommit: lastCommit, probedAt: MonotonicTime(nanoseconds: now.nanoseconds - probed.nanoseconds), outstanding: outstanding,
            isEjected: isEjected)
    }

    private func choose(
        _ replicas: [ReplicaState], floor: LogPosition? = nil, waited: Duration = .zero, reads: Int = 0, seed: UInt64 = 1
    ) -> Decision<ReplicaChoice.Place> {
        var random = SeededRandom(seed: seed)
        return ReplicaChoice().choose(
            replicas, primary: primary, floor: floor, waited: waited, primaryReads: reads, primaryPool: 10, store: "main", now: now,
            random: &random)
    }

    @Test func aReplicaIsEligibleUpToItsBounds() {
        let choice = ReplicaChoice(), behind: UInt64 = 1 << 30 - 1
        func unfit(_ replica: ReplicaState, floor: LogPosition? = nil) -> ReplicaChoice.Unfit? {
            choice.unfit(replica, primary: primary, floor: floor, now: now)
        }
        #expect(unfit(replica()) == nil)
        #expect(unfit(replica(isStreaming: false)) == .notStreaming && unfit(replica(timeline: 2)) == .otherTimeline)
        #expect(unfit(replica(probed: .seconds(1))) == nil && unfit(replica(probed: .milliseconds(1001))) == .notProbed)
        #expect(unfit(replica(replayed: behind, lastCommit: .seconds(5))) == nil)
        #expect(unfit(replica(replayed: behind, lastCommit: .milliseconds(5001))) == .lagging)
        #expect(unfit(replica(replayed: behind, lastCommit: .seconds(5), probed: .milliseconds(1))) == .lagging, "it has grown since")
        #expect(unfit(replica(replayed: behind, lastCommit: nil)) == .lagUnknown)
        let most: UInt64 = 1 << 30 - 16 << 20
        #expect(unfit(replica(received: most, replayed: most)) == nil)
        #expect(
            unfit(replica(received: most - 1, replayed: most - 1)) == .laggingBytes,
            "all that it received is replayed, and yet it is behind")
        #expect(unfit(replica(isEjected: true)) == .ejected)
        #expect(unfit(replica(), floor: LogPosition(1 << 30)) == nil && unfit(replica(), floor: LogPosition(1 << 30 + 1)) == .belowFloor)
        #expect(replica(replayed: UInt64.max).lagBytes(primary: LogPosition(0)) == 0)
    }

    @Test func theLessLoadedOfTwoIsRead() {
        let two = [replica("a", outstanding: 3), replica("b", outstanding: 2)]
        for seed in 0..<20 { #expect(choose(two, seed: UInt64(seed)).result == .replica(1, staleness: .zero)) }
        // Of many, each is drawn, and the most loaded never.
        let many = (0..<6).map { replica("r\($0)", outstanding: $0) } + [replica("gone", isStreaming: false)]
        var seen: Set<Int> = []
        for seed in 0..<300 {
            guard case .replica(let place, _) = choose(many, seed: UInt64(seed)).result else { continue }
            seen.insert(place)
        }
        #expect(seen == [0, 1, 2, 3, 4])
    }

    @Test func aReadWaitsForItsFloorAndThenGoesToThePrimary() {
        let floor = LogPosition(1 << 30 + 1), one = [replica()]
        #expect(choose(one, floor: floor).result == .wait(poll: .milliseconds(5)))
        #expect(choose(one, floor: floor, waited: .milliseconds(49)).result == .wait(poll: .milliseconds(5)))
        #expect(choose(one, floor: floor, waited: .milliseconds(50)).result == .primary)
        #expect(choose([replica(isStreaming: false)], floor: floor).result == .primary, "nothing to wait for")
        #expect(choose([]).result == .primary && choose([], reads: 4).result == .primary && choose([], reads: 5).result == .line)
        let decision = choose([replica(timeline: 1)], reads: 5)
        #expect(decision.record.inputs.first?.value == ReplicaChoice.Unfit.otherTimeline.rawValue && decision.record.outcome == "line")
    }

    // MARK: tokens

    @Test func aTokenIsReadBackAsItWasWritten() throws {
        let token = try #require(ConsistencyToken(store: "main-db_1", timeline: 7, position: LogPosition(0x16_B374_D848)))
        #expect("\(token)" == "1.main-db_1.7.16b374d848" && ConsistencyToken(text: "\(token)") == token)
        #expect(LogPosition(text: "16/B374D848")?.description == "16/B374D848" && LogPosition(text: "0/0")?.bytes == 0)
        for wrong in ["", "/", "1", "1/2/3", "x/1", "1/123456789", "+1/2", "-1/2", "1/ 2", "0x1/2"] {
            #expect(LogPosition(text: wrong) == nil, "\(wrong)")
        }
    }

    @Test func whatIsNoTokenIsRefused() {
        for wrong in [
            "", "1", "1.main.1", "2.main.1.ff", "1.main.0.ff", "1.main.-1.ff", "1.main.+1.ff", "1.main.4294967296.ff", "1.main.1.",
            "1.main.1.fg",
            "1.main.1.11112222333344445", "1..1.ff", "1.Main.1.ff", "1.ma in.1.ff", "1.main.1.ff.", "1.main.1.0xff", "1.mäin.1.ff",
            "1.\(String(repeating: "a", count: 64)).1.ff", "1.main.00000000001.ff",
        ] {
            #expect(ConsistencyToken(text: wrong) == nil, "\(wrong)")
        }
        #expect(ConsistencyToken(store: "a.b", timeline: 1, position: LogPosition(0)) == nil)
        #expect(ConsistencyToken(store: "a", timeline: 0, position: LogPosition(0)) == nil)
        #expect(ConsistencyToken(text: "1.main.4294967295.ffffffffffffffff")?.position.bytes == .max)
    }

    @Test func theLargestOfAStoreWins() {
        let tokens = ConsistencyTokens(text: "1.b.1.5~1.a.2.1~1.a.1.ffff~nonsense~1.b.1.4~")
        #expect("\(tokens)" == "1.a.2.1~1.b.1.5" && tokens.refused == 2)
        #expect(ConsistencyTokens(text: "").isEmpty && ConsistencyTokens(text: "").refused == 0)
        #expect(ConsistencyTokens(text: String(repeating: "1.a.1.1~", count: 200)).refused == 1, "too long")
        let many = ConsistencyTokens(text: (0..<20).map { "1.s\($0).1.1" }.joined(separator: "~"))
        #expect(many.refused == 4)
        var full = many
        full.note(ConsistencyToken(store: "another", timeline: 1, position: LogPosition(1))!)
        #expect(full["another"] == nil && full.refused == 5 && full["s3"] != nil)
        full.drop("s3")
        #expect(full["s3"] == nil)
    }

    @Test func aTokenIsHeldAgainstTheLog() {
        func floor(_ timeline: UInt32, _ position: UInt64) -> TimelinePlace.Floor {
            primary.floor(of: ConsistencyToken(store: "main", timeline: timeline, position: LogPosition(position))!)
        }
        #expect(floor(3, 1 << 30) == .replayed(LogPosition(1 << 30)) && floor(3, 0) == .replayed(LogPosition(0)))
        if case .invalid = floor(3, 1 << 30 + 1) {} else { Issue.record("above the primary's position") }
        #expect(floor(2, 5000) == .replayed(LogPosition(5000)), "written before the fork")
        if case .primaryAndDropped = floor(2, 5001) {} else { Issue.record("written after the fork") }
        if case .primary = floor(4, 1) {} else { Issue.record("a timeline that is not known yet") }
        let other = TimelinePlace(timeline: 9, flushed: LogPosition(10))
        if case .primaryAndDropped = other.floor(of: ConsistencyToken(text: "1.main.2.1")!) {} else { Issue.record("not an ancestor") }
    }
}
