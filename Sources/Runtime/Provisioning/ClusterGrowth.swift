import Redis
import Sharding

/// Nodes that join a cluster: as replicas, or as masters with their replicas. A master joins without slots, and gets its replicas before it
/// gets any (`ClusterRebalance`), so that no slot ever stands on one node alone.
public struct ClusterGrowth: Sendable {
    public enum Wish: Sendable, Equatable {
        /// Of the masters with the fewest replicas.
        case replicas
        /// Of one master, by address or id.
        case replicasOf(String)
        /// As many masters as nodes / (replicas + 1).
        case masters(replicas: Int)
    }

    public let steps: [ClusterFormation.Step]
    public let notes: [String]
    private let joining: [NodeAddress]

    /// Nodes that are members already and stand as wished are passed over, so the same again goes on after it was cut off.
    public static func plan(_ session: ClusterSession, joining: [NodeAddress], wish: Wish) async throws(ProvisioningFailure)
        -> ClusterGrowth
    {
        let reading = try await session.read()
        if let silent = reading.silent.first(where: { !joining.contains($0.address) }) {
            throw ProvisioningFailure(.refused, "nodes join a whole cluster only; \(silent.failure.message)", node: silent.address)
        }
        var reports: [NodeReport] = []
        for address in joining { reports.append(try await session.report(of: address)) }
        if let twice = zip(reports, joining).first(where: { one in reports.filter { $0.id == one.0.id }.count > 1 }) {
            throw ProvisioningFailure(.refused, "is given twice, under two addresses", node: twice.1)
        }
        let known = Set(reading.view.members.map(\.id))
        for (report, address) in zip(reports, joining) where !known.contains(report.id) { try check(report, address, known) }
        return try ClusterGrowth(reading, reports, joining, wish)
    }

    /// A new node is bare: no keys, no slots, and it knows nobody but nodes of this cluster.
    private static func check(_ report: NodeReport, _ address: NodeAddress, _ known: Set<String>) throws(ProvisioningFailure) {
        if report.keys > 0 { throw ProvisioningFailure(.refused, "has \(report.keys) keys; a node joins without data", node: address) }
        if !report.nodes.myself.slots.isEmpty {
            throw ProvisioningFailure(.refused, "has \(report.nodes.myself.slots.count) slots of its own", node: address)
        }
        let stranger = report.nodes.nodes.first {
            !known.contains($0.id) && !$0.isInHandshake && !$0.flags.contains(.myself) && !$0.flags.contains(.noAddress)
        }
        if let stranger { throw ProvisioningFailure(.refused, "belongs to another cluster: it knows \(stranger.address)", node: address) }
    }

    private init(_ reading: ClusterReading, _ reports: [NodeReport], _ joining: [NodeAddress], _ wish: Wish) throws(ProvisioningFailure) {
        let view = reading.view
        guard
            let door = view.masters.first(where: { master in master.answers && !reports.contains { $0.id == master.id } })
                ?? view.members.first(where: \.answers)
        else { throw ProvisioningFailure(.unreachable, "no master answers") }
        var steps: [ClusterFormation.Step] = []
        for (report, address) in zip(reports, joining) where view.views.contains(where: { $0.node(report.id) == nil }) {
            steps.append(.meet(address, of: door.address))
        }
        /// Masters that may be followed, and the hosts of those who follow.
        var followers: [NodeAddress: [String]] = [:]
        for master in view.masters where !master.slots.isEmpty {
            followers[master.address] = view.replicas(of: master.id).map(\.address.host)
        }
        var notes: [String] = []
        var free = Array(zip(reports, joining))
        switch wish {
        case .replicas: break
        case .replicasOf(let name):
            guard let master = view.member(named: name) else { throw ProvisioningFailure(.refused, "no node is called '\(name)'") }
            guard master.isMaster else { throw ProvisioningFailure(.refused, "is a replica itself", node: master.address) }
            followers = [master.address: view.replicas(of: master.id).map(\.address.host)]
            if let (report, address) = free.first(where: { $0.0.nodes.myself.master.map { $0 != master.id } ?? false }) {
                let other = view.name(report.nodes.myself.master ?? "")
                throw ProvisioningFailure(.refused, "is a replica of \(other) already; remove it there first", node: address)
            }
        case .masters(let replicas):
            guard joining.count % (replicas + 1) == 0 else {
                throw ProvisioningFailure(
                    .refused,
                    "\(joining.count) nodes do not make masters with \(replicas) replicas each: \(replicas + 1) are needed for one")
            }
            let count = joining.count / (replicas + 1)
            followers = [:]
            for (report, address) in free.prefix(count) {
                if report.nodes.myself.isReplica { throw ProvisioningFailure(.refused, "is a replica already", node: address) }
                followers[address] = []
                notes.append("\(address) joins without slots: muster redis rebalance gives it its share")
            }
            free = Array(free.dropFirst(count))
            let masters = Set(zip(reports, joining).prefix(count).map(\.0.id))
            if let (report, address) = free.first(where: { $0.0.nodes.myself.master.map { !masters.contains($0) } ?? false }) {
                let other = view.name(report.nodes.myself.master ?? "")
                throw ProvisioningFailure(
                    .refused, "is a replica of \(other) already, which is none of the new masters; remove it there first", node: address)
            }
            if replicas == 0 { notes.append("without a replica, what a master holds is gone when it dies") }
        }
        for (report, address) in free where !report.nodes.myself.isReplica {
            let slots = report.nodes.myself.slots
            if !slots.isEmpty {
                throw ProvisioningFailure(
                    .refused, "is a master of this cluster already and serves \(slots.count) slots; it does not become a replica",
                    node: address)
            }
            // Fewest replicas first, then not on the master's host nor beside another replica of it.
            let chosen = followers.min { a, b in
                func rank(_ entry: (key: NodeAddress, value: [String])) -> (Int, Int, NodeAddress) {
                    (entry.value.count, entry.key.host == address.host || entry.value.contains(address.host) ? 1 : 0, entry.key)
                }
                return rank(a) < rank(b)
            }
            guard let chosen else { throw ProvisioningFailure(.refused, "there is no master to follow", node: address) }
            followers[chosen.key]!.append(address.host)
            steps.append(.replicate(address, of: chosen.key))
        }
        self.steps = steps
        self.notes = notes
        self.joining = joining
    }

    /// Returns the replicas that have no whole copy yet, a sentence each.
    public func apply(_ session: ClusterSession, tell: @Sendable (String) -> Void) async throws(ProvisioningFailure) -> [String] {
        var met = false
        for step in steps {
            if case .replicate = step, !met {
                try await waitUntilKnown(session)
                try await equip(session, tell)
                met = true
            }
            switch step {
            case .meet(let node, let other): try await session.introduce(other, to: node)
            case .replicate(let node, let master):
                let id = try await session.client(master).text(RedisCommand("CLUSTER MYID"))
                _ = try await session.client(node).ask("CLUSTER REPLICATE", id)
            case .addSlots, .setEpoch, .forget: break
            }
            tell("done: \(step.sentence)")
        }
        if !met {
            try await waitUntilKnown(session)
            try await equip(session, tell)
        }
        return try await session.waitUntilServing(.seconds(120), copyTime: ClusterFormation.copyTime)
    }

    /// Before the first slot: the libraries of functions and the users that the other masters have. A replica gets the libraries by
    /// replication, users not.
    private func equip(_ session: ClusterSession, _ tell: @Sendable (String) -> Void) async throws(ProvisioningFailure) {
        let reading = try await session.read()
        let reports = reading.reports.filter { joining.contains($0.asked) }
        guard let model = session.model(reading.view, except: Set(reports.map(\.id))) else { return }
        let followers = Set(steps.compactMap { if case .replicate(let node, _) = $0 { node } else { nil } })
        for report in reports {
            let isMaster = report.nodes.myself.isMaster && !followers.contains(report.asked)
            if isMaster { try await session.copyLibraries(from: model.address, to: report.asked, tell: tell) }
            try await session.copyUsers(from: model.address, to: report.asked, tell: tell)
        }
    }

    private func waitUntilKnown(_ session: ClusterSession) async throws(ProvisioningFailure) {
        let known = try await session.eventually(.seconds(30)) { () async throws(ProvisioningFailure) in
            let reading = try await session.read()
            var ids: [String] = []
            for address in joining { ids.append(try await session.client(address).text(RedisCommand("CLUSTER MYID"))) }
            return ids.allSatisfy { id in
                reading.report(id) != nil && reading.view.views.allSatisfy { view in view.node(id).map { !$0.isInHandshake } ?? false }
            }
        }
        if !known {
            throw ProvisioningFailure(
                .unfinished,
                "not all nodes come to know the new ones; each must reach every other one's port and bus port. Run the same again to go on")
        }
    }
}
