import Basics
import EventLoops
import Glibc
import JSONCoding
import Provisioning
import Redis
import Sharding
import Synchronization
import TestSupport
import Testing

/// Backups of real clusters, and what can be made of them.
@Suite(.serialized) struct RedisBackupTests {
    @Test func aBackupIsRestoredIntoFiveMastersAndIntoOneServer() async throws {
        try await withFolder { folder in
            let (all, report) = try await withRedisCluster { cluster, loop in
                let client = try BackupData.client(cluster.url, loop)
                defer { client.close() }
                try await BackupData.fill(client)
                try await BackupData.fillLarge(client)
                for i in 0..<3 { _ = try await cluster.ask(i, loop, RedisCommand("FUNCTION LOAD", BackupData.library)) }
                let masters = (0..<3).map(cluster.nodeURL)
                let before = try await BackupData.everything(masters, loop)
                let backups = try await takeThreeWays(cluster, loop, folder)
                #expect(backups.map(\.keys) == [before.count, before.count, before.count])
                return (before, backups)
            }
            #expect(all.count > 500 && report[0].shards.count == 3)
            let names = ["diskless", "disk", "replicas"].map { "\(folder)/\($0)" }
            var mode = stat()
            stat(names[0], &mode)
            #expect(mode.st_mode & 0o777 == 0o700)
            for name in Files.list(names[0]) {
                stat("\(names[0])/\(name)", &mode)
                #expect(mode.st_mode & 0o777 == 0o600, "\(name)")
            }
            try await withLoop { loop in
                let drill = try await BackupDrill.run(folder: names[2], on: loop) { _ in }
                #expect(drill.holds && drill.compared == all.count && drill.counts.large == 5 && drill.libraries == 1)
            }
            try await withRedisCluster(masters: 5, replicas: 0) { cluster, loop in
                let report = try await BackupData.restore(names[0], cluster.backupSession(loop)) { $0.verifiesAll = true }
                #expect(report.holds && report.counts.restored == all.count && report.compared == all.count && report.differing == 0)
                let after = try await BackupData.everything((0..<5).map(cluster.nodeURL), loop)
                BackupData.expectEqual(all, after)
                for i in 0..<5 {
                    let answer = try await cluster.ask(i, loop, RedisCommand("FCALL", "answer", "0")).int
                    #expect(answer == 42)
                }
            }
            try await withRedis { redis in
                try await withLoop { loop in
                    let session = ClusterSession(
                        seeds: [NodeAddress(host: "127.0.0.1", port: redis.port)], credentials: RedisCredentials(password: redis.password),
                        loop: loop)
                    let report = try await BackupData.restore(names[1], session) { _ in }
                    #expect(report.holds && report.counts.restored == all.count && report.found == all.count && report.compared < all.count)
                    let after = try await BackupData.everything([redis.url], loop)
                    BackupData.expectEqual(all, after)
                }
            }
        }
    }

    /// Straight from memory, from a file of the master's, and by the replicas.
    private func takeThreeWays(_ cluster: RedisClusterFixture, _ loop: EventLoop, _ folder: String) async throws -> [BackupManifest] {
        let session = cluster.backupSession(loop)
        defer { session.close() }
        let diskless = try await BackupData.take(session, "\(folder)/diskless")
        for i in 0..<3 { _ = try await cluster.ask(i, loop, RedisCommand("CONFIG SET", "repl-diskless-sync", "no")) }
        let disk = try await BackupData.take(session, "\(folder)/disk")
        let replicas = try await BackupData.take(session, "\(folder)/replicas", fromReplicas: true)
        for shard in replicas.shards { #expect(shard.source != shard.address && shard.sourceID != shard.id) }
        for shard in diskless.shards + disk.shards {
            #expect(shard.source == shard.address && shard.lag == 0 && shard.redisVersion.hasPrefix("7."))
        }
        #expect(Set(diskless.shards.map(\.slots.description)) == ["0-5460", "5461-10921", "10922-16383"])
        return [diskless, disk, replicas]
    }

    /// Every write that was acknowledged before the backup began is in it, and each snapshot is one moment: of two keys of a slot that are
    /// written one after the other, the second is never ahead.
    @Test func aSteadyWriterIsNotLostAndNotTorn() async throws {
        try await withFolder { folder in
            let acknowledged = try await withRedisCluster(replicas: 0) { cluster, loop in
                let client = try BackupData.client(cluster.url, loop)
                defer { client.close() }
                let pairs = PairWriters(count: 16)
                let writers = (0..<16).map { writer in Task { try await pairs.write(writer, client) } }
                let isWarm = await eventually { pairs.counts.allSatisfy { $0 > 50 } }
                #expect(isWarm)
                let before = pairs.counts
                let session = cluster.backupSession(loop)
                defer { session.close() }
                _ = try await BackupData.take(session, "\(folder)/b")
                pairs.stop()
                for writer in writers { try await writer.value }
                return before
            }
            try await withRedis { redis in
                try await withLoop { loop in
                    let session = ClusterSession(
                        seeds: [NodeAddress(host: "127.0.0.1", port: redis.port)], credentials: RedisCredentials(password: redis.password),
                        loop: loop)
                    let report = try await BackupData.restore("\(folder)/b", session) { _ in }
                    #expect(report.holds)
                    try await redis.withClient(loop) { client in
                        for (writer, count) in acknowledged.enumerated() {
                            let first = Int(try await client.send(RedisCommand("GET", "{w\(writer)}first")).string ?? "") ?? -1
                            let second = Int(try await client.send(RedisCommand("GET", "{w\(writer)}second")).string ?? "") ?? -1
                            #expect(second >= count && (first == second || first == second + 1), "\(first) \(second) \(count)")
                        }
                    }
                }
            }
        }
    }

    /// Planned, then a master hands over, and another one dies: the first try is void, the second has the masters that there are now.
    @Test(arguments: [false, true]) func aMasterThatIsReplacedMeanwhileIsFollowed(isKilled: Bool) async throws {
        try await withFolder { folder in
            try await withRedisCluster { cluster, loop in
                let client = try BackupData.client(cluster.url, loop)
                defer { client.close() }
                try await BackupData.fill(client)
                let session = cluster.backupSession(loop)
                defer { session.close() }
                let backup = try await Backup.plan(session, folder: "\(folder)/b", fromReplicas: false)
                if isKilled {
                    await cluster.kill(0)
                } else {
                    _ = try await cluster.ask(3, loop, RedisCommand("CLUSTER FAILOVER"))
                    let hasHeir = await eventually(.seconds(20)) {
                        (try? await cluster.ask(3, loop, RedisCommand("ROLE")).array?.first?.string) == "master"
                    }
                    let isWhole = await cluster.isWhole(loop)
                    #expect(hasHeir && isWhole)
                }
                let lines = Mutex<[String]>([])
                let manifest = try await backup.take(session) { line in lines.withLock { $0.append(line) } }
                #expect(lines.withLock { $0.contains { $0.contains("once more") } })
                #expect(manifest.shards.map(\.address).contains("127.0.0.1:\(cluster.nodes[3].port)"))
                let drill = try await BackupDrill.run(folder: "\(folder)/b", on: loop) { _ in }
                #expect(drill.holds && drill.counts.restored == manifest.keys)
                #expect(Files.list(folder) == ["b"])
            }
        }
    }

    @Test func whatWouldNotBeWholeIsRefused() async throws {
        try await withFolder { folder in
            try await withRedisCluster(replicas: 0) { cluster, loop in
                func refusal(_ session: ClusterSession, _ name: String = "b", fromReplicas: Bool = false) async -> ProvisioningFailure? {
                    defer { session.close() }
                    do throws(ProvisioningFailure) {
                        _ = try await Backup.plan(session, folder: "\(folder)/\(name)", fromReplicas: fromReplicas)
                    } catch { return error }
                    return nil
                }
                let wrong = await refusal(cluster.backupSession(loop, password: "wrong"))
                #expect(wrong?.code == .authentication)
                let nobody = ClusterSession(
                    seeds: [NodeAddress(host: "127.0.0.1", port: 1)], credentials: RedisCredentials(password: nil), loop: loop)
                let silent = await refusal(nobody)
                #expect(silent?.code == .unreachable)
                let without = await refusal(cluster.backupSession(loop), fromReplicas: true)
                #expect(without?.message.contains("no replica that is in step") == true)
                try Files.makeFolder("\(folder)/full/x")
                let full = await refusal(cluster.backupSession(loop), "full")
                #expect(full?.message.contains("not empty") == true)
                // A slot on its way, then nobody's.
                let other = try await cluster.ask(1, loop, RedisCommand("CLUSTER MYID")).string ?? ""
                _ = try await cluster.ask(0, loop, RedisCommand("CLUSTER SETSLOT", "7", "MIGRATING", other))
                let moving = await refusal(cluster.backupSession(loop))
                #expect(moving?.message.contains("slot 7 is on its way") == true && moving?.message.contains("muster redis fix") == true)
                _ = try await cluster.ask(0, loop, RedisCommand("CLUSTER SETSLOT", "7", "STABLE"))
                let fine = await refusal(cluster.backupSession(loop))
                #expect(fine == nil)
                await cluster.kill(2)
                let lost = await refusal(cluster.backupSession(loop))
                #expect(lost?.message.contains("does not answer") == true, "\(lost?.description ?? "")")
                #expect(Files.list(folder) == ["full"])
            }
        }
    }

    /// What was done to a backup, and what is said of it.
    @Test func aDamagedBackupIsNotRestored() async throws {
        try await withFolder { folder in
            try await withRedisCluster(replicas: 0) { cluster, loop in
                let client = try BackupData.client(cluster.url, loop)
                try await BackupData.fill(client)
                client.close()
                let session = cluster.backupSession(loop)
                defer { session.close() }
                let manifest = try await BackupData.take(session, "\(folder)/b")
                let snapshot = "\(folder)/b/\(manifest.shards[0].file)", list = "\(folder)/b/manifest.json"
                let good = try Files.read(snapshot), text = Files.text(list) ?? ""
                func said() async -> String {
                    do throws(ProvisioningFailure) { _ = try await BackupDrill.run(folder: "\(folder)/b", on: loop) { _ in } } catch {
                        return error.description
                    }
                    return "nothing"
                }
                func altered(_ path: String, _ bytes: [UInt8]) async throws -> String {
                    let before = try Files.read(path)
                    try Files.replace(path, with: bytes)
                    let words = await said()
                    try Files.replace(path, with: before)
                    return words
                }
                let cut = try await altered(snapshot, Array(good.dropLast(100)))
                #expect(cut.contains("cut off"))
                // Cut where it happens to look like an end: the byte before the last eight says "end".
                var lucky = Array(good.dropLast(100))
                lucky[lucky.count - 9] = 0xFF
                let endsWell = try await altered(snapshot, lucky)
                #expect(endsWell.contains("cut off"))
                var bytes = good
                bytes[bytes.count / 2] ^= 4
                let flipped = try await altered(snapshot, bytes)
                #expect(flipped.contains("CRC-64"))
                // Whole in itself, and not the one that was taken.
                let exchanged = try await altered(snapshot, try Files.read("\(folder)/b/\(manifest.shards[1].file)"))
                #expect(exchanged.contains("the manifest says"))
                let later = try await altered(list, Array(text.replacing("\"format\":1", with: "\"format\":9").utf8))
                #expect(later.contains("format 9") && later.contains("later version of muster"))
                let counted = try await altered(
                    list, Array(text.replacing("\"keys\":\(manifest.shards[0].keys),", with: "\"keys\":1,").utf8))
                #expect(counted.contains("the manifest is altered"))
                unlink(snapshot)
                let missing = await said()
                #expect(missing.contains("No such file"))
                unlink(list)
                let empty = await said()
                #expect(empty.contains("never finished"))
            }
        }
    }

    /// Keys that are there already: equal ones are left, others told; with --replace they are as the backup has them.
    @Test func existingKeysAreComparedAndReplacedOnlyWhenAsked() async throws {
        try await withFolder { folder in
            try await withRedisCluster(replicas: 0) { cluster, loop in
                let client = try BackupData.client(cluster.url, loop)
                defer { client.close() }
                try await BackupData.fill(client)
                try await BackupData.fillLarge(client)
                let masters = (0..<3).map(cluster.nodeURL)
                let before = try await BackupData.everything(masters, loop)
                let session = cluster.backupSession(loop)
                defer { session.close() }
                _ = try await BackupData.take(session, "\(folder)/b")
                let failure = await #expect(throws: ProvisioningFailure.self) {
                    _ = try await Restore.plan(session, Restore.Options(folder: "\(folder)/b")) { _ in }
                }
                #expect(failure?.message.contains("--into-existing") == true)
                for (name, value) in [("string:1", "other"), ("large:string", "other"), ("mine", "stays")] {
                    _ = try await client.send(RedisCommand("SET", name, value))
                }
                _ = try await client.send(RedisCommand("HSET", "large:hash", "field:1", "other"))
                _ = try await client.send(RedisCommand("PEXPIREAT", "hash:1", "4102444800000"))
                _ = try await client.send(RedisCommand("DEL", "hash:2"))
                let beside = try await BackupData.restore("\(folder)/b", cluster.backupSession(loop)) { $0.intoExisting = true }
                #expect(
                    !beside.holds && beside.counts.restored == 1 && beside.counts.conflicts == 4
                        && beside.counts.already == before.count - 5)
                #expect(Set(beside.counts.conflictNames) == ["string:1", "large:string", "large:hash", "hash:1"])
                let over = try await BackupData.restore("\(folder)/b", cluster.backupSession(loop)) {
                    $0.replaces = true
                    $0.verifiesAll = true
                }
                #expect(over.holds && over.counts.restored == before.count)
                let mine = try await client.send(RedisCommand("GETDEL", "mine")).string
                #expect(mine == "stays")
                BackupData.expectEqual(before, try await BackupData.everything(masters, loop))
            }
        }
    }
}

/// Writers of two keys of one slot each, the second after the first.
private final class PairWriters: Sendable {
    private struct State {
        var counts: [Int]
        var isOver = false
    }
    private let state: Mutex<State>

    init(count: Int) { state = Mutex(State(counts: Array(repeating: 0, count: count))) }

    /// Pairs that were acknowledged, by writer.
    var counts: [Int] { state.withLock { $0.counts } }
    func stop() { state.withLock { $0.isOver = true } }

    func write(_ writer: Int, _ client: RedisClient) async throws {
        var n = 0
        while !state.withLock({ $0.isOver }) {
            n += 1
            _ = try await client.send(RedisCommand("SET", "{w\(writer)}first", String(n)))
            _ = try await client.send(RedisCommand("SET", "{w\(writer)}second", String(n)))
            let done = n
            state.withLock { $0.counts[writer] = done }
        }
    }
}

extension RedisClusterFixture {
    func backupSession(_ loop: EventLoop, password: String? = nil) -> ClusterSession {
        ClusterSession(
            seeds: [NodeAddress(host: "127.0.0.1", port: nodes[1].port)],
            credentials: RedisCredentials(password: password ?? self.password), loop: loop)
    }
}
