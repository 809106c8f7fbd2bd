import Basics
import EventLoops
import Glibc
import HTTP
import JSONCoding
import Redis
import Sharding
import Synchronization
import TestSupport
import Testing

/// The correlation stack on a cluster that its supervisor keeps: six nodes, three engines, a gateway.
@Suite(.serialized) struct RedisClusterStackTests {
    private func withClusterStack(_ body: (StackFixture) async throws -> Void) async throws {
        try await withStack(up: false) { stack in
            try stack.write(store: "role: state, memory: 128Mi, masters: 3, replicas: 1, failover: 3s")
            let (status, output) = try await stack.muster("up", "-d", stack.file)
            guard status == 0 else { throw SystemError("up: \(output)", EINVAL) }
            try await body(stack)
        }
    }

    private func password(_ stack: StackFixture) -> String {
        (Files.text("\(stack.folder)/.muster/demo/stores/state/password") ?? "").split(separator: "\n").first.map(String.init) ?? ""
    }

    private func client(_ stack: StackFixture) async throws -> RedisClient {
        let rows = try await stack.rows().filter { $0.service == "state" }
        var options = RedisClient.Options()
        options.patience = .seconds(10)
        let places = rows.map { "127.0.0.1:\($0.port)" }.joined(separator: ",")
        let client = RedisClient(url: try RedisURL("redis+cluster://:\(password(stack))@\(places)"), loop: stack.loop, options: options)
        client.start()
        return client
    }

    /// Whose process serves a slot, by its port.
    private func owner(_ client: RedisClient, _ slot: Int) async throws -> UInt16 {
        let ranges = try await client.send(RedisCommand("CLUSTER SLOTS")).array ?? []
        let range = ranges.first { ($0.array?[0].int ?? 0)...($0.array?[1].int ?? 0) ~= slot }
        return UInt16(range?.array?[2].array?[1].int ?? 0)
    }

    /// Engines and masters are killed under writers: every acknowledged record is stored exactly once, the ledger balances, and no client
    /// saw an error.
    @Test func mastersAndEnginesAreKilledAndNothingAcknowledgedIsLost() async throws {
        try await withClusterStack { stack in
            let client = try await client(stack)
            defer { client.close() }
            let writers = Writers()
            async let writing: Void = writers.run(40, stack)
            var masters = 0
            for round in 0..<4 {
                try await Task.sleep(for: .milliseconds(1500))
                if let engine = try await stack.engines().first(where: { $0.replica == round % 3 + 1 }) { kill(engine.pid, SIGKILL) }
                let port = try await owner(client, [100, 8000, 16000, 100][round])
                if let node = try await stack.rows().first(where: { $0.port == port }), kill(node.pid, SIGKILL) == 0 { masters += 1 }
                let healed = try await eventually(.seconds(30)) {
                    let rows = try await stack.rows()
                    return rows.count == 9 && rows.allSatisfy { $0.state == "ready" }
                }
                #expect(healed)
            }
            writers.isOver.withLock { $0 = true }
            await writing
            #expect(masters == 4)
            #expect(writers.refused.withLock { $0 } == [:], "a client saw a kill")
            let acknowledged = writers.acknowledged.withLock { $0 }
            let stored = try await stack.storedIDs()
            #expect(acknowledged.count > 200)
            #expect(acknowledged.filter { stored[$0] != 1 }.isEmpty, "acknowledged, and not in the store exactly once")
            let settled = try await eventually(.seconds(30)) { try await stack.ledger()["pending"] == 0 }
            let ledger = try await stack.ledger()
            #expect(settled && ledger["imbalance"] == 0 && ledger["correlated"] == stored.count, "\(ledger)")
            let (_, why) = try await stack.muster("why", "state", "--stack", stack.file)
            #expect(why.contains("takes over at once"), "\(why)")
            print("acknowledged: \(acknowledged.count), stored: \(stored.count), ledger: \(ledger)")
        }
    }

    /// Everything killed at once, and started again: the same cluster, with its data. Then the same after a proper stop.
    @Test func aWholeClusterComesBackWithItsData() async throws {
        try await withClusterStack { stack in
            let client = try await client(stack)
            defer { client.close() }
            let keys = (0..<500).map { "key-\($0)" }
            for result in await client.pipeline(keys.map { RedisCommand("SET", $0, $0).confirmed(by: 1) }) { _ = try result.get() }
            let nodes = try await stack.rows().filter { $0.service == "state" }
            for node in nodes {
                let link = RedisClient(url: try RedisURL("redis://:\(password(stack))@127.0.0.1:\(node.port)"), loop: stack.loop)
                link.start()
                defer { link.close() }
                #expect(try await link.isWrittenDown())
            }
            for node in nodes { kill(node.pid, SIGKILL) }
            let back = try await eventually(.seconds(40)) {
                let rows = try await stack.rows().filter { $0.service == "state" }
                return rows.count == 6 && rows.allSatisfy { row in row.state == "ready" && !nodes.contains { $0.pid == row.pid } }
            }
            #expect(back)
            let values = await client.pipeline(keys.map { RedisCommand("GET", $0) })
            for (key, value) in zip(keys, values) { #expect(try value.get().string == key) }

            try await stack.muster("down", stack.file)
            let (status, output) = try await stack.muster("up", "-d", stack.file)
            #expect(status == 0 && output.contains("the cluster is whole again"), "\(output)")
            let again = try await self.client(stack)
            defer { again.close() }
            let kept = await again.pipeline(keys.map { RedisCommand("GET", $0) })
            for (key, value) in zip(keys, kept) { #expect(try value.get().string == key) }

            // Another layout over the same data is refused, and says what to do.
            try await stack.muster("down", stack.file)
            try stack.write(store: "role: state, memory: 128Mi")
            let (refused, words) = try await stack.muster("up", "-d", stack.file)
            #expect(refused != 0 && words.contains("is of another layout (cluster 3 1"), "\(words)")
        }
    }
}
