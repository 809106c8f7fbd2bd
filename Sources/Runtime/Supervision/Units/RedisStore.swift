import Basics
import EventLoops
import Glibc
import Provisioning
import Sharding
import StackModel

/// A declared Redis store as it is run: one server, or the nodes of a cluster. Ports and password are chosen once and kept in its folder.
struct RedisStore {
    let spec: StoreSpec
    let folder: String
    let password: String
    /// Number 1 and on.
    let nodes: [RedisServer]

    init(_ spec: StoreSpec, folder: String) throws(StackFolder.Failure) {
        self.spec = spec
        self.folder = folder
        if let other = RedisStore.otherLayout(spec, folder) { throw StackFolder.Failure("store \(spec.name): \(other)") }
        if !spec.isCluster, spec.role == .state,
            let why = NodeFolders.refusal(single: folder, wasFormed: FormedMark.exists(for: folder))
        {
            throw StackFolder.Failure("store \(spec.name): nothing was started. \(why)")
        }
        do throws(SystemError) {
            try Files.makeFolder(folder, mode: 0o700)
            let passwordFile = folder + "/password"
            if let known = Files.text(passwordFile)?.split(separator: "\n").first {
                password = String(known)
            } else {
                password = secretHex(bytes: 24)
                try Files.replace(passwordFile, with: Array((password + "\n").utf8), mode: 0o600)
            }
            try Files.replace(folder + "/layout", with: Array((RedisStore.layout(spec) + "\n").utf8))
            var nodes: [RedisServer] = []
            for number in 1...spec.nodes {
                let place = spec.isCluster ? "\(folder)/node-\(number)" : folder
                let declared = spec.port.map { $0 + UInt16(number - 1) }
                nodes.append(
                    try RedisServer(spec, number: number, folder: place, password: password, port: declared, taken: nodes.map(\.port)))
            }
            self.nodes = nodes
            if spec.isCluster {
                try NodeFolders.keepRoster(nodes.map { ("node-\($0.number)", $0.port) }, in: folder)
            } else {
                try beginSingle()
            }
        } catch { throw StackFolder.Failure("store \(spec.name): \(error)") }
        let refused = census().refusals
        if let first = refused.first {
            let more = refused.count > 1 ? " (and \(refused.count - 1) more)" : ""
            throw StackFolder.Failure("store \(spec.name): nothing was started. \(first)\(more)")
        }
    }

    /// From here on an empty folder is one that was emptied: the first start of a server that keeps its data leaves a log and a mark.
    private func beginSingle() throws(SystemError) {
        guard keepsData else { return }
        if case .none = NodeTestimony.data(in: folder) { try NodeFolders.emptyLog(folder) }
        try FormedMark.set(FormedMark.path(beside: folder))
    }

    /// A cache writes nothing down.
    private var keepsData: Bool { spec.role == .state }

    /// What the folders of the nodes say now; a node whose port is taken counts as one that runs. Of a single server: nothing.
    func census(starting number: Int? = nil) -> FolderCensus {
        guard spec.isCluster else { return FolderCensus([], wasFormed: false, place: "") }
        return FolderCensus(
            nodes.map { node in
                NodeTestimony(
                    folder: node.folder, address: node.address, runs: node.number != number && !isFreePort(node.port), keepsData: keepsData)
            }, wasFormed: FormedMark.exists(for: folder), place: "--dir \(folder)")
    }

    /// The lock on the store's folder, which `muster redis recover` holds while it changes what is in it; or why no node may be started now.
    /// The descriptor is to be closed; -1: there is no folder, and nothing to lock.
    func lock() -> (descriptor: Int32, refusal: String?) {
        if !Files.exists(folder) { return (-1, nil) }
        do throws(SystemError) {
            if let descriptor = try NodeFolders.lock(folder) { return (descriptor, nil) }
            return (-1, "muster redis is at work on \(folder)")
        } catch { return (-1, "\(error)") }
    }

    /// Asked before the process of node `number` is started, again each time, under the lock: nil when it may be. A replica that lost its
    /// folder gets its place back by it, which `tell` hears.
    func obstacle(to number: Int, tell: (String) -> Void) -> String? {
        guard spec.isCluster else {
            return keepsData ? NodeFolders.refusal(single: folder, wasFormed: FormedMark.exists(for: folder)) : nil
        }
        let census = census(starting: number), node = nodes[number - 1]
        guard let one = census.testimonies.first(where: { $0.address == node.address }) else { return nil }
        switch census.verdict(of: one) {
        case .start: break
        case .refuse(let why): return why
        case .giveBack(let file, let sentence):
            do {
                try node.prepare()
                try Files.replace(node.folder + "/nodes.conf", with: Array(file.text.utf8), mode: 0o600)
                tell("\(spec.name)/\(number): \(sentence)")
            } catch { return "\(error)" }
        }
        // Without the mark the folder is judged more severely the next time; on a full disk that is no reason not to start.
        do { try StartMark.draw(node.folder) } catch { tell("\(spec.name)/\(number): \(error)") }
        return nil
    }

    /// A single server's data is no cluster's, and a cluster grows and shrinks by moving slots, not by another number in the file: what is
    /// on disk must fit.
    private static func otherLayout(_ spec: StoreSpec, _ folder: String) -> String? {
        let layout = layout(spec)
        let hasData = Files.exists(folder + "/port") || Files.exists(folder + "/node-1")
        let known = Files.text(folder + "/layout")?.split(separator: "\n").first.map(String.init) ?? (hasData ? "single" : layout)
        if known == layout { return nil }
        let port =
            Files.text(folder + "/port")?.split(separator: "\n").first ?? Files.text(folder + "/node-1/port")?.split(separator: "\n").first
        return
            "its data in \(folder) is of another layout (\(known), and the stack file says \(layout)). To take the data along: say what "
            + "was said before, 'muster up -d', 'muster redis "
            + "backup --to DIR --address 127.0.0.1:\(port ?? "PORT") --password-file FILE --yes' "
            + "with a copy of \(folder)/password, 'muster down --purge', say what is said now, 'muster up -d', and 'muster redis restore "
            + "--from DIR' with the new port and password"
    }

    private static func layout(_ spec: StoreSpec) -> String {
        spec.isCluster ? "cluster \(spec.masters) \(spec.replicas)" : "single"
    }

    /// What services get as REDIS_URL.
    var url: String {
        let places = nodes.map { "127.0.0.1:\($0.port)" }.joined(separator: ",")
        return "redis\(spec.isCluster ? "+cluster" : "")://:\(password)@\(places)"
    }
}

/// One redis-server of a store: its folder, port, password and configuration.
struct RedisServer {
    let spec: StoreSpec
    let number: Int
    let folder: String
    let port: UInt16
    let password: String

    /// The port that was chosen the last time is taken again, if it is free: a cluster's nodes know each other by it.
    init(_ spec: StoreSpec, number: Int, folder: String, password: String, port declared: UInt16?, taken: [UInt16]) throws(SystemError) {
        self.spec = spec
        self.number = number
        self.folder = folder
        self.password = password
        let known =
            Files.text(folder + "/port")?.split(separator: "\n").first.flatMap { UInt16($0) }
            ?? NodeFolders.port(of: "node-\(number)", in: Files.folder(of: folder))
        if let declared {
            port = declared
        } else if let known, isFreePort(known) {
            port = known
        } else {
            port = try RedisServer.choose(isCluster: spec.isCluster, taken)
        }
        try prepare()
    }

    /// Its folder, with its port and configuration in it.
    func prepare() throws(SystemError) {
        try Files.makeFolder(folder, mode: 0o700)
        try beginKeeping()
        try Files.replace(folder + "/port", with: Array("\(port)\n".utf8))
        try Files.replace(folder + "/redis.conf", with: Array(try configuration().utf8))
    }

    /// A cache that becomes a store of state has no data that could be missed, and says so from here on.
    private func beginKeeping() throws(SystemError) {
        guard spec.role == .state, NodeTestimony.keepsData(configuration: folder + "/redis.conf") == false else { return }
        switch NodeTestimony.data(in: folder) {
        case .none, .snapshotOnly: try NodeFolders.emptyLog(folder)
        case .notKept, .whole, .unreadable: break
        }
    }

    /// A node of a cluster needs the port 10,000 above for its bus.
    private static func choose(isCluster: Bool, _ taken: [UInt16]) throws(SystemError) -> UInt16 {
        if !isCluster { return try freePort() }
        // Below the ports that the kernel gives to outgoing connections (from 32768 on), and so is the bus: an outgoing connection could
        // have it at the next start.
        for _ in 0..<200 {
            let port = UInt16.random(in: 11_000...20_000)
            if !taken.contains(port), isFreePort(port), isFreePort(port + 10_000) { return port }
        }
        throw SystemError("there is no free port that leaves room for a bus port 10000 above it", 0)
    }

    var address: NodeAddress { NodeAddress(host: "127.0.0.1", port: port) }

    /// Loopback only, password always. A store of state never evicts (F1.1): when it is full, writes fail and say so.
    private func configuration() throws(SystemError) -> String {
        var cluster: RedisConfiguration.Cluster?
        if spec.isCluster {
            let timeout: Duration
            do { timeout = try FailoverTime.nodeTimeout(promise: spec.failover, subject: spec.name).result } catch {
                throw SystemError(error.description, 0)
            }
            // A source of its own, so that a partition between two nodes can be tried on one machine.
            cluster = .local(port: port, nodeTimeout: timeout)
        }
        return RedisConfiguration(
            port: port, folder: folder, memory: spec.memory, role: spec.role == .state ? .state : .cache, cluster: cluster
        ).text
    }

    /// The password comes by standard input: it stands in no argument and in no configuration file.
    func program(_ path: String, environment: Environment) -> Program {
        Program(
            path: path, arguments: [folder + "/redis.conf", "-"], environment: environment, folder: folder,
            input: Array(RedisConfiguration.secrets(password: password, isCluster: spec.isCluster).utf8))
    }

    var url: String { "redis://:\(password)@127.0.0.1:\(port)" }
}
