import Basics
import EventLoops
import Glibc
import JSONCoding
import Redis
import TestSupport
import Testing

@testable import Provisioning

/// The drill of `muster redis failover`: every fault, on real nodes, under writes. What is measured with it stands in docs/benchmarks.md.
@Suite struct RedisDrillTests {
    @Test(arguments: ["kill", "stop", "partition"]) func whatAReplicaConfirmedSurvives(fault: String) async throws {
        try await withLocalCluster(create: false) { cluster in
            let made = try await cluster.create("--node-timeout", "500ms", "--memory", "64Mi", "--yes")
            #expect(made.status == 0, "\(made.output)")
            let (status, output) = try await cluster.operate(
                "failover", "--drill", fault, "--wait", "1", "--rate", "500/s", "--json", "--yes")
            #expect(status == 0, "\(output)")
            let json = output.split(separator: "\n").first { $0.hasPrefix("{") } ?? "{}"
            let fields = try JSONDocument().parse(Array(json.utf8)) { root in
                Dictionary(uniqueKeysWithValues: (root.members ?? []).map { ($0.key, $0.value.int) })
            }
            for name in ["detected_ms", "elected_ms", "first_write_ms"] { #expect((fields[name] ?? nil) ?? -1 >= 0, "\(name): \(json)") }
            #expect(fields["lost"] == 0 && fields["wait"] == 1 && (fields["acknowledged"] ?? 0) ?? 0 > 200, "\(json)")
            // All is as before: whole, nobody stopped, no rule left, no key left.
            let whole = try await cluster.operate("status")
            #expect(whole.status == 0, "\(whole.output)")
            let rules = try await run("/usr/sbin/iptables", ["-w", "5", "-S"])
            #expect(rules.status == 0 && !rules.output.contains("MUSTER-DRILL-"), "\(rules.output)")
            var keys = 0
            for port in cluster.ports[..<6] { keys += try await cluster.ask(port, RedisCommand("DBSIZE"))[0].int ?? 0 }
            #expect(keys == 0)
        }
    }

    /// SIGKILL in the middle, and a closed terminal: the fault is mended all the same, and the same drill runs again.
    @Test(arguments: [("stop", SIGKILL), ("partition", SIGKILL), ("kill", SIGKILL), ("stop", SIGHUP)])
    func whatADrillBreaksItMendsEvenWhenKilled(fault: String, signal: Int32) async throws {
        try await withLocalCluster(create: false) { cluster in
            // Nobody takes over meanwhile: the drill is still waiting when it is killed.
            let made = try await cluster.create("--node-timeout", "5s", "--memory", "64Mi", "--yes", "--failover", "11s")
            #expect(made.status == 0, "\(made.output)")
            let log = cluster.folder + "/drill"
            let pid = cluster.pid(0)
            let drill = try Child(
                builtProgram("muster"), ["redis", "failover", "--drill", fault, "--rate", "500/s", "--yes"] + cluster.access, log: log,
                folder: cluster.folder)
            let isIn = try await eventually(.seconds(30)) {
                switch fault {
                case "stop": (Files.text("/proc/\(pid)/status") ?? "").contains("State:\tT")
                case "kill": !isAlive(pid) || (Files.text("/proc/\(pid)/status") ?? "").contains("State:\tZ")
                default: try await run("/usr/sbin/iptables", ["-w", "5", "-S"]).output.contains("-j MUSTER-DRILL-")
                }
            }
            #expect(isIn, "\(drill.output)")
            drill.send(signal)
            let isMended = try await eventually(.seconds(signal == SIGKILL ? 5 : 40)) {
                switch fault {
                case "stop": !(Files.text("/proc/\(pid)/status") ?? "").contains("State:\tT")
                case "kill": (try? await cluster.ask(cluster.ports[0], RedisCommand("PING")))?[0].string == "PONG"
                default: try await !run("/usr/sbin/iptables", ["-w", "5", "-S"]).output.contains("MUSTER-DRILL-")
                }
            }
            #expect(isMended, "\(drill.output)")
            await drill.destroy()
            let isWhole = try await eventually(.seconds(30)) { try await cluster.status().isWhole }
            #expect(isWhole)
            // What was started again is one of ours.
            #expect(cluster.pid(0) > 0 && isAlive(cluster.pid(0)))
            let stopped = try await cluster.muster(["stop", "--dir", cluster.directory, "--yes"])
            #expect(stopped.output.contains("6 nodes have ended"), "\(stopped.output)")
        }
    }

    /// Nodes that somebody else has set up: their configurations lie in one folder under names of their own, and their program is another
    /// one. The one that was killed comes back as it was, and nothing of ours is left in that folder.
    @Test func aNodeOfSomebodyElseComesBackAsItWas() async throws {
        try await withLoop { loop in
            try await withFolder { folder in
                let program = folder + "/valkey-server", passwords = folder + "/password"
                try Files.replace(program, with: try Files.read(try systemProgram("redis-server")), mode: 0o700)
                let cluster = try await RedisClusterFixture(folder: folder, loop: loop, program: program)
                try Files.replace(passwords, with: Array((cluster.password + "\n").utf8), mode: 0o600)
                let result: Result<Void, any Error>
                do {
                    result = .success(try await drill(cluster, loop, folder, program))
                } catch { result = .failure(error) }
                await cluster.destroy()
                // The one that the drill has started is nobody's child here.
                for pid in Files.list("/proc").compactMap({ Int32($0) })
                where Files.absolute("/proc/\(pid)/cwd").hasPrefix(Files.absolute(folder)) { kill(pid, SIGKILL) }
                try result.get()
            }
        }
    }

    private func drill(_ cluster: RedisClusterFixture, _ loop: EventLoop, _ folder: String, _ program: String) async throws {
        let victim = "127.0.0.1:\(cluster.nodes[0].port)", before = cluster.pid(0)
        func muster(_ more: String...) async throws -> (status: Int32, output: String) {
            try await run(
                builtProgram("muster"),
                ["redis", "failover", "--drill", "kill", victim, "--address", victim, "--password-file", folder + "/password"] + more,
                folder: folder)
        }
        // Its requirepass could become that user's password.
        for i in cluster.nodes.indices {
            let rule = RedisCommand("ACL SETUSER", "alice", "on", ">" + cluster.password, "~*", "&*", "+@all")
            _ = try await cluster.ask(i, loop, rule)
        }
        let user = try await muster("--user", "alice", "--dry-run")
        #expect(user.status == 1 && user.output.contains("log in without --user"), "\(user.output)")
        #expect(isAlive(before))
        // What it was told while it ran is as little in its file as it is known to whoever runs the drill.
        _ = try await cluster.ask(0, loop, RedisCommand("CONFIG SET", "masteruser", "alice"))
        let done = try await muster("--rate", "300/s", "--yes")
        #expect(done.status == 0, "\(done.output)")
        #expect(!isAlive(before) || (Files.text("/proc/\(before)/status") ?? "").contains("State:\tZ"))
        for (name, value) in [("requirepass", cluster.password), ("masterauth", cluster.password), ("masteruser", "alice")] {
            let told = try await cluster.ask(0, loop, RedisCommand("CONFIG GET", name)).array?.last?.string
            #expect(told == value, "\(name)")
        }
        let info = ClusterSession.fields(try await cluster.ask(0, loop, RedisCommand("INFO", "server")))
        #expect(info["config_file"] == cluster.configuration(0))
        let pid = info["process_id"] ?? ""
        #expect(Files.absolute("/proc/\(pid)/exe") == Files.absolute(program))
        #expect(Files.absolute("/proc/\(pid)/cwd") == Files.absolute(cluster.nodes[0].folder))
        #expect(Files.list(cluster.configurations).allSatisfy { $0.hasSuffix(".conf") }, "\(Files.list(cluster.configurations))")
    }

    /// Where a server was started, by where it works and how its configuration leads there.
    @Test(arguments: [
        ("port 1\ndir /data/a\n", "/data/a", "/data/a"), ("port 1\n", "/srv", "/srv"), ("dir ./\n", "/srv", "/srv"),
        ("dir .\n", "/srv", "/srv"), ("dir ./data/\n", "/srv/data", "/srv"), ("dir \"a/b\"\n", "/srv/a/b", "/srv"),
        ("# dir x\n  DIR a\ndir b\n", "/srv/b", "/srv"), ("dir a\n", "/srv/b", nil), ("dir ..\n", "/srv", nil),
    ]) func aStartIsFoundFromWhereAServerWorks(configuration: String, works: String, start: String?) {
        #expect(NodeProcess.startFolder(configuration, works: works) == start)
    }

    @Test func aDrillThatWouldShowNothingIsRefused() async throws {
        try await withLocalCluster { cluster in
            let wrong = try await cluster.operate("failover", "--drill", "fire", "--yes")
            #expect(wrong.status == 2 && wrong.output.contains("none of kill, stop, partition"), "\(wrong.output)")
            let unasked = try await cluster.operate("failover", "--drill", "kill")
            #expect(unasked.status == 2 && unasked.output.contains("--yes"), "\(unasked.output)")
            let dry = try await cluster.operate("failover", "--drill", "kill", "--dry-run")
            #expect(dry.status == 0 && dry.output.contains("kill -9"), "\(dry.output)")
            let replica = try await cluster.operate("failover", "--drill", "kill", "--yes", "127.0.0.1:\(cluster.ports[3])")
            #expect(replica.status == 1 && replica.output.contains("no master with slots and a replica"), "\(replica.output)")
            // A replica is missing already.
            kill(cluster.pid(5), SIGKILL)
            let short = try await cluster.operate("failover", "--drill", "kill", "--yes")
            #expect(short.status == 1 && short.output.contains("not whole"), "\(short.output)")
        }
    }

    @Test func aPartitionCutsOneNodeFromTheOthersInBothDirections() {
        let rules = Partition.rules(
            .init(source: "127.1.1.1", port: 7001, bus: 17001), [.init(source: "127.1.1.2", port: 7002, bus: 17002)])
        #expect(
            rules == [
                "-p tcp -s 127.1.1.1 -m multiport --dports 7002,17002", "-p tcp -d 127.1.1.1 -m multiport --sports 7002,17002",
                "-p tcp -s 127.1.1.2 -m multiport --dports 7001,17001", "-p tcp -d 127.1.1.2 -m multiport --sports 7001,17001",
            ])
    }
}
