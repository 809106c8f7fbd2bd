import Basics
import EventLoops
import Glibc
import Provisioning
import Redis
import TestSupport
import Testing

/// A store's replicas that have no whole copy of their master's data, and folders that somebody else is at work on.
@Suite(.serialized) struct RedisCopyTests {
    private static let cluster = """
        stack: s
        stores: { state: { redis: { role: state, memory: 64Mi, masters: 3, replicas: 1, failover: 3s } } }
        services: { worker: { command: [sleep, '1000'], grace: 1s } }

        """
    private static let keys = (0..<200).map { "{x}\($0)" }

    private func password(_ stack: SmallStack) -> String {
        (Files.text("\(stack.folder)/.muster/s/stores/state/password") ?? "").split(separator: "\n").first.map(String.init) ?? ""
    }

    private func nodes(_ stack: SmallStack) async throws -> [SmallStack.Row] {
        try await stack.rows().filter { $0.name.hasPrefix("state/") }
    }

    /// One command to one node.
    private func ask(_ stack: SmallStack, _ row: SmallStack.Row, _ command: RedisCommand) async throws -> RESPValue {
        let client = try client(stack, row)
        defer { client.close() }
        return try await client.send(command)
    }

    private func client(_ stack: SmallStack, _ row: SmallStack.Row) throws -> RedisClient {
        let client = RedisClient(url: try RedisURL("redis://:\(password(stack))@127.0.0.1:\(row.port ?? 0)"), loop: stack.loop)
        client.start()
        return client
    }

    private func cluster(_ stack: SmallStack) async throws -> RedisClient {
        let places = try await nodes(stack).map { "127.0.0.1:\($0.port ?? 0)" }.joined(separator: ",")
        var options = RedisClient.Options()
        options.patience = .seconds(20)
        let url = try RedisURL("redis+cluster://:\(password(stack))@\(places)")
        let client = RedisClient(url: url, loop: stack.loop, options: options)
        client.start()
        return client
    }

    private func write(_ stack: SmallStack) async throws {
        let client = try await cluster(stack)
        defer { client.close() }
        for result in await client.pipeline(Self.keys.map { RedisCommand("SET", $0, $0).confirmed(by: 1) }) { _ = try result.get() }
    }

    private func missing(_ stack: SmallStack) async throws -> [String] {
        let client = try await cluster(stack)
        defer { client.close() }
        let values = await client.pipeline(Self.keys.map { RedisCommand("GET", $0) })
        return zip(Self.keys, values).filter { key, value in (try? value.get().string) != key }.map(\.0)
    }

    /// A replica that lost its folder copies anew, and its master dies meanwhile: the replica does not take over, and the master comes back
    /// with what it had.
    @Test func aReplicaWithoutACopyDoesNotTakeOver() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", Self.cluster)
            try await stack.up()
            try await write(stack)
            var found: (master: SmallStack.Row, replica: SmallStack.Row)?
            for row in try await nodes(stack) {
                let role = try await ask(stack, row, RedisCommand("ROLE")).array ?? []
                guard role.first?.string == "slave", try await ask(stack, row, RedisCommand("DBSIZE")).int == Self.keys.count else {
                    continue
                }
                let master = try await nodes(stack).first { $0.port == role[2].int }
                found = (try required(master), row)
            }
            let (master, replica) = try required(found)
            let link = try client(stack, master)
            defer { link.close() }
            #expect(try await link.isWrittenDown())
            // 50 ms a key: the copy takes ten seconds.
            _ = try await ask(stack, master, RedisCommand("CONFIG SET", "rdb-key-save-delay", "50000"))
            let folder = "\(stack.folder)/.muster/s/stores/state/node-\(replica.name.split(separator: "/")[1])"
            for name in ["nodes.conf", "appendonlydir", "dump.rdb"] { Files.remove("\(folder)/\(name)") }
            kill(replica.pid, SIGKILL)
            let copies = await eventually(.seconds(10)) {
                let info = try? await ask(stack, replica, RedisCommand("INFO", "replication")).string
                return info?.contains("master_sync_in_progress:1") ?? false
            }
            #expect(copies)
            kill(master.pid, SIGKILL)
            let isBack = try await eventually(.seconds(40)) {
                let rows = try await nodes(stack)
                return rows.count == 6 && rows.allSatisfy { $0.state == "ready" && $0.pid != master.pid }
            }
            #expect(isBack)
            #expect(try await missing(stack) == [])
            let (_, why) = try await stack.muster("why", "state", "--stack", "s.yaml")
            #expect(why.contains("none of its replicas that answer has all its data"), "\(why)")
            #expect(!why.contains("takes over"), "\(why)")
        }
    }

    /// Replicas of a store with much data copy it anew after a stop, for as long as that takes: the stack serves meanwhile.
    @Test func replicasThatCopyForLongDoNotHoldUpTheStart() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", Self.cluster)
            try await stack.up()
            try await write(stack)
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            // A server whose snapshots, and so copies, take half a second a key.
            let server = try systemProgram("redis-server")
            try Files.makeFolder(stack.folder + "/bin")
            let script = "\(stack.folder)/bin/redis-server"
            try stack.put("bin/redis-server", "#!/bin/sh\nexec \(server) \"$1\" --rdb-key-save-delay 500000 -\n")
            #expect(chmod(script, 0o755) == 0)
            let path = "\(stack.folder)/bin:/usr/local/bin:/usr/bin:/bin"
            let (status, output) = try await stack.muster("up", "-d", "s.yaml", environment: ["PATH": path], limit: .seconds(120))
            #expect(status == 0 && output.contains("the cluster serves again"), "\(output)")
            #expect(output.contains("is not in step with its master yet"), "\(output)")
            #expect(try await missing(stack) == [])
            #expect(try await stack.rows().filter { $0.state == "ready" }.count == 7)
        }
    }

    /// The store of a stack that is one server.
    private func single(_ stack: SmallStack) async throws -> (row: SmallStack.Row, folder: String) {
        try stack.put(
            "s.yaml",
            "stack: s\nstores: { state: { redis: { role: state, memory: 64Mi } } }\n"
                + "services: { worker: { command: [sleep, '1000'], grace: 1s } }\n")
        try await stack.up()
        let client = try stack.redis("state", stack: "s")
        defer { client.close() }
        _ = try await client.send(RedisCommand("SET", "k", "v"))
        return (try await stack.row("state/1"), "\(stack.folder)/.muster/s/stores/state")
    }

    /// No node is started while `muster redis` is at work on the folders.
    @Test func aFolderThatIsWorkedOnIsNotStartedOn() async throws {
        try await withSmallStack { stack in
            let (row, folder) = try await single(stack)
            let lock = try required(try NodeFolders.lock(folder))
            kill(row.pid, SIGKILL)
            let isHeld = try await eventually(.seconds(10)) {
                try await stack.muster("why", "state", "--stack", "s.yaml").output.contains("muster redis is at work on")
            }
            #expect(isHeld)
            try await Task.sleep(for: .milliseconds(1500))
            #expect(try await stack.row("state/1").state != "ready")
            close(lock)
            let isBack = try await eventually(.seconds(10)) { try await stack.row("state/1").state == "ready" }
            #expect(isBack)
        }
    }

    /// While 'recover' waits for its answer, the disk is mounted and the supervisor starts the server: what runs is left alone.
    @Test func recoverLooksAgainWhenItMayGoOn() async throws {
        try await withSmallStack { stack in
            let (row, folder) = try await single(stack)
            #expect(rename(folder + "/appendonlydir", stack.folder + "/aside") == 0)
            kill(row.pid, SIGKILL)
            let isHeld = try await eventually(.seconds(10)) {
                try await stack.muster("why", "state", "--stack", "s.yaml").output.contains("state/1 is not started")
            }
            #expect(isHeld)
            let muster = builtProgram("muster")
            let meanwhile =
                "rm -rf '\(folder)/appendonlydir'; mv '\(stack.folder)/aside' '\(folder)/appendonlydir'; "
                + "for i in $(seq 100); do '\(muster)' ps --json s.yaml | grep -q '\"service\":\"state\"[^}]*\"state\":\"ready\"' && exit 0; "
                + "sleep 0.1; done; exit 1"
            let (status, output) = try await atPrompt(
                [muster, "redis", "recover", "state", "--stack", "s.yaml", "--accept-loss"], meanwhile: meanwhile, folder: stack.folder)
            #expect(status == 1 && output.contains("runs; only a server that is down can be recovered"), "\(output)")
            #expect(!Files.list(folder).contains { $0.hasPrefix("aside-") })
            let client = try stack.redis("state", stack: "s")
            defer { client.close() }
            #expect(try await client.send(RedisCommand("GET", "k")).string == "v")
        }
    }
}

/// The same with the verbs.
@Suite(.serialized) struct RedisCopyVerbTests {
    private func info(_ cluster: LocalCluster, _ i: Int) async -> String {
        (try? await cluster.ask(cluster.ports[i], RedisCommand("INFO", "replication")))?[0].string ?? ""
    }

    /// A replica that copies anew is not forced, and not relied on when its master's folder is lost; and the cluster is told to serve while
    /// it copies.
    @Test func aReplicaThatCopiesIsNeitherForcedNorReliedOn() async throws {
        try await withLocalCluster(create: false) { cluster in
            // So that nobody is replaced meanwhile.
            let made = try await cluster.create("--node-timeout", "30s", "--memory", "64Mi", "--yes")
            #expect(made.status == 0, "\(made.output)")
            let master = "127.0.0.1:\(cluster.ports[0])", replica = "127.0.0.1:\(cluster.ports[3])"
            let client = try FollowingClient(cluster)
            defer { client.close() }
            // In slot 0, which is the first master's.
            for i in 0..<300 { _ = try await client.send(RedisCommand("SET", "{06S}\(i)", "v").confirmed(by: 1)) }
            for i in 0..<60 { _ = try await client.send(RedisCommand("SET", "k\(i)", "v")) }
            _ = try await cluster.ask(cluster.ports[0], RedisCommand("CONFIG SET", "rdb-key-save-delay", "200000"))
            let pid = cluster.pid(3)
            kill(pid, SIGKILL)
            #expect(await eventually { !isAlive(pid) })
            for name in ["appendonlydir", "dump.rdb"] { Files.remove("\(cluster.directory)/node-\(cluster.ports[3])/\(name)") }
            let again = try await cluster.create("--yes")
            #expect(again.status == 0 && again.output.contains("the cluster serves every slot"), "\(again.output)")
            #expect(again.output.contains("\(replica) is not in step"), "\(again.output)")
            #expect(await info(cluster, 3).contains("master_sync_in_progress:1"))
            for name in [["--from", master], [replica]] {
                let forced = try await cluster.muster(["failover"] + name + ["--force", "--yes"] + cluster.access)
                #expect(forced.status == 1 && forced.output.contains("\(replica): is still copying"), "\(forced.output)")
            }
            // Keys go to no master whose replica is not in step.
            let moved = try await cluster.operate("rebalance", "--weight", "\(master)=2", "--yes")
            #expect(moved.status == 1 && moved.output.contains("no replica of it is in step"), "\(moved.output)")
            // Its whole group: the process that writes the snapshot works in the folder, too.
            kill(-cluster.pid(0), SIGKILL)
            for name in ["nodes.conf", "appendonlydir", "dump.rdb"] {
                Files.remove("\(cluster.directory)/node-\(cluster.ports[0])/\(name)")
            }
            let dry = try await cluster.muster(
                ["recover", master, "--dir", cluster.directory, "--password-file", cluster.passwordFile, "--dry-run"])
            #expect(dry.output.contains("only with --accept-loss") && dry.output.contains("relies on: nothing"), "\(dry.output)")
            #expect(dry.output.contains("\(replica), which runs, "), "\(dry.output)")
            let refused = try await cluster.operate("failover", replica, "--force", "--yes")
            #expect(refused.status == 1 && !refused.output.contains("is the master"), "\(refused.output)")
        }
    }

    /// What 'stop' and 'remove' cannot see is not "nothing runs".
    @Test func whatCannotBeSeenIsNotAbsent() async throws {
        try await withLocalCluster { cluster in
            func stop(_ directory: String) async throws -> (status: Int32, output: String) {
                try await cluster.muster(["stop", "--dir", directory, "--yes"])
            }
            let missing = try await stop(cluster.folder + "/none")
            #expect(missing.status == 1 && missing.output.contains("No such file"), "\(missing.output)")
            #expect(!Files.exists(cluster.folder + "/none"))
            let wrong = try await stop(cluster.folder)
            #expect(wrong.status == 1 && wrong.output.contains("no folder of a node"), "\(wrong.output)")
            let file = try await stop(cluster.passwordFile)
            #expect(file.status == 1 && file.output.contains("Not a directory"), "\(file.output)")
            // A replica more, which may leave.
            let place = "127.0.0.1:\(cluster.ports[6])", ports = String(cluster.ports[6])
            let more = try await cluster.operate("add", "--ports", ports, "--dir", cluster.directory, "--yes")
            #expect(more.status == 0, "\(more.output)")
            let away = try await cluster.operate("remove", place, "--dir", cluster.folder, "--yes")
            #expect(away.status == 1 && away.output.contains("nothing was changed"), "\(away.output)")
            #expect(try await cluster.ask(cluster.ports[6], RedisCommand("ROLE"))[0].array?.first?.string == "slave")
            let record = "\(cluster.directory)/node-\(cluster.ports[2])/process"
            #expect(rename(record, record + ".aside") == 0)
            let lost = try await stop(cluster.directory)
            #expect(
                lost.status == 1 && lost.output.contains("a server works in \(cluster.directory)/node-\(cluster.ports[2])"),
                "\(lost.output)")
            #expect(rename(record + ".aside", record) == 0)
            let all = try await stop(cluster.directory)
            #expect(all.status == 0 && all.output.contains("7 nodes have ended"), "\(all.output)")
            let none = try await stop(cluster.directory)
            #expect(none.status == 0 && none.output.contains("no node runs"), "\(none.output)")
        }
    }

    /// While a drill's plan is shown, its victim ends by itself: nothing is signalled.
    @Test func aDrillIsPlannedAgainAfterItsPlanWasShown() async throws {
        try await withLocalCluster { cluster in
            let command = [builtProgram("muster"), "redis", "failover", "--drill", "kill", "127.0.0.1:\(cluster.ports[0])"]
            let (status, output) = try await atPrompt(
                command + cluster.access, meanwhile: "kill -9 \(cluster.pid(0)); sleep 0.5", folder: cluster.folder)
            #expect(status == 1 && !output.contains("fault:"), "\(output)")
        }
    }

    /// A drill whose writes are never confirmed ends before its fault, and leaves no key.
    @Test func aDrillThatEndsEarlyLeavesNoKey() async throws {
        try await withLocalCluster { cluster in
            let (status, output) = try await cluster.operate("failover", "--drill", "kill", "--wait", "3", "--rate", "500/s", "--yes")
            #expect(status == 1 && output.contains("are not acknowledged") && !output.contains("fault:"), "\(output)")
            for i in 0..<3 { #expect(try await cluster.ask(cluster.ports[i], RedisCommand("DBSIZE"))[0].int == 0) }
        }
    }
}

/// Runs a command at a terminal of its own, does something else when it asks whether to go on, and then answers yes.
func atPrompt(_ command: [String], meanwhile: String, folder: String) async throws -> (status: Int32, output: String) {
    let script = """
        import os, pty, subprocess, sys
        pid, terminal = pty.fork()
        if pid == 0: os.execv(sys.argv[2], sys.argv[2:])
        out = b""
        def more():
            global out
            try: part = os.read(terminal, 4096)
            except OSError: part = b""
            out += part
            return part
        while b"Go on?" not in out and more(): pass
        done = subprocess.run(["sh", "-c", sys.argv[1]]).returncode
        os.write(terminal, b"y\\n")
        while more(): pass
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(out.decode(), "meanwhile:", done)
        sys.exit(status if done == 0 else 99)
        """
    return try await run(try systemProgram("python3"), ["-c", script, meanwhile] + command, folder: folder)
}
