import Basics

/// Who takes over from a primary that is fenced: the standby with the most of its log, if nothing that was acknowledged can be missing
/// there.
///
/// Nobody takes over, and the primary is started again with its own data, when
/// - no standby answers that is on the primary's timeline,
/// - the best of them lies more than `maxLoss` bytes behind the last known position of the primary,
/// - commits were acknowledged by any `k` of `n` standbys, and fewer than `n - k + 1` are known: one of those that are not may be the only
///   one that has a commit.
/// A standby that is down counts as known when the heir is as far as the primary was after that standby's end.
public enum HeirChoice {
    /// One standby of the lost primary.
    public struct Standby: Sendable, Equatable {
        public let number: Int
        /// How far it is; nil: it did not answer in time.
        public let position: WALPosition?
        public let timeline: UInt32?
        /// It was one of those that the last commits waited for.
        public let isSynchronous: Bool
        /// It cannot be further than this; nil: that is not known.
        public let bound: WALPosition?

        public init(_ number: Int, position: WALPosition?, timeline: UInt32?, isSynchronous: Bool = false, bound: WALPosition? = nil) {
            self.number = number
            self.position = position
            self.timeline = timeline
            self.isSynchronous = isSynchronous
            self.bound = bound
        }
    }

    /// What is known of the primary that is lost.
    public struct Lost: Sendable, Equatable {
        public let store: String
        public let number: Int
        public let timeline: UInt32?
        /// Its last known position; nil: none is known.
        public let position: WALPosition?
        /// How many standbys had to have a commit before it was acknowledged; 0: none had to.
        public let quorum: Int
        /// A person has named the heir: what may be missing there was accepted.
        public let wanted: Int?

        public init(store: String, number: Int, timeline: UInt32?, position: WALPosition?, quorum: Int, wanted: Int? = nil) {
            self.store = store
            self.number = number
            self.timeline = timeline
            self.position = position
            self.quorum = quorum
            self.wanted = wanted
        }

        var name: String { "\(store)/\(number)" }
    }

    /// The number of the heir; nil: the primary is started again in its place.
    public static func choose(after lost: Lost, among standbys: [Standby], maxLoss: UInt64) -> Decision<Int?> {
        let able = standbys.filter { $0.position != nil && (lost.timeline == nil || $0.timeline == lost.timeline) }
            .filter { lost.wanted == nil || $0.number == lost.wanted }
        func rank(_ standby: Standby) -> (WALPosition, Int, Int) {
            (standby.position ?? WALPosition(0), standby.isSynchronous ? 1 : 0, -standby.number)
        }
        guard let best = able.max(by: { rank($0) < rank($1) }), let position = best.position else {
            return inPlace(lost, standbys, flaw(standbys, lost), flip: "a standby on the primary's timeline that answers")
        }
        if lost.wanted == nil {
            guard let known = lost.position else {
                return inPlace(
                    lost, standbys, "how far it was is not known, so what a standby lacks is not either",
                    flip: "one answer of the primary before its end")
            }
            let behind = known.bytes(beyond: position)
            if behind > maxLoss {
                return inPlace(
                    lost, standbys,
                    "the most advanced standby, \(lost.store)/\(best.number), is \(behind) bytes behind, more than max-loss (\(maxLoss))",
                    flip: "max-loss of \(behind) or more")
            }
            let unknown = standbys.filter { standby in
                // One whose timeline is not known to be the primary's, and that is further, may have followed it unseen.
                if let own = standby.position { return standby.timeline != lost.timeline && own > position }
                return !(standby.bound.map { $0 <= position } ?? false)
            }
            if lost.quorum > 0, standbys.count - unknown.count < standbys.count - lost.quorum + 1 {
                let names = unknown.map { "\(lost.store)/\($0.number)" }.joined(separator: ", ")
                return inPlace(
                    lost, standbys, "\(names) did not answer, or not on its timeline, and may alone have writes that were acknowledged",
                    flip: "an answer of \(names)")
            }
        }
        return heir(lost, standbys, best.number, position)
    }

    private static func flaw(_ standbys: [Standby], _ lost: Lost) -> String {
        if let wanted = lost.wanted { return "\(lost.store)/\(wanted) does not answer, or is on another timeline" }
        if standbys.allSatisfy({ $0.position == nil }) { return "no standby answers" }
        return "no standby that answers is on its timeline (\(lost.timeline.map(String.init) ?? "unknown"))"
    }

    private static func inputs(_ lost: Lost, _ standbys: [Standby]) -> [DecisionRecord.Input] {
        [.init("last known position", lost.position?.description ?? "unknown"), .init("quorum", lost.quorum)]
            + standbys.map { standby in
                let timeline = standby.timeline.map { " on timeline \($0)" } ?? ""
                return .init("\(lost.store)/\(standby.number)", standby.position.map { "\($0)\(timeline)" } ?? "no answer")
            }
    }

    private static func inPlace(_ lost: Lost, _ standbys: [Standby], _ why: String, flip: String) -> Decision<Int?> {
        Decision(
            nil,
            because: DecisionRecord(
                .failover, subject: lost.name, inputs: inputs(lost, standbys), raw: "nobody", outcome: "restarted in its place",
                sentence: "\(lost.name) is fenced and nobody takes over, because \(why): it is started again with its own data.", flip: flip
            ))
    }

    private static func heir(_ lost: Lost, _ standbys: [Standby], _ number: Int, _ position: WALPosition) -> Decision<Int?> {
        let name = "\(lost.store)/\(number)", known = standbys.filter { $0.position != nil }.count
        let behind = lost.position.map { $0.bytes(beyond: position) }
        let distance =
            switch behind {
            case nil: "how far the primary was is not known"
            case 0?: "it has all that the primary was last seen to have"
            case let bytes?: "it is \(bytes) bytes behind what the primary was last seen to have"
            }
        let wanted = lost.wanted == nil ? "the most advanced of \(known) that answer" : "as somebody asked for"
        return Decision(
            number,
            because: DecisionRecord(
                .failover, subject: lost.name, inputs: inputs(lost, standbys), raw: name, outcome: "\(name) takes over",
                sentence: "\(lost.name) is fenced: \(name) takes over at \(position), \(wanted); \(distance).",
                flip: "another standby beyond \(position)"))
    }
}
