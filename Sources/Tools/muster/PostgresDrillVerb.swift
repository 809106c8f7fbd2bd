import Basics
import Glibc
import JSONCoding
import PostgresStores
import StoreKinds

/// `muster postgres promote --drill kill|stop`
func postgresDrill(_ word: String, _ arguments: Arguments) throws {
    try arguments.atMost(1, "one store")
    if word == "partition" {
        throw Exit.usage(
            "--drill partition: the nodes follow each other over sockets on one machine, between which nothing can be cut; kill, stop")
    }
    guard let fault = PostgresDrill.Fault(rawValue: word) else { throw Exit.usage("--drill: '\(word)' is none of kill, stop") }
    let handle = try StackHandle.find(arguments.value("--stack"))
    try handle.requireRunning()
    let stores = try postgresStores(try handle.ask("GET", "/api/stores"))
    let name = try postgresStore(arguments.positional.first, stores.map(\.name))
    guard let store = stores.first(where: { $0.name == name }), store.state == "serving",
        let primary = store.nodes.first(where: \.isPrimary)
    else { throw Exit.failed("\(name) does not serve with all its standbys: 'muster postgres status' tells why") }
    if store.nodes.count < 2 { throw Exit.failed("\(name) has no standby that could take over") }
    let what = fault == .kill ? "is killed with -9" : "is stopped"
    let plan = ["\(name)/\(primary.number), the primary, \(what) while \(name) is written to; its clients' connections end"]
    guard try redisConfirm(plan, arguments) else { return redisResult(plan: plan, applied: false, arguments) }
    let folder = handle.folder.store(name)
    let nodes = store.nodes.map {
        PostgresDrill.Node(number: $0.number, folder: "\(folder)/node-\($0.number)", port: UInt16(clamping: $0.port))
    }
    let outcome: PostgresDrill.Outcome
    do {
        outcome = try blocking { loop in
            guard let drill = PostgresDrill(nodes, primary: primary.number, on: loop) else { throw StoreFailure("it has no primary") }
            return try await drill.run(fault, within: .seconds(120))
        }
    } catch { throw Exit.failed("\(error)") }
    let figures = try postgresFigures(handle, name)
    tell(outcome, figures, arguments)
    if outcome.lost > 0, figures.acknowledge != "primary" { throw Exit.failed("\(outcome.lost) acknowledged writes were lost") }
}

/// How long the failover's phases took, and what it lost, once the old primary has been made to follow.
private struct DrillFigures: Sendable {
    var phases: [String: Int] = [:]
    var counted: Int?
    var acknowledge = ""

    /// From the fault to the end of a phase.
    func until(_ last: String) -> Int {
        var sum = 0
        for phase in ["detect", "fence", "choose", "promote"] {
            sum.addClamped(phases[phase] ?? 0)
            if phase == last { break }
        }
        return sum
    }
}

private func postgresFigures(_ handle: StackHandle, _ name: String) throws -> DrillFigures {
    let deadline = MonotonicTime.now + .seconds(120)
    while true {
        let (figures, state) = try JSONDocument().parse(try handle.ask("GET", "/api/stores?store=\(name)")) { root in
            let store = root.array?.first
            var figures = DrillFigures()
            for (phase, value) in [
                ("detect", store?["detect_ms"]?.int), ("fence", store?["fence_ms"]?.int), ("choose", store?["choose_ms"]?.int),
                ("promote", store?["promote_ms"]?.int),
            ] { figures.phases[phase] = value }
            figures.counted = store?["counted_lost"]?.int
            figures.acknowledge = store?["acknowledge"]?.string ?? ""
            return (figures, store?["state"]?.string ?? "")
        }
        if state == "serving" || MonotonicTime.now >= deadline { return figures }
        usleep(100_000)
    }
}

private func tell(_ outcome: PostgresDrill.Outcome, _ figures: DrillFigures, _ arguments: Arguments) {
    let first = Int(clamping: outcome.firstWrite.milliseconds)
    let counted = figures.counted.map(String.init) ?? "not counted"
    printError(
        """
          found dead after \(figures.until("detect")) ms, fenced after \(figures.until("fence")) ms, replaced after \
        \(figures.until("promote")) ms, written to again after \(first) ms
          \(outcome.acknowledged) writes were acknowledged (acknowledge: \(figures.acknowledge)), and \(outcome.lost) of them are lost; \
        commits lost in the old log: \(counted)
        """)
    guard arguments.has("--json") else { return }
    var json = JSONWriter()
    json.beginObject()
    json.member("detected_ms", figures.until("detect"))
    json.member("fenced_ms", figures.until("fence"))
    json.member("promoted_ms", figures.until("promote"))
    json.member("first_write_ms", first)
    json.member("acknowledged", outcome.acknowledged)
    json.member("lost", outcome.lost)
    json.key("counted_lost")
    if let counted = figures.counted { json.int(counted) } else { json.null() }
    json.member("acknowledge", figures.acknowledge)
    json.endObject()
    printOut(json.text)
}
