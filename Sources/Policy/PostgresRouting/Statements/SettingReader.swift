/// Transaction statements and settings.
extension StatementReader {
    mutating func transaction(_ item: Int) {
        // Such a statement acts on the session's transaction: the session's machine says where it goes.
        profile.effects.insert(.needsNoServer)
        let name = tree.text(.savepointName, of: item) ?? ""
        let chains = tree.flag(.chain, of: item)
        switch tree.text(.kind, of: item) ?? "TRANS_STMT_BEGIN" {
        case "TRANS_STMT_BEGIN", "TRANS_STMT_START": profile.action = .begin(modes(.options, of: item))
        case "TRANS_STMT_COMMIT": profile.action = .commit(chain: chains)
        case "TRANS_STMT_ROLLBACK": profile.action = .rollback(chain: chains)
        case "TRANS_STMT_SAVEPOINT": profile.action = .savepoint(name)
        case "TRANS_STMT_ROLLBACK_TO": profile.action = .rollbackTo(name)
        case "TRANS_STMT_RELEASE": profile.action = .release(name)
        case "TRANS_STMT_PREPARE":
            profile.effects = []
            profile.action = .prepareTransaction
            profile.add(.primaryOnly, .twoPhase)
        default:
            profile.effects = []
            profile.add(.primaryOnly, .twoPhase)
        }
    }

    /// The modes among the options of BEGIN, SET TRANSACTION or session characteristics.
    private func modes(_ field: Field, of item: Int) -> TransactionModes {
        var modes = TransactionModes()
        guard let list = tree.field(field, of: item) else { return modes }
        for entry in tree.children(list) {
            guard let option = tree.node(in: entry), let value = tree.node(.arg, of: option).flatMap({ constant($0, tree) }) else {
                continue
            }
            switch tree.text(.defname, of: option) {
            case "transaction_read_only": modes.isReadOnly = SettingWords.bool(value) ?? false
            case "transaction_isolation": modes.isolation = value.asciiLowercased
            default: break
            }
        }
        return modes
    }

    mutating func set(_ item: Int) {
        profile.effects.insert(.needsNoServer)
        let name = (tree.text(.name, of: item) ?? "").asciiLowercased
        let isLocal = tree.flag(.isLocal, of: item)
        let kind = tree.text(.kind, of: item) ?? "VAR_SET_VALUE"
        switch (kind, name) {
        case ("VAR_RESET_ALL", _): profile.action = .resetAll
        case ("VAR_SET_MULTI", "transaction"): profile.action = .setTransaction(modes(.args, of: item))
        case ("VAR_SET_MULTI", "session characteristics"): characteristics(modes(.args, of: item))
        case ("VAR_SET_MULTI", _):
            profile.effects = []
            profile.add(.primaryOnly, .snapshot)
        case (_, "role"), (_, "session_authorization"): role(item, kind, isLocal)
        case (_, "transaction_read_only"), (_, "transaction_isolation"): transactionVariable(item, kind, name)
        case (_, "transaction_deferrable"): profile.action = .setTransaction(TransactionModes())
        case ("VAR_SET_VALUE", _):
            let words = values(item)
            let statement = "SET \(SettingWords.quoted(name)) TO \(words.sql)"
            change(SettingChange(name: name, value: .set(words.plain, statement: statement), isLocal: isLocal))
        default: change(SettingChange(name: name, value: .reset, isLocal: isLocal))
        }
    }

    private mutating func change(_ setting: SettingChange) { profile.action = .settings([setting]) }

    /// `SET [LOCAL] transaction_read_only = on` is SET TRANSACTION in other words.
    private mutating func transactionVariable(_ item: Int, _ kind: String, _ name: String) {
        guard kind == "VAR_SET_VALUE", let value = values(item).plain.first else {
            profile.action = .setTransaction(TransactionModes())
            return
        }
        let isReadOnly = name == "transaction_read_only"
        profile.action = .setTransaction(
            TransactionModes(isReadOnly: isReadOnly ? SettingWords.bool(value) : nil, isolation: isReadOnly ? nil : value.asciiLowercased))
    }

    private mutating func characteristics(_ modes: TransactionModes) {
        var changes: [SettingChange] = []
        if let isolation = modes.isolation { changes.append(setting("default_transaction_isolation", isolation)) }
        if let isReadOnly = modes.isReadOnly { changes.append(setting("default_transaction_read_only", isReadOnly ? "on" : "off")) }
        profile.action = .settings(changes)
    }

    private func setting(_ name: String, _ value: String) -> SettingChange {
        SettingChange(name: name, value: .set([value], statement: "SET \(SettingWords.quoted(name)) TO '\(value)'"))
    }

    /// A privilege is never carried: another role pins the session, unless it ends with the transaction.
    private mutating func role(_ item: Int, _ kind: String, _ isLocal: Bool) {
        if isLocal {
            profile.action = .localRole
        } else if kind != "VAR_SET_VALUE" || values(item).plain.first == "none" {
            profile.action = .resetRole
        } else {
            profile.effects = []
            profile.pin(.role, values(item).plain.first ?? "")
        }
    }

    /// A setting's values, plain and as SQL.
    private func values(_ item: Int) -> (plain: [String], sql: String) {
        guard let list = tree.field(.args, of: item) else { return ([], "DEFAULT") }
        let plain = tree.children(list).map { entry in tree.node(in: entry).flatMap { constant($0, tree) } ?? "" }
        return (plain, plain.map(SettingWords.literal).joined(separator: ", "))
    }
}

/// Words of settings and names, as PostgreSQL reads them.
enum SettingWords {
    /// `parse_bool` of PostgreSQL: on, off, 1, 0, and beginnings of true, false, yes, no. Nil: none of them.
    static func bool(_ text: String) -> Bool? {
        let word = text.asciiLowercased
        if word == "on" || word == "1" { return true }
        if word == "of" || word == "off" || word == "0" { return false }
        guard !word.isEmpty else { return nil }
        if "true".hasPrefix(word) || "yes".hasPrefix(word) { return true }
        if "false".hasPrefix(word) || "no".hasPrefix(word) { return false }
        return nil
    }

    /// A text as an SQL literal, whatever `standard_conforming_strings` is.
    static func literal(_ text: String) -> String {
        var out: [UInt8] = [UInt8(ascii: "'")]
        var hasBackslash = false
        for byte in text.utf8 {
            if byte == UInt8(ascii: "'") || byte == UInt8(ascii: "\\") { out.append(byte) }
            if byte == UInt8(ascii: "\\") { hasBackslash = true }
            out.append(byte)
        }
        out.append(UInt8(ascii: "'"))
        return (hasBackslash ? "E" : "") + String(decoding: out, as: UTF8.self)
    }

    /// A setting's name as SQL: `app.tenant` has two parts.
    static func quoted(_ name: String) -> String {
        name.split(separator: ".", omittingEmptySubsequences: false).map { "\"\($0)\"" }.joined(separator: ".")
    }

    /// The parts of a name as `nextval` reads it from a text: folded to lower case where it is not quoted.
    static func nameParts(_ text: String) -> [String] {
        var parts: [String] = []
        var name: [UInt8] = []
        var isQuoted = false
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""): isQuoted.toggle()
            case UInt8(ascii: ".") where !isQuoted:
                parts.append(String(decoding: name, as: UTF8.self))
                name = []
            default: name.append(!isQuoted && byte &- 65 < 26 ? byte | 32 : byte)
            }
        }
        parts.append(String(decoding: name, as: UTF8.self))
        return parts
    }
}

extension String {
    /// A to Z in lower case, all else as it is: names of settings are compared so.
    var asciiLowercased: String { String(decoding: utf8.map { $0 &- 65 < 26 ? $0 | 32 : $0 }, as: UTF8.self) }
}
