/// A plan to bring back a node that `FolderCensus` refuses: with what data, and what is lost by it.
///
/// Nothing in a folder is deleted: files that are not used are put aside in the same folder.
public struct FolderRecovery: Sendable, Equatable {
    public enum Step: Sendable, Equatable {
        /// The data and `nodes.conf` in the folder of a node go aside.
        case putAside(NodeAddress)
        case write(NodesFile, NodeAddress)
        /// The snapshot becomes the beginning of a new append-only log.
        case logFromSnapshot(NodeAddress)
        /// An append-only log without anything in it is written.
        case emptyLog(NodeAddress)
        /// This node, which runs, takes over from the node that is recovered, which is down.
        case takeOver(NodeAddress)
    }

    public struct Refusal: Error, Equatable, CustomStringConvertible {
        public let description: String
    }

    public let steps: [Step]
    /// The steps of the plan, a sentence each; then which data is relied on, and what is lost.
    public let sentences: [String]
    public let reliesOn: String
    public let loses: String
    /// Whether data is lost for good by the plan, or may be: it is carried out only when the user accepts that.
    public let needsAcceptance: Bool

    /// Whether the user is shown the same for both plans. Nodes that run write new epochs and times into their files meanwhile, which the
    /// steps may differ in.
    public func isShown(as other: FolderRecovery) -> Bool {
        sentences == other.sentences && reliesOn == other.reliesOn && loses == other.loses && needsAcceptance == other.needsAcceptance
    }

    /// The plan for one node; nil: nothing is wrong with the node, and it may be started.
    ///
    /// `copies` is what the nodes that run have said of their copies. A replica that runs is relied on only with a whole one; one that was
    /// not asked counts as one with a copy, so whoever carries out a plan with `takeOver` in it has asked.
    public static func plan(_ census: FolderCensus, _ address: NodeAddress, copies: [NodeAddress: ReplicaCopy] = [:]) throws(Refusal)
        -> FolderRecovery?
    {
        guard let one = census.testimonies.first(where: { $0.address == address }) else {
            let known = census.testimonies.map(\.address.description).joined(separator: ", ")
            throw Refusal(description: "\(address) is none of the nodes here; there are \(known)")
        }
        if one.runs { throw Refusal(description: "\(address) runs; only a node that is down can be recovered") }
        let others = census.testimonies.filter { $0.address != address }
        switch census.verdict(of: one) {
        case .start: return nil
        case .giveBack(let file, let sentence):
            return FolderRecovery(
                steps: [.putAside(address), .write(file, address)], sentences: [sentence], reliesOn: "its master's data", loses: "nothing",
                needsAcceptance: false)
        case .refuse(let why):
            if let twin = others.first(where: { $0.file != nil && $0.file?.myself.id == one.file?.myself.id }) {
                throw Refusal(
                    description: "\(one.folder) and \(twin.folder) are the same node's: take the copy away; nothing else is wrong")
            }
            let own = one.file?.myself.address.port ?? 0
            if own != 0, own != address.port, others.contains(where: { $0.address.port == own }) {
                throw Refusal(description: why)
            }
            return try recovery(census, one, others, why, copies)
        }
    }

    private static func recovery(
        _ census: FolderCensus, _ one: NodeTestimony, _ others: [NodeTestimony], _ why: String, _ copies: [NodeAddress: ReplicaCopy]
    ) throws(Refusal) -> FolderRecovery {
        // A file that the others do not know of tells nothing; what the others know counts.
        let known = census.identity(at: one.address, others)
        guard let id = known?.node.id ?? one.file?.myself.id else { return try anew(census, one, why) }
        let slots = census.slotsAtRisk(id, own: known == nil ? one.file : nil, others)
        guard let view = known?.view ?? one.file else { throw Refusal(description: why) }
        if slots.isEmpty {
            guard let node = view.nodes.node(id), let master = FolderCensus.master(for: node, in: view) else {
                throw Refusal(description: why)
            }
            return FolderRecovery(
                steps: [.putAside(one.address), .write(view.seen(by: id).demoted(id, to: master.id), one.address)],
                sentences: [
                    "what is in \(one.folder) goes aside",
                    "\(one.address) comes back as a replica of \(master.address), and copies from it",
                ], reliesOn: "the data of \(master.address)", loses: "nothing that the cluster serves", needsAcceptance: false)
        }
        let all = census.heirs(of: id, others), heirs = all.filter { !$0.runs || copies[$0.address]?.flaw == nil }
        var isPartial = false
        if case .snapshotOnly = one.data { isPartial = true }
        // Its own snapshot counts as much as a replica's, and less than all that a replica has.
        if let heir = best(heirs, copies), heir.runs || heir.holding != nil || !isPartial {
            return try succession(census, one, others, id, slots, view, heir)
        }
        if let damaged = census.replicas(of: id, others).first(where: { if case .unreadable = $0.data { true } else { false } }),
            case .unreadable(let reason) = damaged.data
        {
            throw Refusal(description: "the replica \(damaged.address) has a copy that the server here cannot read: \(reason)")
        }
        let unfit = all.filter(\.runs).compactMap { heir in copies[heir.address]?.flaw.map { "\(heir.address), which runs, \($0)" } }
        return alone(one, id, slots, view, unfit)
    }

    /// The replica that has most: of those that run first, by their offsets; then by what it wrote last.
    private static func best(_ heirs: [NodeTestimony], _ copies: [NodeAddress: ReplicaCopy]) -> NodeTestimony? {
        heirs.max { a, b in
            if a.runs != b.runs { return b.runs }
            if a.runs, let p = copies[a.address]?.offset, let q = copies[b.address]?.offset, p != q { return p < q }
            let (x, y) = (a.holding, b.holding)
            if (x == nil) != (y == nil) { return x == nil }
            if let p = x?.stream, let q = y?.stream, p.id == q.id, p.offset != q.offset { return p.offset < q.offset }
            let (v, w) = (x?.writtenAt ?? 0, y?.writtenAt ?? 0)
            return v != w ? v < w : b.address < a.address
        }
    }

    private static func succession(
        _ census: FolderCensus, _ one: NodeTestimony, _ others: [NodeTestimony], _ id: String, _ slots: SlotSet, _ view: NodesFile,
        _ heir: NodeTestimony
    ) throws(Refusal) -> FolderRecovery {
        guard let heirID = heir.file?.myself.id else { throw Refusal(description: "\(heir.folder) does not say whose it is") }
        let back = "\(one.address) comes back as its replica, and copies from it"
        let aside = "what is in \(one.folder) goes aside"
        let lost = "writes that \(one.address) had acknowledged and not passed on to \(heir.address) before it went down"
        if heir.runs {
            return FolderRecovery(
                steps: [
                    .takeOver(heir.address), .putAside(one.address), .write(view.seen(by: id).demoted(id, to: heirID), one.address),
                ],
                sentences: ["\(heir.address), which runs, takes over \(slots.count) slots from \(one.address)", aside, back],
                reliesOn: "what \(heir.address) has in memory", loses: lost, needsAcceptance: false)
        }
        if let running = others.first(where: \.runs) {
            throw Refusal(
                description:
                    "\(heir.address), which has the only copy of \(slots.count) slots, is down, and \(running.address) runs: start "
                    + "\(heir.address) first, or stop all nodes, and run the same again")
        }
        let epoch = next(census)
        var steps: [Step] = [.putAside(one.address)], snapshot: NodeTestimony.Holding?
        if case .snapshotOnly(let holding) = heir.data {
            snapshot = holding
            steps.append(.logFromSnapshot(heir.address))
        }
        for other in others {
            if let file = other.file, file.isFormed {
                steps.append(.write(file.succeeded(id, by: heirID, slots: slots, epoch: epoch), other.address))
            }
        }
        if let file = heir.file {
            steps.append(.write(file.succeeded(id, by: heirID, slots: slots, epoch: epoch).seen(by: id), one.address))
        }
        let what = (heir.holding ?? snapshot).map(FolderRecovery.text) ?? ""
        return FolderRecovery(
            steps: steps,
            sentences: [
                "\(heir.address) is made master of \(slots.count) slots (\(SlotSet(Array(slots.ranges.prefix(3))))) in all nodes.conf, "
                    + "before any node starts", aside, back,
            ], reliesOn: "\(heir.folder): \(what)", loses: lost + (snapshot == nil ? "" : ", and what was written after its snapshot"),
            needsAcceptance: snapshot != nil)
    }

    /// No replica has a copy. `unfit` says why those that run have none.
    private static func alone(_ one: NodeTestimony, _ id: String, _ slots: SlotSet, _ view: NodesFile, _ unfit: [String])
        -> FolderRecovery
    {
        let isOwn = one.file?.myself.id == id
        let file: [Step] = isOwn ? [] : [.write(view.seen(by: id), one.address)]
        switch one.data {
        case .whole(let holding):
            // The data is there; only who it is was lost.
            return FolderRecovery(
                steps: file, sentences: unfit + ["\(one.address) gets its nodes.conf back, as \(slots.count) slots of the others' know it"],
                reliesOn: "\(one.folder): \(text(holding))", loses: "nothing, if that data is this node's", needsAcceptance: true)
        case .snapshotOnly(let holding):
            return FolderRecovery(
                steps: file + [.logFromSnapshot(one.address)],
                sentences: unfit + ["the snapshot in \(one.folder) becomes the beginning of a new append-only log"],
                reliesOn: "\(one.folder)/dump.rdb: \(text(holding))", loses: "what was written after that snapshot", needsAcceptance: true)
        case .none, .unreadable, .notKept:
            return FolderRecovery(
                steps: [.putAside(one.address)] + (isOwn ? [.write(view, one.address)] : file) + [.emptyLog(one.address)],
                sentences: unfit + ["\(one.address) starts EMPTY as master of its \(slots.count) slots; no folder here has a copy of them"],
                reliesOn: "nothing", loses: "every key of \(slots.count) slots; muster redis restore brings back what a backup has",
                needsAcceptance: true)
        }
    }

    /// Nobody here knows of any cluster.
    private static func anew(_ census: FolderCensus, _ one: NodeTestimony, _ why: String) throws(Refusal) -> FolderRecovery {
        throw Refusal(
            description:
                "\(why). No folder here knows the cluster, so nothing can be recovered from them: mount the disk, or begin anew in "
                + "another folder and restore a backup")
    }

    private static func next(_ census: FolderCensus) -> UInt64 {
        let highest = census.testimonies.compactMap { $0.file?.currentEpoch }.max() ?? 0
        let (next, over) = highest.addingReportingOverflow(1)
        return over ? highest : next
    }

    public static func text(_ holding: NodeTestimony.Holding) -> String {
        "\(holding.keys) keys in its snapshot and \(ByteSize.text(holding.appended)) appended since"
    }
}

extension FolderRecovery {
    /// The plan for a single server whose folder has no whole data.
    public static func single(_ address: NodeAddress, _ folder: String, _ data: NodeTestimony.Data) -> FolderRecovery {
        if case .snapshotOnly(let holding) = data {
            return FolderRecovery(
                steps: [.logFromSnapshot(address)],
                sentences: ["the snapshot in \(folder) becomes the beginning of a new append-only log"],
                reliesOn: "\(folder)/dump.rdb: \(text(holding))", loses: "what was written after that snapshot", needsAcceptance: true)
        }
        return FolderRecovery(
            steps: [.putAside(address), .emptyLog(address)],
            sentences: ["what is in \(folder) goes aside", "the server starts EMPTY"], reliesOn: "nothing",
            loses: "every key that it had; muster redis restore brings back what a backup has", needsAcceptance: true)
    }
}
