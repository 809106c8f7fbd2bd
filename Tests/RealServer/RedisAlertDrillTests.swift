import Basics
import EventLoops
import Glibc
import Redis
import TestSupport
import Testing

/// Every alert of `stacks/redis-cluster` by a fault on real nodes that makes it fire, and its removal that makes it clear.
///
/// One cluster goes through all of it. The parts come one after the other, and each ends with no alert firing; faults of one part are on
/// different nodes. Nodes 0, 1, 2 are masters in the beginning, 3, 4, 5 their replicas.
@Suite struct RedisAlertDrillTests {
    private static let settings = ["maxmemory 16mb", "maxmemory-policy noeviction", "cluster-allow-replica-migration no"]

    @Test func everyAlertFiresAndClears() async throws {
        try await withRedisCluster(extra: Self.settings) { cluster, loop in
            try await RedisMonitoring.with(cluster, loop) { watch in
                try await watch.expectQuiet()
                try await fullAndFailing(cluster, loop, watch)
                try await noConnectionLeft(cluster, loop, watch)
                try await hangingReplica(cluster, loop, watch)
                try await lostMasters(cluster, loop, watch)
                try await lostShard(cluster, loop, watch)
                try await slotGivenUp(cluster, loop, watch)
                try await blind(watch)
                let text = try #require(Files.text(RedisMonitoring.stack + "/alerts.yml"))
                let all = Set(
                    text.split(separator: "\n").filter { $0.contains("- alert: ") }.compactMap {
                        $0.split(separator: " ").last.map(String.init)
                    })
                #expect(all.count > 10 && watch.haveFired == all, "not drilled: \(all.subtracting(watch.haveFired))")
            }
        }
    }

    /// Node 0 fills up, and then evicts; node 1 cannot write to its disk; node 4 has a wrong password for its master.
    private func fullAndFailing(_ cluster: RedisClusterFixture, _ loop: EventLoop, _ watch: RedisMonitoring) async throws {
        let filler = try Filler(cluster.nodeURL(0), loop)
        defer { filler.client.close() }
        let isFull = await filler.fill(100)
        #expect(isFull)

        // A folder where the file must go: what was written beside it cannot be renamed.
        let one = cluster.nodes[1].folder
        Files.remove(one + "/dump.rdb")
        try Files.makeFolder(one + "/dump.rdb")
        for number in 2...9 { try Files.makeFolder("\(one)/appendonlydir/appendonly.aof.\(number).base.rdb") }
        _ = try await cluster.ask(1, loop, RedisCommand("BGSAVE"))
        // While the snapshot is being written this is taken for later.
        _ = try await cluster.ask(1, loop, RedisCommand("BGREWRITEAOF"))

        _ = try await cluster.ask(4, loop, RedisCommand("CONFIG SET masterauth", "wrong"))
        _ = try await cluster.ask(4, loop, RedisCommand("CLIENT KILL TYPE", "master"))

        try await watch.expectFires([
            AlertSign("RedisMemoryNearLimit", watch.instance(0)),
            AlertSign("RedisPersistenceFailing", watch.instance(1).merging(["kind": "rdb snapshot"]) { $1 }),
            AlertSign("RedisPersistenceFailing", watch.instance(1).merging(["kind": "aof rewrite"]) { $1 }),
            AlertSign("RedisReplicationBroken", watch.instance(4)), AlertSign("RedisMasterWithoutReplica", watch.instance(1)),
        ])
        _ = try await cluster.ask(0, loop, RedisCommand("CONFIG SET maxmemory-policy", "allkeys-lru"))
        try await watch.expectFires([
            AlertSign("RedisStateMayEvict", watch.instance(0)), AlertSign("RedisStateEvicted", watch.instance(0)),
        ]) {
            _ = await filler.fill(1)
        }

        _ = try await cluster.ask(0, loop, RedisCommand("CONFIG SET maxmemory-policy", "noeviction"))
        _ = try await cluster.ask(0, loop, RedisCommand("FLUSHALL"))
        _ = try await cluster.ask(4, loop, RedisCommand("CONFIG SET masterauth", cluster.password))
        Files.remove(one + "/dump.rdb")
        for number in 2...9 where Files.list("\(one)/appendonlydir/appendonly.aof.\(number).base.rdb").isEmpty {
            rmdir("\(one)/appendonlydir/appendonly.aof.\(number).base.rdb")
        }
        _ = await eventually { (try? await cluster.ask(1, loop, RedisCommand("BGSAVE"))) != nil }
        _ = await eventually { (try? await cluster.ask(1, loop, RedisCommand("BGREWRITEAOF"))) != nil }
        try await watch.expectQuiet()
    }

    /// Clients hold nearly all connections of node 2, and then ask for more.
    private func noConnectionLeft(_ cluster: RedisClusterFixture, _ loop: EventLoop, _ watch: RedisMonitoring) async throws {
        // Ten of twenty are of the cluster's bus, one is the replica's and one the exporter's.
        _ = try await cluster.ask(2, loop, RedisCommand("CONFIG SET maxclients", "20"))
        let held = try (0..<6).map { _ in try RawSocket(port: cluster.nodes[2].port) }
        try await watch.expectFires([AlertSign("RedisConnectionsNearLimit", watch.instance(2))])
        try await watch.expectFires([AlertSign("RedisConnectionsRejected", watch.instance(2))]) {
            // More than there are: those beyond are refused, and gone at once.
            for more in (0..<4).map({ _ in try? RawSocket(port: cluster.nodes[2].port) }) { withExtendedLifetime(more) {} }
        }
        withExtendedLifetime(held) {}
        _ = await eventually { (try? await cluster.ask(2, loop, RedisCommand("CONFIG SET maxclients", "10000"))) != nil }
        try await watch.expectQuiet()
    }

    /// Replica 5 hangs while its master is written to; replica 3 is killed again and again.
    private func hangingReplica(_ cluster: RedisClusterFixture, _ loop: EventLoop, _ watch: RedisMonitoring) async throws {
        cluster.signal(5, SIGSTOP)
        // Twice the backlog.
        for i in 0..<8 {
            _ = try await cluster.ask(
                2, loop, RedisCommand("SET", RedisMonitoring.key("lag-\(i)", shard: 2), String(repeating: "x", count: 256 << 10)))
        }
        let restarts = AlertSign("RedisNodeRestarting", watch.instance(3))
        let seen = Tally()
        let processes = "count_over_time(redis_instance_info{instance=\"127.0.0.1:\(cluster.nodes[3].port)\"}[60s])"
        try await watch.expectFires([
            AlertSign("RedisReplicationLag", watch.instance(2).merging(["measure": "seconds"]) { $1 }),
            AlertSign("RedisReplicationLag", watch.instance(2).merging(["measure": "bytes"]) { $1 }),
            AlertSign("RedisNodeDown", watch.instance(5)), restarts,
        ]) {
            // Each process must be scraped, or it was never there.
            let known = try await watch.values(processes).count
            guard known > seen.count, !watch.haveFired.contains(restarts.name) else { return }
            seen.add(known - seen.count)
            await cluster.kill(3)
            try cluster.start(3)
        }
        cluster.signal(5, SIGCONT)
        try await watch.expectQuiet()
    }

    /// Master 0 is killed, and its replica takes over; then master 1 hangs, and its replica takes over.
    private func lostMasters(_ cluster: RedisClusterFixture, _ loop: EventLoop, _ watch: RedisMonitoring) async throws {
        await cluster.kill(0)
        let threeTookOver = await eventually(.seconds(30)) { await isMaster(cluster, 3, loop) }
        #expect(threeTookOver)
        cluster.signal(1, SIGSTOP)
        let fourTookOver = await eventually(.seconds(30)) { await isMaster(cluster, 4, loop) }
        #expect(fourTookOver)
        try await watch.expectFires([
            AlertSign("RedisNodeDown", watch.instance(0)), AlertSign("RedisNodeDown", watch.instance(1)),
            AlertSign("RedisNodeDown", ["scope": "cluster"]),
            AlertSign("RedisMasterWithoutReplica", watch.instance(3)),
            AlertSign("RedisMasterWithoutReplica", watch.instance(4)),
        ])
        try cluster.start(0)
        cluster.signal(1, SIGCONT)
        try await watch.expectQuiet()
    }

    private func isMaster(_ cluster: RedisClusterFixture, _ i: Int, _ loop: EventLoop) async -> Bool {
        (try? await cluster.ask(i, loop, RedisCommand("INFO", "replication")).string)?.contains("role:master") == true
    }

    /// Replica and master of one shard are killed: nobody takes over. Where nodes do not ask for full coverage, the state says ok all the
    /// same.
    private func lostShard(_ cluster: RedisClusterFixture, _ loop: EventLoop, _ watch: RedisMonitoring) async throws {
        await cluster.kill(5)
        await cluster.kill(2)
        let slots = [AlertSign("RedisSlotsNotOk"), AlertSign("RedisSlotsFailing"), AlertSign("RedisQuorumAtRisk")]
        try await watch.expectFires(slots + [AlertSign("RedisClusterDown")])
        for i in [0, 1, 3, 4] { _ = try await cluster.ask(i, loop, RedisCommand("CONFIG SET cluster-require-full-coverage", "no")) }
        let looksGreen = await eventually(.seconds(30)) {
            guard let alerts = try? await watch.firing() else { return false }
            return slots.allSatisfy { sign in alerts.contains { sign.isMet(by: $0) } }
                && !alerts.contains { AlertSign("RedisClusterDown").isMet(by: $0) }
        }
        #expect(looksGreen)
        try cluster.start(2)
        try cluster.start(5)
        try await watch.expectQuiet()
    }

    /// The master of a slot gives it up. No node is missing, and the other nodes do not know it.
    private func slotGivenUp(_ cluster: RedisClusterFixture, _ loop: EventLoop, _ watch: RedisMonitoring) async throws {
        _ = try await cluster.ask(3, loop, RedisCommand("CLUSTER DELSLOTS", "0"))
        try await watch.expectFires([AlertSign("RedisSlotsNotOk")])
        let alerts = try await watch.firing()
        #expect(!alerts.contains { AlertSign("RedisSlotsFailing").isMet(by: $0) })
        _ = try await cluster.ask(3, loop, RedisCommand("CLUSTER ADDSLOTS", "0"))
        try await watch.expectQuiet()
    }

    /// The exporter goes: that is told, and no node is blamed. Then a target vanishes.
    private func blind(_ watch: RedisMonitoring) async throws {
        await watch.killExporter()
        try await watch.expectFires([AlertSign("RedisExporterDown")])
        let isAlone = await eventually(.seconds(30)) { (try? await watch.firing())?.map { $0["alertname"] } == ["RedisExporterDown"] }
        #expect(isAlone)
        try watch.startExporter()
        try await watch.expectQuiet()

        try watch.watch(only: [0, 1, 2, 3, 4])
        try await watch.expectFires([AlertSign("RedisNodeDown", ["scope": "cluster"])])
        let noneIsBlamed = try await watch.firing().allSatisfy { $0["scope"] == "cluster" }
        #expect(noneIsBlamed)
        try watch.watch(only: [0, 1, 2, 3, 4, 5])
        try await watch.expectQuiet()
    }
}

/// Fills one node with large values.
private final class Filler: Sendable {
    let client: RedisClient
    private let keys = Tally()

    init(_ url: String, _ loop: EventLoop) throws {
        client = RedisClient(url: try RedisURL(url), loop: loop)
        client.start()
    }

    /// Writes until the node refuses; false when it has taken all.
    func fill(_ most: Int) async -> Bool {
        for _ in 0..<most {
            keys.add()
            let set = RedisCommand("SET", RedisMonitoring.key("fill-\(keys.count)", shard: 0), String(repeating: "x", count: 256 << 10))
            if (try? await client.send(set)) == nil { return true }
        }
        return false
    }
}
