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

    /// A node whose users could not be read is not compared with the others; whoever says that all is well says that, too.
    @Test func whatCouldNotBeReadIsTold() throws {
        let ann = NodeCommon(users: ["ann": "on"]), silent = NodeCommon(unread: ["users": "no answer within 3s"])
        let found = Diagnosis(try view(), common: [a: ann, b: ann, c: silent, d: silent])
        #expect(
            found.findings == []
                && found.unread == [
                    "the users of these nodes could not be read, so they are not compared (no answer within 3s): 127.0.0.1:3, 127.0.0.1:4"
                ], "\(found.unread)")
        #expect(Diagnosis(try view(), common: [a: ann, b: ann, c: NodeCommon(), d: ann]).unread == [])
    }

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

    /// A failed master with slots, and its replicas: those in `answering` answer, those in `silent` do not, those in `failed` have failed.
    private func lostMaster(answering: [String], silent: [String] = [], failed: [String] = [], _ copies: [String: ReplicaCopy] = [:])
        throws -> Diagnosis.Finding
    {
        func text(_ me: String) -> String {
            var out = ClusterNodesTests.line(a, 1, me == a ? "myself,master" : "master", "0-8191")
            out += ClusterNodesTests.line(b, 2, "master,fail", epoch: 2, "8192-16383")
            for (i, id) in (answering + silent + failed).enumerated() {
                let flags = (id == me ? "myself," : "") + "slave" + (failed.contains(id) ? ",fail" : "")
                out += ClusterNodesTests.line(id, 3 + i, flags, master: b)
            }
            return out
        }
        let view = try ClusterNodesTests.view([text(a)] + answering.map(text))
        return try #require(Diagnosis(view, copies: copies).findings.first { $0.name == "lost-slots" })
    }

    /// Redis makes a replica whose master has lost its slots follow the new owner: given away, the only copy would be gone.
    @Test func slotsWhoseCopyLivesAreNotGivenAway() throws {
        let whole = ReplicaCopy.whole(offset: 900, away: 700), lacking = ReplicaCopy.lacking("is still copying")
        let alive = try lostMaster(answering: [c], [c: whole])
        #expect(alive.risk == .manual && alive.remedy == .none && !alive.isMendable(accepting: ["lost-slots"]))
        #expect(alive.mend.contains("muster redis failover 127.0.0.1:3 --force"), "\(alive.mend)")
        // The most advanced of several, whoever else is there.
        let best = try lostMaster(answering: [c, d], [c: lacking, d: whole])
        #expect(best.mend.contains("muster redis failover 127.0.0.1:4 --force"), "\(best.mend)")
        let unheard = try lostMaster(answering: [], silent: [c])
        #expect(unheard.risk == .manual && unheard.sentence.contains("may have a copy"), "\(unheard.sentence)")
        // Nobody has a copy, or whoever may have one has failed: that is told, and may be agreed to.
        let partial = try lostMaster(answering: [c], [c: lacking])
        #expect(partial.isMendable(accepting: ["lost-slots"]) && partial.sentence.contains("is still copying"), "\(partial.sentence)")
        let gone = try lostMaster(answering: [], failed: [c])
        #expect(gone.isMendable(accepting: ["lost-slots"]) && gone.givesUp == [b, c] && gone.sentence.contains("has failed as well"))
        // Agreed to for what was shown, and for nothing else.
        #expect(gone.isCovered(by: gone) && !alive.isCovered(by: gone) && !gone.isCovered(by: alive))
        let other = try lostMaster(answering: [], failed: [c, d])
        #expect(!other.isCovered(by: gone) && gone.isCovered(by: other))
    }

    @Test func consentIsForTheSlotsAndNodesThatWereShown() throws {
        func assign(_ slots: ClosedRange<Int>, _ gone: Set<String>, _ risk: Diagnosis.Risk = .loses) -> Diagnosis.Finding {
            Diagnosis.Finding("unassigned-slots", risk, "", mend: "", .assign(SlotSet([slots])), givesUp: gone)
        }
        let shown = assign(0...99, [a])
        #expect(assign(10...20, [a]).isCovered(by: shown) && assign(10...20, []).isCovered(by: shown))
        #expect(!assign(10...100, [a]).isCovered(by: shown) && !assign(10...20, [a, b]).isCovered(by: shown))
        #expect(!assign(10...20, [a]).isCovered(by: assign(0...99, [], .safe)))
        func reassign(_ id: String) -> Diagnosis.Finding {
            Diagnosis.Finding("lost-slots", .loses, "", mend: "", .reassign(SlotSet([0...9]), from: id), givesUp: [id])
        }
        #expect(reassign(a).isCovered(by: reassign(a)) && !reassign(b).isCovered(by: reassign(a)))
    }

    /// Slots that belong to nobody, of which a replica whose master is gone has the only keys.
    @Test func slotsOfNobodyThatAReplicaHoldsAreNotGivenAway() throws {
        let texts = [
            ClusterNodesTests.line(a, 1, "myself,master", "0-8190") + ClusterNodesTests.line(c, 3, "slave", master: d),
            ClusterNodesTests.line(c, 3, "myself,slave", master: d) + ClusterNodesTests.line(a, 1, "master", "0-8190"),
        ]
        let found = Diagnosis(try ClusterNodesTests.view(texts), keys: [9000: [c: 5], 9001: [c: 1]]).findings
        let held = try #require(found.first { $0.name == "slot-without-owner" })
        #expect(held.risk == .manual && held.sentence.contains("2 slots (9000-9001)"), "\(held.sentence)")
        let rest = try #require(found.first { $0.name == "unassigned-slots" })
        #expect(rest.remedy == .assign(SlotSet([8191...8999, 9002...16383])))
        // Where a master has keys as well, it is the owner, as ever.
        let known = Diagnosis(try ClusterNodesTests.view(texts), keys: [9000: [c: 5, a: 1]]).findings
        #expect(known.contains { $0.remedy == .settle(slot: 9000, .assign(a)) })
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
