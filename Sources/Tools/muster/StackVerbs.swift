import Basics
import Glibc
import JSONCoding
import Supervision
import Topology

let downVerb = Verb(
    name: "down", summary: "stop a stack; its data stays",
    help: """
        usage: muster down [STACK] [--purge]

        Drains the gateway, stops services, then stores, and leaves no process behind, also when the supervisor was killed.

          --purge     remove the stack's data and logs as well

        example:
          muster down --purge
        """
) { arguments in
    try arguments.atMost(1, "one stack file")
    let handle = try StackHandle(arguments.positional.first)
    if handle.isRunning {
        _ = try handle.ask("POST", "/api/down", [])
        let deadline = MonotonicTime.now + .seconds(120)
        while handle.isRunning {
            if MonotonicTime.now > deadline { throw Exit.failed("it did not stop within two minutes; see \(handle.folder.supervisorLog)") }
            usleep(20_000)
        }
        printError("\(handle.stack.name) is down")
    } else {
        printError("\(handle.stack.name) was not running")
    }
    let purge = arguments.has("--purge")
    // Under the lock, so that neither processes nor data of a stack that has just been started anew are touched.
    guard let ended = try Supervisor.endLeftovers(of: handle.stack, file: handle.file, purge: purge) else {
        throw Exit.failed("the stack was started again meanwhile; nothing was removed")
    }
    if ended > 0 { printError("ended \(ended) processes that a killed supervisor had left") }
    if purge { printError("removed \(handle.folder.path)") }
}

let psVerb = Verb(
    name: "ps", summary: "replicas, their state and addresses",
    help: """
        usage: muster ps [STACK] [--json]

        example:
          muster ps --json | python3 -m json.tool
        """
) { arguments in
    try arguments.atMost(1, "one stack file")
    let handle = try StackHandle(arguments.positional.first)
    guard handle.isRunning else {
        if arguments.has("--json") { printOut("[]") }
        throw Exit.failed("the stack '\(handle.stack.name)' is not running; start it with: \(selfName) up \(handle.file)")
    }
    if arguments.has("--json") { return printOut(String(decoding: try handle.ask("GET", "/api/replicas"), as: UTF8.self)) }
    printOut(psTable(handle, try handle.rows()))
}

let scaleVerb = Verb(
    name: "scale", summary: "fix or free a service's replica count",
    help: """
        usage: muster scale SERVICE=N|auto [STACK]

        Returns when the new count is ready and what is too much has been drained. 'auto' frees the count: it goes back to what
        the stack declares.

        example:
          muster scale correlation-engine=5
        """
) { arguments in
    try arguments.atMost(2, "SERVICE=N and a stack file")
    guard let word = arguments.positional.first else { throw Exit.usage("which service, and how many?") }
    let handle = try StackHandle(arguments.positional.dropFirst().first ?? arguments.value("--stack"))
    let (service, count) = try parseCount(word, handle.stack)
    try handle.requireRunning()
    var json = JSONWriter()
    json.beginObject()
    json.member("service", service)
    if let count { json.member("replicas", count) }
    json.endObject()
    _ = try handle.ask("POST", "/api/scale", json.bytes)
    try waitUntilQuiet(handle)
    let ready = try handle.rows().filter { $0.service == service }.count
    printError("\(service) has \(ready) replicas")
}

let rollVerb = Verb(
    name: "roll", summary: "replace every replica without losing a request",
    help: """
        usage: muster roll SERVICE [STACK]

        One after the other: a new replica is started and must be ready before an old one is drained and stopped. If the new one
        does not become ready, the roll ends there, the old ones go on serving, and the status is 1.

        example:
          muster roll correlation-engine
        """
) { arguments in
    try arguments.atMost(2, "a service and a stack file")
    guard let service = arguments.positional.first else { throw Exit.usage("which service?") }
    let handle = try StackHandle(arguments.positional.dropFirst().first ?? arguments.value("--stack"))
    _ = try parseCount("\(service)=auto", handle.stack)
    try handle.requireRunning()
    var json = JSONWriter()
    json.beginObject()
    json.member("service", service)
    json.endObject()
    let start = MonotonicTime.now
    printError("rolling \(service); \(selfName) ps shows how far it is")
    _ = try handle.ask("POST", "/api/roll", json.bytes, timeout: .seconds(3600))
    printError("rolled \(service) in \((MonotonicTime.now - start).brief)")
}

let whyVerb = Verb(
    name: "why", summary: "why it scaled, routed, ejected, retried, restarted",
    help: """
        usage: muster why [SERVICE] [--json] [-n COUNT] [--stack FILE]

        Reads the decision journal: what was decided, from which inputs, under which constraints, and what would have changed it.
        It changes nothing.

          -n COUNT      the latest so many (default 20; with --json all)
          --stack FILE  another stack than the one that verbs take by themselves

        example:
          muster why correlation-engine
        """
) { arguments in
    try arguments.atMost(1, "one service")
    let handle = try StackHandle(arguments.value("--stack"))
    try handle.requireRunning()
    let subject = arguments.positional.first
    let plain = (subject ?? "").utf8.allSatisfy { ($0 | 32) &- 97 < 26 || $0 &- 48 < 10 || $0 == 45 || $0 == 47 || $0 == 46 || $0 == 58 }
    guard plain else { throw Exit.usage("'\(subject!)' is no service") }
    if let subject { try checkSubject(subject, handle.stack) }
    let body = try handle.ask("GET", "/api/why?subject=\(subject ?? "")")
    if arguments.has("--json") { return printOut(String(decoding: body, as: UTF8.self)) }
    let limit = try lineCount(arguments, default: 20)
    printOut(try JSONDocument().parse(body) { root in explain(root.array ?? [], limit: limit, inFull: subject != nil) })
}

/// Decisions are about services, their replicas, stores, and declared backends.
private func checkSubject(_ subject: String, _ stack: Stack) throws(Exit) {
    let name = String(subject.split(separator: "/").first ?? "")
    let backends = (stack.gateway?.routes ?? []).flatMap { if case .backends(let list) = $0.target { list.map(\.address) } else { [String]() } }
    let known = stack.services.map(\.name) + stack.stores.map(\.name) + backends
    if known.contains(name) || known.contains(subject) { return }
    let hint = nearestWord(to: name, in: known).map { "; did you mean '\($0)'?" } ?? ""
    throw .usage("nothing in the stack is called '\(subject)'\(hint)")
}

/// Sentences; with `inFull`, what each was decided from.
private func explain(_ entries: [JSONElement], limit: Int, inFull: Bool) -> String {
    if entries.isEmpty { return "nothing has been decided yet" }
    var out: [String] = []
    if entries.count > limit { out.append("(\(entries.count - limit) earlier ones: -n \(entries.count))") }
    for entry in entries.suffix(limit) {
        func text(_ key: StaticString) -> String { entry[key]?.string ?? "" }
        out.append("\(text("at").dropFirst(11).prefix(12))  \(text("sentence"))")
        guard inFull else { continue }
        let inputs = (entry["inputs"]?.members ?? []).map { "\($0.key)=\($0.value.string ?? "")" }.joined(separator: ", ")
        if !inputs.isEmpty { out.append("              from: \(inputs)") }
        for constraint in entry["constraints"]?.array ?? [] {
            func part(_ key: StaticString) -> String { constraint[key]?.string ?? "" }
            out.append("              \(part("name")): \(part("before")) -> \(part("after")), because \(part("reason"))")
        }
        out.append("              otherwise if: \(text("flip"))")
    }
    return out.joined(separator: "\n")
}

let schemaVerb = Verb(
    name: "schema", summary: "JSON Schema of the stack file, for editors",
    help: """
        usage: muster schema

        example:
          muster schema > muster.schema.json
          # then, as the first line of a stack file:
          # yaml-language-server: $schema=muster.schema.json
        """
) { arguments in
    try arguments.atMost(0, "none is taken")
    printOut(stackJSONSchema())
}
