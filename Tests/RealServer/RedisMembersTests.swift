import Basics
import Glibc
import Redis
import Sharding
import TestSupport
import Testing

/// Who joins and who leaves: what they must have in common, in which order they are named, and when a run is cut off.
@Suite(.serialized) struct RedisMembersTests {
    private func address(_ cluster: LocalCluster, _ i: Int) -> String { "127.0.0.1:\(cluster.ports[i])" }

    private func addMaster(_ cluster: LocalCluster) async throws {
        let added = try await cluster.operate(
            "add", "--ports", "\(cluster.ports[6])-\(cluster.ports[7])", "--dir", cluster.directory, "--masters", "--yes")
        #expect(added.status == 0, "\(added.output)")
    }

    private func isThreeAndThree(_ cluster: LocalCluster) async throws {
        let drawn = try await cluster.operate("status")
        #expect(drawn.status == 0 && drawn.output.contains("whole: 3 masters, 3 replicas"), "\(drawn.output)")
    }

    /// Each order on the command line, with a master that is empty and one that has slots, and with replicas that stay where they are.
    @Test func aMasterLeavesWithItsReplicaInAnyOrder() async throws {
        try await withLocalCluster { cluster in
            let client = try FollowingClient(cluster)
            defer { client.close() }
            try await client.fill(30)
            let before = try await client.contents(30)
            for (round, order) in [[6, 7], [7, 6], [6, 7], [7, 6]].enumerated() {
                try await addMaster(cluster)
                for port in cluster.ports {
                    _ = try await cluster.ask(port, RedisCommand("CONFIG SET", "cluster-allow-replica-migration", round < 2 ? "yes" : "no"))
                }
                if round % 2 == 1 {
                    let moved = try await cluster.operate("rebalance", "--yes")
                    #expect(moved.status == 0, "\(moved.output)")
                }
                let removed = try await cluster.operate(
                    "remove", address(cluster, order[0]), address(cluster, order[1]), "--dir", cluster.directory, "--yes")
                #expect(removed.status == 0, "\(round): \(removed.output)")
                try await isThreeAndThree(cluster)
                // Nobody gossips them back.
                for i in 0..<6 {
                    let nodes = try await cluster.ask(cluster.ports[i], RedisCommand("CLUSTER NODES"))[0].string ?? ""
                    #expect(nodes.split(whereSeparator: \.isNewline).count == 6, "\(nodes)")
                }
                let fix = try await cluster.operate("fix", "--yes")
                #expect(fix.status == 0 && fix.output.contains("nothing is wrong"), "\(fix.output)")
                let gone = await eventually { isFree(cluster.ports[6]) && isFree(cluster.ports[7]) }
                #expect(gone)
            }
            #expect(try await client.contents(30) == before)
        }
    }

    private func isFree(_ port: UInt16) -> Bool { (try? RawSocket(port: port)) == nil }

    /// All that stay have forgotten the two, and they have not been told yet: the same command finishes it.
    @Test func aRemovalThatWasCutOffIsFinishedByTheNext() async throws {
        try await withLocalCluster { cluster in
            try await addMaster(cluster)
            let ids = try await [
                cluster.ask(cluster.ports[6], RedisCommand("CLUSTER MYID"))[0].string ?? "",
                cluster.ask(cluster.ports[7], RedisCommand("CLUSTER MYID"))[0].string ?? "",
            ]
            for i in 0..<6 { for id in ids { _ = try await cluster.ask(cluster.ports[i], RedisCommand("CLUSTER FORGET", id)) } }
            let removed = try await cluster.operate("remove", address(cluster, 6), address(cluster, 7), "--dir", cluster.directory, "--yes")
            #expect(removed.status == 0, "\(removed.output)")
            try await isThreeAndThree(cluster)
            let bare = await eventually { isFree(cluster.ports[6]) }
            #expect(bare)
        }
    }

    @Test func membersThatServeAreRefusedBeforeAPlanIsShown() async throws {
        try await withLocalCluster { cluster in
            func refused(_ reason: String, _ arguments: String...) async throws {
                let result = try await cluster.muster(["add"] + arguments + cluster.access + ["--dry-run"])
                #expect(
                    result.status != 0 && result.output.contains(reason) && !result.output.contains("becomes a replica"),
                    "\(arguments): \(result.output)")
            }
            try await refused("is a master of this cluster already and serves", address(cluster, 1))
            try await refused("serves", address(cluster, 0), "--replica-of", address(cluster, 2))
            try await refused("is a replica of", address(cluster, 0), address(cluster, 4), "--masters")
            try await refused("stands twice", address(cluster, 6), address(cluster, 6))
            try await refused("under two addresses", address(cluster, 1), "localhost:\(cluster.ports[1])")
        }
    }

    /// Libraries of functions and users come before the first slot; `status` tells where they are missing, `fix` brings them.
    @Test func whoJoinsHasTheFunctionsAndUsersOfTheOthers() async throws {
        try await withLocalCluster { cluster in
            let code = "#!lua name=shop\nredis.register_function('next', function(k) return redis.call('INCR', k[1]) end)"
            let secret = secretHex(bytes: 16)
            for i in 0..<6 {
                if i < 3 { _ = try await cluster.ask(cluster.ports[i], RedisCommand("FUNCTION LOAD", code)) }
                _ = try await cluster.ask(cluster.ports[i], RedisCommand("ACL SETUSER", "ann", "on", ">" + secret, "~*", "+@all"))
            }
            try await addMaster(cluster)
            let moved = try await cluster.operate("rebalance", "--yes")
            #expect(moved.status == 0, "\(moved.output)")
            let client = try FollowingClient(cluster)
            defer { client.close() }
            for i in 0..<40 { #expect(try await client.send(RedisCommand("FCALL", "next", "1", "n\(i)")).int == 1) }
            for i in 6...7 {
                let users = try await cluster.ask(cluster.ports[i], RedisCommand("ACL LIST"))[0].array ?? []
                #expect(users.contains { $0.string?.hasPrefix("user ann on") == true })
            }
            let whole = try await cluster.operate("status")
            #expect(whole.status == 0, "\(whole.output)")
            // One loses its library and another its user.
            _ = try await cluster.ask(cluster.ports[1], RedisCommand("FUNCTION DELETE", "shop"))
            _ = try await cluster.ask(cluster.ports[4], RedisCommand("ACL DELUSER", "ann"))
            _ = try await cluster.ask(cluster.ports[2], RedisCommand("CONFIG SET", "maxmemory-policy", "allkeys-lru"))
            let short = try await cluster.operate("status")
            #expect(
                short.status == 1 && short.output.contains("\(address(cluster, 1)) has not the library of functions 'shop'")
                    && short.output.contains("\(address(cluster, 4)) has not the user 'ann'")
                    && short.output.contains("maxmemory-policy differs: noeviction on"), "\(short.output)")
            #expect(!short.output.contains(secret))
            let fixed = try await cluster.operate("fix", "--yes")
            #expect(fixed.status == 0 && !fixed.output.contains(secret), "\(fixed.output)")
            let again = try await cluster.operate("status")
            #expect(again.status == 0, "\(again.output)")
            // Two that say different things are for a person.
            _ = try await cluster.ask(cluster.ports[0], RedisCommand("FUNCTION LOAD", "REPLACE", code + "\n-- other"))
            let differ = try await cluster.operate("fix", "--yes")
            #expect(differ.status == 1 && differ.output.contains("function-differs"), "\(differ.output)")
        }
    }

    /// A user without a password is who works, and not the default user.
    @Test func aUserWithoutAPasswordIsKept() async throws {
        try await withLocalCluster { cluster in
            for i in 0..<6 {
                _ = try await cluster.ask(cluster.ports[i], RedisCommand("ACL SETUSER", "looker", "on", "nopass", "~*", "+@all"))
            }
            let status = try await cluster.muster(["status", "--address", address(cluster, 0), "--user", "looker"])
            #expect(status.status == 0, "\(status.output)")
            let backup = try await cluster.muster(
                ["backup", "--to", cluster.folder + "/b", "--address", address(cluster, 0), "--user", "looker", "--yes"])
            #expect(backup.status == 0, "\(backup.output)")
            let unknown = try await cluster.muster(["status", "--address", address(cluster, 0), "--user", "nobody"])
            #expect(unknown.status == 1 && unknown.output.contains("password or the user's name is wrong"), "\(unknown.output)")
        }
    }
}
