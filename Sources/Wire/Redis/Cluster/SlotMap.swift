import EventLoops
import Sharding

/// A table of which node serves which slot, from the reply of `CLUSTER SLOTS`.
struct SlotMap: Equatable {
    struct Shard: Equatable {
        let master: Endpoint
        var replicas: [Endpoint]
    }

    struct Failure: Error, Equatable {
        let reason: String
    }

    private(set) var shards: [Shard] = []
    /// For each slot, the place of its owner in `shards`; `none` where nobody serves it.
    private var owners: [UInt16]
    private static let none = UInt16.max

    init() { owners = Array(repeating: SlotMap.none, count: HashSlot.count) }

    /// Takes the reply of `CLUSTER SLOTS`: entries `[from, to, master, replica…]`, a node being `[endpoint, port, id, metadata]`. An
    /// endpoint that is null or empty, or `?`, is the host that was asked (`asked`).
    init(_ reply: RESPValue, asked: Endpoint) throws(Failure) {
        self.init()
        guard let entries = reply.array else { throw Failure(reason: "CLUSTER SLOTS answered no list") }
        guard entries.count <= HashSlot.count else { throw Failure(reason: "CLUSTER SLOTS answered \(entries.count) ranges") }
        var places: [Endpoint: UInt16] = [:]
        for entry in entries {
            guard let parts = entry.array, parts.count >= 3, let from = parts[0].int, let to = parts[1].int, from >= 0, from <= to,
                to < HashSlot.count
            else {
                throw Failure(reason: "CLUSTER SLOTS answered a range that is none")
            }
            var nodes: [Endpoint] = []
            for part in parts[2...] { nodes.append(try SlotMap.endpoint(part, asked: asked)) }
            let place: UInt16
            if let known = places[nodes[0]] {
                place = known
            } else {
                place = UInt16(shards.count)
                places[nodes[0]] = place
                shards.append(Shard(master: nodes[0], replicas: Array(nodes.dropFirst())))
            }
            for slot in from...to { owners[slot] = place }
        }
    }

    private static func endpoint(_ value: RESPValue, asked: Endpoint) throws(Failure) -> Endpoint {
        guard let parts = value.array, parts.count >= 2, let port = parts[1].int, (1...65535).contains(port) else {
            throw Failure(reason: "CLUSTER SLOTS answered a node that is none")
        }
        return try endpoint(host: parts[0].string ?? "", port: UInt16(port), asked: asked)
    }

    private static func endpoint(host: String, port: UInt16, asked: Endpoint) throws(Failure) -> Endpoint {
        if host.isEmpty || host == "?" { return asked.with(port: port) }
        guard let endpoint = Endpoint(host.contains(":") && !host.hasPrefix("[") ? "[\(host)]:\(port)" : "\(host):\(port)") else {
            throw Failure(reason: "a node is announced as '\(host.prefix(100))', which is no host: see cluster-announce-ip")
        }
        return endpoint
    }

    /// Reads the text behind MOVED or ASK: `<slot> <host>:<port>`, the host empty for the node that said it.
    static func redirection(_ message: String, asked: Endpoint) -> (slot: Int, to: Endpoint)? {
        let words = message.split(separator: " ")
        guard words.count >= 3, let slot = Int(words[1]), (0..<HashSlot.count).contains(slot), let colon = words[2].lastIndex(of: ":"),
            let port = UInt16(words[2][words[2].index(after: colon)...]), port > 0
        else { return nil }
        return (try? endpoint(host: String(words[2][..<colon]), port: port, asked: asked)).map { (slot, $0) }
    }

    func shard(of slot: Int) -> Shard? { owners[slot] == SlotMap.none ? nil : shards[Int(owners[slot])] }

    /// The place of a slot's owner in `shards`.
    func owner(of slot: Int) -> Int? { owners[slot] == SlotMap.none ? nil : Int(owners[slot]) }

    var isEmpty: Bool { shards.isEmpty }
    /// Number of slots that somebody serves.
    var covered: Int { owners.count { $0 != SlotMap.none } }

    func isMaster(_ endpoint: Endpoint) -> Bool { shards.contains { $0.master == endpoint } }

    /// Notes that one slot has moved; the rest is asked for later.
    mutating func move(_ slot: Int, to endpoint: Endpoint) {
        if let known = shards.firstIndex(where: { $0.master == endpoint }) {
            owners[slot] = UInt16(known)
        } else {
            owners[slot] = UInt16(shards.count)
            shards.append(Shard(master: endpoint, replicas: []))
        }
    }
}

extension Endpoint {
    func with(port: UInt16) -> Endpoint {
        switch self {
        case .address(.unix): self
        case .address(let address): .address(SocketAddress(host: address.host, port: port) ?? address)
        case .name(let host, _): .name(host, port: port)
        }
    }
}
