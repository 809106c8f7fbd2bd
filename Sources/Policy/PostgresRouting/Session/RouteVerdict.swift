import Basics

/// Where a text goes, and why.
public struct RouteVerdict: Sendable {
    public enum Target: String, Sendable, CaseIterable {
        /// One of the replicas; the connection goes back at the end of the statement or transaction.
        case replica
        /// The primary, likewise.
        case primary
        /// The primary, and after this text the session keeps its connection.
        case pinned
        /// No particular server: the text is held, noted, or answered by the router.
        case either
        /// The client gets an error. Nothing is changed, and the text is not tried again elsewhere.
        case refused
    }

    /// The error of a refused text.
    public struct Refusal: Sendable, Equatable {
        public let sqlState: String
        public let message: String
        /// Where the text is sent so that the server itself refuses it; nil: Muster makes the error, and no server sees the text.
        public let server: ServerRole?
    }

    /// What is to be done after a text, before its connection serves another session.
    public struct Afterwards: OptionSet, Sendable {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }

        /// Code ran of which nothing is known: DISCARD ALL, and its outcome is checked.
        public static let discardAll = Afterwards(rawValue: 1)
        /// Values were taken from sequences: DISCARD SEQUENCES before the first statement of another session's transaction.
        public static let discardSequences = Afterwards(rawValue: 2)
        /// The catalog is read again.
        public static let readCatalog = Afterwards(rawValue: 4)
        /// Outside of a transaction `CatalogReading.holdsAdvisoryLocks` is asked, and `RoutingSession.advisoryLocks` told.
        public static let checkAdvisoryLocks = Afterwards(rawValue: 8)
        /// The session left its pins: DISCARD ALL, and its outcome is checked.
        public static let unpinned = Afterwards(rawValue: 16)
    }

    /// Which rule decided, in the order in which they are asked.
    public enum Rule: String, Sendable, CaseIterable {
        case pinnedSession = "a pinned session stays on its connection"
        case failedTransaction = "the transaction has failed and stays where it is until it ends"
        case openTransaction = "the transaction has its server"
        case serializable = "a standby has no SERIALIZABLE"
        case readWriteTransaction = "a transaction that is not READ ONLY may write"
        case readOnlyTransaction = "a READ ONLY transaction goes to a replica"
        case primaryInReadOnly = "it begins a READ ONLY transaction with what only the primary can do"
        case readOnlyDefault = "the session's transactions are READ ONLY"
        case hint = "its first comment asks for it"
        case route = "muster.route asks for it"
        case reads = "it only reads"
        case statement = "its statement needs the primary"
        case several = "one of its statements needs the primary"
        case held = "the first statement that needs a server says where the transaction goes"
        case noted = "the router notes or answers it"
        case empty = "an empty text needs no server"
        case pins = "it leaves something in its session"
        case pinsEnd = "the last reason to keep the connection ends"
        case writeInReadOnly = "a READ ONLY transaction writes nothing"
        case primaryOnlyOnReplica = "only the primary can do it, and its transaction is on a replica"
        case contradictsReplica = "a replica was asked for, and it needs the primary"
        case sequenceValue = "no value was taken from the sequence on this connection"
        case badRoute = "muster.route is primary, replica or auto"
    }

    public let target: Target
    public let rule: Rule
    /// What the rule found in the text, where it found something, and what that is about: a function's or relation's name.
    public let finding: Finding?
    public let subject: String
    public let refusal: Refusal?
    /// Statements that were held until now: to be sent before the text, in this order.
    public let prelude: [String]
    /// So many statements at the text's beginning end a transaction on a replica and go there; the rest goes to the target. Mostly 0.
    public let leading: Int
    /// The transaction that the session has on a replica has run nothing and is rolled back there: it goes on at the target.
    public let leavesReplica: Bool
    /// Muster answers 25P02 itself: the server does not know that the transaction failed.
    public let isAnsweredAsFailed: Bool
    /// Sent instead of the text: ROLLBACK for the COMMIT of a transaction that Muster failed.
    public let replacement: String?
    public let afterwards: Afterwards
    /// When a replica says that it cannot (25006 and others, see `Fallback`), the text may go to the primary once.
    public let mayMoveToPrimary: Bool

    init(
        _ target: Target, _ rule: Rule, finding: Finding? = nil, subject: String = "", refusal: Refusal? = nil, prelude: [String] = [],
        leading: Int = 0, leavesReplica: Bool = false, isAnsweredAsFailed: Bool = false, replacement: String? = nil,
        afterwards: Afterwards = [], mayMoveToPrimary: Bool = false
    ) {
        self.target = target
        self.rule = rule
        self.finding = finding
        self.subject = subject
        self.refusal = refusal
        self.prelude = prelude
        self.leading = leading
        self.leavesReplica = leavesReplica
        self.isAnsweredAsFailed = isAnsweredAsFailed
        self.replacement = replacement
        self.afterwards = afterwards
        self.mayMoveToPrimary = mayMoveToPrimary
    }

    static let plainRead = RouteVerdict(.replica, .reads, mayMoveToPrimary: true)

    /// The reason in one sentence, for a person. No part of the text is in it but names of functions and relations.
    public var sentence: String {
        var words = "The text goes to \(RouteVerdict.places[target] ?? ""): \(rule.rawValue)"
        if target == .refused { words = "The text is refused: \(rule.rawValue)" }
        if target == .either { words = "The text needs no particular server: \(rule.rawValue)" }
        guard let finding else { return words + "." }
        return words + "; the statement \(finding.words)" + (subject.isEmpty ? "." : " (\(subject)).")
    }

    private static let places: [Target: String] = [
        .replica: "a replica", .primary: "the primary", .pinned: "the primary, on the session's own connection",
    ]

    /// For the journal: `subject` is the store.
    public func record(of store: String) -> DecisionRecord {
        DecisionRecord(
            .route, subject: store,
            inputs: [.init("rule", rule.rawValue), .init("finding", finding?.words ?? "none"), .init("about", subject)],
            raw: target.rawValue, outcome: target.rawValue, sentence: sentence, flip: flip)
    }

    private var flip: String {
        switch rule {
        case .readWriteTransaction: "BEGIN READ ONLY, where the transaction only reads"
        case .statement, .several:
            finding == .volatileFunction || finding == .unknownFunction
                ? "the function under `functions: read-only` in the stack file" : "the hint /* muster:replica */, where a replica can do it"
        case .pinnedSession, .pins: "what ends the pin, such as DISCARD ALL"
        case .hint, .route, .contradictsReplica: "another hint, or SET muster.route = auto"
        case .writeInReadOnly, .primaryOnlyOnReplica: "a transaction that is not READ ONLY"
        case .sequenceValue: "INSERT … RETURNING, or one transaction around both"
        case .reads: "the hint /* muster:primary */"
        default: "nothing but another text"
        }
    }
}
