import TestSupport
import Testing

@testable import StackFile
@testable import StackModel

/// The fuzz target's properties over its committed corpus and seeded mutations of it, and files as large as they may be.
@Suite struct StackFuzzReplayTests {
    @Test func corpusAndMutations() throws {
        #expect(try FuzzReplay.corpus("stack").count >= 20)
        #expect(try FuzzReplay.faults("stack", mutations: 25, checkStack) == [])
    }

    /// Each of them took minutes, or gigabytes.
    @Test(
        arguments: [
            "a: &a \"" + String(repeating: "x", count: 900_000) + "\"\nb: [" + String(repeating: "*a,", count: 19_000) + "]",
            "a: [" + (0..<90_000).map { "&a\($0) x" }.joined(separator: ",") + "]",
            String(repeating: "[", count: 500_000),
            String(repeating: "- ", count: 400_000),
        ]) func bombsAreRefused(text: String) throws
    {
        let problems = #expect(throws: Problems.self) { try Stack.read(Array(text.utf8), path: "s.yaml") }
        #expect(problems?.list.first?.message.hasPrefix("too large or too deep") == true)
    }

    /// A line of a megabyte is compared with no word.
    @Test func longWordsAreNoNearMiss() {
        let word = String(repeating: "k", count: 1_000_000)
        #expect(throws: Problems.self) { try Stack.read(Array((word + ": 1").utf8), path: "s.yaml") }
        let text = "gateway: { listen: 80, routes: { path: /, backends: \"a:1\", balance: \(word) } }"
        #expect(throws: Problems.self) { try Stack.read(Array(text.utf8), path: "s.yaml") }
    }

    @Test func thousandsOfUnknownNamesAreToldSoon() {
        let stores = (0..<1500).map { "  s\($0): { redis: { role: cache } }\n" }.joined()
        let text = "stores:\n\(stores)services: { a: { command: b, uses: [\(String(repeating: "zzz,", count: 3000))] } }"
        let problems = #expect(throws: Problems.self) { try Stack.read(Array(text.utf8), path: "s.yaml") }
        #expect(problems?.list.count == 3000)
    }

    @Test func bytesThatAreNoTextHaveAPlace() {
        let problems = #expect(throws: Problems.self) { try Stack.read(Array("stack: a\nservices: ".utf8) + [255], path: "s.yaml") }
        #expect(problems?.list.map(\.line) == [2] && problems?.list.map(\.column) == [11])
    }
}
