/// A text of a compose file with its variables: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?error}` and `$$`.
struct ComposeText {
    private enum Part {
        case text(String)
        /// `fallback` nil: it must be set (`:?`); Compose takes an unset variable without a default for an empty text.
        case variable(String, fallback: String?)
    }

    private var parts: [Part] = []
    /// What it has that a stack file cannot say; nil: nothing.
    private(set) var trouble: String?
    private(set) var hasVariables = false

    /// It says nothing, whatever the variables are.
    var isEmpty: Bool { !hasVariables && (defaultText ?? "").isEmpty }

    /// Defaults within defaults.
    private static let depthLimit = 16

    init(_ text: String) {
        var depth = 0
        for byte in text.utf8 {
            depth += byte == 123 ? 1 : byte == 125 ? -1 : 0
            guard depth > ComposeText.depthLimit else { continue }
            trouble = "braces are within each other more than \(ComposeText.depthLimit) deep"
            parts = [.text(text)]
            return
        }
        var rest = text[...]
        while let dollar = rest.firstIndex(of: "$") {
            parts.append(.text(String(rest[..<dollar])))
            rest = rest[rest.index(after: dollar)...]
            if rest.first == "$" {
                parts.append(.text("$"))
                rest = rest.dropFirst()
            } else if rest.first == "{", let end = ComposeText.closing(rest) {
                variable(String(rest[rest.index(after: rest.startIndex)..<end]))
                rest = rest[rest.index(after: end)...]
            } else {
                let name = rest.prefix { ($0.isLetter || $0.isNumber || $0 == "_") && $0.isASCII }
                if name.isEmpty { parts.append(.text("$")) } else { add(.variable(String(name), fallback: "")) }
                rest = rest.dropFirst(name.count)
            }
        }
        parts.append(.text(String(rest)))
    }

    private mutating func add(_ part: Part) {
        parts.append(part)
        hasVariables = true
    }

    private static func closing(_ text: Substring) -> Substring.Index? {
        var open = 0
        for place in text.indices {
            if text[place] == "{" { open += 1 }
            if text[place] == "}" { open -= 1 }
            if open == 0 { return place }
        }
        return nil
    }

    private mutating func variable(_ inside: String) {
        let name = inside.prefix { ($0.isLetter || $0.isNumber || $0 == "_") && $0.isASCII }
        let rest = inside.dropFirst(name.count)
        if name.isEmpty || rest.hasPrefix(":+") || rest.hasPrefix("+") {
            trouble = "'${\(inside)}' has no equal here"
            parts.append(.text("${" + inside + "}"))
        } else if rest.hasPrefix(":-") {
            add(.variable(String(name), fallback: String(rest.dropFirst(2))))
        } else if rest.hasPrefix("-") {
            add(.variable(String(name), fallback: String(rest.dropFirst(1))))
        } else if rest.hasPrefix(":?") || rest.hasPrefix("?") {
            add(.variable(String(name), fallback: nil))
        } else if rest.isEmpty {
            add(.variable(String(name), fallback: ""))
        } else {
            trouble = "'${\(inside)}' has no equal here"
            parts.append(.text("${" + inside + "}"))
        }
    }

    /// As a stack file's `environment` writes it.
    var stackText: String {
        parts.map { part in
            switch part {
            case .text(let text): text.replacing("$", with: "$$")
            case .variable(let name, nil): "${\(name)}"
            case .variable(let name, let fallback?): "${\(name):-\(ComposeText(fallback).stackText)}"
            }
        }.joined()
    }

    /// With the defaults in place of the variables; nil where a variable has none.
    var defaultText: String? {
        var out = ""
        for part in parts {
            switch part {
            case .text(let text): out += text
            case .variable(_, let fallback):
                guard let fallback, !fallback.isEmpty, let text = ComposeText(fallback).defaultText else { return nil }
                out += text
            }
        }
        return out
    }

    /// As a word of a command that is one line, quoted so that it stays one word.
    var word: String {
        if !hasVariables { return CommandLineText.quoted(defaultText ?? "") }
        let inside = parts.map { part in
            switch part {
            case .text(let text): ComposeText.protected(text)
            case .variable(let name, nil): "${\(name)}"
            case .variable(let name, let fallback?): "${\(name):-\(ComposeText(fallback).stackText)}"
            }
        }
        return "\"" + inside.joined() + "\""
    }

    private static func protected(_ text: String) -> String {
        var out = ""
        for character in text {
            if "\"\\$`".contains(character) { out.append("\\") }
            out.append(character)
        }
        return out
    }
}
