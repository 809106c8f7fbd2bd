import Basics
import EventLoops
import Glibc
import HTTP
import JSONCoding
import Observability
import Replaying

/// Where a load comes from: a recording in a file, or a range of a Prometheus.
struct ReplaySource {
    let recording: Recording
    /// For messages.
    let name: String

    /// What the command line asks for. `service` is who a Prometheus' figures are about.
    init(_ arguments: Arguments, service: () throws -> String, step: Duration) throws {
        if let place = arguments.value("--prometheus") {
            try arguments.atMost(0, "a file and --prometheus exclude each other")
            name = place
            recording = try ReplaySource.ask(place, arguments, service(), step)
            return
        }
        for option in ["--query", "--from", "--to"] where arguments.value(option) != nil {
            throw Exit.usage("\(option) is for --prometheus")
        }
        try arguments.atMost(1, "one recording")
        guard let path = arguments.positional.first else {
            throw Exit.usage("what is to be replayed? A recording (FILE.csv), or --prometheus URL")
        }
        name = path == "-" ? "standard input" : path
        do { recording = try ReplaySource.read(path) } catch let failure as ReplayFailure { throw Exit.usage("\(name): \(failure)") }
    }

    // MARK: files

    /// A journal begins with `[`, or with `{` where it is a file of a stack's folder; anything else is a table.
    private static func read(_ path: String) throws -> Recording {
        let descriptor = path == "-" ? 0 : open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw Exit.usage("\(SystemError("open \(path)"))") }
        defer { if descriptor != 0 { close(descriptor) } }
        var chunk = [UInt8](repeating: 0, count: 1 << 20), csv = CSVRecording(), journal: [UInt8]?, isFirst = true
        while true {
            let got = chunk.withUnsafeMutableBytes { Glibc.read(descriptor, $0.baseAddress, $0.count) }
            if got < 0 { throw Exit.failed("\(SystemError("read \(path)"))") }
            if got == 0 { break }
            if isFirst, chunk[..<got].first(where: { $0 > 32 }).map({ $0 == 91 || $0 == 123 }) == true { journal = [] }
            isFirst = false
            if journal == nil {
                try chunk.withUnsafeBytes { try csv.feed(UnsafeRawBufferPointer(rebasing: $0[..<got])) }
            } else {
                journal!.append(contentsOf: chunk[..<got])
                if journal!.count > JournalRecording.byteLimit { break }
            }
        }
        return try journal.map { try JournalRecording.read(try array($0)) } ?? csv.finish()
    }

    /// A journal of lines, as the supervisor writes it, as the array that `muster why --json` writes. Lines that cannot be read are told.
    private static func array(_ journal: [UInt8]) throws(Exit) -> [UInt8] {
        guard journal.first(where: { $0 > 32 }) == 123, journal.count <= JournalRecording.byteLimit else { return journal }
        var entries: [Journal.Entry] = [], skipped = 0
        let document = JSONDocument()
        for line in journal.split(separator: 10) {
            switch JournalLine.read(line, document) {
            case .decision(let entry, _): entries.append(entry)
            case .lost: continue
            case .otherVersion, .damaged: skipped += 1
            }
        }
        if skipped > 0 { printError("note: \(skipped) lines are damaged or of another version, and were passed over") }
        return Journal.json(entries)
    }

    // MARK: Prometheus

    private static func ask(_ place: String, _ arguments: Arguments, _ service: String, _ step: Duration) throws -> Recording {
        let queries = try arguments.all("--query").map { text in
            guard let query = PrometheusRange.split(text) else {
                throw Exit.usage("--query: '\(text)' is not METRIC=QUERY, such as 'cpu=sum(rate(process_cpu_seconds_total[1m]))'")
            }
            return query
        }
        guard !queries.isEmpty else { throw Exit.usage("--prometheus needs --query METRIC=QUERY, one for each metric of the policy") }
        let to = try moment(arguments.value("--to"), "--to", before: .now) ?? .now
        guard let from = try moment(arguments.value("--from"), "--from", before: to) else {
            throw Exit.usage("--prometheus needs --from: a time, or how long before --to, such as 7d")
        }
        guard from < to else { throw Exit.usage("--from lies after --to") }
        let steps = (to - from).nanoseconds / max(1, step.nanoseconds)
        guard steps <= LoadTrace.stepLimit, to - from <= .seconds(LoadTrace.mostDays * 86_400) else {
            throw Exit.usage(
                "from \(CalendarTime.render(from)) to \(CalendarTime.render(to)) are \(steps) steps of \(step.brief), and at most "
                    + "\(LoadTrace.stepLimit) in \(LoadTrace.mostDays / 365) years are replayed: take a longer --step or a shorter time")
        }
        let (endpoint, base) = try address(place)
        let ranges = queries.map { PrometheusRange(metric: $0.metric, query: $0.query, from: from, to: to, step: step) }
        return try blocking { loop in
            let client = HTTPClient(loop: loop, responseLimit: 256 << 20)
            var recording = Recording()
            for range in ranges {
                for target in range.targets(base: base) {
                    let answer: HTTPClientResponse
                    do { answer = try await client.send("GET", target, to: endpoint, timeout: .seconds(120)) } catch {
                        throw Exit.failed("no Prometheus answers at \(place) (\(error)); is the address right, and is it running?")
                    }
                    do { try range.read(answer.body, of: service, into: &recording) } catch {
                        throw Exit.failed("\(place) (status \(answer.status)): \(error)")
                    }
                }
            }
            return recording
        }
    }

    /// `http://HOST:PORT/base`, or without the scheme; the port is 9090 where none is told.
    private static func address(_ place: String) throws(Exit) -> (Endpoint, String) {
        if place.hasPrefix("https://") {
            throw .usage("--prometheus: only http:// is spoken here; reach it by a tunnel or a proxy on this machine")
        }
        let rest = place.hasPrefix("http://") ? place.dropFirst(7) : place[...]
        let host = rest.prefix { $0 != "/" }
        var base = String(rest.dropFirst(host.count))
        while base.hasSuffix("/") { base.removeLast() }
        let isPlain = base.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != 63 && $0 != 35 }
        guard isPlain, let endpoint = Endpoint(String(host), defaultPort: 9090) else {
            throw .usage("--prometheus: '\(place)' is no address, such as http://127.0.0.1:9090")
        }
        return (endpoint, base)
    }

    /// A time as RFC 3339 or in unix seconds, or a duration before `end`.
    static func moment(_ text: String?, _ option: String, before end: WallTime) throws(Exit) -> WallTime? {
        guard let text else { return nil }
        if let time = try? CalendarTime.parse(text) { return time }
        if let seconds = Double(text), seconds >= 0, seconds <= 253_402_300_799 {
            return WallTime(milliseconds: Int64(clamped: seconds * 1000))
        }
        if let ago = Duration(text: text) { return end + (.zero - ago) }
        throw .usage("\(option): '\(text)' is no time: write 2026-11-21T08:00:00Z, seconds since 1970, or how long before, such as 7d")
    }
}
