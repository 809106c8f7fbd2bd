import Basics
import EventLoops
import Glibc
import Redis
import Sharding
import Synchronization
import TestSupport
import Testing

@testable import Provisioning

/// A takeover on demand: it is decided once more when it may go on, and asks for nothing that is so already.
@Suite(.serialized) struct RedisFailoverTests {
    private static let lost = String(repeating: "a", count: 40), heir = String(repeating: "b", count: 40)

    private static func bulk(_ text: String) -> String { "$\(text.utf8.count)\r\n\(text)\r\n" }

    /// A replica that is made up, whose master is away. It had a whole copy when it was asked; when it is to take over, it is copying anew.
    @Test func aReplicaThatHasBegunToCopyIsNotForced() async throws {
        let heard = Mutex<[String]>([]), isCopying = Mutex(false), port = Mutex<UInt16>(0)
        let node: @Sendable (RawPeer, Int) -> Void = { peer, _ in
            while true {
                let words = peer.redisCommand()
                guard let first = words.first else { return }
                let line = words.joined(separator: " ").uppercased()
                heard.withLock { $0.append(line) }
                let syncs = isCopying.withLock { $0 }
                let answer =
                    switch line {
                    case _ where first == "HELLO": "%1\r\n+server\r\n+redis\r\n"
                    case "CLUSTER NODES":
                        Self.bulk(
                            "\(Self.heir) 127.0.0.1:\(port.withLock { $0 })@1 myself,slave \(Self.lost) 0 0 1 connected\n"
                                + "\(Self.lost) 127.0.0.1:1@2 master,fail - 0 0 1 disconnected 0-16383\n")
                    case "INFO", "INFO REPLICATION":
                        Self.bulk(
                            "# Replication\r\nrole:slave\r\nmaster_link_status:down\r\nmaster_sync_in_progress:\(syncs ? 1 : 0)\r\n"
                                + "slave_repl_offset:900\r\nmaster_link_down_since_seconds:3\r\n")
                    case "CLUSTER INFO": Self.bulk("cluster_state:fail\r\n")
                    case "DBSIZE": ":9\r\n"
                    case _ where first.uppercased() == "CONFIG": "*0\r\n"
                    default: "+OK\r\n"
                    }
                peer.send(answer)
            }
        }
        try await withRaw(node) { backend in
            port.withLock { $0 = backend.port }
            try await withLoop { loop in
                let address = NodeAddress(host: "127.0.0.1", port: backend.port)
                let session = ClusterSession(seeds: [address], credentials: RedisCredentials(password: nil), loop: loop)
                defer { session.close() }
                guard case .planned(let failover) = try await ClusterFailover.plan(session, .heir("\(address)"), isForced: true) else {
                    Issue.record("not planned")
                    return
                }
                #expect(failover.away == 3 && failover.master.id == Self.lost)
                isCopying.withLock { $0 = true }
                let refusal = await #expect(throws: ProvisioningFailure.self) { _ = try await failover.apply(session) }
                #expect(refusal?.code == .refused && refusal?.message.contains("still copying") == true, "\(String(describing: refusal))")
            }
        }
        let words = heard.withLock { $0 }
        #expect(words.contains("INFO REPLICATION") && !words.contains { $0.contains("FAILOVER") }, "\(words)")
    }

    /// Whoever takes the place of a lost master has it: neither it nor another one that has it is forced out.
    @Test func anHeirThatWasElectedMeanwhileIsLeftAlone() async throws {
        try await withRedisCluster(replicas: 2) { cluster, loop in
            let nodes = cluster.nodes.map { NodeAddress(host: "127.0.0.1", port: $0.port) }
            let session = ClusterSession(seeds: nodes, credentials: RedisCredentials(password: cluster.password), loop: loop)
            defer { session.close() }
            await cluster.kill(0)
            var heir = 0
            let isElected = try await eventually(.seconds(60)) {
                for i in [3, 6] where try await cluster.ask(i, loop, RedisCommand("ROLE")).array?.first?.string == "master" { heir = i }
                return heir > 0
            }
            #expect(isElected)
            let other = heir == 3 ? 6 : 3
            let follows = try await eventually(.seconds(30)) {
                try await session.read().view.member(named: "\(nodes[other])")?.master
                    == session.read().view.member(named: "\(nodes[heir])")?.id
            }
            #expect(follows)
            for wanted in [heir, other] {
                let outlook = try await ClusterFailover.plan(session, .heirOf(nodes[0], "\(nodes[wanted])"), isForced: true)
                guard case .done(let sentence) = outlook else {
                    Issue.record("\(wanted) would be forced")
                    continue
                }
                #expect(sentence.hasPrefix("\(nodes[heir]) is the master already"), "\(sentence)")
            }
            // Nor is there anything left to take over from the one that died.
            guard case .done(let sentence) = try await ClusterFailover.plan(session, .replaced("\(nodes[0])"), isForced: true) else {
                Issue.record("the dead master would be replaced once more")
                return
            }
            #expect(sentence.contains("has no slots"), "\(sentence)")
            #expect(try await cluster.ask(heir, loop, RedisCommand("ROLE")).array?.first?.string == "master")
        }
    }

    /// A master that has no slots yet is receiving one: a backup of the others would not be whole.
    @Test func aBackupSeesWhatAMasterWithoutSlotsReceives() async throws {
        try await withLocalCluster { cluster in
            let ports = "\(cluster.ports[6])-\(cluster.ports[7])"
            let added = try await cluster.operate("add", "--ports", ports, "--dir", cluster.directory, "--masters", "--yes")
            #expect(added.status == 0, "\(added.output)")
            let owner = try await cluster.ask(cluster.ports[0], RedisCommand("CLUSTER MYID"))[0].string ?? ""
            _ = try await cluster.ask(cluster.ports[6], RedisCommand("CLUSTER SETSLOT", "7", "IMPORTING", owner))
            let refused = try await cluster.operate("backup", "--to", cluster.folder + "/b", "--yes")
            #expect(
                refused.status == 1 && refused.output.contains("slot 7 is on its way at 127.0.0.1:\(cluster.ports[6])"), "\(refused.output)"
            )
            _ = try await cluster.ask(cluster.ports[6], RedisCommand("CLUSTER SETSLOT", "7", "STABLE"))
            let made = try await cluster.operate("backup", "--to", cluster.folder + "/b", "--yes")
            #expect(made.status == 0, "\(made.output)")
        }
    }
}
