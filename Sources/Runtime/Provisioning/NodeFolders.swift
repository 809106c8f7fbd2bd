import Basics
import EventLoops
import Glibc
import Sharding

/// That nodes were formed into a cluster, or a server given its data, in a folder: a file that stands beside what it tells of, so that it
/// is still there when a disk is not.
///
/// `create` keeps `DIR/formed` beside the nodes' folders; a stack keeps `stores/NAME.formed` beside the store's.
public enum FormedMark {
    public static func path(inside directory: String) -> String { directory + "/formed" }
    public static func path(beside directory: String) -> String { directory + ".formed" }

    public static func exists(for directory: String) -> Bool {
        Files.exists(path(inside: directory)) || Files.exists(path(beside: directory))
    }

    /// `path`: one of the above.
    public static func set(_ path: String) throws(SystemError) {
        if Files.exists(path) { return }
        let text = "Data was written here. An empty folder in its place is not started: see muster redis recover --help.\n"
        try Files.replace(path, with: Array(text.utf8), mode: 0o600)
    }
}

/// The folders of a cluster's nodes on this machine, or of one server: those that `muster redis create` made, or a stack's store.
public struct NodeFolders: Sendable {
    public struct Node: Sendable {
        /// `node-7001`, or a stack's `node-2`; empty: the folder itself is that of a single server.
        public let name: String
        public let folder: String
        public let address: NodeAddress
        /// nil: it has no configuration any more.
        public let keepsData: Bool?
        public let runs: Bool
    }

    public let directory: String
    public let nodes: [Node]
    public let isSingle: Bool
    public let wasFormed: Bool

    /// Of nodes that `create` starts, or has started.
    public init(_ processes: [NodeProcess], under directory: String) {
        self.directory = directory
        nodes = processes.map { node in
            Node(
                name: "node-\(node.port)", folder: node.folder, address: NodeAddress(host: "127.0.0.1", port: node.port),
                keepsData: NodeTestimony.keepsData(configuration: node.configuration), runs: node.pid != nil)
        }
        isSingle = false
        wasFormed = FormedMark.exists(for: directory)
    }

    /// Looks for them. A node whose folder is gone altogether is found by what the others know.
    public init(_ directory: String) throws(ProvisioningFailure) {
        let roster = NodeFolders.roster(directory)
        var nodes: [Node] = []
        let names: [String]
        do { names = try Files.entries(directory) } catch {
            // What cannot be seen is not absent; a folder that is gone is.
            guard error.code == ENOENT else { throw ProvisioningFailure(.local, "\(error)") }
            names = []
        }
        for name in names where name.hasPrefix("node-") {
            guard let number = UInt16(name.dropFirst(5)) else { continue }
            let folder = "\(directory)/\(name)"
            let known = NodeFolders.port(of: folder) ?? roster.first { $0.name == name }?.port ?? (number >= 1024 ? number : nil)
            if let known { nodes.append(try NodeFolders.node(name, folder, known)) }
        }
        for entry in roster where !nodes.contains(where: { $0.name == entry.name }) {
            nodes.append(try NodeFolders.node(entry.name, "\(directory)/\(entry.name)", entry.port))
        }
        isSingle = nodes.isEmpty
        if nodes.isEmpty {
            if let port = NodeFolders.port(of: directory) {
                nodes = [try NodeFolders.node("", directory, port)]
            } else if Files.exists(FormedMark.path(beside: directory)) {
                // All of it is gone, the port that it had as well.
                let address = NodeAddress(host: "127.0.0.1", port: 0)
                nodes = [Node(name: "", folder: directory, address: address, keepsData: nil, runs: false)]
            }
        }
        guard !nodes.isEmpty else {
            throw ProvisioningFailure(.local, "\(directory) has no folders of nodes (node-…), and is not that of a server")
        }
        if !isSingle, roster.isEmpty { nodes += try NodeFolders.missing(directory, nodes) }
        self.directory = directory
        self.nodes = nodes.sorted { ($0.address.port, $0.name) < ($1.address.port, $1.name) }
        wasFormed = FormedMark.exists(for: directory)
    }

    private static func node(_ name: String, _ folder: String, _ port: UInt16) throws(ProvisioningFailure) -> Node {
        let runs: Bool
        do { runs = try !isFreePort(port) || hasServer(folder) } catch {
            throw ProvisioningFailure(.local, "whether a server works in \(folder) cannot be seen: \(error)")
        }
        return Node(
            name: name, folder: folder, address: NodeAddress(host: "127.0.0.1", port: port),
            keepsData: NodeTestimony.keepsData(configuration: folder + "/redis.conf"), runs: runs)
    }

    /// Whether a server works in this folder, by the working folders of this machine's processes: one that was started a moment ago does not
    /// listen yet. Processes of other users are not seen. Throws when not all of them could be looked at.
    public static func hasServer(_ folder: String) throws(SystemError) -> Bool {
        let place = Files.absolute(folder)
        for pid in try ProcessList.all() {
            guard let name = try ProcessList.read(pid, "comm").map({ String(decoding: $0, as: UTF8.self) }) else { continue }
            if name.hasPrefix("redis") || name.hasPrefix("valkey"), Files.absolute("/proc/\(pid)/cwd") == place { return true }
        }
        return false
    }

    /// One operation at a time on the folders of nodes: `muster redis` holds this lock while it changes them or starts nodes on them, and a
    /// supervisor while it starts one. It ends when the descriptor is closed, or with the process. nil: somebody else holds it.
    public static func lock(_ directory: String) throws(SystemError) -> Int32? {
        let descriptor = open(directory + "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw SystemError("open \(directory)/lock") }
        if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { return descriptor }
        let failure = SystemError("lock \(directory)/lock")
        close(descriptor)
        guard failure.code == EWOULDBLOCK else { throw failure }
        return nil
    }

    private static func port(of folder: String) -> UInt16? {
        if let port = Files.text(folder + "/port")?.split(whereSeparator: \.isWhitespace).first.flatMap({ UInt16($0) }) { return port }
        guard let text = Files.text(folder + "/redis.conf") else { return nil }
        return text.split(whereSeparator: \.isNewline).first { $0.hasPrefix("port ") }.flatMap { UInt16($0.dropFirst(5)) }
    }

    // MARK: a stack's ports

    /// `ports` beside the nodes' folders: a line a node, `node-2 15001`. A node's address must outlive its folder.
    private static func roster(_ directory: String) -> [(name: String, port: UInt16)] {
        (Files.text(directory + "/ports") ?? "").split(whereSeparator: \.isNewline).compactMap { line in
            let words = line.split(separator: " ")
            guard words.count == 2, let port = UInt16(words[1]) else { return nil }
            return (String(words[0]), port)
        }
    }

    public static func port(of name: String, in directory: String) -> UInt16? { roster(directory).first { $0.name == name }?.port }

    public static func keepRoster(_ nodes: [(name: String, port: UInt16)], in directory: String) throws(SystemError) {
        let text = nodes.map { "\($0.name) \($0.port)\n" }.joined()
        try Files.replace(directory + "/ports", with: Array(text.utf8))
    }

    /// Of `create`, which names a folder by its port.
    private static func missing(_ directory: String, _ nodes: [Node]) throws(ProvisioningFailure) -> [Node] {
        var ports: Set<UInt16> = []
        for node in nodes {
            guard let text = Files.text(node.folder + "/nodes.conf"), let file = try? NodesFile(text) else { continue }
            for other in file.nodes.nodes where other.address.isLoopback && !other.flags.contains(.noAddress) {
                ports.insert(other.address.port)
            }
        }
        for node in nodes { ports.remove(node.address.port) }
        var missing: [Node] = []
        for port in ports {
            let node = try NodeFolders.node("node-\(port)", "\(directory)/node-\(port)", port)
            // One that runs has its folder somewhere else.
            if !node.runs { missing.append(node) }
        }
        return missing
    }

    // MARK: judging

    /// `orElse`: whether nodes keep their data of which no folder has a configuration any more.
    public func census(orElse fallback: Bool = true) -> FolderCensus {
        let common = nodes.lazy.compactMap(\.keepsData).first ?? fallback
        return FolderCensus(
            nodes.map {
                NodeTestimony(folder: $0.folder, address: $0.address, runs: $0.runs, keepsData: $0.keepsData ?? common)
            }, wasFormed: wasFormed, place: "--dir \(directory)")
    }

    /// Why a single server must not be started on its folder; nil when it may.
    public static func refusal(single folder: String, wasFormed: Bool) -> String? {
        let way = "muster redis recover --dir \(folder) --dry-run tells what can be done"
        switch NodeTestimony.data(in: folder) {
        case .notKept, .whole: return nil
        case .none:
            guard wasFormed else { return nil }
            return "its data is gone from \(folder), which had some before: is its disk mounted? It is not started empty in its place. "
                + "Put the folder back, or: \(way)"
        case .snapshotOnly(let holding):
            return "the append-only log is gone from \(folder); the server would ignore the snapshot that is there (\(holding.keys) keys), "
                + "start empty, and overwrite it. Put the log (appendonlydir) back, or: \(way)"
        case .unreadable(let why): return "\(why). Put the folder back, or: \(way)"
        }
    }

    /// How a single server's folder is made fit to start; nil when nothing is wrong.
    public func singleRecovery() throws(ProvisioningFailure) -> FolderRecovery? {
        guard let node = nodes.first else { return nil }
        if node.runs { throw ProvisioningFailure(.refused, "runs; only a server that is down can be recovered", node: node.address) }
        guard NodeFolders.refusal(single: node.folder, wasFormed: wasFormed) != nil else { return nil }
        return FolderRecovery.single(node.address, node.folder, NodeTestimony.data(in: node.folder))
    }

    public func folder(of address: NodeAddress) -> String? { nodes.first { $0.address == address }?.folder }

    // MARK: carrying out

    /// What a recovery does to folders; `takeOver` is done by who speaks to the nodes. Cut off at any moment, the same recovery goes on.
    public func carryOut(_ step: FolderRecovery.Step) throws(ProvisioningFailure) {
        do throws(SystemError) {
            switch step {
            case .putAside(let address): try NodeFolders.putAside(try existing(address))
            case .write(let file, let address):
                let folder = try existing(address)
                try Files.replace(folder + "/nodes.conf", with: Array(file.text.utf8), mode: 0o600)
            case .logFromSnapshot(let address): try NodeFolders.logFromSnapshot(try existing(address))
            case .emptyLog(let address): try NodeFolders.emptyLog(try existing(address))
            case .takeOver: break
            }
        } catch { throw ProvisioningFailure(.local, "\(error)") }
    }

    private func existing(_ address: NodeAddress) throws(SystemError) -> String {
        let folder = folder(of: address) ?? "\(directory)/node-\(address.port)"
        try Files.makeFolder(folder, mode: 0o700)
        return folder
    }

    /// `aside-20261130T101500Z` in the same folder.
    private static func putAside(_ folder: String) throws(SystemError) {
        let names = ["nodes.conf", "appendonlydir", "dump.rdb", "appendonly.aof"].filter { Files.exists("\(folder)/\($0)") }
        if names.isEmpty { return }
        let stamp = CalendarTime.render(.now).prefix(19).filter { $0 != "-" && $0 != ":" }
        var place = "\(folder)/aside-\(stamp)", number = 1
        while Files.exists(place) {
            number += 1
            place = "\(folder)/aside-\(stamp)-\(number)"
        }
        try Files.makeFolder(place, mode: 0o700)
        for name in names {
            guard rename("\(folder)/\(name)", "\(place)/\(name)") == 0 else { throw SystemError("move \(folder)/\(name) to \(place)") }
        }
    }

    /// Since 7.0 a log may begin with a snapshot.
    private static func logFromSnapshot(_ folder: String) throws(SystemError) {
        let log = folder + "/appendonlydir", base = "appendonly.aof.1.base.rdb"
        try Files.makeFolder(log, mode: 0o700)
        unlink("\(log)/\(base)")
        // The same file under two names: the server replaces either, and writes into neither.
        guard link(folder + "/dump.rdb", "\(log)/\(base)") == 0 else { throw SystemError("link \(folder)/dump.rdb to \(log)") }
        try Files.replace(log + "/appendonly.aof.manifest", with: Array("file \(base) seq 1 type b\n".utf8), mode: 0o600)
    }

    /// So that an empty folder and an empty server can be told from each other.
    public static func emptyLog(_ folder: String) throws(SystemError) {
        let log = folder + "/appendonlydir", name = "appendonly.aof.1.incr.aof"
        try Files.makeFolder(log, mode: 0o700)
        try Files.replace("\(log)/\(name)", with: [], mode: 0o600)
        try Files.replace(log + "/appendonly.aof.manifest", with: Array("file \(name) seq 1 type i\n".utf8), mode: 0o600)
    }
}
