import Basics
import EventLoops
import Glibc
import Provisioning
import Sharding
import Topology

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
        do throws(SystemError) {
            try Files.makeFolder(folder, mode: 0o700)
            let passwordFile = folder + "/password"
            if let known = Files.text(passwordFile)?.split(separator: "\n").first {
                password = String(known)
            } else {
                password = secretHex(bytes: 24)
                try Files.replace(passwordFile, with: Array((password + "\n").utf8), mode: 0o600)
            }
            try RedisStore.keepLayout(spec, folder)
            var nodes: [RedisServer] = []
            for number in 1...spec.nodes {
                let place = spec.isCluster ? "\(folder)/node-\(number)" : folder
                let declared = spec.port.map { $0 + UInt16(number - 1) }
                nodes.append(
                    try RedisServer(spec, number: number, folder: place, password: password, port: declared, taken: nodes.map(\.port)))
            }
            self.nodes = nodes
        } catch { throw StackFolder.Failure("store \(spec.name): \(error)") }
    }

    /// A single server's data is no cluster's, and a cluster grows and shrinks by moving slots, not by another number in the file: what is
    /// on disk must fit.
    private static func keepLayout(_ spec: StoreSpec, _ folder: String) throws(SystemError) {
        let file = folder + "/layout"
        let layout = spec.isCluster ? "cluster \(spec.masters) \(spec.replicas)" : "single"
        let hasData = Files.exists(folder + "/port") || Files.exists(folder + "/node-1")
        let known = Files.text(file)?.split(separator: "\n").first.map(String.init) ?? (hasData ? "single" : layout)
        guard known == layout else {
            throw SystemError(
                "its data in \(folder) is of another layout (\(known), and the stack file says \(layout)): back it up, 'muster down "
                    + "--purge', and restore it, or say what was said before",
                0)
        }
        try Files.replace(file, with: Array((layout + "\n").utf8))
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
        try Files.makeFolder(folder, mode: 0o700)
        let portFile = folder + "/port"
        if let declared {
            port = declared
        } else if let known = Files.text(portFile)?.split(separator: "\n").first.flatMap({ UInt16($0) }), isFreePort(known) {
            port = known
        } else {
            port = try RedisServer.choose(isCluster: spec.isCluster, taken)
        }
        try Files.replace(portFile, with: Array("\(port)\n".utf8))
        try Files.replace(folder + "/redis.conf", with: Array(try configuration().utf8))
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
