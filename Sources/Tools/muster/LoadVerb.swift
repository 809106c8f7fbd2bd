import Basics
import EventLoops
import Glibc
import LoadPlanning
import Loading
import StackFile
import StackModel
import Synchronization

let loadVerb = Verb(
    name: "load", summary: "put load on a service, and hold it against what is expected",
    help: """
        usage: muster load SCENARIO [options]
               muster load URL --for TIME (--rate N/s | --users N [--think TIME]) [options]

        Sends the requests of a scenario (a YAML file) or of one URL. With a rate they come whether others were answered
        or not (open model), and latencies count from when a request was due; users wait for their answers (closed
        model). It changes what the requests change.

          --expect LIST   what must hold, such as p95<150ms,errors<0.1%: p50 p90 p95 p99 p99.9 max mean (times), errors
                          (a share), rate (answers a second), each with < <= > >=. In place of the scenario's. Status 1
                          when one does not hold
          --target URL    in place of the scenario's; without either, the gateway of the running stack (--stack FILE
                          names another)
          --seed N        of all that is random; the same seed sends the same
          --json          the whole result, second by second
          --anywhere      also to another machine than this one
          --render k6     prints the scenario as a script for k6 and sends nothing; -o FILE writes it there

        Progress goes to stderr. SIGINT ends it early, with the result so far. An answer with a status of 400 or above
        is an error.

        examples:
          muster load stacks/correlation/load/normal.yaml
          muster load http://127.0.0.1:8080/api/correlations --rate 500/s --for 30s --expect 'p95<50ms,errors<0.1%'
        """,
    flags: ["--json", "--anywhere"],
    options: [
        "--expect", "--target", "--seed", "--rate", "--users", "--think", "--for", "--render", "-o", "--stack", "--connections",
        "--timeout",
    ]
) { arguments in
    try arguments.atMost(1, "one scenario or URL")
    guard let what = arguments.positional.first else { throw Exit.usage("what? A scenario or a URL") }
    let isURL = what.hasPrefix("http://") || what.hasPrefix("https://")
    let scenario = try (isURL ? quickScenario(what, arguments) : fileScenario(what, arguments))
    let target = try loadTarget(scenario, arguments)
    if let tool = arguments.value("--render") { return try render(scenario, target, tool, arguments) }
    if arguments.value("-o") != nil { throw Exit.usage("-o goes with --render") }
    if !target.isLoopback, !arguments.has("--anywhere") {
        throw Exit.usage(
            "\(target) is not this machine, and a load test aimed at somebody else by mistake is an accident: say --anywhere if it is meant"
        )
    }
    try conduct(scenario, target, asJSON: arguments.has("--json"))
}

// MARK: what is sent

private func fileScenario(_ path: String, _ arguments: Arguments) throws -> Scenario {
    for option in ["--rate", "--users", "--think", "--for", "--connections", "--timeout"] where arguments.value(option) != nil {
        throw Exit.usage("\(option) is for a URL; a scenario says it in the file")
    }
    let text: [UInt8]
    do throws(SystemError) { text = try Files.read(path, limit: Stack.sizeLimit) } catch { throw Exit.usage("\(error)") }
    let folder = Files.folder(of: path)
    do {
        let scenario = try Scenario.read(text, path: path) { name throws(SystemError) in
            // One byte more than is allowed, so that the reader can say what is allowed.
            try Files.read(name.hasPrefix("/") ? name : "\(folder)/\(name)", limit: LoadText.mostBytes + 1)
        }
        return scenario.changing(expectations: try expectations(arguments), seed: try seed(arguments))
    } catch let problems as Problems { throw Exit.usage("the file is wrong:\n\(problems)") }
}

private func quickScenario(_ url: String, _ arguments: Arguments) throws(Exit) -> Scenario {
    let target: LoadTarget
    do throws(LoadTarget.Failure) { target = try LoadTarget(url) } catch { throw .usage(error.message) }
    let request: LoadText
    do throws(LoadText.Failure) { request = try LoadText(target.path) } catch { throw .usage("'\(url)': \(error.message)") }
    guard let time = arguments.value("--for") else { throw .usage("for how long? Such as --for 30s") }
    guard let duration = Duration(text: time), duration >= .milliseconds(100), duration <= Scenario.longest else {
        throw .usage("--for: expected 100ms to 24h, such as 30s, found '\(time)'")
    }
    let timeout = try arguments.value("--timeout").map { text throws(Exit) in
        guard let value = Duration(text: text), value >= .milliseconds(1), value <= .seconds(600) else {
            throw .usage("--timeout: expected 1ms to 10m, found '\(text)'")
        }
        return value
    }
    var connections = Scenario.defaultConnections
    if let text = arguments.value("--connections") {
        guard let count = Int(text), (1...Scenario.mostConnections).contains(count) else {
            throw .usage("--connections: expected a number from 1 to \(Scenario.mostConnections), found '\(text)'")
        }
        connections = count
    }
    return Scenario(
        target: LoadTarget(host: target.host, port: target.port), requests: [LoadRequest("GET", request)],
        phases: [try quickPhase(arguments, duration)],
        expectations: try expectations(arguments) ?? [], seed: try seed(arguments) ?? 1, timeout: timeout ?? Scenario.defaultTimeout,
        connections: connections)
}

private func quickPhase(_ arguments: Arguments, _ duration: Duration) throws(Exit) -> LoadPhase {
    switch (arguments.value("--rate"), arguments.value("--users")) {
    case (let text?, nil):
        guard let rate = arrivalRate(text) else {
            throw .usage("--rate: expected a rate up to \(Int(clamped: mostArrivals))/s such as 500/s, found '\(text)'")
        }
        if arguments.value("--think") != nil { throw .usage("--think goes with --users: requests of a rate have no users who think") }
        return .hold(.arrivals, rate, for: duration)
    case (nil, let text?):
        guard let users = Int(text), (1...mostUsers).contains(users) else {
            throw .usage("--users: expected a number from 1 to \(mostUsers), found '\(text)'")
        }
        var think = Duration.zero ... .zero
        if let text = arguments.value("--think") {
            guard let range = thinkTime(text) else { throw .usage("--think: expected a time such as 1s or 500ms..1500ms, found '\(text)'") }
            think = range
        }
        return .hold(.users, Double(users), for: duration, think: think)
    default: throw .usage("give one of --rate and --users: how much?")
    }
}

private func expectations(_ arguments: Arguments) throws(Exit) -> [LoadExpectation]? {
    guard let text = arguments.value("--expect") else { return nil }
    do throws(LoadExpectation.Failure) { return try LoadExpectation.parse(text) } catch { throw .usage("--expect '\(text)' \(error)") }
}

private func seed(_ arguments: Arguments) throws(Exit) -> UInt64? {
    guard let text = arguments.value("--seed") else { return nil }
    guard let seed = UInt64(text) else { throw .usage("--seed: expected a whole number, found '\(text)'") }
    return seed
}

private func loadTarget(_ scenario: Scenario, _ arguments: Arguments) throws -> LoadTarget {
    if let text = arguments.value("--target") {
        do throws(LoadTarget.Failure) {
            let target = try LoadTarget(text)
            if target.path == "/" { return target }
        } catch { throw Exit.usage("--target \(error.message)") }
        throw Exit.usage("--target '\(text)': the path belongs to the requests")
    }
    if let target = scenario.target { return target }
    let handle = try StackHandle(arguments.value("--stack"))
    guard let gateway = try handle.stack.gateway else {
        throw Exit.usage("the stack '\(handle.name)' has no gateway to aim at: say --target http://host:port")
    }
    if arguments.value("--render") == nil { try handle.requireRunning() }
    let host = ["0.0.0.0", "::"].contains(gateway.listen.host) ? "127.0.0.1" : gateway.listen.host
    return LoadTarget(host: host, port: gateway.listen.port)
}

private func render(_ scenario: Scenario, _ target: LoadTarget, _ tool: String, _ arguments: Arguments) throws {
    guard tool == "k6" else { throw Exit.usage("--render \(tool): expected k6") }
    let refusals = scenario.k6Refusals
    guard refusals.isEmpty else {
        throw Exit.usage("k6 cannot run this scenario:\n\(refusals.map(\.description).joined(separator: "\n"))")
    }
    let script = scenario.k6Script(target: target)
    guard let path = arguments.value("-o") else { return writeOut(script) }
    do throws(SystemError) { try Files.replace(path, with: Array(script.utf8)) } catch { throw Exit.failed("\(error)") }
}

private func writeOut(_ text: String) {
    var text = text
    text.withUTF8 { writeAll(1, UnsafeRawBufferPointer($0)) }
}

// MARK: the run

/// What a run came to, handed from its task to the thread that waits for it.
private final class LoadEnd: Sendable {
    let result = Mutex<Result<LoadReport, LoadFailure>?>(nil)
}

private func conduct(_ scenario: Scenario, _ target: LoadTarget, asJSON: Bool) throws {
    guard let endpoint = Endpoint(target.authority) else { throw Exit.usage("'\(target)' is no address") }
    let loop = try EventLoop()
    let progress = LoadProgress(scenario, isTerminal: isatty(2) == 1)
    let run = LoadRun(scenario, to: endpoint, on: loop) { progress.tell($0) }
    let watch = try SignalWatch([SIGINT, SIGTERM], loop: loop) { _ in run.stop() }
    let outcome = LoadEnd()
    printError("load \(scenario.name) on \(target): \(scenario.phases.map(\.description).joined(separator: ", "))")
    let begin = LoopBound(watch, on: loop)
    loop.execute {
        try? begin.value.start()
        // Ends with the run; the loop ends then.
        Task(executorPreference: loop) {
            do throws(LoadFailure) {
                let report = try await run.run()
                outcome.result.withLock { $0 = .success(report) }
            } catch { outcome.result.withLock { $0 = .failure(error) } }
            loop.stop()
        }
    }
    loop.run()
    progress.end()
    let report: LoadReport
    switch outcome.result.withLock({ $0 }) {
    case .success(let value): report = value
    case .failure(let failure): throw Exit.failed(failure.description)
    case nil: throw Exit.failed("the run was cut off")
    }
    let verdict = LoadVerdict(scenario.expectations, of: report)
    printOut(asJSON ? report.json(verdict, target: target.description) : loadTable(report, verdict))
    if let unmeasured = verdict.unmeasured { throw Exit.failed("the run \(unmeasured)") }
    if report.ended > 0, report.statuses.isEmpty { throw Exit.failed("no request was answered: \(report.firstFailure ?? "")") }
    if !verdict.holds { throw Exit.failed(verdict.findings.filter { !$0.holds }.map(\.sentence).joined(separator: "\n")) }
}
