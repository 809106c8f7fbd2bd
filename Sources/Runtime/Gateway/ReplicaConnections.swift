import Balancing
import Basics
import EventLoops

/// The connections to replicas that are idle, on one loop: what the recent load needed stays for the next requests (`IdleAllowance`).
///
/// Bounds: at most `perReplica` to one replica, and at most `most` together, so that idle connections never take the descriptors that
/// clients and new connections need.
final class ReplicaConnections {
    private struct Kept {
        var idle: [UpstreamConnection] = []
        var allowance = IdleAllowance(ceiling: ReplicaConnections.perReplica)
    }

    private let loop: EventLoop
    private let most: Int
    private var kept: [ObjectIdentifier: Kept] = [:]
    private(set) var idleCount = 0

    /// To one replica, on one loop, in use and idle together.
    static let perReplica = 1024

    /// `most`: idle ones, to all replicas together.
    init(loop: EventLoop, most: Int) {
        self.loop = loop
        self.most = most
    }

    /// Replicas that something is remembered of.
    var replicas: Int { kept.count }

    /// An idle connection; nil when there is none, or when the caller wants a new one. Then it makes one and tells `lent`.
    func take(_ replica: Replica) -> UpstreamConnection? {
        let id = ObjectIdentifier(replica)
        while let connection = kept[id]?.idle.popLast() {
            connection.isKept = false
            idleCount -= 1
            if connection.isOpen { return connection }
        }
        return nil
    }

    /// A connection serves a request from now on.
    func lent(_ connection: UpstreamConnection) {
        connection.isLent = true
        kept[ObjectIdentifier(connection.replica), default: Kept()].allowance.lent(loop.now)
    }

    /// It does so no longer.
    func returned(_ connection: UpstreamConnection) {
        guard connection.isLent else { return }
        connection.isLent = false
        let id = ObjectIdentifier(connection.replica)
        kept[id]?.allowance.returned()
        tidy(id)
    }

    /// Keeps a connection that was lent; false when it is not needed, and the caller closes it.
    func keep(_ connection: UpstreamConnection) -> Bool {
        let id = ObjectIdentifier(connection.replica)
        connection.isLent = false
        kept[id, default: Kept()].allowance.returned()
        let idle = kept[id]?.idle.count ?? 0
        guard idleCount < most, kept[id]?.allowance.mayKeep(idle: idle, loop.now) == true else {
            tidy(id)
            return false
        }
        connection.isKept = true
        idleCount += 1
        kept[id]?.idle.append(connection)
        return true
    }

    /// An idle connection has ended.
    func forget(_ connection: UpstreamConnection) {
        let id = ObjectIdentifier(connection.replica)
        guard let place = kept[id]?.idle.firstIndex(where: { $0 === connection }) else { return }
        kept[id]?.idle.remove(at: place)
        idleCount -= 1
        tidy(id)
    }

    /// Nothing is remembered of a replica without connections: it may be gone for good.
    private func tidy(_ id: ObjectIdentifier) {
        if let entry = kept[id], entry.idle.isEmpty, entry.allowance.inUse == 0 { kept[id] = nil }
    }

    /// Closes the idle ones of those that are not wanted.
    func closeIdle(but wanted: Set<ObjectIdentifier> = []) {
        for id in Array(kept.keys) where !wanted.contains(id) {
            guard let connections = kept[id]?.idle else { continue }
            kept[id]?.idle = []
            idleCount -= connections.count
            for connection in connections {
                connection.isKept = false
                connection.close()
            }
            tidy(id)
        }
    }
}
