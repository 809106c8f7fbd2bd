import Basics
import TestSupport

/// One Swift file of the project, taken apart into words and signs: as much as the rules need, and no compiler.
struct SourceFile: Sendable {
    /// A word, a number, or one sign. Comments and the letters of texts are none; what is filled into a text is.
    struct Token: Sendable {
        enum Kind: Sendable { case word, number, sign }

        let kind: Kind
        let text: String
        /// From 1.
        let line: Int
        /// Whether something blank stands before it.
        let isSpaced: Bool
    }

    let path: String
    let lines: [Substring]
    let tokens: [Token]

    init(path: String, text: String) {
        self.path = path
        lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        var lexer = Lexer(bytes: Array(text.utf8))
        lexer.run()
        tokens = lexer.tokens
    }

    static let root = Files.folder(of: Files.folder(of: Files.folder(of: #filePath)))

    static func paths(_ folder: String, _ ending: String) -> [String] {
        Files.list("\(root)/\(folder)").sorted().flatMap { name -> [String] in
            let path = folder.isEmpty ? name : "\(folder)/\(name)"
            if name.hasPrefix(".") { return [] }
            return name.hasSuffix(ending) ? [path] : Files.list("\(root)/\(path)").isEmpty ? [] : paths(path, ending)
        }
    }

    static func all(_ folder: String) -> [SourceFile] {
        paths(folder, ".swift").map { SourceFile(path: $0, text: Files.text("\(root)/\($0)") ?? "") }
    }

    static let sources = all("Sources")
    static let tests = all("Tests")

    // MARK: tokens

    func isWord(_ index: Int, _ text: String) -> Bool {
        tokens.indices.contains(index) && tokens[index].kind == .word && tokens[index].text == text
    }
    func isSign(_ index: Int, _ text: String) -> Bool {
        tokens.indices.contains(index) && tokens[index].kind == .sign && tokens[index].text == text
    }

    /// The place of the bracket that closes the one at `open`; nil when there is none.
    func closing(_ open: Int) -> Int? {
        var depth = 0, index = open
        while index < tokens.count {
            if tokens[index].kind == .sign {
                switch tokens[index].text {
                case "(", "[", "{": depth += 1
                case ")", "]", "}":
                    depth -= 1
                    if depth == 0 { return index }
                default: break
                }
            }
            index += 1
        }
        return nil
    }

    // MARK: declarations

    /// A function, an initializer, a subscript or a deinitializer.
    struct Function: Sendable {
        /// `init` and so on for those without a name.
        let name: String
        /// The place of `func` or `init` among the tokens.
        let start: Int
        /// The braces of its body; nil for what a protocol asks for.
        let body: ClosedRange<Int>?
        let isPrivate: Bool
        let isOverride: Bool
    }

    /// All of them, nested ones too.
    var functions: [Function] {
        var out: [Function] = []
        for index in tokens.indices where tokens[index].kind == .word {
            let word = tokens[index].text
            let isNamed = word == "func"
            guard isNamed || ["init", "deinit", "subscript"].contains(word), !isSign(index - 1, "."), !isSign(index - 1, "`") else {
                continue
            }
            if !isNamed, !isStart(index) { continue }
            let name = isNamed && index + 1 < tokens.count ? tokens[index + 1].text : word
            let words = modifiers(before: index)
            out.append(
                Function(
                    name: name, start: index, body: body(after: index + (isNamed ? 2 : 1)),
                    isPrivate: words.contains("private") || words.contains("fileprivate"), isOverride: words.contains("override")))
        }
        return out
    }

    /// Whether a declaration may begin here: with the first word of its line, or with its modifiers.
    private func isStart(_ index: Int) -> Bool {
        var index = index
        while index > 0, tokens[index - 1].kind == .word, SourceFile.modifierWords.contains(tokens[index - 1].text) { index -= 1 }
        return index == 0 || tokens[index - 1].line < tokens[index].line || ["{", "}", ";"].contains(tokens[index - 1].text)
            || isSign(index - 1, ")") && isAttribute(closedAt: index - 1)
            || tokens[index - 1].kind == .word && isSign(index - 2, "@")
    }

    private func isAttribute(closedAt close: Int) -> Bool {
        var depth = 0, index = close
        while index >= 0 {
            if isSign(index, ")") { depth += 1 }
            if isSign(index, "(") { depth -= 1 }
            if depth == 0 { return isSign(index - 2, "@") }
            index -= 1
        }
        return false
    }

    private static let modifierWords: Set<String> = [
        "public", "package", "internal", "private", "fileprivate", "open", "static", "class", "final", "override", "mutating",
        "nonmutating", "borrowing", "consuming", "required", "convenience", "nonisolated", "isolated", "prefix", "postfix", "infix",
        "indirect", "unowned", "weak", "lazy", "sending", "distributed", "dynamic", "optional",
    ]

    func modifiers(before index: Int) -> [String] {
        var index = index - 1, out: [String] = []
        while index >= 0, tokens[index].kind == .word, SourceFile.modifierWords.contains(tokens[index].text) {
            out.append(tokens[index].text)
            index -= 1
        }
        return out
    }

    /// From behind the name to the body's brace, over generics, parameters, effects and conditions. Another declaration, or the end of what
    /// it stands in, comes first where there is no body.
    private func body(after start: Int) -> ClosedRange<Int>? {
        var index = start, hasParameters = isWord(start - 1, "deinit")
        while index < tokens.count {
            let token = tokens[index]
            if token.kind == .sign, token.text == "(" || token.text == "[" {
                hasParameters = true
                guard let close = closing(index) else { return nil }
                index = close + 1
                continue
            }
            if token.kind == .sign, token.text == "{" { return hasParameters ? closing(index).map { index...$0 } : nil }
            if token.kind == .sign,
                token.text == "}" || token.text == ";"
                    || token.text == "@" && hasParameters && !isWord(index + 1, "Sendable") && !isWord(index + 1, "escaping")
            {
                return nil
            }
            if hasParameters, token.kind == .word, SourceFile.declarationWords.contains(token.text), !isSign(index - 1, ".") { return nil }
            index += 1
        }
        return nil
    }

    private static let declarationWords: Set<String> = [
        "func", "var", "let", "init", "deinit", "subscript", "associatedtype", "typealias", "case", "struct", "class", "enum", "protocol",
        "extension", "static", "mutating", "public", "private", "fileprivate", "internal",
    ]

    /// A class, a struct, an enumeration, an actor, a protocol or another name for one.
    struct Kind: Sendable {
        let name: String
        let line: Int
        let isPrivate: Bool
    }

    var kinds: [Kind] {
        let words: Set<String> = ["class", "struct", "enum", "actor", "protocol", "typealias"]
        return tokens.indices.compactMap { index in
            guard tokens[index].kind == .word, words.contains(tokens[index].text), index + 1 < tokens.count, !isSign(index - 1, "."),
                tokens[index + 1].kind == .word, !["func", "var", "let", "subscript"].contains(tokens[index + 1].text), isStart(index)
            else { return nil }
            let modifiers = modifiers(before: index)
            return Kind(
                name: tokens[index + 1].text, line: tokens[index].line,
                isPrivate: modifiers.contains("private") || modifiers.contains("fileprivate"))
        }
    }
}

/// Bytes to tokens. Texts may hold what is filled in, and that may hold texts: so places are kept on a stack.
private struct Lexer {
    private enum Place {
        /// Code; inside a text with the brackets that are open.
        case code(brackets: Int)
        /// A text with so many `#`, of one line or of several.
        case text(pounds: Int, isLong: Bool)
    }

    let bytes: [UInt8]
    var tokens: [SourceFile.Token] = []
    private var at = 0
    private var line = 1
    private var isSpaced = true
    private var places: [Place] = [.code(brackets: 0)]

    init(bytes: [UInt8]) { self.bytes = bytes }

    private func byte(_ offset: Int) -> UInt8 { at + offset < bytes.count ? bytes[at + offset] : 0 }

    mutating func run() {
        while at < bytes.count {
            switch places[places.count - 1] {
            case .code(let brackets): code(brackets)
            case .text(let pounds, let isLong): text(pounds, isLong)
            }
        }
    }

    private mutating func step(_ count: Int = 1) {
        for _ in 0..<count where at < bytes.count {
            if bytes[at] == 10 { line += 1 }
            at += 1
        }
    }

    private mutating func code(_ brackets: Int) {
        let here = byte(0)
        switch here {
        case 32, 9, 10, 13:
            isSpaced = true
            step()
        case 47 where byte(1) == 47: while at < bytes.count, bytes[at] != 10 { at += 1 }
        case 47 where byte(1) == 42: comment()
        case 34: open(pounds: 0)
        case 35:
            var pounds = 0
            while byte(pounds) == 35 { pounds += 1 }
            if byte(pounds) == 34 {
                at += pounds
                open(pounds: pounds)
            } else {
                sign()
            }
        case 40,
            41 where places.count > 1:
            let left = brackets + (here == 40 ? 1 : -1)
            if left < 0 {
                places.removeLast()
                step()
            } else {
                places[places.count - 1] = .code(brackets: left)
                sign()
            }
        case _ where here == 95 || (here | 32) &- 97 < 26 || here >= 128: word(.word)
        case _ where here &- 48 < 10: number()
        default: sign()
        }
    }

    private mutating func comment() {
        var depth = 0
        repeat {
            if byte(0) == 47, byte(1) == 42 {
                depth += 1
                step(2)
            } else if byte(0) == 42, byte(1) == 47 {
                depth -= 1
                step(2)
            } else {
                step()
            }
        } while depth > 0 && at < bytes.count
        isSpaced = true
    }

    private mutating func open(pounds: Int) {
        let isLong = byte(1) == 34 && byte(2) == 34
        // An empty text is no beginning of a long one.
        add(.sign, "\"")
        step(isLong ? 3 : 1)
        places.append(.text(pounds: pounds, isLong: isLong))
    }

    private mutating func text(_ pounds: Int, _ isLong: Bool) {
        func hasPounds(_ offset: Int) -> Bool { (0..<pounds).allSatisfy { byte(offset + $0) == 35 } }
        if byte(0) == 92, hasPounds(1) {
            if byte(1 + pounds) == 40 {
                step(2 + pounds)
                places.append(.code(brackets: 0))
                isSpaced = true
            } else {
                step(2 + pounds)
            }
            return
        }
        let ends = isLong ? byte(0) == 34 && byte(1) == 34 && byte(2) == 34 && hasPounds(3) : byte(0) == 34 && hasPounds(1)
        if ends {
            step((isLong ? 3 : 1) + pounds)
            places.removeLast()
            isSpaced = false
        } else {
            step()
        }
    }

    private mutating func add(_ kind: SourceFile.Token.Kind, _ text: String) {
        tokens.append(SourceFile.Token(kind: kind, text: text, line: line, isSpaced: isSpaced))
        isSpaced = false
    }

    private mutating func word(_ kind: SourceFile.Token.Kind) {
        let start = at
        while byte(0) == 95 || (byte(0) | 32) &- 97 < 26 || byte(0) &- 48 < 10 || byte(0) >= 128 { at += 1 }
        add(kind, String(decoding: bytes[start..<at], as: UTF8.self))
    }

    /// `1.5e-3` is one number; `0..<5` and `1.map` are more than one token.
    private mutating func number() {
        let start = at
        while true {
            let here = byte(0)
            let isPart = here == 95 || here &- 48 < 10 || (here | 32) &- 97 < 26 || here == 46 && byte(1) &- 48 < 10
            let isSigned =
                (here == 43 || here == 45) && [101, 112].contains(bytes[at - 1] | 32) && bytes[start..<at].count > 1 && !isHex(start)
            guard isPart || isSigned else { break }
            at += 1
        }
        add(.number, String(decoding: bytes[start..<at], as: UTF8.self))
    }

    private func isHex(_ start: Int) -> Bool {
        start + 1 < at && bytes[start] == 48 && bytes[start + 1] | 32 == 120 && bytes[at - 1] | 32 == 101
    }

    private mutating func sign() {
        add(.sign, String(UnicodeScalar(byte(0))))
        step()
    }
}
