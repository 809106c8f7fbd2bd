/// The faults of a cluster: what is wrong, how risky mending it is, and what mends it.
public struct Diagnosis: Sendable {
    public enum Risk: String, Sendable, CaseIterable {
        /// The mending touches no data.
        case safe
        /// The mending moves data from one node to another.
        case moves
        /// The mending could lose data: it is done only when the user accepts that by name.
        case loses
        /// No command mends it; a person must do something first.
        case manual
    }

    public enum Remedy: Sendable, Equatable {
        case settle(slot: Int, OpenSlots.Resolution)
        /// Gives away slots whose owner is lost together with its data.
        case reassign(SlotSet, from: String)
        case assign(SlotSet)
        case introduce(String)
        case forget(String)
        case bumpEpoch(String)
        /// Copies libraries of functions; both ends are ids of nodes.
        case copyLibraries(from: String, to: String)
        case copyUsers(from: String, to: String)
        case wait
        case none
    }

    public struct Finding: Sendable, Equatable {
        /// The finding's name, one of `names`: `--accept-loss` takes it.
        public let name: String
        public let risk: Risk
        public let sentence: String
        /// The command that mends the fault, or the thing that a person does about it.
        public let mend: String
        public let remedy: Remedy

        public init(_ name: String, _ risk: Risk, _ sentence: String, mend: String, _ remedy: Remedy) {
            self.name = name
            self.risk = risk
            self.sentence = sentence
            self.mend = mend
            self.remedy = remedy
        }

        /// Whether a command may mend the fault when the user accepts the losses of these names.
        public func isMendable(accepting accepted: Set<String>) -> Bool {
            switch risk {
            case .safe, .moves: remedy != .none
            case .loses: accepted.contains(name)
            case .manual: false
            }
        }
    }

    /// The names of findings whose mending can lose data.
    public static let losing = ["lost-slots", "unassigned-slots"]

    public let findings: [Finding]

    /// The findings about slots that a move left behind.
    public var open: [Finding] { findings.filter { if case .settle = $0.remedy { true } else { false } } }

    /// `keys` has the number of keys by slot and then by node: for open slots, for slots without owner, and wherever keys lie that are not
    /// at home.
    ///
    /// `common` has the functions and users by node; a node that is not in it is not compared.
    public init(
        _ view: ClusterView, keys: [Int: [String: Int]] = [:], silent: [NodeAddress] = [], common: [String: NodeCommon] = [:]
    ) {
        var found = Diagnosis.nodes(view, silent)
        found += Diagnosis.slots(view, keys)
        found += Diagnosis.roles(view)
        found += Diagnosis.common(view, common)
        let slow = view.disagreements
        if !slow.isEmpty, found.isEmpty {
            let more = slow.count > 3 ? " (and \(slow.count - 3) more)" : ""
            found.append(
                Finding(
                    "disagreement", .safe, slow.prefix(3).joined(separator: "; ") + more,
                    mend: "gossip settles it within seconds; look again", .wait))
        }
        findings = found
    }

    private static func nodes(_ view: ClusterView, _ silent: [NodeAddress]) -> [Finding] {
        var found: [Finding] = []
        for member in view.members where !member.answers {
            let what = member.isMaster ? "master" : "replica"
            if member.hasNoAddress {
                found.append(
                    Finding(
                        "no-address", member.slots.isEmpty ? .safe : .manual,
                        "\(member.id.prefix(8)) (a \(what)) has no address: nobody can reach it",
                        mend: "muster redis fix forgets it on every node", member.slots.isEmpty ? .forget(member.id) : .none))
            } else if member.isFailed, !member.slots.isEmpty {
                found.append(
                    Finding(
                        "lost-slots", .loses,
                        "\(member.address) has failed with \(member.slots.count) slots, and no replica took over: their keys cannot be "
                            + "reached",
                        mend:
                            "start that node again; only if its data is gone: muster redis fix --accept-loss lost-slots gives its slots, "
                            + "empty, to the others",
                        .reassign(member.slots, from: member.id)))
            } else {
                let state = member.isFailed ? "has failed" : "does not answer"
                found.append(
                    Finding(
                        "node-down", .manual, "\(member.address) (a \(what)) \(state)",
                        mend: "start it again, or take it out: muster redis remove \(member.address)", .none))
            }
        }
        for address in silent where !view.members.contains(where: { $0.address == address }) {
            found.append(Finding("node-down", .manual, "\(address) does not answer", mend: "start it again", .none))
        }
        for member in view.members where member.answers {
            let strangers = view.views.filter { $0.node(member.id) == nil }
            if !strangers.isEmpty {
                let who = strangers.map { view.name($0.myself.id) }.joined(separator: ", ")
                found.append(
                    Finding(
                        "unknown-node", .safe, "\(member.address) is not known to \(who)",
                        mend: "muster redis fix introduces them to each other", .introduce(member.id)))
            }
        }
        let waiting = view.views.filter { $0.nodes.contains(where: \.isInHandshake) }
        if !waiting.isEmpty {
            let who = waiting.map { view.name($0.myself.id) }.joined(separator: ", ")
            found.append(
                Finding(
                    "handshake", .safe, "\(who): a node is being met and has not answered yet", mend: "it ends by itself; look again", .wait
                ))
        }
        return found
    }

    private static func slots(_ view: ClusterView, _ keys: [Int: [String: Int]]) -> [Finding] {
        var found: [Finding] = []
        let alive = view.members.filter { $0.isMaster && $0.answers }
        var special = Set(keys.keys)
        for master in alive { for open in master.open { special.insert(open.slot) } }
        for slot in special.sorted() {
            let places = Diagnosis.places(slot, view, keys[slot] ?? [:])
            // Whose owner is silent waits for it.
            if !places.contains(where: \.owns), view.owner(of: slot) != nil { continue }
            guard let resolution = OpenSlots.resolve(places) else { continue }
            found.append(finding(slot, places, resolution, view))
        }
        let empty = view.unassigned.subtracting(SlotSet(slots: special))
        if !empty.isEmpty {
            let missing = view.members.filter { !$0.answers }
            found.append(
                Finding(
                    "unassigned-slots", missing.isEmpty ? .safe : .loses,
                    "\(empty.count) slots belong to nobody "
                        + "(\(SlotSet(Array(empty.ranges.prefix(3))))\(empty.ranges.count > 3 ? " …" : "")), and no node that answers "
                        + "has keys of them"
                        + (missing.isEmpty ? "" : "; \(missing.map(\.address.description).joined(separator: ", ")) may have"),
                    mend:
                        "muster redis fix\(missing.isEmpty ? "" : " --accept-loss unassigned-slots") gives them to the masters with the "
                        + "fewest",
                    .assign(empty)))
        }
        for (i, one) in alive.enumerated() {
            for other in alive[(i + 1)...] {
                let both = one.slots.intersection(other.slots)
                if both.isEmpty { continue }
                let winner = one.configEpoch > other.configEpoch ? one : other
                found.append(
                    Finding(
                        "slot-claimed-twice", .safe,
                        "\(one.address) and \(other.address) both claim \(both.count) slots (\(SlotSet(Array(both.ranges.prefix(3)))))",
                        mend: one.configEpoch == other.configEpoch
                            ? "muster redis fix raises the epoch of \(winner.address)"
                            : "gossip settles it for \(winner.address), whose epoch is higher; look again",
                        one.configEpoch == other.configEpoch ? .bumpEpoch(winner.id) : .wait))
            }
        }
        return found
    }

    /// The state of one slot as each master that answers reports it.
    public static func places(_ slot: Int, _ view: ClusterView, _ keys: [String: Int]) -> [OpenSlots.Place] {
        view.members.filter { $0.isMaster && $0.answers }.map { master in
            let open = master.open.filter { $0.slot == slot }
            return OpenSlots.Place(
                id: master.id, owns: master.slots.contains(slot), migratingTo: open.first { $0.direction == .migrating }?.peer,
                importingFrom: open.first { $0.direction == .importing }?.peer, keys: keys[master.id] ?? 0, epoch: master.configEpoch)
        }
    }

    private static func finding(_ slot: Int, _ places: [OpenSlots.Place], _ resolution: OpenSlots.Resolution, _ view: ClusterView)
        -> Finding
    {
        let whose = places.filter { $0.keys > 0 }.map { "\($0.keys) key\($0.keys == 1 ? "" : "s") on \(view.name($0.id))" }.joined(
            separator: ", ")
        let keys = whose.isEmpty ? "no keys" : whose
        switch resolution {
        case .move(let from, let to):
            let risk: Risk = places.first { $0.id == from }?.keys == 0 ? .safe : .moves
            return Finding(
                "open-slot", risk, "slot \(slot) is on its way from \(view.name(from)) to \(view.name(to)): \(keys)",
                mend: "muster redis fix finishes the move",
                .settle(slot: slot, resolution))
        case .close(let ids):
            return Finding(
                "open-slot", .safe,
                "slot \(slot) is open on \(ids.map(view.name).joined(separator: ", ")), and nothing of it has gone over: \(keys)",
                mend: "muster redis fix closes it", .settle(slot: slot, resolution))
        case .assign(let id):
            return Finding(
                "slot-without-owner", .safe, "slot \(slot) belongs to nobody: \(keys)",
                mend: "muster redis fix gives it to \(view.name(id))",
                .settle(slot: slot, resolution))
        case .gather(let from, let to):
            return Finding(
                "stray-keys", .moves, "slot \(slot) belongs to \(view.name(to)), and \(view.name(from)) has keys of it: \(keys)",
                mend: "muster redis fix brings them home; what is there already stays as it is there", .settle(slot: slot, resolution))
        }
    }

    private static func roles(_ view: ClusterView) -> [Finding] {
        var found: [Finding] = []
        for master in view.masters where !master.slots.isEmpty && view.replicas(of: master.id).allSatisfy({ !$0.answers }) {
            found.append(
                Finding(
                    "master-without-replica", .manual,
                    "\(master.address) has no replica: when it dies, its \(master.slots.count) slots are gone",
                    mend: "muster redis add HOST:PORT --replica-of \(master.address)", .none))
        }
        let epochs = Dictionary(grouping: view.masters.filter { $0.answers && !$0.slots.isEmpty }, by: \.configEpoch)
        for (epoch, group) in epochs.sorted(by: { $0.key < $1.key }) where group.count > 1 {
            let who = group.map(\.address.description).joined(separator: ", ")
            found.append(
                Finding(
                    "epoch-collision", .safe, "\(who) share the configuration epoch \(epoch)",
                    mend: "the nodes settle it by themselves; muster redis fix hurries it",
                    .bumpEpoch(group.map(\.id).max()!)))
        }
        return found
    }
}
