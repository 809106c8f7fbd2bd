import TestSupport
import Testing

/// One PostgreSQL for all tests of a suite, because making one costs more than most tests: `@Suite(.postgres())`, and `PostgresSuite.server`.
/// A test that stops its server makes one of its own (`withPostgres`).
struct PostgresSuite: SuiteTrait, TestScoping {
    let settings: [String]
    let access: [String]

    @TaskLocal private static var current: PostgresServer?

    static var server: PostgresServer { get throws { try #require(current) } }

    func scopeProvider(for test: Test, testCase: Test.Case?) -> Self? { test.isSuite ? self : nil }

    func provideScope(
        for test: Test, testCase: Test.Case?, performing body: @Sendable () async throws -> Void
    ) async throws {
        try await withPostgres(settings: settings, access: access) { server in
            try await PostgresSuite.$current.withValue(server) { try await body() }
        }
    }
}

extension Trait where Self == PostgresSuite {
    static func postgres(settings: [String] = [], access: [String] = []) -> PostgresSuite {
        PostgresSuite(settings: settings, access: access)
    }
}
