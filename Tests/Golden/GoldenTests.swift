import Basics
import Glibc
import LoadPlanning
import StackFile
import StackModel
import TestSupport
import Testing

/// Pairs of files, one situation each: a stack file and what is said of it. `UPDATE_GOLDEN=1 ./muster test --filter Golden` writes
/// the second ones anew; read the difference before committing it.
@Suite struct GoldenTests {
    static let folder = Files.folder(of: #filePath)
    static let wrong = Files.list(folder + "/Wrong").filter { $0.hasSuffix(".yaml") }

    @Test func thereArePairs() { #expect(Self.wrong.count >= 12) }

    @Test(arguments: wrong) func aWrongStackIsToldPrecisely(name: String) throws {
        let text = try Files.read("\(Self.folder)/Wrong/\(name)")
        let problems = #expect(throws: Problems.self) { try Stack.read(text, path: name) }
        try compare("\(Self.folder)/Wrong/\(name.dropLast(5)).expected", (problems?.description ?? "") + "\n")
    }

    // MARK: scenarios of muster load

    static let scenarios = Files.list(folder + "/Scenarios").filter { $0.hasSuffix(".yaml") }
    static let rendered = Files.list(folder + "/K6").filter { $0.hasSuffix(".yaml") }

    @Test func thereAreScenarios() { #expect(Self.scenarios.count >= 7 && Self.rendered.count >= 2) }

    @Test(arguments: scenarios) func aWrongScenarioIsToldPrecisely(name: String) throws {
        let text = try Files.read("\(Self.folder)/Scenarios/\(name)")
        let problems = #expect(throws: Problems.self) { try Scenario.read(text, path: name) }
        try compare("\(Self.folder)/Scenarios/\(name.dropLast(5)).expected", (problems?.description ?? "") + "\n")
    }

    @Test(arguments: rendered) func aScenarioForK6(name: String) throws {
        let scenario = try Scenario.read(try Files.read("\(Self.folder)/K6/\(name)"), path: name)
        let target = try #require(scenario.target)
        try compare("\(Self.folder)/K6/\(name.dropLast(5)).js", scenario.k6Script(target: target))
    }

    @Test(arguments: ["normal.yaml", "peak.yaml", "scale.yaml", "stress.yaml"]) func ourOwnScenariosRead(name: String) throws {
        let folder = Files.folder(of: Files.folder(of: Self.folder)) + "/stacks/correlation/load"
        let scenario = try Scenario.read(try Files.read("\(folder)/\(name)"), path: name) { file throws(SystemError) in
            try Files.read("\(folder)/\(file)")
        }
        #expect(!scenario.expectations.isEmpty)
    }

    @Test func theSchemaIsWhatItWas() throws { try compare(Self.folder + "/schema.json.expected", stackJSONSchema() + "\n") }

    @Test func theReferenceIsWhatTheSchemaSays() throws { try compare(projectFolder + "/docs/reference/stack-file.md", stackReference()) }

    /// A default alone says what happens without the key, and not what the key is.
    @Test func everyKeyHasASentence() {
        let rows = stackReference().split(separator: "\n").filter { $0.hasPrefix("| `") && $0.hasSuffix("|") }
            .map { $0.split(separator: " | ", omittingEmptySubsequences: false) }.filter { $0.count == 4 }
        #expect(rows.count > 150)
        for row in rows { #expect(row[3].count > 5, "\(row[0])") }
    }

    /// The stacks that come with Muster are right.
    @Test(arguments: ["correlation.yaml"]) func ourOwnStacksRead(name: String) throws {
        let path = Files.folder(of: Files.folder(of: Self.folder)) + "/stacks/" + name
        #expect(throws: Never.self) { try Stack.read(try Files.read(path), path: path) }
    }

    func compare(_ file: String, _ text: String) throws {
        if environmentValue("UPDATE_GOLDEN") != nil { try Files.replace(file, with: Array(text.utf8)) }
        #expect(Files.text(file) == text)
    }
}
