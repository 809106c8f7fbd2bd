import Basics
import JSONCoding
import Provisioning

let redisRestoreVerb = Verb(
    name: "restore", summary: "a backup's keys into a cluster of any size, or one server",
    help: """
        usage: muster redis restore --from DIR --address HOST:PORT [--password-file FILE] [--user NAME]
                 [--into-existing] [--replace] [--verify full]
                                    [--json] [--dry-run] --yes

        Checks the backup's checksums, loads each snapshot into a private redis-server of this machine (which needs the
        memory of the largest one), sends each key to the master that has its slot now, and reads back what it sent.
        Times of expiry stay as they are, to the millisecond; large keys go in pieces; libraries of functions come to
        every master. Cut off at any moment, the same command goes on and touches nothing twice.

          --into-existing  the target has keys: those of the same name stay, and are told when they differ
          --replace        overwrites those of the same name
          --verify full    compares every key; else every key is looked for, and every large one and one in 50 compared

        Status 1: something is missing, differs, or was left alone because it exists.

        example:
          muster redis restore --from /backup/2026-11-21 --address 127.0.0.1:7101 --password-file redis.password --verify full --yes
        """,
    flags: redisFlags.union(["--into-existing", "--replace"]), options: redisOptions.union(["--from", "--verify"])
) { arguments in
    try arguments.atMost(0, "everything is an option")
    guard let folder = arguments.value("--from") else { throw Exit.usage("--from DIR is needed: a backup's folder") }
    guard ["full", "sample", nil].contains(arguments.value("--verify")) else { throw Exit.usage("--verify takes full or sample") }
    var options = Restore.Options(folder: folder)
    options.intoExisting = arguments.has("--into-existing")
    options.replaces = arguments.has("--replace")
    options.verifiesAll = arguments.value("--verify") == "full"
    let chosen = options
    let target = try RedisTarget(arguments)
    let plan = try target.run { session in
        let restore = try await Restore.plan(session, chosen) { printError("  \($0)") }
        restore.close()
        return restore.plan
    }
    guard try redisConfirm(plan, arguments) else { return redisResult(plan: plan, applied: false, arguments) }
    let report = try target.run { session in
        let restore = try await Restore.plan(session, chosen) { _ in }
        defer { restore.close() }
        return try await restore.run { printError("  \($0)") }
    }
    for line in report.sentences { printError(line) }
    redisResult(plan: plan, applied: true, arguments) { json in
        json.key("report")
        redisWrite(report, &json)
    }
    if !report.holds { throw Exit.failed("not everything of the backup is in the target as it was") }
}
