import Basics
import OpenTelemetry
import ProtobufCoding

/// A correlation as it is read: the spans and logs of one trace, of whichever services and instances, and what follows from them.
///
/// Everything here is a function of the stored bytes, so that whoever reads sees the same, in whatever order the pieces came. The buffers
/// point into those bytes and live as long as the closure of `StoredCorrelation.read`.
public struct Correlation {
    struct SpanEntry {
        let span: OTLP.Span
        let source: Int
        /// As the trace's tree has it: its place among the spans by start; nil for a root or where the parent is not here.
        var parent: Int?
    }

    struct LogEntry {
        let log: OTLP.LogRecord
        let source: Int
        let severity: Severity
        let time: Int64
    }

    /// Names in `services` and in `hosts`.
    static let names = 64

    let key: CorrelationKey
    let sources: [OTLP.Resource]
    /// By start, then by id.
    let spans: [SpanEntry]
    /// By time, then as they came.
    let logs: [LogEntry]
    let counts: (spans: Int, failedSpans: Int, logs: [Severity: Int])
    /// In call order: as the trace's tree meets them, then those that only logged, by time.
    let services: [String]
    let hosts: [String]
    /// Nanoseconds since 1970.
    let first: Int64
    let last: Int64
    /// The span without a parent; the earliest, if there are several.
    let root: Int?
    let pending: Int
    let revision: Int

    init(_ stored: StoredCorrelation, _ text: UnsafeRawBufferPointer) throws(ProtobufFailure) {
        var reading = Reading()
        try reading.read(text)
        reading.spans.sort { ($0.span.start, $0.span.spanID.number) < ($1.span.start, $1.span.spanID.number) }
        let order: [Int] = reading.logs.indices.sorted { (reading.logs[$0].time, $0) < (reading.logs[$1].time, $1) }
        let ordered = order.map { reading.logs[$0] }
        logs = ordered
        key = stored.key
        sources = reading.sources
        counts = stored.marks.tally
        pending = stored.pending
        revision = stored.revision
        let tree = Correlation.link(&reading.spans)
        spans = reading.spans
        root = reading.spans.firstIndex { $0.span.parentID.number == 0 }
        let visited: [Int] = tree.map { reading.spans[$0].source } + ordered.map(\.source)
        services = Correlation.distinct(visited.map { reading.sources[$0].service })
        hosts = Correlation.distinct(visited.map { reading.sources[$0].host })
        let starts: [Int64] = reading.spans.map { Int64(clamping: $0.span.start) } + ordered.map(\.time)
        let ends: [Int64] = reading.spans.map { Int64(clamping: $0.span.end) } + ordered.map(\.time)
        first = starts.min() ?? 0
        last = ends.max() ?? 0
    }

    /// In nanoseconds: the root's own time, or from first to last.
    var duration: Int64 {
        guard let root else { return last.subtractingReportingOverflow(first).partialValue }
        return Int64(clamping: spans[root].span.length)
    }

    /// The gravest decides: ERROR, FATAL and a failed span make `error`, WARN makes `warning`, anything else is `ok`.
    var status: String {
        let worst = counts.logs.keys.max() ?? .info
        return counts.failedSpans > 0 || worst >= .error ? "error" : worst == .warn ? "warning" : "ok"
    }

    /// What broke first: the earliest failed span below which no other failed one lies, or else the gravest log, the earliest of these.
    enum Critical {
        case span(Int)
        case log(Int)
    }

    var critical: Critical? {
        let failed = spans.indices.filter { spans[$0].span.status == 2 }
        let above = Set(failed.compactMap { spans[$0].parent })
        if let origin = failed.first(where: { !above.contains($0) }) ?? failed.first { return .span(origin) }
        guard let worst = logs.map(\.severity).max(), worst >= .error else { return nil }
        return logs.firstIndex { $0.severity == worst }.map { .log($0) }
    }

    /// At most five logs that tell the story: the gravest ones, in order of time.
    var exemplars: [Int] {
        let picked = logs.indices.sorted { (logs[$1].severity, $0) < (logs[$0].severity, $1) }.prefix(5)
        return picked.sorted()
    }

    // MARK: reading the pieces

    private struct Reading {
        var sources: [OTLP.Resource] = []
        var spans: [SpanEntry] = []
        var logs: [LogEntry] = []
        private var known: [UInt64: Int] = [:]
        private var source = 0

        mutating func read(_ text: UnsafeRawBufferPointer) throws(ProtobufFailure) {
            var reader = ProtobufReader(text)
            while let field = try reader.next() {
                switch field.number {
                case RecordGroup.Field.resource:
                    let hash = hash64(field.bytes)
                    if let place = known[hash] {
                        source = place
                    } else {
                        source = sources.count
                        known[hash] = source
                        sources.append(try OTLP.Resource(field.bytes))
                    }
                case RecordGroup.Field.span...RecordGroup.Field.log where sources.isEmpty:
                    throw ProtobufFailure("a record stands before any resource")
                case RecordGroup.Field.span: spans.append(SpanEntry(span: try OTLP.Span(field.bytes), source: source))
                case RecordGroup.Field.log:
                    let log = try OTLP.LogRecord(field.bytes)
                    logs.append(
                        LogEntry(
                            log: log, source: source, severity: Severity(number: log.severityNumber, text: log.severityText),
                            time: Int64(clamping: log.time != 0 ? log.time : log.observed)))
                default: break
                }
            }
        }
    }

    /// Finds each span's parent, and returns the order in which a walk through the tree meets the spans. Parents that are missing, or in a
    /// circle, make their children begin a tree of their own.
    private static func link(_ spans: inout [SpanEntry]) -> [Int] {
        var places: [UInt64: Int] = [:]
        for (i, entry) in spans.enumerated() where places[entry.span.spanID.number] == nil { places[entry.span.spanID.number] = i }
        var children: [[Int]] = Array(repeating: [], count: spans.count)
        var roots: [Int] = []
        for i in spans.indices {
            let parent = spans[i].span.parentID.number
            if parent != 0, let place = places[parent], place != i {
                spans[i].parent = place
                children[place].append(i)
            } else {
                roots.append(i)
            }
        }
        var order: [Int] = []
        var seen = [Bool](repeating: false, count: spans.count)
        func walk(from start: Int) {
            var stack = [start]
            while let next = stack.popLast() {
                if seen[next] { continue }
                seen[next] = true
                order.append(next)
                stack.append(contentsOf: children[next].reversed())
            }
        }
        for root in roots { walk(from: root) }
        for i in spans.indices where !seen[i] { walk(from: i) }
        return order
    }

    private static func distinct(_ names: [String]) -> [String] {
        var out: [String] = []
        for name in names where !name.isEmpty && out.count < Correlation.names && !out.contains(name) { out.append(name) }
        return out
    }
}

extension StoredCorrelation {
    /// Hands the correlation to `body`; nil when what is stored is none of ours.
    func read<T>(_ body: (Correlation) -> T) -> T? {
        text.withUnsafeBytes { bytes in (try? Correlation(self, bytes)).map(body) }
    }
}

extension UnsafeRawBufferPointer {
    /// Eight bytes as a number; 0 for an id that is missing.
    var number: UInt64 { count == 8 ? loadUnaligned(as: UInt64.self) : 0 }
}
