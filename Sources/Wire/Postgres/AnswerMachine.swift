import Basics

/// What the server answers to the statements of one Sync (or to one simple text): messages in, results out. No socket, no clock.
///
/// A part is one statement of the extended protocol. Its stages: `close` (of a name that makes room) → `parse` → `bind` → `describe` → `rows` → the next part; those that were not
/// asked for are left out. A simple text has no stages, and as many results as it has statements. An error ends all parts; ReadyForQuery ends
/// the answer.
struct AnswerMachine {
    enum Stage { case close, parse, bind, describe, rows, over }

    struct Part {
        /// Where the statement is kept prepared; nil for one without a name.
        let kept: PreparedStatements.Kept?
        /// Whether another name is closed before it.
        let closesOne: Bool
        let isNew: Bool
        let isDescribed: Bool
        let format: Int16
    }

    private let parts: [Part]
    private let isSimple: Bool
    private let limits: PostgresLimits
    private(set) var stage: Stage
    private var current: PostgresResult?
    private(set) var results: [PostgresResult] = []
    private(set) var error: ServerMessage?
    /// Whether rows were dropped because they were more than the bound.
    private(set) var isOverfull = false
    private var bytes = 0
    private var notices: [ServerMessage] = []

    /// For a simple text.
    init(simple limits: PostgresLimits) {
        parts = []
        isSimple = true
        stage = .rows
        self.limits = limits
    }

    init(parts: [Part], _ limits: PostgresLimits) {
        self.parts = parts
        isSimple = false
        stage = .parse
        self.limits = limits
        begin()
    }

    /// The part whose answer is awaited, or that failed.
    var place: Int { results.count }
    /// The part that failed, and those behind it, which the server passed over.
    var failedParts: ArraySlice<Part> { error == nil ? [] : parts[min(place, parts.count)...] }
    /// Whether a text has committed something on its own before it failed.
    var hasCommitted: Bool { results.contains { $0.tag == "COMMIT" } }
    var sawComplete: Bool { !results.isEmpty }

    private mutating func begin() {
        guard place < parts.count else {
            stage = .over
            return
        }
        stage = parts[place].closesOne ? .close : parts[place].isNew ? .parse : .bind
    }

    private func unexpected(_ kind: UInt8) -> ProtocolFailure {
        ProtocolFailure("a message \(MessageFrame.name(kind)) out of its order (\(stage))")
    }

    /// Takes a message; one of ReadyForQuery goes to `finish`.
    mutating func received(_ kind: UInt8, _ body: UnsafeRawBufferPointer) throws(ProtocolFailure) {
        if error != nil { throw unexpected(kind) }
        switch kind {
        case 68: try row(body)
        case 49, 50, 51, 110, 115: try small(kind, body)
        case 84: try describe(body)
        case 67, 73: try complete(kind, body)
        case 69:
            var reader = MessageReader(body, "ErrorResponse")
            error = try ServerMessage(&reader)
            current = nil
        case 78:
            var reader = MessageReader(body, "NoticeResponse")
            let notice = try ServerMessage(&reader)
            if notices.count < PostgresLimits.notices { notices.append(notice) }
        default: throw unexpected(kind)
        }
    }

    private mutating func small(_ kind: UInt8, _ body: UnsafeRawBufferPointer) throws(ProtocolFailure) {
        guard body.count == 0 else { throw ProtocolFailure("message \(MessageFrame.name(kind)): \(body.count) bytes too many") }
        switch kind {
        case 51 where stage == .close: stage = parts[place].isNew ? .parse : .bind
        case 49 where stage == .parse: stage = .bind
        case 50 where stage == .bind:
            let part = parts[place]
            stage = part.isDescribed ? .describe : .rows
            if !part.isDescribed { current = PostgresResult(columns: part.kept?.columns?.with(format: part.format) ?? .none) }
        case 110 where stage == .describe: described(.none)
        default: throw unexpected(kind)
        }
    }

    private mutating func describe(_ body: UnsafeRawBufferPointer) throws(ProtocolFailure) {
        guard isSimple ? stage == .rows && current == nil : stage == .describe else { throw unexpected(84) }
        let columns = try BackendMessage.Column.all(body)
        guard columns.count <= limits.columns else {
            throw ProtocolFailure("an answer of \(columns.count) columns; at most \(limits.columns) are taken", isTooLarge: true)
        }
        described(PostgresColumns(columns))
    }

    private mutating func described(_ columns: PostgresColumns) {
        if !isSimple { parts[place].kept?.columns = columns }
        current = PostgresResult(columns: columns)
        stage = .rows
    }

    private mutating func row(_ body: UnsafeRawBufferPointer) throws(ProtocolFailure) {
        guard stage == .rows, let columns = current?.columns else { throw unexpected(68) }
        try DataRow.check(body, columns: columns.all.count)
        bytes += body.count + 8
        if !isOverfull, bytes > limits.rowBytes {
            isOverfull = true
            current?.removeRows()
            for i in results.indices { results[i].removeRows() }
        }
        if isOverfull {
            guard bytes - limits.rowBytes <= limits.discardBytes else {
                throw ProtocolFailure(
                    "the rows of one answer are more than \(limits.rowBytes) bytes, and \(limits.discardBytes) more were dropped",
                    isTooLarge: true)
            }
        } else {
            current!.add(body)
        }
    }

    private mutating func complete(_ kind: UInt8, _ body: UnsafeRawBufferPointer) throws(ProtocolFailure) {
        guard stage == .rows, isSimple || current != nil else { throw unexpected(kind) }
        var result = current ?? PostgresResult(columns: .none)
        current = nil
        if kind == 67 {
            guard body.count > 0, body[body.count - 1] == 0, body.count <= 1024 else {
                throw ProtocolFailure("CommandComplete without its text")
            }
            result.tag = body.part(0, body.count - 1).string
        } else if body.count != 0 {
            throw ProtocolFailure("EmptyQueryResponse: \(body.count) bytes too many")
        }
        result.notices = notices
        notices = []
        // A text of a mebibyte of semicolons has as many empty statements as PostgreSQL leaves of it: none. Texts of statements have some.
        guard results.count < 65_536 else { throw ProtocolFailure("more than 65,536 results of one text", isTooLarge: true) }
        results.append(result)
        if !isSimple { begin() }
    }

    /// ReadyForQuery came. Throws if there was to be something before it.
    mutating func finish() throws(ProtocolFailure) {
        if error != nil { return }
        guard isSimple ? current == nil && sawComplete : stage == .over else { throw unexpected(90) }
    }
}
