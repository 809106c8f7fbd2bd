import Basics
import Testing

/// The house's rules, as far as a text can tell.
@Suite struct TidyTests {
    private static let root = Files.folder(of: Files.folder(of: Files.folder(of: #filePath)))

    private static func swiftFiles(_ folder: String) -> [String] {
        Files.list("\(root)/\(folder)").flatMap { name -> [String] in
            let path = "\(folder)/\(name)"
            return name.hasSuffix(".swift") ? [path] : Files.list("\(root)/\(path)").isEmpty ? [] : swiftFiles(path)
        }
    }

    private static func lines(_ path: String) -> [Substring] {
        (Files.text("\(root)/\(path)") ?? "").split(separator: "\n", omittingEmptySubsequences: false)
    }

    private static let sources = swiftFiles("Sources")
    private static let tests = swiftFiles("Tests")

    @Test func thereIsSomethingToLookAt() { #expect(Self.sources.count > 80 && Self.tests.count > 15) }

    @Test func filesHaveAtMost600Lines() {
        for path in Self.sources + Self.tests { #expect(Self.lines(path).count <= 600, "\(path)") }
    }

    /// From the line with `func` or `init` to the closing brace at the same indentation.
    @Test func functionsHaveAtMost70Lines() {
        for path in Self.sources {
            var start: (line: Int, indent: Int)?
            for (i, line) in Self.lines(path).enumerated() {
                let indent = line.prefix { $0 == " " }.count
                let text = line.dropFirst(indent)
                let begins = text.range(ofWord: "func") || text.hasPrefix("init(") || text.hasPrefix("public init(")
                if start == nil, begins, text.hasSuffix("{") { start = (i, indent) }
                if let open = start, indent == open.indent, text.hasPrefix("}") {
                    #expect(i - open.line <= 70, "\(path):\(open.line + 1)")
                    start = nil
                }
            }
        }
    }

    /// Each floor may use those below it; the rooms of Wire meet only in EventLoops.
    @Test func importsRunDownward() {
        let floors = ["Core", "Policy", "Wire", "Runtime", "Services", "Tools"]
        var floorOf: [String: Int] = ["CLinux": -1, "CYAML": -1, "COpenSSL": -1, "CSimdJSON": -1, "CPCRE2": -1]
        for (i, floor) in floors.enumerated() { for room in Files.list("\(Self.root)/Sources/\(floor)") { floorOf[room] = i } }
        for path in Self.sources where !path.hasPrefix("Sources/System") {
            let parts = path.split(separator: "/")
            let floor = floors.firstIndex(of: String(parts[1]))!, room = String(parts[2])
            for line in Self.lines(path) where line.hasPrefix("import ") {
                let module = String(line.dropFirst(7))
                if let other = floorOf[module] { #expect(other <= floor, "\(path): \(line)") }
                if floors[floor] == "Policy" { #expect(module != "Glibc" && module != "Foundation", "\(path): policy is pure") }
                if floors[floor] == "Wire", floorOf[module] == floor {
                    #expect(module == "EventLoops" && room != "EventLoops", "\(path): \(line)")
                }
                #expect(module != "Foundation", "\(path): Foundation is not linked")
            }
        }
    }

    /// A Task that nobody owns outlives its reason. Each one here says in a comment right before it when it ends.
    @Test func everyTaskSaysWhenItEnds() {
        for path in Self.sources {
            let lines = Self.lines(path)
            for (i, line) in lines.enumerated()
            where line.contains("Task(executorPreference") || line.contains("Task {") || line.contains("Task.detached") {
                // A task of a group ends with its group.
                if line.contains(".addTask") { continue }
                let before = lines[max(0, i - 2)..<i].contains { $0.contains("//") }
                #expect(before, "\(path):\(i + 1)")
            }
        }
    }

    /// Few, and each with its guard named where it stands.
    @Test func uncheckedSendableIsRareAndExplained() {
        var count = 0
        for path in Self.sources {
            let lines = Self.lines(path)
            for (i, line) in lines.enumerated() where line.contains("@unchecked Sendable") && !line.contains("//") {
                count += 1
                #expect(lines[i...min(i + 1, lines.count - 1)].contains { $0.contains("// @unchecked:") }, "\(path):\(i + 1)")
            }
        }
        #expect(count <= 4)
    }

    @Test func nothingIsLeftOpen() {
        for path in Self.sources {
            for (i, line) in Self.lines(path).enumerated() {
                for word in ["TO" + "DO", "FIX" + "ME", "print(\""] { #expect(!line.contains(word), "\(path):\(i + 1)") }
            }
        }
    }

    @Test func namesSayWhatThingsAre() {
        for path in Self.sources {
            for (i, line) in Self.lines(path).enumerated() {
                for kind in ["class ", "struct ", "enum ", "actor ", "protocol "] {
                    guard let at = line.range(after: kind) else { continue }
                    let name = at.prefix { $0.isLetter || $0.isNumber }
                    for ending in ["Manager", "Helper", "Utils", "Impl"] { #expect(!name.hasSuffix(ending), "\(path):\(i + 1)") }
                }
            }
        }
    }
}

extension Substring {
    fileprivate func range(ofWord word: String) -> Bool { split(separator: " ").contains { $0 == word } }
    fileprivate func range(after word: String) -> Substring? {
        hasPrefix(word) ? dropFirst(word.count) : nil
    }
}
