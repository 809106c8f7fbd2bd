import Basics
import EventLoops
import Glibc
import Provisioning
import Redis
import Sharding

let redisCreateVerb = Verb(
    name: "create", summary: "start nodes on this machine and form a cluster of them",
    help: """
        usage: muster redis create --ports 7001-7006 --dir DIR --password-file FILE [options] [--yes] [--dry-run] [--json]
               muster redis create --address HOST:PORT,HOST:PORT,... --password-file FILE [--replicas N] [--yes] [--dry-run] [--json]

        Starts one redis-server a port, on 127.0.0.1, each in DIR/node-PORT with its log, and forms them into a cluster; or forms one of nodes that run
        already. Run again, it starts what does not run, completes what was cut off, and leaves the rest as it is. Never over data, in any copy: a node
        whose folder lost what it had is not started while slots depend on it (muster redis recover).

          --replicas N           replicas of each master (default 1); at least 3 masters
          --failover DURATION    the promise: a dead master is replaced within it (default 5s); chooses the node timeout, or says why it cannot
          --node-timeout D       the node timeout itself, from 500ms
          --memory SIZE          maxmemory of a node (default 512Mi)
          --role state|cache     state never evicts and writes everything down (default); cache evicts the least recently used

        example:
          (umask 077; openssl rand -hex 24 > redis.password)
          muster redis create --ports 7001-7006 --dir nodes --password-file redis.password --replicas 1 --failover 5s --yes
        """,
    flags: redisFlags,
    options: redisOptions.union(["--ports", "--dir", "--replicas", "--failover", "--node-timeout", "--memory", "--role"])
) { arguments in
    try arguments.atMost(0, "everything is an option")
    if arguments.value("--address") != nil { return try formForeign(arguments) }
    let request = try CreateRequest(arguments)
    try request.checkRunning()
    guard try redisConfirm(request.plan, notes: request.notes, arguments) else {
        return redisResult(plan: request.plan, notes: request.notes, applied: false, arguments)
    }
    let lock = try NodeFolder.lock(request.directory)
    defer { close(lock) }
    let (isNew, copying) = try redisFailures {
        let started = try request.start()
        return try blocking { loop in
            let outcome = try await ClusterFormation.form(
                nodes: request.addresses, replicas: request.replicas, credentials: RedisCredentials(password: request.password), on: loop
            ) { printError("  \($0)") }
            await request.useDefragmentation(loop)
            return (outcome.isChanged || started, outcome.copying)
        }
    }
    do { try FormedMark.set(FormedMark.path(inside: request.directory)) } catch { throw Exit.failed("\(error)") }
    redisServes(": \(request.addresses.count) nodes", copying)
    printError("Next:")
    printError(
        "  \(selfName) redis status --address \(request.addresses[0]) --password-file \(arguments.value("--password-file") ?? "FILE")")
    redisResult(plan: request.plan, notes: request.notes, applied: isNew, arguments)
}

let redisStopVerb = Verb(
    name: "stop", summary: "end the nodes that create started here; data stays",
    help: """
        usage: muster redis stop --dir DIR [--yes] [--dry-run] [--json]

        SIGTERM to each redis-server that runs under DIR, so that its data is written out. 'create' with the same --dir starts them again, with their data.

        example:
          muster redis stop --dir nodes --yes
        """,
    flags: redisFlags, options: ["--dir"]
) { arguments in
    try arguments.atMost(0, "everything is an option")
    guard let directory = arguments.value("--dir") else { throw Exit.usage("--dir DIR is needed: what 'create' was given") }
    let running = try NodeFolder.running(under: Files.absolute(directory))
    if running.isEmpty {
        printError("no node runs under \(directory)")
        return redisResult(plan: [], applied: false, arguments)
    }
    let plan = running.map { "end 127.0.0.1:\($0.port) (pid \($0.pid ?? 0))" }
    guard try redisConfirm(plan, arguments) else { return redisResult(plan: plan, applied: false, arguments) }
    let lock = try NodeFolder.lock(Files.absolute(directory))
    defer { close(lock) }
    // Again: since the plan was shown, others may have been started.
    let now = try NodeFolder.running(under: Files.absolute(directory))
    guard Set(now.map(\.port)).isSubset(of: running.map(\.port)) else {
        throw Exit.failed("other nodes run under \(directory) than when the plan was shown; nothing was ended. Run the same again")
    }
    try NodeFolder.end(now)
    printError("\(running.count) nodes have ended; their data is in \(directory)")
    redisResult(plan: plan, applied: true, arguments)
}

/// Folders of nodes of this machine.
enum NodeFolder {
    /// One operation at a time on a folder. The lock ends with the descriptor.
    static func lock(_ directory: String) throws -> Int32 {
        do {
            try Files.makeFolder(directory, mode: 0o700)
            if let descriptor = try NodeFolders.lock(directory) { return descriptor }
        } catch { throw Exit.failed("\(error)") }
        throw Exit.failed("another muster redis is at work on \(directory), or a supervisor starts a node there: try again")
    }

    /// The nodes of 'create' and 'add' that run under a folder. Throws when that cannot be seen, or when there are none that could run.
    static func running(under directory: String) throws -> [NodeProcess] {
        do throws(SystemError) {
            // So that a folder that is not there is told.
            _ = try Files.entries(directory)
            let nodes = try NodeProcess.all(under: directory)
            if nodes.isEmpty { throw SystemError("\(directory) has no folder of a node (node-PORT): is it what 'create' was given?", 0) }
            if nodes.contains(where: { $0.port < 1024 }) {
                throw SystemError("the nodes under \(directory) are those of a stack's store: muster down stops them", 0)
            }
            var running: [NodeProcess] = []
            for node in nodes {
                if try node.look() != nil {
                    running.append(node)
                } else if try NodeFolders.hasServer(node.folder) {
                    throw SystemError(
                        "a server works in \(node.folder), and \(node.folder)/process does not name it: 'create' did not start it, or "
                            + "that file is lost. End it by hand (SIGTERM)", 0)
                }
            }
            return running
        } catch { throw Exit.failed("\(error)") }
    }

    /// Ends nodes with SIGTERM, so that their data is written out, and returns when all have ended. A master that ends waits up to 10 s for
    /// its replicas to catch up; one that still runs after a minute is an error that names its log.
    static func end(_ nodes: [NodeProcess]) throws {
        let deadline = MonotonicTime.now + .seconds(60)
        var next = MonotonicTime.now
        while let late = nodes.first(where: { $0.pid != nil }) {
            if MonotonicTime.now > deadline { throw Exit.failed("127.0.0.1:\(late.port) does not end; see \(late.log)") }
            // Asked again each second: a node that writes its first append-only log after a full copy declines to end.
            if MonotonicTime.now >= next {
                for node in nodes { _ = node.terminate() }
                next = .now + .seconds(1)
            }
            usleep(20_000)
        }
    }

    /// `7001-7006` or `7001,7003`.
    static func ports(_ text: String) throws -> [UInt16] {
        var out: [UInt16] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let ends = part.split(separator: "-", omittingEmptySubsequences: false).map { UInt16($0) }
            guard (1...2).contains(ends.count), let low = ends[0], let high = ends[ends.count - 1], low > 0, low <= high, high - low < 1000
            else {
                throw Exit.usage("--ports: '\(text)' is no list of ports such as 7001-7006")
            }
            out += low...high
        }
        guard Set(out).count == out.count else { throw Exit.usage("--ports: a port stands twice in '\(text)'") }
        if let high = out.first(where: { $0 > 55_535 }) { throw Exit.usage("--ports: \(high) + 10000, the node's bus, is no port") }
        return out
    }
}

/// What `create` was asked for, checked: it can be carried out, or there is a reason why not.
private struct CreateRequest: Sendable {
    let directory: String
    let nodes: [NodeProcess]
    let addresses: [NodeAddress]
    let replicas: Int
    let password: String
    let plan: [String]
    let notes: [String]
    private let configurations: [RedisConfiguration]
    private let role: RedisConfiguration.Role

    init(_ arguments: Arguments) throws {
        guard let ports = arguments.value("--ports"), let directory = arguments.value("--dir") else {
            throw Exit.usage("--ports 7001-7006 and --dir DIR are needed (or --address, for nodes that run already)")
        }
        let numbers = try NodeFolder.ports(ports)
        guard let password = try redisPassword(arguments, isNew: true) else {
            throw Exit.usage("--password-file FILE is needed; make one with: (umask 077; openssl rand -hex 24 > FILE)")
        }
        if let reason = RedisPassword.refusal(password) { throw Exit.failed("the password \(reason)") }
        self.password = password
        self.directory = Files.absolute(directory)
        replicas = try redisReplicas(arguments)
        let (timeout, why) = try redisNodeTimeout(arguments)
        guard let memory = ByteSize.read(arguments.value("--memory") ?? "512Mi"), memory >= 16 << 20 else {
            throw Exit.usage("--memory: '\(arguments.value("--memory") ?? "")' is no size of at least 16Mi, such as 512Mi or 2Gi")
        }
        let roleWord = arguments.value("--role") ?? "state"
        guard let role = RedisConfiguration.Role(rawValue: roleWord) else {
            throw Exit.usage("--role: '\(roleWord)' is neither state nor cache")
        }
        nodes = numbers.map { NodeProcess(under: Files.absolute(directory), port: $0) }
        addresses = numbers.map { NodeAddress(host: "127.0.0.1", port: $0) }
        let placement: Placement
        do { placement = try Placement(nodes: addresses, replicas: replicas) } catch { throw Exit.usage(error.description) }
        configurations = zip(numbers, nodes).map { port, node in
            RedisConfiguration(
                port: port, folder: node.folder, memory: memory, role: role, cluster: .local(port: port, nodeTimeout: timeout))
        }
        self.role = role
        let census: FolderCensus
        do { census = try CreateRequest.census(nodes, Files.absolute(directory), role) } catch { throw Exit.failed("\(error)") }
        if let reason = CreateRequest.refusal(census, nodes) { throw Exit.failed(reason) }
        let known = nodes.filter { Files.exists($0.configuration) }
        var lines: [String] = census.verdicts.compactMap { if case .giveBack(_, let sentence) = $0.verdict { sentence } else { nil } }
        let starting = nodes.filter { $0.pid == nil }
        if starting.isEmpty {
            lines.append("all \(nodes.count) nodes run")
        } else {
            lines.append(
                "start redis-server on \(starting.map { "127.0.0.1:\($0.port)" }.joined(separator: ", ")); data and logs in "
                    + "\(directory)/node-PORT"
            )
        }
        if known.isEmpty {
            lines += placement.masters.map { master in
                let behind = master.replicas.isEmpty ? "" : ", replicas \(master.replicas.map(\.description).joined(separator: ", "))"
                return
                    "master \(master.address) with slots \(master.slots.lowerBound)-\(master.slots.upperBound) "
                    + "(\(master.slots.count))\(behind)"
            }
            lines.append(why)
            lines += Capacity(masters: placement.masters.count, nodes: nodes.count, memory: memory).lines
            notes = placement.notes
        } else {
            lines.append("\(known.count) of \(nodes.count) nodes have their settings in \(directory) from before; those stay")
            notes = []
        }
        plan = lines
    }

    /// What the folders of these nodes, and of others beside them, say.
    private static func census(_ nodes: [NodeProcess], _ directory: String, _ role: RedisConfiguration.Role)
        throws(ProvisioningFailure) -> FolderCensus
    {
        let all: [NodeProcess]
        do { all = try NodeProcess.all(under: directory) } catch { throw ProvisioningFailure(.local, "\(error)") }
        let others = all.filter { other in !nodes.contains { $0.port == other.port } }
        return NodeFolders(nodes + others, under: directory).census(orElse: role == .state)
    }

    /// What is refused of these nodes, as one message.
    private static func refusal(_ census: FolderCensus, _ nodes: [NodeProcess]) -> String? {
        let refused = census.verdicts.filter { one in nodes.contains { $0.port == one.testimony.address.port } }
            .compactMap { if case .refuse(let why) = $0.verdict { "\($0.testimony.address): \(why)" } else { nil } }
        return refused.isEmpty ? nil : "nothing was started. " + refused.joined(separator: "\n  ")
    }

    /// A node that runs knows the password: a wrong one is told before others are started with it.
    func checkRunning() throws {
        guard let running = nodes.first(where: { $0.pid != nil }) else { return }
        let address = NodeAddress(host: "127.0.0.1", port: running.port), credentials = RedisCredentials(password: password)
        try redisFailures {
            try blocking { loop in
                let session = ClusterSession(seeds: [address], credentials: credentials, loop: loop)
                defer { session.close() }
                do throws(ProvisioningFailure) { _ = try await session.client(address).ask("PING") } catch {
                    // One that hangs or loads says nothing of the password.
                    if error.code == .authentication { throw error }
                }
            }
        }
    }

    /// What is there stays: settings, data, processes. Under the lock.
    func start() throws(ProvisioningFailure) -> Bool {
        let folders = NodeFolders(nodes, under: directory)
        // Again: since the plan was shown, time has passed, and another operation may have been at work.
        let census = try CreateRequest.census(nodes, directory, role)
        if let reason = CreateRequest.refusal(census, nodes) { throw ProvisioningFailure(.refused, reason) }
        for (testimony, verdict) in census.verdicts {
            guard case .giveBack(let file, let sentence) = verdict, nodes.contains(where: { $0.port == testimony.address.port }) else {
                continue
            }
            printError("  \(sentence)")
            try folders.carryOut(.write(file, testimony.address))
        }
        var started: [NodeProcess] = []
        for (node, configuration) in zip(nodes, configurations) where node.pid == nil {
            try NodeFolder.start(node, configuration, password: password)
            started.append(node)
        }
        // One that ends at once (a wrong setting, a full disk) says why in its log.
        usleep(started.isEmpty ? 0 : 200_000)
        if let dead = started.first(where: { $0.pid == nil }) {
            throw ProvisioningFailure(
                .local, "redis-server on port \(dead.port) ended at once; \(dead.log) ends with:\n  \(dead.lastWords)")
        }
        if !started.isEmpty { printError("  started \(started.count) redis-server processes") }
        return !started.isEmpty
    }

    /// Where the server was built with an allocator that can; Debian's was not, and that is no failure.
    func useDefragmentation(_ loop: EventLoop) async {
        let session = ClusterSession(seeds: addresses, credentials: RedisCredentials(password: password), loop: loop)
        defer { session.close() }
        for address in addresses { _ = try? await session.client(address).ask("CONFIG SET", "activedefrag", "yes") }
    }
}

extension NodeFolder {
    /// Settings that are there already stay.
    static func start(_ node: NodeProcess, _ configuration: RedisConfiguration, password: String) throws(ProvisioningFailure) {
        do throws(SystemError) {
            try Files.makeFolder(node.folder, mode: 0o700)
            if !Files.exists(node.configuration) {
                try Files.replace(node.configuration, with: Array(configuration.text.utf8), mode: 0o600)
            }
        } catch { throw ProvisioningFailure(.local, "\(error)") }
        // Something that goes just now gets a second to be gone.
        func hasPorts() throws(ProvisioningFailure) -> Bool {
            do throws(SystemError) {
                guard try isFreePort(node.port) else { return false }
                return try isFreePort(node.port + 10_000)
            } catch { throw ProvisioningFailure(.local, "whether the ports of \(node.folder) are free cannot be seen: \(error)") }
        }
        for _ in 0..<20 where try !hasPorts() { usleep(50_000) }
        guard try hasPorts() else {
            throw ProvisioningFailure(.refused, "port \(node.port) or its bus port \(Int(node.port) + 10_000) is in use by another process")
        }
        _ = try node.start(password: password)
    }

}

func redisReplicas(_ arguments: Arguments) throws -> Int {
    let word = arguments.value("--replicas") ?? "1"
    guard let count = Int(word), (0...5).contains(count) else { throw Exit.usage("--replicas: '\(word)' is no number from 0 to 5") }
    return count
}

/// The node timeout, and the sentence that tells why this one.
private func redisNodeTimeout(_ arguments: Arguments) throws -> (Duration, String) {
    func duration(_ option: String) throws -> Duration? {
        guard let word = arguments.value(option) else { return nil }
        guard let value = Duration(text: word) else { throw Exit.usage("\(option): '\(word)' is no duration such as 500ms or 5s") }
        return value
    }
    let promise = try duration("--failover")
    do {
        if let given = try duration("--node-timeout") {
            try FailoverTime.check(nodeTimeout: given, promise: promise)
            return (given, "node timeout \(given.brief): a dead master is replaced within \(FailoverTime.arithmetic(nodeTimeout: given))")
        }
        let decision = try FailoverTime.nodeTimeout(promise: promise ?? .seconds(5))
        return (decision.result, decision.record.sentence)
    } catch let refusal as FailoverTime.Refusal { throw Exit.usage(refusal.description) }
}

/// A cluster of nodes that run somewhere already.
private func formForeign(_ arguments: Arguments) throws {
    if arguments.value("--ports") != nil || arguments.value("--dir") != nil { throw Exit.usage("--address and --ports exclude each other") }
    let target = try RedisTarget(arguments)
    let replicas = try redisReplicas(arguments)
    let formation = try target.run { session in try await ClusterFormation.plan(session, replicas: replicas) }
    let plan = formation.steps.map(\.sentence)
    if plan.isEmpty {
        printError("the cluster is formed already: nothing to do")
        return redisResult(plan: [], applied: false, arguments)
    }
    guard try redisConfirm(plan, notes: formation.notes, arguments) else {
        return redisResult(plan: plan, notes: formation.notes, applied: false, arguments)
    }
    let copying = try target.run { session in
        try await formation.apply(session) { printError("  \($0)") }
        return try await session.waitUntilServing(.seconds(60), copyTime: .seconds(15))
    }
    redisServes("", copying)
    redisResult(plan: plan, notes: formation.notes, applied: true, arguments)
}
