import Basics

/// What a PostgreSQL store remembers of who leads it, in a file that is on the disk before the step that it tells of is taken. It is read
/// when a supervisor starts, so that one that was killed between two steps of a failover goes on with the right one.
public struct StoreRecord: Sendable, Equatable {
    /// How far the last change of the primary got.
    public enum Step: String, Sendable, CaseIterable {
        /// `primary` leads, and may be started as primary.
        case leading
        /// `primary` led until it was fenced, and who follows it is not decided: it still has the most of the data.
        case fenced
        /// `primary` is the heir, and may have been promoted already: nobody else may be made primary.
        case promoting
    }

    /// The number of the node that leads, led last, or is to lead, from 1.
    public var primary: Int
    /// How often the primary has changed.
    public var term: Int
    public var step: Step
    /// Whether the store has ever served. From then on an empty folder is one that was emptied.
    public var hasServed: Bool
    /// The timeline of the primary; nil: not known yet.
    public var timeline: UInt32?
    /// Where the timeline parts from the one before; nil: it is the first one, or not known yet.
    public var fork: WALPosition?
    /// Nodes whose log may go on beyond the fork: they are rewound before they follow.
    public var toRewind: Set<Int> = []
    /// Nodes that can follow only with a new copy.
    public var toClone: Set<Int> = []

    public init(primary: Int, term: Int = 0, step: Step = .leading, hasServed: Bool = false) {
        self.primary = primary
        self.term = term
        self.step = step
        self.hasServed = hasServed
    }

    /// The record of a store that has never been formed: its first node leads.
    public static let first = StoreRecord(primary: 1)

    /// The file's text: a line a field, `name value`.
    public var text: String {
        func list(_ nodes: Set<Int>) -> String { nodes.sorted().map(String.init).joined(separator: ",") }
        return [
            "version 1", "primary \(primary)", "term \(term)", "step \(step.rawValue)", "served \(hasServed)",
            "timeline \(timeline.map(String.init) ?? "-")", "fork \(fork?.description ?? "-")", "rewind \(list(toRewind))",
            "clone \(list(toClone))", "end",
        ].joined(separator: "\n") + "\n"
    }

    /// Why a text is no record. Nothing may be started on a record that cannot be read: a wrong guess makes a second primary.
    public struct Flaw: Error, Equatable, CustomStringConvertible { public let description: String }

    /// Reads `text`; `nodes` is how many nodes the store has.
    public init(text: String, nodes: Int) throws(Flaw) {
        var fields: [Substring: Substring] = [:]
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: false)
            fields[parts[0]] = parts.count > 1 ? parts[1] : ""
        }
        guard fields["version"] == "1" else { throw Flaw(description: "it is of another version of Muster") }
        guard fields["end"] != nil else { throw Flaw(description: "its end is missing") }
        guard let primary = fields["primary"].flatMap({ Int($0) }), (1...nodes).contains(primary) else {
            throw Flaw(description: "its primary is none of the \(nodes) nodes")
        }
        guard let term = fields["term"].flatMap({ Int($0) }), term >= 0, let step = fields["step"].flatMap({ Step(rawValue: String($0)) }),
            let served = fields["served"].flatMap({ Bool(String($0)) })
        else { throw Flaw(description: "its term, step or 'served' is missing or wrong") }
        self.init(primary: primary, term: term, step: step, hasServed: served)
        if let given = fields["timeline"], given != "-" {
            guard let value = UInt32(given) else { throw Flaw(description: "its timeline is no number") }
            timeline = value
        }
        if let given = fields["fork"], given != "-" {
            guard let value = WALPosition(text: given) else { throw Flaw(description: "its fork is no position of a log") }
            fork = value
        }
        toRewind = try StoreRecord.nodes(fields["rewind"], nodes)
        toClone = try StoreRecord.nodes(fields["clone"], nodes)
    }

    /// Nodes that the stack file does not have any more are left out.
    private static func nodes(_ text: Substring?, _ count: Int) throws(Flaw) -> Set<Int> {
        var found: Set<Int> = []
        for word in (text ?? "").split(separator: ",") {
            guard let number = Int(word), number > 0 else { throw Flaw(description: "'\(word.prefix(20))' is no number of a node") }
            if number <= count { found.insert(number) }
        }
        return found
    }
}
