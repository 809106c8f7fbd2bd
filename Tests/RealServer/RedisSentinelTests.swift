import Basics
import EventLoops
import Glibc
import HTTP
import Redis
import Synchronization
import TestSupport
import Testing

/// A master, a replica and three sentinels, all real.
@Suite struct RedisSentinelTests {
    private let password = "sentinel-test"

    /// The engines' kill test on a master that sentinels watch: the URL alone is another.
    @Test func enginesLoseNothingWhenTheMasterDies() async throws {
        try await withStack(up: false) { stack in
            let ports = (0..<5).map { _ in TestPorts.server() }
            var children = [
                try server(stack.folder, ports[0], []), try server(stack.folder, ports[1], ["replicaof 127.0.0.1 \(ports[0])"]),
            ]
            for port in ports[2...] { children.append(try sentinel(stack.folder, port, of: ports[0])) }
            let result: Result<Void, any Error>
            do { result = .success(try await killEngines(stack, ports, &children)) } catch { result = .failure(error) }
            try await stack.muster("down", stack.file)
            for child in children { await child.destroy() }
            try result.get()
        }
    }

    private func killEngines(_ stack: StackFixture, _ ports: [UInt16], _ children: inout [Child]) async throws {
        let places = ports[2...].map { "127.0.0.1:\($0)" }.joined(separator: ",")
        try stack.write(more: ", REDIS_URL: \"redis+sentinel://:\(password)@\(places)/the-master\"")
        try await waitForSentinels(stack.loop, ports)
        let (status, output) = try await stack.muster("up", "-d", stack.file)
        guard status == 0 else { throw SystemError("up: \(output)", EINVAL) }
        let writers = Writers()
        async let writing: Void = writers.run(20, stack)
        for round in 0..<6 {
            try await Task.sleep(for: .milliseconds(500))
            if let engine = try await stack.engines().first(where: { $0.replica == round % 3 + 1 }) { kill(engine.pid, SIGKILL) }
            guard round == 2 else { continue }
            await children[0].destroy()
            let follower = RedisClient(url: try RedisURL("redis://:\(password)@127.0.0.1:\(ports[1])"), loop: stack.loop)
            follower.start()
            let isMaster = await eventually(.seconds(20)) {
                (try? await follower.send(RedisCommand("ROLE")).array?.first?.string) == "master"
            }
            follower.close()
            #expect(isMaster)
            // As its replica it lets writes be confirmed again.
            children[0] = try server(stack.folder, ports[0], ["replicaof 127.0.0.1 \(ports[1])"])
        }
        let healed = try await eventually(.seconds(20)) { try await stack.engines().filter { $0.state == "ready" }.count == 3 }
        writers.isOver.withLock { $0 = true }
        await writing
        #expect(healed)
        #expect(writers.refused.withLock { $0 } == [:], "a client saw a kill")
        let acknowledged = writers.acknowledged.withLock { $0 }
        let stored = try await stack.storedIDs()
        #expect(acknowledged.count > 100 && acknowledged.filter { stored[$0] != 1 }.isEmpty)
        let settled = try await eventually(.seconds(30)) { try await stack.ledger()["pending"] == 0 }
        let ledger = try await stack.ledger()
        #expect(settled && ledger["imbalance"] == 0 && ledger["correlated"] == stored.count, "\(ledger)")
    }

    /// The sentinels must know the replica and each other before the master may go.
    private func waitForSentinels(_ loop: EventLoop, _ ports: [UInt16]) async throws {
        let sentinel = RedisClient(url: try RedisURL("redis://127.0.0.1:\(ports[2])"), loop: loop)
        sentinel.start()
        defer { sentinel.close() }
        let isReady = await eventually(.seconds(30)) {
            let fields = (try? await sentinel.send(RedisCommand("SENTINEL", "MASTER", "the-master")).array)?.map { $0.string ?? "" } ?? []
            func field(_ name: String) -> String? { fields.firstIndex(of: name).map { fields[$0 + 1] } }
            return field("num-slaves") == "1" && field("num-other-sentinels") == "2"
        }
        #expect(isReady)
    }

    private func server(_ folder: String, _ port: UInt16, _ lines: [String]) throws -> Child {
        let place = "\(folder)/redis-\(port)"
        try Files.makeFolder(place, mode: 0o700)
        let text =
            [
                "bind 127.0.0.1", "port \(port)", "dir \(place)", "requirepass \(password)", "masterauth \(password)", "appendonly yes",
                "save \"\"",
                "repl-diskless-sync-delay 0",
            ] + lines
        return try Child(
            try systemProgram("redis-server"), ["-"], log: place + "/log", folder: place,
            input: Array((text.joined(separator: "\n") + "\n").utf8))
    }

    private func sentinel(_ folder: String, _ port: UInt16, of master: UInt16) throws -> Child {
        // It rewrites its file, so the file is its own. Votes that split are given again after twice the failover's time.
        let place = "\(folder)/sentinel-\(port)"
        try Files.makeFolder(place, mode: 0o700)
        let text = """
            port \(port)
            bind 127.0.0.1
            dir \(place)
            sentinel monitor the-master 127.0.0.1 \(master) 2
            sentinel auth-pass the-master \(password)
            sentinel down-after-milliseconds the-master 500
            sentinel failover-timeout the-master 2000

            """
        try Files.replace(place + "/sentinel.conf", with: Array(text.utf8), mode: 0o600)
        return try Child(try systemProgram("redis-sentinel"), [place + "/sentinel.conf"], log: place + "/log", folder: place)
    }

    @Test func theMasterIsFoundAndFollowed() async throws {
        try await withLoop { loop in
            try await withFolder { folder in
                let ports = (0..<5).map { _ in TestPorts.server() }
                var children = [try server(folder, ports[0], []), try server(folder, ports[1], ["replicaof 127.0.0.1 \(ports[0])"])]
                for port in ports[2...] { children.append(try sentinel(folder, port, of: ports[0])) }
                let result: Result<Void, any Error>
                do { result = .success(try await follow(loop, ports, children)) } catch { result = .failure(error) }
                for child in children { await child.destroy() }
                try result.get()
            }
        }
    }

    private func follow(_ loop: EventLoop, _ ports: [UInt16], _ children: [Child]) async throws {
        var options = RedisClient.Options()
        options.patience = .seconds(20)
        let places = ports[2...].map { "127.0.0.1:\($0)" }.joined(separator: ",")
        let client = RedisClient(url: try RedisURL("redis+sentinel://:\(password)@\(places)/the-master"), loop: loop, options: options)
        client.start()
        defer { client.close() }
        _ = try await client.send(RedisCommand("SET", "k", "1"))
        try await waitForSentinels(loop, ports)
        let confirmed = await eventually { (try? await client.send(RedisCommand("SET", "k", "2").repeatable().confirmed(by: 1))) != nil }
        #expect(confirmed)

        let audit = WriteAudit()
        let writers = (0..<8).map { writer in Task { await audit.write(writer, client, confirmedBy: 0) } }
        await loop.sleep(.milliseconds(300))
        children[0].send(SIGKILL)
        let before = audit.acknowledgedCount
        let resumed = await eventually(.seconds(30)) { audit.acknowledgedCount > before + 100 }
        audit.stop()
        for writer in writers { await writer.value }
        #expect(resumed && audit.failureCount == 0)
        #expect(try await client.send(RedisCommand("GET", "k")).string == "2")
        let role = try await client.send(RedisCommand("INFO", "server")).string ?? ""
        #expect(role.contains("tcp_port:\(ports[1])"))
        let statistics = try await loop.run { client.statistics }
        #expect(statistics.changes == 2)
    }

    @Test func aNameThatNoSentinelKnowsIsTold() async throws {
        try await withLoop { loop in
            try await withFolder { folder in
                let ports = [TestPorts.server(), TestPorts.server()]
                let child = try sentinel(folder, ports[1], of: ports[0])
                var options = RedisClient.Options()
                options.patience = .milliseconds(800)
                let client = RedisClient(url: try RedisURL("redis+sentinel://127.0.0.1:\(ports[1])/other"), loop: loop, options: options)
                client.start()
                let error = await #expect(throws: RedisError.self) { try await client.send(RedisCommand("GET", "k")) }
                #expect(error?.execution == .notExecuted)
                let told = await eventually {
                    guard case .disconnected(let reason)? = try? await loop.run({ client.status }) else { return false }
                    return reason.contains("knows no master 'other'")
                }
                #expect(told)
                client.close()
                await child.destroy()
            }
        }
    }
}

@Suite struct RedisSubscriptionTests {
    private final class Heard: Sendable {
        private let events = Mutex<[RedisSubscription.Event]>([])
        func add(_ event: RedisSubscription.Event) { events.withLock { $0.append(event) } }
        var all: [RedisSubscription.Event] { events.withLock { $0 } }
        func has(_ text: String) -> Bool {
            all.contains { if case .message(_, let payload) = $0 { payload == Array(text.utf8) } else { false } }
        }
        var subscriptions: Int { all.count { $0 == .subscribed } }
    }

    @Test func whatIsPublishedIsHeardThroughAFailover() async throws {
        try await withRedisCluster { cluster, loop in
            var options = RedisClient.Options()
            options.patience = .seconds(10)
            let client = RedisClient(url: try RedisURL(cluster.url), loop: loop, options: options)
            client.start()
            defer { client.close() }
            _ = try await client.send(RedisCommand("SET", "a", "1"))
            let plain = Heard(), sharded = Heard(), patterns = Heard()
            let subscriptions = [
                try RedisSubscription(client, to: ["news", "more"]) { plain.add($0) },
                // Slot 15495, of the third master.
                try RedisSubscription(client, to: ["a", "{a}2"], kind: .shardChannels) { sharded.add($0) },
                try RedisSubscription(client, to: ["n*"], kind: .patterns) { patterns.add($0) },
            ]
            defer { for subscription in subscriptions { subscription.close() } }
            let ready = await eventually { plain.subscriptions == 1 && sharded.subscriptions == 1 && patterns.subscriptions == 1 }
            #expect(ready)
            _ = try await client.send(RedisCommand("PUBLISH", "news", "one"))
            _ = try await client.send(RedisCommand("SPUBLISH", "a", "two"))
            let heard = await eventually { plain.has("one") && patterns.has("one") && sharded.has("two") }
            #expect(heard)

            await cluster.kill(2)
            let again = await eventually(.seconds(20)) {
                _ = try? await client.send(RedisCommand("SPUBLISH", "a", "three"))
                return sharded.has("three") && sharded.subscriptions >= 2
            }
            #expect(again, "\(sharded.all)")
            #expect(sharded.all.contains { if case .interrupted = $0 { true } else { false } })
            #expect(throws: RedisError.self) { try RedisSubscription(client, to: ["a", "b"], kind: .shardChannels) { _ in } }
        }
    }
}
