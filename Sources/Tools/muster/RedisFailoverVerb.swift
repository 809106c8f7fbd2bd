import Basics
import Provisioning
import Sharding

let redisFailoverVerb = Verb(
    name: "failover", summary: "let a replica take over from its master",
    help: """
        usage: muster redis failover NODE --address HOST:PORT [--password-file FILE] [--force] [--yes] [--dry-run] [--json]

        NODE, by HOST:PORT or the beginning of its id, is the replica that shall take over, or the master that shall be replaced (then its most advanced replica
        takes over). The master stops writing until the replica has everything: no write is lost. Returns when every node knows.

          --force    without asking the master, which is away or hangs; a majority of masters must still vote, and what it has not passed on is lost

        example:
          muster redis failover 127.0.0.1:7004 --address 127.0.0.1:7001 --password-file redis.password --yes
        """,
    flags: redisFlags.union(["--force"]), options: redisOptions
) { arguments in
    try arguments.atMost(1, "one node")
    guard let name = arguments.positional.first else { throw Exit.usage("which node? HOST:PORT of a replica, or of the master to be replaced") }
    let target = try RedisTarget(arguments)
    let isForced = arguments.has("--force")
    let failover = try target.run { session in try await ClusterFailover.plan(session, name: name, isForced: isForced) }
    let plan = [failover.sentence]
    guard try redisConfirm(plan, arguments) else { return redisResult(plan: plan, applied: false, arguments) }
    let took = try target.run { session in try await failover.apply(session) }
    printError("\(failover.replica.address) is the master; every node that answers knew after \(Duration.milliseconds(took.nanoseconds / 1_000_000).brief)")
    redisResult(plan: plan, applied: true, arguments) { $0.member("took_ms", Int(took.nanoseconds / 1_000_000)) }
}
