import Basics
import EventLoops
import Glibc
import Postgres
import Synchronization
import TestSupport
import Testing

/// COPY both ways, notifications and the choice among several hosts, against real servers.
@Suite(.postgres()) struct PostgresCopyTests {
    private struct Stop: Error {}

    @Test func dataIsCopiedBothWays() async throws {
        let server = try PostgresSuite.server
        try await withLoop { loop in
            let connection = try await PostgresConnection.connect(try PostgresURL(server.url), on: loop)
            _ = try await connection.simple("DROP TABLE IF EXISTS t; CREATE TABLE t (id int, name text)")
            // Behind it wait statements, which are not taken for its data.
            async let count = connection.copyIn("COPY t FROM STDIN") { writer in
                for i in 0..<2000 { try await writer.write("\(i)\tname \(i)\n") }
                try await writer.write(Array(String(repeating: "7\tmany\n", count: 200_000).utf8))
            }
            #expect(try await count == 202_000)
            #expect(
                try await connection.query("SELECT count(*), sum(id) FROM t")[0].texts == ["202000", String(1999 * 1000 + 1_400_000)])
            // Out, slower than the server: most of it waits there.
            var bytes = 0, lines = 0, largest = 0
            let out = try await connection.copyOut("COPY t TO STDOUT") { piece in
                bytes += piece.count
                largest = max(largest, piece.count)
                lines += piece.count { $0 == 10 }
                if bytes < 200_000 { try await Task.sleep(for: .milliseconds(5)) }
            }
            #expect(out == 202_000 && lines == 202_000 && largest <= 400_000)
            await connection.close()
        }
    }

    @Test func aCopyThatFailsIsUndone() async throws {
        let server = try PostgresSuite.server
        try await withLoop { loop in
            let connection = try await PostgresConnection.connect(try PostgresURL(server.url), on: loop)
            _ = try await connection.simple("DROP TABLE IF EXISTS t; CREATE TABLE t (id int)")
            // We give up in the middle.
            await #expect(throws: Stop.self) {
                try await connection.copyIn("COPY t FROM STDIN") { writer in
                    try await writer.write("1\n")
                    throw Stop()
                }
            }
            // The server gives up in the middle; the feeder hears of it.
            let refused = await #expect(throws: PostgresError.self) {
                try await connection.copyIn("COPY t FROM STDIN") { writer in
                    try await writer.write("1\nno number\n")
                    while true { try await writer.write(Array(repeating: 10, count: 100_000)) }
                }
            }
            #expect(refused?.state == "22P02" && refused?.outcome == .refused)
            let syntax = await #expect(throws: PostgresError.self) { try await connection.copyIn("COPY t FROM") { _ in } }
            #expect(syntax?.state == "42601")
            // What is no COPY, and COPY where none was asked for.
            let other = await #expect(throws: PostgresError.self) { try await connection.copyIn("SELECT 1") { _ in } }
            #expect(other?.code == .misuse)
            let otherOut = await #expect(throws: PostgresError.self) { try await connection.copyOut("SELECT 1") { _ in } }
            #expect(otherOut?.code == .misuse)
            for text in ["COPY t FROM STDIN", "COPY (SELECT 1) TO STDOUT"] {
                for isSimple in [true, false] {
                    let error = await #expect(throws: PostgresError.self) {
                        if isSimple { _ = try await connection.simple(text) } else { _ = try await connection.query(text) }
                    }
                    #expect(error?.code == .misuse && error?.message.contains("copy") == true, "\(error.map { "\($0)" } ?? "")")
                }
            }
            // The taker gives up in the middle of an endless answer.
            await #expect(throws: Stop.self) {
                try await connection.copyOut("COPY (SELECT generate_series(1, 1000000000)) TO STDOUT") { _ in throw Stop() }
            }
            let deadline = await #expect(throws: PostgresError.self) {
                try await connection.copyIn("COPY t FROM STDIN", within: .milliseconds(200)) { _ in
                    try await Task.sleep(for: .seconds(1))
                }
            }
            #expect(deadline?.code == .timeout && deadline?.outcome == .refused, "\(deadline.map { "\($0)" } ?? "")")
            #expect(try await connection.query("SELECT count(*) FROM t").text == "0")
            await connection.close()
        }
    }

    @Test func notificationsArrive() async throws {
        let server = try PostgresSuite.server
        try await withLoop { loop in
            let connection = try await PostgresConnection.connect(try PostgresURL(server.url), on: loop)
            let got = Mutex<[PostgresNotification]>([])
            try await connection.listen("a \"channel\"") { one in got.withLock { $0.append(one) } }
            try await server.sql("NOTIFY \"a \"\"channel\"\"\", 'one'")
            let arrived = await eventually { got.withLock { $0.count == 1 } }
            #expect(arrived && got.withLock { $0[0].channel == "a \"channel\"" && $0[0].payload == "one" })
            // Between a statement and its answer, too.
            _ = try await connection.query("SELECT pg_notify('a \"channel\"', 'two')")
            #expect(got.withLock { $0.last?.payload } == "two")
            await connection.close()
        }
    }

    @Test func ofSeveralHostsTheFirstThatFitsIsTaken() async throws {
        try await withFolder { folder in
            let primary = try await PostgresServer.start(in: folder)
            let standby = try await primary.standby("replica")
            try await withLoop { loop in
                let nobody = TestPorts.server()
                let places = "127.0.0.1:\(nobody),127.0.0.1:\(standby.port),127.0.0.1:\(primary.port)"
                func port(_ target: String, _ places: String) async throws -> UInt16? {
                    let url = try PostgresURL(
                        "postgresql://postgres:\(PostgresServer.password)@\(places)/postgres?target_session_attrs=\(target)")
                    let connection = try await PostgresConnection.connect(url, on: loop)
                    await connection.close()
                    if case .address(let address) = connection.host.endpoint { return address.port }
                    return nil
                }
                for target in ["read-write", "primary"] { #expect(try await port(target, places) == primary.port) }
                for target in ["standby", "read-only", "any", "prefer-standby"] { #expect(try await port(target, places) == standby.port) }
                #expect(try await port("prefer-standby", "127.0.0.1:\(nobody),127.0.0.1:\(primary.port)") == primary.port)
                let unfit = await #expect(throws: PostgresError.self) { try await port("standby", "127.0.0.1:\(primary.port)") }
                #expect(unfit?.code == .unsuitable && unfit?.message.contains("a primary") == true)
                let none = await #expect(throws: PostgresError.self) {
                    try await port("primary", "127.0.0.1:\(nobody),127.0.0.1:\(standby.port)")
                }
                #expect(
                    none?.code == .unsuitable && none?.message.contains("a standby") == true && none?.message.contains("refused") == true)
                // A standby says no to writes.
                let reader = try await PostgresConnection.connect(try PostgresURL(standby.url), on: loop)
                let write = await #expect(throws: PostgresError.self) { try await reader.query("CREATE TABLE t ()") }
                #expect(write?.state == "25006" && write?.outcome == .refused)
                await reader.close()
            }
            await standby.destroy()
            await primary.destroy()
        }
    }
}
