import Basics
import PostgresFailover
import Testing

@Suite struct PostgresFailoverTests {
    typealias Standby = HeirChoice.Standby

    private func lost(position: UInt64? = 1000, quorum: Int = 1, wanted: Int? = nil) -> HeirChoice.Lost {
        .init(store: "db", number: 1, timeline: 3, position: position.map { WALPosition($0) }, quorum: quorum, wanted: wanted)
    }

    private func standby(_ number: Int, _ position: UInt64?, timeline: UInt32? = 3, sync: Bool = false, bound: UInt64? = nil) -> Standby {
        .init(
            number, position: position.map { WALPosition($0) }, timeline: timeline, isSynchronous: sync,
            bound: bound.map { WALPosition($0) })
    }

    private func choose(_ lost: HeirChoice.Lost, _ standbys: [Standby], maxLoss: UInt64 = 100) -> (Int?, String) {
        let choice = HeirChoice.choose(after: lost, among: standbys, maxLoss: maxLoss)
        return (choice.result, choice.record.sentence)
    }

    @Test func theMostAdvancedTakesOver() {
        #expect(choose(lost(), [standby(2, 950), standby(3, 960)]).0 == 3)
        #expect(choose(lost(), [standby(2, 960), standby(3, 960)]).0 == 2)
        #expect(choose(lost(), [standby(2, 960), standby(3, 960, sync: true)]).0 == 3)
        // Exactly max-loss behind is taken, one byte more is not.
        #expect(choose(lost(), [standby(2, 900), standby(3, 900)]).0 == 2)
        let (heir, why) = choose(lost(), [standby(2, 899), standby(3, 0)])
        #expect(heir == nil && why.contains("101 bytes behind, more than max-loss (100)"))
    }

    @Test func whoeverMayAloneHaveAWriteIsMissed() {
        let (heir, why) = choose(lost(), [standby(2, 990), standby(3, nil)])
        #expect(heir == nil && why.contains("db/3 did not answer"))
        #expect(choose(lost(quorum: 0), [standby(2, 990), standby(3, nil)]).0 == 2)
        // It ended before the heir had what it has.
        #expect(choose(lost(), [standby(2, 990), standby(3, nil, bound: 990)]).0 == 2)
        #expect(choose(lost(), [standby(2, 990), standby(3, nil, bound: 991)]).0 == nil)
        // With two of three, one may be missing.
        #expect(choose(lost(quorum: 2), [standby(2, 990), standby(3, 980), standby(4, nil)]).0 == 2)
    }

    @Test func anotherTimelineIsNoHeir() {
        #expect(choose(lost(), [standby(2, 1000, timeline: 2), standby(3, 990)]).0 == nil)
        #expect(choose(lost(), [standby(2, 980, timeline: 2), standby(3, 990)]).0 == 3)
        let (heir, why) = choose(lost(), [standby(2, 1000, timeline: 2)])
        #expect(heir == nil && why.contains("no standby that answers is on its timeline (3)"))
        #expect(choose(lost(), []).1.contains("no standby answers"))
    }

    @Test func whatIsNotKnownOfThePrimaryIsNotGuessed() {
        let (heir, why) = choose(lost(position: nil), [standby(2, 990), standby(3, 990)])
        #expect(heir == nil && why.contains("how far it was is not known"))
        #expect(choose(lost(position: nil, wanted: 3), [standby(2, 990), standby(3, 10)]).0 == 3)
        #expect(choose(lost(wanted: 3), [standby(2, 990), standby(3, nil)]).0 == nil)
    }

    @Test func aRecordIsReadAsItWasWritten() throws {
        var record = StoreRecord(primary: 2, term: 7, step: .promoting, hasServed: true)
        #expect(try StoreRecord(text: record.text, nodes: 3) == record)
        record.timeline = 4
        record.fork = WALPosition(text: "2/F0000000")
        record.toRewind = [1, 3]
        record.toClone = [2]
        #expect(try StoreRecord(text: record.text, nodes: 3) == record)
        // A node that the stack file does not have any more.
        #expect(try StoreRecord(text: record.text, nodes: 2).toRewind == [1])
    }

    @Test(arguments: [
        ("", "another version"), ("version 2\nend", "another version"), ("version 1\nprimary 1", "its end is missing"),
        ("version 1\nprimary 4\nend", "none of the 3 nodes"), ("version 1\nprimary 1\nterm -1\nstep leading\nserved true\nend", "its term"),
        ("version 1\nprimary 1\nterm 1\nstep x\nserved true\nend", "its term, step"),
        ("version 1\nprimary 1\nterm 1\nstep leading\nserved true\ntimeline 99999999999\nend", "its timeline is no number"),
        ("version 1\nprimary 1\nterm 1\nstep leading\nserved true\nfork 0-1\nend", "no position of a log"),
        ("version 1\nprimary 1\nterm 1\nstep leading\nserved true\nrewind 1,x\nend", "'x' is no number"),
    ]) func aRecordThatIsNoneIsNotGuessed(text: String, why: String) {
        #expect {
            _ = try StoreRecord(text: text, nodes: 3)
        } throws: {
            "\($0)".contains(why)
        }
    }

    @Test func positionsAreReadAndWritten() {
        #expect(WALPosition(text: "0/16B3748")?.bytes == 0x16B_3748)
        #expect(WALPosition(text: "A/0")?.description == "A/0")
        #expect(WALPosition(text: "FFFFFFFF/FFFFFFFF")?.bytes == .max)
        for text in ["", "/", "0", "0/", "/0", "0/1/2", "+1/0", "0/-1", "123456789/0", "g/0"] { #expect(WALPosition(text: text) == nil) }
        #expect(WALPosition(5).bytes(beyond: WALPosition(7)) == 0 && WALPosition(7).bytes(beyond: WALPosition(5)) == 2)
    }

    @Test func aDetectionLeavesASecondForTheRest() {
        func interval(_ failover: Duration) -> Duration {
            FailoverMachine.Settings(name: "db", nodes: 3, quorum: 1, relax: nil, maxLoss: 0, failover: failover).probeInterval
        }
        #expect(interval(.seconds(3)) == .milliseconds(500))
        #expect(interval(.seconds(1)) == .milliseconds(50))
    }

    /// The primary is down, and a person gives up what only it has.
    @Test func aForcedPromotionIsAPersonsWish() {
        let settings = FailoverMachine.Settings(name: "db", nodes: 2, quorum: 1, relax: nil, maxLoss: 0, failover: .seconds(3))
        var machine = FailoverMachine(settings, record: StoreRecord(primary: 1, term: 2, hasServed: true))
        let now = MonotonicTime(nanoseconds: 1_000_000_000)
        _ = machine.handle(.began(2), now: now)
        guard case .answered(let refusal?) = machine.handle(.ordered(.promote(2, isForced: false)), now: now).last else {
            Issue.record("not refused")
            return
        }
        #expect(refusal.contains("--force"))
        let actions = machine.handle(.ordered(.promote(2, isForced: true)), now: now)
        guard case .fence(let attempt, 1, _) = actions.last else {
            Issue.record("\(actions)")
            return
        }
        let asked = machine.handle(.fenced(attempt: attempt, .confirmed(clean: WALPosition(500))), now: now)
        guard case .ask(let asking, 2) = asked.last else {
            Issue.record("\(asked)")
            return
        }
        let report = NodeReport(.standby, timeline: 1, position: WALPosition(10))
        let promotion = machine.handle(.position(attempt: asking, node: 2, report), now: now)
        guard case .promote(_, 2, let kept) = promotion.last else {
            Issue.record("\(promotion)")
            return
        }
        #expect(kept.primary == 2 && kept.term == 3 && kept.step == .promoting && kept.toRewind == [1])
    }
}
