/// Why a session keeps its connection.
public enum PinReason: String, Sendable, CaseIterable {
    /// LISTEN: notifications come on one connection. Ends with UNLISTEN *.
    case listen = "it listens for notifications"
    /// A temporary table, view, sequence or function that outlives its transaction. Ends with DISCARD TEMP.
    case temporary = "it has a temporary object"
    /// SQL PREPARE. Ends with DEALLOCATE.
    case prepared = "it has a prepared statement"
    /// A cursor WITH HOLD. Ends with CLOSE ALL.
    case heldCursor = "it has a cursor that outlives its transaction"
    /// A session-level advisory lock. Ends when the session holds none.
    case advisoryLock = "it has an advisory lock of the session"
    /// SET ROLE or SET SESSION AUTHORIZATION. Ends with their reset: a privilege is never carried to another connection.
    case role = "it acts under another role"
    /// `set_config` for the session. Ends with DISCARD ALL.
    case setting = "it changed a setting by set_config"
    /// LOAD. Never ends: the connection is closed after the session.
    case library = "it loaded a library"
    /// `setseed`. Never ends: the connection is closed after the session.
    case seed = "it set the seed of random()"
    /// A text that was not read, which may have left anything. Ends with DISCARD ALL.
    case unread = "it sent a text that was not read"

    /// Whether ROLLBACK takes it back.
    var isUndoneByRollback: Bool {
        switch self {
        case .listen, .temporary, .heldCursor, .role, .setting: true
        case .prepared, .advisoryLock, .library, .seed, .unread: false
        }
    }

    /// Whether DISCARD ALL ends it.
    var endsWithDiscard: Bool { self != .library && self != .seed }
}

/// What a statement does that matters for where it may run. None of these: it reads, and any server will do.
struct Effects: OptionSet, Sendable, Hashable {
    let rawValue: UInt32

    /// Changes data or the catalog, or locks rows: refused in a READ ONLY transaction.
    static let writes = Effects(rawValue: 1)
    /// Only the primary can do it, or only there it means something; a READ ONLY transaction may hold it.
    static let primaryOnly = Effects(rawValue: 2)
    /// Calls a volatile function of which nothing is known.
    static let volatile = Effects(rawValue: 4)
    /// Calls a function that the catalog does not have.
    static let unknownFunction = Effects(rawValue: 8)
    /// Asks about the server.
    static let server = Effects(rawValue: 16)
    /// CALL or DO.
    static let code = Effects(rawValue: 32)
    /// Acts on what the session or its transaction has on its connection: cursors, constraints, a lock up to ROW EXCLUSIVE.
    static let local = Effects(rawValue: 64)
    /// Leaves something in the session.
    static let pins = Effects(rawValue: 128)
    /// Reads a sequence's last value of this session, which nothing before it in the text made.
    static let needsValue = Effects(rawValue: 256)
    /// Is of a kind without a rule, or executes a name that was not prepared.
    static let unknown = Effects(rawValue: 512)
    /// Did not parse: the server will say why.
    static let unparsed = Effects(rawValue: 1024)
    /// Needs no server: a setting, a transaction's beginning, what the router answers.
    static let needsNoServer = Effects(rawValue: 2048)

    /// What a READ ONLY transaction can do on the primary alone.
    static let primaryInReadOnly: Effects = [.primaryOnly, .pins, .unknown, .unparsed]
}

/// Why a statement is not simply a read; each with words for a person.
public enum Finding: UInt8, Sendable, CaseIterable {
    case changesData, locksRows, makesTable, changesCatalog, copiesIn, copiesToFile, lockTable, maintenance, alterSystem, notify
    case twoPhase, snapshot, sequenceRead, unlogged, declaredWrites, writingFunction, movesSequence, primaryOnlyFunction, advisoryLock
    case volatileFunction, unknownFunction, samplingMethod, serverFunction, serverRelation, show, calls, runsBlock, cursor, constraints
    case currval, unknownStatement, unknownNode, notPrepared, unparsed, unread, pin, sessionCommand

    /// A sentence's end, after "the statement": `changes data`.
    var words: String {
        switch self {
        case .changesData: "changes data"
        case .locksRows: "locks rows"
        case .makesTable: "makes a table"
        case .changesCatalog: "changes the catalog"
        case .copiesIn: "copies into a table"
        case .copiesToFile: "writes a file of the server"
        case .lockTable: "locks a table"
        case .maintenance: "is maintenance, which a standby refuses"
        case .alterSystem: "changes the server's configuration"
        case .notify: "sends a notification, which a standby refuses"
        case .twoPhase: "is a step of two-phase commit"
        case .snapshot: "takes a snapshot that the primary exported"
        case .sequenceRead: "reads a sequence, of which a replica shows a value up to 32 too high"
        case .unlogged: "reads an unlogged table, of which a replica has no content"
        case .declaredWrites: "calls a function that the stack file declares as writing"
        case .writingFunction: "calls a function that writes"
        case .movesSequence: "moves a sequence"
        case .primaryOnlyFunction: "calls a function that only the primary can carry out"
        case .advisoryLock: "takes or gives back an advisory lock, which on a replica would exclude nobody"
        case .volatileFunction: "calls a volatile function, which may write"
        case .unknownFunction: "calls a function that the catalog does not have, and that may write"
        case .samplingMethod: "samples by a method that is not known"
        case .serverFunction: "asks about the server, and the primary is meant"
        case .serverRelation: "reads about the server, and the primary is meant"
        case .show: "is SHOW, by which drivers look for the primary"
        case .calls: "calls a procedure, which may write"
        case .runsBlock: "runs a block, which may write"
        case .cursor: "uses a cursor"
        case .constraints: "sets when constraints are checked"
        case .currval: "reads what its session took from a sequence, and that connection is another's by now"
        case .unknownStatement: "is of a kind without a rule"
        case .unknownNode: "holds something without a rule"
        case .notPrepared: "executes what was not prepared in this session"
        case .unparsed: "does not parse; the primary says why"
        case .unread: "was not read"
        case .pin: "leaves something in its session"
        case .sessionCommand: "acts on what its session has on a connection"
        }
    }
}

/// A setting that a statement makes, as it is carried from connection to connection.
struct SettingChange: Sendable, Equatable {
    enum Value: Sendable, Equatable {
        /// The values as they are compared (`on`, `app`), and the statement that makes them.
        case set([String], statement: String)
        case reset
    }

    var name: String
    var value: Value
    var isLocal = false
}

/// What BEGIN, SET TRANSACTION and session characteristics say of a transaction; nil: nothing.
struct TransactionModes: Sendable, Equatable {
    var isReadOnly: Bool?
    /// The isolation level, in small letters.
    var isolation: String?
}

/// One statement of a text.
struct StatementProfile: Sendable {
    /// What it does to the session, apart from running on a server.
    enum Action: Sendable, Equatable {
        case none
        case begin(TransactionModes)
        case commit(chain: Bool)
        case rollback(chain: Bool)
        case savepoint(String)
        case rollbackTo(String)
        case release(String)
        case prepareTransaction
        case setTransaction(TransactionModes)
        case settings([SettingChange])
        case resetAll
        /// SET LOCAL ROLE: ends with the transaction, and nothing is carried.
        case localRole
        case resetRole
        case prepare(String)
        /// nil: all.
        case deallocate(String?)
        case unlistenAll
        case closeAll
        case discardAll
        case discardTemporary
        /// DISCARD PLANS and SEQUENCES.
        case discardOther
    }

    var action = Action.none
    var effects: Effects = []
    /// What it leaves in the session.
    var pins: [PinReason] = []
    /// The first reason why it is not a plain read, and what it is about.
    var finding: Finding?
    var subject = ""
    /// For each effect that has one, its own first reason.
    var findings: [(effects: Effects, finding: Finding, subject: String)] = []
    /// The catalog is to be read again after it.
    var changesCatalog = false
    /// Takes or gives back advisory locks.
    var touchesAdvisoryLocks = false
    /// May have taken values from sequences.
    var makesValues = false
    /// Its bytes in the text.
    var range: Range<Int> = 0..<0

    /// The finding behind any of these effects.
    func finding(of effects: Effects) -> (finding: Finding, subject: String)? {
        for one in findings where !one.effects.isDisjoint(with: effects) { return (one.finding, one.subject) }
        return nil
    }

    mutating func add(_ effect: Effects, _ finding: Finding, _ subject: String = "") {
        if !effects.isSuperset(of: effect) { findings.append((effect, finding, subject)) }
        effects.formUnion(effect)
        if self.finding == nil {
            self.finding = finding
            self.subject = subject
        }
    }

    mutating func pin(_ reason: PinReason, _ subject: String = "") {
        add(.pins, .pin, subject)
        if !pins.contains(reason) { pins.append(reason) }
    }
}
