import Basics
import EventLoops
import Glibc
import JSONCoding
import Provisioning
import Redis
import Sharding
import TestSupport
import Testing

/// `muster redis backup` and `restore` as a person or a script calls them: status, output, what is left behind.
@Suite(.serialized) struct RedisBackupVerbTests {
    private func arguments(_ verb: [String], _ port: UInt16, _ folder: String) -> [String] {
        ["redis"] + verb + ["--address", "127.0.0.1:\(port)", "--password-file", "\(folder)/password"]
    }

    private func writePassword(_ password: String, _ folder: String) throws {
        try Files.replace("\(folder)/password", with: Array((password + "\n").utf8), mode: 0o600)
    }

    /// The JSON object among the lines of a program that also tells its progress.
    private func object(_ output: String) -> [UInt8] { Array((output.split(separator: "\n").first { $0.hasPrefix("{") } ?? "").utf8) }

    @Test func planBackupDrillRestore() async throws {
        try await withFolder { folder in
            try await withRedisCluster(replicas: 0) { cluster, loop in
                try writePassword(cluster.password, folder)
                let client = try BackupData.client(cluster.url, loop)
                try await BackupData.fill(client)
                client.close()
                let muster = builtProgram("muster"), port = cluster.nodes[2].port
                let plan = try await run(muster, arguments(["backup", "--to", "\(folder)/deep/b", "--dry-run"], port, folder))
                #expect(
                    plan.status == 0 && plan.output.contains("nothing was changed") && plan.output.contains("slots 0-5460")
                        && Files.list(folder) == ["password"])
                let unasked = try await run(muster, arguments(["backup", "--to", "\(folder)/deep/b"], port, folder))
                #expect(unasked.status == 2 && unasked.output.contains("--yes"))
                let made = try await run(
                    muster, arguments(["backup", "--to", "\(folder)/deep/b", "--drill", "--json", "--yes"], port, folder))
                #expect(made.status == 0 && made.output.contains("the drill holds"), "\(made.output)")
                let keys = try JSONDocument().parse(object(made.output)) { root in
                    #expect(
                        root["drill"]?["holds"]?.bool == true && root["manifest"]?["masters"]?.array?.count == 3
                            && root["applied"]?.bool == true)
                    #expect(root["drill"]?["verified"]?.int == root["manifest"]?["keys"]?.int)
                    return root["manifest"]?["keys"]?.int ?? 0
                }
                #expect(keys > 500)
                let again = try await run(muster, arguments(["backup", "--to", "\(folder)/deep/b", "--yes"], port, folder))
                #expect(again.status == 1 && again.output.contains("not empty"))
                let drill = try await run(muster, ["redis", "backup", "--drill", "--from", "\(folder)/deep/b"])
                #expect(drill.status == 0 && drill.output.contains("\(keys) keys restored, \(keys) verified, 0 differ"))
                let refused = try await run(muster, arguments(["restore", "--from", "\(folder)/deep/b", "--yes"], port, folder))
                #expect(refused.status == 1 && refused.output.contains("--into-existing"))
                let equal = try await run(
                    muster, arguments(["restore", "--from", "\(folder)/deep/b", "--into-existing", "--yes"], port, folder))
                #expect(equal.status == 0 && equal.output.contains("\(keys) were there already, equal"), "\(equal.output)")
                try writePassword("not-the-password", folder)
                let wrong = try await run(muster, arguments(["backup", "--to", "\(folder)/c", "--yes"], port, folder))
                #expect(wrong.status == 1 && wrong.output.contains("password or the user's name is wrong"), "\(wrong.output)")
                let usage = try await run(muster, ["redis", "restore", "--address", "127.0.0.1:1"])
                #expect(usage.status == 2 && usage.output.contains("--from DIR is needed"))
            }
        }
    }

    /// kill -9 in the middle: its private server ends with it, and the same command completes what was begun.
    @Test func aRestoreThatIsKilledIsCompletedByTheNext() async throws {
        try await withFolder { folder in
            try Files.makeFolder("\(folder)/scratch", mode: 0o700)
            let before = try await withRedisCluster(replicas: 0) { cluster, loop in
                let client = try BackupData.client(cluster.url, loop)
                defer { client.close() }
                try await BackupData.fill(client)
                try await BackupData.fillLarge(client)
                let session = cluster.backupSession(loop)
                defer { session.close() }
                _ = try await BackupData.take(session, "\(folder)/b")
                return try await BackupData.everything((0..<3).map(cluster.nodeURL), loop)
            }
            try await withRedisCluster(masters: 4, replicas: 0) { cluster, loop in
                try writePassword(cluster.password, folder)
                let words = arguments(
                    ["restore", "--from", "\(folder)/b", "--yes", "--json", "--verify", "full"], cluster.nodes[0].port, folder)
                let environment = ["TMPDIR": "\(folder)/scratch"]
                var kills = 0
                for wanted in [50, 300] {
                    let child = try Child(
                        builtProgram("muster"), words, environment: environment, log: "\(folder)/log-\(wanted)", folder: folder)
                    let isBegun = await eventually(.seconds(60)) {
                        var keys = 0
                        for i in 0..<4 { keys += (try? await cluster.ask(i, loop, RedisCommand("DBSIZE")).int) ?? 0 }
                        return keys >= wanted
                    }
                    #expect(isBegun)
                    child.send(SIGKILL)
                    if await child.end() == -SIGKILL { kills += 1 }
                    let isAlone = await eventually { scratchServers("\(folder)/scratch").isEmpty }
                    #expect(isAlone)
                }
                #expect(kills > 0)
                let last = try await run(builtProgram("muster"), words, environment: environment, limit: .seconds(120))
                #expect(last.status == 0, "\(last.output)")
                let (restored, already) = try JSONDocument().parse(object(last.output)) { root in
                    (root["report"]?["restored"]?.int ?? 0, root["report"]?["already"]?.int ?? 0)
                }
                #expect(restored + already == before.count && already >= 50)
                BackupData.expectEqual(before, try await BackupData.everything((0..<4).map(cluster.nodeURL), loop))
            }
        }
    }

    /// redis-servers whose folder lies there.
    private func scratchServers(_ folder: String) -> [String] {
        Files.list("/proc").filter { pid in
            guard Int32(pid) != nil else { return false }
            return Files.absolute("/proc/\(pid)/cwd").hasPrefix(folder)
                && Files.text("/proc/\(pid)/stat")?.contains("(redis-server)") == true
        }
    }

    /// A file system of a few megabytes: refused where it is too small from the start; where it fills up on the way, told and cleaned up.
    @Test func aFullDiskIsToldAndLeavesNothing() async throws {
        try await withFolder { folder in
            try await withRedisCluster(replicas: 0) { cluster, loop in
                try writePassword(cluster.password, folder)
                let client = try BackupData.client(cluster.url, loop)
                try await BackupData.fillLarge(client)
                client.close()
                // Time to fill the disk between the plan and the snapshot.
                for i in 0..<3 { _ = try await cluster.ask(i, loop, RedisCommand("CONFIG SET", "repl-diskless-sync-delay", "2")) }
                try Files.makeFolder("\(folder)/disk", mode: 0o700)
                func onDisk(_ megabytes: Int, _ script: String) async throws -> (status: Int32, output: String) {
                    let words = arguments(["backup", "--to", "\(folder)/disk/b", "--yes"], cluster.nodes[0].port, folder)
                    let call = ([builtProgram("muster")] + words).joined(separator: " ")
                    let mount = "mount -t tmpfs -o size=\(megabytes)m tmpfs \(folder)/disk && cd \(folder)/disk || exit 9"
                    return try await run("/usr/bin/unshare", ["-rm", "/bin/sh", "-c", "\(mount); \(script.replacing("CALL", with: call))"])
                }
                let small = try await onDisk(2, "CALL; code=$?; ls; exit $code")
                #expect(
                    small.status == 1 && small.output.contains("free; the masters use") && !small.output.contains("unfinished"),
                    "\(small.output)")
                let filling =
                    "(CALL; echo $? > status) & while ! ls b.unfinished/*.rdb > seen 2> none; do sleep 0.02; done; cat /dev/zero > fill "
                    + "2> none; wait; rm fill; echo left: *; cat status"
                let full = try await onDisk(64, filling)
                #expect(
                    full.output.contains("No space left on device") && full.output.contains("what was written is removed"), "\(full.output)"
                )
                #expect(full.output.contains("left: none seen status"), "\(full.output)")
            }
        }
    }

    /// Small, so that the script does not rot.
    @Test func theBenchmarkRuns() async throws {
        let result = try await run(
            "\(projectFolder)/Benchmarks/redis-backup", ["--megabytes", "8"], environment: ["MUSTER_BIN": builtProgram("muster")],
            folder: projectFolder,
            limit: .seconds(180))
        #expect(
            result.status == 0 && result.output.contains("| restore into 5 masters |")
                && result.output.contains("| restore into one server |"), "\(result.output)")
    }
}
