import Basics
import Synchronization

/// A number that only grows. `add` is one relaxed atomic addition: no lock, no allocation.
public final class Counter: Sendable {
    private let value = Atomic<Int>(0)
    init() {}
    public func add(_ amount: Int = 1) { value.wrappingAdd(amount, ordering: .relaxed) }
    public var current: Int { value.load(ordering: .relaxed) }
}

/// A number that goes up and down. Whole numbers only, which is all that queues and flags need; a fraction is
/// exported by a reading closure (`MetricsRegistry.gauge(_:_:read:)`).
public final class Gauge: Sendable {
    private let value = Atomic<Int>(0)
    init() {}
    public func set(_ new: Int) { value.store(new, ordering: .relaxed) }
    public func add(_ amount: Int) { value.wrappingAdd(amount, ordering: .relaxed) }
    public var current: Int { value.load(ordering: .relaxed) }
}

/// A distribution in fixed buckets (upper bounds, inclusive as Prometheus' `le`). `observe` is a search over
/// at most 20 bounds and two relaxed atomic additions: no lock, no allocation.
public final class Histogram: @unchecked Sendable {
    // @unchecked: `cells` is allocated once, freed in deinit, and only ever touched through its atomics.
    /// Bounds in nanoseconds.
    let bounds: [Int64]
    private let cells: UnsafeMutablePointer<Atomic<Int>>

    /// From 100 µs to 10 s in steps of about 2.5: the range between a Redis call and a client's patience.
    public static let latencyBounds: [Duration] = [
        .microseconds(100), .microseconds(250), .microseconds(500), .milliseconds(1), .microseconds(2500),
        .milliseconds(5), .milliseconds(10), .milliseconds(25), .milliseconds(50), .milliseconds(100),
        .milliseconds(250), .milliseconds(500), .seconds(1), .milliseconds(2500), .seconds(5), .seconds(10),
    ]

    init(bounds: [Duration]) {
        self.bounds = bounds.map(\.nanoseconds)
        cells = .allocate(capacity: bounds.count + 2)
        for i in 0..<bounds.count + 2 { (cells + i).initialize(to: Atomic<Int>(0)) }
    }

    deinit {
        cells.deinitialize(count: bounds.count + 2)
        cells.deallocate()
    }

    public func observe(nanoseconds: Int64) {
        var i = 0
        while i < bounds.count, nanoseconds > bounds[i] { i += 1 }
        cells[i].wrappingAdd(1, ordering: .relaxed)
        cells[bounds.count + 1].wrappingAdd(Int(nanoseconds), ordering: .relaxed)
    }

    public func observe(_ duration: Duration) { observe(nanoseconds: duration.nanoseconds) }

    /// The buckets' upper bounds, inclusive, ascending.
    public var upperBounds: [Duration] { bounds.map { .nanoseconds($0) } }

    /// The counts of the buckets (not cumulative; the last one counts what is above every bound), and the sum in nanoseconds.
    public func snapshot() -> (counts: [Int], sum: Int) {
        let counts = (0...bounds.count).map { cells[$0].load(ordering: .relaxed) }
        return (counts, cells[bounds.count + 1].load(ordering: .relaxed))
    }

    /// The value under which `share` (0…1) of the observations lie, interpolated in its bucket as Prometheus
    /// does; nil when there are none. Above the last bound it answers that bound.
    public func quantile(_ share: Double) -> Duration? {
        let (counts, _) = snapshot()
        let total = counts.reduce(0, +)
        guard total > 0 else { return nil }
        let rank = share * Double(total)
        var below = 0
        for (i, count) in counts.enumerated() {
            if Double(below + count) >= rank, count > 0 {
                guard i < bounds.count else { break }
                let low = i == 0 ? 0 : Double(bounds[i - 1])
                let part = (rank - Double(below)) / Double(count)
                return .nanoseconds(Int64(clamped: low + (Double(bounds[i]) - low) * part))
            }
            below += count
        }
        return .nanoseconds(bounds[bounds.count - 1])
    }
}

/// All the metrics of a process, and the page that shows them. Metrics are made at start (which takes a lock) and kept by the code that
/// counts; only `render` walks over all of them.
public final class MetricsRegistry: Sendable {
    private enum Cell: Sendable {
        case counter(Counter)
        case gauge(Gauge)
        case histogram(Histogram)
        case reading(@Sendable () -> Double)
    }

    private struct Family: Sendable {
        let kind: String
        let help: String
        private(set) var series: [(labels: String, cell: Cell)] = []
        private var places: [String: Int] = [:]

        init(kind: String, help: String) {
            self.kind = kind
            self.help = help
        }

        subscript(labels: String) -> Cell? { places[labels].map { series[$0].cell } }

        mutating func append(_ labels: String, _ cell: Cell) {
            places[labels] = series.count
            series.append((labels, cell))
        }
    }

    /// Series beyond this in one family are folded into one with `overflow="true"`, so that a label from
    /// outside can never exhaust the memory.
    public static let seriesLimit = 1000
    /// The same limit for labels that come from the configuration, which is bounded itself: a route's name, a backend's address.
    public static let configuredSeriesLimit = 100_000

    private let families = Mutex<[String: Family]>([:])

    public init() {}

    public func counter(
        _ name: String, _ help: String, labels: [(String, String)] = [], limit: Int = MetricsRegistry.seriesLimit
    ) -> Counter {
        let cell = series(name, help, kind: "counter", labels, limit) { .counter(Counter()) }
        guard case .counter(let counter) = cell else { preconditionFailure("\(name) is no counter") }
        return counter
    }

    public func gauge(
        _ name: String, _ help: String, labels: [(String, String)] = [], limit: Int = MetricsRegistry.seriesLimit
    ) -> Gauge {
        let cell = series(name, help, kind: "gauge", labels, limit) { .gauge(Gauge()) }
        guard case .gauge(let gauge) = cell else { preconditionFailure("\(name) is no gauge") }
        return gauge
    }

    /// Sets all series of a gauge at once: a series that is not among `values` is no longer on the page. At most `configuredSeriesLimit`
    /// series.
    public func setGauges(_ name: String, _ help: String, _ values: [(labels: [(String, String)], value: Int)]) {
        var family = Family(kind: "gauge", help: help)
        for (labels, value) in values.prefix(MetricsRegistry.configuredSeriesLimit) {
            let gauge = Gauge()
            gauge.set(value)
            family.append(MetricsRegistry.render(labels), .gauge(gauge))
        }
        let all = family
        families.withLock { $0[name] = all }
    }

    /// A gauge that is read when the page is asked for. `read` must not block and not use this registry.
    public func gauge(_ name: String, _ help: String, labels: [(String, String)] = [], read: @escaping @Sendable () -> Double) {
        _ = series(name, help, kind: "gauge", labels) { .reading(read) }
    }

    /// A counter that is read when the page is asked for, under the same rules; it must only grow.
    public func counter(_ name: String, _ help: String, labels: [(String, String)] = [], read: @escaping @Sendable () -> Double) {
        _ = series(name, help, kind: "counter", labels) { .reading(read) }
    }

    /// A histogram of seconds; `name` ends in `_seconds`.
    public func histogram(
        _ name: String, _ help: String, labels: [(String, String)] = [], bounds: [Duration] = Histogram.latencyBounds,
        limit: Int = MetricsRegistry.seriesLimit
    ) -> Histogram {
        let cell = series(name, help, kind: "histogram", labels, limit) { .histogram(Histogram(bounds: bounds)) }
        guard case .histogram(let histogram) = cell else { preconditionFailure("\(name) is no histogram") }
        return histogram
    }

    private func series(
        _ name: String, _ help: String, kind: String, _ labels: [(String, String)], _ limit: Int = MetricsRegistry.seriesLimit,
        make: () -> Cell
    ) -> Cell {
        families.withLock { families in
            // Taken out, so that it is changed in its place and not in a copy.
            var family = families.removeValue(forKey: name) ?? Family(kind: kind, help: help)
            defer { families[name] = family }
            precondition(family.kind == kind, "\(name) was registered as a \(family.kind)")
            var text = MetricsRegistry.render(labels)
            if let known = family[text] { return known }
            if family.series.count >= limit {
                text = "overflow=\"true\""
                if let known = family[text] { return known }
            }
            let cell = make()
            family.append(text, cell)
            return cell
        }
    }

    private static func render(_ labels: [(String, String)]) -> String {
        labels.map { name, value in
            let escaped = value.flatMap { c -> String in
                switch c {
                case "\\": "\\\\"
                case "\"": "\\\""
                case "\n": "\\n"
                default: String(c)
                }
            }
            return "\(name)=\"\(String(escaped))\""
        }.joined(separator: ",")
    }

    /// The page in Prometheus' text format 0.0.4, families by name.
    public func render() -> String {
        var out = ""
        let snapshot = families.withLock { $0 }
        for (name, family) in snapshot.sorted(by: { $0.key < $1.key }) where !family.series.isEmpty {
            out += "# HELP \(name) \(family.help)\n# TYPE \(name) \(family.kind)\n"
            for (labels, cell) in family.series {
                let braces = labels.isEmpty ? "" : "{\(labels)}"
                switch cell {
                case .counter(let counter): out += "\(name)\(braces) \(counter.current)\n"
                case .gauge(let gauge): out += "\(name)\(braces) \(gauge.current)\n"
                case .reading(let read): out += "\(name)\(braces) \(MetricsRegistry.text(read()))\n"
                case .histogram(let histogram): render(name, labels, histogram, into: &out)
                }
            }
        }
        return out
    }

    /// As the format writes a number.
    private static func text(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        return value.isInfinite ? (value > 0 ? "+Inf" : "-Inf") : "\(value)"
    }

    private func render(_ name: String, _ labels: String, _ histogram: Histogram, into out: inout String) {
        let (counts, sum) = histogram.snapshot()
        let prefix = labels.isEmpty ? "" : labels + ","
        var total = 0
        for (i, count) in counts.enumerated() {
            total += count
            let bound = i < histogram.bounds.count ? "\(Double(histogram.bounds[i]) / 1e9)" : "+Inf"
            out += "\(name)_bucket{\(prefix)le=\"\(bound)\"} \(total)\n"
        }
        let braces = labels.isEmpty ? "" : "{\(labels)}"
        out += "\(name)_sum\(braces) \(Double(sum) / 1e9)\n\(name)_count\(braces) \(total)\n"
    }
}
