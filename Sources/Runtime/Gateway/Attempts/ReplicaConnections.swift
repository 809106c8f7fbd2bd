import Balancing
import Basics
import EventLoops

/// Idle connections to replicas, on one loop: as many as the recent load needed stay for the next requests (`IdleAllowance`).
///
/// Bounds: at most `perReplica` to one replica, and at most `most` together, so that idle connections never take the descriptors that
/// clients and new connections need.
final class ReplicaConnections {
    /// What is remembered of one replica. A class, and known to each connection: changing a struct inside of a dictionary allocates, and this
    /// happens three times a request.
    final class Kept {
        fileprivate var idle: [UpstreamConnection] = []
        fileprivate var allowance = IdleAllowance(ceiling: ReplicaConnections.perReplica)
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
        guard let kept = kept[ObjectIdentifier(replica)] else { return nil }
        while let connection = kept.idle.popLast() {
            connection.isKept = false
            idleCount -= 1
            if connection.isOpen { return connection }
        }
        return nil
    }

    /// Notes that a connection serves a request from now on.
    func lent(_ connection: UpstreamConnection) {
        connection.isLent = true
        let kept = connection.kept ?? remembered(connection.replica)
        connection.kept = kept
        kept.allowance.lent(loop.now)
    }

    private func remembered(_ replica: Replica) -> Kept {
        if let known = kept[ObjectIdentifier(replica)] { return known }
        let new = Kept()
        kept[ObjectIdentifier(replica)] = new
        return new
    }

    /// Notes that a connection no longer serves a request.
    func returned(_ connection: UpstreamConnection) {
        guard connection.isLent else { return }
        connection.isLent = false
        connection.kept?.allowance.returned()
        tidy(connection)
    }

    /// Keeps a lent connection as idle; false when it is not needed, and the caller closes it.
    func keep(_ connection: UpstreamConnection) -> Bool {
        guard let kept = connection.kept else { return false }
        connection.isLent = false
        kept.allowance.returned()
        guard idleCount < most, kept.allowance.mayKeep(idle: kept.idle.count, loop.now) else {
            tidy(connection)
            return false
        }
        connection.isKept = true
        idleCount += 1
        kept.idle.append(connection)
        return true
    }

    /// Forgets an idle connection that has ended.
    func forget(_ connection: UpstreamConnection) {
        guard let kept = connection.kept, let place = kept.idle.firstIndex(where: { $0 === connection }) else { return }
        kept.idle.remove(at: place)
        idleCount -= 1
        tidy(connection)
    }

    /// Forgets a replica that has no connections: it may be gone for good.
    private func tidy(_ connection: UpstreamConnection) {
        guard let kept = connection.kept, kept.idle.isEmpty, kept.allowance.inUse == 0 else { return }
        let id = ObjectIdentifier(connection.replica)
        if self.kept[id] === kept { self.kept[id] = nil }
    }

    /// Closes the idle connections to all replicas that are not in `wanted`.
    func closeIdle(but wanted: Set<ObjectIdentifier> = []) {
        for (id, kept) in kept where !wanted.contains(id) {
            let connections = kept.idle
            kept.idle = []
            idleCount -= connections.count
            for connection in connections {
                connection.isKept = false
                connection.close()
            }
            if kept.allowance.inUse == 0 { self.kept[id] = nil }
        }
    }
}
