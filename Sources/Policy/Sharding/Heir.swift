import Basics

/// Chooses the replica that takes over from a master that is known to have died: the one with the most of its data.
///
/// Offsets are of the master's stream, so that the higher one has more. Of equal replicas the one that is named first is chosen. A replica
/// whose own state is not known, or that never had a whole copy (`offset` 0), is no candidate.
public enum Heir {
    public struct Candidate: Sendable, Equatable {
        public let name: String
        public let offset: Int

        public init(name: String, offset: Int) {
            self.name = name
            self.offset = offset
        }
    }

    /// The name of the replica that takes over; nil: none can.
    public static func choose(of dead: String, slots: SlotSet, among candidates: [Candidate]) -> Decision<String?> {
        let inputs = candidates.map { DecisionRecord.Input($0.name, "offset \($0.offset)") }
        let able = candidates.filter { $0.offset > 0 }
        guard let best = able.max(by: { ($0.offset, $1.name) < ($1.offset, $0.name) }) else {
            return Decision(
                nil,
                because: DecisionRecord(
                    .failover, subject: dead, inputs: [.init("slots", slots)] + inputs, raw: "nobody", outcome: "restarted in its place",
                    sentence:
                        "\(dead), master of \(slots.count) slots, died and no replica of it answers: it is started again with its own "
                        + "data.",
                    flip: "a replica in step"))
        }
        let behind = able.map { best.offset.subtractingClamped($0.offset) }.max() ?? 0
        return Decision(
            best.name,
            because: DecisionRecord(
                .failover, subject: dead, inputs: [.init("slots", slots)] + inputs, raw: best.name, outcome: "\(best.name) takes over",
                sentence:
                    "\(dead), master of \(slots.count) slots, died: \(best.name) takes over at "
                    + "once\(able.count > 1 ? ", the most advanced of \(able.count) replicas (the last is \(behind) bytes behind)" : ""); the other masters vote.",
                flip: able.count > 1
                    ? "another replica with a higher offset than \(best.offset)"
                    : "a second replica with a higher offset than \(best.offset)"))
    }
}
