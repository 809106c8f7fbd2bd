/// What a server holds for all of its connections together: bodies that come in or are being worked on, and answers that wait for clients
/// that read slowly. Bytes, bounded; it lives on the server's loop.
final class BodyMemory {
    /// Bodies up to this size may use all of it; larger ones leave a quarter to them, so that slow large uploads do not keep small
    /// requests out.
    static let small = 64 << 10

    let limit: Int
    private(set) var used = 0

    init(limit: Int) { self.limit = limit }

    /// Takes `more` for a body that has `size` with it; false when there is no room.
    func take(_ more: Int, size: Int) -> Bool {
        guard hasRoom(more, size: size) else { return false }
        used += more
        return true
    }

    func hasRoom(_ more: Int, size: Int) -> Bool { used + more <= (size > BodyMemory.small ? limit / 4 * 3 : limit) }

    func give(_ bytes: Int) { used -= bytes }

    /// What waits for one client has changed.
    func change(_ from: inout Int, to now: Int) {
        used += now - from
        from = now
    }
}
