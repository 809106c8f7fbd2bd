import Basics
import PostgresRouting
import TestSupport
import Testing

/// Which server a statement goes to, case by case: `MUSTER_PG_ROUTING_CASES` names a file of more.
@Suite struct PGRouting {
    static let file = Result {
        try RoutingCases(
            environmentValue("MUSTER_PG_ROUTING_CASES").flatMap { $0.isEmpty ? nil : $0 }
                ?? projectFolder + "/Tests/PolicyTests/Cases/pg-routing-cases.json")
    }
    static let cases = (try? file.get().cases) ?? []
    /// Ends with the last case's verdict.
    static let verdicts = Task { try await RoutingRun.verdicts(try file.get()) }

    @Test func thereAreCases() throws { #expect(try Self.file.get().cases.count > 0) }

    @Test(arguments: cases) func routes(_ item: RoutingCase) async throws {
        let verdict = try await Self.verdicts.value[item.place]
        #expect(item.accepts(verdict.target), "\(item.name): \(item.verdict) is expected. \(verdict.sentence)")
    }
}
