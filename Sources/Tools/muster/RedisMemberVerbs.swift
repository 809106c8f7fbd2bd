import Basics
import EventLoops
import Glibc
import Provisioning
import Redis
import Sharding

let redisAddVerb = Verb(
    name: "add", summary: "nodes join: as replicas, or as masters with theirs",
    help: """
        usage: muster redis add HOST:PORT... --address HOST:PORT [--password-file FILE] [options] [--yes] [--dry-run]
                 [--json]
               muster redis add --ports 7007-7008 --dir DIR --address HOST:PORT --password-file FILE [options] [--yes] [--dry-run] [--json]

        Nodes that run already join the cluster; or, with --ports, are started on this machine with the settings of the
        node at --address. Without another word they become replicas of the masters that have the fewest. A new master
        gets its replicas first and no slots: muster redis rebalance gives it its share.

          --replica-of NODE   replicas of this master
          --masters           masters; with --replicas N (default 1) of the nodes given behind each
          --replicas N        only with --masters

        example:
          muster redis add --ports 7007-7008 --dir nodes --masters --address 127.0.0.1:7001 --password-file redis.password --yes
        """,
    flags: redisFlags.union(["--masters"]), options: redisOptions.union(["--ports", "--dir", "--replica-of", "--replicas"])
) { arguments in
    let target = try RedisTarget(arguments)
    let wish = try joinWish(arguments)
    let started = try LocalNodes(arguments)
    let joining = try started?.addresses ?? arguments.positional.map(redisAddress)
    guard !joining.isEmpty else { throw Exit.usage("which nodes? HOST:PORT of each, or --ports and --dir") }
    guard Set(joining).count == joining.count else { throw Exit.usage("a node stands twice") }
    var plan: [String] = []
    if let started, !started.missing.isEmpty {
        try started.checkFolders()
        plan = [
            "start redis-server on \(started.missing.map { "127.0.0.1:\($0.port)" }.joined(separator: ", ")), with the settings of "
                + "\(target.seeds[0])"
        ]
        // Who would join cannot be asked before it runs.
        guard try redisConfirm(plan, arguments) else { return redisResult(plan: plan, applied: false, arguments) }
        let lock = try NodeFolder.lock(started.directory)
        defer { close(lock) }
        // Again: since the plan was shown, time has passed, and another operation may have been at work.
        try started.checkFolders()
        try redisFailures { try blocking { loop in try await started.start(like: target, on: loop) } }
    }
    let growth = try target.run { session in try await ClusterGrowth.plan(session, joining: joining, wish: wish) }
    let steps = growth.steps.map(\.sentence)
    if steps.isEmpty {
        printError("all of them are members as wished: nothing to do")
        return redisResult(plan: plan, applied: !plan.isEmpty, arguments)
    }
    guard try redisConfirm(steps, notes: growth.notes, arguments) else {
        return redisResult(plan: plan + steps, notes: growth.notes, applied: !plan.isEmpty, arguments)
    }
    let copying = try target.run { session in try await growth.apply(session) { printError("  \($0)") } }
    redisServes(" with \(joining.map(\.description).joined(separator: ", "))", copying)
    redisResult(plan: plan + steps, notes: growth.notes, applied: true, arguments)
}

private func joinWish(_ arguments: Arguments) throws -> ClusterGrowth.Wish {
    if let master = arguments.value("--replica-of") {
        if arguments.has("--masters") { throw Exit.usage("--replica-of and --masters exclude each other") }
        return .replicasOf(master)
    }
    if arguments.has("--masters") { return .masters(replicas: try redisReplicas(arguments)) }
    if arguments.value("--replicas") != nil { throw Exit.usage("--replicas goes with --masters") }
    return .replicas
}

/// New nodes of this machine, from `--ports` and `--dir`.
private struct LocalNodes: Sendable {
    let directory: String
    let nodes: [NodeProcess]
    var addresses: [NodeAddress] { nodes.map { NodeAddress(host: "127.0.0.1", port: $0.port) } }
    var missing: [NodeProcess] { nodes.filter { $0.pid == nil } }

    init?(_ arguments: Arguments) throws {
        guard let ports = arguments.value("--ports") else {
            if arguments.value("--dir") != nil { throw Exit.usage("--dir goes with --ports") }
            return nil
        }
        guard let directory = arguments.value("--dir") else { throw Exit.usage("--dir DIR is needed with --ports") }
        if !arguments.positional.isEmpty { throw Exit.usage("nodes that run and --ports exclude each other") }
        self.directory = Files.absolute(directory)
        nodes = try NodeFolder.ports(ports).map { NodeProcess(under: Files.absolute(directory), port: $0) }
    }

    /// One of them may be a member that is down: its folder says whether it may be started.
    func checkFolders() throws {
        let all: [NodeProcess]
        do { all = try NodeProcess.all(under: directory) } catch { throw Exit.failed("\(error)") }
        let others = all.filter { other in !nodes.contains { $0.port == other.port } }
        let census = NodeFolders(nodes + others, under: directory).census()
        for (testimony, verdict) in census.verdicts where nodes.contains(where: { $0.port == testimony.address.port }) {
            switch verdict {
            case .start: break
            case .refuse(let why): throw Exit.failed("nothing was started. \(testimony.address): \(why)")
            case .giveBack:
                throw Exit.failed(
                    "nothing was started. \(testimony.address) is a member already and has lost its folder: \(selfName) redis recover "
                        + "\(testimony.address) --dir \(directory)")
            }
        }
    }

    /// Memory, what it does when that is full, what it writes down, and node timeout as the node at `--address` has them.
    func start(like target: RedisTarget, on loop: EventLoop) async throws(ProvisioningFailure) {
        guard let password = target.credentials.password, !password.isEmpty else {
            throw ProvisioningFailure(.refused, "nodes are started with a password only: --password-file FILE")
        }
        if let user = target.credentials.user {
            throw ProvisioningFailure(
                .refused, "nodes are started with the password of the default user, and '\(user)' is another: leave --user out")
        }
        let session = ClusterSession(seeds: target.seeds, credentials: target.credentials, loop: loop)
        defer { session.close() }
        let model = try session.client(target.seeds[0])
        var question = RedisCommand("CONFIG GET", "maxmemory")
        for name in RedisConfiguration.Likeness.names { question.add(name) }
        let answer = try await model.ask(question).array ?? []
        var settings: [String: String] = [:]
        for i in stride(from: 0, to: answer.count - 1, by: 2) { settings[answer[i].string ?? ""] = answer[i + 1].string }
        let timeout = try await session.read().reports.lazy.compactMap(\.nodeTimeout).first ?? FailoverTime.longestTimeout
        for node in missing {
            let configuration = RedisConfiguration(
                port: node.port, folder: node.folder, memory: settings["maxmemory"].flatMap { Int($0) } ?? 0,
                role: settings["maxmemory-policy"] == "allkeys-lru" ? .cache : .state,
                cluster: .local(port: node.port, nodeTimeout: timeout), likeness: RedisConfiguration.Likeness(settings))
            try NodeFolder.start(node, configuration, password: password)
        }
        for address in addresses {
            let client = try session.client(address)
            let answers = try await session.eventually(.seconds(15)) { () async throws(ProvisioningFailure) in
                (try? await client.ask("PING")) != nil
            }
            if !answers { throw ProvisioningFailure(.unreachable, "does not answer", node: address) }
        }
    }
}

let redisRemoveVerb = Verb(
    name: "remove", summary: "nodes leave, their slots first",
    help: """
        usage: muster redis remove NODE... --address HOST:PORT [--password-file FILE] [--rate R] [--dir DIR] [--yes]
                 [--dry-run] [--json]

        NODE is HOST:PORT or the beginning of an id; --address a node that stays. A master's slots move to the others
        while all serve, its replicas find another master, then all forget it. Refused where a master would lose its
        only replica and no other can spare one, and where fewer than three masters would be left.

          --rate R     keys (5000/s) or bytes (20MB/s) that may move a second; default 10000/s
          --dir DIR    end its process, if 'create' or 'add' started it under DIR

        example:
          muster redis remove 127.0.0.1:7007 127.0.0.1:7008 --dir nodes --address 127.0.0.1:7001 --password-file redis.password --yes
        """,
    flags: redisFlags, options: redisOptions.union(["--rate", "--dir"])
) { arguments in
    let target = try RedisTarget(arguments)
    let rate = try redisRate(arguments), names = arguments.positional
    guard !names.isEmpty else { throw Exit.usage("which nodes? HOST:PORT or the beginning of an id") }
    let shrink = try target.run { session in try await ClusterShrink.plan(session, names: names) }
    let ends = try arguments.value("--dir").map { try processes(of: shrink.leaving, under: $0) } ?? []
    let plan = shrink.sentences + ends.map { "end the process of 127.0.0.1:\($0.port) (pid \($0.pid ?? 0)); its folder stays" }
    guard try redisConfirm(plan, arguments) else { return redisResult(plan: plan, applied: false, arguments) }
    let copying = try target.run { session in
        try await ClusterRepair(session, rate: rate) { printError("  \($0)") }.settleOpenSlots()
        // What was open may have changed whose the slots are.
        let now = try await ClusterShrink.plan(session, names: names)
        return try await now.apply(session, rate: rate) { printError("  \($0)") }
    }
    try NodeFolder.end(ends)
    redisServes(" without \(shrink.leaving.map(\.address.description).joined(separator: ", "))", copying)
    redisResult(plan: plan, applied: true, arguments)
}

/// The processes of nodes that leave, of those that were started under a folder. Throws where the folder has none of these nodes, and where
/// that cannot be seen: their processes would go on without a cluster.
private func processes(of leaving: [ClusterView.Member], under directory: String) throws -> [NodeProcess] {
    do throws(SystemError) {
        _ = try Files.entries(Files.absolute(directory))
        let known = try NodeProcess.all(under: Files.absolute(directory)).filter { node in
            leaving.contains { $0.address.port == node.port && $0.address.isLoopback }
        }
        if known.isEmpty {
            throw SystemError("--dir \(directory) has no folder (node-PORT) of a node that leaves; nothing was changed", 0)
        }
        var running: [NodeProcess] = []
        for node in known { if try node.look() != nil { running.append(node) } }
        return running
    } catch { throw Exit.failed("\(error)") }
}
