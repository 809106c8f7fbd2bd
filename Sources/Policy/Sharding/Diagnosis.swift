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
        /// Ids of the nodes whose data the mending gives up; empty where it gives up none.
        public let givesUp: Set<String>

        public init(
            _ name: String, _ risk: Risk, _ sentence: String, mend: String, _ remedy: Remedy, givesUp: Set<String> = []
        ) {
            self.name = name
            self.risk = risk
            self.sentence = sentence
            self.mend = mend
            self.remedy = remedy
            self.givesUp = givesUp
        }

        /// Whether a command may mend the fault when the user accepts the losses of these names.
        public func isMendable(accepting accepted: Set<String>) -> Bool {
            switch risk {
            case .safe, .moves: remedy != .none
            case .loses: accepted.contains(name)
            case .manual: false
            }
        }

        /// Whether who agreed to the loss of `shown` agreed to this one as well: no further slots, and no further node's data.
        public func isCovered(by shown: Finding) -> Bool {
            guard name == shown.name, risk == .loses, shown.risk == .loses, givesUp.isSubset(of: shown.givesUp) else { return false }
            switch (remedy, shown.remedy) {
            case (.reassign(let slots, let from), .reassign(let agreed, let other)):
                return from == other && slots.subtracting(agreed).isEmpty
            case (.assign(let slots), .assign(let agreed)): return slots.subtracting(agreed).isEmpty
            default: return false
            }
        }
    }

    /// The names of findings whose mending can lose data.
    public static let losing = ["lost-slots", "unassigned-slots"]

    public let findings: [Finding]
    /// What could not be looked at, a sentence each: without it nobody can say that nothing is wrong.
    public let unread: [String]

    /// The findings about slots that a move left behind.
    public var open: [Finding] { findings.filter { if case .settle = $0.remedy { true } else { false } } }

    /// `keys` has the number of keys by slot and then by node: for open slots, for slots without owner, and wherever keys lie that are not
    /// at home.
    ///
    /// `copies` has what each replica that answers says of its copy; `common` the functions and users by node: a node that is not in it is
    /// not compared.
    public init(
        _ view: ClusterView, keys: [Int: [String: Int]] = [:], silent: [NodeAddress] = [], copies: [String: ReplicaCopy] = [:],
        common: [String: NodeCommon] = [:]
    ) {
        var found = Diagnosis.nodes(view, silent, copies)
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
        unread = Diagnosis.unread(view, common)
    }

    /// A master has failed with slots. They may be given away only where no replica of it has, or may have, its data: Redis makes a replica
    /// whose master has lost its slots follow the new owner, and it throws its copy away for that.
    private static func lost(_ member: ClusterView.Member, _ view: ClusterView, _ copies: [String: ReplicaCopy]) -> Finding {
        let what = "\(member.address) has failed with \(member.slots.count) slots"
        let replicas = view.members.filter { !$0.isMaster && $0.master == member.id }
        let whole = replicas.filter { $0.answers && copies[$0.id]?.offset != nil }
        if let best = whole.max(by: { (copies[$0.id]?.offset ?? 0, $1.id) < (copies[$1.id]?.offset ?? 0, $0.id) }) {
            return Finding(
                "lost-slots", .manual, "\(what), and its replica \(best.address) has a whole copy and did not take over yet",
                mend: "look again in some seconds; if it has not taken over by then: muster redis failover \(best.address) --force", .none)
        }
        if let silent = replicas.first(where: { !$0.answers && !$0.isFailed && !$0.hasNoAddress }) {
            return Finding(
                "lost-slots", .manual,
                "\(what), and its replica \(silent.address), which does not answer and has not failed, may have a copy",
                mend: "start that replica or that master again, then: muster redis failover \(silent.address) --force", .none)
        }
        let gone = replicas.filter { !$0.answers }
        let rest =
            gone.isEmpty ? "" : "; a copy may be with \(gone.map(\.address.description).joined(separator: ", ")), which has failed as well"
        let lacking = replicas.filter(\.answers).map {
            "; its replica \($0.address) \(copies[$0.id]?.flaw ?? "does not say whether it has a copy")"
        }
        return Finding(
            "lost-slots", .loses,
            "\(what), and no replica took over: their keys cannot be reached\(lacking.joined())\(rest)",
            mend:
                "start \(([member] + gone).map(\.address.description).joined(separator: " or ")) again; only if no such data is left: "
                + "muster redis fix --accept-loss lost-slots gives its slots, empty, to the others",
            .reassign(member.slots, from: member.id), givesUp: Set(replicas.map(\.id) + [member.id]))
    }

    private static func nodes(_ view: ClusterView, _ silent: [NodeAddress], _ copies: [String: ReplicaCopy]) -> [Finding] {
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
                found.append(lost(member, view, copies))
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
        var held: [String: SlotSet] = [:]
        for master in alive { for open in master.open { special.insert(open.slot) } }
        for slot in special.sorted() {
            // A replica that follows nobody who answers may have the only copy of a slot that belongs to nobody.
            if view.owner(of: slot) == nil, let keeper = orphan(keys[slot] ?? [:], view) {
                held[keeper.id, default: SlotSet()] = (held[keeper.id] ?? SlotSet()).union(SlotSet(slots: [slot]))
                continue
            }
            let places = Diagnosis.places(slot, view, keys[slot] ?? [:])
            // Whose owner is silent waits for it.
            if !places.contains(where: \.owns), view.owner(of: slot) != nil { continue }
            guard let resolution = OpenSlots.resolve(places) else { continue }
            found.append(finding(slot, places, resolution, view))
        }
        for (id, slots) in held.sorted(by: { $0.key < $1.key }) {
            found.append(
                Finding(
                    "slot-without-owner", .manual,
                    "\(slots.count) slots (\(SlotSet(Array(slots.ranges.prefix(3))))) belong to nobody, and the replica \(view.name(id)), "
                        + "whose master does not answer, has keys of them",
                    mend: "start its master again, or copy these keys out of \(view.name(id)) before the slots are given to anybody", .none)
            )
        }
        found += unassigned(view.unassigned.subtracting(SlotSet(slots: special)), view)
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

    /// A replica that has keys, whose master is none of those that answer, while no master that answers has any.
    private static func orphan(_ keys: [String: Int], _ view: ClusterView) -> ClusterView.Member? {
        let holders = keys.filter { $0.value > 0 }.compactMap { view.member($0.key) }
        if holders.contains(where: \.isMaster) { return nil }
        return holders.filter { holder in view.member(holder.master ?? "")?.answers != true }.min { $0.id < $1.id }
    }

    private static func unassigned(_ empty: SlotSet, _ view: ClusterView) -> [Finding] {
        if empty.isEmpty { return [] }
        let missing = view.members.filter { !$0.answers }
        return [
            Finding(
                "unassigned-slots", missing.isEmpty ? .safe : .loses,
                "\(empty.count) slots belong to nobody "
                    + "(\(SlotSet(Array(empty.ranges.prefix(3))))\(empty.ranges.count > 3 ? " …" : "")), and no node that answers "
                    + "has keys of them"
                    + (missing.isEmpty ? "" : "; \(missing.map(\.address.description).joined(separator: ", ")) may have"),
                mend:
                    "muster redis fix\(missing.isEmpty ? "" : " --accept-loss unassigned-slots") gives them to the masters with the "
                    + "fewest",
                .assign(empty), givesUp: Set(missing.map(\.id)))
        ]
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
