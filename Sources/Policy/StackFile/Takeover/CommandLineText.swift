/// A command line for a shell: its words, split as a POSIX shell splits them, and what it needs a shell for.
struct CommandLineText {
    /// nil: a quote is not closed.
    let words: [String]?
    /// Pipes, lists of commands, files to read or write, patterns, the output of commands: a shell is needed.
    let needsShell: Bool
    /// It is more than one command: a shell stays and runs them.
    let hasOperators: Bool
    /// It has a `$` that is not in single quotes.
    let hasVariables: Bool

    init(_ text: String) {
        var words: [String] = []
        var word: String?
        var quote: Character?, isEscaped = false, needsShell = false, hasOperators = false, hasVariables = false, before: Character = " "
        for character in text {
            defer { before = character }
            if isEscaped {
                // Between double quotes a backslash protects only these.
                if quote == "\"", !"\"\\$`".contains(character) { word = (word ?? "") + "\\" }
                if character != "\n" { word = (word ?? "") + String(character) }
                isEscaped = false
                continue
            }
            switch (character, quote) {
            case ("\\", nil), ("\\", "\""): isEscaped = true
            case ("'", nil), ("\"", nil):
                quote = character
                word = word ?? ""
            case ("'", "'"), ("\"", "\""): quote = nil
            case (" ", nil), ("\t", nil), ("\n", nil):
                if let word { words.append(word) }
                word = nil
            default:
                if quote != "'" {
                    if character == "$" { hasVariables = true }
                    if character == "`" || character == "(" && before == "$" { needsShell = true }
                }
                if quote == nil, "|&;()".contains(character) { hasOperators = true }
                if quote == nil, "<>*?[".contains(character) || "~#".contains(character) && word == nil { needsShell = true }
                word = (word ?? "") + String(character)
            }
        }
        if let word { words.append(word) }
        // `NAME=value program`: only a shell sets a variable so.
        if let first = words.first, first.contains("="), !first.hasPrefix("/"), !first.hasPrefix("-") { needsShell = true }
        self.words = quote == nil && !isEscaped ? words : nil
        self.needsShell = needsShell || hasOperators
        self.hasOperators = hasOperators
        self.hasVariables = hasVariables
    }

    /// A command line for a shell, which gives its place to the program where it is only one.
    static func shell(_ text: String) -> [String] {
        let line = CommandLineText(text)
        let isOne = !line.hasOperators && !text.hasPrefix("exec ") && !(line.words?.first?.contains("=") ?? false)
        return ["sh", "-c", isOne ? "exec " + text : text]
    }

    /// How a shell is given a word that means itself.
    static func quoted(_ word: String) -> String {
        let isBare = !word.isEmpty && word.utf8.allSatisfy { ($0 | 32) &- 97 < 26 || $0 &- 48 < 10 || "/_.=+@%-:,".utf8.contains($0) }
        return isBare ? word : "'" + word.replacing("'", with: "'\\''") + "'"
    }
}
