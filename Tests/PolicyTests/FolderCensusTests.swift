import Sharding
import Testing

/// Which nodes may be started, judged from what all folders say: three masters on 7001 to 7003, their replicas on 7004 to 7006.
@Suite struct FolderCensusTests {
    static func id(_ n: Int) -> String { String(repeating: "\(n)", count: 40) }
    static func address(_ n: Int) -> NodeAddress { NodeAddress(host: "127.0.0.1", port: UInt16(7000 + n)) }
    static let shares = ["0-5460", "5461-10922", "10923-16383"]

    /// nodes.conf of node `n`; `masters`: number, master's number (nil: it is one), epoch.
    static func file(_ n: Int, epoch: Int = 6, roles: [Int: Int?] = [4: 1, 5: 2, 6: 3], epochs: [Int: Int] = [:], owners: [Int: Int] = [:])
        throws
        -> NodesFile
    {
        var text = ""
        for i in 1...6 {
            let master = roles[i] ?? nil
            let own = i == n ? "myself," : ""
            var slots = ""
            for share in 1...3 where (owners[share] ?? share) == i { slots += " " + shares[share - 1] }
            text +=
                "\(id(i)) 127.0.0.1:\(7000 + i)@\(17000 + i) \(own)\(master == nil ? "master" : "slave") \(master.map { id($0) } ?? "-") 0 0 "
                + "\(epochs[i] ?? i) connected\(slots)\n"
        }
        return try NodesFile(text + "vars currentEpoch \(epoch) lastVoteEpoch 0\n")
    }

    static let whole = NodeTestimony.Data.whole(.init(keys: 5, appended: 100, writtenAt: 1_000))

    private func census(_ change: [Int: (inout NodeTestimony) -> Void] = [:], formed: Bool = true) throws -> FolderCensus {
        let all = try (1...6).map { n -> NodeTestimony in
            var one = NodeTestimony(
                address: Self.address(n), folder: "node-\(7000 + n)", runs: false, file: try Self.file(n), data: Self.whole)
            change[n]?(&one)
            return one
        }
        return FolderCensus(all, wasFormed: formed, place: "--dir nodes")
    }

    private func with(
        _ one: NodeTestimony, file: NodesFile?? = nil, data: NodeTestimony.Data? = nil, runs: Bool? = nil, flaw: String? = nil,
        wasLastStarted: Bool = false
    ) -> NodeTestimony {
        NodeTestimony(
            address: one.address, folder: one.folder, runs: runs ?? one.runs, file: file ?? one.file, flaw: flaw ?? one.flaw,
            data: data ?? one.data, wasLastStarted: wasLastStarted)
    }

    private func refusal(_ census: FolderCensus, _ n: Int) -> String? {
        if case .refuse(let why) = census.verdict(of: census.testimonies[n - 1]) { return why }
        return nil
    }

    @Test func whatIsWholeStarts() throws {
        let census = try census()
        #expect(census.refusals == [] && census.verdicts.allSatisfy { $0.verdict == .start })
        // Nothing was ever there: a new cluster.
        let new = try self.census(
            Dictionary(uniqueKeysWithValues: (1...6).map { ($0, { $0 = with($0, file: .some(nil), data: NodeTestimony.Data.none) }) }),
            formed: false)
        #expect(new.refusals == [])
    }

    @Test func anEmptiedMasterIsRefusedAndItsReplicaTakesOverInTheFiles() throws {
        let census = try census([2: { $0 = with($0, file: .some(nil), data: NodeTestimony.Data.none) }])
        let why = try #require(refusal(census, 2))
        #expect(
            why.contains("5462 slots") && why.contains("127.0.0.1:7005 has the copy") && why.contains("muster redis recover 127.0.0.1:7002")
        )
        let plan = try #require(try FolderRecovery.plan(census, Self.address(2)))
        #expect(!plan.needsAcceptance && plan.reliesOn.contains("node-7005") && plan.loses.contains("not passed on"))
        var files: [NodeAddress: NodesFile] = [:]
        for case .write(let file, let address) in plan.steps { files[address] = try NodesFile(file.text) }
        #expect(files.count == 6)
        for (address, file) in files {
            let heir = try #require(file.nodes.node(Self.id(5))), lost = try #require(file.nodes.node(Self.id(2)))
            #expect(heir.isMaster && heir.master == nil && heir.configEpoch == 7 && heir.slots.description == "5461-10922")
            #expect(lost.isReplica && lost.master == Self.id(5) && lost.slots.isEmpty)
            #expect(file.myself.address == address && file.currentEpoch == 7)
            #expect(file.nodes.nodes.reduce(SlotSet()) { $0.union($1.slots) } == .all)
        }
        // Afterwards nothing stands in the way.
        let after = try self.census(
            Dictionary(
                uniqueKeysWithValues: (1...6).map { n in
                    (n, { $0 = with($0, file: .some(files[Self.address(n)]), data: n == 2 ? NodeTestimony.Data.none : nil) })
                }))
        #expect(after.refusals == [])
    }

    @Test func dataThatIsGoneBesideNodesConfIsGone() throws {
        for data in [NodeTestimony.Data.none, .snapshotOnly(.init(keys: 3, appended: 0, writtenAt: 10))] {
            let census = try census([1: { $0 = with($0, data: data) }])
            #expect(refusal(census, 1)?.contains("127.0.0.1:7004 has the copy") == true)
        }
        // A replica copies from its master.
        let replica = try census([4: { $0 = with($0, data: NodeTestimony.Data.none) }])
        #expect(replica.refusals == [])
    }

    @Test func aReplicaThatLostItsFolderGetsItsPlaceBack() throws {
        let census = try census([6: { $0 = with($0, file: .some(nil), data: NodeTestimony.Data.none) }])
        guard case .giveBack(let file, _) = census.verdict(of: census.testimonies[5]) else {
            Issue.record("not given back")
            return
        }
        #expect(file.myself.id == Self.id(6) && file.myself.master == Self.id(3) && file.myself.isReplica)
        // Its master lost its folder, too: nobody may start.
        let both = try self.census([
            6: { $0 = with($0, file: .some(nil), data: NodeTestimony.Data.none) }, 3: { $0 = with($0, data: NodeTestimony.Data.none) },
        ])
        #expect(refusal(both, 3)?.contains("no replica here has a copy") == true)
    }

    @Test func theHigherEpochSaysWhoIsMaster() throws {
        // 7004 took over from 7001 in epoch 9; 7001 has not heard of it, and its folder was emptied since.
        let later: (Int) throws -> NodesFile = {
            try Self.file($0, epoch: 9, roles: [4: nil, 5: 2, 6: 3], epochs: [4: 9], owners: [1: 4])
        }
        var change: [Int: (inout NodeTestimony) -> Void] = [1: { $0 = with($0, data: NodeTestimony.Data.none) }]
        for n in 2...6 {
            let file = try later(n)
            change[n] = { $0 = with($0, file: .some(file)) }
        }
        #expect(try census(change).refusals == [])
        // A backup of 7004's folder, from before it was master, is put back: it would follow the one that follows it.
        change[1] = {
            $0 = with($0, file: .some(try? Self.file(1, epoch: 9, roles: [1: 4, 4: nil, 5: 2, 6: 3], epochs: [4: 9], owners: [1: 4])))
        }
        change[4] = { $0 = with($0, file: .some(try? Self.file(4))) }
        #expect(refusal(try census(change), 4)?.contains("older than what the others know") == true)
    }

    @Test func anOlderStateThanItsReplicasIsRefused() throws {
        func state(_ offset: Int, _ id: String = "r", at: Int = 5) -> NodeTestimony.Data {
            .whole(.init(keys: 1, appended: 0, writtenAt: 5, stream: .init(id: id, offset: offset, at: at)))
        }
        let older = try census([1: { $0 = with($0, data: state(100)) }, 4: { $0 = with($0, data: state(101)) }])
        #expect(refusal(older, 1)?.contains("an older state than its replica 127.0.0.1:7004") == true)
        let plan = try #require(try FolderRecovery.plan(older, Self.address(1)))
        #expect(plan.steps.first == .putAside(Self.address(1)))
        let equal = try census([1: { $0 = with($0, data: state(101)) }, 4: { $0 = with($0, data: state(101)) }])
        #expect(equal.refusals == [])
        // Each start begins a new stream: the later one counts, whatever its offset.
        let restarted = try census([1: { $0 = with($0, data: state(900, "a", at: 5)) }, 4: { $0 = with($0, data: state(10, "b", at: 9)) }])
        #expect(refusal(restarted, 1)?.contains("an older state") == true)
        let behind = try census([1: { $0 = with($0, data: state(10, "b", at: 9)) }, 4: { $0 = with($0, data: state(900, "a", at: 5)) }])
        #expect(behind.refusals == [])
        // A folder that nobody has exchanged since its last start is what the master wrote last: on an idle store, snapshots tell nothing of it.
        func lastStarted(_ master: NodeTestimony.Data, _ replica: NodeTestimony.Data) throws -> FolderCensus {
            try census([
                1: { $0 = with($0, data: master, wasLastStarted: true) }, 4: { $0 = with($0, data: replica, wasLastStarted: true) },
            ])
        }
        #expect(try lastStarted(state(900, "a", at: 5), state(10, "b", at: 9)).refusals == [])
        #expect(try lastStarted(state(100), state(114)).refusals == [])
        #expect(refusal(try lastStarted(.none, state(114)), 1) != nil)
    }

    @Test func exchangedCopiedAndForeignFoldersAreNamed() throws {
        let exchanged = try census([
            1: { $0 = with($0, file: .some(try? Self.file(2))) }, 2: { $0 = with($0, file: .some(try? Self.file(1))) },
        ])
        #expect(refusal(exchanged, 1)?.contains("is the folder of the node on port 7002") == true)
        #expect(throws: FolderRecovery.Refusal.self) { try FolderRecovery.plan(exchanged, Self.address(1)) }
        let copied = try census([4: { $0 = with($0, file: .some(try? Self.file(5))) }])
        #expect(refusal(copied, 4)?.contains("one is a copy") == true)
        let line = "\(String(repeating: "f", count: 40)) 127.0.0.1:7003@17003 myself,master - 0 0 1 connected 0-16383\n"
        let foreign = try census([3: { $0 = with($0, file: .some(try? NodesFile(line))) }])
        #expect(refusal(foreign, 3)?.contains("is of another cluster") == true)
        let plan = try #require(try FolderRecovery.plan(foreign, Self.address(3)))
        #expect(plan.reliesOn.contains("node-7006") && plan.steps.contains(.putAside(Self.address(3))))
        let torn = try census([2: { $0 = with($0, file: .some(nil), flaw: "line 1") }])
        #expect(refusal(torn, 2)?.contains("cannot be read") == true)
    }

    @Test func withoutACopyNothingIsStartedUnasked() throws {
        let empty: (inout NodeTestimony) -> Void = { $0 = with($0, file: .some(nil), data: NodeTestimony.Data.none) }
        let both = try census([1: empty, 4: empty])
        #expect(refusal(both, 1)?.contains("no replica here has a copy") == true)
        let plan = try #require(try FolderRecovery.plan(both, Self.address(1)))
        #expect(plan.needsAcceptance && plan.loses.contains("every key") && plan.steps.last == .emptyLog(Self.address(1)))
        // A replica's snapshot is a copy, too.
        let holding = NodeTestimony.Holding(keys: 9, appended: 0, writtenAt: 7)
        let snapshot = try census([1: empty, 4: { $0 = with($0, data: .snapshotOnly(holding)) }])
        #expect(snapshot.refusals.count == 2)
        let kept = try #require(try FolderRecovery.plan(snapshot, Self.address(1)))
        #expect(kept.needsAcceptance && kept.steps.contains(.logFromSnapshot(Self.address(4))) && kept.reliesOn.contains("9 keys"))
        // And where all are gone, a disk is not mounted.
        let none = try census(Dictionary(uniqueKeysWithValues: (1...6).map { ($0, empty) }))
        #expect(none.refusals.count == 6 && none.refusals[0].contains("is a disk not mounted?"))
    }

    /// That a replica runs does not say that it has a copy: one without is not relied on, and where there is no other, data is lost.
    @Test func aReplicaThatRunsWithoutACopyIsNotReliedOn() throws {
        var change: [Int: (inout NodeTestimony) -> Void] = [:]
        for n in 2...6 { change[n] = { $0 = with($0, runs: true) } }
        change[1] = { $0 = with($0, file: .some(nil), data: NodeTestimony.Data.none) }
        let lacking = ReplicaCopy.lacking("is still copying"), heir = Self.address(4)
        let alone = try #require(try FolderRecovery.plan(try census(change), Self.address(1), copies: [heir: lacking]))
        #expect(alone.needsAcceptance && alone.reliesOn == "nothing" && !alone.steps.contains(.takeOver(heir)))
        #expect(alone.sentences.first?.contains("which runs, is still copying") == true)
        let whole = try #require(
            try FolderRecovery.plan(try census(change), Self.address(1), copies: [heir: .whole(offset: 5, away: 9)]))
        #expect(!whole.needsAcceptance && whole.steps.first == .takeOver(heir) && !whole.isShown(as: alone))
        // A second replica of the same master: who has more takes over, whoever was named first.
        change[5] = { $0 = with($0, file: try? Self.file(5, roles: [4: 1, 5: 1, 6: 3], owners: [2: 6]), runs: true) }
        let two = try census(change), second = Self.address(5)
        for (copies, expected): ([NodeAddress: ReplicaCopy], NodeAddress) in [
            ([heir: .whole(offset: 5, away: 0), second: .whole(offset: 9, away: 0)], second),
            ([heir: .whole(offset: 9, away: 0), second: .whole(offset: 5, away: 0)], heir), ([heir: lacking], second),
        ] {
            #expect(try FolderRecovery.plan(two, Self.address(1), copies: copies)?.steps.first == .takeOver(expected))
        }
    }

    @Test func nodesThatRunAreAsked() throws {
        var change: [Int: (inout NodeTestimony) -> Void] = [:]
        for n in 2...6 { change[n] = { $0 = with($0, runs: true) } }
        change[1] = { $0 = with($0, file: .some(nil), data: NodeTestimony.Data.none) }
        let plan = try #require(try FolderRecovery.plan(try census(change), Self.address(1)))
        #expect(plan.steps.first == .takeOver(Self.address(4)))
        // The only copy is down, and others run: their files must not be changed under them.
        change[4] = nil
        #expect(throws: FolderRecovery.Refusal.self) { try FolderRecovery.plan(try census(change), Self.address(1)) }
        // Caches write nothing down: they begin empty, all of them.
        var caches = try Dictionary(
            uniqueKeysWithValues: (1...6).map { n in
                let file = try Self.file(n)
                return (n, { (one: inout NodeTestimony) in one = with(one, file: .some(file), data: .notKept) })
            })
        #expect(try census(caches).refusals == [])
        caches[1] = { $0 = with($0, file: .some(nil), data: .notKept) }
        #expect(try census(caches).refusals == [])
    }

    @Test func whatLaterServersWriteIsKept() throws {
        let shard = "shard-id=" + String(repeating: "e", count: 40), other = "shard-id=" + String(repeating: "d", count: 40)
        let text =
            "\(Self.id(1)) 127.0.0.1:7001@17001,,tls-port=0,\(shard) myself,master - 0 0 1 connected 0-16383\n"
            + "\(Self.id(2)) 127.0.0.1:7002@17002,,tls-port=0,\(other) master - 0 0 2 connected\nvars currentEpoch 2 lastVoteEpoch 1\n"
        let file = try NodesFile(text)
        #expect(try NodesFile(file.text).nodes == file.nodes)
        #expect(file.text.contains(",,tls-port=0,\(shard) myself,master"))
        // A replica has the shard of its master, or the server refuses the file.
        let demoted = file.demoted(Self.id(2), to: Self.id(1)).seen(by: Self.id(2))
        #expect(demoted.text.contains(",,tls-port=0,\(shard) myself,slave \(Self.id(1))") && demoted.lastVoteEpoch == 2)
        for broken in ["", "x\n", "vars currentEpoch x\n", text + text] { #expect(throws: (any Error).self) { try NodesFile(broken) } }
        let far = try NodesFile(text.replacingEpoch("18446744073709551615"))
        #expect(far.currentEpoch == .max)
    }
}

extension String {
    fileprivate func replacingEpoch(_ epoch: String) -> String {
        split(separator: "\n").map { $0.hasPrefix("vars") ? "vars currentEpoch \(epoch) lastVoteEpoch 0" : String($0) }.joined(
            separator: "\n")
    }
}
