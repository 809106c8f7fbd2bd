import Basics
import Provisioning
import Sharding

let redisRebalanceVerb = Verb(
    name: "rebalance", summary: "move slots until each master carries its share",
    help: """
        usage: muster redis rebalance --address HOST:PORT [--password-file FILE] [options] [--yes] [--dry-run] [--json]

        Masters without slots are filled too. Nothing moves when each master is within the threshold of its share. All
        serve meanwhile. Killed at any moment, the same command first finishes the slots that were open, then goes on.

          --weight NODE=W       a master's weight (default 1; 0 empties it); may be given more than once
          --by slots|keys|ops   what is shared out: the number of slots (default), of keys, or commands a second
          --threshold PERCENT   default 2
          --rate R              keys (5000/s) or bytes (20MB/s) that may move a second; default 10000/s

        example:
          muster redis rebalance --weight 127.0.0.1:7007=2 --address 127.0.0.1:7001 --password-file redis.password --yes
        """,
    flags: redisFlags, options: redisOptions.union(["--weight", "--by", "--threshold", "--rate"])
) { arguments in
    try arguments.atMost(0, "everything is an option")
    let target = try RedisTarget(arguments)
    let rate = try redisRate(arguments), weights = try redisWeights(arguments)
    let word = arguments.value("--by") ?? "slots"
    guard let measure = ClusterRebalance.Measure(rawValue: word) else { throw Exit.usage("--by: '\(word)' is none of slots, keys, ops") }
    guard let threshold = Double(arguments.value("--threshold") ?? "2"), (0...100).contains(threshold) else {
        throw Exit.usage("--threshold: a number from 0 to 100")
    }
    let (open, first): ([Diagnosis.Finding], PlannedRebalance?) = try target.run { session in
        let (_, diagnosis) = try await ClusterRepair.diagnose(session, thorough: false)
        // What is open may stand in the way of a plan; then it is made when that is finished.
        if !diagnosis.open.isEmpty { return (diagnosis.open, try? await rebalancePlan(session, weights, measure, threshold)) }
        return ([], try await rebalancePlan(session, weights, measure, threshold))
    }
    if open.isEmpty, let first, first.decision.result.moves.isEmpty {
        printError(first.sentence)
        return redisResult(plan: [], notes: [first.sentence], applied: false, arguments)
    }
    let plan =
        open.map { "finish what was cut off: \($0.sentence)" }
        + (first.map { [$0.sentence] + $0.lines } ?? ["then share out what is there"])
    guard try redisConfirm(plan, arguments) else { return redisResult(plan: plan, applied: false, arguments) }
    let (moved, copying) = try target.run { session in
        try await ClusterRepair(session, rate: rate) { printError("  \($0)") }.settleOpenSlots()
        let now = try await rebalancePlan(session, weights, measure, threshold)
        let moved = try await ClusterRebalance.apply(now.decision.result, session, rate: rate) { printError("  \($0)") }
        return (moved, try await session.waitUntilServing(.seconds(60), copyTime: .seconds(15)))
    }
    printError("moved \(moved.slots) slots with \(moved.keys) keys")
    redisServes("", copying)
    redisResult(plan: plan, applied: true, arguments) {
        $0.member("slots_moved", moved.slots)
        $0.member("keys_moved", moved.keys)
    }
}

private func redisWeights(_ arguments: Arguments) throws -> [String: Double] {
    var weights: [String: Double] = [:]
    for word in arguments.all("--weight") {
        guard let equals = word.lastIndex(of: "="), let weight = Double(word[word.index(after: equals)...]), weight >= 0, weight.isFinite
        else {
            throw Exit.usage("--weight: '\(word)' is not NODE=NUMBER")
        }
        weights[String(word[..<equals])] = weight
    }
    return weights
}

private struct PlannedRebalance: Sendable {
    let decision: Decision<RebalancePlan>
    let lines: [String]
    var sentence: String { decision.record.sentence }
}

private func rebalancePlan(
    _ session: ClusterSession, _ weights: [String: Double], _ measure: ClusterRebalance.Measure, _ threshold: Double
) async throws -> PlannedRebalance {
    let (reading, decision) = try await ClusterRebalance.plan(session, weights: weights, measure: measure, threshold: threshold / 100)
    let lines = decision.result.moves.map { "\($0.slots.count) slots go from \(reading.view.name($0.from)) to \(reading.view.name($0.to))" }
    return PlannedRebalance(decision: decision, lines: lines)
}

let redisFixVerb = Verb(
    name: "fix", summary: "find what is wrong, and mend what can be mended",
    help: """
        usage: muster redis fix --address HOST:PORT [--password-file FILE] [--accept-loss NAME] [--rate R] [--yes]
                 [--dry-run] [--json]

        Looks at every node, and for keys in places where they do not belong. Each finding has a risk: 'safe' touches no
        data, 'moves' moves data, 'loses' could lose some and is done only for who names it with --accept-loss, and only
        as it was shown; 'manual' a person must do. Status 1 while anything is left.

          --accept-loss NAME   \(Diagnosis.losing.joined(separator: ", ")); may be given more than once
          --rate R             keys (5000/s) or bytes (20MB/s) that may move a second; default 10000/s

        example:
          muster redis fix --dry-run --address 127.0.0.1:7001 --password-file redis.password
        """,
    flags: redisFlags, options: redisOptions.union(["--accept-loss", "--rate"])
) { arguments in
    try arguments.atMost(0, "everything is an option")
    let target = try RedisTarget(arguments)
    let rate = try redisRate(arguments), accepted = Set(arguments.all("--accept-loss"))
    if let wrong = accepted.first(where: { !Diagnosis.losing.contains($0) }) {
        let hint = nearestWord(to: wrong, in: Diagnosis.losing).map { "; did you mean '\($0)'?" } ?? ""
        throw Exit.usage("--accept-loss: nothing is called '\(wrong)'\(hint)")
    }
    let diagnosis = try target.run { session in try await ClusterRepair.diagnose(session, thorough: true).1 }
    let findings = diagnosis.findings
    for line in diagnosis.unread { printError("note: \(line)") }
    let plan = findings.map { "\($0.name) (\($0.risk.rawValue)): \($0.sentence); \($0.mend)" }
    if findings.isEmpty {
        printError(diagnosis.unread.isEmpty ? "nothing is wrong" : "nothing is wrong in what could be read")
        return redisResult(plan: [], applied: false, arguments)
    }
    let mendable = findings.filter { $0.isMendable(accepting: accepted) }
    if mendable.isEmpty {
        for line in plan { printError("  \(line)") }
        redisResult(plan: plan, applied: false, arguments)
        throw Exit.failed("nothing of it is mended by this command alone")
    }
    guard try redisConfirm(plan, arguments) else { return redisResult(plan: plan, applied: false, arguments) }
    let agreed = mendable.filter { $0.risk == .loses }
    let left = try target.run { session in
        try await ClusterRepair(session, rate: rate) { printError("  \($0)") }.mendAll(agreed: agreed)
    }
    redisResult(plan: plan, applied: true, arguments) { $0.member("left", left.map(\.sentence)) }
    if left.isEmpty { return printError("mended; nothing is wrong any more") }
    for finding in left { printError("  left: \(finding.name) (\(finding.risk.rawValue)): \(finding.sentence); \(finding.mend)") }
    throw Exit.failed("\(left.count) findings are left")
}
