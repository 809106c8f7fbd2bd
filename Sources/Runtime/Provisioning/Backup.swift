import Basics
import EventLoops
import Glibc
import Redis
import Sharding
import Synchronization

/// A backup of a whole cluster, or of one server: one snapshot of each master that there is now, taken at the same moment, checked, with a manifest.
///
/// A folder with a manifest is a complete backup; one that is still made, or was cut off, has another name (`DIR.unfinished`) and is swept
/// away by the next. The topology must be whole before and the same afterwards: a slot that changed hands meanwhile might be in no snapshot
/// or in two.
public struct Backup: Sendable {
    /// Whose snapshot stands for a master.
    public struct Source: Sendable, Equatable {
        public let master: ClusterView.Member
        public let id: String
        public let address: NodeAddress
        /// Bytes of the replication stream that it was behind its master; 0 for a master.
        public let lag: Int
        /// `used_memory`: more than its snapshot needs.
        public let memory: Int
        /// Of a single server: databases that have keys.
        var databases = [0]
    }

    public let sources: [Source]
    public let folder: String
    public let fromReplicas: Bool
    public let freeBytes: Int

    public var plan: [String] {
        sources.map { source in
            let from = source.id == source.master.id ? "" : " by its replica \(source.address), \(ByteSize.text(source.lag)) behind"
            let what =
                source.databases == [0]
                ? "slots \(source.master.slots)" : "databases \(source.databases.map(String.init).joined(separator: ", "))"
            return "a snapshot of \(source.master.address) (\(what), up to \(ByteSize.text(source.memory)))\(from)"
        } + ["all of it into \(folder), where \(ByteSize.text(freeBytes)) are free"]
    }

    private var unfinished: String { folder + ".unfinished" }

    // MARK: planning

    /// Looks at the cluster, or the one server, and the place. Refuses where a backup would not be whole, or would not fit.
    public static func plan(_ session: ClusterSession, folder: String, fromReplicas: Bool) async throws(ProvisioningFailure) -> Backup {
        var folder = folder
        while folder.count > 1, folder.hasSuffix("/") { folder.removeLast() }
        do throws(SystemError) {
            guard try Files.entries(folder).isEmpty else {
                throw SystemError("\(folder) exists and is not empty; a backup gets a folder of its own", 0)
            }
        } catch {
            // Not there yet, as it is to be.
            if error.code != ENOENT { throw ProvisioningFailure(.refused, "\(error)") }
        }
        let sources = try await sources(session, fromReplicas: fromReplicas)
        // It may not exist yet, and planning makes nothing.
        var parent = Files.folder(of: folder)
        while !Files.exists(parent), parent != "/", parent != "." { parent = Files.folder(of: parent) }
        let free: Int
        do { free = try BackupFile.freeSpace(at: parent) } catch { throw ProvisioningFailure(.local, "\(error)") }
        let needed = sources.map(\.memory).sumClamped()
        guard free >= needed else {
            throw ProvisioningFailure(
                .refused,
                "\(parent) has \(ByteSize.text(free)) free; the masters use \(ByteSize.text(needed)) of memory, and their snapshots may "
                    + "need as much"
            )
        }
        return Backup(sources: sources, folder: folder, fromReplicas: fromReplicas, freeBytes: free)
    }

    private static func sources(_ session: ClusterSession, fromReplicas: Bool) async throws(ProvisioningFailure) -> [Source] {
        let reading: ClusterReading
        do { reading = try await session.read() } catch {
            guard error.message.contains("cluster support disabled") else { throw error }
            return [try await single(session, error.node ?? session.seeds[0])]
        }
        let view = reading.view
        if let reason = shortcoming(reading) { throw ProvisioningFailure(.refused, "\(reason); a backup now would not be whole") }
        return try view.masters.filter { !$0.slots.isEmpty }.map { master throws(ProvisioningFailure) in
            guard let report = reading.report(master.id) else {
                throw ProvisioningFailure(.unreachable, "does not answer", node: master.address)
            }
            guard fromReplicas else {
                return Source(master: master, id: master.id, address: report.asked, lag: 0, memory: report.number("used_memory"))
            }
            let offset = report.number("master_repl_offset")
            let candidates = reading.reports.filter { $0.nodes.myself.master == master.id && $0.info["master_link_status"] == "up" }
            guard let best = candidates.max(by: { $0.number("slave_repl_offset") < $1.number("slave_repl_offset") }) else {
                throw ProvisioningFailure(
                    .refused, "has no replica that is in step; take its backup from the masters (without --from-replicas)",
                    node: master.address)
            }
            return Source(
                master: master, id: best.id, address: best.asked, lag: max(0, offset.subtractingClamped(best.number("slave_repl_offset"))),
                memory: best.number("used_memory"))
        }
    }

    /// One server that is no cluster's: all slots are its own, and a restart of it makes another one of it.
    private static func single(_ session: ClusterSession, _ address: NodeAddress) async throws(ProvisioningFailure) -> Source {
        let answer = try await session.client(address).ask("INFO")
        let info = ClusterSession.fields(answer)
        guard let id = info["run_id"], info["role"] == "master" else {
            let master = info["master_host"].map { " of \($0):\(info["master_port"] ?? "")" } ?? ""
            throw ProvisioningFailure(.refused, "is a replica\(master); take the backup from its master", node: address)
        }
        if info["loading"] == "1" { throw ProvisioningFailure(.unreachable, "is loading its data", node: address) }
        let databases = ClusterSession.databases(answer).map(\.number)
        let server = ClusterView.Member(single: id, at: address)
        return Source(
            master: server, id: id, address: address, lag: 0, memory: info["used_memory"].flatMap { Int($0) } ?? 0,
            databases: databases.isEmpty ? [0] : databases)
    }

    /// Why the slots are not all served by somebody, or are about to move; nil when they are.
    private static func shortcoming(_ reading: ClusterReading) -> String? {
        let view = reading.view
        // A master that has no slots yet may be receiving one, and have keys of it.
        for member in view.members {
            if let open = member.open.first {
                return "slot \(open.slot) is on its way at \(member.address): let that be finished, or mend it with muster redis fix"
            }
        }
        for member in view.members where !member.slots.isEmpty {
            if !member.answers {
                return "\(member.address), which has slots \(member.slots), does not answer: wait for its replica to take over, or start it"
            }
            let state = reading.report(member.id)?.cluster["cluster_state"] ?? "unknown"
            if state != "ok" { return "\(member.address) says that the cluster's state is \(state): see muster redis status" }
            if let other = view.members.first(where: { $0.id != member.id && !$0.slots.intersection(member.slots).isEmpty }) {
                return
                    "\(member.address) and \(other.address) both claim slots \(other.slots.intersection(member.slots)): wait until they "
                    + "agree, or see muster redis fix"
            }
        }
        if !view.unassigned.isEmpty { return "nobody has slots \(SlotSet(Array(view.unassigned.ranges.prefix(4)))): see muster redis fix" }
        return nil
    }

    // MARK: taking

    /// Takes the backup. When the topology changed meanwhile, or a node was lost, it is void and taken once more, as soon as the cluster is
    /// whole again.
    public func take(_ session: ClusterSession, tell: @escaping @Sendable (String) -> Void) async throws(ProvisioningFailure)
        -> BackupManifest
    {
        let lock = try begin()
        defer { close(lock) }
        do throws(ProvisioningFailure) {
            do throws(ProvisioningFailure) { return try finish(try await attempt(session, sources, tell)) } catch {
                guard error.code == .unreachable || error.code == .unfinished || error.code == .server else { throw error }
                tell("\(error)\nonce more, when the cluster is whole")
                try clear()
                let again = try await wholeAgain(session)
                return try finish(try await attempt(session, again, tell))
            }
        } catch {
            Files.remove(unfinished)
            throw error
        }
    }

    /// A folder under another name, locked while this process lives; what a cut-off backup left in it is removed.
    private func begin() throws(ProvisioningFailure) -> Int32 {
        do { try Files.makeFolder(unfinished, mode: 0o700) } catch { throw ProvisioningFailure(.local, "\(error)") }
        let lock = open(unfinished, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard lock >= 0 else { throw ProvisioningFailure(.local, "\(SystemError("open \(unfinished)"))") }
        guard flock(lock, LOCK_EX | LOCK_NB) == 0 else {
            close(lock)
            throw ProvisioningFailure(.refused, "another backup is being made into \(folder)")
        }
        try clear()
        return lock
    }

    private func clear() throws(ProvisioningFailure) {
        do throws(SystemError) {
            for name in try Files.entries(unfinished) { Files.remove("\(unfinished)/\(name)") }
            guard try Files.entries(unfinished).isEmpty else { throw SystemError("\(unfinished) cannot be emptied", 0) }
        } catch { throw ProvisioningFailure(.local, "\(error)") }
    }

    /// As long as a failover and the loading of a node may take.
    private static let patience = Duration.seconds(30)

    private func wholeAgain(_ session: ClusterSession) async throws(ProvisioningFailure) -> [Source] {
        var found: [Source] = [], last: ProvisioningFailure?
        let isWhole = try await session.eventually(Backup.patience) { () async throws(ProvisioningFailure) in
            do throws(ProvisioningFailure) {
                found = try await Backup.sources(session, fromReplicas: fromReplicas)
                return true
            } catch {
                last = error
                return false
            }
        }
        if !isWhole { throw last ?? ProvisioningFailure(.unfinished, "the cluster does not become whole") }
        return found
    }

    private func attempt(
        _ session: ClusterSession, _ sources: [Source], _ tell: @escaping @Sendable (String) -> Void
    ) async throws(ProvisioningFailure) -> BackupManifest {
        let begun = WallTime.now
        let snapshots = try await fetchAll(sources, session.credentials, tell)
        var shards: [BackupManifest.Shard] = []
        for (source, snapshot) in zip(sources, snapshots) { shards.append(try check(source, snapshot, tell)) }
        let after: [Source]
        do { after = try await Backup.sources(session, fromReplicas: false) } catch {
            throw ProvisioningFailure(.unfinished, "the backup is void: after it, \(error)")
        }
        for source in sources {
            let now = after.first { $0.master.id == source.master.id }?.master
            guard now?.slots == source.master.slots, now?.configEpoch == source.master.configEpoch else {
                throw ProvisioningFailure(
                    .unfinished, "the backup is void: slots or roles changed while it was taken", node: source.master.address)
            }
        }
        return BackupManifest(begun: begun, ended: .now, shards: shards)
    }

    /// All connections first, then all questions: the snapshots begin together.
    private func fetchAll(
        _ sources: [Source], _ credentials: RedisCredentials, _ tell: @escaping @Sendable (String) -> Void
    ) async throws(ProvisioningFailure) -> [ReplicationStream.Snapshot] {
        var open: [SnapshotSource] = []
        defer { for one in open { one.close() } }
        for source in sources { open.append(try await SnapshotSource.open(source.address, credentials)) }
        let progress = BackupProgress(sources.map(\.address.description), tell)
        let ready = open
        let results = await withTaskGroup(of: (Int, Result<ReplicationStream.Snapshot, ProvisioningFailure>).self) { group in
            for (i, source) in sources.enumerated() {
                let path = path(of: source)
                // Ends with its snapshot; the group waits for it.
                group.addTask {
                    let result = await ready[i].fetch(into: path) { progress.count(i, $0) }
                    return (i, result)
                }
            }
            var snapshots: [Int: ReplicationStream.Snapshot] = [:]
            var cause: ProvisioningFailure?
            for await (i, result) in group {
                switch result {
                case .success(let snapshot): snapshots[i] = snapshot
                case .failure(let failure):
                    // Without this one the others are of no use: they are stopped for it.
                    if cause == nil { for other in ready { other.stop() } }
                    cause = cause ?? failure
                }
            }
            return (snapshots, cause)
        }
        if let cause = results.1 { throw cause }
        return (0..<sources.count).compactMap { results.0[$0] }
    }

    private func path(of source: Source) -> String { "\(unfinished)/\(source.master.id).rdb" }

    /// Reads the snapshot again, from the disk, and compares.
    private func check(
        _ source: Source, _ snapshot: ReplicationStream.Snapshot, _ tell: @Sendable (String) -> Void
    ) throws(ProvisioningFailure) -> BackupManifest.Shard {
        let path = path(of: source)
        let file = try BackupManifest.inspect(path)
        guard file.bytes == snapshot.bytes, file.sha256 == snapshot.sha256 else {
            throw ProvisioningFailure(.local, "\(path): what the disk gives back is not what was written to it")
        }
        tell(
            "\(source.address): \(file.header.keys) keys, \(ByteSize.text(file.bytes)), checksums "
                + "fit\(file.hasChecksum ? "" : " (the server writes none of its own)")"
        )
        return BackupManifest.Shard(
            id: source.master.id, address: source.master.address.description, configEpoch: Int(clamping: source.master.configEpoch),
            slots: source.master.slots,
            sourceID: source.id, source: source.address.description, replicationID: snapshot.replicationID, offset: snapshot.offset,
            lag: source.lag,
            file: "\(source.master.id).rdb", bytes: file.bytes, sha256: file.sha256, keys: file.header.keys, expiring: file.header.expiring,
            databases: source.databases,
            redisVersion: file.header.fields["redis-ver"] ?? "unknown", begun: snapshot.begun, ended: snapshot.ended)
    }

    /// The manifest, and then the name: from here on it is a backup.
    private func finish(_ manifest: BackupManifest) throws(ProvisioningFailure) -> BackupManifest {
        do throws(SystemError) {
            let file = try BackupFile("\(unfinished)/\(BackupManifest.fileName)")
            let text = Array((manifest.json + "\n").utf8)
            var failure: SystemError?
            text.withUnsafeBytes { bytes in do throws(SystemError) { try file.write(bytes) } catch { failure = error } }
            if let failure { throw failure }
            _ = try file.finish()
            try BackupFile.sync(folder: unfinished)
            guard rename(unfinished, folder) == 0 else { throw SystemError("rename \(unfinished) to \(folder)") }
            try BackupFile.sync(folder: Files.folder(of: folder))
        } catch { throw ProvisioningFailure(.local, "\(error)") }
        return manifest
    }
}

/// Lines of progress: what has come of each snapshot, once a second.
private final class BackupProgress: Sendable {
    private struct State {
        var bytes: [Int]
        var next = MonotonicTime.now + .seconds(1)
    }

    private let names: [String]
    private let tell: @Sendable (String) -> Void
    private let state: Mutex<State>

    init(_ names: [String], _ tell: @escaping @Sendable (String) -> Void) {
        self.names = names
        self.tell = tell
        state = Mutex(State(bytes: Array(repeating: 0, count: names.count)))
    }

    func count(_ i: Int, _ bytes: Int) {
        let line: String? = state.withLock { state in
            state.bytes[i] = bytes
            guard MonotonicTime.now >= state.next else { return nil }
            state.next = .now + .seconds(1)
            return "\(ByteSize.text(state.bytes.sumClamped())) have come: "
                + zip(names, state.bytes).map { "\($0) \(ByteSize.text($1))" }.joined(separator: ", ")
        }
        if let line { tell(line) }
    }
}
