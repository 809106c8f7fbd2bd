import Autoscaling
import Basics
import Drawing
import Glibc
import JSONCoding
import Observability
import Replaying
import StackModel

let replayVerb = Verb(
    name: "replay", summary: "a recorded load under a policy, or under two side by side",
    help: """
        usage: muster replay FILE --policy STACK [--against STACK2] [options]
               muster replay --prometheus URL --query METRIC=QUERY --from TIME --policy STACK [options]
               muster replay --example > week.csv

        Runs the scale: policy of a stack file over a recorded load, as the autoscaler would have decided at every step:
        replica-hours, minutes of overload, flaps, the worst minute, and what held the size. It starts nothing and
        changes nothing.

        FILE is a table with the columns time,service,metric,value and replica where it is known (- reads standard
        input), or a journal as muster why --json writes it. Metrics are named as in scale:. cpu is in cores, memory in
        bytes, cpu_percent in percent of the request, names in _total are counters; without a replica a value is the
        whole service's; replicas is how many there were.

          --against STACK2    another policy, side by side
          --service NAME      only this one; default: every service that both know
          --step TIME         default: scale.every
          --start-time TIME   from start to ready; default 10s
          --slow-start TIME   a replica's capacity grows over this after it is ready
          --capacity METRIC=AMOUNT
                              what one replica carries: cpu=500m, requests=120; default: its request, or its target and the tolerance
          --saturates         a replica's figures show at most its capacity
          --average METRIC    values without a replica are averages: times the recorded replicas
          --initial N         replicas at the beginning; default: as recorded, or as the targets ask for
          --explain TIME      the decision of that moment in full
          --report FILE.html  a page with the chart, without scripts; --svg FILE.svg the chart alone
          --json              for programs
          --prometheus URL    http://HOST:PORT; --query METRIC=QUERY for each metric, --from and --to (default now) as a
                              time or as 7d

        example:
          muster replay --example > week.csv
          muster replay week.csv --policy muster.yaml --against wider.yaml --report week.html
        """,
    flags: ["--json", "--example", "--saturates"],
    options: [
        "--policy", "--against", "--service", "--step", "--start-time", "--slow-start", "--capacity", "--average", "--initial", "--explain",
        "--report", "--svg",
        "--prometheus", "--query", "--from", "--to",
    ]
) { arguments in
    if arguments.has("--example") { return ExampleWeek().csv.withUnsafeBytes { writeAll(1, $0) } }
    try ReplayRun(arguments).tell()
}

/// One call of the verb.
private struct ReplayRun {
    private let arguments: Arguments
    private let first: ReplayPolicies
    private let second: ReplayPolicies?
    private let assumptions: ReplayAssumptions

    init(_ arguments: Arguments) throws {
        self.arguments = arguments
        guard let file = arguments.value("--policy") else {
            throw Exit.usage("which policy? --policy STACK names a stack file whose services have scale:")
        }
        first = try ReplayPolicies(file)
        second = try arguments.value("--against").map { try ReplayPolicies($0) }
        assumptions = try ReplayAssumptions(arguments)
    }

    // MARK: what to replay

    private func step(_ service: ServiceSpec) throws(Exit) -> Duration {
        guard let text = arguments.value("--step") else { return service.scaling?.period ?? .seconds(15) }
        guard let step = Duration(text: text), (Duration.seconds(1)...Duration.seconds(3600)).contains(step) else {
            throw .usage("--step: '\(text)' is not from 1s to 1h")
        }
        return step
    }

    /// Those that the policies and the recording know.
    private func services(in recording: Recording) throws(Exit) -> [ServiceSpec] {
        let declared = first.services.filter { one in second == nil || second!.service(one.name) != nil }
        if let wanted = arguments.value("--service") {
            guard let found = declared.first(where: { $0.name == wanted }) else {
                let hint = nearestWord(to: wanted, in: declared.map(\.name)).map { "; did you mean '\($0)'?" } ?? ""
                throw .usage("--service: no service '\(wanted)' is scaled in \(files)\(hint)")
            }
            return [found]
        }
        let known = Set(recording.services), both = declared.filter { known.contains($0.name) }
        guard !both.isEmpty else {
            throw .usage(
                "the recording knows of \(listed(recording.services)), and \(files) scale\(second == nil ? "s" : "") "
                    + "\(listed(declared.map(\.name))): nothing is in both"
            )
        }
        return both
    }

    private var files: String { second.map { "\(first.file) and \($0.file)" } ?? first.file }

    private func listed(_ names: [String]) -> String {
        names.isEmpty ? "no service" : names.prefix(5).joined(separator: ", ") + (names.count > 5 ? " and \(names.count - 5) more" : "")
    }

    /// Names that tell the policies apart: the files' own, or with their folders where those are the same.
    private var names: (String, String) {
        func own(_ path: String) -> String { String(path.split(separator: "/").last ?? Substring(path)) }
        guard let second else { return (own(first.file), "") }
        return own(first.file) == own(second.file) ? (first.file, second.file) : (own(first.file), own(second.file))
    }

    // MARK: replaying

    private func policy(_ service: ServiceSpec, _ name: String) -> ReplayPolicy {
        let spec = service.scaling!
        return ReplayPolicy(name, spec.policy, floors: spec.floors, offset: spec.offset, forecastAhead: spec.forecast)
    }

    /// The service's trace, and each policy with the model it is replayed with.
    private func prepare(_ service: ServiceSpec, _ recording: Recording) throws -> (
        trace: LoadTrace, runs: [(ReplayPolicy, ReplicaModel)], notes: [String]
    ) {
        let rules = DemandRules(step: try step(service), averages: assumptions.averages, requests: ReplayAssumptions.requests(service))
        let trace: LoadTrace
        do throws(ReplayFailure) { trace = try recording.trace(of: service.name, rules) } catch { throw Exit.usage("\(error)") }
        let other = second?.service(service.name)
        var runs: [(ReplayPolicy, ReplicaModel)] = [], notes: [String] = []
        for (spec, name, beside) in [(service, names.0, other)] + (other.map { [($0, names.1, service)] } ?? []) {
            let (known, leftOut) = policy(spec, name).measured(in: trace)
            if known.scaling.metrics.isEmpty {
                throw Exit.usage(
                    "\(name) scales \(service.name) by \(listed(leftOut)), and of these nothing is recorded: the recording has "
                        + "\(listed(trace.series.map(\.metric)))"
                )
            }
            if !leftOut.isEmpty { notes.append("\(name) scales by \(listed(leftOut)) too, of which nothing is recorded: replayed without") }
            let model = assumptions.model(spec, known.scaling, beside: beside?.scaling?.policy)
            runs.append((known, model))
            if runs.count == 1 { notes += assumptions.notes(spec, model) }
        }
        return (trace, runs, notes)
    }

    func tell() throws {
        let began = MonotonicTime.now
        let source = try ReplaySource(arguments, service: soleService, step: step(first.services[0]))
        let services = try services(in: source.recording)
        let prepared = try services.map { try prepare($0, source.recording) }
        if let text = arguments.value("--explain") { return try explain(text, prepared) }
        let read = MonotonicTime.now
        let sections = try prepared.map { one in
            let runs = try one.runs.map { policy, model in
                ReplayPicture.Run(policy, model, try run(one.trace, policy, model))
            }
            let comparison = runs.count == 2 ? Comparison(runs[0].outcome, runs[1].outcome) : nil
            return ReplaySection(ReplayPicture(one.trace, runs), comparison, notes: one.notes)
        }
        let took = MonotonicTime.now - read
        if let path = arguments.value("--report") {
            let title = "Replay: " + sections.map(\.picture.trace.service).joined(separator: ", ")
            try write(HTMLReport(title: title, sections.map(\.report)).text, to: path)
        }
        if let path = arguments.value("--svg") {
            guard sections.count == 1 else { throw Exit.usage("--svg draws one service; --service names it") }
            try write(SVGChart(sections[0].picture.chart).file, to: path)
        }
        if arguments.has("--json") {
            var json = JSONWriter()
            json.beginObject()
            json.member("took_ms", rounded(took))
            json.member("read_ms", rounded(read - began))
            json.key("services")
            json.beginArray()
            for section in sections { ReplayJSON.write(section, to: &json) }
            json.endArray()
            json.endObject()
            return printOut(json.text)
        }
        printOut(sections.map(text).joined(separator: "\n\n"))
    }

    private func run(_ trace: LoadTrace, _ policy: ReplayPolicy, _ model: ReplicaModel) throws(Exit) -> ReplayOutcome {
        do throws(ReplayFailure) { return try Replay.bounded(trace, policy, model, initial: assumptions.initial) } catch {
            throw .usage("\(trace.service): \(error)")
        }
    }

    /// Milliseconds to a hundredth.
    private func rounded(_ duration: Duration) -> Double { Double(duration.nanoseconds / 10_000) / 100 }

    /// Whom the figures of a Prometheus are about.
    private func soleService() throws -> String {
        if let name = arguments.value("--service") { return name }
        guard first.services.count == 1 else {
            throw Exit.usage("whose figures are they? --service names one of \(listed(first.services.map(\.name)))")
        }
        return first.services[0].name
    }

    private func write(_ text: String, to path: String) throws(Exit) {
        do throws(SystemError) { try Files.replace(path, with: Array(text.utf8)) } catch { throw .failed("\(error)") }
        printError("wrote \(path)")
    }

    // MARK: telling

    private func text(_ section: ReplaySection) -> String {
        let picture = section.picture, trace = picture.trace
        var out = "\(trace.service), \(period(trace))\n\n" + table(ReplayTable.rows(picture.runs.map(\.outcome)))
        if let comparison = section.comparison {
            out += "\n\n\(comparison.sentence)\n\(comparison.difference)"
        } else if let outcome = picture.runs.first?.outcome {
            out += "\n\n\(outcome.policy): \(outcome.advice)."
        }
        out +=
            "\n\n"
            + TerminalChart(picture.chart, width: screenWidth, isColoured: isatty(1) == 1 && (environmentValue("NO_COLOR") ?? "").isEmpty)
            .text
            + "\n"
        for one in trace.series { out += "\n  demand of \(one.metric): \(one.origin)" }
        for note in section.notes + trace.notes { out += "\n  note: \(note)" }
        return out
    }

    private func period(_ trace: LoadTrace) -> String {
        func minute(_ time: WallTime) -> String {
            let text = CalendarTime.render(time)
            return "\(text.prefix(10)) \(text.dropFirst(11).prefix(5))"
        }
        return "\(minute(trace.start)) to \(minute(trace.time(of: trace.count))) UTC, \(trace.count) steps of \(trace.step.brief)"
    }

    /// Of the terminal; 100 where there is none.
    private var screenWidth: Int {
        var size = winsize()
        guard ioctl(1, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 100 }
        return Int(size.ws_col)
    }

    // MARK: one decision

    private func explain(_ text: String, _ prepared: [(trace: LoadTrace, runs: [(ReplayPolicy, ReplicaModel)], notes: [String])]) throws {
        var entries: [(policy: String, entry: Journal.Entry)] = []
        for one in prepared {
            guard let time = try ReplaySource.moment(text, "--explain", before: one.trace.time(of: one.trace.count)) else { continue }
            for (policy, model) in one.runs {
                let found: (at: WallTime, record: DecisionRecord)?
                do throws(ReplayFailure) {
                    found = try Replay.boundedDecision(at: time, of: one.trace, policy, model, initial: assumptions.initial)
                } catch { throw Exit.usage("\(one.trace.service): \(error)") }
                guard let (at, record) = found else {
                    throw Exit.usage("--explain: \(CalendarTime.render(time)) lies outside \(period(one.trace))")
                }
                entries.append((policy.name, Journal.Entry(at: at, record: record)))
            }
        }
        if arguments.has("--json") { return printOut(String(decoding: Journal.json(entries.map(\.entry)), as: UTF8.self)) }
        printOut(entries.map { "\($0.policy), \(CalendarTime.render($0.entry.at))\n\(inFull($0.entry.record))" }.joined(separator: "\n\n"))
    }

    private func inFull(_ record: DecisionRecord) -> String {
        var rows = record.inputs.map { ["from", "\($0.name) = \($0.value)"] } + [["asked for", record.raw]]
        rows += record.constraints.map { [$0.name, "\($0.before) -> \($0.after), because \($0.reason)"] }
        rows += [["outcome", record.outcome], ["otherwise if", record.flip]]
        return "  \(record.sentence)\n\(table(rows))"
    }
}
