import Basics
import Redis
import Sharding

/// How long a copy is waited for: as long as something of it moves. `INFO replication` tells how much has come, and how much is to come.
struct CopyPatience {
    private let limit: Duration
    private static let names = [
        "master_host", "master_port", "master_sync_in_progress", "master_sync_read_bytes", "master_sync_left_bytes",
    ]
    private var seen = [String?](repeating: nil, count: names.count)
    private var moved: MonotonicTime

    init(limit: Duration, now: MonotonicTime) {
        self.limit = limit
        moved = now
    }

    /// False when nothing has moved for longer than the limit.
    mutating func goesOn(_ fields: [String: String], now: MonotonicTime) -> Bool {
        let state = CopyPatience.names.map { fields[$0] }
        if state != seen {
            seen = state
            moved = now
        }
        return now - moved <= limit
    }
}

/// Nodes that leave a cluster: their slots first, then the replicas of who leaves find other masters, then all forget them and they forget
/// all.
///
/// No master with slots is left without a replica that it had: such a plan is refused, or a replica that another master can spare is moved
/// first.
public struct ClusterShrink: Sendable {
    public enum Step: Sendable, Equatable {
        case drain(RebalancePlan)
        case replicate(String, of: String)
        case forget(String)
    }

    public let steps: [Step]
    public let sentences: [String]
    public let notes: [String]
    /// Those that leave.
    public let leaving: [ClusterView.Member]

    public static func plan(_ session: ClusterSession, names: [String]) async throws(ProvisioningFailure) -> ClusterShrink {
        let reading = try await session.read()
        var leaving: [ClusterView.Member] = []
        for name in names {
            guard let member = reading.view.member(named: name) else {
                if let rest = try await half(session, name, reading.view) {
                    leaving.append(rest)
                    continue
                }
                throw ProvisioningFailure(
                    .refused,
                    "no node of the cluster is called '\(name)'; it has "
                        + "\(reading.view.members.map(\.address.description).joined(separator: ", "))"
                )
            }
            if !leaving.contains(where: { $0.id == member.id }) { leaving.append(member) }
        }
        return try ClusterShrink(reading.view, leaving)
    }

    /// One that the others have forgotten already, when a run was cut off before it was told to forget them.
    private static func half(_ session: ClusterSession, _ name: String, _ view: ClusterView) async throws(ProvisioningFailure)
        -> ClusterView.Member?
    {
        guard let address = NodeAddress(name), let report = try? await session.report(of: address) else { return nil }
        let own = report.nodes.myself
        guard own.slots.isEmpty, report.nodes.nodes.contains(where: { view.member($0.id) != nil }) else { return nil }
        return ClusterView([report.nodes], askedAt: [address]).member(own.id)
    }

    init(_ view: ClusterView, _ leaving: [ClusterView.Member]) throws(ProvisioningFailure) {
        self.leaving = leaving
        let ids = Set(leaving.map(\.id))
        var steps: [Step] = []
        var sentences: [String] = []
        let staying = view.masters.filter { !ids.contains($0.id) && $0.answers }
        let drained = leaving.filter { $0.isMaster && !$0.slots.isEmpty }
        if let lost = drained.first(where: { !$0.answers }) {
            throw ProvisioningFailure(
                .refused,
                "has \(lost.slots.count) slots and does not answer; start it, or let a replica take over: muster redis failover --from "
                    + "\(lost.address) --force",
                node: lost.address)
        }
        if !drained.isEmpty {
            guard staying.count >= Placement.fewestMasters else {
                throw ProvisioningFailure(
                    .refused,
                    "\(staying.count) masters would be left; a cluster needs \(Placement.fewestMasters), or no majority is left when one "
                        + "dies"
                )
            }
            let plan = try ClusterShrink.drain(drained, staying)
            steps.append(.drain(plan))
            for move in plan.moves {
                sentences.append("\(move.slots.count) slots go from \(view.name(move.from)) to \(view.name(move.to))")
            }
        }
        let moves = try ClusterShrink.replicaMoves(view, ids, staying.filter { !$0.slots.isEmpty || !drained.isEmpty })
        for (replica, master) in moves {
            steps.append(.replicate(replica, of: master))
            sentences.append("\(view.name(replica)) becomes a replica of \(view.name(master))")
        }
        // Replicas first: a node cannot be told to forget its own master, and is not asked to.
        for member in leaving.filter({ !$0.isMaster }) + leaving.filter(\.isMaster) {
            steps.append(.forget(member.id))
            sentences.append("\(member.address) is forgotten by all and forgets them; what it holds of the cluster is deleted there")
        }
        self.steps = steps
        self.sentences = sentences
        notes = []
    }

    /// Only what leaves moves: the others' shares are not evened out by the way.
    private static func drain(_ drained: [ClusterView.Member], _ staying: [ClusterView.Member]) throws(ProvisioningFailure) -> RebalancePlan
    {
        let masters =
            staying.map { RebalancePlan.Master(id: $0.id, slots: $0.slots) }
            + drained.map { RebalancePlan.Master(id: $0.id, slots: $0.slots, weight: 0) }
        do {
            let plan = try RebalancePlan.make(masters).result
            let gone = Set(drained.map(\.id))
            return RebalancePlan(moves: plan.moves.filter { gone.contains($0.from) })
        } catch { throw ProvisioningFailure(.refused, error.description) }
    }

    /// Which replica goes to which master, so that those whose master leaves have one, and no master that stays is bare.
    private static func replicaMoves(_ view: ClusterView, _ ids: Set<String>, _ staying: [ClusterView.Member]) throws(ProvisioningFailure)
        -> [(String, String)]
    {
        var followers: [String: [ClusterView.Member]] = [:]
        for master in staying { followers[master.id] = view.replicas(of: master.id).filter { !ids.contains($0.id) && $0.answers } }
        var moves: [(String, String)] = []
        func fewest(except replica: ClusterView.Member) -> String? {
            staying.min { a, b in
                func rank(_ m: ClusterView.Member) -> (Int, Int, String) {
                    (followers[m.id]!.count, m.address.host == replica.address.host ? 1 : 0, m.id)
                }
                return rank(a) < rank(b)
            }?.id
        }
        for orphan in view.members where !orphan.isMaster && !ids.contains(orphan.id) && orphan.answers && ids.contains(orphan.master ?? "")
        {
            guard let master = fewest(except: orphan) else { continue }
            followers[master]!.append(orphan)
            moves.append((orphan.id, master))
        }
        for master in staying where followers[master.id]!.isEmpty {
            // It was bare before: this plan does not make it worse.
            if view.replicas(of: master.id).isEmpty { continue }
            guard let rich = staying.max(by: { (followers[$0.id]!.count, $1.id) < (followers[$1.id]!.count, $0.id) }),
                followers[rich.id]!.count > 1
            else {
                let gone = view.replicas(of: master.id).map(\.address.description).joined(separator: ", ")
                throw ProvisioningFailure(
                    .refused,
                    "without \(gone) the master \(master.address) has no replica, and no other master can spare one; add a replica first: "
                        + "muster redis add HOST:PORT --replica-of \(master.address)"
                )
            }
            let spare = followers[rich.id]!.max { $0.id < $1.id }!
            followers[rich.id]!.removeAll { $0.id == spare.id }
            followers[master.id]!.append(spare)
            moves.append((spare.id, master.id))
        }
        return moves
    }

    // MARK: apply

    /// Returns the replicas that have no whole copy yet, a sentence each.
    public func apply(_ session: ClusterSession, rate: MoveRate, tell: @escaping @Sendable (String) -> Void)
        async throws(ProvisioningFailure) -> [String]
    {
        var ids: [String] = []
        for step in steps {
            switch step {
            case .drain(let plan):
                let moved = try await ClusterRebalance.apply(plan, session, rate: rate, tell: tell)
                tell("moved \(moved.slots) slots with \(moved.keys) keys")
            case .replicate(let replica, let master): try await follow(replica, master, session, tell)
            case .forget(let id): ids.append(id)
            }
        }
        let staying = try await part(with: ids, session, tell)
        // The node that was asked first may be one of those that have left.
        let rest = ClusterSession(seeds: staying, credentials: session.credentials, loop: session.loop)
        defer { rest.close() }
        return try await rest.waitUntilServing(.seconds(120), copyTime: ClusterFormation.copyTime)
    }

    /// A copy of which nothing moves for so long is given up: a master may take a minute for its snapshot before the first byte.
    private static let patience = Duration.seconds(120)

    /// The new master may have been replaced meanwhile; the replica may follow it already. Waits until it is in step: until then its old
    /// place still counts.
    private func follow(_ replica: String, _ master: String, _ session: ClusterSession, _ tell: @Sendable (String) -> Void)
        async throws(ProvisioningFailure)
    {
        let view = try await session.read().view
        guard let member = view.member(replica), let target = view.member(master) else { return }
        if member.isMaster {
            throw ProvisioningFailure(.unfinished, "has become a master meanwhile; run the same again", node: member.address)
        }
        if member.master != master {
            _ = try await session.client(member.address).ask("CLUSTER REPLICATE", target.isMaster ? master : target.master ?? master)
        }
        let client = try session.client(member.address)
        var patience = CopyPatience(limit: ClusterShrink.patience, now: .now)
        while true {
            let fields = ClusterSession.fields(try await client.ask("INFO", "replication"))
            if fields["master_link_status"] == "up" { break }
            if !patience.goesOn(fields, now: .now) {
                throw ProvisioningFailure(
                    .unfinished,
                    "does not get in step with its new master: nothing of its copy has moved for \(ClusterShrink.patience.brief); see "
                        + "its log, then run the same again", node: member.address)
            }
            await session.loop.sleep(.milliseconds(50))
        }
        tell("\(member.address) follows \(target.address)")
    }

    /// All that stay forget all that leave, at once: a node that only some have forgotten comes back by the gossip of the others after a
    /// minute. Then those that leave are reset, one after the other; who leaves is asked to forget nobody. Returns who stays.
    private func part(with ids: [String], _ session: ClusterSession, _ tell: @Sendable (String) -> Void) async throws(ProvisioningFailure)
        -> [NodeAddress]
    {
        let view = try await session.read().view
        let members = ids.compactMap { id in view.member(id) ?? leaving.first { $0.id == id } }
        if let member = members.first(where: { !$0.slots.isEmpty && $0.isMaster && $0.answers }) {
            throw ProvisioningFailure(.unfinished, "has slots again; run the same again", node: member.address)
        }
        let staying = view.members.filter { $0.answers && !ids.contains($0.id) }
        for other in staying {
            let client = try session.client(other.address)
            let known = try await client.nodes()
            for id in ids where known.node(id) != nil { _ = try await client.ask("CLUSTER FORGET", id) }
        }
        // A drain may have made a replica of who was a master.
        for member in members.filter({ !$0.isMaster }) + members.filter(\.isMaster) {
            // One that is gone for good cannot be told.
            guard member.answers, let client = try? session.client(member.address) else {
                tell("\(member.address) is forgotten; it does not answer")
                continue
            }
            // A replica's data is its master's: RESET deletes it. A master with keys refuses, and rightly.
            _ = try await client.ask("CLUSTER RESET", "HARD")
            // RESET empties the memory and writes nothing of that down: without this, the next start would bring the keys back.
            _ = try await client.ask("FLUSHALL")
            tell("\(member.address) has left")
        }
        return staying.map(\.address)
    }
}
