import Basics
import Glibc
import Provisioning
import Redis
import Sharding
import TestSupport
import Testing

/// Slots on their way on real nodes, while somebody writes.
@Suite struct RedisReshardTests {
    @Test func threeMastersBecomeFourAndThreeAgainUnderWrites() async throws {
        try await withLocalCluster { cluster in
            let client = try FollowingClient(cluster)
            defer { client.close() }
            try await client.fill(300)
            let before = try await client.contents(300)
            let writer = SteadyWriter(client)
            let new = cluster.ports[6...7].map { "127.0.0.1:\($0)" }
            try await writer.run {
                let added = try await cluster.operate(
                    "add", "--ports", "\(cluster.ports[6])-\(cluster.ports[7])", "--dir", cluster.directory, "--masters", "--yes")
                #expect(added.status == 0, "\(added.output)")
                let spread = try await cluster.operate("rebalance", "--yes", "--json")
                #expect(spread.status == 0 && spread.output.contains("\"slots_moved\":4096"), "\(spread.output)")
                let even = try await cluster.operate("rebalance", "--yes")
                #expect(even.status == 0 && even.output.contains("nothing moves"), "\(even.output)")
                let four = try await cluster.operate("status")
                #expect(four.status == 0 && four.output.contains("whole: 4 masters, 4 replicas"), "\(four.output)")
                let removed = try await cluster.operate("remove", new[0], new[1], "--dir", cluster.directory, "--yes")
                #expect(removed.status == 0, "\(removed.output)")
            }
            let three = try await cluster.operate("status")
            #expect(three.status == 0 && three.output.contains("whole: 3 masters, 3 replicas"), "\(three.output)")
            #expect(writer.failures.withLock { Array($0.prefix(3)) } == [])
            #expect(writer.written > 1_000)
            let wrong = try await writer.wrong()
            #expect(wrong == [])
            let after = try await client.contents(300)
            #expect(after == before)
            let isGone = await eventually {
                cluster.pid(6) == 0 || Files.text("/proc/\(cluster.pid(6))/cmdline")?.contains("redis") != true
            }
            #expect(isGone)
        }
    }

    @Test func aKilledRebalanceIsFinishedByTheNext() async throws {
        try await withLocalCluster { cluster in
            let client = try FollowingClient(cluster)
            defer { client.close() }
            try await client.fill(1_500)
            let before = try await client.contents(1_500)
            let writer = SteadyWriter(client)
            let heavy = "127.0.0.1:\(cluster.ports[0])=3"
            try await writer.run {
                for round in 0..<4 {
                    let log = "\(cluster.folder)/rebalance-\(round)"
                    let mover = try Child(
                        builtProgram("muster"), ["redis", "rebalance", "--weight", heavy, "--rate", "400/s", "--yes"] + cluster.access,
                        log: log, folder: cluster.folder)
                    // Killed with a slot open.
                    let isOpen = try await eventually(.seconds(30)) {
                        try await cluster.ask(cluster.ports[0], RedisCommand("CLUSTER NODES"))[0].string?.contains("-<-") == true
                    }
                    #expect(isOpen, "\(mover.output)")
                    await mover.destroy()
                }
                let last = try await cluster.operate("rebalance", "--weight", heavy, "--yes")
                #expect(last.status == 0, "\(last.output)")
            }
            let (isWhole, text) = try await cluster.status()
            #expect(isWhole, "\(text)")
            let fix = try await cluster.operate("fix", "--yes")
            #expect(fix.status == 0 && fix.output.contains("nothing is wrong"), "\(fix.output)")
            let counts = try await cluster.ask(cluster.ports[0], RedisCommand("CLUSTER NODES"))[0].string.map {
                try ClusterNodes($0).myself.slots.count
            }
            #expect(counts == 9830 || counts == 9831)
            #expect(writer.failures.withLock { Array($0.prefix(3)) } == [])
            let wrong = try await writer.wrong()
            #expect(wrong == [])
            let after = try await client.contents(1_500)
            #expect(after == before)
        }
    }

    /// A master and its only replica are gone with their data: nothing gives their slots away unasked.
    @Test func lostSlotsAreGivenAwayOnlyWhenNamed() async throws {
        try await withLocalCluster { cluster in
            let client = try FollowingClient(cluster)
            defer { client.close() }
            try await client.fill(30)
            for i in [0, 3] { kill(cluster.pid(i), SIGKILL) }
            let isFailed = try await eventually(.seconds(30)) {
                let nodes = try ClusterNodes(try await cluster.ask(cluster.ports[1], RedisCommand("CLUSTER NODES"))[0].string ?? "")
                return nodes.nodes.filter(\.isFailed).count == 2
            }
            #expect(isFailed)
            let unasked = try await cluster.operate("fix", "--yes")
            #expect(unasked.status == 1 && unasked.output.contains("lost-slots (loses)"), "\(unasked.output)")
            let misspelt = try await cluster.operate("fix", "--accept-loss", "lost-slot", "--yes")
            #expect(misspelt.status == 2 && misspelt.output.contains("did you mean 'lost-slots'"), "\(misspelt.output)")
            let still = try await cluster.ask(cluster.ports[1], RedisCommand("CLUSTER INFO"))[0].string ?? ""
            #expect(still.contains("cluster_slots_fail:5461"))
            // What was not shown is not agreed to.
            let session = ClusterSession(
                seeds: [NodeAddress(host: "127.0.0.1", port: cluster.ports[1])], credentials: RedisCredentials(password: cluster.password),
                loop: cluster.loop)
            defer { session.close() }
            let left = try await ClusterRepair(session, tell: { _ in }).mendAll(agreed: [])
            #expect(left.contains { $0.name == "lost-slots" && $0.risk == .loses })
            let given = try await cluster.operate("fix", "--accept-loss", "lost-slots", "--yes")
            #expect(given.output.contains("gets slots 0-5460"), "\(given.output)")
            let removed = try await cluster.operate("remove", "127.0.0.1:\(cluster.ports[0])", "127.0.0.1:\(cluster.ports[3])", "--yes")
            #expect(removed.status == 0, "\(removed.output)")
            let (isWhole, text) = try await cluster.status()
            #expect(isWhole && text.contains("\"slots_assigned\":16384"), "\(text)")
            // What the others hold is untouched.
            for i in 0..<30 where HashSlot.of("hash:\(i)") > 5460 {
                let value = try await client.send(RedisCommand("HGET", "hash:\(i)", "a")).string
                #expect(value == "\(i)")
            }
        }
    }

    /// A master is gone with its data, and its replica, which was not allowed to take over, has the only copy: it keeps it.
    @Test func slotsOfWhichAReplicaHasACopyAreNotGivenAway() async throws {
        try await withLocalCluster { cluster in
            let client = try FollowingClient(cluster)
            defer { client.close() }
            try await client.fill(30)
            func keys() async throws -> Int { try await cluster.ask(cluster.ports[3], RedisCommand("DBSIZE"))[0].int ?? 0 }
            let master = try await cluster.ask(cluster.ports[0], RedisCommand("DBSIZE"))[0].int ?? 0
            #expect(master > 0)
            #expect(try await eventually { try await keys() == master })
            let before = try await client.contents(30)
            _ = try await cluster.ask(cluster.ports[3], RedisCommand("CONFIG SET", "cluster-replica-no-failover", "yes"))
            kill(cluster.pid(0), SIGKILL)
            for name in ["nodes.conf", "appendonlydir", "dump.rdb"] {
                Files.remove("\(cluster.directory)/node-\(cluster.ports[0])/\(name)")
            }
            let isFailed = try await eventually(.seconds(30)) {
                try await cluster.ask(cluster.ports[1], RedisCommand("CLUSTER INFO"))[0].string?.contains("cluster_slots_fail:5461") == true
            }
            #expect(isFailed)
            let replica = "127.0.0.1:\(cluster.ports[3])"
            let kept = try await cluster.operate("fix", "--accept-loss", "lost-slots", "--yes")
            #expect(kept.status == 1 && kept.output.contains("muster redis failover \(replica) --force"), "\(kept.output)")
            #expect(!kept.output.contains("gets slots"), "\(kept.output)")
            #expect(try await keys() == master)
            // The way that is named.
            _ = try await cluster.ask(cluster.ports[3], RedisCommand("CONFIG SET", "cluster-replica-no-failover", "no"))
            let taken = try await cluster.operate("failover", replica, "--force", "--yes")
            #expect(taken.status == 0, "\(taken.output)")
            #expect(try await client.contents(30) == before)
        }
    }

    @Test func fixFinishesAnOpenSlotAndBringsStrayKeysHome() async throws {
        try await withLocalCluster { cluster in
            let client = try FollowingClient(cluster)
            defer { client.close() }
            let key = { (i: Int) in "{tag}\(i)" }
            let slot = HashSlot.of("{tag}")
            for i in 0..<200 { _ = try await client.send(RedisCommand("SET", key(i), "v\(i)")) }
            let owner = try required(cluster.ports[0..<3].first { $0 == cluster.ports[slot < 5461 ? 0 : slot < 10923 ? 1 : 2] })
            let other = try required(cluster.ports[0..<3].first { $0 != owner })
            let ids = try await [owner, other].mapAsync { try await cluster.ask($0, RedisCommand("CLUSTER MYID"))[0].string ?? "" }
            // Begun by hand and left: open at both ends, ten keys over there.
            _ = try await cluster.ask(other, RedisCommand("CLUSTER SETSLOT", String(slot), "IMPORTING", ids[0]))
            _ = try await cluster.ask(owner, RedisCommand("CLUSTER SETSLOT", String(slot), "MIGRATING", ids[1]))
            var migrate = RedisCommand("MIGRATE", "127.0.0.1", String(other), "", "0", "2000", "AUTH", cluster.password, "KEYS")
            for i in 0..<10 { migrate.add(key(i)) }
            _ = try await cluster.ask(owner, migrate)
            let short = try await cluster.operate("status")
            #expect(short.status == 1 && short.output.contains("slot \(slot) is on its way"), "\(short.output)")
            let dry = try await cluster.operate("fix", "--dry-run")
            #expect(dry.status == 0 && dry.output.contains("open-slot (moves)") && dry.output.contains("190 keys"), "\(dry.output)")
            let fixed = try await cluster.operate("fix", "--yes")
            #expect(fixed.status == 0, "\(fixed.output)")
            for i in 0..<200 {
                let value = try await client.send(RedisCommand("GET", key(i))).string
                #expect(value == "v\(i)")
            }
            // A key that lies where it does not belong: written to the old owner while that was made to receive, then closed.
            _ = try await cluster.ask(owner, RedisCommand("CLUSTER SETSLOT", String(slot), "IMPORTING", ids[1]))
            _ = try await cluster.ask(owner, RedisCommand("ASKING"), RedisCommand("SET", key(900), "lost and found"))
            _ = try await cluster.ask(owner, RedisCommand("CLUSTER SETSLOT", String(slot), "STABLE"))
            let stray = try await cluster.operate("fix", "--yes")
            #expect(stray.status == 0 && stray.output.contains("stray-keys"), "\(stray.output)")
            let found = try await client.send(RedisCommand("GET", key(900))).string
            #expect(found == "lost and found")
            // More keys on both nodes than are moved at once, and behind them some that lie only there: these come home all the same.
            _ = try await cluster.ask(owner, RedisCommand("CLUSTER SETSLOT", String(slot), "IMPORTING", ids[1]))
            for i in Array(1000..<1050) + Array(0..<100) {
                _ = try await cluster.ask(owner, RedisCommand("ASKING"), RedisCommand("SET", key(i), i < 1000 ? "older" : "only here"))
            }
            _ = try await cluster.ask(owner, RedisCommand("CLUSTER SETSLOT", String(slot), "STABLE"))
            let both = try await cluster.operate("fix", "--yes")
            #expect(both.output.contains("100 keys are on both nodes"), "\(both.output)")
            for i in 1000..<1050 {
                let value = try await client.send(RedisCommand("GET", key(i))).string
                #expect(value == "only here")
            }
            #expect(try await client.send(RedisCommand("GET", key(7))).string == "v7")
            _ = try await cluster.ask(owner, RedisCommand("CLUSTER SETSLOT", String(slot), "IMPORTING", ids[1]))
            for i in 0..<100 { _ = try await cluster.ask(owner, RedisCommand("ASKING"), RedisCommand("DEL", key(i))) }
            _ = try await cluster.ask(owner, RedisCommand("CLUSTER SETSLOT", String(slot), "STABLE"))
            let (isWhole, text) = try await cluster.status()
            #expect(isWhole, "\(text)")
        }
    }
}

extension Array {
    fileprivate func mapAsync<T>(_ transform: (Element) async throws -> T) async rethrows -> [T] {
        var out: [T] = []
        for element in self { out.append(try await transform(element)) }
        return out
    }
}
