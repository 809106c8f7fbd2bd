/// A dotenv file as Compose reads it: `NAME=value` a line, also `NAME: value` and `export NAME=value`; comments; values in single quotes
/// (taken as they stand) or double quotes (with `\n`, `\"` and variables), both over several lines. Unquoted and double-quoted values may
/// have `$NAME`, `${NAME}`, `${NAME:-default}` and `$$`; the environment answers for a name first, then the lines before.
struct Dotenv {
    /// Far more than a process can be given.
    static let sizeLimit = 256 << 10
    /// All values together, once their variables are filled in: half of what Linux gives a program by default.
    static let valuesLimit = 1 << 20

    struct Entry: Equatable {
        let name: String
        let value: String
        let line: Int
        let column: Int
    }

    private(set) var entries: [Entry] = []
    private(set) var problems: [Problem] = []
    private let file: String
    private let text: [Unicode.Scalar]
    private var place = 0
    private var line = 1
    private var lineStart = 0
    private var size = 0
    private let lookUp: (String) -> String?
    private var known: [String: String] = [:]

    /// Reads all of it. What is wrong is in `problems`, each with its place in `file`.
    init(_ bytes: [UInt8], file: String, lookUp: @escaping (String) -> String?) {
        self.file = file
        self.lookUp = lookUp
        var decoded = Array(String(decoding: bytes, as: UTF8.self).unicodeScalars)
        if decoded.first == "\u{FEFF}" { decoded.removeFirst() }
        text = decoded
        if let wrong = text.firstIndex(where: { $0 == "\u{FFFD}" || $0.value == 0 }) {
            let before = text[..<wrong]
            problems.append(
                Problem(
                    file: file, line: before.count { $0 == "\n" } + 1, column: before.count - (before.lastIndex(of: "\n") ?? -1),
                    message: text[wrong].value == 0 ? "a NUL character: programs and the system would cut it there" : "not UTF-8"))
            return
        }
        while place < text.count, problems.count < 100, size <= Dotenv.valuesLimit { statement() }
        if size > Dotenv.valuesLimit {
            report(line, 1, "its values are larger than \(Dotenv.valuesLimit >> 20) MiB, which no program can be given")
        }
    }

    private mutating func report(_ line: Int, _ column: Int, _ message: String) {
        problems.append(Problem(file: file, line: line, column: column, message: message))
    }

    private var current: Unicode.Scalar? { place < text.count ? text[place] : nil }
    private var column: Int { place - lineStart + 1 }

    private mutating func advance() {
        if text[place] == "\n" {
            line += 1
            lineStart = place + 1
        }
        place += 1
    }

    private mutating func skipBlanks() { while let c = current, c == " " || c == "\t" { place += 1 } }

    private mutating func skipLine() {
        while let c = current, c != "\n" {
            _ = c
            place += 1
        }
        if current != nil { advance() }
    }

    private var isAtEndOfLine: Bool {
        current == nil || current == "\n" || current == "\r" && (place + 1 >= text.count || text[place + 1] == "\n")
    }

    private mutating func word() -> String {
        var out = ""
        while let c = current, c.isASCII, Interpolation.isName(String(c)) {
            out.unicodeScalars.append(c)
            place += 1
        }
        return out
    }

    private mutating func statement() {
        skipBlanks()
        if isAtEndOfLine || current == "#" { return skipLine() }
        var start = column
        var name = word()
        if name == "export", current == " " || current == "\t" {
            skipBlanks()
            start = column
            name = word()
        }
        skipBlanks()
        guard !name.isEmpty, current == "=" || current == ":" else {
            report(line, start, "expected NAME=value, with a name of letters, digits and underscores")
            return skipLine()
        }
        place += 1
        skipBlanks()
        let valueLine = line, valueColumn = column
        do throws(Interpolation.Failure) {
            let value = try value()
            size += value.utf8.count
            known[name] = value
            entries.append(Entry(name: name, value: value, line: valueLine, column: start))
        } catch {
            report(valueLine, valueColumn, "\(name): \(error.reason)")
            // A quote without its second one has taken all that follows.
            skipLine()
        }
    }

    private mutating func value() throws(Interpolation.Failure) -> String {
        switch current {
        case "'":
            let inside = try quoted("'")
            return inside.replacing("\\'", with: "'")
        case "\"": return try expand(try quoted("\""), isQuoted: true)
        default:
            var out = String.UnicodeScalarView()
            while let c = current, !isAtEndOfLine {
                if c == "#", out.last.map({ $0 == " " || $0 == "\t" }) ?? true { break }
                out.append(c)
                place += 1
            }
            skipLine()
            while let last = out.last, last == " " || last == "\t" { out.removeLast() }
            return try expand(String(out), isQuoted: false)
        }
    }

    /// What stands between two quotes, escapes still in it; behind the second one only a comment may follow.
    private mutating func quoted(_ quote: Unicode.Scalar) throws(Interpolation.Failure) -> String {
        var out = String.UnicodeScalarView()
        place += 1
        while let c = current, c != quote {
            if c == "\\", place + 1 < text.count {
                out.append(c)
                advance()
                out.append(text[place])
            } else if !(c == "\r" && place + 1 < text.count && text[place + 1] == "\n") {
                out.append(c)
            }
            advance()
        }
        guard current != nil else { throw Interpolation.Failure(reason: "a \(quote) without its second one") }
        place += 1
        skipBlanks()
        guard isAtEndOfLine || current == "#" else {
            throw Interpolation.Failure(reason: "only a comment may follow the second \(quote)")
        }
        skipLine()
        return String(out)
    }

    private func expand(_ text: String, isQuoted: Bool) throws(Interpolation.Failure) -> String {
        var parts: [Interpolation.Part] = []
        var rest = text[...]
        let escapes: [Character: Substring] = ["n": "\n", "r": "\r", "t": "\t", "\\": "\\", "\"": "\"", "$": "$"]
        while let place = rest.firstIndex(where: { $0 == "$" || isQuoted && $0 == "\\" }) {
            parts.append(.text(rest[..<place]))
            let sign = rest[place]
            rest = rest[rest.index(after: place)...]
            if sign == "$" {
                parts.append(try Interpolation.next(&rest))
            } else if let next = rest.first, let meant = escapes[next] {
                parts.append(.text(meant))
                rest = rest.dropFirst()
            } else {
                parts.append(.text("\\"))
            }
        }
        return try Interpolation.fill(parts + [.text(rest)]) { lookUp($0) ?? known[$0] }
    }
}
