import Basics

/// Where a client wants its statements: `SET muster.route`, or the first comment of a text.
public enum Route: String, Sendable, CaseIterable {
    case auto, primary, replica
}

/// What routing knows of one text: its statements and its hint. Made once for a text, a search path and a catalog; kept in `VerdictCache`.
public final class TextProfile: Sendable {
    /// Longer texts are not parsed: 64 KiB.
    public static let longest = 65_536

    let statements: [StatementProfile]
    /// What its first comment asks for; nil: nothing.
    let hint: Route?
    /// The text is not known, or is not what the session would send: it runs on the primary and pins its session.
    let isUnread: Bool
    /// All of its statements are plain reads, and it has no hint: the way of most texts is short.
    let isPlainRead: Bool

    init(statements: [StatementProfile], hint: Route?, isUnread: Bool = false) {
        self.statements = statements
        self.hint = hint
        self.isUnread = isUnread
        isPlainRead = hint == nil && !statements.isEmpty && statements.allSatisfy { $0.effects.isEmpty && $0.action == .none }
    }

    /// What a text is that was not read.
    static func unread(_ text: UnsafeRawBufferPointer) -> TextProfile {
        var statement = StatementProfile()
        statement.add(.unknown, .unread)
        statement.pin(.unread)
        statement.makesValues = true
        statement.changesCatalog = true
        statement.range = 0..<text.count
        return TextProfile(statements: [statement], hint: hint(text), isUnread: true)
    }

    /// Reads a text of at most `longest` bytes.
    ///
    /// - Parameter learnedWrites: a replica refused this text as a write (25006).
    static func read(_ text: UnsafeRawBufferPointer, _ catalog: RoutingCatalog, _ path: SearchPath, learnedWrites: Bool = false)
        -> TextProfile
    {
        let hint = hint(text)
        let tree: SyntaxTree
        do { tree = try SyntaxTree(parsing: text) } catch {
            if let change = routeSetting(text) {
                var statement = StatementProfile(action: .settings([change]))
                statement.effects.insert(.needsNoServer)
                statement.range = 0..<text.count
                return TextProfile(statements: [statement], hint: hint)
            }
            var statement = StatementProfile()
            statement.add(.unparsed, .unparsed)
            statement.range = 0..<text.count
            return TextProfile(statements: [statement], hint: hint)
        }
        var statements: [StatementProfile] = []
        var made = MadeValues()
        if let list = tree.field(.stmts, of: 0) {
            for entry in tree.children(list) {
                guard let statement = tree.node(.stmt, of: entry) else { continue }
                var reader = StatementReader(tree, catalog, path, made: made)
                reader.read(statement)
                made = reader.made
                let start = min(max(tree.int(.statementLocation, of: entry) ?? 0, 0), text.count)
                let length = tree.int(.statementLength, of: entry) ?? 0
                let end = length > 0 ? min(start.addingClamped(length), text.count) : text.count
                reader.profile.range = start..<end
                if learnedWrites { reader.profile.add(.volatile, .changesData, "a replica refused it as a write") }
                statements.append(reader.profile)
            }
        }
        return TextProfile(statements: statements, hint: hint)
    }

    // MARK: the hint

    /// `/* muster:primary */` or `/* muster:replica */`, in front of everything else but blanks. Another comment may hold what a user
    /// wrote.
    static func hint(_ text: UnsafeRawBufferPointer) -> Route? {
        var at = skipBlanks(text, 0)
        guard at + 1 < text.count, text[at] == UInt8(ascii: "/"), text[at + 1] == UInt8(ascii: "*") else { return nil }
        at = skipBlanks(text, at + 2)
        for (word, route) in [("muster:primary" as StaticString, Route.primary), ("muster:replica", .replica)] {
            let end = at + word.utf8CodeUnitCount
            guard end < text.count, (0..<word.utf8CodeUnitCount).allSatisfy({ text[at + $0] == word.utf8Start[$0] }) else { continue }
            let close = skipBlanks(text, end)
            if close + 1 < text.count, text[close] == UInt8(ascii: "*"), text[close + 1] == UInt8(ascii: "/") { return route }
        }
        return nil
    }

    private static func skipBlanks(_ text: UnsafeRawBufferPointer, _ start: Int) -> Int {
        var at = start
        while at < text.count, text[at] == 32 || text[at] &- 9 < 5 { at += 1 }
        return at
    }

    /// `SET muster.route = primary`: PRIMARY is a reserved word, so that PostgreSQL's parser takes it only in quotes.
    private static func routeSetting(_ text: UnsafeRawBufferPointer) -> SettingChange? {
        var words: [String] = []
        var word: [UInt8] = []
        func flush() {
            if !word.isEmpty { words.append(String(decoding: word, as: UTF8.self).asciiLowercased) }
            word = []
        }
        guard text.count < 200 else { return nil }
        for byte in text {
            switch byte {
            case 32, 9...13: flush()
            case UInt8(ascii: "="):
                flush()
                words.append("=")
            case UInt8(ascii: ";"): flush()
            default: word.append(byte)
            }
        }
        flush()
        guard words.first == "set" else { return nil }
        words.removeFirst()
        var isLocal = false
        if words.first == "session" || words.first == "local" { isLocal = words.removeFirst() == "local" }
        guard words.count == 3, words[0] == SessionSettings.route, words[1] == "=" || words[1] == "to",
            let route = Route(rawValue: words[2])
        else { return nil }
        return SettingChange(name: SessionSettings.route, value: .set([route.rawValue], statement: ""), isLocal: isLocal)
    }
}
