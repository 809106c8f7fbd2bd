import Basics
import Testing

@testable import Sharding

/// Who takes over from a dead master: only a replica that has a whole copy, and had it when the master died.
@Suite struct HeirTests {
    /// The lines of `INFO replication` of a replica, as Redis 7.0 prints them; nil leaves a line out.
    private func info(
        role: String? = "slave", link: String? = "down", syncs: String? = "0", offset: String? = "5000", away: String? = "0"
    ) -> ReplicaCopy {
        let lines = [
            ("role", role), ("master_link_status", link), ("master_sync_in_progress", syncs), ("slave_repl_offset", offset),
            ("master_link_down_since_seconds", away),
        ]
        let text = lines.compactMap { name, value in value.map { "\(name):\($0)\r\n" } }.joined()
        return ReplicaCopy(info: "# Replication\r\n" + text)
    }

    private func heir(_ candidates: [(String, ReplicaCopy)], after: Duration = .milliseconds(300)) -> Decision<String?> {
        Heir.choose(
            of: "state/1", slots: SlotSet([0...99]), sinceDeath: after, among: candidates.map { .init(name: $0.0, copy: $0.1) })
    }

    @Test func aCopyIsWholeOnlyWhenTheReplicaSaysAllOfIt() {
        #expect(info() == .whole(offset: 5000, away: 0))
        #expect(info(link: "up", away: nil) == .whole(offset: 5000, away: nil))
        // In step with a master that has written nothing yet.
        #expect(info(link: "up", offset: "0", away: nil) == .whole(offset: 0, away: nil))
        let lacking: [ReplicaCopy] = [
            // What Redis prints before the first copy is whole, and after one that was cut off.
            info(offset: "1", away: "-1"), info(offset: "1"), info(offset: "0"), info(away: "-1"),
            // A copy anew, with the position in the stream before it.
            info(syncs: "1"), info(link: "up", syncs: "1"),
            info(role: "master"), info(role: nil), info(link: nil), info(syncs: nil), info(offset: nil), info(away: nil),
            info(offset: "x"), info(offset: "99999999999999999999"), info(away: "-"), info(syncs: ""), ReplicaCopy(info: ""),
        ]
        for copy in lacking { #expect(copy.offset == nil && copy.flaw != nil, "\(copy)") }
    }

    @Test func nobodyWithoutACopyTakesOver() {
        let decision = heir([("state/4", info(syncs: "1", offset: "1", away: "-1")), ("state/5", info(offset: "1"))])
        #expect(decision.result == nil)
        #expect(decision.record.sentence.contains("state/4 is still copying"), "\(decision.record.sentence)")
        #expect(decision.record.sentence.contains("started again with its own data"))
        #expect(heir([]).record.sentence.contains("no replica of it answers"))
        // The one with less has at least a copy.
        #expect(heir([("state/4", info(syncs: "1", offset: "9000")), ("state/5", info(offset: "20"))]).result == "state/5")
    }

    @Test func whoLostTheMasterBeforeItDiedLacksWhatCameAfter() {
        #expect(heir([("state/4", info(away: "2"))]).result == "state/4")
        let late = heir([("state/4", info(away: "3600"))])
        #expect(late.result == nil && late.record.sentence.contains("3600 s ago"), "\(late.record.sentence)")
        #expect(heir([("state/4", info(away: "3"))]).result == nil)
        #expect(heir([("state/4", info(away: "3"))], after: .seconds(1)).result == "state/4")
        #expect(heir([("state/4", info(away: "\(Int.max)"))], after: .seconds(Int64.max / 1_000_000_000)).result == nil)
    }

    @Test func theMostAdvancedIsChosen() {
        let three = [("state/5", info(offset: "70")), ("state/4", info(offset: "90")), ("state/6", info(offset: "90"))]
        #expect(heir(three).result == "state/4")
        #expect(heir(three).record.sentence.contains("20 bytes behind"))
    }
}
