import Basics
import EventLoops
import Glibc
import JSONCoding
import Provisioning
import Sharding
import Supervision

let redisRecoverVerb = Verb(
    name: "recover", summary: "a node whose folder was lost, emptied or exchanged comes back",
    help: """
        usage: muster redis recover [NODE] --dir DIR [--password-file FILE] [--accept-loss] [--yes] [--dry-run] [--json]
               muster redis recover NODE --stack FILE [--accept-loss] [--yes] [--dry-run] [--json]

        'create' and 'up' start no node whose folder lost what it had while slots depend on it: its replica, which has
        the only copy, would copy the emptiness. This verb says what can be had from the other folders, and does it: a
        replica takes over (in the nodes' files where all are down, by a failover where they run) and NODE comes back as
        its replica. What is in NODE's folder is put aside in it, not deleted.

        NODE is HOST:PORT, a port, or STORE/NUMBER of a stack; without it, the nodes that are refused are listed. DIR is
        what 'create' was given, or the folder of a stack's store. NODE must be down. The plan tells which data it
        relies on, and what is lost; a replica that runs is asked whether its copy is whole.

          --accept-loss   where no replica has a copy: from NODE's own snapshot, or else empty

        example:
          muster redis recover 127.0.0.1:7002 --dir nodes --dry-run
          muster redis recover state/2 --stack stacks/redis-cluster.yaml --yes
        """,
    flags: redisFlags.union(["--accept-loss"]), options: ["--dir", "--stack", "--password-file"]
) { arguments in
    try arguments.atMost(1, "one node")
    let place = try RecoveryPlace(arguments)
    let folders = try redisFailures { try NodeFolders(place.directory) }
    guard let address = try place.address(in: folders) else { return listRefused(folders, arguments) }
    guard let recovery = try plan(folders, address, place) else {
        printError("\(address): nothing is wrong with its folder; it may be started")
        return redisResult(plan: [], applied: false, arguments)
    }
    let lines = recovery.sentences + ["relies on: \(recovery.reliesOn)", "is lost: \(recovery.loses)"]
    if recovery.needsAcceptance, !arguments.has("--accept-loss") {
        for line in lines { printError("  \(line)") }
        redisResult(plan: lines, applied: false, arguments)
        if arguments.has("--dry-run") { return printError("only with --accept-loss; nothing was changed (--dry-run)") }
        throw Exit.failed("no replica here has a copy: only with --accept-loss")
    }
    guard try redisConfirm(lines, arguments) else { return redisResult(plan: lines, applied: false, arguments) }
    let lock = try NodeFolder.lock(place.directory)
    defer { close(lock) }
    // Again: while the plan was shown, a disk may have been mounted, and the node started. From here on nobody starts it.
    let now = try lookAgain(place, address)
    guard now.recovery.isShown(as: recovery) else {
        throw Exit.failed(
            "\(address): its folders say something else than when the plan was shown; nothing was changed. Run the same again")
    }
    try carryOut(now.recovery, now.folders, address, place)
    printError("\(address) may be started again: \(place.next)")
    redisResult(plan: lines, applied: true, arguments) { json in
        json.member("relies_on", recovery.reliesOn)
        json.member("loses", recovery.loses)
    }
}

private func plan(_ folders: NodeFolders, _ address: NodeAddress, _ place: RecoveryPlace) throws -> FolderRecovery? {
    do {
        if folders.isSingle { return try redisFailures { try folders.singleRecovery() } }
        let census = folders.census(), plan = try FolderRecovery.plan(census, address)
        guard case .takeOver? = plan?.steps.first else { return plan }
        // That a replica runs does not say that it has a copy: each is asked, before anything is relied on.
        return try FolderRecovery.plan(census, address, copies: try copies(census, place))
    } catch let refusal as FolderRecovery.Refusal { throw Exit.failed(refusal.description) }
}

/// The folders as they are now, and the plan for them; throws when the node runs, or when nothing is wrong with it any more.
private func lookAgain(_ place: RecoveryPlace, _ address: NodeAddress) throws -> (folders: NodeFolders, recovery: FolderRecovery) {
    let folders = try redisFailures { try NodeFolders(place.directory) }
    guard let recovery = try plan(folders, address, place) else {
        throw Exit.failed("\(address): nothing is wrong with its folder any more; nothing was changed, and it may be started")
    }
    return (folders, recovery)
}

private func carryOut(_ first: FolderRecovery, _ before: NodeFolders, _ address: NodeAddress, _ place: RecoveryPlace) throws {
    var recovery = first, folders = before
    if case .takeOver(let heir)? = recovery.steps.first {
        let credentials = RedisCredentials(password: try place.password())
        let sentence = try redisFailures {
            try blocking { loop in
                let session = ClusterSession(seeds: [heir], credentials: credentials, loop: loop)
                defer { session.close() }
                // It, or another replica, may have been elected meanwhile: then nobody is forced.
                switch try await ClusterFailover.plan(session, .heirOf(address, heir.description), isForced: true) {
                case .done(let sentence): return sentence
                case .planned(let failover):
                    return "\(heir) has taken over (\(Duration.milliseconds(try await failover.apply(session).milliseconds).brief))"
                }
            }
        }
        printError("  \(sentence)")
        // The nodes have written down what they agreed on: the rest goes by that, and loses no more than was shown.
        folders = try redisFailures { try NodeFolders(place.directory) }
        guard let rest = try plan(folders, address, place) else { return }
        recovery = rest
        guard !recovery.needsAcceptance else {
            throw Exit.failed(
                "\(heir) has taken over, and \(address) still has slots of its own; nothing more was changed. Run the same again")
        }
    }
    for step in recovery.steps { try redisFailures { try folders.carryOut(step) } }
}

/// What each node that runs says of its copy of its master's data.
private func copies(_ census: FolderCensus, _ place: RecoveryPlace) throws -> [NodeAddress: ReplicaCopy] {
    let running = census.testimonies.filter(\.runs).map(\.address), credentials = RedisCredentials(password: try place.password())
    return try redisFailures {
        try blocking { loop in
            let session = ClusterSession(seeds: running, credentials: credentials, loop: loop)
            defer { session.close() }
            var copies: [NodeAddress: ReplicaCopy] = [:]
            for address in running {
                do throws(ProvisioningFailure) {
                    copies[address] = ReplicaCopy(info: try await session.client(address).ask("INFO", "replication").string ?? "")
                } catch {
                    // A wrong password says nothing of the copy.
                    if error.code == .authentication { throw error }
                    copies[address] = .lacking("does not say whether it has a whole copy (\(error.message))")
                }
            }
            return copies
        }
    }
}

private func listRefused(_ folders: NodeFolders, _ arguments: Arguments) {
    let refused: [String]
    if folders.isSingle, let node = folders.nodes.first, !node.runs {
        refused = NodeFolders.refusal(single: node.folder, wasFormed: folders.wasFormed).map { ["\(node.address): \($0)"] } ?? []
    } else {
        refused = folders.census().refusals
    }
    for line in refused { printError("  \(line)") }
    if refused.isEmpty { printError("no node's folder stands in the way of a start") }
    redisResult(plan: refused, applied: false, arguments)
}

/// Where the folders are, from `--dir` or `--stack`.
private struct RecoveryPlace {
    let directory: String
    let next: String
    private let name: String?
    private let passwordFile: String?
    private let arguments: Arguments

    init(_ arguments: Arguments) throws {
        self.arguments = arguments
        let word = arguments.positional.first
        guard let file = arguments.value("--stack") else {
            guard let directory = arguments.value("--dir") else {
                throw Exit.usage("--dir DIR (what 'create' was given) or --stack FILE is needed")
            }
            self.directory = Files.absolute(directory)
            name = word
            passwordFile = nil
            next = "run the 'create' or 'up' that refused it"
            return
        }
        if arguments.value("--dir") != nil { throw Exit.usage("--dir and --stack exclude each other") }
        let handle = try StackHandle(file)
        let stores = try handle.stack.stores.compactMap { store in
            if case .run(.redis(let settings)) = store.form { (name: store.name, isCluster: settings.isCluster) } else { nil }
        }
        let isRunning = try handle.isRunning
        let names = stores.map(\.name)
        let parts = (word ?? "").split(separator: "/").map(String.init)
        guard let store = names.first(where: { $0 == parts.first }) ?? (names.count == 1 ? names.first : nil) else {
            throw Exit.usage("which store? \(file) has \(names.isEmpty ? "no Redis" : names.joined(separator: ", ")): STORE/NUMBER")
        }
        directory = handle.folder.store(store)
        passwordFile = directory + "/password"
        if let first = parts.first, first == store {
            name = parts.count > 1 ? "node-\(parts[1])" : stores.first { $0.name == store }?.isCluster == true ? nil : ""
        } else {
            name = word
        }
        next = isRunning ? "its supervisor does so within a second" : "\(selfName) up \(file)"
    }

    /// nil: no node was named.
    func address(in folders: NodeFolders) throws -> NodeAddress? {
        if folders.isSingle, name != nil { return folders.nodes.first?.address }
        guard let name else { return nil }
        if let node = folders.nodes.first(where: { $0.name == name }) { return node.address }
        if let port = UInt16(name), let node = folders.nodes.first(where: { $0.address.port == port }) { return node.address }
        let address = try redisAddress(name)
        guard let node = folders.nodes.first(where: { $0.address.port == address.port && address.isLoopback }) else {
            throw Exit.failed("\(name) is none of the nodes here: \(folders.nodes.map(\.address.description).joined(separator: ", "))")
        }
        return node.address
    }

    func password() throws -> String {
        if arguments.value("--password-file") == nil, let passwordFile {
            return try redisFailures { try RedisPassword.read(passwordFile, isNew: false) }
        }
        guard let password = try redisPassword(arguments, isNew: false) else {
            throw Exit.usage("nodes run, and one of them must be asked: --password-file FILE is needed")
        }
        return password
    }
}
