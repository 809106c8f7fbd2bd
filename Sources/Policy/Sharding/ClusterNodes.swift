/// One node as another node (or the node itself) sees it: a line of `CLUSTER NODES`.
public struct ClusterNode: Sendable, Equatable {
    public enum Flag: String, Sendable, CaseIterable {
        case myself, master, handshake, noflags
        case replica = "slave"
        /// The node that was asked alone thinks that this one fails (PFAIL).
        case suspected = "fail?"
        /// A majority of masters agreed that the node fails.
        case failed = "fail"
        case noAddress = "noaddr"
        case noFailover = "nofailover"
    }

    /// A slot that is being moved, as only the node itself reports it.
    public struct OpenSlot: Sendable, Equatable {
        public enum Direction: Sendable { case migrating, importing }
        public let slot: Int
        public let direction: Direction
        /// The id of the node at the other end.
        public let peer: String

        public init(slot: Int, direction: Direction, peer: String) {
            self.slot = slot
            self.direction = direction
            self.peer = peer
        }
    }

    public let id: String
    /// The node's address. The host is empty while the node does not know its own address, and where the flag `noaddr` stands.
    public let address: NodeAddress
    public let busPort: UInt16
    public let hostname: String?
    public let flags: Set<Flag>
    /// The id of a replica's master.
    public let master: String?
    public let configEpoch: UInt64
    public let isLinkUp: Bool
    public let slots: SlotSet
    /// The open slots; they stand in a node's own line only.
    public let open: [OpenSlot]
    /// The fields behind the hostname (`tls-port=0`, `shard-id=…`), which servers from 7.2 on write: kept as they are.
    public let extras: [String]

    public var isMaster: Bool { flags.contains(.master) }
    public var isReplica: Bool { flags.contains(.replica) }
    public var isFailed: Bool { flags.contains(.failed) }
    /// Whether the node was met, but is not yet a member; it disappears by itself when the other end does not answer.
    public var isInHandshake: Bool { flags.contains(.handshake) }
}

/// The parsed answer to `CLUSTER NODES`.
///
/// The text comes from outside: its size is bounded, and a line that does not fit is refused with its number. A token that a later server
/// may add behind the hostname (`,shard-id=…`) is passed over.
public struct ClusterNodes: Sendable, Equatable {
    /// The most nodes. The protocol's own advice ends at 1,000.
    public static let nodeLimit = 2_000
    /// The longest line in bytes. A node with every second slot has about 48 KiB of ranges, and one with all of them open under 1 MiB.
    public static let lineLimit = 1 << 20

    public struct Failure: Error, Equatable, CustomStringConvertible {
        /// The number of the line, from 1.
        public let line: Int
        public let reason: String
        public var description: String { "CLUSTER NODES, line \(line): \(reason)" }
    }

    public let nodes: [ClusterNode]
    public let myself: ClusterNode

    public init(_ text: String) throws(Failure) {
        var nodes: [ClusterNode] = []
        var own: ClusterNode?
        var seen: Set<String> = []
        for (i, line) in text.split(omittingEmptySubsequences: true, whereSeparator: \.isNewline).enumerated() {
            guard i < ClusterNodes.nodeLimit else { throw Failure(line: i + 1, reason: "more than \(ClusterNodes.nodeLimit) nodes") }
            let node: ClusterNode
            do { node = try ClusterNodes.node(line) } catch { throw Failure(line: i + 1, reason: error.reason) }
            guard seen.insert(node.id).inserted else { throw Failure(line: i + 1, reason: "the id \(node.id) stands twice") }
            if node.flags.contains(.myself) {
                if own != nil { throw Failure(line: i + 1, reason: "a second node is 'myself'") }
                own = node
            }
            nodes.append(node)
        }
        guard let own else { throw Failure(line: nodes.count + 1, reason: "no node is 'myself'") }
        self.nodes = nodes
        myself = own
    }

    /// Of nodes that are known already; nil when not exactly one of them is `myself`.
    init?(_ nodes: [ClusterNode]) {
        let own = nodes.filter { $0.flags.contains(.myself) }
        guard own.count == 1 else { return nil }
        self.nodes = nodes
        myself = own[0]
    }

    public func node(_ id: String) -> ClusterNode? { nodes.first { $0.id == id } }

    /// The line of one node in such a text, without reading the others; nil when there is none, or when it is no node's line.
    public static func node(_ id: String, in text: String) -> ClusterNode? {
        text.split(whereSeparator: \.isNewline).first { $0.hasPrefix(id) }.flatMap { try? node($0) }
    }

    private struct Flaw: Error { let reason: String }

    private static func node(_ line: Substring) throws(Flaw) -> ClusterNode {
        guard line.utf8.count <= lineLimit else { throw Flaw(reason: "longer than \(lineLimit) bytes") }
        let fields = line.split(separator: " ")
        guard fields.count >= 8 else { throw Flaw(reason: "\(fields.count) fields where at least 8 were expected") }
        let place = try place(fields[1])
        var flags: Set<ClusterNode.Flag> = []
        for word in fields[2].split(separator: ",") {
            guard let flag = ClusterNode.Flag(rawValue: String(word)) else { throw Flaw(reason: "unknown flag '\(word.prefix(32))'") }
            flags.insert(flag)
        }
        guard fields[3] == "-" || isID(fields[3]) else { throw Flaw(reason: "'\(fields[3].prefix(48))' is no master's id") }
        guard let epoch = UInt64(fields[6]) else { throw Flaw(reason: "'\(fields[6].prefix(24))' is no configuration epoch") }
        guard fields[7] == "connected" || fields[7] == "disconnected" else {
            throw Flaw(reason: "'\(fields[7].prefix(24))' is no state of a link")
        }
        guard isID(fields[0]) else { throw Flaw(reason: "'\(fields[0].prefix(48))' is no node's id") }
        var ranges: [ClosedRange<Int>] = []
        var open: [ClusterNode.OpenSlot] = []
        for word in fields[8...] {
            if word.hasPrefix("[") {
                open.append(try openSlot(word))
            } else {
                guard let range = SlotSet.range(word) else { throw Flaw(reason: "'\(word.prefix(32))' is no range of slots") }
                ranges.append(range)
            }
        }
        return ClusterNode(
            id: String(fields[0]), address: place.address, busPort: place.bus, hostname: place.name, flags: flags,
            master: fields[3] == "-" ? nil : String(fields[3]), configEpoch: epoch, isLinkUp: fields[7] == "connected",
            slots: SlotSet(ranges), open: open, extras: place.extras)
    }

    /// Forty hexadecimal digits.
    private static func isID(_ text: Substring) -> Bool {
        text.utf8.count == 40 && text.utf8.allSatisfy { $0 &- 48 < 10 || ($0 | 32) &- 97 < 6 }
    }

    /// `ip:port@bus[,hostname[,name=value]…]`; an IPv6 address stands without brackets.
    private static func place(_ field: Substring) throws(Flaw)
        -> (address: NodeAddress, bus: UInt16, name: String?, extras: [String])
    {
        let parts = field.split(separator: ",", omittingEmptySubsequences: false)
        let ends = parts[0].split(separator: "@", omittingEmptySubsequences: false)
        guard (1...2).contains(ends.count), let colon = ends[0].lastIndex(of: ":"),
            let port = UInt16(ends[0][ends[0].index(after: colon)...]),
            let bus = ends.count == 2 ? UInt16(ends[1]) : 0
        else { throw Flaw(reason: "'\(field.prefix(64))' is no address") }
        var host = ends[0][..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        let name = parts.count > 1 && !parts[1].isEmpty && !parts[1].contains("=") ? String(parts[1]) : nil
        let extras = parts.dropFirst().filter { $0.contains("=") }.map(String.init)
        return (NodeAddress(host: String(host), port: port), bus, name, extras)
    }

    /// `[93->-id]` leaves, `[93-<-id]` comes.
    private static func openSlot(_ word: Substring) throws(Flaw) -> ClusterNode.OpenSlot {
        let parts = word.dropFirst().dropLast().split(separator: "-", maxSplits: 2, omittingEmptySubsequences: false)
        guard word.hasSuffix("]"), parts.count == 3, parts[1] == ">" || parts[1] == "<", isID(parts[2]), let range = SlotSet.range(parts[0])
        else {
            throw Flaw(reason: "'\(word.prefix(64))' is no open slot")
        }
        return ClusterNode.OpenSlot(slot: range.lowerBound, direction: parts[1] == ">" ? .migrating : .importing, peer: String(parts[2]))
    }
}
