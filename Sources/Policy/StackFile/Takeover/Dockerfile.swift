/// What a Dockerfile says about the program of its last stage. Only this is read: nothing is built.
struct Dockerfile {
    private(set) var entrypoint: [String] = []
    private(set) var command: [String] = []
    private(set) var port: UInt16?
    private(set) var environment: [(name: String, value: String)] = []

    /// `target`: the stage that is used; nil: the last one.
    init(_ text: [UInt8], target: String? = nil) {
        var stage: String?
        // Nothing that has a NUL is a text.
        if text.contains(0) { return }
        for line in Dockerfile.lines(text) {
            let word = line.prefix { !$0.isWhitespace }
            let rest = String(line.dropFirst(word.count).drop { $0.isWhitespace })
            switch word.uppercased() {
            case "FROM":
                if let target, stage == target { return }
                stage = rest.split(separator: " ").last.map(String.init)
                self = Dockerfile()
            case "ENTRYPOINT": entrypoint = Dockerfile.words(rest)
            case "CMD": command = Dockerfile.words(rest)
            case "EXPOSE": port = UInt16(rest.prefix { $0.isNumber }).flatMap { $0 > 0 ? $0 : nil }
            case "ENV": addEnvironment(rest)
            default: break
            }
        }
    }

    private init() {}

    /// What runs; empty: nothing that is told here.
    var words: [String] { entrypoint + command }

    /// Its instructions, continued lines put together.
    private static func lines(_ text: [UInt8]) -> [String] {
        var lines: [String] = []
        var open = ""
        for raw in text.split(separator: 10, omittingEmptySubsequences: true) {
            var line = String(decoding: raw.last == 13 ? raw.dropLast() : raw, as: UTF8.self)
            let isComment = line.drop { $0.isWhitespace }.hasPrefix("#")
            if isComment { continue }
            if line.hasSuffix("\\") {
                line.removeLast()
                open += line + " "
                continue
            }
            lines.append(String((open + line).drop { $0.isWhitespace }))
            open = ""
        }
        if !open.isEmpty { lines.append(open) }
        return lines
    }

    /// A list of words, or one text for a shell.
    private static func words(_ text: String) -> [String] {
        if text.hasPrefix("["), let list = try? YAMLNode.parse(Array(text.utf8), file: ""), case .sequence = list.content {
            return list.texts
        }
        let line = CommandLineText(text)
        if let words = line.words, !line.needsShell { return words }
        return CommandLineText.shell(text)
    }

    private mutating func addEnvironment(_ text: String) {
        let words = CommandLineText(text).words ?? []
        if let first = words.first, !first.contains("=") {
            environment.append((first, words.dropFirst().joined(separator: " ")))
            return
        }
        for word in words {
            guard let sign = word.firstIndex(of: "=") else { continue }
            environment.append((String(word[..<sign]), String(word[word.index(after: sign)...])))
        }
    }
}
