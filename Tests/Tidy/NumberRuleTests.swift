import Testing

/// Numbers from outside end no process: `Sources/Core/Basics/CheckedNumbers.swift` has the ways that do not. A text does not know types; what
/// it can tell is told here, and a test of each rule shows what that is.
@Suite struct NumberRuleTests {
    /// A place that was looked at and stays as it is. It must still be there: this list may only get shorter.
    struct Reviewed: Sendable {
        let path: String
        /// The line, without its indentation.
        let line: String
        let why: String
    }

    static let wholeTypes: Set<String> = [
        "Int", "Int8", "Int16", "Int32", "Int64", "UInt", "UInt8", "UInt16", "UInt32", "UInt64",
    ]

    // MARK: floating-point values

    /// Names that are declared as a floating-point value, and as nothing else, in these files.
    static func floatingNames(_ files: [SourceFile]) -> Set<String> {
        var floating: Set<String> = [], others: Set<String> = []
        for file in files {
            for (index, token) in file.tokens.enumerated() where token.kind == .word {
                if file.isSign(index + 1, ":"), index + 2 < file.tokens.count, file.tokens[index + 2].kind == .word {
                    // A label of a call is followed by a value, and says nothing of a type: those begin with a capital.
                    let type = file.tokens[index + 2].text
                    guard type.first?.isUppercase == true, !file.isSign(index + 3, "("), !file.isSign(index + 3, ".") else { continue }
                    if type == "Double" || type == "Float" { floating.insert(token.text) } else { others.insert(token.text) }
                }
                if token.text == "let" || token.text == "var", file.isSign(index + 2, "="), index + 3 < file.tokens.count {
                    let name = file.tokens[index + 1].text
                    let value = SourceFile.endOfLine(file, from: index + 3)
                    if isFloating(file, index + 3..<value, []) { floating.insert(name) } else { others.insert(name) }
                }
            }
            for function in file.functions where function.name != "init" {
                let end = function.body?.lowerBound ?? function.start
                for index in function.start..<end where file.isSign(index, "-") && file.isSign(index + 1, ">") && index + 3 >= end {
                    if file.isWord(index + 2, "Double") || file.isWord(index + 2, "Float") {
                        floating.insert(function.name)
                    } else {
                        others.insert(function.name)
                    }
                }
            }
        }
        return floating.subtracting(others)
    }

    /// Whether these tokens make a floating-point value, as far as they show it themselves or by a name that is one. What is inside the
    /// brackets of a call or of a subscript is only a part of it.
    static func isFloating(_ file: SourceFile, _ range: Range<Int>, _ names: Set<String>) -> Bool {
        var index = range.lowerBound
        while index < range.upperBound {
            let token = file.tokens[index], isCall = file.isSign(index + 1, "(")
            switch token.kind {
            case .number:
                let isPlain = !token.text.hasPrefix("0x") && !token.text.hasPrefix("0b")
                if isPlain && (token.text.contains(".") || token.text.lowercased().contains("e"))
                    || token.text.hasPrefix("0x") && token.text.contains("p")
                {
                    return true
                }
            case .word:
                if ["rounded", "squareRoot"].contains(token.text), isCall { return true }
                if ["Double", "Float"].contains(token.text), isCall { return !comparesLater(file, index, range) }
                if wholeTypes.contains(token.text) || ["min", "max", "abs"].contains(token.text) {
                    if wholeTypes.contains(token.text), isCall, let close = file.closing(index + 1) {
                        index = close + 1
                        continue
                    }
                } else if token.text == "secondsAsDouble" || names.contains(token.text) && !isPassedOn(file, index, range) {
                    return true
                }
            case .sign:
                // A subscript's index says nothing of its element.
                if token.text == "[", index > range.lowerBound, !token.isSpaced, let close = file.closing(index) {
                    index = close
                }
            }
            index += 1
        }
        return false
    }

    /// `value.count`, `value < 3 ? 1 : 2`: a name whose value is only looked at.
    private static func isPassedOn(_ file: SourceFile, _ index: Int, _ range: Range<Int>) -> Bool {
        if file.isSign(index + 1, "."), index + 2 < range.upperBound {
            return !["magnitude", "rounded", "squareRoot", "significand"].contains(file.tokens[index + 2].text)
        }
        return comparesLater(file, index, range)
    }

    private static func comparesLater(_ file: SourceFile, _ index: Int, _ range: Range<Int>) -> Bool {
        (index..<range.upperBound).contains {
            file.isSign($0, "<") || file.isSign($0, ">") || file.isSign($0, "?") && !file.isSign($0 + 1, "?")
        }
    }

    /// `Int(` and its kin around a floating-point value, without `exactly:`, `clamped:` or another label that says what happens when it does
    /// not fit.
    static func uncheckedConversions(_ file: SourceFile, _ names: Set<String>) -> [Int] {
        file.tokens.indices.compactMap { index in
            guard file.tokens[index].kind == .word, wholeTypes.contains(file.tokens[index].text), file.isSign(index + 1, "("),
                !file.tokens[index + 1].isSpaced, let close = file.closing(index + 1), close > index + 2
            else { return nil }
            if file.tokens[index + 2].kind == .word, file.isSign(index + 3, ":") { return nil }
            return isFloating(file, index + 2..<close, names) ? file.tokens[index].line : nil
        }
    }

    static let reviewedConversions: [Reviewed] = []

    @Test func noIntegerIsMadeOfAFloatingPointValueUnchecked() {
        let everywhere = Self.floatingNames(SourceFile.sources)
        var found: [(String, Int, String)] = []
        for file in SourceFile.sources {
            let names = everywhere.union(Self.floatingNames([file]))
            for line in Self.uncheckedConversions(file, names) { found.append((file.path, line, file.trimmed(line))) }
        }
        Self.expectReviewed(
            found, Self.reviewedConversions,
            "Int(clamped:) or Int(exactly:) of Core/Basics: a value from outside that is no number, or too large, ends the process here")
    }

    // MARK: decoded integers

    /// Names that are bound to what a decoder or a text gave: `let x = entry["x"]?.int`, `guard let x = Int(text)`, and a parser's own
    /// `let x = try integer(line)`. With their function's range of tokens.
    static func decodedNames(_ file: SourceFile) -> [(name: String, scope: Range<Int>)] {
        let bodies = file.functions.compactMap(\.body)
        var out: [(String, Range<Int>)] = []
        for (index, token) in file.tokens.enumerated() where token.text == "let" || token.text == "var" {
            guard token.kind == .word, file.isSign(index + 2, "="), index + 3 < file.tokens.count else { continue }
            let isBinding = file.isWord(index - 1, "if") || file.isWord(index - 1, "guard") || file.isSign(index - 1, ",")
            let end = SourceFile.endOfLine(file, from: index + 3)
            let isDecoded = (index + 3..<end).contains { place in
                let word = file.tokens[place].text
                if word == "int" || word == "integer", file.isSign(place - 1, ".") { return !file.isSign(place + 1, "(") }
                if word == "integer", file.isSign(place + 1, "(") { return true }
                guard isBinding, wholeTypes.contains(word), place == index + 3, file.isSign(place + 1, "(") else { return false }
                return !(file.tokens[place + 2].kind == .word && file.isSign(place + 3, ":"))
            }
            guard isDecoded, let scope = bodies.filter({ $0.contains(index) }).min(by: { $0.count < $1.count }) else { continue }
            out.append((file.tokens[index + 1].text, index..<scope.upperBound))
        }
        return out
    }

    /// `+`, `-`, `*` and their assignments beside such a name, or beside `.int` itself.
    static func uncheckedSums(_ file: SourceFile) -> [Int] {
        var places: Set<Int> = []
        for (name, scope) in decodedNames(file) {
            for index in scope where file.isWord(index, name) && !file.isSign(index - 1, ".") {
                if isSummed(file, index, index) { places.insert(file.tokens[index].line) }
            }
        }
        for index in file.tokens.indices where file.isWord(index, "int") && file.isSign(index - 1, ".") {
            // `(… .int ?? 0) + 1`
            var end = index
            while end + 1 < file.tokens.count,
                file.tokens[end + 1].text == "?" || file.tokens[end + 1].kind == .number || file.isSign(end + 1, ")")
            { end += 1 }
            if isSummed(file, index, end) { places.insert(file.tokens[index].line) }
        }
        return places.sorted()
    }

    private static func isSummed(_ file: SourceFile, _ first: Int, _ last: Int) -> Bool {
        // With blanks on both sides, or before `=`: anything else is a sign or a part of another operator.
        func isOperator(_ index: Int) -> Bool {
            guard ["+", "*", "-"].contains(where: { file.isSign(index, $0) }), file.tokens[index].isSpaced, index + 1 < file.tokens.count
            else { return false }
            return file.tokens[index + 1].isSpaced || file.isSign(index + 1, "=")
        }
        if file.isSign(last + 1, ".") { return false }
        if isOperator(last + 1) || isOperator(first - 1) { return true }
        return file.isSign(first - 1, "=") && isOperator(first - 2)
    }

    static let reviewedSums: [Reviewed] = [
        Reviewed(
            path: "Sources/Policy/Autoscaling/ScheduleFloor.swift", line: "return hour * 60 + minute",
            why: "each is made of two digits and held to 24 and 59 in the line before"),
        Reviewed(
            path: "Sources/Policy/StackFile/SchemaChecker.swift", line: "guard parts.count == 2 else { return whole * 1000 }",
            why: "made of at most 12 digits, two lines before"),
        Reviewed(
            path: "Sources/Policy/StackFile/SchemaChecker.swift",
            line: "return whole * 1000 + rest * [100, 10, 1][parts[1].utf8.count - 1]",
            why: "made of at most 12 and 3 digits, in the lines before"),
    ]

    @Test func decodedIntegersAreNotAddedOrMultipliedUnchecked() {
        var found: [(String, Int, String)] = []
        for file in SourceFile.sources { for line in Self.uncheckedSums(file) { found.append((file.path, line, file.trimmed(line))) } }
        Self.expectReviewed(
            found, Self.reviewedSums,
            "addingClamped, multipliedClamped or a check of the range before: a decoded number near the end of its type ends the process here"
        )
    }

    // MARK: numbers read digit by digit

    /// `value = value * 10 + digit`, `value *= 10`: a number that grows with each digit of a text, and traps where the text is too long. Names
    /// that are a floating-point value, which cannot trap, are left out; so is another loop's counter.
    static func growingNumbers(_ file: SourceFile, _ floating: Set<String>) -> [Int] {
        var places: Set<Int> = []
        for (index, token) in file.tokens.enumerated() where token.kind == .word && !floating.contains(token.text) {
            if file.isSign(index + 1, "="), file.isWord(index + 2, token.text), file.isSign(index + 3, "*"), file.tokens[index + 3].isSpaced
            {
                places.insert(token.line)
            }
            if file.isSign(index + 1, "*"), file.isSign(index + 2, "="), !file.tokens[index + 2].isSpaced,
                file.tokens[index + 3].kind == .number
            {
                places.insert(token.line)
            }
        }
        return places.sorted()
    }

    static let reviewedGrowth: [Reviewed] = [
        Reviewed(
            path: "Sources/Core/Basics/CalendarTime.swift", line: "value = value * 10 + Int64(digit)",
            why: "asked for two or four digits at a time"),
        Reviewed(
            path: "Sources/Core/Basics/CalendarTime.swift",
            line: "if digits < 3 { milliseconds = milliseconds * 10 + Int64(text[at] &- 48) }", why: "three digits, said in the line itself"
        ),
        Reviewed(
            path: "Sources/Core/Basics/CalendarTime.swift", line: "for _ in digits..<max(digits, 3) { milliseconds *= 10 }",
            why: "three digits at most together with those that were read"),
        Reviewed(
            path: "Sources/Wire/HTTP/HeadParser.swift", line: "status = status * 10 + Int(digit)",
            why: "three digits, by the loop around it"),
        Reviewed(
            path: "Sources/Wire/HTTP/HeadParser.swift", line: "value = value * 10 + Int(digit)",
            why: "at most 18 digits, three lines before the loop"),
        Reviewed(
            path: "Sources/Wire/Redis/RedisCommand.swift", line: "length = length * 10 + Int(bytes[at] - 48)",
            why: "the length of an argument that this type wrote itself"),
    ]

    @Test func numbersThatAreReadDigitByDigitAreBounded() {
        let everywhere = Self.floatingNames(SourceFile.sources)
        var found: [(String, Int, String)] = []
        for file in SourceFile.sources {
            let names = everywhere.union(Self.floatingNames([file]))
            for line in Self.growingNumbers(file, names) { found.append((file.path, line, file.trimmed(line))) }
        }
        Self.expectReviewed(
            found, Self.reviewedGrowth,
            "multipliedReportingOverflow, or &* behind a bound of the digits: a text with more digits than the type holds ends the process here"
        )
    }

    // MARK: the rules themselves

    static func expectReviewed(_ found: [(path: String, line: Int, text: String)], _ reviewed: [Reviewed], _ cure: String) {
        for (path, line, text) in found where !reviewed.contains(where: { $0.path == path && $0.line == text }) {
            Issue.record("\(path):\(line): \(text)\n  take \(cure)")
        }
        for one in reviewed {
            #expect(!one.why.isEmpty)
            #expect(
                found.contains { $0.path == one.path && $0.text == one.line },
                "\(one.path): this place is gone; take it off the list: \(one.line)")
        }
    }

    private func conversions(_ text: String) -> [Int] {
        let file = SourceFile(path: "", text: text)
        return Self.uncheckedConversions(file, Self.floatingNames([file]))
    }

    @Test func theRuleFindsWhatItShould() {
        #expect(conversions("let a = Int(x.rounded())\nlet b = Int(clamped: x.rounded())\nlet c = Int(exactly: 1.5)") == [1])
        #expect(conversions("func f(value: Double) -> Int {\n  UInt8(value)\n}") == [2])
        #expect(conversions("let share: Double = 1\nlet n = Int64(\n  share * 3)") == [2])
        #expect(conversions("let ratio = Double(a) / 3\nlet n = Int32(ratio)") == [2])
        #expect(conversions("func rate() -> Double { 1 }\nlet n = Int(rate())") == [2])
        #expect(conversions("let n = \"\\(Int(x * 1e9))\"") == [1])
        #expect(conversions("// Int(x.rounded())\nlet n = \"Int(1.5)\"") == [])
        #expect(conversions("let n = Int(count)\nlet m = Int(text.prefix(3)) ?? 0") == [])
    }

    @Test func theThirdRuleFindsWhatItShould() {
        func growth(_ text: String) -> [Int] {
            let file = SourceFile(path: "", text: text)
            return Self.growingNumbers(file, Self.floatingNames([file]))
        }
        #expect(growth("digits = digits * 10 &+ UInt64(byte)") == [1] && growth("var n = 0\nn *= 10") == [2])
        #expect(growth("n = n * base + 1") == [1] && growth("n = m * 10") == [] && growth("n = n &* 10 &+ 1") == [])
        #expect(growth("var scale = 1.0\nscale *= 10") == [] && growth("// n *= 10\nlet t = \"n = n * 10\"") == [])
    }

    @Test func theSecondRuleFindsWhatItShould() {
        func sums(_ line: String) -> [Int] {
            Self.uncheckedSums(SourceFile(path: "", text: "func f() {\n  let n = entry[\"n\"]?.int ?? 0\n  \(line)\n}"))
        }
        #expect(sums("total += n") == [3] && sums("let m = n * 1000") == [3] && sums("let m = 5 - n") == [3])
        #expect(sums("total.addClamped(n)") == [] && sums("let m = a &+ n") == [] && sums("f(-n)") == [])
        #expect(Self.uncheckedSums(SourceFile(path: "", text: "let a = (x[\"a\"]?.int ?? 0) + 1")) == [1])
        #expect(Self.uncheckedSums(SourceFile(path: "", text: "func f() {\n  guard let n = Int(text) else { return }\n  x *= n\n}")) == [3])
        #expect(Self.uncheckedSums(SourceFile(path: "", text: "func f() {\n  let n = try integer(line)\n  g(n * 2)\n}")) == [3])
    }
}

extension SourceFile {
    func trimmed(_ line: Int) -> String { String(lines[line - 1].drop { $0 == " " }) }

    /// The first token of the next line that does not go on with an operator.
    static func endOfLine(_ file: SourceFile, from start: Int) -> Int {
        var index = start
        while index < file.tokens.count {
            if index > start, file.tokens[index].line > file.tokens[index - 1].line,
                !["+", "-", "*", "/", "?", ":", "."].contains(file.tokens[index].text)
            {
                break
            }
            if ["(", "[", "{"].contains(file.tokens[index].text), file.tokens[index].kind == .sign, let close = file.closing(index) {
                index = close
            } else if [",", ")", "]", "}", ";"].contains(file.tokens[index].text), file.tokens[index].kind == .sign {
                break
            }
            index += 1
        }
        return index
    }
}
