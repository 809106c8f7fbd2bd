/// The settings of one client's session: what its server begins with, what the client has set, and what holds in the open transaction only.
///
/// What the client has set is carried: put on each connection that serves the session, and taken off when it serves another one.
public struct SessionSettings: Sendable, Equatable {
    static let route = "muster.route"

    struct Carried: Sendable, Equatable {
        var words: [String]
        /// The statement that makes it on a connection; empty for the router's own.
        var statement: String
    }

    let user: String
    /// What connections begin with, as far as the server reports it.
    private var initial: [String: [String]]
    /// What the client asked for when it connected: RESET goes back to it.
    private let options: [String: Carried]
    /// What the client has set since.
    private var carried: [String: Carried] = [:]
    /// By SET LOCAL.
    private var local: [String: [String]] = [:]

    // What routing asks at each statement, made anew when a setting changes.
    private(set) var path: SearchPath
    private(set) var route = Route.auto
    private(set) var isReadOnly = false
    private(set) var isSerializable = false
    /// Backslashes in texts are escapes: PostgreSQL's parser, as it is here, would read such a text otherwise.
    private(set) var escapesByBackslash = false
    /// The client's encoding has bytes of ASCII inside of characters: likewise.
    private(set) var hidesASCII = false

    init(user: String, reported: [String: String], options: [String: String]) {
        self.user = user
        initial = reported.reduce(into: [:]) { $0[$1.key.asciiLowercased] = SessionSettings.words($1.key, $1.value) }
        self.options = options.reduce(into: [:]) { $0[$1.key.asciiLowercased] = SessionSettings.carry($1.key, $1.value) }
        path = .standard(user: user)
        derive()
    }

    private static func words(_ name: String, _ value: String) -> [String] {
        name.asciiLowercased == "search_path" ? SearchPath.parse(value) : [value]
    }

    /// A setting in the form in which a server reports it.
    private static func carry(_ name: String, _ value: String) -> Carried {
        let words = words(name, value)
        let sql = words.isEmpty ? "''" : words.map(SettingWords.literal).joined(separator: ", ")
        return Carried(
            words: words, statement: name.hasPrefix("muster.") ? "" : "SET \(SettingWords.quoted(name.asciiLowercased)) TO \(sql)")
    }

    private func words(_ name: String) -> [String]? {
        local[name] ?? carried[name]?.words ?? options[name]?.words ?? initial[name]
    }

    /// Encodings of clients only, whose characters may hold bytes below 128.
    private static let hiding: Set<String> = [
        "sjis", "shiftjis", "mskanji", "win932", "windows932", "shiftjis2004", "big5", "win950", "windows950", "gbk", "win936",
        "windows936",
        "uhc", "win949", "windows949", "gb18030", "johab",
    ]

    private mutating func derive() {
        let schemas = words("search_path") ?? ["$user", "public"]
        // One value may name several schemas: `SET search_path = 'app, public'` is one name in PostgreSQL, a connection option is a list.
        path = SearchPath(schemas, user: user)
        route = words(Self.route)?.first.flatMap { Route(rawValue: $0.asciiLowercased) } ?? .auto
        isReadOnly = words("default_transaction_read_only")?.first.flatMap(SettingWords.bool) ?? false
        isSerializable = words("default_transaction_isolation")?.first?.asciiLowercased == "serializable"
        escapesByBackslash = words("standard_conforming_strings")?.first.flatMap(SettingWords.bool) == false
        let encoding = (words("client_encoding")?.first ?? "").asciiLowercased.filter { $0 != "-" && $0 != "_" }
        hidesASCII = Self.hiding.contains(encoding)
    }

    /// The isolation level that a transaction begins with, where it is not PostgreSQL's own.
    var isolation: String? { words("default_transaction_isolation")?.first?.asciiLowercased }

    mutating func take(_ change: SettingChange) {
        switch (change.value, change.isLocal) {
        case (.set(let words, _), true): local[change.name] = words
        case (.set(let words, let statement), false):
            local[change.name] = nil
            carried[change.name] = Carried(words: words, statement: change.name.hasPrefix("muster.") ? "" : statement)
        case (.reset, true): local[change.name] = options[change.name]?.words ?? initial[change.name] ?? []
        case (.reset, false):
            local[change.name] = nil
            carried[change.name] = nil
        }
        derive()
    }

    mutating func resetAll() {
        carried = [:]
        local = [:]
        derive()
    }

    /// SET LOCAL ends with its transaction.
    mutating func endTransaction() {
        if local.isEmpty { return }
        local = [:]
        derive()
    }

    /// The server reports a parameter (ParameterStatus): what is carried is noted in the server's form, what is not is the server's own.
    mutating func reported(_ name: String, _ value: String) {
        let name = name.asciiLowercased
        if local[name] != nil { return }
        if carried[name] != nil {
            carried[name] = SessionSettings.carry(name, value)
        } else if options[name] == nil {
            initial[name] = SessionSettings.words(name, value)
        }
        derive()
    }

    /// The statements that bring a connection from another session's settings to this one's: none where they are equal.
    ///
    /// - Parameter connection: the settings that are on it now; nil on a new one.
    public func statements(from connection: SessionSettings?) -> [String] {
        let there = connection.map { $0.options.merging($0.carried) { $1 } } ?? [:]
        let here = options.merging(carried) { $1 }
        var out: [String] = []
        for (name, value) in there.sorted(by: { $0.key < $1.key }) where here[name] == nil && value.statement != "" {
            out.append("RESET \(SettingWords.quoted(name))")
        }
        for (name, value) in here.sorted(by: { $0.key < $1.key }) where value.statement != "" && there[name] != value {
            out.append(value.statement)
        }
        return out
    }
}

/// Why a session keeps its connection, all reasons together.
struct Pins: Sendable, Equatable {
    private var reasons: Set<PinReason> = []
    private var prepared: Set<String> = []

    var isEmpty: Bool { reasons.isEmpty }
    /// The first of them in the order of their declaration.
    var first: PinReason? { PinReason.allCases.first { reasons.contains($0) } }
    func contains(_ reason: PinReason) -> Bool { reasons.contains(reason) }

    mutating func insert(_ reason: PinReason) { reasons.insert(reason) }
    mutating func prepare(_ name: String) {
        prepared.insert(name)
        reasons.insert(.prepared)
    }

    /// nil: all names.
    mutating func deallocate(_ name: String?) {
        if let name { prepared.remove(name) } else { prepared = [] }
        if prepared.isEmpty { reasons.remove(.prepared) }
    }

    mutating func remove(_ reason: PinReason) { reasons.remove(reason) }

    /// What DISCARD ALL ends.
    mutating func discardAll() {
        prepared = []
        reasons = reasons.filter { !$0.endsWithDiscard }
    }

    /// What ROLLBACK brings back: `earlier`'s state of what is undone, this one's of the rest.
    mutating func rollBack(to earlier: Pins) {
        reasons = reasons.filter { !$0.isUndoneByRollback }.union(earlier.reasons.filter(\.isUndoneByRollback))
    }
}
