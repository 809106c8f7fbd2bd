import Sharding
import Testing

@Suite struct DiagnosisTests {
    private let a = ClusterNodesTests.a, b = ClusterNodesTests.b, c = ClusterNodesTests.c, d = String(repeating: "d", count: 40)

    /// Two masters with a replica each; `mine` and `yours` stand at the end of the masters' own lines.
    private func view(_ mine: String = "0-8191", _ yours: String = "8192-16383", epoch: Int = 2, hide: String? = nil) throws -> ClusterView
    {
        func text(_ me: String) -> String {
            var out = ""
            for (id, port, flags, master, epoch, slots) in [
                (a, 1, "master", "-", 1, mine), (b, 2, "master", "-", epoch, yours), (c, 3, "slave", a, 1, ""),
                (d, 4, "slave", b, epoch, ""),
            ] where id == me || id != hide {
                let shown = id == me ? slots : slots.split(separator: " ").filter { !$0.hasPrefix("[") }.joined(separator: " ")
                out += ClusterNodesTests.line(id, port, id == me ? "myself,\(flags)" : flags, master: master, epoch: epoch, shown)
            }
            return out
        }
        return try ClusterNodesTests.view([a, b, c, d].filter { $0 != hide }.map(text))
    }

    @Test func nothingIsFoundInAWholeCluster() throws { #expect(Diagnosis(try view()).findings == []) }

    @Test func anOpenSlotWithKeysMovesData() throws {
        let open = try view("0-8191 [7->-\(b)]", "8192-16383 [7-<-\(a)]")
        let found = Diagnosis(open, keys: [7: [a: 3]]).findings
        #expect(found.map(\.name) == ["open-slot"] && found[0].risk == .moves && found[0].remedy == .settle(slot: 7, .move(from: a, to: b)))
        let empty = Diagnosis(open, keys: [7: [:]]).findings
        #expect(empty.map(\.risk) == [.safe])
        let one = Diagnosis(try view("0-8191", "8192-16383 [7-<-\(a)]"), keys: [7: [a: 3]]).findings
        #expect(one.map(\.remedy) == [.settle(slot: 7, .close([b]))])
    }

    @Test func slotsOfNobodyAreSafeToGiveOnlyWhenEveryoneAnswers() throws {
        let found = Diagnosis(try view("0-8190")).findings
        #expect(found.map(\.name) == ["unassigned-slots"] && found[0].risk == .safe && found[0].remedy == .assign(SlotSet([8191...8191])))
        let held = Diagnosis(try view("0-8190"), keys: [8191: [b: 2]]).findings
        #expect(held.map(\.remedy) == [.settle(slot: 8191, .assign(b))])
    }

    @Test func aLostMasterIsNeverReplacedUnasked() throws {
        let text =
            ClusterNodesTests.line(a, 1, "myself,master", "0-8191") + ClusterNodesTests.line(b, 2, "master,fail", epoch: 2, "8192-16383")
            + ClusterNodesTests.line(c, 3, "slave", master: a)
        let found = Diagnosis(try ClusterNodesTests.view([text])).findings
        let lost = try #require(found.first { $0.name == "lost-slots" })
        #expect(lost.risk == .loses && !lost.isMendable(accepting: []) && lost.isMendable(accepting: ["lost-slots"]))
    }

    @Test func twoOwnersStrangersAndStrays() throws {
        let both = Diagnosis(try view("0-8192", epoch: 1)).findings
        #expect(both.contains { $0.name == "slot-claimed-twice" && $0.risk == .safe } && both.contains { $0.name == "epoch-collision" })
        let stranger = Diagnosis(try view(hide: d)).findings
        #expect(stranger.contains { $0.name == "master-without-replica" })
        let stray = Diagnosis(try view(), keys: [9000: [a: 1, b: 5]]).findings
        #expect(stray.map(\.remedy) == [.settle(slot: 9000, .gather(from: a, to: b))] && stray[0].risk == .moves)
    }
}
