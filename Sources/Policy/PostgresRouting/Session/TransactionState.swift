/// A node of either kind.
public enum ServerRole: String, Sendable { case primary, replica }

/// The transaction that a session is in.
///
/// States and how they are left: *held* (`server` nil; no server knows of it) until a statement needs a server, or it ends; *open*
/// (`server` known) until COMMIT, ROLLBACK or PREPARE TRANSACTION; *failed* (`isFailed`) until ROLLBACK, COMMIT, or ROLLBACK TO a
/// savepoint before the failure. A text outside of a transaction is an *implicit* one (`isExplicit` false), which ends with the text.
struct TransactionState: Sendable, Equatable {
    /// What a rollback goes back to.
    struct Snapshot: Sendable, Equatable {
        var settings: SessionSettings
        var pins: Pins
        var isReadOnly: Bool
        var isFailed = false
    }

    struct Savepoint: Sendable, Equatable {
        var name: String
        var snapshot: Snapshot
    }

    /// So many statements, or 16 KiB of them, are held; with the next one the transaction is opened.
    static let mostHeld = 100
    static let mostHeldBytes = 16_384

    var isExplicit: Bool
    /// A text of one statement: SET LOCAL and SET TRANSACTION have no effect.
    var isSingle: Bool
    var isReadOnly: Bool
    var isolation: String?
    var server: ServerRole?
    var isFailed = false
    /// Muster refused a statement in it, so that the server does not know that it failed.
    var isFailedHere = false
    /// It began by AND CHAIN on a replica, and nothing has run in it.
    var isFresh = false
    /// What the hint of its BEGIN asks for.
    var route: Route?
    /// A route or a hint made it READ ONLY: its statement is no client's.
    var isForcedReadOnly = false
    /// The statements that were answered and not sent.
    var held: [String] = []
    var savepoints: [Savepoint] = []
    var start: Snapshot

    var isSerializable: Bool { isolation == "serializable" }

    init(_ settings: SessionSettings, _ pins: Pins, isSingle: Bool) {
        isExplicit = false
        self.isSingle = isSingle
        isReadOnly = settings.isReadOnly
        isolation = settings.isolation
        start = Snapshot(settings: settings, pins: pins, isReadOnly: settings.isReadOnly)
    }

    mutating func take(_ modes: TransactionModes) {
        if let isReadOnly = modes.isReadOnly { self.isReadOnly = isReadOnly }
        if let isolation = modes.isolation { self.isolation = isolation }
    }

    var holdsMost: Bool {
        held.count >= TransactionState.mostHeld || held.reduce(0) { $0 + $1.utf8.count } >= TransactionState.mostHeldBytes
    }

    /// A statement that begins one like it.
    var beginning: String {
        "BEGIN" + (isolation.map { " ISOLATION LEVEL \(TransactionState.levels[$0] ?? "READ COMMITTED")" } ?? "")
            + (isReadOnly ? " READ ONLY" : " READ WRITE")
    }

    private static let levels = [
        "serializable": "SERIALIZABLE", "repeatable read": "REPEATABLE READ", "read committed": "READ COMMITTED",
        "read uncommitted": "READ UNCOMMITTED",
    ]
}
