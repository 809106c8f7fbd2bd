/// Decides which nodes become masters, which become replicas of which master, and which slots each master gets.
///
/// Masters stand on different hosts as long as there are hosts; a replica stands never on its master's host where another way exists, and
/// replicas of one master on different hosts likewise. On one host, nodes are taken in the order given.
public struct Placement: Sendable, Equatable {
    public struct Master: Sendable, Equatable {
        public let address: NodeAddress
        public let slots: ClosedRange<Int>
        public let replicas: [NodeAddress]
    }

    public struct Refusal: Error, Equatable, CustomStringConvertible {
        public let description: String
    }

    public let masters: [Master]
    /// Sentences about nodes that could not be kept on different hosts.
    public let notes: [String]

    /// The fewest masters of a cluster. Fewer cannot agree that one of them is dead: a majority of two is two.
    public static let fewestMasters = 3

    public init(nodes: [NodeAddress], replicas: Int) throws(Refusal) {
        try Placement.check(nodes, replicas)
        let count = nodes.count / (replicas + 1)
        let spread = Placement.interleaved(nodes)
        let chosen = Array(spread.prefix(count))
        var rest = Array(spread.dropFirst(count))
        var groups: [[NodeAddress]] = chosen.map { [$0] }
        for _ in 0..<replicas {
            for (m, node) in Placement.match(groups, rest).enumerated() {
                groups[m].append(node)
                rest.removeAll { $0 == node }
            }
        }
        let hosts = Set(nodes.map(\.host))
        var notes: [String] = []
        for group in groups where hosts.count > 1 && Set(group.map(\.host)).count < min(group.count, hosts.count) {
            notes.append("\(group[0]) and its replicas share a host: \(group.map(\.description).joined(separator: ", "))")
        }
        if hosts.count == 1, let host = hosts.first {
            notes.append("all nodes are on \(host): the cluster survives the end of a process, not of that machine")
        } else if Set(chosen.map(\.host)).count < count {
            let most = Dictionary(grouping: chosen, by: \.host).map { ($0.value.count, $0.key) }.max { $0 < $1 }!
            if most.0 * 2 >= count {
                notes.append("\(most.0) of \(count) masters are on \(most.1): with it the majority is lost, and no failover can be voted")
            }
        }
        self.notes = notes
        masters = groups.enumerated().map { Master(address: $1[0], slots: Placement.share($0, of: count), replicas: Array($1.dropFirst())) }
    }

    /// The `index`th of `count` nearly equal ranges, borders rounded to the nearest: 5461, 5462 and 5461 of three.
    public static func share(_ index: Int, of count: Int) -> ClosedRange<Int> {
        func border(_ i: Int) -> Int { (2 * HashSlot.count * i + count) / (2 * count) }
        return border(index)...border(index + 1) - 1
    }

    private static func check(_ nodes: [NodeAddress], _ replicas: Int) throws(Refusal) {
        guard (0...5).contains(replicas) else { throw Refusal(description: "\(replicas) replicas a master: from 0 to 5") }
        guard Set(nodes).count == nodes.count else { throw Refusal(description: "a node stands twice in the list") }
        let size = replicas + 1, masters = nodes.count / size
        let each = replicas == 0 ? "without replicas" : "with \(replicas) replica\(replicas == 1 ? "" : "s") each"
        guard masters >= fewestMasters else {
            throw Refusal(
                description:
                    "\(nodes.count) nodes \(each) make \(nodes.count) / \(size) = \(masters) master\(masters == 1 ? "" : "s"); a cluster "
                    + "needs \(fewestMasters), or no majority is left when one dies: \(fewestMasters) x \(size) = "
                    + "\(fewestMasters * size) nodes"
            )
        }
        guard nodes.count % size == 0 else {
            throw Refusal(
                description:
                    "\(nodes.count) nodes \(each) make \(masters) masters and leave \(nodes.count % size) over; \(masters * size) or "
                    + "\(masters * size + size) nodes fit"
            )
        }
        guard masters <= 1000 else { throw Refusal(description: "\(masters) masters: at most 1000") }
    }

    /// One of each host in turn; hosts in the order they first stand.
    private static func interleaved(_ nodes: [NodeAddress]) -> [NodeAddress] {
        var hosts: [String] = []
        var of: [String: [NodeAddress]] = [:]
        for node in nodes {
            if of[node.host] == nil { hosts.append(node.host) }
            of[node.host, default: []].append(node)
        }
        var out: [NodeAddress] = []
        var turn = 0
        while out.count < nodes.count {
            for host in hosts { if turn < of[host]!.count { out.append(of[host]![turn]) } }
            turn += 1
        }
        return out
    }

    /// One of `free` for each group: as many as possible on a host that the group does not have (augmenting paths), the others as they
    /// come.
    private static func match(_ groups: [[NodeAddress]], _ free: [NodeAddress]) -> [NodeAddress] {
        var taker: [Int?] = Array(repeating: nil, count: free.count)
        func place(_ group: Int, _ tried: inout Set<Int>) -> Bool {
            for (i, node) in free.enumerated() where !groups[group].contains(where: { $0.host == node.host }) && tried.insert(i).inserted {
                if let other = taker[i] { guard place(other, &tried) else { continue } }
                taker[i] = group
                return true
            }
            return false
        }
        for group in groups.indices {
            var tried: Set<Int> = []
            _ = place(group, &tried)
        }
        var left = free.indices.filter { taker[$0] == nil }[...]
        return groups.indices.map { group in free[taker.firstIndex { $0 == group } ?? left.popFirst()!] }
    }
}
