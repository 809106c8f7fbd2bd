import Balancing
import Basics
import EventLoops

/// Idle connections to replicas, on one loop: as many as the recent load needed stay for the next requests (`IdleAllowance`).
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

    /// Most connections to one replica, on one loop, in use and idle together.
    static let perReplica = 1024

    /// `most`: the most idle connections, to all replicas together.
    init(loop: EventLoop, most: Int) {
        self.loop = loop
        self.most = most
    }

    /// Number of replicas about which something is remembered.
    var replicas: Int { kept.count }

    /// Takes an idle connection; nil when there is none, and the caller makes one. In both cases the caller then tells `lent`.
    func take(_ replica: Replica) -> UpstreamConnection? {
        let id = ObjectIdentifier(replica)
        while let connection = kept[id]?.idle.popLast() {
            connection.isKept = false
            idleCount -= 1
            if connection.isOpen { return connection }
        }
        return nil
    }

    /// Notes that a connection serves a request from now on.
    func lent(_ connection: UpstreamConnection) {
        connection.isLent = true
        kept[ObjectIdentifier(connection.replica), default: Kept()].allowance.lent(loop.now)
    }

    /// Notes that a connection no longer serves a request.
    func returned(_ connection: UpstreamConnection) {
        guard connection.isLent else { return }
        connection.isLent = false
        let id = ObjectIdentifier(connection.replica)
        kept[id]?.allowance.returned()
        tidy(id)
    }

    /// Keeps a lent connection as idle; false when it is not needed, and the caller closes it.
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

    /// Forgets an idle connection that has ended.
    func forget(_ connection: UpstreamConnection) {
        let id = ObjectIdentifier(connection.replica)
        guard let place = kept[id]?.idle.firstIndex(where: { $0 === connection }) else { return }
        kept[id]?.idle.remove(at: place)
        idleCount -= 1
        tidy(id)
    }

    /// Forgets a replica that has no connections: it may be gone for good.
    private func tidy(_ id: ObjectIdentifier) {
        if let entry = kept[id], entry.idle.isEmpty, entry.allowance.inUse == 0 { kept[id] = nil }
    }

    /// Closes the idle connections to all replicas that are not in `wanted`.
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
