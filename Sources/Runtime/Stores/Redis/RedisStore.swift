import Basics
import EventLoops
import Glibc
import Provisioning
import Redis
import Sharding
import StackModel
import StoreKinds

/// A declared Redis store as it is run: one server, or the nodes of a cluster. Ports and password are chosen once and kept in its folder.
final class RedisStore: Store {
    let name: String
    let spec: RedisSettings
    let folder: String
    let password: String
    /// Number 1 and on.
    let servers: [RedisServer]
    let nodes: [NodePlan]
    let place = ""
    private unowned let host: any StoreHost
    private lazy var kept = RedisClusterKeeper(self, host: host)
    private lazy var gauges = RedisGauges(login(url), loop: host.loop)

    /// Loading a large file takes its time, and PING fails meanwhile.
    private static let startTime = Duration.seconds(600)

    init(_ plan: StorePlan, _ spec: RedisSettings) throws(StoreFailure) {
        let folder = plan.folder, name = plan.spec.name
        self.spec = spec
        self.name = name
        self.folder = folder
        host = plan.host
        guard let program = plan.host.program("redis-server") else {
            throw StoreFailure("store \(name) needs redis-server, which is not installed: apt-get install redis-server")
        }
        if let other = RedisStore.otherLayout(spec, folder) { throw StoreFailure("store \(name): \(other)") }
        if !spec.isCluster, spec.role == .state,
            let why = NodeFolders.refusal(single: folder, wasFormed: FormedMark.exists(for: folder))
        {
            throw StoreFailure("store \(name): nothing was started. \(why)")
        }
        do throws(SystemError) {
            try Files.makeFolder(folder, mode: 0o700)
            let passwordFile = folder + "/password"
            if let known = try Files.firstLine(passwordFile) {
                password = String(known)
            } else {
                password = secretHex(bytes: 24)
                try Files.replace(passwordFile, with: Array((password + "\n").utf8), mode: 0o600)
            }
            try Files.replace(folder + "/layout", with: Array((RedisStore.layout(spec) + "\n").utf8))
            var servers: [RedisServer] = []
            for number in 1...spec.nodes {
                let place = spec.isCluster ? "\(folder)/node-\(number)" : folder
                let declared = spec.port.map { $0 + UInt16(number - 1) }
                servers.append(
                    try RedisServer(
                        spec, of: name, number: number, folder: place, password: password, port: declared, taken: servers.map(\.port)))
            }
            self.servers = servers
            nodes = servers.map { $0.plan(program, startTime: RedisStore.startTime) }
            if spec.isCluster {
                try NodeFolders.keepRoster(servers.map { ("node-\($0.number)", $0.port) }, in: folder)
            } else {
                try beginSingle()
            }
        } catch { throw StoreFailure("store \(name): \(error)") }
        let refused: [String]
        do throws(SystemError) { refused = try census().refusals } catch {
            throw StoreFailure("store \(name): which of its nodes run cannot be seen: \(error)")
        }
        if let first = refused.first {
            let more = refused.count > 1 ? " (and \(refused.count - 1) more)" : ""
            throw StoreFailure("store \(name): nothing was started. \(first)\(more)")
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

    /// What the folders of the nodes say now; a node whose port is taken counts as one that runs. Of a single server: nothing. Throws when it
    /// cannot be seen whether a port is taken.
    func census(starting number: Int? = nil) throws(SystemError) -> FolderCensus {
        guard spec.isCluster else { return FolderCensus([], wasFormed: false, place: "") }
        return FolderCensus(
            try servers.map { node throws(SystemError) in
                let runs = node.number == number ? false : try !isFreePort(node.port)
                return NodeTestimony(folder: node.folder, address: node.address, runs: runs, keepsData: keepsData)
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
        let census: FolderCensus, node = servers[number - 1]
        do throws(SystemError) { census = try self.census(starting: number) } catch {
            return "which of the other nodes run cannot be seen: \(error)"
        }
        guard let one = census.testimonies.first(where: { $0.address == node.address }) else { return nil }
        switch census.verdict(of: one) {
        case .start: break
        case .refuse(let why): return why
        case .giveBack(let file, let sentence):
            do {
                try node.prepare()
                try Files.replace(node.folder + "/nodes.conf", with: Array(file.text.utf8), mode: 0o600)
                tell("\(name)/\(number): \(sentence)")
            } catch { return "\(error)" }
        }
        // Without the mark the folder is judged more severely the next time; on a full disk that is no reason not to start.
        do { try StartMark.draw(node.folder) } catch { tell("\(name)/\(number): \(error)") }
        return nil
    }

    /// A single server's data is no cluster's, and a cluster grows and shrinks by moving slots, not by another number in the file: what is
    /// on disk must fit.
    private static func otherLayout(_ spec: RedisSettings, _ folder: String) -> String? {
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

    private static func layout(_ spec: RedisSettings) -> String {
        spec.isCluster ? "cluster \(spec.masters) \(spec.replicas)" : "single"
    }

    var keeper: (any StoreKeeper)? { kept }

    func probe(_ node: NodePlan?) -> any NodeProbe {
        let server = servers[(node?.number ?? 1) - 1]
        return RedisProbe(login(server.url), port: server.port, isCluster: spec.isCluster, loop: host.loop)
    }

    func environment(for use: StoreUse) -> [(name: String, value: Secret)] { [(use.variable, Secret(url))] }
    func gauge(_ length: MetricOrigin.Length) -> StoreGauge? { gauges.gauge(length) }

    func close() {
        kept.close()
        gauges.close()
    }

    /// The URL is made here of numbers and hex digits, so it parses.
    private func login(_ url: String) -> RedisURL { try! RedisURL(url) }

    /// What services get.
    private var url: String {
        let places = servers.map { "127.0.0.1:\($0.port)" }.joined(separator: ",")
        return "redis\(spec.isCluster ? "+cluster" : "")://:\(password)@\(places)"
    }
}

/// One redis-server of a store: its folder, port, password and configuration.
struct RedisServer {
    let spec: RedisSettings
    /// The store's name.
    let store: String
    let number: Int
    let folder: String
    let port: UInt16
    let password: String

    /// The port that was chosen the last time is taken again, if it is free: a cluster's nodes know each other by it.
    init(
        _ spec: RedisSettings, of store: String, number: Int, folder: String, password: String, port declared: UInt16?, taken: [UInt16]
    ) throws(SystemError) {
        self.spec = spec
        self.store = store
        self.number = number
        self.folder = folder
        self.password = password
        let known =
            try KeptPort.known(in: folder)
            ?? NodeFolders.port(of: "node-\(number)", in: Files.folder(of: folder))
        if let declared {
            port = declared
        } else if let known, try isFreePort(known) {
            port = known
        } else {
            // A node of a cluster needs the port 10,000 above for its bus.
            port = try spec.isCluster ? KeptPort.choose(besides: taken, above: 10_000) : KeptPort.choose()
        }
        try prepare()
    }

    /// Its folder, with its port and configuration in it.
    func prepare() throws(SystemError) {
        try Files.makeFolder(folder, mode: 0o700)
        try beginKeeping()
        try KeptPort.keep(port, in: folder)
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

    var address: NodeAddress { NodeAddress(host: "127.0.0.1", port: port) }

    /// Loopback only, password always. A store of state never evicts (F1.1): when it is full, writes fail and say so.
    private func configuration() throws(SystemError) -> String {
        var cluster: RedisConfiguration.Cluster?
        if spec.isCluster {
            let timeout: Duration
            do { timeout = try FailoverTime.nodeTimeout(promise: spec.failover, subject: store).result } catch {
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
    func plan(_ program: String, startTime: Duration) -> NodePlan {
        NodePlan(
            number: number, program: program, arguments: [folder + "/redis.conf", "-"], folder: folder,
            input: Array(RedisConfiguration.secrets(password: password, isCluster: spec.isCluster).utf8), port: port, startTime: startTime)
    }

    var url: String { "redis://:\(password)@127.0.0.1:\(port)" }
}
