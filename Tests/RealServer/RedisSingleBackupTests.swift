import Basics
import EventLoops
import Glibc
import Provisioning
import Redis
import Sharding
import TestSupport
import Testing

/// A backup of one server, which is what a stack has by default.
@Suite(.serialized) struct RedisSingleBackupTests {
    private func access(_ redis: RedisFixture, _ folder: String) throws -> [String] {
        let file = folder + "/password-\(redis.port)"
        try Files.replace(file, with: Array((redis.password + "\n").utf8), mode: 0o600)
        return ["--address", "127.0.0.1:\(redis.port)", "--password-file", file]
    }

    private func muster(_ arguments: [String], _ folder: String) async throws -> (status: Int32, output: String) {
        try await run(builtProgram("muster"), ["redis"] + arguments, folder: folder)
    }

    @Test func eachDatabaseIsBackedUpAndRestored() async throws {
        try await withFolder { folder in
            try await withLoop { loop in
                try await withRedis { redis in
                    for (database, count) in [(0, 30), (3, 20), (7, 1)] {
                        let client = RedisClient(url: try RedisURL(redis.url + "/\(database)"), loop: loop)
                        client.start()
                        defer { client.close() }
                        for i in 0..<count { _ = try await client.send(RedisCommand("SET", "k\(i)", "\(database)-\(i)")) }
                    }
                    let made = try await muster(["backup", "--to", "b", "--yes", "--drill"] + access(redis, folder), folder)
                    #expect(made.status == 0 && made.output.contains("databases 0, 3, 7"), "\(made.output)")
                    #expect(made.output.contains("51 keys restored, 51 verified, 0 differ"), "\(made.output)")
                    try await withRedis { other in
                        let restored = try await muster(
                            ["restore", "--from", "b", "--verify", "full", "--yes"] + access(other, folder), folder)
                        #expect(restored.status == 0 && restored.output.contains("51 keys restored"), "\(restored.output)")
                        for (database, last) in [(0, 29), (3, 19), (7, 0)] {
                            let client = RedisClient(url: try RedisURL(other.url + "/\(database)"), loop: loop)
                            client.start()
                            defer { client.close() }
                            #expect(try await client.send(RedisCommand("GET", "k\(last)")).string == "\(database)-\(last)")
                            #expect(try await client.send(RedisCommand("DBSIZE")).int == last + 1)
                        }
                        // What is there, in whatever database, is not restored over.
                        let again = try await muster(["restore", "--from", "b", "--yes"] + access(other, folder), folder)
                        #expect(again.status == 1 && again.output.contains("has 51 keys already"), "\(again.output)")
                    }
                    try await withRedisCluster(replicas: 0) { cluster, _ in
                        try Files.replace(folder + "/pw", with: Array((cluster.password + "\n").utf8), mode: 0o600)
                        let refused = try await muster(
                            [
                                "restore", "--from", "b", "--yes", "--address", "127.0.0.1:\(cluster.nodes[0].port)", "--password-file",
                                "pw",
                            ], folder)
                        #expect(refused.status == 1 && refused.output.contains("has keys in databases 3, 7"), "\(refused.output)")
                    }
                }
            }
        }
    }

    /// Keys whose time comes when their snapshot is loaded and they are not moved yet have expired; they are not missing.
    @Test func keysThatExpireMeanwhileAreNotMissing() async throws {
        try await withFolder { folder in
            try await withLoop { loop in
                // None of them goes before the snapshot.
                try await withRedis(extra: ["enable-debug-command yes"]) { redis in
                    let end = WallTime.now.milliseconds + 6_000
                    for database in [0, 2] {
                        let client = RedisClient(url: try RedisURL(redis.url + "/\(database)"), loop: loop)
                        client.start()
                        defer { client.close() }
                        _ = try await client.send(RedisCommand("DEBUG SET-ACTIVE-EXPIRE", "0"))
                        let plain = (0..<20).map { RedisCommand("SET", "plain\($0)", "v") }
                        let passing = (0..<200).map { RedisCommand("SET", "passing\($0)", "v", "PXAT", "\(end)") }
                        for result in await client.pipeline(plain + passing) { _ = try result.get() }
                    }
                    let session = ClusterSession(
                        seeds: [NodeAddress(host: "127.0.0.1", port: redis.port)], credentials: RedisCredentials(password: redis.password),
                        loop: loop)
                    defer { session.close() }
                    _ = try await Backup.plan(session, folder: folder + "/b", fromReplicas: false).take(session) { _ in }
                    let report = try await BackupDrill.run(folder: folder + "/b", on: loop) { line in
                        // Loaded, and not moved: their time comes here, unless the machine was so slow that it came before.
                        if line.hasPrefix("database 2") { while WallTime.now.milliseconds <= end + 50 { usleep(20_000) } }
                    }
                    #expect(report.holds && report.missing == 0, "\(report.sentences)")
                    #expect(report.counts.expired == 400 && report.counts.restored == 40, "\(report.sentences)")
                }
            }
        }
    }

    @Test func keysOfAnotherDatabaseThanTheFirstAreNotForgotten() async throws {
        try await withFolder { folder in
            try await withLoop { loop in
                try await withRedis { redis in
                    let client = RedisClient(url: try RedisURL(redis.url + "/2"), loop: loop)
                    client.start()
                    defer { client.close() }
                    for i in 0..<9 { _ = try await client.send(RedisCommand("SET", "k\(i)", "\(i)", "EX", "100000")) }
                    let made = try await muster(["backup", "--to", "b", "--yes"] + access(redis, folder), folder)
                    #expect(made.status == 0, "\(made.output)")
                    let drill = try await muster(["backup", "--drill", "--from", "b"], folder)
                    #expect(drill.status == 0 && drill.output.contains("9 keys restored, 9 verified"), "\(drill.output)")
                }
            }
        }
    }

    /// The advice of a store whose layout changes, carried out as it is given.
    @Test func aServersDataGoesIntoAClusterAsTheAdviceSays() async throws {
        try await withStack(up: false) { stack in
            func check(_ result: (status: Int32, output: String)) { #expect(result.status == 0, "\(result.output)") }
            let store = "\(stack.folder)/.muster/demo/stores/state"
            try stack.write(store: "role: state, memory: 64Mi")
            check(try await stack.muster("up", "-d", stack.file))
            let port = try #require(try await stack.rows().first { $0.service == "state" }).port
            let password = (Files.text(store + "/password") ?? "").split(separator: "\n").first ?? ""
            let client = RedisClient(url: try RedisURL("redis://:\(password)@127.0.0.1:\(port)"), loop: stack.loop)
            client.start()
            for i in 0..<50 { _ = try await client.send(RedisCommand("SET", "k\(i)", "\(i)")) }
            client.close()
            check(try await stack.muster("down", stack.file))
            try stack.write(store: "role: state, memory: 64Mi, masters: 3, failover: 3s")
            let told = try await stack.muster("up", "-d", stack.file)
            #expect(
                told.status != 0 && told.output.contains("muster redis backup") && !told.output.contains("File exists"), "\(told.output)")

            try stack.write(store: "role: state, memory: 64Mi")
            check(try await stack.muster("up", "-d", stack.file))
            let now = try #require(try await stack.rows().first { $0.service == "state" }).port
            check(try await run("/bin/cp", [store + "/password", stack.folder + "/old"], folder: stack.folder))
            chmod(stack.folder + "/old", 0o600)
            check(
                try await stack.muster(
                    "redis", "backup", "--to", stack.folder + "/b", "--address", "127.0.0.1:\(now)", "--password-file",
                    stack.folder + "/old",
                    "--yes"))
            check(try await stack.muster("down", stack.file, "--purge"))
            try stack.write(store: "role: state, memory: 64Mi, masters: 3, failover: 3s")
            check(try await stack.muster("up", "-d", stack.file))
            let first = try #require(try await stack.rows().first { $0.service == "state" }).port
            check(
                try await stack.muster(
                    "redis", "restore", "--from", stack.folder + "/b", "--address", "127.0.0.1:\(first)", "--password-file",
                    store + "/password", "--into-existing", "--verify", "full", "--yes"))
        }
    }
}
