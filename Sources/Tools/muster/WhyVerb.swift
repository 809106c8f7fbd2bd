import Basics
import EventLoops
import Glibc
import HTTP
import JSONCoding
import StackModel
import Supervision

let whyVerb = Verb(
    name: "why", summary: "why it scaled, routed, ejected, retried, restarted",
    help: """
        usage: muster why [SERVICE] [--json] [-n COUNT] [--since TIME] [--follow] [--routes] [--stack FILE]
               muster why SERVICE --csv [--stack FILE]
               muster why [SERVICE] --resources [--json] [--stack FILE]
               muster why --request ID [--json] [--stack FILE | --admin HOST:PORT]

        Reads the decision journal: what was decided, from which inputs, under which constraints, and what would have
        changed it. It changes nothing. A service that scales by itself is told first as it stands now: why it has the
        size it has, and why not another. When the stack does not run, the answer is what was written down in its folder.

          --since TIME  only what was decided since then: 10m, or 2026-11-21T08:00:00Z
          --follow, -f  goes on with what is decided from now on, also over a restart of the supervisor
          -n COUNT      the latest so many (default 20; with --json all)
          --routes      also where sampled requests went (--json has them always)
          --csv         what the autoscaler has seen at each pass, as muster replay reads it: time,service,metric,value
          --resources   what its replicas should be given (services.NAME.resources), from what they were seen to use;
                        nothing is changed
          --request ID  where one of the gateway's latest requests went, and why; ID is the X-Request-Id of its answer
                        and of the access log. Status 1 when the gateway does not remember it
          --admin HOST:PORT
                        asks the admin port of a gateway that runs alone (muster gateway), not a stack
          --stack FILE  another stack than the one that verbs take by themselves

        examples:
          muster why correlation-engine
          muster why --since 10m --follow
          muster why correlation-engine --csv > day.csv && muster replay day.csv --policy stacks/correlation.yaml
          muster why correlation-engine --resources
          muster why --request 5f0c9a7e2b41d683 --admin 127.0.0.1:8404
        """,
    options: verbOptions.union(["--since"])
) { arguments in
    if let id = arguments.value("--request") { return try explainRequest(id, arguments) }
    try arguments.atMost(1, "one service")
    if arguments.has("--resources"), arguments.value("--admin") != nil || arguments.has("--csv") {
        throw Exit.usage("--resources is asked of a stack, without --admin and --csv")
    }
    let since = try Since(arguments), follows = arguments.has("--follow") || arguments.has("-f")
    if follows, arguments.value("--admin") != nil || arguments.has("--csv") || arguments.has("--resources") {
        throw Exit.usage("--follow goes without --admin, --csv and --resources")
    }
    if let place = arguments.value("--admin") { return try explainAll(of: place, since, arguments) }
    let handle = try StackHandle.find(arguments.value("--stack"))
    let subject = arguments.positional.first
    let plain = (subject ?? "").utf8.allSatisfy { ($0 | 32) &- 97 < 26 || $0 &- 48 < 10 || $0 == 45 || $0 == 47 || $0 == 46 || $0 == 58 }
    guard plain else { throw Exit.usage("'\(subject!)' is no service") }
    if follows { return try followJournal(subject, since, handle, arguments) }
    if arguments.has("--resources") { try handle.requireRunning() }
    guard try handle.isRunning, handle.phase() != nil || arguments.has("--resources") else {
        return try explainRecorded(subject, since, handle, arguments)
    }
    if arguments.has("--resources") {
        if let subject { try checkSubject(subject, try handle.running()) }
        return try printResources(subject, handle, json: arguments.has("--json"))
    }
    let body = try handle.ask("GET", "/api/why?" + whyQuery(subject, since))
    let hasAny = try JSONDocument().parse(body) { $0.count > 0 }
    // What was removed from the stack has a past.
    if let subject, !hasAny { try checkSubject(subject, try handle.running()) }
    if arguments.has("--csv") { return try printRecording(subject, handle) }
    try printDecisions(body, subject, arguments, before: arguments.has("--json") ? "" : try standings(subject, handle))
}

private func whyQuery(_ subject: String?, _ since: Since?) -> String {
    "subject=\(escaped(subject ?? ""))" + (since.map { "&since=\(escaped(CalendarTime.render($0.time)))" } ?? "")
}

/// Prints a JSON array of decisions, as it is or in words, with `before` in front of the words.
func printDecisions(_ body: [UInt8], _ subject: String?, _ arguments: Arguments, before: String) throws {
    if arguments.has("--json") { return printOut(String(decoding: body, as: UTF8.self)) }
    let limit = try lineCount(arguments, default: 20)
    printOut(
        before
            + (try JSONDocument().parse(body) { root in explain(shown(root.array ?? [], arguments), limit: limit, inFull: subject != nil) })
    )
}

/// Decisions are about services, their replicas, tasks, stores, and declared backends.
private func checkSubject(_ subject: String, _ running: StackHandle.Running) throws(Exit) {
    try refuseUnknown(subject, running.services + running.tasks + running.stores + running.backends + ["supervisor"])
}

func refuseUnknown(_ subject: String, _ known: [String]) throws(Exit) {
    let name = String(subject.split(separator: "/").first ?? "")
    if known.contains(name) || known.contains(subject) { return }
    let hint = nearestWord(to: name, in: known).map { "; did you mean '\($0)'?" } ?? ""
    throw .usage("nothing in the stack is called '\(subject)'\(hint)")
}

/// Without the samples of routing, unless they were asked for: they come by the second and bury what was decided.
private func shown(_ entries: [JSONElement], _ arguments: Arguments) -> [JSONElement] {
    arguments.has("--routes") ? entries : entries.filter { $0["kind"]?.string != "route" }
}

/// Sentences; with `inFull`, what each was decided from.
private func explain(_ entries: [JSONElement], limit: Int, inFull: Bool) -> String {
    if entries.isEmpty { return "nothing has been decided yet" }
    var out: [String] = []
    if entries.count > limit { out.append("(\(entries.count - limit) earlier ones: -n \(entries.count))") }
    let today = CalendarTime.render(.now).prefix(10)
    for entry in entries.suffix(limit) {
        func text(_ key: StaticString) -> String { entry[key]?.string ?? "" }
        let at = text("at"), day = at.prefix(10)
        out.append("\(day == today ? "" : "\(day) ")\(at.dropFirst(11).prefix(12))  \(text("sentence"))")
        if inFull { out += grounds(entry) }
    }
    return out.joined(separator: "\n")
}

/// What a decision was made from, what held it in turn, and what would change it.
func grounds(_ entry: JSONElement) -> [String] {
    var out: [String] = []
    let inputs = (entry["inputs"]?.members ?? []).map { "\($0.key)=\($0.value.string ?? "")" }.joined(separator: ", ")
    if !inputs.isEmpty { out.append("              from: \(inputs)") }
    for constraint in entry["constraints"]?.array ?? [] {
        func part(_ key: StaticString) -> String { constraint[key]?.string ?? "" }
        out.append("              \(part("name")): \(part("before")) -> \(part("after")), because \(part("reason"))")
    }
    out.append("              otherwise if: \(entry["flip"]?.string ?? "")")
    return out
}

// MARK: a gateway that runs alone

/// The journal of the gateway whose admin port is at `place`.
private func explainAll(of place: String, _ since: Since?, _ arguments: Arguments) throws {
    let subject = arguments.positional.first
    try printDecisions(try askAdmin(place, "/api/why?" + whyQuery(subject, since)), subject, arguments, before: "")
}

/// Asks an admin port; an answer other than 2xx is its own error message.
private func askAdmin(_ place: String, _ path: String) throws -> [UInt8] {
    let address = place.allSatisfy(\.isNumber) ? "127.0.0.1:\(place)" : place
    guard let endpoint = Endpoint(address) else { throw Exit.usage("--admin: '\(place)' is no HOST:PORT") }
    let response: HTTPClientResponse
    do {
        response = try blocking { loop in try await HTTPClient(loop: loop).send("GET", path, to: endpoint, timeout: .seconds(10)) }
    } catch let error as HTTPClientError {
        throw Exit.failed("no gateway answers at \(address) (\(error)); the admin port is gateway.admin of its file")
    }
    return try content(response, of: "the admin port")
}

// MARK: one request

private func explainRequest(_ id: String, _ arguments: Arguments) throws {
    try arguments.atMost(0, "--request takes no service")
    guard !id.isEmpty, id.utf8.count <= 128 else { throw Exit.usage("--request: an id has 1 to 128 characters") }
    let path = "/api/requests/\(escaped(id))"
    let body: [UInt8]
    if let place = arguments.value("--admin") {
        if arguments.value("--stack") != nil { throw Exit.usage("--admin and --stack exclude each other") }
        body = try askAdmin(place, path)
    } else {
        let handle = try StackHandle.find(arguments.value("--stack"))
        try handle.requireRunning()
        if try handle.running().listen.isEmpty { throw Exit.usage("the stack '\(handle.name)' has no gateway") }
        body = try handle.ask("GET", path)
    }
    if arguments.has("--json") { return printOut(String(decoding: body, as: UTF8.self)) }
    printOut(try JSONDocument().parse(body) { root in (root.array ?? []).map(requestText).joined(separator: "\n\n") })
}

/// The sentence, then what it was decided from.
private func requestText(_ entry: JSONElement) -> String {
    func text(_ key: StaticString) -> String { entry[key]?.string ?? "" }
    var rows = [["at", text("at")]]
    for input in entry["inputs"]?.members ?? [] {
        rows.append([input.key.split(separator: "_").joined(separator: " "), input.value.string ?? ""])
    }
    rows.append(["otherwise if", text("flip")])
    return "\(text("sentence"))\n\n\(table(rows))"
}

/// For a path or a query: everything but letters, digits and `-._~` as `%XX`.
private func escaped(_ text: String) -> String {
    var out = ""
    for byte in text.utf8 {
        let isPlain = (byte | 32) &- 97 < 26 || byte &- 48 < 10 || [45, 46, 95, 126].contains(byte)
        if isPlain {
            out.unicodeScalars.append(Unicode.Scalar(byte))
        } else {
            out += "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
        }
    }
    return out
}
