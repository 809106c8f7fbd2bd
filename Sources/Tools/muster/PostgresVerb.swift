import Basics
import JSONCoding

private let postgresVerbs = [
    postgresStatusVerb, postgresPromoteVerb, postgresRejoinVerb, postgresBackupVerb, postgresRestoreVerb,
]

let postgresVerb = Verb(
    name: "postgres", summary: "look after a PostgreSQL store of a running stack",
    help: "usage: muster postgres VERB [arguments]\n\n"
        + postgresVerbs.map { "  \($0.name)\(String(repeating: " ", count: 11 - $0.name.count))\($0.summary)" }.joined(separator: "\n")
            + """


            Whatever changes something shows its plan first and asks; --yes answers, --dry-run only shows.
            muster postgres VERB --help tells more, with an example.

            example:
              muster postgres status
              muster postgres promote db/2 --yes
            """,
    parts: postgresVerbs
) { _ in }

let postgresFlags: Set<String> = ["--json", "--dry-run", "--yes"]
let postgresOptions: Set<String> = ["--stack"]

let postgresStatusVerb = Verb(
    name: "status", summary: "who leads, who follows, and how far",
    help: """
        usage: muster postgres status [STORE] [--stack FILE] [--json]

        Status 1 when a store does not serve with all its standbys.

        example:
          muster postgres status --json | python3 -m json.tool
        """,
    flags: ["--json"], options: postgresOptions
) { arguments in
    try arguments.atMost(1, "one store")
    let handle = try StackHandle.find(arguments.value("--stack"))
    try handle.requireRunning()
    let body = try handle.ask("GET", "/api/stores" + (arguments.positional.first.map { "?store=\($0)" } ?? ""))
    let stores = try postgresStores(body)
    if stores.isEmpty { throw Exit.failed("the stack '\(handle.name)' has no PostgreSQL store") }
    if arguments.has("--json") { printOut(String(decoding: body, as: UTF8.self)) } else { for store in stores { printOut(store.text) } }
    let weak = stores.filter { $0.state != "serving" }
    if !weak.isEmpty {
        let words = weak.map { "\($0.name) is \($0.state)" }.joined(separator: ", ")
        throw Exit.failed(arguments.has("--json") ? "" : words)
    }
}

let postgresPromoteVerb = Verb(
    name: "promote", summary: "let a standby lead, without losing a write",
    help: """
        usage: muster postgres promote NODE [--stack FILE] [--force] [--yes] [--dry-run] [--json]
               muster postgres promote --drill kill|stop [STORE] [--stack FILE] [--yes] [--dry-run] [--json]

        NODE is STORE/NUMBER, or its number where the stack has one PostgreSQL store. The primary writes a checkpoint and stops in
        order, the standby is promoted when it has received all of it, and the old primary follows. Is NODE the primary already,
        there is nothing to do.

          --drill   lose the primary for a test while four writers write: its process is killed with -9, or stopped. Tells when it
                    was found dead, fenced, replaced and written to again, and how many acknowledged writes were lost. Status 1
                    where one was lost that a standby should have had
          --force   also when the primary does not run: NODE leads with what it has, and what it lacks is lost

        example:
          muster postgres promote db/2 --yes
        """,
    flags: postgresFlags.union(["--force"]), options: postgresOptions.union(["--drill"])
) { arguments in
    if let fault = arguments.value("--drill") { return try postgresDrill(fault, arguments) }
    try postgresOrder("promote", arguments)
}

let postgresRejoinVerb = Verb(
    name: "rejoin", summary: "make a node follow the primary anew",
    help: """
        usage: muster postgres rejoin NODE [--stack FILE] [--yes] [--dry-run] [--json]

        The node is stopped, what its log has beyond the primary's is counted and taken back (pg_rewind), and it follows. Where that
        fails it gets a new copy, and its old data is set aside.

        example:
          muster postgres rejoin db/3 --yes
        """,
    flags: postgresFlags, options: postgresOptions
) { try postgresOrder("rejoin", $0) }

/// A store as `status` shows it.
struct PostgresStanding: Sendable {
    let name: String
    let state: String

    struct Node: Sendable {
        let number: Int
        let port: Int
        let isPrimary: Bool
        /// It has all, or nearly all, that the primary has been seen to have.
        let isWhole: Bool
    }

    let text: String
    let nodes: [Node]
}

func postgresStores(_ body: [UInt8]) throws -> [PostgresStanding] {
    try JSONDocument().parse(body) { root in
        (root.array ?? []).filter { $0["kind"]?.string == "postgres" }.map { store in
            let name = store["store"]?.string ?? "", state = store["state"]?.string ?? ""
            var words = ["\(name): \(state)"]
            if let acknowledge = store["acknowledge"]?.string { words.append("acknowledge \(acknowledge)") }
            if let timeline = store["timeline"]?.int { words.append("timeline \(timeline)") }
            if store["relaxed"]?.bool == true { words.append("RELAXED: writes are acknowledged that no standby has") }
            var rows = [["NODE", "STATE", "ROLE", "ADDRESS", "POSITION", "BEHIND", "SYNC"]]
            for node in store["nodes"]?.array ?? [] {
                rows.append([
                    "\(name)/\(node["node"]?.int ?? 0)", node["state"]?.string ?? "", node["role"]?.string ?? "",
                    "127.0.0.1:\(node["port"]?.int ?? 0)", node["position"]?.string ?? "-",
                    node["lag_bytes"]?.int.map { "\($0) B" } ?? "-", node["sync_state"]?.string ?? "-",
                ])
            }
            let nodes = (store["nodes"]?.array ?? []).compactMap { node -> PostgresStanding.Node? in
                guard let number = node["node"]?.int, let port = node["port"]?.int else { return nil }
                let isFollowing = node["state"]?.string == "streaming" && (node["lag_bytes"]?.int ?? .max) < 16 << 20
                return .init(number: number, port: port, isPrimary: node["state"]?.string == "primary", isWhole: isFollowing)
            }
            return PostgresStanding(
                name: name, state: state, text: words.joined(separator: ", ") + "\n" + table(rows), nodes: nodes)
        }
    }
}

/// `db/2`, or `2` where there is one PostgreSQL store.
private func postgresNode(_ word: String?, _ handle: StackHandle) throws -> (store: String, node: Int) {
    guard let word else { throw Exit.usage("which node? STORE/NUMBER, as 'muster postgres status' shows them") }
    let parts = word.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count <= 2, let number = parts.last.flatMap({ Int($0) }), (1...1000).contains(number) else {
        throw Exit.usage("'\(word)' is no node: STORE/NUMBER, as 'muster postgres status' shows them")
    }
    let names = try postgresStores(try handle.ask("GET", "/api/stores")).map(\.name)
    if parts.count == 2 {
        guard names.contains(String(parts[0])) else {
            let hint = nearestWord(to: String(parts[0]), in: names).map { "; did you mean '\($0)'?" } ?? ""
            throw Exit.usage("the stack has no PostgreSQL store '\(parts[0])'\(hint)")
        }
        return (String(parts[0]), number)
    }
    guard names.count == 1 else { throw Exit.usage("which store? \(names.map { "\($0)/\(number)" }.joined(separator: ", "))") }
    return (names[0], number)
}

private func postgresOrder(_ verb: String, _ arguments: Arguments) throws {
    try arguments.atMost(1, "one node")
    let handle = try StackHandle.find(arguments.value("--stack"))
    try handle.requireRunning()
    let (store, node) = try postgresNode(arguments.positional.first, handle)
    func ask(isDry: Bool) throws -> String {
        var json = JSONWriter()
        json.beginObject()
        json.member("store", store)
        json.member("verb", verb)
        json.member("node", node)
        json.member("force", verb == "promote" && arguments.has("--force"))
        json.member("dry", isDry)
        json.endObject()
        let body = try handle.ask("POST", "/api/store", json.bytes, timeout: .seconds(180))
        return try JSONDocument().parse(body) { $0["done"]?.string ?? "" }
    }
    let plan = [try ask(isDry: true)]
    guard try redisConfirm(plan, arguments) else { return redisResult(plan: plan, applied: false, arguments) }
    let done = try ask(isDry: false)
    printError(done)
    redisResult(plan: plan, notes: [done], applied: true, arguments)
}
