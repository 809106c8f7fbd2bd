/// The statements that a connection keeps prepared on its server, by their text and the types of their parameters: bounded, and the one
/// that was used the longest time ago goes first.
///
/// A name is given once and never again on a connection, so that a name which somebody else took away (`DISCARD ALL`) can only be missing and
/// never mean another statement.
struct PreparedStatements {
    struct Key: Hashable {
        let text: String
        let types: [UInt32]
    }

    /// A statement under its name.
    final class Kept {
        let key: Key
        let name: String
        /// What it answers with; nil as long as the server has not said. Without any column: it answers with no rows.
        var columns: PostgresColumns?
        /// Why the server could not parse it.
        var failure: ServerMessage?
        fileprivate var used = 0

        init(key: Key, name: String) {
            self.key = key
            self.name = name
        }
    }

    private var kept: [Key: Kept] = [:]
    private var named = 0
    private var uses = 0
    let capacity: Int

    init(capacity: Int) { self.capacity = max(1, capacity) }

    var count: Int { kept.count }

    /// The statement, whether it is to be parsed now, and the name that is to be closed for it.
    mutating func use(_ text: String, _ types: [UInt32]) -> (kept: Kept, isNew: Bool, closes: String?) {
        uses += 1
        let key = Key(text: text, types: types)
        if let known = kept[key] {
            known.used = uses
            return (known, false, nil)
        }
        var closes: String?
        if kept.count >= capacity, let oldest = kept.values.min(by: { $0.used < $1.used }) {
            closes = oldest.name
            kept[oldest.key] = nil
        }
        named += 1
        let new = Kept(key: key, name: "m\(named)")
        new.used = uses
        kept[key] = new
        return (new, true, closes)
    }

    /// Forgets one that the server does not have, or does not have any more.
    mutating func forget(_ one: Kept) { if kept[one.key] === one { kept[one.key] = nil } }

    /// Forgets all: the server has closed them (`DISCARD ALL`, `DEALLOCATE ALL`).
    mutating func forgetAll() { kept = [:] }
}
