import Basics
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
