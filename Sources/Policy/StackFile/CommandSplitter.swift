import StackModel

/// Reads a command that is one line.
extension CommandLine {
    /// What is known of a variable when the file is read.
    enum Variable {
        /// Each process has a value of its own.
        case given
        case value(String)
        case unset
        /// It may not stand in a command.
        case refused(String)
    }

    /// One line, with `variable` answering for `$NAME` and `${NAME}`.
    init(line: String, variable: @escaping (String) -> Variable) throws(Interpolation.Failure) {
        guard line.utf8.count <= Interpolation.valueLimit else { throw Interpolation.tooLong }
        var trimmed = line[...]
        // YAML's block texts end with a newline.
        while let last = trimmed.unicodeScalars.last, last == "\n" { trimmed.unicodeScalars.removeLast() }
        var splitter = Splitter(rest: trimmed, variable: variable)
        self.init(pieces: try splitter.words())
        let first = pieces.first ?? []
        if first.contains(where: { if case .given = $0 { true } else { false } }) {
            throw Interpolation.Failure(reason: "the program itself cannot depend on what each replica is given")
        }
        let program = self.program
        guard !program.isEmpty else { throw Interpolation.Failure(reason: "a program is needed") }
        if let equals = program.firstIndex(of: "="), Interpolation.isName(program[..<equals]) {
            throw Interpolation.Failure(
                reason: "'\(program)' stands where the program should: no shell is started, so write the variable under 'environment'")
        }
    }

    /// Reads a line from its beginning to its end.
    private struct Splitter {
        var rest: Substring
        let variable: (String) -> Variable
        /// The word that has begun: its pieces, and the text since the last of them.
        private var word: [Piece]?
        private var text: String?
        private var size = 0

        init(rest: Substring, variable: @escaping (String) -> Variable) {
            self.rest = rest
            self.variable = variable
        }

        /// What ends a command or joins two of them in a shell.
        private static let operators = Set("|&;<>()`".unicodeScalars)

        mutating func words() throws(Interpolation.Failure) -> [[Piece]] {
            var words: [[Piece]] = []
            while let character = rest.unicodeScalars.first {
                switch character {
                case _ where CommandLine.isBlank(character):
                    end(&words)
                    rest.unicodeScalars.removeFirst()
                    if character == "\n" {
                        throw Interpolation.Failure(
                            reason: "a second line: a command is one line (end a line with a backslash to go on in the next one, or write "
                                + "'command: >-')")
                    }
                case "#" where word == nil && text == nil:
                    throw Interpolation.Failure(
                        reason: "a shell would take '#' and the rest for a comment: put it in quotes, or leave it out")
                case "'": try single()
                case "\"": try double()
                case "\\": try backslash()
                case "$": try dollar(isWhole: false)
                case _ where Splitter.operators.contains(character): throw needsShell(String(character))
                default:
                    rest.unicodeScalars.removeFirst()
                    try add(character)
                }
            }
            end(&words)
            return words
        }

        private mutating func end(_ words: inout [[Piece]]) {
            flush()
            if let word { words.append(word) }
            word = nil
        }

        private mutating func flush() {
            if let text { word = (word ?? []) + [.text(text)] }
            text = nil
        }

        private func needsShell(_ what: String) -> Interpolation.Failure {
            Interpolation.Failure(
                reason: "'\(what)' is for a shell, and none is started: put it in quotes if the program is to get it, or start a shell "
                    + "yourself, as in command: [sh, -c, \"…\"]")
        }

        private mutating func add(_ more: String) throws(Interpolation.Failure) {
            try count(more)
            text = (text ?? "") + more
        }

        private mutating func add(_ character: Unicode.Scalar) throws(Interpolation.Failure) {
            size += 1
            guard size <= Interpolation.valueLimit else { throw Interpolation.tooLong }
            if text == nil { text = "" }
            text!.unicodeScalars.append(character)
        }

        private mutating func add(_ piece: Piece, _ value: String = "") throws(Interpolation.Failure) {
            try count(value)
            flush()
            if word == nil { word = [] }
            word!.append(piece)
        }

        private mutating func count(_ more: String) throws(Interpolation.Failure) {
            size += more.utf8.count
            guard size <= Interpolation.valueLimit else { throw Interpolation.tooLong }
        }

        /// Everything up to the next quote stands for itself.
        private mutating func single() throws(Interpolation.Failure) {
            rest.unicodeScalars.removeFirst()
            guard let end = rest.unicodeScalars.firstIndex(of: "'") else {
                throw Interpolation.Failure(reason: "a ' without its second one")
            }
            try add(String(rest[..<end]))
            rest = rest[end...]
            rest.unicodeScalars.removeFirst()
        }

        private mutating func double() throws(Interpolation.Failure) {
            rest.unicodeScalars.removeFirst()
            try add("")
            while let character = rest.unicodeScalars.first {
                switch character {
                case "\"":
                    rest.unicodeScalars.removeFirst()
                    return
                case "$": try dollar(isWhole: true)
                case "`": throw needsShell("`")
                case "\\":
                    rest.unicodeScalars.removeFirst()
                    let next = rest.unicodeScalars.first
                    if let next, "$`\"\\\n".unicodeScalars.contains(next) {
                        rest.unicodeScalars.removeFirst()
                        if next != "\n" { try add(next) }
                    } else {
                        try add("\\")
                    }
                default:
                    rest.unicodeScalars.removeFirst()
                    try add(character)
                }
            }
            throw Interpolation.Failure(reason: "a \" without its second one")
        }

        private mutating func backslash() throws(Interpolation.Failure) {
            rest.unicodeScalars.removeFirst()
            guard let next = rest.unicodeScalars.first else { throw Interpolation.Failure(reason: "a backslash with nothing behind it") }
            rest.unicodeScalars.removeFirst()
            // The line goes on.
            if next != "\n" { try add(next) }
        }

        private mutating func dollar(isWhole: Bool) throws(Interpolation.Failure) {
            rest.unicodeScalars.removeFirst()
            if rest.unicodeScalars.first == "(" { throw needsShell("$(") }
            try append(try Interpolation.next(&rest), isWhole)
        }

        private mutating func append(_ part: Interpolation.Part, _ isWhole: Bool, isDefault: Bool = false) throws(Interpolation.Failure) {
            switch part {
            case .text(let text):
                if isDefault, text.unicodeScalars.contains(where: { "'\"\\".unicodeScalars.contains($0) }) {
                    throw Interpolation.Failure(
                        reason: "quotes and backslashes within ${NAME:-…} of a command: put the whole in quotes, \"${NAME:-…}\"")
                }
                if isWhole || !isDefault { try add(String(text)) } else { try add(.split(String(text)), String(text)) }
            case .variable(let name, let fallback):
                let known = variable(String(name))
                switch known {
                case .given: try add(.given(String(name), isWhole: isWhole))
                case .refused(let reason): throw Interpolation.Failure(reason: reason)
                case .value, .unset:
                    let found = try Interpolation.value(of: name, hasDefault: fallback != nil) { _ in
                        if case .value(let value) = known { value } else { nil }
                    }
                    guard let found else {
                        for part in fallback ?? [] { try append(part, isWhole, isDefault: true) }
                        return
                    }
                    if isWhole { try add(found) } else { try add(.split(found), found) }
                }
            }
        }
    }
}
