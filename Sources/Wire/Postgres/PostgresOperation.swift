import Basics

/// Statements on their way: what is sent as one (up to one Sync, or one simple text), and what becomes of it. Belongs to its connection's loop.
///
/// States: waiting → sent → over. `done` is called exactly once, with a result for each statement (for a simple text: for each of its
/// statements, and the error last).
final class PostgresOperation {
    enum Work {
        case simple(String)
        case extended([PostgresStatement])
        case copyIn(String, CopyFeed)
        case copyOut(String, CopyTap)
    }

    /// Why the server was, or is to be, asked to stop.
    enum Wish { case none, cancelled, late }

    /// By which it can be cancelled; 0: nobody will.
    let id: UInt64
    let work: Work
    let limit: Duration?
    private let done: ([Result<PostgresResult, PostgresError>]) -> Void
    var deadline: MonotonicTime?
    var wish = Wish.none
    /// When the server must have answered a cancellation.
    var giveUp: MonotonicTime?
    var isSent = false
    private(set) var isOver = false
    /// How many bytes of the connection had been queued before it, and with its last byte without which it cannot run.
    var start = 0
    var runs = 0
    var answer: AnswerMachine
    /// COPY came where no COPY was asked for: what to do instead.
    var misuse: String?
    /// When the server is asked once more to cancel it: the first time it may not have begun.
    var askAgain: MonotonicTime?
    /// Whether it was sent a second time because its prepared statement was gone.
    var isRepeated = false

    init(
        _ work: Work, id: UInt64, within limit: Duration?, _ limits: PostgresLimits,
        _ done: @escaping ([Result<PostgresResult, PostgresError>]) -> Void
    ) {
        self.id = id
        self.work = work
        self.limit = limit ?? limits.statementTime
        self.done = done
        answer = AnswerMachine(simple: limits)
    }

    /// Whether nothing else may be under way beside it: what is sent behind a COPY would be taken for its data.
    var isExclusive: Bool {
        switch work {
        case .simple, .extended: false
        case .copyIn, .copyOut: true
        }
    }

    /// Why it cannot be sent; nil when it can.
    func complaint(_ limits: PostgresLimits) -> String? {
        switch work {
        case .simple(let text), .copyIn(let text, _), .copyOut(let text, _): return complaint(text, 0, limits)
        case .extended(let statements):
            for statement in statements {
                if statement.values.count > PostgresStatement.parameterLimit {
                    return "\(statement.values.count) parameters; the protocol takes \(PostgresStatement.parameterLimit)"
                }
                let size = statement.values.reduce(0) { $0.addingClamped(($1.bytes?.count ?? 0) + 4) }
                if let complaint = complaint(statement.text, size, limits) { return complaint }
            }
            return nil
        }
    }

    private func complaint(_ text: String, _ values: Int, _ limits: PostgresLimits) -> String? {
        if text.utf8.contains(0) { return "the statement has a zero byte in it, which ends a text in the protocol" }
        let size = text.utf8.count.addingClamped(values)
        return size <= limits.messageBytes ? nil : "the statement has \(size) bytes; at most \(limits.messageBytes) are sent"
    }

    /// How many statements it has, as far as that is known before they are answered.
    var count: Int { if case .extended(let statements) = work { statements.count } else { 1 } }

    func finish(_ results: [Result<PostgresResult, PostgresError>]) {
        guard !isOver else { return }
        isOver = true
        done(results)
    }

    func fail(_ error: PostgresError) { finish(Array(repeating: .failure(error), count: count)) }
}
