/// The contents of one node's folder, looked at before its process is started.
public struct NodeTestimony: Sendable, Equatable {
    /// The data in the folder, as `redis-server` would load it.
    public enum Data: Sendable, Equatable {
        /// The node writes nothing down (a cache): an empty folder says nothing.
        case notKept
        case none
        case whole(Holding)
        /// There is a snapshot, but not the append-only log that the node is configured with. The server would ignore the snapshot, start
        /// empty, and overwrite it.
        case snapshotOnly(Holding)
        /// The server would not load the data; the text says why.
        case unreadable(String)
    }

    /// Facts about data that are known without loading it.
    public struct Holding: Sendable, Equatable {
        /// The number of keys in the last snapshot.
        public var keys: Int
        /// The number of bytes that were appended since.
        public var appended: Int
        /// The time at which the data was last written, in seconds since 1970.
        public var writtenAt: Int
        /// The node's position in a stream of writes, if its last snapshot is its last state, as it is after a proper stop.
        public var stream: Stream?

        public struct Stream: Sendable, Equatable {
            public var id: String
            public var offset: Int
            /// When the snapshot was made, seconds since 1970, as it says itself: copying the file does not change it.
            public var at: Int
            public init(id: String, offset: Int, at: Int) {
                self.id = id
                self.offset = offset
                self.at = at
            }
        }

        public init(keys: Int, appended: Int, writtenAt: Int, stream: Stream? = nil) {
            self.keys = keys
            self.appended = appended
            self.writtenAt = writtenAt
            self.stream = stream
        }
    }

    public let address: NodeAddress
    public let folder: String
    /// Whether the node's process lives: its data is then in its memory.
    public let runs: Bool
    /// The contents of `nodes.conf`; nil: there is none.
    public let file: NodesFile?
    /// Why `nodes.conf` cannot be read, where it cannot.
    public let flaw: String?
    public let data: Data
    /// This folder, and no copy of it, is the one that a process at this address was last started on.
    public let wasLastStarted: Bool

    public init(
        address: NodeAddress, folder: String, runs: Bool, file: NodesFile?, flaw: String? = nil, data: Data, wasLastStarted: Bool = false
    ) {
        self.address = address
        self.folder = folder
        self.runs = runs
        self.file = file
        self.flaw = flaw
        self.data = data
        self.wasLastStarted = wasLastStarted
    }

    var holding: Holding? { if case .whole(let holding) = data { holding } else { nil } }
}

/// Decides, before any node of a cluster is started, which nodes may be started, from what all their folders say.
///
/// Starting is an act on data: a node that comes up empty at the address of a master is copied, as it is, by the replica that has the only
/// copy. So a node that lost its data is not started where slots depend on it; a replica that lost its folder gets its place back, and
/// copies from its master.
public struct FolderCensus: Sendable {
    public enum Verdict: Sendable, Equatable {
        case start
        /// The node's `nodes.conf` is lost or of no use; with this file the node comes back as what it was, a replica.
        case giveBack(NodesFile, sentence: String)
        /// The node must not be started. The text says why, and what to do.
        case refuse(String)
    }

    public let testimonies: [NodeTestimony]
    /// Whether a cluster was formed here before, whatever the folders say now.
    public let wasFormed: Bool
    /// The option with which `muster redis recover NODE` finds these folders: `--dir nodes`.
    public let place: String

    public init(_ testimonies: [NodeTestimony], wasFormed: Bool, place: String) {
        self.testimonies = testimonies
        self.wasFormed = wasFormed
        self.place = place
    }

    /// The verdicts in the order of `testimonies`; a node that runs is not judged.
    public var verdicts: [(testimony: NodeTestimony, verdict: Verdict)] {
        testimonies.filter { !$0.runs }.map { ($0, verdict(of: $0)) }
    }

    /// The reasons of all refused nodes, a sentence each.
    public var refusals: [String] {
        verdicts.compactMap { if case .refuse(let why) = $0.verdict { "\($0.testimony.address): \(why)" } else { nil } }
    }

    public func verdict(of one: NodeTestimony) -> Verdict {
        if let flaw = one.flaw { return .refuse("\(one.folder)/nodes.conf cannot be read (\(flaw))") }
        if case .unreadable(let why) = one.data { return .refuse("\(one.folder): \(why)") }
        let others = testimonies.filter { $0.address != one.address }
        if let file = one.file {
            if let stranger = misplaced(one, file, others) { return .refuse(stranger) }
            if file.isFormed || identity(at: one.address, others) == nil { return formed(one, file, others) }
        }
        return unidentified(one, others)
    }

    // MARK: whose folder it is

    /// A folder in another one's place, a copy of another one, or of another cluster.
    private func misplaced(_ one: NodeTestimony, _ file: NodesFile, _ others: [NodeTestimony]) -> String? {
        if let twin = others.first(where: { $0.file?.myself.id == file.myself.id }) {
            return "\(one.folder) and \(twin.folder) are the folder of one and the same node (\(file.myself.id.prefix(8))): one is a copy; "
                + "take it away"
        }
        let own = file.myself.address.port
        if own != 0, own != one.address.port, let place = others.first(where: { $0.address.port == own }) {
            return "\(one.folder) is the folder of the node on port \(own), which belongs to \(place.folder): put the folders back"
        }
        let views = others.compactMap(\.file).filter(\.isFormed)
        guard file.isFormed, !views.isEmpty else { return nil }
        let isKnown = views.contains { $0.nodes.node(file.myself.id) != nil }
        let knows = views.contains { file.nodes.node($0.myself.id) != nil }
        if isKnown || knows { return nil }
        return
            "\(one.folder) is of another cluster: no other node here knows it (\(file.myself.id.prefix(8))), nor does it know one of them"
    }

    /// The node that the others know at an address, with whose views.
    func identity(at address: NodeAddress, _ others: [NodeTestimony]) -> (node: ClusterNode, view: NodesFile)? {
        // Who has heard of the highest epoch knows best.
        let views = others.compactMap(\.file).filter(\.isFormed).sorted { $0.currentEpoch > $1.currentEpoch }
        for view in views {
            let here = view.nodes.nodes.filter { node in
                !node.flags.contains(.myself) && !node.isInHandshake && node.address.port == address.port
                    && (node.address.host.isEmpty || node.address.host == address.host || node.address.isLoopback && address.isLoopback)
            }
            // An id that has no address any more is of somebody who was here before.
            if let found = here.first(where: { !$0.flags.contains(.noAddress) }) ?? here.first { return (found, view) }
        }
        return nil
    }

    /// Slots of which nobody with a higher epoch says that they are another's: in the eyes of any view.
    func slotsAtRisk(_ id: String, own file: NodesFile?, _ others: [NodeTestimony]) -> SlotSet {
        let views = others.compactMap(\.file) + (file.map { [$0] } ?? [])
        var left = SlotSet()
        for view in views {
            guard let line = view.nodes.node(id), !line.slots.isEmpty else { continue }
            var slots = line.slots
            for other in views {
                for node in other.nodes.nodes where node.id != id && node.configEpoch > line.configEpoch {
                    slots = slots.subtracting(node.slots)
                }
            }
            left = left.union(slots)
        }
        return left
    }

    /// Its replicas.
    func replicas(of id: String, _ others: [NodeTestimony]) -> [NodeTestimony] { others.filter { $0.file?.myself.master == id } }

    /// Folders of its replicas that have data: all of it, or a snapshot.
    func heirs(of id: String, _ others: [NodeTestimony]) -> [NodeTestimony] {
        replicas(of: id, others).filter { other in
            if case .snapshotOnly = other.data { return true }
            return other.runs || other.holding != nil
        }
    }

    // MARK: judging

    private func formed(_ one: NodeTestimony, _ file: NodesFile, _ others: [NodeTestimony]) -> Verdict {
        let id = file.myself.id, slots = slotsAtRisk(id, own: file, others)
        if slots.isEmpty { return replica(one, file, others) }
        // A node writes down that it is master before it tells anybody.
        let told = others.compactMap { $0.file?.nodes.node(id) }.filter { !$0.slots.isEmpty }.map(\.configEpoch).max() ?? 0
        if told > file.myself.configEpoch {
            return .refuse(
                "\(one.folder) is older than what the others know of it: there it became master in epoch \(told), and its own nodes.conf "
                    + "has not heard of it (was a backup of the folder put back?). " + wayOut(one.address))
        }
        switch one.data {
        case .none: return .refuse(lost(one, "its data is gone from \(one.folder)", id, slots, others))
        case .snapshotOnly(let holding):
            return .refuse(
                lost(
                    one,
                    "the append-only log is gone from \(one.folder), and the server would ignore the snapshot that is there "
                        + "(\(holding.keys) keys)", id, slots, others))
        case .whole(let holding):
            // Not put back, so its log is what it wrote last. What snapshots say of streams is no proof then: on an idle store one that is
            // older than the last start is as young as the log.
            if one.wasLastStarted { return .start }
            guard let newer = newer(than: holding, heirs(of: id, others)) else { return .start }
            return .refuse(
                "\(one.folder) holds an older state than its replica \(newer.address) (was a backup of the folder put back?); started, it "
                    + "would have the replica throw the newer one away. " + wayOut(one.address))
        case .notKept, .unreadable: return .start
        }
    }

    /// It may begin with nothing, because it copies from its master; but not while what it has is the only copy.
    private func replica(_ one: NodeTestimony, _ file: NodesFile, _ others: [NodeTestimony]) -> Verdict {
        guard case .snapshotOnly(let holding) = one.data,
            let master = others.first(where: { $0.file?.myself.id == file.myself.master || $0.address == masterAddress(file) }),
            !master.runs, master.holding == nil
        else { return .start }
        return .refuse(
            "the append-only log is gone from \(one.folder), the server would ignore the snapshot that is there (\(holding.keys) "
                + "keys), and its master \(master.address) has none. Put the log back, or: " + wayOut(master.address))
    }

    private func masterAddress(_ file: NodesFile) -> NodeAddress? {
        guard let master = file.myself.master, let address = file.nodes.node(master)?.address else { return nil }
        return testimonies.first { $0.address.port == address.port }?.address
    }

    /// A replica that was further on in the same stream of writes, or that went on in a later one: a master begins a new stream whenever it
    /// is started, and its replica has the same as it when both are stopped.
    private func newer(than holding: NodeTestimony.Holding, _ heirs: [NodeTestimony]) -> NodeTestimony? {
        guard let stream = holding.stream else { return nil }
        return heirs.first { heir in
            guard !heir.runs, let other = heir.holding?.stream else { return false }
            return other.id == stream.id ? other.offset > stream.offset : other.at > stream.at
        }
    }

    /// It has no `nodes.conf`, or one of a node that belongs to nobody, where the others know a member.
    private func unidentified(_ one: NodeTestimony, _ others: [NodeTestimony]) -> Verdict {
        guard let (node, view) = identity(at: one.address, others) else {
            let anyFormed = others.contains { $0.file?.isFormed ?? false }
            if wasFormed, !anyFormed, one.data != .notKept {
                return .refuse(
                    "a cluster was formed here, and no folder knows of it any more: is a disk not mounted? \(one.folder) is not started "
                        + "empty in its place")
            }
            return .start
        }
        let slots = slotsAtRisk(node.id, own: nil, others)
        if slots.isEmpty {
            guard let master = FolderCensus.master(for: node, in: view) else { return .start }
            return .giveBack(
                view.seen(by: node.id).demoted(node.id, to: master.id),
                sentence: "\(one.address) has lost its folder: it comes back as a replica of \(master.address), and copies from it")
        }
        // Caches begin empty, all of them: then nothing can be lost by it.
        if one.data == .notKept, !others.contains(where: \.runs) {
            return .giveBack(
                view.seen(by: node.id), sentence: "\(one.address) has lost its folder: it comes back as the master that it was")
        }
        return .refuse(lost(one, "\(one.folder) has lost what makes it this node (nodes.conf)", node.id, slots, others))
    }

    private func lost(_ one: NodeTestimony, _ what: String, _ id: String, _ slots: SlotSet, _ others: [NodeTestimony]) -> String {
        let heirs = heirs(of: id, others)
        let copies = heirs.map(\.address.description).joined(separator: ", ")
        let fate =
            heirs.isEmpty
            ? "and no replica here has a copy of its \(slots.count) slots"
            : "and it is master of \(slots.count) slots of which \(copies) has the copy: started now, it would have that copy thrown away"
        return "\(what) (is its disk mounted?), \(fate). Put the folder back, or: " + wayOut(one.address)
    }

    private func wayOut(_ address: NodeAddress) -> String {
        "muster redis recover \(address) \(place) --dry-run tells what can be had from the other folders"
    }

    /// Whom it follows: its master, if that is one; else the master with slots that has the fewest replicas.
    static func master(for node: ClusterNode, in view: NodesFile) -> ClusterNode? {
        let masters = view.nodes.nodes.filter { $0.isMaster && !$0.slots.isEmpty && $0.id != node.id }
        if let known = masters.first(where: { $0.id == node.master }) { return known }
        func followers(_ id: String) -> Int { view.nodes.nodes.filter { $0.master == id && $0.id != node.id }.count }
        return masters.min { (followers($0.id), $0.address) < (followers($1.id), $1.address) }
    }
}
