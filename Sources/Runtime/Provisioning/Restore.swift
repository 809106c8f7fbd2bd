import Basics
import EventLoops
import Redis
import Sharding

/// What a restore did, and what a comparison afterwards found.
public struct RestoreReport: Sendable {
    public var counts = RestoreCounts()
    /// Keys that the snapshots had, by their own count.
    public var expected = 0
    /// Keys that were looked for in the target afterwards, and of these the ones whose content and time were compared.
    public var found = 0
    public var compared = 0
    public var differing = 0
    /// Some of them, each with what differs.
    public var differences: [String] = []
    public var libraries = 0
    public var libraryConflicts: [String] = []
    public var seconds = 0.0
    public var verifySeconds = 0.0

    /// Everything that the backup has is in the target, as it was.
    public var holds: Bool { differing == 0 && counts.conflicts == 0 && libraryConflicts.isEmpty && counts.strays == 0 && missing == 0 }
    /// Keys that the snapshots have by their own count, and that nobody has seen.
    public var missing: Int {
        max(0, expected.subtractingClamped([counts.restored, counts.already, counts.conflicts, counts.expired].sumClamped()))
    }

    public var sentences: [String] {
        var out = ["\(counts.restored) keys restored, \(compared) verified, \(differing) differ"]
        if counts.already > 0 { out.append("\(counts.already) were there already, equal") }
        if counts.expired > 0 { out.append("\(counts.expired) had expired") }
        if counts.large > 0 { out.append("\(counts.large) large keys were moved in pieces") }
        if libraries > 0 { out.append("\(libraries) libraries of functions restored") }
        if missing > 0 { out.append("\(missing) keys of the snapshots are missing") }
        if counts.strays > 0 { out.append("\(counts.strays) keys lie outside the slots that the manifest gives to their snapshot") }
        if counts.conflicts > 0 {
            let more = counts.conflicts > counts.conflictNames.count ? " …" : ""
            out.append(
                "\(counts.conflicts) keys exist with another content and were left alone (--replace overwrites): "
                    + "\(counts.conflictNames.joined(separator: ", "))\(more)"
            )
        }
        if !libraryConflicts.isEmpty {
            out.append(
                "libraries exist with another content and were left alone (--replace overwrites): "
                    + "\(libraryConflicts.joined(separator: ", "))"
            )
        }
        return out + differences
    }
}

/// Puts a backup's keys into a cluster of any size, or into one server.
///
/// Each snapshot is loaded into a private server, whose keys are sent to the masters that have their slots now; afterwards they are read
/// back and compared. Cut off at any moment, the same command goes on: what is there and equal is not touched again.
public struct Restore: Sendable {
    public struct Options: Sendable {
        public var folder: String
        /// Where there are keys already.
        public var intoExisting = false
        /// Overwrites keys that exist.
        public var replaces = false
        /// Compares every key, and not only one in `sample`.
        public var verifiesAll = false

        public init(folder: String) { self.folder = folder }
    }

    /// Without `verifiesAll` every key is looked for, every fiftieth compared, and every large one.
    static let sample = 50

    public let manifest: BackupManifest
    let options: Options
    let target: RestoreTarget
    let loop: EventLoop
    /// Keys that the target had.
    public let existing: Int
    /// An earlier run of the same was cut off.
    public let isResumed: Bool

    public var plan: [String] {
        let form = target.isCluster ? "a cluster of \(target.masters.count) masters" : "one server"
        let keys =
            "\(manifest.keys) keys (\(ByteSize.text(manifest.bytes)) of snapshots from \(manifest.shards.count) masters, taken "
            + "\(CalendarTime.render(manifest.begun)))"
        var lines = ["\(keys) into \(form), \(target.masters.map(\.name).joined(separator: ", "))"]
        if isResumed { lines.append("an earlier run was cut off: goes on, what is there is compared") }
        if existing > 0, !isResumed {
            lines.append(
                "the target has \(existing) keys: "
                    + "\(options.replaces ? "those of the same name are OVERWRITTEN" : "those of the same name stay")"
            )
        }
        lines.append(
            options.verifiesAll
                ? "every key is compared afterwards"
                : "every key is looked for afterwards, one in \(Restore.sample) is compared (--verify full: all)")
        return lines
    }

    // MARK: planning

    /// Checks the backup first, then the target. Changes nothing.
    public static func plan(_ session: ClusterSession, _ options: Options, tell: @escaping @Sendable (String) -> Void)
        async throws(ProvisioningFailure) -> Restore
    {
        let manifest = try BackupManifest.read(folder: options.folder)
        let needed = try manifest.verify(folder: options.folder, tell: tell)
        let target = try await RestoreTarget.open(session)
        do throws(ProvisioningFailure) {
            var existing = try await target.keys()
            let isResumed = try await target.ask(RedisCommand("GET", RestoreTarget.marker)).string == manifest.id
            if isResumed { existing -= 1 }
            guard existing == 0 || isResumed || options.intoExisting || options.replaces else {
                throw ProvisioningFailure(
                    .refused,
                    "the target has \(existing) keys already; --into-existing restores beside them, and with --replace over those of the "
                        + "same name"
                )
            }
            let databases = Set(manifest.shards.flatMap(\.databases)).sorted()
            if target.isCluster, let other = Restore.beyondFirst(databases) {
                throw ProvisioningFailure(
                    .refused,
                    "the backup has keys in \(other), and a cluster has database 0 only: move them into one database, or restore into one "
                        + "server")
            }
            try check(manifest, target, needed: needed, isResumed: isResumed)
            return Restore(
                manifest: manifest, options: options, target: target, loop: session.loop, existing: existing, isResumed: isResumed)
        } catch {
            target.close()
            throw error
        }
    }

    private static func check(_ manifest: BackupManifest, _ target: RestoreTarget, needed: Int, isResumed: Bool) throws(ProvisioningFailure)
    {
        for shard in manifest.shards where version(shard.redisVersion) > version(target.version) {
            throw ProvisioningFailure(
                .refused,
                "the backup is from Redis \(shard.redisVersion) and the target runs \(target.version), which cannot read what a later one "
                    + "wrote"
            )
        }
        guard version(target.version) >= version("7.0") else {
            throw ProvisioningFailure(.refused, "the target runs Redis \(target.version); 7.0 or later is needed (PEXPIRETIME, FUNCTION)")
        }
        // What the servers needed for themselves is in it too.
        if let room = target.room, needed / 10 * 9 > room, !isResumed {
            throw ProvisioningFailure(
                .refused,
                "the data took \(ByteSize.text(needed)) of memory, and the target's masters may take \(ByteSize.text(max(0, room))) more: "
                    + "raise maxmemory or add masters"
            )
        }
    }

    /// Major and minor, comparable.
    static func version(_ text: String) -> Int {
        let parts = text.split(separator: ".").map { Int($0) ?? 0 }
        return (parts.first ?? 0).multipliedClamped(by: 1000).addingClamped(parts.count > 1 ? parts[1] : 0)
    }

    public func close() { target.close() }

    // MARK: doing

    public func run(tell: @escaping @Sendable (String) -> Void) async throws(ProvisioningFailure) -> RestoreReport {
        let isMarked = isResumed || existing == 0
        if isMarked { _ = try await target.ask(RedisCommand("SET", RestoreTarget.marker, manifest.id).repeatable()) }
        let report = try await carryOut(tell)
        if isMarked { _ = try await target.ask(RedisCommand("DEL", RestoreTarget.marker).repeatable()) }
        return report
    }

    /// On the loop: what is on its way is counted there.
    func carryOut(_ tell: @escaping @Sendable (String) -> Void) async throws(ProvisioningFailure) -> RestoreReport {
        // Typed errors do not pass through a preference for an executor.
        let result = await withTaskExecutorPreference(loop) { () async -> Result<RestoreReport, ProvisioningFailure> in
            var report = RestoreReport()
            do throws(ProvisioningFailure) {
                for shard in manifest.shards { try await one(shard, &report, tell) }
                return .success(report)
            } catch { return .failure(error) }
        }
        return try result.get()
    }

    private func one(_ shard: BackupManifest.Shard, _ report: inout RestoreReport, _ tell: @escaping @Sendable (String) -> Void)
        async throws(ProvisioningFailure)
    {
        let path = "\(options.folder)/\(shard.file)"
        let server = try await ScratchServer.start(snapshot: path, on: loop, tell: tell)
        do throws(ProvisioningFailure) {
            let loaded = try await server.loaded()
            let total = loaded.keys.addingClamped(loaded.expired)
            let databases = try await server.databases()
            // A manifest counts the keys of the first database only where there are several.
            guard total == shard.keys || databases.contains(where: { $0 > 0 }) else {
                throw ProvisioningFailure(
                    .refused,
                    "\(path): \(loaded.keys) keys and \(loaded.expired) that had expired were loaded; the manifest says \(shard.keys)")
            }
            if target.isCluster, let other = Restore.beyondFirst(databases) {
                throw ProvisioningFailure(.refused, "\(path) has keys in \(other); a cluster has database 0 only")
            }
            report.expected.addClamped(total)
            report.counts.expired.addClamped(loaded.expired.addingClamped(loaded.gone))
            try await moveLibraries(server, &report)
            for number in databases where number > 0 { try await database(number, server, shard, &report, tell) }
            if databases.contains(where: { $0 > 0 }), !databases.contains(0) { return await server.end() }
            try await moveKeys(server, target, shard, loaded.keys, &report, tell)
        } catch {
            await server.end()
            throw error
        }
        await server.end()
    }

    /// `databases 1, 3`; nil when there are none besides the first.
    static func beyondFirst(_ databases: [Int]) -> String? {
        let others = databases.filter { $0 > 0 }
        if others.isEmpty { return nil }
        return "database\(others.count == 1 ? "" : "s") \(others.map(String.init).joined(separator: ", "))"
    }

    private func database(
        _ number: Int, _ server: ScratchServer, _ shard: BackupManifest.Shard, _ report: inout RestoreReport,
        _ tell: @escaping @Sendable (String) -> Void
    ) async throws(ProvisioningFailure) {
        guard let there = target.database(number) else {
            throw ProvisioningFailure(.refused, "the target has no database \(number)")
        }
        defer { there.close() }
        let here = server.database(number)
        defer { here.letGo() }
        let keys = try await here.ask(RedisCommand("DBSIZE")).int ?? 0
        tell("database \(number): \(keys) keys")
        try await moveKeys(here, there, shard, keys, &report, tell)
    }

    private func moveKeys(
        _ server: ScratchServer, _ target: RestoreTarget, _ shard: BackupManifest.Shard, _ keys: Int, _ report: inout RestoreReport,
        _ tell: @escaping @Sendable (String) -> Void
    ) async throws(ProvisioningFailure) {
        let begun = MonotonicTime.now
        let before = report.counts.restored + report.counts.already
        let name = shard.file.prefix(8)
        let pace = RestorePace { counts in
            let done = counts.restored + counts.already - before
            let seconds = max(0.001, (MonotonicTime.now - begun).secondsAsDouble)
            tell("\(name): \(done) of \(keys) keys, \(ByteSize.text(counts.bytes)) in all, \(Int(clamped: Double(done) / seconds)) keys/s")
        }
        let source = RestoreSource(server, limit: RestoreMove.wholeLimit)
        let move = RestoreMove(source, target, slots: shard.slots, replaces: options.replaces, counts: report.counts) { pace.tell($0) }
        try await move.run()
        report.counts = move.counts
        report.seconds += (.now - begun).secondsAsDouble
        try await verify(server, target, &report)
    }

    // MARK: afterwards

    private func verify(_ server: ScratchServer, _ target: RestoreTarget, _ report: inout RestoreReport) async throws(ProvisioningFailure) {
        let begun = MonotonicTime.now
        let comparison = RestoreComparison(source: server, target: target)
        // What DUMP writes is compared as it is where both sides write alike.
        _ = try await server.ask(RedisCommand("CONFIG SET", "rdbcompression", await target.compresses() ? "yes" : "no"))
        let source = RestoreSource(server, limit: options.verifiesAll ? RestoreMove.wholeLimit : 0)
        var n = 0
        while let keys = try await source.next() {
            var chosen: [RestoreKey] = [], late: [RestoreKey] = [], others: [RestoreKey] = []
            for key in keys {
                n += 1
                let isLarge = key.size > RestoreMove.wholeLimit
                if isLarge || key.payload != nil {
                    chosen.append(key)
                } else if options.verifiesAll || n % Restore.sample == 1 {
                    late.append(key)
                } else {
                    others.append(key)
                }
            }
            try await source.fetch(late) { key in chosen.append(key) }
            for (key, verdict) in zip(chosen, try await comparison.compare(chosen)) {
                report.compared += 1
                note(key, verdict, &report)
            }
            let there = try await target.ask(all: others.map { RedisCommand("PEXPIRETIME", key: $0.name) })
            for (key, expiry) in zip(others, there) where expiry.int == -2 { note(key, try await comparison.compare([key])[0], &report) }
            report.found += keys.count
        }
        report.verifySeconds += (.now - begun).secondsAsDouble
    }

    private func note(_ key: RestoreKey, _ verdict: RestoreComparison.Verdict, _ report: inout RestoreReport) {
        guard case .differs(let reason) = verdict else { return }
        report.differing += 1
        if report.differences.count < RestoreCounts.namesKept { report.differences.append("'\(RestoreCounts.text(key.name))' \(reason)") }
    }

    // MARK: functions

    /// Libraries are not keys: each master has all of them.
    private func moveLibraries(_ server: ScratchServer, _ report: inout RestoreReport) async throws(ProvisioningFailure) {
        let ours = Restore.libraries(try await server.ask(RedisCommand("FUNCTION LIST", "WITHCODE")))
        if ours.isEmpty { return }
        for master in target.masters {
            do {
                let theirs = Restore.libraries(try await master.client.send(RedisCommand("FUNCTION LIST", "WITHCODE")))
                for (name, code) in ours.sorted(by: { $0.key < $1.key }) where theirs[name] != code {
                    if theirs[name] != nil, !options.replaces {
                        if !report.libraryConflicts.contains(name) { report.libraryConflicts.append(name) }
                        continue
                    }
                    var command = RedisCommand("FUNCTION LOAD", "REPLACE")
                    command.add(code)
                    _ = try await master.client.send(command)
                    report.libraries += 1
                }
            } catch { throw RestoreTarget.failure(error) }
        }
    }

    static func libraries(_ answer: RESPValue) -> [String: [UInt8]] {
        var out: [String: [UInt8]] = [:]
        for library in answer.array ?? [] {
            let parts = library.array ?? []
            var fields: [String: RESPValue] = [:]
            for i in stride(from: 0, to: parts.count - 1, by: 2) { fields[parts[i].string ?? ""] = parts[i + 1] }
            if let name = fields["library_name"]?.string, let code = fields["library_code"]?.bytes { out[name] = code }
        }
        return out
    }
}

extension RedisCommand {
    init(_ name: String, key: [UInt8]) {
        self.init(name)
        add(key)
    }
}

/// At most a line every two seconds.
private final class RestorePace {
    private var next = MonotonicTime.now + .seconds(2)
    private let line: (RestoreCounts) -> Void

    init(_ line: @escaping (RestoreCounts) -> Void) { self.line = line }

    func tell(_ counts: RestoreCounts) {
        guard MonotonicTime.now >= next else { return }
        next = .now + .seconds(2)
        line(counts)
    }
}
