import Basics
import EventLoops
import PostgresRouting
import TestSupport
import Testing

/// The rules against PostgreSQL itself, with a real standby: what goes to a replica, a replica carries out; what is refused, the server
/// refuses; what opens a READ ONLY transaction on the primary, the primary takes.
@Suite struct PostgresRoutingTruth {
    /// A standby's errors about being one; anything else that is wrong with a statement is wrong on every server.
    private static func isStandbys(_ answer: PlainPostgres.Answer) -> Bool {
        answer.sqlState == "25006" || answer.message.contains("recovery") || answer.message.contains("read-only")
    }

    private struct Servers {
        let primary: PlainPostgres, standby: PlainPostgres
        let catalog: RoutingCatalog
    }

    private static func withServers(_ body: (Servers) throws -> Void) async throws {
        let file = try RoutingCases(projectFolder + "/Tests/PolicyTests/Cases/pg-routing-own-cases.json")
        try await withFolder { folder in
            let primary = try await RoutingServer.start(in: folder)
            let standby = try await primary.standby("s1")
            let result: Result<Void, any Error>
            do {
                try RoutingRun.make("routing", file.fixture, primary.port)
                let one = try PlainPostgres(port: primary.port, database: "routing")
                let position = one.ask("SELECT pg_current_wal_flush_lsn()").rows.first?.first.flatMap { $0 } ?? ""
                let hasAll = await eventually(.seconds(60)) {
                    guard let other = try? PlainPostgres(port: standby.port, database: "routing") else { return false }
                    defer { other.close() }
                    return other.ask("SELECT pg_last_wal_replay_lsn() >= '\(position)'").rows.first?.first == "t"
                }
                try #require(hasAll)
                let two = try PlainPostgres(port: standby.port, database: "routing")
                try body(Servers(primary: one, standby: two, catalog: try RoutingRun.catalog(one, file.declared)))
                for connection in [one, two] { connection.close() }
                result = .success(())
            } catch { result = .failure(error) }
            await standby.destroy()
            await primary.destroy()
            try result.get()
        }
    }

    private static func statements() throws -> [RoutingCase] {
        try ["pg-routing-cases.json", "pg-routing-own-cases.json"].flatMap {
            try RoutingCases(projectFolder + "/Tests/PolicyTests/Cases/\($0)").cases
        }
    }

    @Test func theServersAgree() async throws {
        let cases = try Self.statements()
        try await Self.withServers { servers in
            try Self.replicasCarryOut(cases, servers)
            try Self.readOnlyIsReadOnly(cases, servers)
            try Self.ownFunctionsAndViews(servers)
        }
    }

    /// Outside of a transaction: every statement that goes to a replica.
    private static func replicasCarryOut(_ cases: [RoutingCase], _ servers: Servers) throws {
        var cache = VerdictCache(), count = 0
        for item in cases where item.session.isEmpty {
            var session = RoutingSession(user: "postgres")
            // A procedure that writes is the server's to refuse, also where a replica was asked for.
            guard session.route(item.sql, servers.catalog, &cache).target == .replica, !item.sql.hasSuffix("CALL app.settle()") else {
                continue
            }
            count += 1
            let answer = servers.standby.ask(item.sql)
            #expect(!isStandbys(answer), "\(item.name): \(item.sql.prefix(200)): \(answer.sqlState ?? "") \(answer.message)")
        }
        #expect(count > 100)
    }

    /// As first statements of a READ ONLY transaction.
    private static func readOnlyIsReadOnly(_ cases: [RoutingCase], _ servers: Servers) throws {
        var cache = VerdictCache(), counts: [RouteVerdict.Target: Int] = [:]
        for item in cases where item.session == ["BEGIN READ ONLY"] {
            var session = RoutingSession(user: "postgres")
            _ = session.route("BEGIN READ ONLY", servers.catalog, &cache)
            session.answered(.success)
            let verdict = session.route(item.sql, servers.catalog, &cache)
            counts[verdict.target, default: 0] += 1
            func ask(_ server: PlainPostgres) -> PlainPostgres.Answer {
                _ = server.ask("BEGIN READ ONLY")
                defer { _ = server.ask("ROLLBACK; DISCARD ALL") }
                return server.ask(item.sql)
            }
            switch verdict.target {
            case .replica:
                // A procedure that writes is the server's to refuse: nobody knows what it does.
                if item.sql.hasSuffix("CALL app.settle()") { continue }
                let answer = ask(servers.standby)
                #expect(!isStandbys(answer), "\(item.name): \(answer.sqlState ?? "") \(answer.message)")
            case .refused where verdict.refusal?.server != nil:
                #expect(ask(servers.standby).sqlState != nil && ask(servers.primary).sqlState == "25006", "\(item.name)")
            case .primary, .pinned:
                let answer = ask(servers.primary)
                #expect(answer.sqlState != "25006", "\(item.name): \(answer.message)")
            default: break
            }
        }
        #expect((counts[.replica] ?? 0) > 15 && (counts[.refused] ?? 0) > 10 && (counts[.primary] ?? 0) + (counts[.pinned] ?? 0) > 15)
    }

    /// PostgreSQL's own: each view, each table of the catalog, each function without arguments.
    private static func ownFunctionsAndViews(_ servers: Servers) throws {
        let functions = servers.primary.ask(
            """
            SELECT DISTINCT proname FROM pg_proc
            WHERE pronargs = 0 AND prokind = 'f' AND pronamespace = 'pg_catalog'::regnamespace
              AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype, 'internal'::regtype) AND proname !~ '(handler|_in)$'
            """
        ).rows.map { "SELECT pg_catalog.\($0[0] ?? "")()" }
        let relations = servers.primary.ask(
            """
            SELECT format('SELECT * FROM %I.%I LIMIT 3', n.nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
            WHERE relkind IN ('r', 'v') AND nspname IN ('pg_catalog', 'information_schema')
            """
        ).rows.map { $0[0] ?? "" }
        #expect(functions.count > 60 && relations.count > 180)
        var cache = VerdictCache(), asked = 0
        for text in functions + relations {
            var session = RoutingSession(user: "postgres")
            guard session.route(text, servers.catalog, &cache).target == .replica else { continue }
            asked += 1
            let answer = servers.standby.ask(text)
            #expect(!isStandbys(answer), "\(text): \(answer.sqlState ?? "") \(answer.message)")
        }
        #expect(asked > 120)
    }
}
