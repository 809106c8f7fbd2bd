import Basics
import StackFile
import StackModel
import TestSupport
import Testing

/// What `muster init` makes of files that others have: a compose file or a Procfile, and the stack file that becomes of it, in which what
/// could not be taken over stands as comments. `UPDATE_GOLDEN=1` writes the latter anew.
@Suite struct TakeoverTests {
    static let folder = Files.folder(of: #filePath) + "/Takeover"
    static let compose = Files.list(folder).filter { $0.contains(".compose.") && !$0.hasSuffix(".expected") }
    /// Whatever is named is there, and empty.
    static let files = StackFiles(read: { _, _ in .bytes([]) }, flaw: { _ in nil })
    static let procfiles = Files.list(folder).filter { $0.hasSuffix(".Procfile") }

    @Test func thereAreFiles() { #expect(Self.compose.count >= 3 && Self.procfiles.count >= 1) }

    @Test(arguments: compose) func aComposeFileIsTakenOver(name: String) throws {
        let draft = try StackDraft.compose(try Files.read("\(Self.folder)/\(name)"), file: name) { path in
            #expect(["./Dockerfile", "./web/Dockerfile", ".env", "more.env"].contains(path))
            if path == ".env" { return [] }
            return path == "./web/Dockerfile" ? try? Files.read("\(Self.folder)/counter.Dockerfile") : nil
        }
        try GoldenTests().compare("\(Self.folder)/\(name).expected", draft.text)
        #expect(throws: Never.self) { try Stack.read(Array(draft.text.utf8), path: "muster.yaml", files: Self.files) { _ in "x" } }
    }

    @Test(arguments: procfiles) func aProcfileIsTakenOver(name: String) throws {
        let draft = try StackDraft.procfile(try Files.read("\(Self.folder)/\(name)"), file: name)
        try GoldenTests().compare("\(Self.folder)/\(name).expected", draft.text)
        #expect(throws: Never.self) { try Stack.read(Array(draft.text.utf8), path: "muster.yaml") }
    }

    /// A command is taken as it is, whatever it has.
    @Test func aCommandOfStrangeWords() throws {
        let words = [
            "run me", "--text=a: b # c", "", "\"quoted\"", "back\\slash", "line\nbreak\tand tab", "null", "~", "é\u{85}\u{2028}\u{feff}",
            "-", "[x",
        ]
        let stack = try Stack.read(Array(StackDraft.command(words).text.utf8), path: "muster.yaml")
        #expect(stack.services.map { $0.process.command.words { _ in nil } } == [words])
    }

    @Test(
        arguments: [
            ("web python3 app.py", "expected NAME: COMMAND"), ("web:", "has no command"), ("a b: c", "is no name"),
            ("web: it's", "not closed"),
            ("web: a\nweb: b", "or there are two"), ((0..<600).map { "w\($0): a" }.joined(separator: "\n"), "more than 500"),
        ]) func aWrongProcfileIsTold(text: String, words: String) throws
    {
        let problems = #expect(throws: Problems.self) { try StackDraft.procfile(Array(text.utf8), file: "Procfile") }
        #expect(problems?.description.contains(words) == true && problems?.description.hasPrefix("Procfile:") == true)
    }

    @Test(
        arguments: [
            ("", "empty"), ("- a", "expected a compose file"), ("version: 1", "no services"), ("services: [a]", "no services"),
            ("services: { a: !reset null }", "tag"), ("services:\n" + (0..<600).map { "  s\($0): {}\n" }.joined(), "more than 500"),
            (
                "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nd: &d [*c, *c, *c, *c]\ne: &e [*d, *d, *d, *d]\nf: &f [*e, *e, *e, *e]\ng: &g [*f, *f, *f, *f]\nh: &h [*g, *g, *g, *g]\ni: [*h, *h, *h, *h]",
                "too large"
            ),
        ]) func aWrongComposeFileIsTold(text: String, words: String) throws
    {
        let problems = #expect(throws: Problems.self) { try StackDraft.compose(Array(text.utf8), file: "compose.yaml") { _ in nil } }
        #expect(problems?.description.contains(words) == true)
    }

    /// Whatever stands in the file: nothing traps, and what is made of it is a stack that the reader takes.
    @Test func mutationsAreTakenOverOrRefused() throws {
        func check(_ bytes: [UInt8]) -> String? {
            let made = [try? StackDraft.compose(bytes, file: "f", read: { _ in bytes }), try? StackDraft.procfile(bytes, file: "f")]
            for case let draft? in made where !draft.isEmpty {
                do throws(Problems) {
                    _ = try Stack.read(Array(draft.text.utf8), path: "muster.yaml", files: Self.files) { _ in "x" }
                } catch {
                    return "\(error)\n\(draft.text)"
                }
            }
            return nil
        }
        let faults = try FuzzReplay.faults(in: Self.folder, mutations: 150, check)
        #expect(faults.isEmpty, "\(faults.first?.split(separator: "]: ", maxSplits: 1).last ?? "")")
    }

    /// Braces within braces cost neither time nor stack.
    @Test func deepVariables() throws {
        let deep = String(repeating: "${A:-", count: 200_000)
        let draft = try StackDraft.compose(Array("services: { a: { command: x, environment: { B: \"\(deep)\" } } }".utf8), file: "f") { _ in
            nil
        }
        #expect(throws: Never.self) { try Stack.read(Array(draft.text.utf8), path: "muster.yaml") }
    }
}
