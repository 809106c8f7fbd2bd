import Basics
import EventLoops
import Glibc
import Postgres
import TestSupport
import Testing

/// TLS with a real PostgreSQL: what each `sslmode` takes, and SCRAM bound to the channel.
@Suite struct PostgresTLSTests {
    /// A server with the certificate `server`, which is for 127.0.0.1 and localhost. Its user must own the key.
    private func withTLSPostgres(access: [String], _ body: (PostgresServer, TLSFixture) async throws -> Void) async throws {
        try await withFolder { folder in
            let fixture = try await TLSFixture(folder: folder)
            let server = try await PostgresServer.start(in: folder, access: access)
            for file in ["server.pem", "server.key"] {
                try PostgresServer.write("\(server.folder)/\(file)", Files.text(fixture.file(file)) ?? "")
            }
            try server.configure([
                "ssl = on", "ssl_cert_file = '\(server.folder)/server.pem'", "ssl_key_file = '\(server.folder)/server.key'",
            ])
            server.reload()
            let result: Result<Void, any Error>
            do {
                let isOn = await eventually { (try? await server.sql("SHOW ssl")) == "on" }
                #expect(isOn)
                result = .success(try await body(server, fixture))
            } catch { result = .failure(error) }
            await server.destroy()
            try result.get()
        }
    }

    @Test func eachModeTakesWhatItSays() async throws {
        try await withTLSPostgres(access: ["hostnossl all plain 127.0.0.1/32 trust"]) { server, fixture in
            try await withLoop { loop in
                func facts(_ options: String, host: String = "127.0.0.1") async throws -> [String?] {
                    let url = "postgresql://postgres:\(PostgresServer.password)@\(host):\(server.port)/postgres?\(options)"
                    let connection = try await PostgresConnection.connect(try PostgresURL(url), on: loop)
                    let row = try await connection.query("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")[0]
                    // Much, and then the end, through TLS.
                    #expect(try await connection.query("SELECT repeat('x', 1000) FROM generate_series(1, 1000)").count == 1000)
                    let task = Task { try await connection.query("SELECT pg_sleep(60)") }
                    let runs = await eventually {
                        (try? await server.sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%sleep(60)' AND state = 'active'"))
                            == "1"
                    }
                    #expect(runs)
                    task.cancel()
                    let cancelled = await #expect(throws: PostgresError.self) { try await task.value }
                    #expect(cancelled?.code == .cancelled && cancelled?.outcome == .refused)
                    await connection.close()
                    return row.texts
                }
                #expect(try await facts("sslmode=disable") == ["f", nil])
                for mode in ["sslmode=prefer", "sslmode=require", "sslmode=require&channel_binding=require"] {
                    #expect(try await facts(mode) == ["t", "TLSv1.3"])
                }
                #expect(try await facts("sslmode=verify-full&sslrootcert=\(fixture.authority)", host: "localhost") == ["t", "TLSv1.3"])
                #expect(try await facts("sslmode=verify-ca&sslrootcert=\(fixture.authority)&channel_binding=disable") == ["t", "TLSv1.3"])
                for (mode, words) in [
                    ("sslmode=verify-full&sslrootcert=\(fixture.file("other.pem"))", "signed"),
                    ("sslmode=verify-ca&sslrootcert=\(fixture.file("other.pem"))", "signed"),
                    ("sslmode=require&sslrootcert=\(fixture.file("other.pem"))", "signed"),
                    ("sslmode=verify-ca&sslrootcert=/not/there", "/not/there"),
                    ("sslmode=disable&channel_binding=require", "channel_binding"),
                ] {
                    let error = await #expect(throws: PostgresError.self) { try await facts(mode) }
                    #expect(error?.outcome == .notSent && error?.message.contains(words) == true, "\(mode): \(error.map { "\($0)" } ?? "")")
                }
                // The server lets this one in without TLS only.
                let plain = try PostgresURL("postgresql://plain@127.0.0.1:\(server.port)/postgres?sslmode=require")
                let refused = await #expect(throws: PostgresError.self) { try await PostgresConnection.connect(plain, on: loop) }
                #expect(refused?.code == .authentication)
                // A certificate that is another host's: fit for verify-ca only.
                for kind in ["pem", "key"] {
                    try PostgresServer.write("\(server.folder)/server.\(kind)", Files.text(fixture.file("elsewhere.\(kind)")) ?? "")
                }
                server.reload()
                let isOther = await eventually {
                    do {
                        _ = try await facts("sslmode=verify-full&sslrootcert=\(fixture.authority)")
                        return false
                    } catch { return "\(error)".contains("redis.example") }
                }
                #expect(isOther)
                #expect(try await facts("sslmode=verify-ca&sslrootcert=\(fixture.authority)") == ["t", "TLSv1.3"])
            }
        }
    }

    @Test func aServerWithoutTLSIsNotTakenWhereTLSIsWanted() async throws {
        try await withPostgresPeer({ peer, number in
            guard case .tlsRequest = peer.opening() else { return }
            // Yes, with plain bytes behind it, as somebody between would add them; then no; then what is no answer.
            if number == 1 { return peer.send(raw: [83] + BackendMessage.authentication(.ok).encoded) }
            if number > 2 { return peer.send(raw: [72]) }
            peer.send(raw: [78])
        }) { url in
            try await withLoop { loop in
                for (code, words) in [
                    (PostgresError.Code.malformed, "between"), (.unavailable, "no TLS"), (.malformed, "is it PostgreSQL"),
                ] {
                    let strict = try PostgresURL(url.replacing("sslmode=disable", with: "sslmode=require"))
                    let error = await #expect(throws: PostgresError.self) { try await PostgresConnection.connect(strict, on: loop) }
                    #expect(error?.code == code && error?.message.contains(words) == true, "\(error.map { "\($0)" } ?? "")")
                }
            }
        }
    }
}
