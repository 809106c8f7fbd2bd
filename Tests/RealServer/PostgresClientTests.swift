import Basics
import EventLoops
import Glibc
import Postgres
import TestSupport
import Testing

/// The client against a real PostgreSQL: each test makes one of its own.
@Suite(.postgres(access: ["host all clear 127.0.0.1/32 password", "host all old 127.0.0.1/32 md5"])) struct PostgresClientTests {
    @Test func logsInAsTheServerAsksAndAnswersStatements() async throws {
        let server = try PostgresSuite.server
        try await server.sql(
            "CREATE ROLE clear LOGIN PASSWORD 'pass word'; SET password_encryption='md5'; CREATE ROLE old LOGIN PASSWORD 'x'")
        try await withLoop { loop in
            // At the socket without a password, over TCP by SCRAM.
            for url in [server.url, server.tcpURL, "postgresql://clear:pass%20word@127.0.0.1:\(server.port)/postgres"] {
                let connection = try await PostgresConnection.connect(try PostgresURL(url), on: loop)
                let answer = try await connection.simple("SELECT 1 AS one, NULL AS none, 'ü' AS letter; SELECT current_user")
                #expect(answer.count == 2 && answer[0].tag == "SELECT 1")
                #expect(
                    answer[0][0].texts == ["1", nil, "ü"] && answer[0][0].text("letter") == "ü" && answer[0][0].text("other") == nil)
                #expect(await connection.parameters.version == 15)
                #expect(await connection.parameters["client_encoding"] == "UTF8")
                await connection.close()
                #expect(await connection.isOpen == false)
                let after = await #expect(throws: PostgresError.self) { try await connection.simple("SELECT 1") }
                #expect(after?.code == .lost && after?.outcome == .notSent)
            }
            // A wrong password is told as one, and is not in the error.
            let wrong = "postgresql://postgres:not-it@127.0.0.1:\(server.port)/postgres"
            let refused = await #expect(throws: PostgresError.self) {
                try await PostgresConnection.connect(try PostgresURL(wrong), on: loop)
            }
            #expect(refused?.code == .authentication && refused?.state == "28P01" && "\(refused!)".contains("not-it") == false)
            let old = await #expect(throws: PostgresError.self) {
                try await PostgresConnection.connect(try PostgresURL("postgresql://old:x@127.0.0.1:\(server.port)/postgres"), on: loop)
            }
            #expect(old?.code == .authentication && old?.message.contains("scram-sha-256") == true)
            let none = await #expect(throws: PostgresError.self) {
                try await PostgresConnection.connect(
                    try PostgresURL("postgresql://postgres@127.0.0.1:\(server.port)/postgres"), on: loop)
            }
            #expect(none?.code == .authentication && none?.message.contains("password") == true)
            let missing = await #expect(throws: PostgresError.self) {
                try await PostgresConnection.connect(try PostgresURL(server.url.replacing("/postgres?", with: "/nothing?")), on: loop)
            }
            #expect(missing?.code == .server && missing?.state == "3D000")
        }
    }

    @Test func errorsHaveEveryField() async throws {
        let server = try PostgresSuite.server
        try await withLoop { loop in
            let connection = try await PostgresConnection.connect(try PostgresURL(server.url), on: loop)
            _ = try await connection.simple("CREATE TABLE t (id int PRIMARY KEY, n int CHECK (n > 0)); INSERT INTO t VALUES (1, 1)")
            let twice = await #expect(throws: PostgresError.self) { try await connection.simple("INSERT INTO t VALUES (1, 2)") }
            #expect(twice?.state == "23505" && twice?.outcome == .refused && twice?.server?.constraint == "t_pkey")
            #expect(twice?.server?.table == "t" && twice?.server?.schema == "public" && twice?.server?.detail?.contains("(1)") == true)
            let syntax = await #expect(throws: PostgresError.self) { try await connection.simple("SELECT 1 +") }
            #expect(syntax?.state == "42601" && syntax?.server?.position == 11 && syntax?.server?.severity == "ERROR")
            let warned = try await connection.simple("DO $$ BEGIN RAISE WARNING 'careful' USING HINT = 'slowly'; END $$")
            #expect(warned[0].notices.map(\.text) == ["careful"] && warned[0].notices.first?.hint == "slowly")
            // The transaction's state is known, and an error within it is the transaction's.
            _ = try await connection.simple("BEGIN")
            #expect(await connection.transaction == .open)
            _ = try? await connection.simple("SELECT 1/0")
            #expect(await connection.transaction == .failed)
            let failed = await #expect(throws: PostgresError.self) { try await connection.simple("SELECT 1") }
            #expect(failed?.state == "25P02")
            _ = try await connection.simple("ROLLBACK")
            #expect(await connection.transaction == .idle)
            await connection.close()
        }
    }
}
