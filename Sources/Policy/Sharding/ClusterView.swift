/// Compares the answers of several nodes of one cluster.
///
/// A node is believed about itself: its role, its slots, its open slots. About a node that did not answer, the view of the highest
/// configuration epoch is believed.
public struct ClusterView: Sendable {
    /// A node of the cluster, with the facts that are taken as known about it.
    public struct Member: Sendable, Equatable {
        public let id: String
        public let address: NodeAddress
        public let busPort: UInt16
        public let isMaster: Bool
        public let master: String?
        public let configEpoch: UInt64
        public let slots: SlotSet
        public let open: [ClusterNode.OpenSlot]
        /// Whether the node answered.
        public let answers: Bool
        /// Whether a majority of masters says that the node fails, in the eyes of at least one that answered.
        public let isFailed: Bool
        public let isSuspected: Bool
        public let hasNoAddress: Bool
    }

    /// The answer of each node that answered.
    public let views: [ClusterNodes]
    /// The members, sorted by address.
    public let members: [Member]

    /// `addresses` are those under which the nodes were asked, in the order of `views`. A node that does not know its own address gets the
    /// one under which it was asked.
    public init(_ views: [ClusterNodes], askedAt addresses: [NodeAddress]) {
        self.views = views
        var members: [Member] = []
        for (view, asked) in zip(views, addresses) where !members.contains(where: { $0.id == view.myself.id }) {
            let own = view.myself
            let others = views.compactMap { $0.myself.id == own.id ? nil : $0.node(own.id) }
            let address = own.address.host.isEmpty ? NodeAddress(host: asked.host, port: own.address.port) : own.address
            members.append(
                Member(
                    id: own.id, address: address, busPort: own.busPort, isMaster: own.isMaster, master: own.master,
                    configEpoch: own.configEpoch,
                    slots: own.slots, open: own.open, answers: true, isFailed: others.contains(where: \.isFailed),
                    isSuspected: others.contains { $0.flags.contains(.suspected) },
                    hasNoAddress: others.contains { $0.flags.contains(.noAddress) }))
        }
        var held = members.reduce(SlotSet()) { $0.union($1.slots) }
        var silent: [String: [ClusterNode]] = [:]
        for view in views {
            for node in view.nodes where !node.isInHandshake && !members.contains(where: { $0.id == node.id }) {
                silent[node.id, default: []].append(node)
            }
        }
        for (id, lines) in silent.sorted(by: { $0.key < $1.key }) {
            // Of equal epochs the one with slots knows more.
            let best = lines.max { ($0.configEpoch, $0.slots.count) < ($1.configEpoch, $1.slots.count) }!
            members.append(
                Member(
                    id: id, address: best.address, busPort: best.busPort, isMaster: best.isMaster, master: best.master,
                    configEpoch: best.configEpoch,
                    slots: best.slots.subtracting(held), open: [], answers: false, isFailed: lines.contains(where: \.isFailed),
                    isSuspected: lines.contains { $0.flags.contains(.suspected) },
                    hasNoAddress: lines.contains { $0.flags.contains(.noAddress) }))
            held = held.union(best.slots)
        }
        self.members = members.sorted { ($0.address, $0.id) < ($1.address, $1.id) }
    }

    public func member(_ id: String) -> Member? { members.first { $0.id == id } }
    /// The member with this address or id, or the only one whose id begins with this text.
    public func member(named name: String) -> Member? {
        if let found = members.first(where: { $0.address.description == name || $0.id == name }) { return found }
        let fitting = members.filter { name.count >= 4 && $0.id.hasPrefix(name) }
        return fitting.count == 1 ? fitting[0] : nil
    }

    /// The masters that are not given up.
    public var masters: [Member] { members.filter { $0.isMaster && !$0.isFailed && !$0.hasNoAddress } }
    public func replicas(of id: String) -> [Member] {
        members.filter { !$0.isMaster && $0.master == id && !$0.isFailed && !$0.hasNoAddress }
    }

    /// The slots that nobody has.
    public var unassigned: SlotSet { members.reduce(SlotSet.all) { $0.subtracting($1.slots) } }

    /// The member that has the slot. When two claim it, it is the one with the higher configuration epoch, as the cluster itself settles
    /// it.
    public func owner(of slot: Int) -> Member? {
        members.filter { $0.slots.contains(slot) }.max { ($0.configEpoch, $0.id) < ($1.configEpoch, $1.id) }
    }

    /// The differences between a node's view of another one and what that one says of itself; one sentence each. Empty: all agree about
    /// slots and roles.
    public var disagreements: [String] {
        var found: [String] = []
        for view in views {
            let asked = name(view.myself.id)
            for member in members where member.answers && member.id != view.myself.id {
                guard let line = view.node(member.id), !line.isInHandshake else {
                    found.append("\(asked) does not know \(member.address)")
                    continue
                }
                if line.isMaster != member.isMaster {
                    found.append("\(asked) takes \(member.address) for a \(line.isMaster ? "master" : "replica"), which it is not")
                } else if let seen = line.master, let own = member.master, seen != own {
                    found.append("\(asked) takes \(member.address) for a replica of \(name(seen)); it follows \(name(own))")
                }
                let missing = member.slots.subtracting(line.slots), extra = line.slots.subtracting(member.slots)
                if !missing.isEmpty { found.append("\(asked) does not know that \(member.address) has slots \(brief(missing))") }
                if !extra.isEmpty { found.append("\(asked) thinks that \(member.address) has slots \(brief(extra))") }
            }
        }
        return found
    }

    public func name(_ id: String) -> String { member(id)?.address.description ?? String(id.prefix(8)) }

    private func brief(_ slots: SlotSet) -> String {
        let text = SlotSet(Array(slots.ranges.prefix(4))).description
        return slots.ranges.count > 4 ? "\(text) … (\(slots.count))" : text
    }
}

extension ClusterView.Member {
    /// A view of a single server without a cluster, as the master of all slots.
    public init(single id: String, at address: NodeAddress) {
        self.init(
            id: id, address: address, busPort: 0, isMaster: true, master: nil, configEpoch: 0, slots: .all, open: [], answers: true,
            isFailed: false, isSuspected: false, hasNoAddress: false)
    }
}
