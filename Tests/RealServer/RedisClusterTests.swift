import Basics
import EventLoops
import Glibc
import Redis
import Sharding
import Synchronization
import TestSupport
import Testing

@Suite struct RedisClusterTests {
    private func withClient(_ url: String, _ loop: EventLoop, patience: Duration = .seconds(10), _ body: (RedisClient) async throws -> Void)
        async throws
    {
        var options = RedisClient.Options()
        options.patience = patience
        let client = RedisClient(url: try RedisURL(url), loop: loop, options: options)
        client.start()
        defer { client.close() }
        try await body(client)
    }

    @Test func pipelinesAreSplitByNodeAndJoinedInOrder() async throws {
        try await withRedisCluster { cluster, loop in
            try await withClient(cluster.url, loop) { client in
                let keys = (0..<2000).map { "key:\($0)" }
                let stored = await client.pipeline(keys.map { RedisCommand("SET", $0, "v-\($0)") })
                #expect(stored.allSatisfy { if case .success = $0 { true } else { false } })
                let read = await client.pipeline(keys.map { RedisCommand("GET", $0) })
                for (key, value) in zip(keys, read) { #expect(try value.get().string == "v-\(key)") }
                // Every master has its part, and no command had to be redirected.
                for i in 0..<3 {
                    let size = try await cluster.ask(i, loop, RedisCommand("DBSIZE")).int ?? 0
                    #expect(size > 500)
                }
                let statistics = try await loop.run { client.statistics }
                #expect(statistics.redirections == 0)
                // Keys that do not lie together are told before anything is sent.
                let split = await #expect(throws: RedisError.self) { try await client.send(RedisCommand("MGET", "a", "b")) }
                #expect(split?.code == .crossSlot && split?.execution == .notExecuted && split?.message.contains("'b' in 3300") == true)
                // A script is told to each node that needs it.
                let script = RedisScript("return redis.call('INCR', KEYS[1])")
                let counts = await client.run(script, keys.map { script.call(keys: ["n-\($0)"]) })
                #expect(try counts.allSatisfy { try $0.get().int == 1 })
                let memory = try await client.send(RedisCommand("INFO", "memory").routed(by: "a")).string ?? ""
                #expect(memory.contains("used_memory:"))
            }
        }
    }

    /// A slot is moved by hand, step by step: what has gone is asked for there (ASK), what has moved for good is learned (MOVED).
    @Test func aSlotThatMovesIsFollowed() async throws {
        try await withRedisCluster { cluster, loop in
            try await withClient(cluster.url, loop) { client in
                // Slot 15495, of the third master, goes to the first.
                let key = "a", slot = "15495"
                _ = try await client.send(RedisCommand("SET", key, "1"))
                _ = try await client.send(RedisCommand("SET", "{a}2", "2"))
                let from = try await cluster.ask(2, loop, RedisCommand("CLUSTER MYID")).string ?? ""
                let to = try await cluster.ask(0, loop, RedisCommand("CLUSTER MYID")).string ?? ""
                _ = try await cluster.ask(0, loop, RedisCommand("CLUSTER SETSLOT", slot, "IMPORTING", from))
                _ = try await cluster.ask(2, loop, RedisCommand("CLUSTER SETSLOT", slot, "MIGRATING", to))
                _ = try await cluster.ask(
                    2, loop, RedisCommand("MIGRATE", "127.0.0.1", String(cluster.nodes[0].port), key, "0", "5000", "AUTH", cluster.password)
                )
                #expect(try await client.send(RedisCommand("GET", key)).string == "1")
                #expect(try await client.send(RedisCommand("INCR", key)).int == 2)
                #expect(try await client.send(RedisCommand("GET", "{a}2")).string == "2")
                // One key here, one there: nobody can answer until the move is complete. The command waits for that.
                let both = Task { try await client.send(RedisCommand("MGET", key, "{a}2")) }
                await loop.sleep(.milliseconds(200))
                _ = try await cluster.ask(
                    2, loop,
                    RedisCommand("MIGRATE", "127.0.0.1", String(cluster.nodes[0].port), "{a}2", "0", "5000", "AUTH", cluster.password))
                for node in [0, 2, 1] { _ = try await cluster.ask(node, loop, RedisCommand("CLUSTER SETSLOT", slot, "NODE", to)) }
                #expect(try await both.value.array?.map(\.string) == ["2", "2"])
                #expect(try await client.send(RedisCommand("INCR", key)).int == 3)
                let learned = await eventually {
                    let before = (try? await loop.run { client.statistics.redirections }) ?? 0
                    _ = try? await client.send(RedisCommand("GET", key))
                    return (try? await loop.run { client.statistics.redirections }) == before
                }
                #expect(learned)
            }
        }
    }

    /// Writers on all slots while the first master is killed: every acknowledged and confirmed write is there afterwards, and nobody else's
    /// slots saw an error.
    @Test(arguments: [SIGKILL, SIGSTOP]) func aMasterThatGoesIsFollowed(signal: Int32) async throws {
        try await withRedisCluster { cluster, loop in
            try await withClient(cluster.url, loop) { client in
                let audit = WriteAudit()
                let writers = (0..<32).map { writer in Task { await audit.write(writer, client, confirmedBy: 1) } }
                await loop.sleep(.milliseconds(500))
                let lost = SlotSet([0...5460])
                if signal == SIGKILL { await cluster.kill(0) } else { cluster.signal(0, signal) }
                let before = audit.acknowledged(in: lost)
                let hasHeir = await eventually(.seconds(20)) {
                    (try? await cluster.ask(3, loop, RedisCommand("ROLE")).array?.first?.string) == "master"
                }
                #expect(hasHeir)
                // The old one comes back as its replica: until then nobody can confirm.
                if signal == SIGKILL { try cluster.start(0) } else { cluster.signal(0, SIGCONT) }
                let resumed = await eventually(.seconds(20)) { audit.acknowledged(in: lost) > before + 200 }
                #expect(resumed)
                audit.stop()
                for writer in writers { await writer.value }
                let missing = await audit.missing(client)
                #expect(missing.isEmpty, "\(missing.prefix(3))")
                #expect(audit.failures(outside: lost).isEmpty, "\(audit.failures(outside: lost).prefix(3))")
                #expect(audit.acknowledged(in: lost) > 200)
            }
        }
    }

    @Test func replicasAnswerReadsAsOldAsTheyMayBe() async throws {
        try await withRedisCluster { cluster, loop in
            try await withClient(cluster.url, loop) { client in
                _ = try await client.send(RedisCommand("SET", "a", "1"))
                let read = RedisCommand("GET", "a").fromReplica(atMost: .seconds(2))
                // The first ones go to the master: nothing is known of replicas yet.
                let byReplica = await eventually {
                    _ = try? await client.send(read)
                    return ((try? await loop.run { client.statistics.replicaReads }) ?? 0) > 20
                }
                #expect(byReplica)
                // A replica that is cut off from its master gets too old, and is asked no more.
                let replica = cluster.masters + 2
                _ = try await cluster.ask(replica, loop, RedisCommand("CONFIG SET", "masterauth", "wrong"))
                _ = try await cluster.ask(2, loop, RedisCommand("CLIENT KILL", "TYPE", "replica"))
                _ = try await client.send(RedisCommand("SET", "a", "2"))
                let fresh = await eventually { (try? await client.send(read).string) == "2" }
                #expect(fresh)
                for _ in 0..<50 {
                    let value = try await client.send(read).string
                    #expect(value == "2")
                }
            }
        }
    }

    /// A user of its own, who may do what a client needs and touch its own keys.
    @Test func anACLUserIsHeldToItsRights() async throws {
        try await withRedisCluster { cluster, loop in
            for i in cluster.nodes.indices {
                _ = try await cluster.ask(
                    i, loop,
                    RedisCommand(
                        "ACL SETUSER", "app", "on", ">app-password", "~app:*", "+@read", "+@write", "+@connection", "+cluster|slots",
                        "-@dangerous", "+info"))
            }
            let places = cluster.nodes.map { "127.0.0.1:\($0.port)" }.joined(separator: ",")
            try await withClient("redis+cluster://app:app-password@\(places)", loop) { client in
                for i in 0..<50 { _ = try await client.send(RedisCommand("SET", "app:\(i)", "v")) }
                let foreign = await #expect(throws: RedisError.self) { try await client.send(RedisCommand("SET", "other", "v")) }
                #expect(foreign?.serverCode == "NOPERM" && foreign?.execution == .notExecuted)
                let dangerous = await #expect(throws: RedisError.self) { try await client.send(RedisCommand("FLUSHALL")) }
                #expect(dangerous?.serverCode == "NOPERM")
            }
        }
    }

    /// Clients, replication and bus over TLS alone; clients show a certificate.
    @Test func aClusterOverTLS() async throws {
        try await withFolder { folder in
            let tls = try await TLSFixture(folder: folder)
            let lines = tls.redis(port: 0, clients: true).filter { !$0.hasPrefix("tls-port") } + ["tls-replication yes", "tls-cluster yes"]
            try await withRedisCluster(tls: tls, extra: lines) { cluster, loop in
                let places = cluster.nodes.map { "127.0.0.1:\($0.port)" }.joined(separator: ",")
                let files = "ca=\(tls.authority)&cert=\(tls.file("client.pem"))&key=\(tls.file("client.key"))"
                try await withClient("rediss+cluster://:\(cluster.password)@\(places)?\(files)", loop) { client in
                    let keys = (0..<1000).map { "key:\($0)" }
                    for result in await client.pipeline(keys.map { RedisCommand("SET", $0, $0).confirmed(by: 1) }) { _ = try result.get() }
                    for (key, value) in zip(keys, await client.pipeline(keys.map { RedisCommand("GET", $0) })) {
                        #expect(try value.get().string == key)
                    }
                }
                // Another authority: told, and nothing is sent.
                try await withClient(
                    "rediss+cluster://:\(cluster.password)@\(places)?ca=\(tls.file("other.pem"))", loop, patience: .milliseconds(500)
                ) { client in
                    let error = await #expect(throws: RedisError.self) { try await client.send(RedisCommand("GET", "a")) }
                    #expect(error?.execution == .notExecuted)
                    let told = await eventually {
                        if case .disconnected(let reason)? = try? await loop.run({ client.status }) {
                            reason.contains("certificate")
                        } else {
                            false
                        }
                    }
                    #expect(told)
                }
            }
        }
    }

    @Test func aClusterThatIsNoneOrIsAwayIsTold() async throws {
        try await withRedisCluster(masters: 3, replicas: 0, form: false) { cluster, loop in
            try await withClient(cluster.url, loop, patience: .milliseconds(500)) { client in
                let error = await #expect(throws: RedisError.self) { try await client.send(RedisCommand("GET", "a")) }
                #expect(error?.execution == .notExecuted)
                let status = await eventually {
                    guard case .disconnected(let reason)? = try? await loop.run({ client.status }) else { return false }
                    return reason.contains("belongs to no cluster yet")
                }
                #expect(status)
            }
            try await withClient("redis+cluster://:wrong@127.0.0.1:\(cluster.nodes[0].port)", loop, patience: .seconds(60)) { client in
                let error = await #expect(throws: RedisError.self) { try await client.send(RedisCommand("GET", "a")) }
                #expect(error?.code == .authentication && error?.execution == .notExecuted)
            }
        }
    }
}

/// What writers were told, to be compared with what is there.
final class WriteAudit: Sendable {
    private struct Books {
        var acknowledged: [String: Int] = [:]
        var counts: [Bool: Int] = [:]
        var bySlot: [Int: Int] = [:]
        var failures: [(slot: Int, error: RedisError)] = []
    }
    private let books = Mutex(Books())
    private let isStopped = Atomic<Bool>(false)

    func stop() { isStopped.store(true, ordering: .relaxed) }

    /// One writer: each write is a new key, so that what is missing is seen.
    func write(_ writer: Int, _ client: RedisClient, confirmedBy replicas: Int, pause: Duration = .milliseconds(4)) async {
        var number = 0
        while !isStopped.load(ordering: .relaxed) {
            number += 1
            let key = "w\(writer)-\(number)"
            do throws(RedisError) {
                // The same value twice is the same: it may be repeated.
                _ = try await client.send(RedisCommand("SET", key, String(number)).repeatable().confirmed(by: replicas))
                books.withLock {
                    $0.acknowledged[key] = number
                    $0.bySlot[HashSlot.of(key), default: 0] += 1
                }
            } catch { books.withLock { $0.failures.append((HashSlot.of(key), error)) } }
            await client.loop.sleep(pause)
        }
    }

    func acknowledged(in slots: SlotSet) -> Int { books.withLock { $0.bySlot.reduce(0) { $0 + (slots.contains($1.key) ? $1.value : 0) } } }
    func failures(outside slots: SlotSet) -> [String] {
        books.withLock { $0.failures.filter { !slots.contains($0.slot) }.map { "\($0.slot): \($0.error)" } }
    }
    var failureCount: Int { books.withLock { $0.failures.count } }
    var acknowledgedCount: Int { books.withLock { $0.acknowledged.count } }

    /// Acknowledged keys that are not there.
    func missing(_ client: RedisClient) async -> [String] {
        let expected = books.withLock { $0.acknowledged }.sorted { $0.key < $1.key }
        var missing: [String] = []
        for start in stride(from: 0, to: expected.count, by: 1000) {
            let part = expected[start..<min(start + 1000, expected.count)]
            let values = await client.pipeline(part.map { RedisCommand("GET", $0.key) })
            for (entry, value) in zip(part, values) where (try? value.get().string) != String(entry.value) {
                missing.append("\(entry.key): \(value)")
            }
        }
        return missing
    }
}
