import Basics
import JSONCoding
import Provisioning
import Sharding

let redisBackupVerb = Verb(
    name: "backup", summary: "a snapshot of every master, or of one server, checked, with a manifest",
    help: """
        usage: muster redis backup --to DIR --address HOST:PORT [--password-file FILE] [--user NAME] [--from-replicas]
                 [--drill] [--json] [--dry-run] --yes
               muster redis backup --drill --from DIR [--json]

        Takes a snapshot of each master that there is now, all at the same moment, over the network, as a replica does:
        the nodes' files are not needed, and how they persist does not matter. (Since Redis 7 the append-only log is a
        folder of several files with a manifest, appendonlydir. A copy of appendonly.aof, as older guides have it,
        copies nothing.) Each master forks once. Slots that change hands meanwhile make a backup void: it is taken once
        more.

        DIR must be new, or empty. It holds a snapshot a master and manifest.json, and it is there only when all of it
        was written to disk, read again and compared. It is a set of snapshots, not of one instant: spread_ms says how
        far they lie apart. A server that is no cluster's is backed up with each of its databases; a cluster takes only
        what was in database 0.

          --from-replicas  spares the masters the fork: a replica of each, the most advanced; how far it was behind is
                           told
          --drill          proves it: restores all of it into a private server of this machine, which needs the memory,
                           and compares every key

        Status 1: no backup was made, or the drill does not hold.

        example:
          muster redis backup --to /backup/$(date +%F) --address 127.0.0.1:7001 --password-file redis.password --drill --yes
        """,
    flags: redisFlags.union(["--from-replicas", "--drill"]), options: redisOptions.union(["--to", "--from"])
) { arguments in
    try arguments.atMost(0, "everything is an option")
    if let folder = arguments.value("--from") {
        guard arguments.has("--drill"), arguments.value("--to") == nil else {
            throw Exit.usage("--from DIR goes with --drill, and without --to")
        }
        return try redisDrill(folder, nil, arguments)
    }
    guard let folder = arguments.value("--to") else { throw Exit.usage("--to DIR is needed: a folder that does not exist yet") }
    let fromReplicas = arguments.has("--from-replicas")
    let target = try RedisTarget(arguments)
    let backup = try target.run { session in try await Backup.plan(session, folder: folder, fromReplicas: fromReplicas) }
    guard try redisConfirm(backup.plan, arguments) else { return redisResult(plan: backup.plan, applied: false, arguments) }
    let manifest = try target.run { session in try await backup.take(session) { printError("  \($0)") } }
    printError("\(manifest.keys) keys, \(ByteSize.text(manifest.bytes)) in \(folder); the snapshots lie \(manifest.spread.brief) apart")
    if arguments.has("--drill") { return try redisDrill(folder, manifest, arguments) }
    redisResult(plan: backup.plan, applied: true, arguments) { json in
        json.key("manifest")
        manifest.write(&json)
    }
}

private func redisDrill(_ folder: String, _ manifest: BackupManifest?, _ arguments: Arguments) throws {
    let report = try redisFailures {
        try blocking { loop in try await BackupDrill.run(folder: folder, on: loop) { printError("  \($0)") } }
    }
    for line in report.sentences { printError(line) }
    redisResult(plan: ["restore \(folder) into a private server, and compare"], applied: true, arguments) { json in
        if let manifest {
            json.key("manifest")
            manifest.write(&json)
        }
        json.key("drill")
        redisWrite(report, &json)
    }
    if !report.holds { throw Exit.failed("the drill does not hold: \(folder) is no backup to rely on") }
    printError("the drill holds: \(folder) can be restored")
}

/// `{"restored":…,"verified":…,"differ":…,…}`.
func redisWrite(_ report: RestoreReport, _ json: inout JSONWriter) {
    json.beginObject()
    json.member("holds", report.holds)
    json.member("expected", report.expected)
    json.member("restored", report.counts.restored)
    json.member("already", report.counts.already)
    json.member("expired", report.counts.expired)
    json.member("found", report.found)
    json.member("verified", report.compared)
    json.member("differ", report.differing)
    json.member("differences", report.differences)
    json.member("missing", report.missing)
    json.member("conflicts", report.counts.conflicts)
    json.member("conflict_names", report.counts.conflictNames)
    json.member("outside_slots", report.counts.strays)
    json.member("large", report.counts.large)
    json.member("libraries", report.libraries)
    json.member("library_conflicts", report.libraryConflicts)
    json.member("bytes", report.counts.bytes)
    json.member("seconds", report.seconds)
    json.member("verify_seconds", report.verifySeconds)
    json.endObject()
}
