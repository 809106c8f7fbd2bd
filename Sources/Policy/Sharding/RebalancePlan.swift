import Basics

/// Decides which slots change hands so that each master carries its share.
///
/// A share is the master's weight over the sum of weights, of all slots, or of their measured load where one is given. Only what is above a
/// share moves, so no plan with fewer slots reaches the same evenness by count. A master without slots is filled like any other; one of
/// weight 0 is emptied. Deterministic: the fullest gives first, its highest slots first (with a load: its busiest that still fits), to the
/// emptiest.
///
/// - Complexity: slots x log(slots) + slots x masters.
public struct RebalancePlan: Sendable, Equatable {
    public struct Master: Sendable, Equatable {
        public let id: String
        public let slots: SlotSet
        public let weight: Double

        public init(id: String, slots: SlotSet, weight: Double = 1) {
            self.id = id
            self.slots = slots
            self.weight = weight
        }
    }

    public struct Move: Sendable, Equatable {
        public let slots: SlotSet
        public let from: String
        public let to: String

        public init(slots: SlotSet, from: String, to: String) {
            self.slots = slots
            self.from = from
            self.to = to
        }
    }

    public struct Refusal: Error, Equatable, CustomStringConvertible {
        public let description: String
    }

    /// How far, as a part of its share, a master may be off it and is left alone: moving has its cost, and counts of keys are never even.
    public static let threshold = 0.02

    public let moves: [Move]

    public init(moves: [Move]) { self.moves = moves }

    public var slotCount: Int { moves.reduce(0) { $0 + $1.slots.count } }

    /// Makes a plan. `load` has the load of each slot, from 0; nil: every slot counts the same.
    public static func make(_ masters: [Master], load: [Double]? = nil, threshold: Double = threshold) throws(Refusal) -> Decision<
        RebalancePlan
    > {
        precondition(load == nil || load!.count == HashSlot.count)
        if let wrong = masters.first(where: { !($0.weight >= 0) || !$0.weight.isFinite }) {
            throw Refusal(description: "the weight \(wrong.weight) of \(wrong.id) is no weight")
        }
        let weights = masters.reduce(0) { $0 + $1.weight }
        guard weights > 0 else { throw Refusal(description: "no master is left to take the slots: every weight is 0") }
        var sorted = masters.sorted { $0.id < $1.id }.map { Side($0) }
        let isMeasured = load.map { load in masters.contains { $0.slots.slots.contains { load[$0] > 0 } } } ?? false
        let cost: (Int) -> Double = { isMeasured ? load![$0] : 1 }
        let total = sorted.reduce(0.0) { $0 + $1.slots.reduce(0) { $0 + cost($1) } }
        for i in sorted.indices {
            sorted[i].carried = sorted[i].slots.reduce(0) { $0 + cost($1) }
            sorted[i].share = total * sorted[i].weight / weights
        }
        let worst = sorted.map(\.deviation).max() ?? 0
        var moves: [Move] = []
        if worst > threshold { moves = spread(&sorted, cost) }
        let plan = RebalancePlan(moves: moves)
        return Decision(plan, because: record(plan, masters, worst: worst, threshold: threshold, isMeasured: isMeasured))
    }

    private struct Side {
        let id: String
        let weight: Double
        var slots: [Int]
        var carried = 0.0
        var share = 0.0

        init(_ master: Master) {
            id = master.id
            weight = master.weight
            slots = master.slots.slots
        }

        var mustEmpty: Bool { weight == 0 && !slots.isEmpty }
        /// Part of the share by which it is off it; what must be emptied is wholly off.
        var deviation: Double { mustEmpty ? 1 : share > 0 ? abs(carried - share) / share : 0 }
    }

    private static func spread(_ sides: inout [Side], _ cost: (Int) -> Double) -> [Move] {
        var taken: [String: [String: [Int]]] = [:]
        let givers = sides.indices.filter { sides[$0].mustEmpty || sides[$0].carried > sides[$0].share }
            .sorted { (sides[$1].carried - sides[$1].share, sides[$0].id) < (sides[$0].carried - sides[$0].share, sides[$1].id) }
        for giver in givers {
            // Busiest first, of equal ones the highest: a share is reached with the fewest slots, and ranges stay whole.
            let order = sides[giver].slots.sorted { (cost($1), $1) < (cost($0), $0) }
            var receiver: Int?
            for slot in order {
                let load = cost(slot)
                // A slot without load evens nothing out.
                if !sides[giver].mustEmpty, load == 0 || sides[giver].carried - sides[giver].share < load { continue }
                let free = sides.indices.filter { $0 != giver && sides[$0].weight > 0 }
                // The one before, while it has room: then ranges stay whole.
                if let last = receiver, sides[last].share - sides[last].carried < max(load, 1e-9) { receiver = nil }
                let chosen = receiver ?? free.max { sides[$0].share - sides[$0].carried < sides[$1].share - sides[$1].carried }
                guard let chosen, sides[giver].mustEmpty || sides[chosen].share - sides[chosen].carried > 0 else { break }
                // It would be as far above its share as it is below it now.
                if !sides[giver].mustEmpty, (sides[chosen].share - sides[chosen].carried) * 2 < load { continue }
                receiver = chosen
                taken[sides[giver].id, default: [:]][sides[chosen].id, default: []].append(slot)
                sides[giver].carried -= load
                sides[chosen].carried += load
            }
        }
        return taken.sorted { $0.key < $1.key }.flatMap { from, targets in
            targets.sorted { $0.key < $1.key }.map { Move(slots: SlotSet(slots: $0.value), from: from, to: $0.key) }
        }
    }

    private static func record(_ plan: RebalancePlan, _ masters: [Master], worst: Double, threshold: Double, isMeasured: Bool)
        -> DecisionRecord
    {
        let percent = Int(clamped: (worst * 100).rounded()), limit = (threshold * 1000).rounded() / 10
        let measure = isMeasured ? "measured load" : "number of slots"
        let sentence =
            plan.moves.isEmpty
            ? "nothing moves: no master is off its share by more than \(limit) % (the worst by \(percent) %)"
            : "\(plan.slotCount) slots move: a master is off its share by \(percent) %, and \(limit) % is tolerated; measured by \(measure)"
        return DecisionRecord(
            .scale, subject: "cluster",
            inputs: masters.sorted { $0.id < $1.id }.map { .init(String($0.id.prefix(8)), "\($0.slots.count) slots, weight \($0.weight)") }
                + [.init("measure", measure)],
            raw: "\(percent) % off", outcome: "\(plan.slotCount) slots", sentence: sentence,
            flip: plan.moves.isEmpty ? "a weight, or a master off its share by more than \(limit) %" : "equal shares within \(limit) %")
    }
}
