import Basics
import Redis
import Sharding

/// Slots moved between masters until each carries its share, while all serve.
public enum ClusterRebalance {
    /// What a share is a share of.
    public enum Measure: String, Sendable, CaseIterable {
        case slots
        case keys
        /// Each master's commands a second, thought of as even over its slots.
        case ops
    }

    /// Weights by address or id; who has none weighs 1. Masters without slots are included.
    public static func plan(
        _ session: ClusterSession, weights: [String: Double], measure: Measure = .slots, threshold: Double = RebalancePlan.threshold
    ) async throws(ProvisioningFailure) -> (ClusterReading, Decision<RebalancePlan>) {
        let reading = try await session.read()
        try refuseUnlessWhole(reading)
        var weightOf: [String: Double] = [:]
        for (name, weight) in weights {
            guard let member = reading.view.member(named: name) else { throw ProvisioningFailure(.refused, "no node is called '\(name)'") }
            guard member.isMaster else {
                throw ProvisioningFailure(.refused, "is a replica and has no slots; weigh its master", node: member.address)
            }
            weightOf[member.id] = weight
        }
        let masters = reading.view.masters.filter(\.answers).map {
            RebalancePlan.Master(id: $0.id, slots: $0.slots, weight: weightOf[$0.id] ?? 1)
        }
        let load = try await load(reading, session, measure)
        do { return (reading, try RebalancePlan.make(masters, load: load, threshold: threshold)) } catch {
            throw ProvisioningFailure(.refused, error.description)
        }
    }

    /// Moving slots while a node is away, or while nodes disagree, makes a small trouble a large one.
    static func refuseUnlessWhole(_ reading: ClusterReading) throws(ProvisioningFailure) {
        if let silent = reading.silent.first {
            throw ProvisioningFailure(.refused, "slots do not move while a node is away: \(silent.failure.message)", node: silent.address)
        }
        if !reading.view.unassigned.isEmpty {
            throw ProvisioningFailure(.refused, "\(reading.view.unassigned.count) slots belong to nobody; muster redis fix first")
        }
    }

    private static func load(_ reading: ClusterReading, _ session: ClusterSession, _ measure: Measure) async throws(ProvisioningFailure)
        -> [Double]?
    {
        if measure == .slots { return nil }
        var load = [Double](repeating: 0, count: HashSlot.count)
        for master in reading.view.masters where master.answers {
            let slots = master.slots.slots
            if measure == .ops {
                let share = Double(reading.report(master.id)?.number("instantaneous_ops_per_sec") ?? 0) / Double(max(1, slots.count))
                for slot in slots { load[slot] = share }
            } else {
                let counts = try await session.client(master.address).ask(
                    all: slots.map { RedisCommand("CLUSTER COUNTKEYSINSLOT", String($0)) })
                for (slot, count) in zip(slots, counts) { load[slot] = Double(count.int ?? 0) }
            }
        }
        return load
    }

    /// Carries a plan out. Each part looks at the cluster anew, so that a failover in between is no harm: a part that fails is tried again
    /// from what is there then.
    public static func apply(
        _ plan: RebalancePlan, _ session: ClusterSession, rate: MoveRate, tell: @escaping @Sendable (String) -> Void
    ) async throws(ProvisioningFailure) -> (slots: Int, keys: Int) {
        let mover = SlotMover(session, rate: rate, tell: tell)
        let repair = ClusterRepair(session, rate: rate, tell: tell)
        for move in plan.moves {
            var failures = 0
            while true {
                let view = try await session.read().view
                guard let receiver = current(move.to, view), let sender = current(move.from, view) else {
                    throw ProvisioningFailure(.unfinished, "a master of the plan is gone; run the same again for a new plan")
                }
                let rest = move.slots.intersection(sender.slots)
                // A master that gave its last slot away follows the receiver by itself.
                if rest.isEmpty || sender.id == receiver.id { break }
                if receiver.slots.isEmpty {
                    // It may have joined without muster: calls of functions must work in its first slot.
                    try await session.copyLibraries(from: sender.address, to: receiver.address, tell: tell)
                    try await session.copyUsers(from: sender.address, to: receiver.address, tell: tell)
                }
                do throws(ProvisioningFailure) {
                    try await mover.move(rest.slots, from: sender.id, to: receiver.id, in: view, of: plan.slotCount)
                } catch {
                    failures += 1
                    if failures > 5 { throw error }
                    tell("held up, looking again: \(error)")
                    await session.loop.sleep(.milliseconds(500))
                    try await repair.settleOpenSlots()
                }
            }
        }
        return mover.moved
    }

    /// The master of the plan, or the replica that took over from it.
    private static func current(_ id: String, _ view: ClusterView) -> ClusterView.Member? {
        guard let member = view.member(id) else { return nil }
        if member.isMaster, !member.isFailed { return member }
        return member.master.flatMap { view.member($0) }
            ?? view.masters.first { other in view.views.contains { $0.node(id)?.master == other.id } }
    }
}
