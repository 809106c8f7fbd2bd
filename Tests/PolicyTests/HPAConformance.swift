import Basics
import Glibc
import TestSupport
import Testing

/// What Kubernetes decides, we decide: each case of a folder, by its name. `MUSTER_HPA_CASES` names another folder than our own copy;
/// `Cases/hpa/README.md` tells the form.
@Suite struct HPAConformance {
    struct Case: Sendable, CustomTestStringConvertible {
        let name: String
        let text: [UInt8]
        var testDescription: String { name }
    }

    static let folder = environmentValue("MUSTER_HPA_CASES") ?? Files.folder(of: #filePath) + "/Cases/hpa"
    static let cases: [Case] = Files.list(folder).sorted().flatMap { file -> [Case] in
        let bytes = (try? Files.read("\(folder)/\(file)")) ?? []
        if file.hasSuffix(".json") { return [Case(name: String(file.dropLast(5)), text: bytes)] }
        guard file.hasSuffix(".jsonl") else { return [] }
        return bytes.split(separator: 10).enumerated().map { index, line in
            let text = Array(line)
            return Case(name: (try? JSONValue.parse(text))?["name"].string ?? "\(file):\(index + 1)", text: text)
        }
    }

    @Test func thereAreCases() { #expect(!Self.cases.isEmpty, "no cases in \(Self.folder)") }

    @Test(arguments: cases) func agrees(_ one: Case) throws {
        let value = try JSONValue.parse(one.text)
        let kind = value["kind"].string ?? "none"
        let answer = try #require(HPACase.answer(kind, value["input"]), "'\(kind)' is no kind of case that is known here")
        let expected = value["expect"]
        #expect(!expected.members.isEmpty)
        for (key, wanted) in expected.members {
            guard let given = answer[key] else {
                Issue.record("'\(key)' is not answered here")
                continue
            }
            #expect(wanted.isContained(in: given), "\(key): expected \(wanted), got \(given)")
        }
    }
}
