/// The memory that a server has for all of its connections together: for bodies that come in or are being worked on, and for answers that
/// wait for clients that read slowly. Counted in bytes, and bounded; it lives on the server's loop.
final class BodyMemory {
    /// Bodies up to this size may use all of the memory; larger ones leave a quarter to them, so that slow large uploads do not keep small
    /// requests out. Of what answers may use, large ones leave a quarter to small ones likewise.
    static let small = 64 << 10

    let limit: Int
    private(set) var used = 0
    /// How much of it waits for clients.
    private(set) var unread = 0

    init(limit: Int) { self.limit = limit }

    /// Takes `more` bytes for a body that has `size` with them; false when there is no room.
    func take(_ more: Int, size: Int) -> Bool {
        guard hasRoom(more, size: size) else { return false }
        used += more
        return true
    }

    func hasRoom(_ more: Int, size: Int) -> Bool { used + more <= (size > BodyMemory.small ? limit / 4 * 3 : limit) }

    func give(_ bytes: Int) { used -= bytes }

    /// Whether `more` bytes may wait for one more client. Answers have half of the memory at most: clients that do not read keep no body out.
    func hasRoom(forAnswer more: Int) -> Bool {
        let answers = limit / 2
        return unread + more <= (more > BodyMemory.small ? answers / 4 * 3 : answers) && used + more <= limit
    }

    /// Counts a change of what waits for one client.
    func change(_ from: inout Int, to now: Int) {
        used += now - from
        unread += now - from
        from = now
    }
}
