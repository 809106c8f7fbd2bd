import Basics
import EventLoops
import Redis
import Sharding

/// Makes one cluster of nodes that run.
///
/// Idempotent: what is there already is left as it is, a cluster that was cut off while it was formed is completed, and a formed one,
/// whoever is master in it by now, is left alone. Never over data: a node that has keys, or slots that the plan does not give it, or that
/// knows nodes which are not among those given, is refused by name.
public struct ClusterFormation: Sendable {
    public enum Step: Sendable, Equatable {
        case addSlots(NodeAddress, SlotSet)
        case setEpoch(NodeAddress, Int)
        case meet(NodeAddress, of: NodeAddress)
        case replicate(NodeAddress, of: NodeAddress)
        /// By all nodes: whom the id was of has come back under another one.
        case forget(String, at: NodeAddress)

        public var sentence: String {
            switch self {
            case .addSlots(let node, let slots): "\(node) becomes a master with slots \(slots) (\(slots.count))"
            case .setEpoch(let node, let epoch): "\(node) gets the configuration epoch \(epoch)"
            case .meet(let node, let other): "\(node) meets \(other)"
            case .replicate(let node, let master): "\(node) becomes a replica of \(master)"
            case .forget(let id, let node): "\(node) has lost its folder and has a new id: all forget the old one, \(id.prefix(8))"
            }
        }
    }

    public let steps: [Step]
    public let notes: [String]
    private let addresses: [NodeAddress]

    /// What has become of the nodes: a cluster that serves every slot.
    public struct Outcome: Sendable, Equatable {
        /// Whether anything was changed.
        public let isChanged: Bool
        /// The replicas that have no whole copy of their master's data yet, a sentence each.
        public let copying: [String]
    }

    /// How long replicas are waited for that copy from their masters. New nodes have nothing to copy and need a second or two; a copy of
    /// much data takes as long as it takes, and the cluster serves meanwhile.
    static let copyTime = Duration.seconds(15)

    /// All in one: waits for the nodes to answer, plans, applies, verifies that the cluster serves. `tell` gets a line for each step;
    /// nothing to do is one line.
    @discardableResult
    public static func form(
        nodes: [NodeAddress], replicas: Int, credentials: RedisCredentials, on loop: EventLoop, tell: @Sendable (String) -> Void
    ) async throws(ProvisioningFailure) -> Outcome {
        let session = ClusterSession(seeds: nodes, credentials: credentials, loop: loop)
        defer { session.close() }
        let formation = try await plan(session, replicas: replicas)
        if formation.steps.isEmpty { tell("the cluster is formed already: nothing to do") }
        try await formation.apply(session, tell: tell)
        let copying = try await session.waitUntilServing(.seconds(60), copyTime: copyTime)
        return Outcome(isChanged: !formation.steps.isEmpty, copying: copying)
    }

    /// How long a node is waited for that says that it loads its data: some 60 GiB from a disk that reads 100 MiB a second.
    private static let loadTime = Duration.seconds(600)

    /// Asks the session's seeds, which are all the nodes there are to be; waits up to 15 s for each to answer, and up to 10 minutes for one
    /// that says that it loads its data.
    public static func plan(_ session: ClusterSession, replicas: Int) async throws(ProvisioningFailure) -> ClusterFormation {
        var reports: [NodeReport] = []
        for address in session.seeds {
            let begun = MonotonicTime.now
            var silentSince = begun
            // Ends with an answer, 15 s after the node was last heard to load, or when it has loaded for too long.
            let answers = try await session.eventually(loadTime) { () async throws(ProvisioningFailure) in
                do throws(ProvisioningFailure) {
                    reports.append(try await session.report(of: address))
                    return true
                } catch {
                    let now = MonotonicTime.now
                    if error.isLoading, now - begun < loadTime {
                        silentSince = now
                        return false
                    }
                    // It may be starting.
                    guard error.code == .unreachable, now - silentSince < .seconds(15) else { throw error }
                    return false
                }
            }
            if !answers { throw ProvisioningFailure(.unfinished, "has not loaded its data within \(loadTime.brief)", node: address) }
        }
        return try ClusterFormation(reports, addresses: session.seeds, replicas: replicas)
    }

    init(_ reports: [NodeReport], addresses: [NodeAddress], replicas: Int) throws(ProvisioningFailure) {
        self.addresses = addresses
        let ids = Set(reports.map(\.id))
        guard ids.count == addresses.count else { throw ProvisioningFailure(.refused, "two of the addresses lead to the same node") }
        let returned = try ClusterFormation.strangers(reports, addresses)
        // Nodes of a cluster that has grown, or whose slots were moved, are not all given here: what these know of it counts.
        let view = ClusterView(reports.map(\.nodes), askedAt: addresses)
        let everyone = zip(reports, addresses)
        var steps: [Step] = []
        if view.unassigned.isEmpty {
            if let lost = view.members.first(where: { !$0.answers && !$0.slots.isEmpty && addresses.contains($0.address) }) {
                throw ProvisioningFailure(
                    .refused,
                    "has lost its folder: it came up under a new id, and its \(lost.slots.count) slots are still those of the old one, "
                        + "\(lost.id.prefix(8)). A replica of it must take over first: muster redis failover --from \(lost.id.prefix(8)) --force",
                    node: lost.address)
            }
            notes = []
            steps = returned.map { .forget($0.id, at: $0.address) } + ClusterFormation.completing(Array(everyone), ids, replicas)
        } else {
            let placement: Placement
            do { placement = try Placement(nodes: addresses, replicas: replicas) } catch {
                throw ProvisioningFailure(.refused, error.description)
            }
            notes = placement.notes
            let known = Dictionary(uniqueKeysWithValues: zip(addresses, reports))
            for (i, master) in placement.masters.enumerated() {
                let report = known[master.address]!, share = SlotSet([master.slots])
                try ClusterFormation.check(report, at: master.address, share: share)
                let missing = share.subtracting(report.nodes.myself.slots)
                if !missing.isEmpty { steps.append(.addSlots(master.address, missing)) }
                // Redis takes an epoch only from a node that knows no other; later ones settle collisions by themselves.
                if report.nodes.nodes.count == 1, report.nodes.myself.configEpoch == 0 { steps.append(.setEpoch(master.address, i + 1)) }
            }
            for master in placement.masters {
                for replica in master.replicas { try ClusterFormation.check(known[replica]!, at: replica, share: SlotSet()) }
            }
            steps += ClusterFormation.meetings(Array(everyone), ids)
            for master in placement.masters {
                for replica in master.replicas where known[replica]!.nodes.myself.master != known[master.address]!.id {
                    steps.append(.replicate(replica, of: master.address))
                }
            }
        }
        self.steps = steps
    }

    /// Nodes that are known and were not given. Whose address was given has come back under another id, and the old id is returned; others
    /// belong to the same cluster where all that were given know each other, and else to another one.
    private static func strangers(_ reports: [NodeReport], _ addresses: [NodeAddress]) throws(ProvisioningFailure)
        -> [(id: String, address: NodeAddress)]
    {
        let ids = Set(reports.map(\.id))
        let formed = reports.filter { $0.nodes.nodes.count > 1 }
        let isOne = formed.allSatisfy { report in formed.allSatisfy { report.nodes.node($0.id) != nil } }
        var returned: [(id: String, address: NodeAddress)] = []
        for (report, address) in zip(reports, addresses) {
            for node in report.nodes.nodes where !ids.contains(node.id) && !node.isInHandshake {
                if let place = addresses.first(where: { $0.port == node.address.port && node.isAt($0) }) {
                    if !returned.contains(where: { $0.id == node.id }) { returned.append((node.id, place)) }
                } else if !isOne, !node.flags.contains(.noAddress) {
                    throw ProvisioningFailure(
                        .refused, "belongs to another cluster: it knows \(node.address), which is not among the nodes given", node: address)
                }
            }
        }
        return returned
    }

    /// All slots have an owner: only what hangs loose is tied.
    private static func completing(_ nodes: [(NodeReport, NodeAddress)], _ ids: Set<String>, _ replicas: Int) -> [Step] {
        var steps = meetings(nodes, ids)
        let masters = nodes.filter { !$0.0.nodes.myself.slots.isEmpty }
        var followers: [String: [String]] = [:]
        for (report, address) in nodes {
            if let master = report.nodes.myself.master { followers[master, default: []].append(address.host) }
        }
        for (report, address) in nodes where report.nodes.myself.isMaster && report.nodes.myself.slots.isEmpty && report.keys == 0 {
            let bare = masters.filter { (followers[$0.0.id] ?? []).count < replicas }
            let chosen = bare.min { a, b in
                let (x, y) = (followers[a.0.id]?.count ?? 0, followers[b.0.id]?.count ?? 0)
                let (p, q) = (a.1.host == address.host ? 1 : 0, b.1.host == address.host ? 1 : 0)
                return (x, p, a.1) < (y, q, b.1)
            }
            guard let chosen else { continue }
            followers[chosen.0.id, default: []].append(address.host)
            steps.append(.replicate(address, of: chosen.1))
        }
        return steps
    }

    private static func meetings(_ nodes: [(NodeReport, NodeAddress)], _ ids: Set<String>) -> [Step] {
        // Enough that everybody and the first know each other: gossip does the rest.
        nodes.dropFirst().filter { node in
            nodes[0].0.nodes.node(node.0.id).map(\.isInHandshake) ?? true || node.0.nodes.node(nodes[0].0.id).map(\.isInHandshake) ?? true
                || ids.contains { node.0.nodes.node($0) == nil }
        }.map { .meet($0.1, of: nodes[0].1) }
    }

    private static func check(_ report: NodeReport, at address: NodeAddress, share: SlotSet) throws(ProvisioningFailure) {
        let own = report.nodes.myself
        let foreign = own.slots.subtracting(share)
        if !foreign.isEmpty {
            throw ProvisioningFailure(
                .refused, "has slots already that the plan does not give it (\(SlotSet(Array(foreign.ranges.prefix(3)))))", node: address)
        }
        if own.isReplica, !share.isEmpty {
            throw ProvisioningFailure(.refused, "is a replica already, and the plan makes it a master", node: address)
        }
        if report.keys > 0, own.isMaster, own.slots.isEmpty || report.nodes.nodes.count == 1 {
            throw ProvisioningFailure(.refused, "has \(report.keys) keys; a cluster is never formed over data", node: address)
        }
    }

    // MARK: apply

    public func apply(_ session: ClusterSession, tell: @Sendable (String) -> Void) async throws(ProvisioningFailure) {
        var haveMet = false
        for step in steps {
            if case .replicate = step, !haveMet {
                try await waitUntilAllKnow(session)
                haveMet = true
            }
            tell(step.sentence)
            try await carryOut(step, session)
        }
        if !haveMet, !steps.isEmpty { try await waitUntilAllKnow(session) }
    }

    private func carryOut(_ step: Step, _ session: ClusterSession) async throws(ProvisioningFailure) {
        switch step {
        case .addSlots(let node, let slots):
            var command = RedisCommand("CLUSTER ADDSLOTSRANGE")
            for range in slots.ranges {
                command.add(range.lowerBound)
                command.add(range.upperBound)
            }
            _ = try await session.client(node).ask(command)
        case .setEpoch(let node, let epoch): _ = try await session.client(node).ask("CLUSTER SET-CONFIG-EPOCH", String(epoch))
        case .meet(let node, let other): try await session.introduce(other, to: node)
        case .replicate(let node, let master):
            let id = try await session.client(master).text(RedisCommand("CLUSTER MYID"))
            _ = try await session.client(node).ask("CLUSTER REPLICATE", id)
        case .forget(let id, _):
            for address in addresses {
                let client = try session.client(address)
                if try await client.nodes().node(id) != nil { _ = try await client.ask("CLUSTER FORGET", id) }
            }
        }
    }

    /// A meeting whose first packet was lost is not repeated by the nodes: after two seconds it is made again.
    private func waitUntilAllKnow(_ session: ClusterSession) async throws(ProvisioningFailure) {
        for _ in 0..<15 {
            var strangers: [NodeAddress] = []
            let met = try await session.eventually(.seconds(2)) { () async throws(ProvisioningFailure) in
                strangers = []
                var views: [ClusterNodes] = []
                for address in addresses { views.append(try await session.client(address).nodes()) }
                for (view, address) in zip(views, addresses) {
                    let knowsAll = views.allSatisfy { other in view.node(other.myself.id).map { !$0.isInHandshake && $0.isLinkUp } ?? false
                    }
                    if !knowsAll { strangers.append(address) }
                }
                return strangers.isEmpty
            }
            if met { return }
            for address in strangers where address != addresses[0] { try await session.introduce(addresses[0], to: address) }
        }
        throw ProvisioningFailure(
            .unfinished,
            "the nodes do not all come to know each other; each must reach every other one's port and bus port (port + 10000). Run the "
                + "same again to go on"
        )
    }
}

extension ClusterNode {
    /// A node is known by a numeric address, and may be given by a name.
    func isAt(_ given: NodeAddress) -> Bool {
        address.port == given.port
            && (address.host == given.host || address.host.isEmpty || address.isLoopback && given.isLoopback)
    }
}

extension ClusterSession {
    /// Tells `node` of `other`; by number, because the nodes take no names.
    func introduce(_ other: NodeAddress, to node: NodeAddress) async throws(ProvisioningFailure) {
        let host = try await numeric(other)
        // Where the bus is not at port + 10000, the other one says so itself.
        let bus = try await client(other).nodes().myself.busPort
        var command = RedisCommand("CLUSTER MEET", host, String(other.port))
        if bus != 0, Int(bus) != Int(other.port) + 10_000 { command.add(Int(bus)) }
        _ = try await client(node).ask(command)
    }

    private func numeric(_ address: NodeAddress) async throws(ProvisioningFailure) -> String {
        if SocketAddress(host: address.host, port: address.port) != nil { return address.host }
        let loop = loop
        let found = await withUnsafeContinuation { (continuation: UnsafeContinuation<Result<[SocketAddress], Resolver.Failure>, Never>) in
            Resolver.shared.resolve(address.host, port: address.port, on: loop) { continuation.resume(returning: $0) }
        }
        guard case .success(let addresses) = found, let first = addresses.first else {
            throw ProvisioningFailure(.unreachable, "the name has no address", node: address)
        }
        return first.host
    }

    /// Until every slot is served: each has an owner, the masters answer and say that the state is ok, and all that answer agree. Replicas
    /// that still copy from their masters are waited for `copyTime` at most.
    ///
    /// Returns these replicas, a sentence each; empty: the cluster is whole.
    public func waitUntilServing(_ limit: Duration, copyTime: Duration) async throws(ProvisioningFailure) -> [String] {
        let begun = MonotonicTime.now
        var found: (serving: [String], copying: [String]) = ([], [])
        let serves = try await eventually(limit) { () async throws(ProvisioningFailure) in
            found = lacks(try await read())
            return found.serving.isEmpty && (found.copying.isEmpty || MonotonicTime.now - begun >= copyTime)
        }
        if !serves {
            throw ProvisioningFailure(
                .unfinished,
                "the cluster does not serve all slots after \(limit.brief): " + found.serving.prefix(4).joined(separator: "; "))
        }
        return found.copying
    }

    /// What stands between a reading and a whole cluster.
    func shortcomings(_ reading: ClusterReading) -> [String] {
        let found = lacks(reading)
        return found.serving + found.copying
    }

    /// What keeps a cluster from serving, and which replicas have no whole copy yet.
    private func lacks(_ reading: ClusterReading) -> (serving: [String], copying: [String]) {
        var serving: [String] = [], copying: [String] = []
        for silence in reading.silent {
            let isReplica = reading.view.members.first { $0.address == silence.address }.map { !$0.isMaster } ?? false
            // A replica that has received its copy loads it, and answers nothing else meanwhile.
            if silence.failure.isLoading, isReplica {
                copying.append("\(silence.address) loads the copy of its master's data")
            } else {
                serving.append("\(silence.address) does not answer")
            }
        }
        for report in reading.reports {
            if report.cluster["cluster_state"] != "ok" {
                serving.append("\(report.asked) says that the state is \(report.cluster["cluster_state"] ?? "unknown")")
            }
            if report.nodes.myself.isReplica, report.info["master_link_status"] != "up" {
                copying.append("\(report.asked) is not in step with its master yet")
            }
        }
        if !reading.view.unassigned.isEmpty { serving.append("\(reading.view.unassigned.count) slots belong to nobody") }
        return (serving + reading.view.disagreements, copying)
    }
}
