import Basics
import Glibc
import Provisioning
import Redis
import Sharding
import TestSupport
import Testing

/// Folders that are lost, emptied, exchanged, copied or older: on real nodes.
@Suite(.serialized) struct RedisRecoverTests {
    private func folder(_ cluster: LocalCluster, _ i: Int) -> String { "\(cluster.directory)/node-\(cluster.ports[i])" }

    private func stop(_ cluster: LocalCluster) async throws {
        let stopped = try await cluster.muster(["stop", "--dir", cluster.directory, "--yes"])
        #expect(stopped.status == 0, "\(stopped.output)")
    }

    private func whole(_ cluster: LocalCluster) async throws {
        let (isWhole, text) = try await cluster.status()
        #expect(isWhole, "\(text)")
    }

    private func recover(_ cluster: LocalCluster, _ i: Int, _ more: String...) async throws -> (status: Int32, output: String) {
        try await cluster.muster(
            ["recover", "127.0.0.1:\(cluster.ports[i])", "--dir", cluster.directory, "--password-file", cluster.passwordFile] + more)
    }

    /// Each way in which a master's folder can be lost while all are stopped: nothing is started, and the replica's copy is all there is.
    @Test func anEmptiedMasterNeverDestroysTheCopyOfItsReplica() async throws {
        try await withLocalCluster { cluster in
            let client = try FollowingClient(cluster)
            defer { client.close() }
            try await client.fill(40)
            let before = try await client.contents(40)
            let ways: [(Int, [String])] = [
                (1, [""]), (2, ["/nodes.conf", "/appendonlydir", "/dump.rdb"]), (0, ["/appendonlydir", "/dump.rdb"]),
            ]
            for (i, names) in ways {
                try await stop(cluster)
                for name in names { Files.remove(folder(cluster, i) + name) }
                let refused = try await cluster.create("--yes")
                #expect(
                    refused.status == 1 && refused.output.contains("nothing was started. 127.0.0.1:\(cluster.ports[i])")
                        && refused.output.contains("has the copy"), "\(refused.output)")
                #expect((0..<6).allSatisfy { !isAlive(cluster.pid($0)) })
                let dry = try await recover(cluster, i, "--dry-run", "--json")
                #expect(dry.status == 0 && dry.output.contains("relies on") && dry.output.contains("\"applied\":false"), "\(dry.output)")
                let done = try await recover(cluster, i, "--yes")
                #expect(done.status == 0, "\(done.output)")
                let made = try await cluster.create("--yes")
                #expect(made.status == 0, "\(made.output)")
                #expect(try await client.contents(40) == before)
                try await whole(cluster)
            }
        }
    }

    /// One that has ended and was not reaped yet does not count.
    private func isAlive(_ pid: Int32) -> Bool {
        let status = Files.text("/proc/\(pid)/status") ?? ""
        return pid > 0 && status.hasPrefix("Name:\tredis") && !status.contains("State:\tZ")
    }

    /// A replica that lost its folder comes back by itself; a master that lost it while the others run is refused until its replica is one.
    @Test func nodesThatRunAreNotTheLastCopyOfNothing() async throws {
        try await withLocalCluster { cluster in
            let client = try FollowingClient(cluster)
            defer { client.close() }
            try await client.fill(40)
            let before = try await client.contents(40)
            kill(cluster.pid(5), SIGKILL)
            #expect(await eventually { !isAlive(cluster.pid(5)) })
            Files.remove(folder(cluster, 5))
            let back = try await cluster.create("--yes")
            #expect(back.status == 0 && back.output.contains("comes back as a replica"), "\(back.output)")
            try await whole(cluster)

            for i in [0, 3] { #expect(isAlive(cluster.pid(i))) }
            let pid = cluster.pid(0)
            kill(pid, SIGKILL)
            #expect(await eventually { !isAlive(pid) })
            Files.remove(folder(cluster, 0))
            let refused = try await cluster.create("--yes")
            #expect(refused.status == 1 && refused.output.contains("has the copy"), "\(refused.output)")
            let done = try await recover(cluster, 0, "--yes")
            #expect(done.status == 0 && done.output.contains("has taken over"), "\(done.output)")
            let made = try await cluster.create("--yes")
            #expect(made.status == 0, "\(made.output)")
            #expect(try await client.contents(40) == before)
            try await whole(cluster)
        }
    }

    @Test func exchangedCopiedAndOlderFoldersAreToldBeforeAnyNodeStarts() async throws {
        try await withLocalCluster { cluster in
            let client = try FollowingClient(cluster)
            defer { client.close() }
            try await client.fill(40)
            try await stop(cluster)
            let (one, two, spare) = (folder(cluster, 0), folder(cluster, 1), cluster.directory + "/spare")
            func exchange() { _ = (rename(one, spare), rename(two, one), rename(spare, two)) }
            exchange()
            let exchanged = try await cluster.create("--yes")
            #expect(exchanged.status == 1 && exchanged.output.contains("put the folders back"), "\(exchanged.output)")
            exchange()
            // A backup of a master's folder is put back after more was written.
            #expect(try await run("/bin/cp", ["-a", one, spare], folder: cluster.folder).status == 0)
            #expect(try await cluster.create("--yes").status == 0)
            try await client.fill(60)
            let before = try await client.contents(60)
            try await stop(cluster)
            Files.remove(one)
            #expect(rename(spare, one) == 0)
            let older = try await cluster.create("--yes")
            #expect(older.status == 1 && older.output.contains("an older state than its replica"), "\(older.output)")
            #expect(try await recover(cluster, 0, "--yes").status == 0)
            #expect(try await cluster.create("--yes").status == 0)
            #expect(try await client.contents(60) == before)
            #expect(Files.list(one).contains { $0.hasPrefix("aside-") })
        }
    }

    /// The log is gone from all of them, and snapshots are left: the server would ignore and overwrite them.
    @Test func snapshotsAreLoadedWhereTheLogsAreGone() async throws {
        try await withLocalCluster { cluster in
            let client = try FollowingClient(cluster)
            defer { client.close() }
            try await client.fill(40)
            let before = try await client.contents(40)
            try await stop(cluster)
            for i in 0..<6 { Files.remove(folder(cluster, i) + "/appendonlydir") }
            let refused = try await cluster.create("--yes")
            #expect(refused.status == 1 && refused.output.contains("would ignore the snapshot"), "\(refused.output)")
            for i in 0..<3 {
                let unasked = try await recover(cluster, i, "--yes")
                #expect(unasked.status == 1 && unasked.output.contains("only with --accept-loss"), "\(unasked.output)")
                #expect(try await recover(cluster, i, "--accept-loss", "--yes").status == 0)
            }
            let made = try await cluster.create("--yes")
            #expect(made.status == 0, "\(made.output)")
            #expect(try await client.contents(40) == before)
        }
    }

    /// `create` in a copy of the folder works on the copy, and does not take the original's processes for its own.
    @Test func aCopiedFolderIsAFolderOfItsOwn() async throws {
        try await withLocalCluster { cluster in
            let client = try FollowingClient(cluster)
            defer { client.close() }
            try await client.fill(10)
            let copy = cluster.folder + "/copy"
            #expect(try await run("/bin/cp", ["-a", cluster.directory, copy], folder: cluster.folder).status == 0)
            let none = try await cluster.muster(["stop", "--dir", copy, "--yes"])
            #expect(none.status == 0 && none.output.contains("no node runs under"), "\(none.output)")
            #expect((0..<6).allSatisfy { isAlive(cluster.pid($0)) })
            try await stop(cluster)
            let ports = "\(cluster.ports[0])-\(cluster.ports[5])"
            let made = try await cluster.muster(
                ["create", "--ports", ports, "--dir", copy, "--password-file", cluster.passwordFile, "--yes"])
            #expect(made.status == 0, "\(made.output)")
            let place = try await cluster.ask(cluster.ports[0], RedisCommand("CONFIG GET", "dir"))[0].array?.last?.string
            #expect(place == Files.absolute(copy) + "/node-\(cluster.ports[0])")
            let old = NodeAges(cluster.directory)
            try await client.fill(30)
            #expect(try await cluster.muster(["stop", "--dir", copy, "--yes"]).output.contains("6 nodes have ended"))
            #expect(NodeAges(cluster.directory) == old, "the original was written to")
        }
    }

    private struct NodeAges: Equatable {
        var ages: [String: Int] = [:]
        init(_ directory: String) {
            for name in Files.list(directory) where name.hasPrefix("node-") {
                for file in ["/nodes.conf", "/dump.rdb", "/appendonlydir/appendonly.aof.1.incr.aof"] {
                    var info = stat()
                    if stat("\(directory)/\(name)\(file)", &info) == 0 {
                        ages[name + file] = info.st_mtim.tv_sec * 1_000_000_000 + info.st_mtim.tv_nsec
                    }
                }
            }
        }
    }

    @Test func aWrongPasswordIsToldBeforeADeadNodeIsStartedWithIt() async throws {
        try await withLocalCluster { cluster in
            let pid = cluster.pid(4)
            kill(pid, SIGKILL)
            #expect(await eventually { !isAlive(pid) })
            let other = cluster.folder + "/other"
            try Files.replace(other, with: Array((secretHex(bytes: 16) + "\n").utf8), mode: 0o600)
            let ports = "\(cluster.ports[0])-\(cluster.ports[5])"
            let wrong = try await cluster.muster([
                "create", "--ports", ports, "--dir", cluster.directory, "--password-file", other, "--yes",
            ])
            #expect(wrong.status == 1 && wrong.output.contains("password") && !wrong.output.contains("started"), "\(wrong.output)")
            #expect(!isAlive(cluster.pid(4)))
            let right = try await cluster.create("--yes")
            #expect(right.status == 0, "\(right.output)")
        }
    }
}

/// The same with stores of a stack.
@Suite(.serialized) struct RedisStoreFolderTests {
    private func client(_ stack: StackFixture, _ kind: String) async throws -> RedisClient {
        let rows = try await stack.rows().filter { $0.service == "state" }
        let password = (Files.text(store(stack) + "/password") ?? "").split(separator: "\n").first ?? ""
        let places = rows.map { "127.0.0.1:\($0.port)" }.joined(separator: ",")
        let client = RedisClient(url: try RedisURL("\(kind)://:\(password)@\(places)"), loop: stack.loop)
        client.start()
        return client
    }

    private func store(_ stack: StackFixture) -> String { "\(stack.folder)/.muster/demo/stores/state" }

    private func up(_ stack: StackFixture) async throws {
        let (status, output) = try await stack.muster("up", "-d", stack.file)
        #expect(status == 0, "\(output)")
    }

    @Test func anEmptiedNodeOfAStoreIsRefusedUntilItIsRecovered() async throws {
        try await withStack(up: false) { stack in
            try stack.write(store: "role: state, memory: 64Mi, masters: 3, replicas: 1, failover: 3s")
            try await up(stack)
            let keys = (0..<200).map { "key-\($0)" }
            func check() async throws {
                let client = try await client(stack, "redis+cluster")
                defer { client.close() }
                for (key, value) in zip(keys, await client.pipeline(keys.map { RedisCommand("GET", $0) })) {
                    #expect(try value.get().string == key)
                }
            }
            let first = try await client(stack, "redis+cluster")
            for result in await first.pipeline(keys.map { RedisCommand("SET", $0, $0).confirmed(by: 1) }) { _ = try result.get() }
            first.close()
            // A replica: it comes back by itself.
            try await stack.muster("down", stack.file)
            Files.remove(store(stack) + "/node-5")
            try await up(stack)
            try await check()
            // A master.
            try await stack.muster("down", stack.file)
            Files.remove(store(stack) + "/node-2")
            let refused = try await stack.muster("up", "-d", stack.file)
            #expect(refused.0 != 0 && refused.1.contains("nothing was started") && refused.1.contains("has the copy"), "\(refused.1)")
            let done = try await stack.muster("redis", "recover", "state/2", "--stack", stack.file, "--yes")
            #expect(done.0 == 0, "\(done.1)")
            try await up(stack)
            try await check()
            // A master whose process ends and whose folder is emptied while the supervisor runs.
            let row = try #require(try await stack.rows().first { $0.service == "state" && $0.replica == 1 })
            let node = store(stack) + "/node-1"
            for name in ["/nodes.conf", "/appendonlydir", "/dump.rdb"] { Files.remove(node + name) }
            kill(row.pid, SIGKILL)
            let isBack = try await eventually(.seconds(30)) {
                let rows = try await stack.rows().filter { $0.service == "state" }
                return rows.count == 6 && rows.allSatisfy { $0.state == "ready" && $0.pid != row.pid }
            }
            #expect(isBack)
            try await check()
        }
    }

    /// Nodes that hang are not waited for: with two of them stopped, who follows a dead master is known as fast as ever.
    @Test func nodesThatHangDoNotHoldUpATakeover() async throws {
        try await withStack(up: false) { stack in
            try stack.write(store: "role: state, memory: 64Mi, masters: 3, replicas: 2, failover: 9s")
            try await up(stack)
            let rows = try await stack.rows().filter { $0.service == "state" }
            let link = try await client(stack, "redis+cluster")
            defer { link.close() }
            var ofFirst: Set<Int> = []
            let password = (Files.text(store(stack) + "/password") ?? "").split(separator: "\n").first ?? ""
            for row in rows {
                let node = RedisClient(url: try RedisURL("redis://:\(password)@127.0.0.1:\(row.port)"), loop: stack.loop)
                node.start()
                // A replica that has no copy yet is no heir.
                var role: [RESPValue] = []
                _ = try await eventually(.seconds(10)) {
                    role = try await node.send(RedisCommand("ROLE")).array ?? []
                    return role.first?.string == "master" || role.count > 4 && role[3].string == "connected" && role[4].int ?? 0 > 0
                }
                if role.first?.string == "slave", role[2].int == Int(rows.first { $0.replica == 1 }?.port ?? 0) {
                    ofFirst.insert(row.replica)
                }
                node.close()
            }
            #expect(ofFirst.count == 2)
            // A replica of the dead one, whose answer would be waited for, and one of another.
            let hanging = rows.filter { $0.replica == ofFirst.max() || $0.replica > 3 && !ofFirst.contains($0.replica) }.prefix(3)
            for row in hanging { kill(row.pid, SIGSTOP) }
            defer { for row in hanging { kill(row.pid, SIGCONT) } }
            let first = try #require(rows.first { $0.replica == 1 })
            kill(first.pid, SIGKILL)
            var text = ""
            let isTold = await eventually(.seconds(10)) {
                text = Files.text(stack.folder + "/.muster/demo/logs/supervisor.log") ?? ""
                return text.contains("has taken over from state/1, ")
            }
            for row in hanging { kill(row.pid, SIGCONT) }
            let (_, why) = try await stack.muster("why", "state", "--stack", stack.file)
            #expect(isTold, "\(text) \(why)")
            let words = text.split(separator: "has taken over from state/1, ").last?.split(separator: " ").first ?? ""
            let took = try #require(Duration(text: String(words.split(separator: ",").first ?? "")))
            // 500 ms for the questions; then the vote of the other masters, with a tick of 100 ms.
            #expect(took < .milliseconds(1500), "\(took)")
        }
    }

    /// A single server that was emptied is not started empty, at the next start nor while the supervisor runs.
    @Test func anEmptiedServerIsNotStartedEmpty() async throws {
        try await withStack(up: false) { stack in
            try stack.write(store: "role: state, memory: 64Mi")
            try await up(stack)
            let first = try await client(stack, "redis")
            _ = try await first.send(RedisCommand("SET", "k", "v"))
            #expect(try await first.isWrittenDown())
            first.close()
            let row = try #require(try await stack.rows().first { $0.service == "state" })
            let log = store(stack) + "/appendonlydir", aside = stack.folder + "/aside"
            #expect(rename(log, aside) == 0)
            kill(row.pid, SIGKILL)
            let isHeld = try await eventually(.seconds(10)) {
                let (_, why) = try await stack.muster("why", "state", "--stack", stack.file)
                return why.contains("state/1 is not started")
            }
            #expect(isHeld)
            // Put back, it is started.
            Files.remove(log)
            #expect(rename(aside, log) == 0)
            let isBack = try await eventually(.seconds(10)) {
                try await stack.rows().contains { $0.service == "state" && $0.state == "ready" && $0.pid != row.pid }
            }
            #expect(isBack)
            let second = try await client(stack, "redis")
            #expect(try await second.send(RedisCommand("GET", "k")).string == "v")
            second.close()
            try await stack.muster("down", stack.file)
            Files.remove(store(stack))
            let refused = try await stack.muster("up", "-d", stack.file)
            #expect(refused.0 != 0 && refused.1.contains("is its disk mounted?"), "\(refused.1)")
            let unasked = try await stack.muster("redis", "recover", "state", "--stack", stack.file, "--yes")
            #expect(unasked.0 != 0, "\(unasked.1)")
            let done = try await stack.muster("redis", "recover", "state", "--stack", stack.file, "--accept-loss", "--yes")
            #expect(done.0 == 0, "\(done.1)")
            try await up(stack)
        }
    }

    /// What was idle when everything was killed is started again: nothing was put back there. And a cache that becomes a store of state
    /// has lost nothing.
    @Test func anIdleClusterComesBackAfterAHardStop() async throws {
        try await withSmallStack { stack in
            func write(_ role: String) throws {
                try stack.put(
                    "s.yaml",
                    "stack: s\nstores: { state: { redis: { role: \(role), memory: 32Mi, masters: 3, replicas: 1, failover: 3s } } }\n"
                        + "services: { worker: { command: [sleep, '1000'], grace: 1s } }\n")
            }
            try write("cache")
            try await stack.up()
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            try write("state")
            try await stack.up()
            try await inEachNode(stack, RedisCommand("SET", "k", "v"))
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            // Each replica copies anew, and its snapshot is younger than all that its master has.
            try await Task.sleep(for: .milliseconds(1100))
            try await stack.up()
            try await Task.sleep(for: .milliseconds(1100))
            let row = try await stack.row("state/1")
            let (supervisor, watcher) = try stack.supervisor(of: row)
            for pid in [watcher, supervisor] + stack.processes { kill(pid, SIGKILL) }
            #expect(await eventually { stack.processes.isEmpty })
            try await stack.up()
            #expect(try await stack.rows().filter { $0.state == "ready" }.count == 7)
            #expect(try await inEachNode(stack, RedisCommand("GET", "k")).contains("v"))
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            // A copy in a node's place is another folder, and is judged.
            let node = "\(stack.folder)/.muster/s/stores/state/node-1"
            #expect(StartMark.isLast(node))
            #expect(try await run("/bin/cp", ["-a", node, node + "-copy"], folder: stack.folder).status == 0)
            Files.remove(node)
            #expect(rename(node + "-copy", node) == 0)
            #expect(!StartMark.isLast(node))
        }
    }

    /// Sends a command to the nodes of the small stack, one after the other; what was answered, errors left out.
    @discardableResult
    private func inEachNode(_ stack: SmallStack, _ command: RedisCommand) async throws -> [String] {
        let store = "\(stack.folder)/.muster/s/stores/state"
        let password = (Files.text(store + "/password") ?? "").split(separator: "\n").first ?? ""
        var out: [String] = []
        for row in try await stack.rows() where row.name.hasPrefix("state/") {
            let node = RedisClient(url: try RedisURL("redis://:\(password)@127.0.0.1:\(row.port ?? 0)"), loop: stack.loop)
            node.start()
            defer { node.close() }
            if let text = (try? await node.send(command))?.string { out.append(text) }
        }
        return out
    }
}
