/// A node's own record of its cluster: the file `nodes.conf` in its folder, as `redis-server` reads it at the next start.
///
/// The same lines as the answer to `CLUSTER NODES`, and one more: `vars currentEpoch 6 lastVoteEpoch 0`.
public struct NodesFile: Sendable, Equatable {
    public let nodes: ClusterNodes
    /// The highest configuration epoch that the node had heard of.
    public let currentEpoch: UInt64
    /// The last epoch in which the node voted: it never votes twice in one.
    public let lastVoteEpoch: UInt64

    /// The text of the file. An answer to `CLUSTER NODES` is read as well; its epoch is then the highest that a node in it has.
    public init(_ text: String) throws(ClusterNodes.Failure) {
        var lines: [Substring] = []
        var epochs: [Substring: UInt64] = [:]
        for line in text.split(whereSeparator: \.isNewline) {
            guard line.hasPrefix("vars ") else {
                lines.append(line)
                continue
            }
            let words = line.split(separator: " ").dropFirst()
            for (name, value) in zip(words, words.dropFirst()) { if let number = UInt64(value) { epochs[name] = number } }
        }
        nodes = try ClusterNodes(lines.joined(separator: "\n"))
        currentEpoch = max(epochs["currentEpoch"] ?? 0, nodes.nodes.map(\.configEpoch).max() ?? 0)
        lastVoteEpoch = epochs["lastVoteEpoch"] ?? 0
    }

    private init(_ nodes: ClusterNodes, _ currentEpoch: UInt64, _ lastVoteEpoch: UInt64) {
        self.nodes = nodes
        self.currentEpoch = currentEpoch
        self.lastVoteEpoch = lastVoteEpoch
    }

    public var myself: ClusterNode { nodes.myself }

    /// Whether the node belongs to a cluster: it knows others, or has slots.
    public var isFormed: Bool { nodes.nodes.count > 1 || !nodes.myself.slots.isEmpty }

    /// The file's text. What a node only thinks of others (that they fail, that links are up) is left out: each finds out anew.
    public var text: String {
        let lines = nodes.nodes.map { node -> String in
            let host = node.address.host
            var place = "\(host):\(node.address.port)@\(node.busPort)"
            if node.hostname != nil || !node.extras.isEmpty { place += ",\(node.hostname ?? "")" }
            for extra in node.extras { place += ",\(extra)" }
            let kept = ClusterNode.Flag.allCases.filter { node.flags.contains($0) && $0 != .failed && $0 != .suspected }
            let flags = kept.isEmpty ? "noflags" : kept.map(\.rawValue).joined(separator: ",")
            let open = node.open.map { "[\($0.slot)-\($0.direction == .migrating ? ">" : "<")-\($0.peer)]" }
            let slots = node.slots.ranges.map { $0.count == 1 ? "\($0.lowerBound)" : "\($0.lowerBound)-\($0.upperBound)" }
            let words = [node.id, place, flags, node.master ?? "-", "0", "0", String(node.configEpoch), "connected"] + slots + open
            return words.joined(separator: " ")
        }
        return (lines + ["vars currentEpoch \(currentEpoch) lastVoteEpoch \(lastVoteEpoch)"]).joined(separator: "\n") + "\n"
    }

    // MARK: changes

    /// The same knowledge for the folder of another node: the node `id` is `myself` in it.
    public func seen(by id: String) -> NodesFile {
        change { node in
            var flags = node.flags
            if node.id == id { flags.insert(.myself) } else { flags.remove(.myself) }
            return node.with(flags: flags.subtracting([.noAddress]), open: [])
        }
    }

    /// A copy in which `id` is a replica of `master`, without slots.
    public func demoted(_ id: String, to master: String) -> NodesFile {
        let shard = nodes.node(master)?.shard
        return change { node in node.id == id ? node.following(master, shard) : node }
    }

    /// A copy in which `heir` has the slots of `master` in an epoch of its own that is higher than every other; `master` and its other
    /// replicas follow it.
    public func succeeded(_ master: String, by heir: String, slots: SlotSet, epoch: UInt64) -> NodesFile {
        let shard = nodes.node(heir)?.shard
        let changed = change { node in
            if node.id == heir {
                return node.with(
                    flags: node.flags.subtracting([.replica]).union([.master]), master: .some(nil), epoch: epoch,
                    slots: node.slots.union(slots), open: [])
            }
            if node.id == master || node.master == master { return node.following(heir, shard) }
            return node.with(slots: node.slots.subtracting(slots))
        }
        return NodesFile(changed.nodes, max(epoch, currentEpoch), max(epoch, lastVoteEpoch))
    }

    private func change(_ body: (ClusterNode) -> ClusterNode) -> NodesFile {
        NodesFile(ClusterNodes(nodes.nodes.map(body)) ?? nodes, currentEpoch, max(lastVoteEpoch, currentEpoch))
    }
}

extension ClusterNode {
    /// `shard-id=…`, where the server writes one: a replica has its master's, or the file is refused.
    fileprivate var shard: String? { extras.first { $0.hasPrefix("shard-id=") } }

    fileprivate func following(_ master: String, _ shard: String?) -> ClusterNode {
        let extras = extras.map { $0.hasPrefix("shard-id=") ? shard ?? $0 : $0 }
        return with(
            flags: flags.subtracting([.master]).union([.replica]), master: master, slots: SlotSet(), open: [], extras: extras)
    }

    /// A copy in which what is given is different. `master: .some(nil)` makes it nobody's replica.
    func with(
        flags: Set<Flag>? = nil, master: String?? = nil, epoch: UInt64? = nil, slots: SlotSet? = nil, open: [OpenSlot]? = nil,
        extras: [String]? = nil
    ) -> ClusterNode {
        ClusterNode(
            id: id, address: address, busPort: busPort, hostname: hostname, flags: flags ?? self.flags,
            master: master ?? self.master, configEpoch: epoch ?? configEpoch, isLinkUp: isLinkUp, slots: slots ?? self.slots,
            open: open ?? self.open, extras: extras ?? self.extras)
    }
}
