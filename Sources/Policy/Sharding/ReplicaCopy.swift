/// The state of a replica's copy of its master's data, as the replica tells it in `INFO replication`.
///
/// An offset alone proves nothing: Redis prints `slave_repl_offset:1` for a replica that has no position in its master's stream, and a
/// replica that copies anew may still print its position in an older stream. A replica that does not tell counts as one without a copy.
public enum ReplicaCopy: Sendable, Equatable {
    /// The replica has all of its master's writes up to `offset`, a position in bytes. `away` is how long the link to its master has been
    /// down, in whole seconds; nil when the link is up.
    case whole(offset: Int, away: Int?)
    /// The replica has no whole copy, or does not say that it has one. The text says why, and reads on after the replica's name.
    case lacking(String)

    /// `fields` are the lines of `INFO replication`, or of `INFO`, by name.
    public init(_ fields: [String: String]) {
        func number(_ name: String) -> Int? { fields[name].flatMap { Int($0) } }
        guard fields["role"] == "slave" else {
            self = .lacking(fields["role"] == "master" ? "is a master, and a copy of nobody" : "does not say that it is a replica")
            return
        }
        guard let link = fields["master_link_status"], let syncs = fields["master_sync_in_progress"],
            let offset = number("slave_repl_offset")
        else {
            self = .lacking("does not say whether it has a whole copy of its master's data")
            return
        }
        guard syncs == "0" else {
            self = .lacking("is still copying its master's data, and has no whole copy of it")
            return
        }
        // The link is up only when the copy is whole; a master that has written nothing yet is at offset 0.
        if link == "up" {
            self = .whole(offset: max(0, offset), away: nil)
            return
        }
        guard let away = number("master_link_down_since_seconds") else {
            self = .lacking("does not say since when it has lost its master")
            return
        }
        guard away >= 0, offset > 1 else {
            self = .lacking("has never had a whole copy of its master's data")
            return
        }
        self = .whole(offset: offset, away: away)
    }

    /// `text` is the answer to `INFO replication`.
    public init(info text: String) {
        var fields: [String: String] = [:]
        for line in text.split(whereSeparator: \.isNewline) {
            guard let colon = line.firstIndex(of: ":") else { continue }
            fields[String(line[..<colon])] = String(line[line.index(after: colon)...])
        }
        self.init(fields)
    }

    /// The position in the master's stream up to which the replica has everything, in bytes; nil: it has no whole copy.
    public var offset: Int? { if case .whole(let offset, _) = self { offset } else { nil } }

    /// Why the replica has no whole copy; nil when it has one.
    public var flaw: String? { if case .lacking(let why) = self { why } else { nil } }
}
