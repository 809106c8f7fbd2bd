import Basics
import EventLoops
import Glibc
import Postgres
import Synchronization
import TestSupport
import Testing

/// Statements of the client against a real PostgreSQL: prepared, pipelined, cancelled, lost.
@Suite(.postgres()) struct PostgresStatementTests {
    /// A connection to a database of its own, without tables.
    private func withConnection(
        limits: PostgresLimits = PostgresLimits(), _ body: (PostgresServer, EventLoop, PostgresConnection) async throws -> Void
    ) async throws {
        let server = try PostgresSuite.server
        let name = "test\(UInt32.random(in: 0 ... .max))"
        try await server.sql("CREATE DATABASE \(name)")
        try await withLoop { loop in
            let url = try PostgresURL(server.url.replacing("/postgres?", with: "/\(name)?"))
            let connection = try await PostgresConnection.connect(url, on: loop, limits: limits)
            try await body(server, loop, connection)
            await connection.close()
        }
    }

    private func failure(_ result: Result<PostgresResult, PostgresError>) -> PostgresError? {
        if case .failure(let error) = result { error } else { nil }
    }

    @Test func valuesGoThereAndBack() async throws {
        try await withConnection { _, _, connection in
            let row = try await connection.query(
                "SELECT $1::int8, $2::text, $3::bool, $4::bytea, $5::float8, $6::text[], $7::int4[], $8::numeric, $9::text",
                Int.min, "it's ü", true, PostgresBytes([0, 255]), 1e-300, ["a\"b\\", "{,}", "", "NULL"], [1, nil, 3] as [Int?], "1.50",
                Optional<String>.none)[0]
            #expect(row.text(0) == String(Int.min) && row.text(1) == "it's ü" && row.text(2) == "t" && row.text(3) == "\\x00ff")
            #expect(row.text(4) == "1e-300" && row.text(5) == #"{"a\"b\\","{,}","","NULL"}"# && row.text(6) == "{1,NULL,3}")
            #expect(row.text(7) == "1.50" && row.text(8) == nil)
            let special = try await connection.query(
                "SELECT $1::float8, $2::float4, $3::bytea[]", -Double.infinity, Float.nan, [PostgresBytes([1])])[0]
            #expect(special.texts == ["-Infinity", "NaN", "{\"\\\\x01\"}"])
        }
    }

    @Test func manyStatementsAreUnderWayAndEachHasItsAnswer() async throws {
        try await withConnection { _, _, connection in
            _ = try await connection.simple("CREATE TABLE t (id int PRIMARY KEY)")
            // Each with a Sync of its own: the failures are their own.
            let results = await connection.pipeline(
                (0..<500).map { PostgresStatement("INSERT INTO t VALUES ($1::int / 2) RETURNING id", $0) })
            #expect(results.count == 500)
            for (i, result) in results.enumerated() {
                if i % 2 == 0 {
                    #expect(try result.get().text == String(i / 2))
                } else {
                    #expect(failure(result)?.state == "23505" && failure(result)?.outcome == .refused)
                }
            }
            // One Sync for all: one transaction.
            let batch = await connection.batch([
                PostgresStatement("INSERT INTO t VALUES (1000)"), PostgresStatement("SELECT 1 / 0"),
                PostgresStatement("INSERT INTO t VALUES (1001)"),
            ])
            #expect(batch.map { failure($0)?.code } == [.skipped, .server, .skipped] && failure(batch[1])?.state == "22012")
            #expect(try await connection.query("SELECT count(*) FROM t WHERE id >= 1000").text == "0")
            let good = await connection.batch((0..<3).map { PostgresStatement("SELECT $1::int", $0) })
            #expect(try good.map { try $0.get().text } == ["0", "1", "2"])
            // A text that does not parse fails for every use of it, with its own words.
            let wrong = await connection.pipeline((0..<3).map { _ in PostgresStatement("SELEC 1") } + [PostgresStatement("SELECT 2")])
            #expect(wrong.map { failure($0)?.state } == ["42601", "42601", "42601", nil])
            #expect(try await connection.query("").tag == "")
        }
    }

    @Test func preparedStatementsAreKeptBoundedAndMended() async throws {
        var limits = PostgresLimits()
        limits.preparedStatements = 5
        try await withConnection(limits: limits) { server, loop, connection in
            func kept() async throws -> Int {
                Int(try await connection.simple("SELECT count(*) FROM pg_prepared_statements")[0].text ?? "") ?? -1
            }
            for round in 0..<3 {
                for i in 0..<12 { #expect(try await connection.query("SELECT \(i) + $1::int", round).text == String(i + round)) }
                #expect(try await kept() == 5)
            }
            // All in one batch: names make room for names of the same batch.
            let all = await connection.batch((0..<12).map { PostgresStatement("SELECT \($0) * $1::int", 2) })
            #expect(try all.map { try $0.get().text } == (0..<12).map { String($0 * 2) })
            #expect(try await kept() == 5)
            var once = PostgresStatement("SELECT 'once'")
            once.isKept = false
            #expect(try await connection.query(once).text == "once")
            #expect(try await kept() == 5)
            // Somebody takes the names away: with our knowledge, and without it.
            _ = try await connection.query("SELECT 7")
            _ = try await connection.simple("DEALLOCATE ALL")
            #expect(try await connection.query("SELECT 7").text == "7")
            _ = try await connection.simple("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$")
            #expect(try await connection.query("SELECT 7").text == "7")
            // A statement's columns have changed (0A000).
            _ = try await connection.simple("CREATE TABLE c (a int); INSERT INTO c VALUES (1)")
            #expect(try await connection.query("SELECT * FROM c")[0].texts == ["1"])
            #expect(try await connection.query("SELECT * FROM c")[0].texts == ["1"])
            _ = try await connection.simple("ALTER TABLE c ADD COLUMN b text DEFAULT 'x'")
            let changed = try await connection.query("SELECT * FROM c")
            #expect(changed[0].texts == ["1", "x"] && changed.columns.names == ["a", "b"])
            // In a transaction it cannot be repeated, and is as it should be after it.
            _ = try await connection.simple("BEGIN")
            _ = try await connection.simple("ALTER TABLE c ADD COLUMN d int")
            let inside = await #expect(throws: PostgresError.self) { try await connection.query("SELECT * FROM c") }
            #expect(inside?.state == "0A000" && inside?.outcome == .refused)
            _ = try await connection.simple("ROLLBACK")
            #expect(try await connection.query("SELECT * FROM c")[0].texts == ["1", "x"])
        }
    }

    @Test func aDeadlineAndACancellationAreTheStatementsOwn() async throws {
        try await withConnection { server, loop, connection in
            _ = try await connection.simple("CREATE TABLE t (id int)")
            var late = PostgresStatement("INSERT INTO t SELECT 1 FROM pg_sleep(60)")
            late.within = .milliseconds(150)
            let statements = [late, PostgresStatement("INSERT INTO t VALUES (2)"), PostgresStatement("SELECT 3")]
            let results = await connection.pipeline(statements)
            #expect(
                failure(results[0])?.code == .timeout && failure(results[0])?.outcome == .refused && failure(results[0])?.state == "57014")
            #expect(try results[2].get().text == "3")
            // A task that is cancelled.
            let task = Task { try await connection.query("SELECT pg_sleep(60)") }
            let runs = await eventually {
                (try? await server.sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"))
                    == "1"
            }
            #expect(runs)
            task.cancel()
            let cancelled = await #expect(throws: PostgresError.self) { try await task.value }
            #expect(cancelled?.code == .cancelled && cancelled?.outcome == .refused)
            // One that was cancelled before is not sent.
            let unsent = Task { () async throws -> PostgresResult in
                while !Task.isCancelled { await Task.yield() }
                return try await connection.query("INSERT INTO t VALUES (9)")
            }
            unsent.cancel()
            let never = await #expect(throws: PostgresError.self) { try await unsent.value }
            #expect(never?.code == .cancelled)
            #expect(try await connection.simple("SELECT count(*) FROM t WHERE id = 9")[0].text == "0")
            #expect(try await connection.query("SELECT 4").text == "4")
        }
    }

    @Test func aLostConnectionSaysWhatMayHaveRun() async throws {
        try await withPostgres { server in
            try await withLoop { loop in
                // The session is ended by an administrator while a statement runs: the server says so, it is undone, the next was not begun.
                let connection = try await PostgresConnection.connect(try PostgresURL(server.url), on: loop)
                async let results = connection.pipeline([PostgresStatement("SELECT pg_sleep(60)"), PostgresStatement("SELECT 2")])
                let process = await connection.process
                let runs = await eventually {
                    (try? await server.sql("SELECT count(*) FROM pg_stat_activity WHERE pid = \(process) AND state = 'active'")) == "1"
                }
                #expect(runs)
                try await server.sql("SELECT pg_terminate_backend(\(process))")
                let ended = await results
                #expect(failure(ended[0])?.state == "57P01" && failure(ended[0])?.outcome == .refused && failure(ended[0])?.code == .lost)
                #expect(failure(ended[1])?.outcome == .notSent)
                // The server is killed under a COMMIT that waits: nobody knows.
                try await server.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'; SELECT pg_reload_conf()")
                let second = try await PostgresConnection.connect(try PostgresURL(server.url), on: loop)
                let told = Mutex<PostgresError?>(nil)
                second.onClose { error in told.withLock { $0 = error } }
                _ = try await second.simple("BEGIN; CREATE TABLE t (id int)")
                let commit = Task { try await second.simple("COMMIT") }
                let waits = await eventually {
                    (try? await server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")) == "1"
                }
                #expect(waits)
                await server.kill()
                let lost = await #expect(throws: PostgresError.self) { try await commit.value }
                #expect(lost?.code == .lost && lost?.outcome == .mayHaveRun)
                #expect(told.withLock { $0?.code } == .lost)
                // Nobody is there: nothing was sent.
                let away = await #expect(throws: PostgresError.self) {
                    try await PostgresConnection.connect(try PostgresURL(server.url), on: loop)
                }
                #expect(away?.code == .unavailable && away?.outcome == .notSent)
            }
        }
    }

    @Test func rowsHaveABoundAndTheConnectionGoesOn() async throws {
        var limits = PostgresLimits()
        limits.rowBytes = 100_000
        try await withConnection(limits: limits) { _, _, connection in
            for isSimple in [true, false] {
                let error = await #expect(throws: PostgresError.self) {
                    let text = "SELECT repeat('x', 1000) FROM generate_series(1, 5000)"
                    if isSimple { _ = try await connection.simple(text) } else { _ = try await connection.query(text) }
                }
                #expect(error?.code == .tooLarge && error?.outcome == .mayHaveRun && error?.message.contains("100000") == true)
                let next = try await connection.query("SELECT 1")
                #expect(next.text == "1")
            }
            let few = try await connection.query("SELECT repeat('x', 1000) FROM generate_series(1, 50)")
            #expect(few.count == 50)
        }
        limits.discardBytes = 1 << 20
        try await withConnection(limits: limits) { _, _, connection in
            let error = await #expect(throws: PostgresError.self) {
                try await connection.query("SELECT repeat('x', 1000), generate_series(1, 100000000)")
            }
            #expect(error?.code == .tooLarge && error?.outcome == .mayHaveRun)
            #expect(await connection.isOpen == false)
        }
    }
}
