import Basics
import TestSupport
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

    /// From the line with `func`, `init` or `subscript` to the line of the closing brace, nested ones too.
    @Test func functionsHaveAtMost70Lines() {
        var count = 0
        for file in SourceFile.sources {
            for function in file.functions {
                guard let body = function.body else { continue }
                count += 1
                let first = file.tokens[function.start].line
                #expect(file.tokens[body.upperBound].line - first <= 70, "\(file.path):\(first) \(function.name)")
            }
        }
        #expect(count > 2500)
    }

    /// Whatever stands before it: `public struct`, `final class`, `private enum` inside another type.
    @Test func namesSayWhatThingsAre() {
        var count = 0
        for file in SourceFile.sources {
            for kind in file.kinds {
                count += 1
                for ending in ["Manager", "Helper", "Utils", "Impl"] { #expect(!kind.name.hasSuffix(ending), "\(file.path):\(kind.line)") }
            }
        }
        #expect(count > 800)
    }

    /// Characters, not bytes. Tables, lines with a link and what stands between fences are as long as they must be.
    @Test func linesOfMarkdownHaveAtMost140Columns() {
        let paths = SourceFile.paths("docs", ".md") + ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]
        #expect(paths.count > 40)
        for path in paths {
            var isFenced = false
            for (i, line) in Self.lines(path).enumerated() {
                let text = line.drop { $0 == " " }
                if text.hasPrefix("```") { isFenced.toggle() }
                if isFenced || text.hasPrefix("|") || text.contains("](") || text.contains("://") { continue }
                #expect(line.count <= 140, "\(path):\(i + 1) has \(line.count) columns")
            }
        }
    }

    /// The rules above see what they are about.
    @Test func sourcesAreTakenApartAsTheyAre() {
        let text =
            "final class A { struct B {}\n  func f(\n    x: Int = { 1 }()\n  ) async -> [Int] where T: P { \"}\\(g(\"{\"))\" }\n"
            + "  init?() { }\n}\nprotocol P { func h() -> Int; init(x: Int) }\nlet s = #\"{ \"# // {\n/* { */ func k() {\n}"
        let file = SourceFile(path: "", text: text)
        #expect(file.kinds.map(\.name) == ["A", "B", "P"])
        #expect(file.functions.map(\.name) == ["f", "init", "h", "init", "k"])
        #expect(file.functions.map { $0.body.map { file.tokens[$0.upperBound].line } } == [4, 5, nil, nil, 10])
    }

    /// The picture of the house shows every floor and every room.
    @Test func thePictureShowsEveryRoom() throws {
        let picture = String(decoding: try Files.read("\(Self.root)/docs/pictures/house.svg"), as: UTF8.self)
        let floors = try Files.entries("\(Self.root)/Sources")
        #expect(floors.count == 7)
        for floor in floors {
            #expect(picture.contains(">\(floor)</text>"), "the floor \(floor)")
            for room in try Files.entries("\(Self.root)/Sources/\(floor)") {
                let isShown =
                    picture.contains(">\(room)</text>") || picture.contains(">\(room)/</text>") || picture.contains("\(room), ")
                    || picture.contains(", \(room)</text>")
                #expect(isShown, "the room \(floor)/\(room)")
            }
        }
    }

    /// A source file or a folder of the house that ARCHITECTURE.md names is there.
    @Test func whatTheArchitectureNamesIsThere() throws {
        let text = String(decoding: try Files.read("\(Self.root)/ARCHITECTURE.md"), as: UTF8.self)
        let files = Self.sources + Self.tests, folders = Set(files.map { Files.folder(of: $0) })
        var named = 0
        for name in text.split(separator: "`") where !name.contains(" ") {
            let isFolder = name.hasSuffix("/") && name.first?.isUppercase == true && name != "Sources/"
            // Folders of the floor System hold no Swift.
            guard name.hasSuffix(".swift") || isFolder, !name.contains("*"), !name.hasPrefix("System/") else { continue }
            named += 1
            let isThere =
                isFolder
                ? folders.contains { "\($0)/".contains("/\(name)") } : files.contains { "/\($0)".hasSuffix("/\(name)") }
            #expect(isThere, "ARCHITECTURE.md names \(name)")
        }
        #expect(named > 50)
    }

    /// Each floor may use those below it; the rooms of Wire meet only in EventLoops, but for HTTP/2, which fills HTTP's table of a head.
    @Test func importsRunDownward() {
        let floors = ["Core", "Policy", "Wire", "Runtime", "Services", "Tools"]
        var floorOf: [String: Int] = [
            "CLinux": -1, "CYAML": -1, "COpenSSL": -1, "CTLS": -1, "CSimdJSON": -1, "CPCRE2": -1, "CNGHTTP2": -1,
            "CPGQuery": -1, "CAdminPage": -1,
        ]
        for (i, floor) in floors.enumerated() { for room in Files.list("\(Self.root)/Sources/\(floor)") { floorOf[room] = i } }
        // A room for each kind of store, and one for what they have in common.
        for room in ["StoreKinds", "RedisStores", "MemcachedStores", "PostgresStores"] { floorOf[room] = floors.firstIndex(of: "Runtime") }
        for path in Self.sources where !path.hasPrefix("Sources/System") {
            let parts = path.split(separator: "/")
            let floor = floors.firstIndex(of: String(parts[1]))!, room = String(parts[2])
            for line in Self.lines(path) where line.hasPrefix("import ") {
                let module = String(line.dropFirst(7))
                if let other = floorOf[module] { #expect(other <= floor, "\(path): \(line)") }
                if floors[floor] == "Policy" { #expect(module != "Glibc" && module != "Foundation", "\(path): policy is pure") }
                if floors[floor] == "Wire", floorOf[module] == floor {
                    let isKnown = room == "HTTP2" ? module == "HTTP" : module == "EventLoops"
                    #expect(isKnown && room != "EventLoops", "\(path): \(line)")
                }
                #expect(module != "Foundation", "\(path): Foundation is not linked")
            }
        }
    }

    /// What is decided is told in words and figures; how that looks is for Drawing, which knows nothing of what it draws. The page's HTML,
    /// CSS and JavaScript are files, and no text in Swift.
    @Test func picturesAreDrawnInTheirOwnRoom() {
        for path in Self.sources {
            let text = Files.text("\(Self.root)/\(path)") ?? ""
            if path.hasPrefix("Sources/Core/Drawing/") {
                for line in Self.lines(path) where line.hasPrefix("import ") { #expect(line == "import Basics", "\(path): \(line)") }
                continue
            }
            for markup in ["<svg", "<table", "<html", "<style", "<script", "█", "░"] {
                #expect(!text.contains(markup), "\(path): \(markup)")
            }
        }
        #expect(Self.sources.contains { $0.hasPrefix("Sources/Core/Drawing/") })
    }

    /// The kinds of store stand in the folders of `Runtime/Stores`, and Supervision knows only what they have in common: a new kind is added
    /// without a change there.
    @Test func supervisionKnowsNoKindOfStore() {
        let kinds = ["redis", "memcached", "postgres", "kafka", "influx", "sentinel"]
        let own = Self.swiftFiles("Sources/Runtime/Supervision") + Self.swiftFiles("Sources/Runtime/Stores/StoreKinds")
        #expect(own.count > 25)
        for path in own {
            for (i, line) in Self.lines(path).enumerated() {
                let text = line.lowercased()
                for kind in kinds {
                    #expect(!text.contains(kind), "\(path):\(i + 1) names \(kind): that belongs into Sources/Runtime/Stores")
                }
            }
        }
        // Nor do kinds know each other, or the supervisor.
        for path in Self.swiftFiles("Sources/Runtime/Stores") {
            let rooms = ["Supervision", "Gateway"] + ["RedisStores", "MemcachedStores", "PostgresStores"]
            for line in Self.lines(path) where line.hasPrefix("import ") {
                #expect(!rooms.contains(String(line.dropFirst(7))), "\(path): \(line)")
            }
        }
    }

    /// A Task that nobody owns outlives its reason. Each one here says in a comment right before it when it ends.
    @Test func everyTaskSaysWhenItEnds() {
        for path in Self.sources {
            let lines = Self.lines(path)
            for (i, line) in lines.enumerated()
            where line.contains("Task(executorPreference") || line.contains(" Task {") || line.contains("(Task {")
                || line.contains("Task.detached")
            {
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
}
