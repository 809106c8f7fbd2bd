import Redis
import Sharding

/// Finishes what was begun and mends what is broken: what a killed run left open, and what `muster redis fix` is told to.
public struct ClusterRepair: Sendable {
    let session: ClusterSession
    let mover: SlotMover
    let tell: @Sendable (String) -> Void

    public init(_ session: ClusterSession, rate: MoveRate = .gentle, tell: @escaping @Sendable (String) -> Void) {
        self.session = session
        self.tell = tell
        mover = SlotMover(session, rate: rate, tell: tell)
    }

    /// The cluster and what is wrong in it. `thorough` also looks for keys outside their slot's owner, 16,384 small questions a master.
    public static func diagnose(_ session: ClusterSession, thorough: Bool) async throws(ProvisioningFailure) -> (ClusterReading, Diagnosis)
    {
        let reading = try await session.read()
        var keys = try await session.keys(ofOpenSlots: reading.view)
        if thorough {
            for master in reading.view.members where master.isMaster && master.answers {
                let foreign = SlotSet.all.subtracting(master.slots).subtracting(reading.view.unassigned).slots
                let client = try session.client(master.address)
                let counts = try await client.ask(all: foreign.map { RedisCommand("CLUSTER COUNTKEYSINSLOT", String($0)) })
                for (slot, count) in zip(foreign, counts) where count.int ?? 0 > 0 { keys[slot, default: [:]][master.id] = count.int }
            }
            let strays = keys.filter { slot, _ in reading.view.owner(of: slot) != nil }.map(\.key)
            keys.merge(try await session.keys(in: strays, reading.view)) { $1 }
        }
        let common = thorough ? await session.common(reading) : [:]
        return (reading, Diagnosis(reading.view, keys: keys, silent: reading.silent.map(\.address), copies: reading.copies, common: common))
    }

    /// Open slots are moved on or closed. Called before every operation that moves slots; does nothing where nothing is open.
    public func settleOpenSlots() async throws(ProvisioningFailure) {
        var told = false
        // After a failover a slot may take several steps: owner found, keys brought, closed.
        for round in 0..<6 {
            let (reading, diagnosis) = try await ClusterRepair.diagnose(session, thorough: false)
            let open = diagnosis.open
            if open.isEmpty { return }
            if !told { tell("an earlier run was cut off: finishing \(open.count) open slots") }
            told = true
            for finding in open {
                do throws(ProvisioningFailure) { try await mend(finding, reading) } catch {
                    if round == 5 { throw error }
                    await session.loop.sleep(.milliseconds(200))
                    break
                }
            }
            await session.loop.sleep(.milliseconds(50))
        }
        throw ProvisioningFailure(.unfinished, "slots stay open; muster redis fix --dry-run tells more")
    }

    /// Everything that may be mended, again and again while it helps: mending one thing may uncover the next. Returns what is left.
    ///
    /// `agreed`: the findings that were shown and whose losses were agreed to. What could lose anything else is left, however it is called.
    public func mendAll(agreed: [Diagnosis.Finding]) async throws(ProvisioningFailure) -> [Diagnosis.Finding] {
        var last: [Diagnosis.Finding] = []
        // Keys that were brought home as far as they can be: what is left of them is the same however often it is tried.
        var gathered: [Diagnosis.Remedy] = []
        var waits = 0
        for _ in 0..<100 {
            let (reading, diagnosis) = try await ClusterRepair.diagnose(session, thorough: true)
            if diagnosis.findings.isEmpty { return [] }
            let mendable = diagnosis.findings.filter { finding in
                !gathered.contains(finding.remedy) && (finding.isMendable(accepting: []) || agreed.contains { finding.isCovered(by: $0) })
            }
            // What is left the same twenty times over half a minute does not go away like this.
            waits = diagnosis.findings == last || mendable.allSatisfy { $0.remedy == .wait } ? waits + 1 : 0
            if mendable.isEmpty || waits > 20 { return diagnosis.findings }
            last = diagnosis.findings
            for finding in mendable where finding.remedy != .wait {
                tell("\(finding.name): \(finding.sentence)")
                do throws(ProvisioningFailure) {
                    try await mend(finding, finding.risk == .loses ? try await again(finding) : reading)
                    if case .settle(_, .gather) = finding.remedy { gathered.append(finding.remedy) }
                } catch { tell("held up, looking again: \(error)") }
            }
            await session.loop.sleep(waits == 0 ? .milliseconds(200) : .milliseconds(1500))
        }
        return last
    }

    /// Another look right before something is given up: what was mended before it may have taken long, and a replica may have taken over.
    private func again(_ finding: Diagnosis.Finding) async throws(ProvisioningFailure) -> ClusterReading {
        let (reading, diagnosis) = try await ClusterRepair.diagnose(session, thorough: false)
        guard diagnosis.findings.contains(where: { finding.isCovered(by: $0) && $0.isCovered(by: finding) }) else {
            throw ProvisioningFailure(.unfinished, "\(finding.name): the cluster has changed")
        }
        return reading
    }

    /// One finding, by its remedy. What the remedy is `wait` or `none` for, nothing is done for here.
    public func mend(_ finding: Diagnosis.Finding, _ reading: ClusterReading) async throws(ProvisioningFailure) {
        let view = reading.view
        switch finding.remedy {
        case .settle(let slot, let resolution): try await settle(slot, resolution, view)
        case .assign(let slots): try await give(slots, view)
        case .reassign(let slots, _): try await give(slots, view)
        case .introduce(let id):
            guard let member = view.member(id), let other = view.members.first(where: { $0.answers && $0.id != id }) else { return }
            try await session.introduce(member.address, to: other.address)
        case .forget(let id):
            for member in view.members where member.answers && member.id != id {
                _ = try? await session.client(member.address).ask("CLUSTER FORGET", id)
            }
        case .bumpEpoch(let id):
            if let member = view.member(id) { _ = try await session.client(member.address).ask("CLUSTER BUMPEPOCH") }
        case .copyLibraries(let from, let to):
            guard let model = view.member(from), let node = view.member(to) else { return }
            try await session.copyLibraries(from: model.address, to: node.address, tell: tell)
        case .copyUsers(let from, let to):
            guard let model = view.member(from), let node = view.member(to) else { return }
            try await session.copyUsers(from: model.address, to: node.address, tell: tell)
        case .wait, .none: break
        }
    }

    private func settle(_ slot: Int, _ resolution: OpenSlots.Resolution, _ view: ClusterView) async throws(ProvisioningFailure) {
        func client(_ id: String) throws(ProvisioningFailure) -> NodeClient {
            guard let member = view.member(id) else { throw ProvisioningFailure(.unfinished, "the node \(id.prefix(8)) is gone") }
            return try session.client(member.address)
        }
        switch resolution {
        case .move(let from, let to): try await mover.move(slot, from: from, to: to, in: view)
        case .close(let ids): for id in ids { _ = try await client(id).ask("CLUSTER SETSLOT", String(slot), "STABLE") }
        case .assign(let id):
            let owner = try client(id)
            _ = try await owner.ask("CLUSTER SETSLOT", String(slot), "STABLE")
            _ = try await owner.ask("CLUSTER SETSLOT", String(slot), "NODE", id)
            _ = try await owner.ask("CLUSTER BUMPEPOCH")
        case .gather(let from, let to): try await gather(slot, try client(from), try client(to), owner: to, view)
        }
    }

    /// Keys that are moved at once, and keys on both nodes that are remembered while the others are moved.
    private static let batch = 64
    private static let mostRefused = 10_000

    /// Keys go home; those that are there already stay, on both sides, for a person to look at.
    private func gather(_ slot: Int, _ from: NodeClient, _ to: NodeClient, owner: String, _ view: ClusterView)
        async throws(ProvisioningFailure)
    {
        try await mover.checkReplicas(of: owner, view)
        // A node answers MIGRATE for a slot that it does not own only while it is receiving it.
        _ = try await from.ask("CLUSTER SETSLOT", String(slot), "IMPORTING", owner)
        // Those that the owner has too. They come again with each question, before or among those that were not tried yet.
        var refused: Set<[UInt8]> = []
        func ask() async throws(ProvisioningFailure) -> [[UInt8]] {
            let limit = ClusterRepair.batch + refused.count
            return (try await from.ask("CLUSTER GETKEYSINSLOT", String(slot), String(limit)).array ?? []).compactMap(\.bytes)
        }
        var isWhole = true
        while true {
            let keys = try await ask().filter { !refused.contains($0) }
            if keys.isEmpty { break }
            do throws(ProvisioningFailure) { try await mover.send(keys, from: from, to: to, replacing: false) } catch {
                guard error.message.contains("BUSYKEY") else { throw error }
                // Only the first key's error is told. Those that the owner has are on both nodes; the others failed for another reason.
                for key in Set(try await ask()).intersection(keys) {
                    var exists = RedisCommand("EXISTS")
                    exists.add(key)
                    guard try await to.ask(exists).int == 1 else {
                        throw ProvisioningFailure(.unfinished, "slot \(slot): keys could not be brought home: \(error.message)")
                    }
                    refused.insert(key)
                }
            }
            isWhole = refused.count <= ClusterRepair.mostRefused
            if !isWhole { break }
        }
        try await mover.confirm(owner, view)
        _ = try await from.ask("CLUSTER SETSLOT", String(slot), "STABLE")
        let stay = try await from.ask("CLUSTER COUNTKEYSINSLOT", String(slot)).int ?? 0
        if !isWhole {
            tell(
                "slot \(slot): \(stay) keys on \(from.address) could not be brought home: the owner has at least \(refused.count) of them too. "
                    + "Look at them, delete what is not wanted, and run the same again")
        } else if stay > 0 {
            tell(
                "slot \(slot): \(stay) keys are on both nodes; the owner's count, and the copies on \(from.address) stay: look at them, "
                    + "then delete them there"
            )
        }
    }

    /// Slots without an owner go to the masters with the fewest.
    private func give(_ slots: SlotSet, _ view: ClusterView) async throws(ProvisioningFailure) {
        var masters = view.masters.filter(\.answers).map { ($0, $0.slots.count) }
        guard !masters.isEmpty else { throw ProvisioningFailure(.refused, "no master answers") }
        for range in slots.ranges {
            let i = masters.indices.min { masters[$0].1 < masters[$1].1 }!
            let owner = masters[i].0, client = try session.client(owner.address)
            // Slots that a lost node still holds in this one's table must leave it first.
            var remove = RedisCommand("CLUSTER DELSLOTSRANGE"), add = RedisCommand("CLUSTER ADDSLOTSRANGE")
            for number in [range.lowerBound, range.upperBound] {
                remove.add(number)
                add.add(number)
            }
            _ = try? await client.ask(remove)
            _ = try await client.ask(add)
            _ = try await client.ask("CLUSTER BUMPEPOCH")
            masters[i].1 += range.count
            tell("\(owner.address) gets slots \(range.lowerBound)-\(range.upperBound)")
        }
    }
}
