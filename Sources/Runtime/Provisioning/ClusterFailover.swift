import Basics
import Redis
import Sharding

/// A replica takes over from its master on demand.
///
/// Graceful: the master stops writing until the replica has everything, so nothing is lost. Forced: for a master that is away or hangs;
/// what it had not sent is lost, and a majority of masters must still vote for it. A forced takeover is refused to a replica that has no
/// whole copy (`ReplicaCopy`): Redis does not ask it for one, and would make a master without data of it.
public struct ClusterFailover: Sendable {
    public let replica: ClusterView.Member
    public let master: ClusterView.Member
    public let isForced: Bool
    /// How long the replica has been without its master, in seconds.
    public let away: Int

    public var sentence: String {
        let loss =
            "writes that it has not passed on are lost"
            + (away > 0 ? ", which are those of the last \(away) s at least: so long ago the replica lost its master" : "")
        return "\(replica.address) takes over \(master.slots.count) slots from \(master.address)"
            + (isForced ? ", without asking it: \(loss)" : ", when it has everything: no write is lost")
    }

    /// What is wanted: it says of whom, so that the same wish, once fulfilled, asks for nothing more.
    public enum Wish: Sendable, Equatable {
        /// This node becomes master.
        case heir(String)
        /// This node becomes master in the place of the node at this address; where another one is master in that place already, it does not.
        case heirOf(NodeAddress, String)
        /// This master is replaced, by its most advanced replica.
        case replaced(String)
    }

    public enum Outlook: Sendable {
        /// It is as wished already; the sentence says how.
        case done(String)
        case planned(ClusterFailover)
    }

    /// Nodes are named by HOST:PORT, or by the beginning of their id.
    public static func plan(_ session: ClusterSession, _ wish: Wish, isForced: Bool) async throws(ProvisioningFailure) -> Outlook {
        let reading = try await session.read()
        let view = reading.view
        let name =
            switch wish {
            case .heir(let name), .heirOf(_, let name), .replaced(let name): name
            }
        guard let named = view.member(named: name) else {
            throw ProvisioningFailure(
                .refused,
                "no node of the cluster is called '\(name)'; it has \(view.members.map(\.address.description).joined(separator: ", "))")
        }
        if let sentence = try fulfilled(wish, named, view) { return .done(sentence) }
        let masterID = named.isMaster ? named.id : named.master ?? ""
        guard let master = view.member(masterID) else {
            throw ProvisioningFailure(.refused, "its master is not known", node: named.address)
        }
        let candidates = named.isMaster ? view.members.filter { $0.master == named.id && $0.answers } : [named]
        return .planned(try choose(reading, master, candidates, isForced: isForced))
    }

    /// Why there is nothing to do; nil: there is.
    private static func fulfilled(_ wish: Wish, _ named: ClusterView.Member, _ view: ClusterView) throws(ProvisioningFailure) -> String? {
        let slots = named.slots.isEmpty ? ", without slots" : " of \(named.slots.count) slots"
        switch wish {
        case .heir:
            return named.isMaster ? "\(named.address) is a master already\(slots): nothing to do (--from replaces a master)" : nil
        case .heirOf(let lost, _):
            if named.isMaster {
                if !named.slots.isEmpty { return "\(named.address) is the master already\(slots)" }
                throw ProvisioningFailure(.refused, "is a master without slots, and no replica of \(lost)", node: named.address)
            }
            guard let master = view.member(named.master ?? "") else { return nil }
            if master.address == lost || master.address.port == lost.port && master.address.isLoopback && lost.isLoopback { return nil }
            if master.answers, master.isMaster, !master.slots.isEmpty {
                return "\(master.address) is the master already, of \(master.slots.count) slots"
            }
            throw ProvisioningFailure(.refused, "is a replica of \(master.address) now, and not of \(lost)", node: named.address)
        case .replaced:
            // One that has died and was replaced is still called a master, without slots.
            if named.isMaster { return named.slots.isEmpty ? "\(named.address) has no slots: there is nothing to take over" : nil }
            return "\(named.address) is no master, but a replica of \(view.name(named.master ?? "")): nothing to do"
        }
    }

    private static func choose(
        _ reading: ClusterReading, _ master: ClusterView.Member, _ candidates: [ClusterView.Member], isForced: Bool
    ) throws(ProvisioningFailure) -> ClusterFailover {
        func copy(_ replica: ClusterView.Member) -> ReplicaCopy {
            reading.report(replica.id).map { ReplicaCopy($0.info) } ?? .lacking("does not answer")
        }
        let fit = isForced ? candidates.filter { copy($0).offset != nil } : candidates
        // A master that answers is asked first, so any replica in step will do, and the same one each time it is looked. Without it, who is ahead.
        let asks = !isForced
        let offset: (ClusterView.Member) -> Int = { replica in
            asks && reading.report(replica.id)?.info["master_link_status"] == "up" ? Int.max : copy(replica).offset ?? -1
        }
        guard let replica = fit.max(by: { (offset($0), $1.id) < (offset($1), $0.id) }) else {
            throw refusal(candidates.map { ($0.address, copy($0).flaw ?? "") }, master)
        }
        guard replica.answers else { throw ProvisioningFailure(.refused, "does not answer", node: replica.address) }
        if !isForced {
            guard master.answers else {
                throw ProvisioningFailure(
                    .refused, "its master \(master.address) does not answer; --force takes over without it", node: replica.address)
            }
            guard reading.report(replica.id)?.info["master_link_status"] == "up" else {
                throw ProvisioningFailure(
                    .refused, "is not in step with its master; --force takes over all the same", node: replica.address)
            }
        }
        var away = 0
        if case .whole(_, let seconds?) = copy(replica) { away = seconds }
        return ClusterFailover(replica: replica, master: master, isForced: isForced, away: away)
    }

    /// Whether this is what was shown as `other`: the same two nodes, and the same slots. How long the replica is away grows meanwhile.
    public func isShown(as other: ClusterFailover) -> Bool {
        replica.id == other.replica.id && master.id == other.master.id && isForced == other.isForced && master.slots == other.master.slots
    }

    /// Right before each command: between two of them seconds may pass, in which the replica may have thrown its copy away for another.
    private func checkCopy(_ client: NodeClient) async throws(ProvisioningFailure) {
        let fields = ClusterSession.fields(try await client.ask("INFO", "replication"))
        // It may be master by now: then the command says so.
        guard fields["role"] != "master", let flaw = ReplicaCopy(fields).flaw else { return }
        throw ClusterFailover.refusal([(replica.address, flaw)], master)
    }

    /// Nobody of these may be forced.
    private static func refusal(_ candidates: [(address: NodeAddress, flaw: String)], _ master: ClusterView.Member) -> ProvisioningFailure {
        guard let first = candidates.first else {
            return ProvisioningFailure(.refused, "has no replica that answers", node: master.address)
        }
        let others = candidates.dropFirst().map { "; \($0.address) \($0.flaw)" }.joined()
        return ProvisioningFailure(
            .refused,
            "\(first.flaw)\(others). Made master, it would have \(master.address) throw its data away when that comes back: start "
                + "\(master.address) again first, or wait until the copy is whole", node: first.address)
    }

    /// Returns how long it took until every node that answers knew.
    public func apply(_ session: ClusterSession) async throws(ProvisioningFailure) -> Duration {
        // A node that does not know yet whose replica it speaks to does not answer its request.
        _ = try await session.eventually(.seconds(5)) { () async throws(ProvisioningFailure) in
            try await session.read().view.disagreements.isEmpty
        }
        let client = try session.client(replica.address)
        let start = MonotonicTime.now
        for _ in 0..<ClusterFailover.tries {
            do throws(ProvisioningFailure) {
                if isForced {
                    try await checkCopy(client)
                    _ = try await client.ask("CLUSTER FAILOVER", "FORCE")
                } else {
                    _ = try await client.ask("CLUSTER FAILOVER")
                }
            } catch {
                // It may have become master by itself meanwhile: then it refuses, and all is as it should be.
                guard error.code == .server, try await session.read().view.member(replica.id)?.isMaster == true else { throw error }
            }
            let done = try await session.eventually(ClusterFailover.limit) { () async throws(ProvisioningFailure) in
                let view = try await session.read().view
                guard let now = view.member(replica.id), now.isMaster, now.slots.count >= master.slots.count else { return false }
                return view.views.allSatisfy { $0.node(replica.id).map { $0.isMaster && $0.slots == now.slots } ?? false }
                    && (isForced || view.disagreements.isEmpty)
            }
            if done { return .now - start }
        }
        throw ProvisioningFailure(
            .unfinished,
            "did not take over within \((ClusterFailover.limit * ClusterFailover.tries).brief); a majority of masters must vote for it, "
                + "and it must have heard of its master lately",
            node: replica.address)
    }

    /// A node gives up a takeover on demand after 5 s; then it must be asked again.
    private static let limit = Duration.milliseconds(5_500)
    private static let tries = 4
}
