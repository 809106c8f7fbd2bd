import Basics
import JSONCoding
import Provisioning
import Sharding

let redisFailoverVerb = Verb(
    name: "failover", summary: "let a replica take over from its master",
    help: """
        usage: muster redis failover [NODE] --address HOST:PORT [--password-file FILE] [--force] [--yes] [--dry-run]
                 [--json]
               muster redis failover --from MASTER --address HOST:PORT ...
               muster redis failover --drill kill|stop|partition [--wait 1] [--rate 5000/s] [NODE] --address HOST:PORT ...

        NODE, by HOST:PORT or the beginning of its id, is the replica that shall take over; without it, the node of
        --address. Is it a master already, there is nothing to do, so that the same command may be given twice. The
        master stops writing until the replica has everything: no write is lost. Returns when every node knows.

          --from M   the master that shall be replaced: its most advanced replica takes over. Nothing to do when M is a
                     replica already
          --force    without asking the master, which is away or hangs; a majority of masters must still vote, and what
                     it has not passed on is lost. Refused to a replica that has no whole copy of its data
          --drill    lose the master NODE (default: the first) for a test, while keys are written to all slots: its
                     process is killed with -9 or stopped, or its peers' packets to it are dropped (root, iptables).
                     Tells when it was suspected, flagged, replaced, and written to again, and how many acknowledged
                     writes were lost. Nodes of this machine only; all is as before afterwards, and the keys are gone
                     (where they cannot be removed, that is told, and they end after an hour)
          --wait N   writes of the drill are acknowledged when N replicas have them; default 0
          --rate N/s writes of the drill a second; default 5000/s

        example:
          muster redis failover 127.0.0.1:7004 --address 127.0.0.1:7001 --password-file redis.password --yes
          muster redis failover --drill kill --wait 1 --address 127.0.0.1:7001 --password-file redis.password --json --yes
        """,
    flags: redisFlags.union(["--force"]), options: redisOptions.union(["--drill", "--wait", "--rate", "--from"])
) { arguments in
    try arguments.atMost(1, "one node")
    if let fault = arguments.value("--drill") {
        if arguments.value("--from") != nil { throw Exit.usage("--drill loses the master NODE; --from does not go with it") }
        return try redisDrill(fault, arguments)
    }
    let target = try RedisTarget(arguments)
    if arguments.value("--from") != nil, !arguments.positional.isEmpty {
        throw Exit.usage("NODE, which takes over, and --from, which is replaced, exclude each other")
    }
    let wish: ClusterFailover.Wish =
        arguments.value("--from").map { .replaced($0) } ?? .heir(arguments.positional.first ?? target.seeds[0].description)
    let isForced = arguments.has("--force")
    let outlook = try target.run { session in try await ClusterFailover.plan(session, wish, isForced: isForced) }
    guard case .planned(let failover) = outlook else {
        if case .done(let sentence) = outlook {
            printError(sentence)
            redisResult(plan: [], notes: [sentence], applied: false, arguments)
        }
        return
    }
    let plan = [failover.sentence]
    guard try redisConfirm(plan, arguments) else { return redisResult(plan: plan, applied: false, arguments) }
    let took = try target.run { session in
        // Again: while the plan was shown, a replica may have taken over by itself, or have begun to copy anew.
        guard case .planned(let now) = try await ClusterFailover.plan(session, wish, isForced: isForced), now.isShown(as: failover) else {
            throw ProvisioningFailure(.unfinished, "the cluster has changed since the plan was shown; nothing was done. Run the same again")
        }
        return try await now.apply(session)
    }
    printError(
        "\(failover.replica.address) is the master; every node that answers knew after "
            + "\(Duration.milliseconds(took.nanoseconds / 1_000_000).brief)"
    )
    redisResult(plan: plan, applied: true, arguments) { $0.member("took_ms", Int(took.nanoseconds / 1_000_000)) }
}

private func redisDrill(_ word: String, _ arguments: Arguments) throws {
    guard let fault = FailoverDrill.Fault(rawValue: word) else { throw Exit.usage("--drill: '\(word)' is none of kill, stop, partition") }
    func whole(_ option: String, _ range: ClosedRange<Int>, _ fallback: Int) throws -> Int {
        guard var word = arguments.value(option) else { return fallback }
        if option == "--rate", word.hasSuffix("/s") { word.removeLast(2) }
        guard let number = Int(word), range.contains(number) else {
            throw Exit.usage("\(option): '\(word)' is not a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }
    let wait = try whole("--wait", 0...5, 0), rate = try whole("--rate", 1...100_000, 5000)
    let target = try RedisTarget(arguments)
    let node = try arguments.positional.first.map(redisAddress)
    let drill = try target.run { session in try await FailoverDrill.plan(session, fault: fault, node: node, wait: wait, rate: rate) }
    guard try redisConfirm(drill.plan, arguments) else { return redisResult(plan: drill.plan, applied: false, arguments) }
    let outcome = try target.run { session in
        // Again: while the plan was shown, the process may have been replaced by another one, or the cluster have changed.
        let now = try await FailoverDrill.plan(session, fault: fault, node: node, wait: wait, rate: rate)
        guard now.isShown(as: drill) else {
            throw ProvisioningFailure(.unfinished, "the cluster has changed since the plan was shown; nothing was done. Run the same again")
        }
        return try await now.run(session) { printError("  \($0)") }
    }
    let line = outcome.timeline
    if arguments.has("--json") {
        var json = JSONWriter()
        json.beginObject()
        for (name, value) in [
            ("last_write_ms", line.lastWrite), ("suspected_ms", line.suspected), ("failed_ms", line.failed), ("detected_ms", line.detected),
            ("elected_ms", line.elected),
            ("first_write_ms", line.firstWrite), ("whole_ms", line.whole),
        ] {
            json.key(name)
            if let value { json.int(value) } else { json.null() }
        }
        json.member("at_ms", Int(outcome.at.milliseconds))
        json.member("acknowledged", outcome.acknowledged)
        json.member("lost", outcome.lost)
        json.member("wait", outcome.wait)
        json.member("failed_in_lost_slots", outcome.failedInLost)
        json.member("failed_elsewhere", outcome.failedElsewhere)
        json.member("victim", outcome.victim.description)
        json.key("heir")
        if let heir = outcome.heir { json.string(heir.description) } else { json.null() }
        json.endObject()
        printOut(json.text)
    } else {
        func row(_ name: String, _ value: Int?, _ note: String) {
            printOut(
                "  "
                    + "\(name)\(String(repeating: " ", count: 34 - name.count))\(value.map { "\($0) ms" } ?? "not seen")\(note.isEmpty ? "" : "   \(note)")"
            )
        }
        row("last acknowledged write", line.lastWrite, "")
        row("suspected by a node", line.suspected, "")
        row("flagged as failed", line.failed, line.failed == nil ? "(replaced before)" : "")
        row("another master elected", line.elected, outcome.heir?.description ?? "")
        row("first write acknowledged again", line.firstWrite, "")
        row("the cluster is whole again", line.whole, "")
        printOut("\(outcome.acknowledged) writes acknowledged, \(outcome.lost) of them lost (WAIT \(outcome.wait))")
        printOut(
            "\(outcome.failedInLost) writes of the lost slots failed, and \(outcome.failedElsewhere) of the "
                + "others\(outcome.firstFailureElsewhere.isEmpty ? "" : ": " + outcome.firstFailureElsewhere)"
        )
    }
    guard line.elected != nil, line.firstWrite != nil else { throw Exit.failed("nobody took over in time") }
    if outcome.wait > 0, outcome.lost > 0 { throw Exit.failed("\(outcome.lost) writes that were confirmed by a replica are lost") }
}
