import Basics
import EventLoops
import Glibc
import Provisioning
import Redis
import Sharding
import TestSupport
import Testing

/// `muster redis` as a newcomer uses it.
@Suite struct RedisVerbTests {
    @Test func aClusterIsMadeStoppedAndMadeAgainWithItsData() async throws {
        try await withLocalCluster { cluster in
            let (isWhole, text) = try await cluster.status()
            #expect(isWhole && text.contains("\"slots_assigned\":16384") && text.contains("\"failover_worst_ms\":5000"), "\(text)")
            let drawn = try await cluster.operate("status")
            #expect(
                drawn.output.contains("whole: 3 masters, 3 replicas, 16384 of 16384 slots")
                    && drawn.output.contains("└ 127.0.0.1:\(cluster.ports[3])"))
            #expect(
                drawn.output.contains("0-5460 (5461)") && drawn.output.contains("5461-10922 (5462)")
                    && drawn.output.contains("10923-16383 (5461)"))

            let client = try FollowingClient(cluster)
            defer { client.close() }
            try await client.fill(20)
            let before = try await client.contents(20)
            let again = try await cluster.create("--yes")
            #expect(again.status == 0 && again.output.contains("nothing to do"), "\(again.output)")

            // One dies: status says so, and create brings it back.
            kill(cluster.pid(4), SIGKILL)
            let short = try await cluster.operate("status")
            #expect(
                short.status == 1 && short.output.contains("NOT WHOLE") && short.output.contains("127.0.0.1:\(cluster.ports[4])"),
                "\(short.output)")
            let back = try await cluster.create("--yes")
            #expect(back.status == 0 && back.output.contains("started 1 redis-server"), "\(back.output)")

            let stopped = try await cluster.muster(["stop", "--dir", cluster.directory, "--yes"])
            #expect(stopped.status == 0 && stopped.output.contains("6 nodes have ended"), "\(stopped.output)")
            let woken = try await cluster.create("--yes")
            #expect(woken.status == 0, "\(woken.output)")
            #expect(try await client.contents(20) == before)
        }
    }

    @Test func thePasswordStandsNowhere() async throws {
        try await withLocalCluster { cluster in
            for i in 0..<6 {
                let folder = "\(cluster.directory)/node-\(cluster.ports[i])"
                for name in ["redis.conf", "redis.log", "process", "nodes.conf"] {
                    #expect(!(Files.text("\(folder)/\(name)") ?? "").contains(cluster.password), "\(name)")
                }
                #expect(Files.text("/proc/\(cluster.pid(i))/cmdline")?.contains("redis") == true)
                for file in ["cmdline", "environ"] {
                    #expect(!(Files.text("/proc/\(cluster.pid(i))/\(file)") ?? "").contains(cluster.password))
                }
                var info = stat()
                #expect(stat(folder, &info) == 0 && info.st_mode & 0o777 == 0o700)
            }
            let nobody = try await run(builtProgram("muster"), ["redis", "status", "--address", "127.0.0.1:\(cluster.ports[0])"])
            #expect(nobody.status == 1 && nobody.output.contains("a password is needed"))
        }
    }

    @Test func whatCannotBeIsRefusedBeforeAnythingStarts() async throws {
        try await withLocalCluster(create: false) { cluster in
            func refused(_ status: Int32, _ reason: String, _ arguments: String...) async throws {
                let result = try await cluster.muster(["create", "--dir", cluster.directory, "--yes"] + arguments)
                #expect(result.status == status && result.output.contains(reason), "\(arguments): \(result.output)")
            }
            let six = "\(cluster.ports[0])-\(cluster.ports[5])", file = cluster.passwordFile
            try await refused(2, "3 x 2 = 6 nodes", "--ports", "\(cluster.ports[0])-\(cluster.ports[2])", "--password-file", file)
            try await refused(2, "a failover within 1s cannot be promised", "--ports", six, "--password-file", file, "--failover", "1s")
            try await refused(2, "2 x 5s + 1s = 11s", "--ports", six, "--password-file", file, "--failover", "5s", "--node-timeout", "5s")
            try await refused(2, "--password-file FILE is needed", "--ports", six)
            chmod(file, 0o644)
            try await refused(1, "others can read", "--ports", six, "--password-file", file)
            try Files.replace(file, with: Array("short\n".utf8), mode: 0o600)
            try await refused(1, "5 characters", "--ports", six, "--password-file", file)
            try Files.replace(file, with: Array("alphapulse_redis_secret_production_change_me\n".utf8), mode: 0o600)
            try await refused(1, "known default", "--ports", six, "--password-file", file)
            #expect(!Files.exists(cluster.directory))
        }
    }

    @Test func withoutYesNothingIsChanged() async throws {
        try await withLocalCluster { cluster in
            let before = try await cluster.ask(cluster.ports[0], RedisCommand("CLUSTER MYID"), RedisCommand("CLUSTER NODES")).map(\.string)
            let replica = "127.0.0.1:\(cluster.ports[3])"
            for arguments in [["failover", replica], ["rebalance", "--weight", "127.0.0.1:\(cluster.ports[0])=3"]] {
                let silent = try await cluster.muster(arguments + cluster.access)
                #expect(silent.status == 2 && silent.output.contains("--yes is needed"), "\(silent.output)")
                let dry = try await cluster.muster(arguments + cluster.access + ["--dry-run", "--json"])
                #expect(dry.status == 0 && dry.output.contains("\"applied\":false"), "\(dry.output)")
            }
            // F5.13: the replica of a master that has no other.
            let bare = try await cluster.operate("remove", "127.0.0.1:\(cluster.ports[5])", "--yes")
            #expect(bare.status == 1 && bare.output.contains("has no replica, and no other master can spare one"), "\(bare.output)")
            let few = try await cluster.operate("remove", "127.0.0.1:\(cluster.ports[2])", "--yes")
            #expect(few.status == 1 && few.output.contains("2 masters would be left"), "\(few.output)")
            let after = try await cluster.ask(cluster.ports[0], RedisCommand("CLUSTER MYID"), RedisCommand("CLUSTER NODES")).map(\.string)
            #expect(roles(before[1]) == roles(after[1]) && before[0] == after[0])
            let (isWhole, _) = try await cluster.status()
            #expect(isWhole)
        }
    }

    /// Id, flags and slots of each node; not the times in between.
    private func roles(_ text: String?) -> Set<String> {
        Set(
            (text ?? "").split(whereSeparator: \.isNewline).map { line in
                let fields = line.split(separator: " ")
                return "\(fields[0]) \(fields[2]) \(fields.dropFirst(8).joined(separator: " "))"
            })
    }

    @Test func aReplicaJoinsTheMasterThatWasNamedAndIsLentWhereOneWouldBeBare() async throws {
        try await withLocalCluster { cluster in
            func address(_ i: Int) -> String { "127.0.0.1:\(cluster.ports[i])" }
            func master(of i: Int) async throws -> String? {
                try await cluster.ask(cluster.ports[i], RedisCommand("ROLE"))[0].array?.dropFirst(2).first?.string
            }
            let client = try FollowingClient(cluster)
            defer { client.close() }
            try await client.fill(20)
            // Changed by hand where it is asked: the new one is started the same way.
            let changed = [("maxmemory-policy", "volatile-ttl", "noeviction"), ("appendonly", "no", "yes")]
            for (name, value, _) in changed { _ = try await cluster.ask(cluster.ports[1], RedisCommand("CONFIG SET", name, value)) }
            let added = try await cluster.operate(
                "add", "--ports", "\(cluster.ports[6])", "--dir", cluster.directory, "--replica-of", address(2), "--yes")
            #expect(added.status == 0, "\(added.output)")
            for (name, value, before) in changed {
                let got = try await cluster.ask(cluster.ports[6], RedisCommand("CONFIG GET", name))[0].array?.last?.string
                #expect(got == value)
                for i in [1, 6] { _ = try await cluster.ask(cluster.ports[i], RedisCommand("CONFIG SET", name, before)) }
            }
            let follows = try await master(of: 6)
            #expect(follows == String(cluster.ports[2]))
            let again = try await cluster.operate("add", address(6), "--replica-of", address(2), "--yes")
            #expect(again.status == 0 && again.output.contains("nothing to do"), "\(again.output)")
            let elsewhere = try await cluster.operate("add", address(6), "--replica-of", address(1), "--yes")
            #expect(elsewhere.status == 1 && elsewhere.output.contains("is a replica of \(address(2)) already"), "\(elsewhere.output)")
            let removed = try await cluster.operate("remove", address(3), "--dir", cluster.directory, "--yes")
            #expect(removed.status == 0 && removed.output.contains("becomes a replica of \(address(0))"), "\(removed.output)")
            let lent = try await [master(of: 5), master(of: 6)]
            #expect(Set(lent) == [String(cluster.ports[0]), String(cluster.ports[2])])
            let drawn = try await cluster.operate("status")
            #expect(drawn.status == 0 && drawn.output.contains("whole: 3 masters, 3 replicas"), "\(drawn.output)")
            // Who has left may come back: nothing of the cluster is left in its files.
            let back = try await cluster.operate("add", "--ports", "\(cluster.ports[3])", "--dir", cluster.directory, "--yes")
            #expect(back.status == 0 && back.output.contains("the cluster is whole with"), "\(back.output)")
        }
    }

    @Test func aReplicaTakesOverAndBack() async throws {
        try await withLocalCluster { cluster in
            let client = try FollowingClient(cluster)
            defer { client.close() }
            try await client.fill(50)
            let before = try await client.contents(50)
            let replica = "127.0.0.1:\(cluster.ports[3])"
            let there = try await cluster.operate("failover", replica, "--yes", "--json")
            #expect(there.status == 0 && there.output.contains("took_ms"), "\(there.output)")
            func role() async throws -> String? {
                try await cluster.ask(cluster.ports[3], RedisCommand("ROLE"))[0].array?.first?.string
            }
            #expect(try await role() == "master")
            // The same once more changes nothing.
            let again = try await cluster.operate("failover", replica, "--yes")
            #expect(again.status == 0 && again.output.contains("\(replica) is a master already"), "\(again.output)")
            #expect(try await role() == "master")
            for round in 0..<2 {
                let back = try await cluster.operate("failover", "--from", replica, "--yes")
                #expect(back.status == 0 && back.output.contains("is no master") == (round == 1), "\(back.output)")
                #expect(try await role() == "slave")
            }
            #expect(try await client.contents(50) == before)
            // The master hangs: only by force.
            let master = cluster.pid(0)
            kill(master, SIGSTOP)
            let graceful = try await cluster.operate("failover", replica, "--yes")
            #expect(graceful.status == 1 && graceful.output.contains("--force"), "\(graceful.output)")
            let forced = try await cluster.operate("failover", replica, "--force", "--yes")
            kill(master, SIGCONT)
            #expect(forced.status == 0, "\(forced.output)")
            let isWhole = try await eventually(.seconds(30)) { try await cluster.status().isWhole }
            #expect(isWhole)
        }
    }
}

/// `ClusterFormation`, on nodes that somebody else started.
@Suite struct ClusterFormationTests {
    private func form(_ cluster: RedisClusterFixture, _ loop: EventLoop, nodes: Int = 6) async throws -> Bool {
        let outcome = try await ClusterFormation.form(
            nodes: cluster.nodes.prefix(nodes).map { NodeAddress(host: "127.0.0.1", port: $0.port) }, replicas: 1,
            credentials: RedisCredentials(password: cluster.password), on: loop
        ) { _ in }
        return outcome.isChanged
    }

    @Test func whatWasCutOffIsCompleted() async throws {
        try await withRedisCluster(form: false) { cluster, loop in
            _ = try await cluster.ask(0, loop, RedisCommand("CLUSTER ADDSLOTSRANGE", "0", "5460"))
            _ = try await cluster.ask(0, loop, RedisCommand("CLUSTER SET-CONFIG-EPOCH", "1"))
            _ = try await cluster.ask(1, loop, RedisCommand("CLUSTER ADDSLOTSRANGE", "5461", "8000"))
            _ = try await cluster.ask(3, loop, RedisCommand("CLUSTER MEET", "127.0.0.1", String(cluster.nodes[0].port)))
            let changed = try await form(cluster, loop)
            #expect(changed)
            let again = try await form(cluster, loop)
            #expect(!again)
            let info = try await cluster.ask(5, loop, RedisCommand("CLUSTER INFO")).string ?? ""
            #expect(info.contains("cluster_slots_ok:16384") && info.contains("cluster_size:3") && info.contains("cluster_known_nodes:6"))
        }
    }

    @Test func aClusterIsNeverFormedOverDataOrIntoAnother() async throws {
        try await withRedisCluster(form: false) { cluster, loop in
            // A node without slots takes no key; with them, and then without, it still has it.
            _ = try await cluster.ask(4, loop, RedisCommand("CLUSTER ADDSLOTSRANGE", "0", "16383"))
            let isUp = try await eventually {
                try await cluster.ask(4, loop, RedisCommand("CLUSTER INFO")).string?.contains("cluster_state:ok") == true
            }
            #expect(isUp)
            _ = try await cluster.ask(4, loop, RedisCommand("SET", "k", "v"))
            _ = try await cluster.ask(4, loop, RedisCommand("CLUSTER DELSLOTSRANGE", "0", "16383"))
            let overData = await #expect(throws: ProvisioningFailure.self) { _ = try await form(cluster, loop) }
            #expect(
                overData?.code == .refused && overData?.node?.port == cluster.nodes[4].port
                    && overData?.message.contains("never formed over data") == true)
            _ = try await cluster.ask(4, loop, RedisCommand("FLUSHALL"))
            _ = try await cluster.ask(1, loop, RedisCommand("CLUSTER ADDSLOTS", "3"))
            let slots = await #expect(throws: ProvisioningFailure.self) { _ = try await form(cluster, loop) }
            #expect(slots?.code == .refused && slots?.node?.port == cluster.nodes[1].port)
            _ = try await cluster.ask(1, loop, RedisCommand("CLUSTER DELSLOTS", "3"))
            let few = await #expect(throws: ProvisioningFailure.self) { _ = try await form(cluster, loop, nodes: 3) }
            #expect(few?.message.contains("3 x 2 = 6 nodes") == true)
            let changed = try await form(cluster, loop)
            #expect(changed)
        }
    }
}
