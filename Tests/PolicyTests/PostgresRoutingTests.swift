import Basics
import PostgresRouting
import TestSupport
import Testing

/// Which server a text goes to, as far as it needs no PostgreSQL: what is unreadable, deep, long or hostile, and what is kept of texts. The
/// rules themselves are held against cases and a real server in RealServer (`PGRouting`, `PostgresRoutingCases`, `PostgresRoutingTruth`).
@Suite struct PostgresRoutingTests {
    static let catalog = RoutingCatalog(
        functions: [
            .init(QualifiedName("pg_catalog", "abs"), .immutable), .init(QualifiedName("pg_catalog", "now"), .stable),
            .init(QualifiedName("app", "report"), .stable), .init(QualifiedName("app", "report"), .volatile),
            .init(QualifiedName("public", "touch"), .volatile),
        ],
        relations: [
            .init(QualifiedName("public", "accounts"), .table), .init(QualifiedName("public", "scratch"), .table, isUnlogged: true),
            .init(QualifiedName("public", "v"), .view, definition: "SELECT k FROM public.scratch"),
            .init(QualifiedName("public", "broken"), .view, definition: "SELECT FROM WHERE"),
            .init(QualifiedName("public", "loop"), .view, definition: "SELECT * FROM public.loop"),
        ])

    private func target(_ text: String, _ catalog: RoutingCatalog = catalog) -> RouteVerdict.Target {
        var cache = VerdictCache(), session = RoutingSession(user: "app")
        return session.route(text, catalog, &cache).target
    }

    // MARK: hostile texts

    @Test func deepTextsEndNothing() {
        // The parser refuses what nests deeper than its stack, and gives the rest: none of it may end the process.
        for count in [1000, 20_000, 40_000] {
            let sum = "SELECT " + String(repeating: "1+", count: count) + "1"
            #expect(target(sum) == (sum.utf8.count > 65_536 ? .pinned : .replica), "\(count)")
        }
        for piece in [
            "(", "abs(", "ARRAY[", "(SELECT ", "NOT ", "-", "CASE WHEN true THEN ", "(SELECT 1 UNION ", "[", "{", "$$", "/*", "'", "\"",
        ] {
            for count in [1000, 65_536 / piece.utf8.count - 10] {
                let verdict = target("SELECT " + String(repeating: piece, count: count))
                #expect(verdict == .primary || verdict == .replica, "\(piece) \(count)")
            }
        }
        let unions = String(repeating: "SELECT 1 UNION ", count: 4300) + "SELECT 1"
        #expect(target(unions) == .replica)
        let casts = "SELECT 1" + String(repeating: "::int", count: 4000)
        #expect(target(casts) == .replica)
        let joins = "SELECT 1 FROM accounts" + String(repeating: " NATURAL JOIN accounts", count: 2900)
        #expect(target(joins) == .replica)
    }

    @Test func deepTextsAreWalkedToTheirEnd() {
        #expect(target("SELECT " + String(repeating: "1+", count: 8000) + "touch(1)") == .primary)
        #expect(target("SELECT touch(1)" + String(repeating: "+1", count: 8000)) == .primary)
        #expect(target(String(repeating: "SELECT 1 UNION ", count: 4000) + "SELECT k FROM scratch") == .primary)
    }

    @Test func theLongestTextIsReadAndALongerOneIsNot() {
        let read = "SELECT '" + String(repeating: "x", count: TextProfile.longest - 9) + "'"
        #expect(read.utf8.count == TextProfile.longest && target(read) == .replica)
        #expect(target(read + " ") == .pinned)
        #expect(target("/* muster:replica */" + read) == .refused)
    }

    @Test func bytesThatAreNoTextGoToThePrimary() {
        var cache = VerdictCache(), session = RoutingSession(user: "app")
        for bytes: [UInt8] in [
            [0], Array("SELECT 1\0; DELETE FROM accounts".utf8), [255, 254, 253],
            Array("SELECT '".utf8) + [0xC3] + Array("'; TRUNCATE accounts".utf8),
            Array("SELECT 1 /* ".utf8) + [0xF0, 0x9F], Array(repeating: 0, count: 1000),
        ] {
            let verdict = bytes.withUnsafeBytes { session.route($0, Self.catalog, &cache) }
            #expect(verdict.target == .primary, "\(bytes.prefix(20))")
        }
    }

    /// Changed texts: the same verdict twice, no statement of the unchanged text lost, and an asked-for primary never turns into a replica.
    @Test func mutatedTextsKeepTheRules() throws {
        let faults = try FuzzReplay.faults("sql", mutations: 60) { bytes in
            func route(_ bytes: [UInt8]) -> RouteVerdict {
                var cache = VerdictCache(entries: 2), session = RoutingSession(user: "app")
                let first = bytes.withUnsafeBytes { session.route($0, Self.catalog, &cache) }
                session.answered(.success)
                _ = bytes.withUnsafeBytes { session.route($0, Self.catalog, &cache) }
                session.answered(TextOutcome(completed: 0, transaction: .idle))
                return first
            }
            let first = route(bytes), again = route(bytes)
            if first.target != again.target || first.rule != again.rule { return "two verdicts: \(first.target), \(again.target)" }
            if first.sentence.isEmpty { return "no reason" }
            let asked = route(Array("/* muster:primary */ ".utf8) + bytes)
            if asked.target == .replica, !bytes.starts(with: "/* muster".utf8) { return "a replica, though the primary was asked for" }
            // Another statement in the same text may only move it toward the primary.
            let longer = route(bytes + Array("\n; DELETE FROM accounts".utf8))
            let asksForReplica = String(decoding: bytes, as: UTF8.self).contains("muster:replica")
            if longer.target == .replica || longer.target == .either, !asksForReplica, !bytes.contains(UInt8(ascii: "-")) {
                return "a write went to \(longer.target)"
            }
            return nil
        }
        #expect(faults == [])
    }

    // MARK: views and names

    @Test func viewsThatCannotBeReadGoToThePrimary() {
        #expect(target("SELECT * FROM v") == .primary && target("SELECT * FROM broken") == .primary)
        #expect(target("SELECT * FROM loop") == .replica, "a view is looked at once")
        #expect(target("SELECT * FROM accounts, unheard_of") == .replica)
    }

    @Test func allOverloadsOfANameCount() { #expect(target("SELECT app.report(1)") == .primary) }

    @Test func withoutACatalogEveryFunctionIsUnknown() {
        #expect(target("SELECT 1", .unread) == .replica && target("SELECT now()", .unread) == .primary)
        #expect(target("SELECT * FROM pg_stat_activity", .unread) == .primary)
    }

    @Test func declarationsWinAndAreNamedLikeFunctions() {
        func declared(_ readOnly: [String], _ writes: [String]) -> RoutingCatalog {
            RoutingCatalog(
                functions: [.init(QualifiedName("public", "touch"), .volatile), .init(QualifiedName("pg_catalog", "now"), .stable)],
                relations: [], declared: DeclaredFunctions(readOnly: readOnly, writes: writes))
        }
        #expect(target("SELECT touch(1)", declared(["touch"], [])) == .replica)
        #expect(target("SELECT touch(1)", declared(["public.touch"], ["touch"])) == .primary)
        #expect(target("SELECT now()", declared([], ["now"])) == .primary)
        #expect(target("SELECT app.later(1)", declared(["app.later"], [])) == .replica)
    }

    // MARK: the catalog

    @Test func theSameCatalogKeepsItsNumber() {
        let rows: [[String?]] = [["public", "f", "v"], ["public", "f", "i"], ["app", "g", "x"], ["app"]]
        let first = CatalogReading.catalog(functions: rows, relations: [["public", "t", "r", "f", nil]], serials: [])
        let same = CatalogReading.catalog(functions: rows, relations: [["public", "t", "r", "f", nil]], serials: [], after: first)
        let other = CatalogReading.catalog(functions: rows, relations: [["public", "t", "r", "t", nil]], serials: [], after: same)
        #expect(first.number == same.number && other.number == same.number + 1)
        #expect(target("SELECT f()", first) == .primary, "the most volatile overload counts")
        #expect(target("SELECT app.g()", first) == .primary, "a row that is not understood is left out")
        #expect(target("SELECT * FROM t", other) == .primary && target("SELECT * FROM t", first) == .replica)
    }

    @Test func aSearchPathIsReadAsServersReportIt() {
        #expect(SearchPath.parse("\"$user\", public") == ["$user", "public"])
        #expect(SearchPath.parse("App , \"A,\"\"b\" ") == ["app", "A,\"b"] && SearchPath.parse("") == [] && SearchPath.parse(" , ") == [])
    }

    // MARK: what is kept of texts

    @Test func aKnownTextIsReadOnce() {
        var cache = VerdictCache(), session = RoutingSession(user: "app")
        for _ in 0..<3 { #expect(session.route("SELECT 1", Self.catalog, &cache).target == .replica) }
        #expect(cache.hits == 2 && cache.misses == 1 && cache.count == 1)
    }

    @Test func theLongestUnusedIsForgottenFirst() {
        var cache = VerdictCache(entries: 3), session = RoutingSession(user: "app")
        func ask(_ number: Int) { _ = session.route("SELECT \(number)", Self.catalog, &cache) }
        for number in [1, 2, 3, 1, 4] { ask(number) }
        let misses = cache.misses
        ask(1)
        ask(3)
        ask(4)
        #expect(cache.misses == misses && cache.count == 3)
        ask(2)
        #expect(cache.misses == misses + 1)
        // Many texts through a small table: what is found is what was put in.
        for number in 0..<5000 { ask(number % 7 == 0 ? 4 : number) }
        #expect(cache.count == 3)
    }

    @Test func textsAreBoundedInBytes() {
        var cache = VerdictCache(entries: 100, bytes: 1000), session = RoutingSession(user: "app")
        for number in 0..<50 { _ = session.route("SELECT \(number), '" + String(repeating: "x", count: 100) + "'", Self.catalog, &cache) }
        #expect(cache.count <= 9)
        _ = session.route("SELECT '" + String(repeating: "x", count: 2000) + "'", Self.catalog, &cache)
        #expect(cache.count <= 9)
    }

    @Test func aVerdictHoldsForItsPathAndCatalog() {
        let other = RoutingCatalog(
            functions: [.init(QualifiedName("app", "touch"), .stable), .init(QualifiedName("public", "touch"), .volatile)], relations: [],
            after: Self.catalog)
        var cache = VerdictCache()
        var one = RoutingSession(user: "app", options: ["search_path": "public"]),
            two = RoutingSession(user: "u", options: ["search_path": "app"])
        #expect(
            one.route("SELECT touch(1)", other, &cache).target == .primary && two.route("SELECT touch(1)", other, &cache).target == .replica
        )
        #expect(two.route("SELECT touch(1)", Self.catalog, &cache).target == .primary)
        var user = RoutingSession(user: "app")
        #expect(
            user.route("SELECT touch(1)", other, &cache).target == .primary, "both schemas of the path have one, and one of them may write")
    }

    @Test func whatAReplicaRefusedIsRemembered() {
        var cache = VerdictCache(), session = RoutingSession(user: "app")
        #expect(session.route("SELECT 1 + 1", Self.catalog, &cache).target == .replica)
        Array("SELECT 1 + 1".utf8).withUnsafeBytes { cache.learnWrite($0) }
        #expect(session.route("SELECT 1 + 1", Self.catalog, &cache).target == .primary)
        #expect(session.route("SELECT 1 + 2", Self.catalog, &cache).target == .replica)
        for number in 0..<2000 { Array("SELECT \(number)".utf8).withUnsafeBytes { cache.learnWrite($0) } }
    }
}
