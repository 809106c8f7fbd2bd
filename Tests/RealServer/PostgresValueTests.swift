import Basics
import EventLoops
import Postgres
import TestSupport
import Testing

/// Values of the common types as PostgreSQL itself writes them, as text and in binary.
@Suite(.postgres()) struct PostgresValueTests {
    private func both(_ body: (PostgresConnection, PostgresStatement.Format) async throws -> Void) async throws {
        let server = try PostgresSuite.server
        try await withLoop { loop in
            let connection = try await PostgresConnection.connect(try PostgresURL(server.url), on: loop)
            _ = try await connection.simple("SET timezone = 'Asia/Kolkata'")
            for format in [PostgresStatement.Format.text, .binary] { try await body(connection, format) }
            await connection.close()
        }
    }

    private func row(_ connection: PostgresConnection, _ format: PostgresStatement.Format, _ text: String) async throws -> PostgresRow {
        var statement = PostgresStatement(text)
        statement.resultFormat = format
        return try await connection.query(statement)[0]
    }

    @Test func commonTypesAreRead() async throws {
        try await both { connection, format in
            let row = try await row(
                connection, format,
                """
                SELECT true AS b, (-32768)::int2 AS small, 2147483647::int4 AS middle, (-9223372036854775808)::int8 AS large, 4294967295::oid AS oid,
                    1.5::float4 AS single, '-Infinity'::float8 AS low, 'ü'::text AS t, '\\x00ff'::bytea AS bytes,
                    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid AS uuid, '{"a": 1}'::jsonb AS j, NULL::int AS none,
                    '2026-12-01 11:30:00.000001+00'::timestamptz AS at, 'infinity'::timestamptz AS never, '1999-12-31 23:59:59'::timestamp AS old,
                    '{1,NULL,3}'::int4[] AS some, '{a,"b c","d\\"e",""}'::text[] AS words, '{}'::int8[] AS nothing, 'n'::name AS n, 'v '::varchar(5) AS v
                """)
            #expect(try row.value("b") == true && row.value("small") == Int16.min && row.value("middle") == Int32.max)
            #expect(try row.value("large") == Int.min && row.value("oid") == 4_294_967_295 && row.value("oid", as: UInt32.self) == .max)
            #expect(try row.value("single") == 1.5 && row.value("low") == -Double.infinity && row.value("t") == "ü")
            #expect(try row.value("bytes") == PostgresBytes([0, 255]) && row.value("n") == "n" && row.value("v") == "v ")
            #expect(try row.value("uuid") == PostgresUUID("A0EEBC999C0B4EF8BB6D6BB9BD380A11"))
            #expect(try row.value("uuid") == "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11" && row.value("j") == #"{"a": 1}"#)
            #expect(try row.value("j", as: PostgresJSON.self).text == #"{"a": 1}"#)
            #expect(try row.optional("none", as: Int.self) == nil)
            #expect(try row.value("at", as: PostgresTimestamp.self).microseconds == 1_796_124_600_000_001)
            #expect(try row.value("never") == PostgresTimestamp.infinity)
            #expect(try row.value("old", as: PostgresTimestamp.self).microseconds == 946_684_799_000_000)
            #expect(try row.value("some", as: PostgresArray<Int32>.self).elements == [1, nil, 3])
            #expect(try row.value("words") == ["a", "b c", "d\"e", ""] && row.value("nothing", as: [Int].self) == [])
        }
    }

    @Test func numericHasEveryDigit() async throws {
        let texts = [
            "0", "1", "-1", "0.5", "-0.0001", "0.00000001", "10000", "99999999", "100000000.00000001", "12345.6789", "1e20", "1e-20",
            "3.10", "0.00",
            "NaN", "Infinity", "-Infinity", "9999.9999", "10000.0001", "0.00010", "123456789012345678901234567890.123456789",
        ]
        try await both { connection, format in
            for text in texts {
                let row = try await row(connection, format, "SELECT '\(text)'::numeric, '\(text)'::numeric::text")
                #expect(try row.value(0, as: String.self) == row.value(1, as: String.self), "\(text)")
            }
        }
    }

    @Test func momentsGoThereAndBack() async throws {
        try await both { connection, format in
            for microseconds in [Int64(0), -1, 1, 1_796_124_600_000_001, -62_135_596_800_000_000, 253_402_300_799_999_999, .max, .min] {
                var statement = PostgresStatement("SELECT $1::timestamptz, $1", PostgresTimestamp(microseconds: microseconds))
                statement.resultFormat = format
                let row = try await connection.query(statement)[0]
                // The zone moves the first of these beyond the year 9999.
                if format == .text, microseconds == 253_402_300_799_999_999 { continue }
                #expect(try row.value(0, as: PostgresTimestamp.self).microseconds == microseconds, "\(row.texts)")
            }
        }
    }

    @Test func whatDoesNotFitIsTold() async throws {
        try await both { connection, format in
            let row = try await row(
                connection, format, "SELECT 40000::int4 AS n, 'x'::text AS t, NULL::text AS none, '{{1}}'::int[] AS deep, 1::money AS m")
            for (name, word) in [("n", "16 bits"), ("t", "16 bits"), ("none", "NULL"), ("missing", "there is none")] {
                let failure = #expect(throws: PostgresDecodingFailure.self) { try row.value(name, as: Int16.self) }
                #expect(failure?.column == name && failure?.reason.contains(word) == true)
            }
            #expect(throws: PostgresDecodingFailure.self) { try row.value("deep", as: [Int].self) }
            #expect(throws: PostgresDecodingFailure.self) { try row.value("m", as: Int.self) }
            #expect(throws: PostgresDecodingFailure.self) { try row.value(99, as: Int.self) }
        }
    }
}
