import Basics

/// Chooses the replica that takes over from a master that is known to have died: the one with the most of its data.
///
/// Offsets are of the master's stream, so that the higher one has more. Of equal replicas the one that is named first is chosen. A replica
/// is a candidate only with a whole copy (`ReplicaCopy`), and only if it had lost its master no earlier than the master died: one that was
/// cut off before lacks writes that the master acknowledged. Without a candidate nobody takes over, and the master is started again with
/// its own data.
public enum Heir {
    public struct Candidate: Sendable, Equatable {
        public let name: String
        public let copy: ReplicaCopy

        public init(name: String, copy: ReplicaCopy) {
            self.name = name
            self.copy = copy
        }
    }

    /// Redis counts how long a link is down in whole seconds by a clock that it reads now and then.
    static let slack = 2

    /// The name of the replica that takes over; nil: none can. `sinceDeath` is the time that has passed since the master died.
    public static func choose(of dead: String, slots: SlotSet, sinceDeath: Duration, among candidates: [Candidate]) -> Decision<String?> {
        var able: [(name: String, offset: Int)] = [], flaws: [String] = []
        var inputs: [DecisionRecord.Input] = [.init("slots", slots)]
        for candidate in candidates {
            switch judge(candidate.copy, sinceDeath) {
            case .success(let offset):
                able.append((candidate.name, offset))
                inputs.append(.init(candidate.name, "offset \(offset)"))
            case .failure(let flaw):
                flaws.append("\(candidate.name) \(flaw.why)")
                inputs.append(.init(candidate.name, flaw.why))
            }
        }
        guard let best = able.max(by: { ($0.offset, $1.name) < ($1.offset, $0.name) }) else {
            let why =
                flaws.isEmpty
                ? "no replica of it answers"
                : "none of its replicas that answer has all its data (\(flaws.joined(separator: "; ")))"
            return Decision(
                nil,
                because: DecisionRecord(
                    .failover, subject: dead, inputs: inputs, raw: "nobody", outcome: "restarted in its place",
                    sentence: "\(dead), master of \(slots.count) slots, died and \(why): it is started again with its own data.",
                    flip: "a replica in step"))
        }
        let behind = able.map { best.offset.subtractingClamped($0.offset) }.max() ?? 0
        return Decision(
            best.name,
            because: DecisionRecord(
                .failover, subject: dead, inputs: inputs, raw: best.name, outcome: "\(best.name) takes over",
                sentence:
                    "\(dead), master of \(slots.count) slots, died: \(best.name) takes over at "
                    + "once\(able.count > 1 ? ", the most advanced of \(able.count) replicas (the last is \(behind) bytes behind)" : ""); the other masters vote.",
                flip: able.count > 1
                    ? "another replica with a higher offset than \(best.offset)"
                    : "a second replica with a higher offset than \(best.offset)"))
    }

    private struct Flaw: Error { let why: String }

    /// The offset of a copy that may take over, or why it may not.
    private static func judge(_ copy: ReplicaCopy, _ sinceDeath: Duration) -> Result<Int, Flaw> {
        switch copy {
        case .lacking(let why): return .failure(Flaw(why: why))
        case .whole(let offset, let away):
            let seconds = Int(clamping: sinceDeath.nanoseconds / 1_000_000_000)
            if let away, away > seconds.addingClamped(slack) {
                return .failure(Flaw(why: "had lost its master \(away) s ago, before it died"))
            }
            return .success(offset)
        }
    }
}
