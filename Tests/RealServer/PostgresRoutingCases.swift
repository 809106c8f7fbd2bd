import Basics
import PostgresRouting
import TestSupport
import Testing

/// The project's own cases of routing: the same form and the same fixture, for every kind of node, function, transaction, pin and hint.
@Suite struct PostgresRoutingCases {
    static let file = Result { try RoutingCases(projectFolder + "/Tests/PolicyTests/Cases/pg-routing-own-cases.json") }
    static let cases = (try? file.get().cases) ?? []
    /// Ends with the last case's verdict.
    static let verdicts = Task { try await RoutingRun.verdicts(try file.get()) }

    @Test func thereAreCases() throws { #expect(try Self.file.get().cases.count > 600) }

    @Test(arguments: cases) func routes(_ item: RoutingCase) async throws {
        let verdict = try await Self.verdicts.value[item.place]
        #expect(item.accepts(verdict.target), "\(item.name): \(item.verdict) is expected. \(verdict.sentence)")
    }
}
