import Basics

/// Recorded figures before they are laid on a grid: series of points, each of a service, a metric, and a replica where it is known.
///
/// Points may come in any order over the series. Within a series those out of order are sorted and counted; of two at one time the later in
/// the file stays, and is counted; values that are no figures (NaN, infinite, negative) are left out and counted. 16 bytes a point.
public struct Recording: Sendable {
    /// The meaning of a point's value.
    public enum Form: UInt8, Sendable, CaseIterable {
        /// The whole service, in the metric's own unit.
        case total
        /// One replica, in the metric's own unit.
        case replica
        /// The average of the replicas, in the metric's own unit.
        case average
        /// One replica, in percent of its request.
        case replicaPercent
        /// The average of the replicas, in percent of the request.
        case averagePercent

        var isPercent: Bool { self == .replicaPercent || self == .averagePercent }
        var isAverage: Bool { self == .average || self == .averagePercent }
    }

    struct Point: Sendable, Equatable {
        var at: Int64
        /// NaN: from here on nothing is known (`end`).
        var value: Double
    }

    struct Series: Sendable {
        let service: String
        let metric: String
        let form: Form
        var points: [Point] = []
        var isSorted = true
    }

    /// Points that could not be used, or not as they stood.
    public struct Oddity: Sendable, Equatable {
        public var count = 0
        /// The line of the first such point; 0 where there are no lines.
        public var firstLine = 0

        mutating func add(_ line: Int) {
            if count == 0 { firstLine = line }
            count += 1
        }
    }

    /// The end of the year 9999, in milliseconds since 1970: no time of a recording lies after it.
    static let latest: Int64 = 253_402_300_799_999
    /// Points in all; beyond this a recording is refused.
    public static let pointLimit = 50_000_000
    /// The most series. A recording with a name beyond these is refused: it is another kind of file.
    public static let seriesLimit = 100_000

    var series: [Series] = []
    private var indices: [[UInt8]: Int] = [:]
    public private(set) var pointCount = 0
    public private(set) var notNumbers = Oddity()
    public private(set) var negatives = Oddity()
    public private(set) var backwards = Oddity()
    /// What a source itself has said against its answer.
    var warnings: [String] = []
    /// Whether the source tells changes only (a journal): a figure then stands until the next one, however late that comes.
    public var tellsChangesOnly = false

    public init() {}

    public var services: [String] { Set(series.map(\.service)).sorted() }

    public func metrics(of service: String) -> [String] { Set(series.lazy.filter { $0.service == service }.map(\.metric)).sorted() }

    /// The series of these names, made where there is none. `key` is their bytes, for a quick look.
    mutating func index(_ key: [UInt8], _ make: () -> Series) throws(ReplayFailure) -> Int {
        if let known = indices[key] { return known }
        guard series.count < Recording.seriesLimit else {
            throw ReplayFailure(
                .tooLarge, "more than \(Recording.seriesLimit) series: is a column that names replicas taken for something else?")
        }
        indices[key] = series.count
        series.append(make())
        return series.count - 1
    }

    /// Adds a point of `metric`. A name that ends in `_percent` is a percentage of the request, and the metric is the name before that.
    public mutating func add(
        service: String, metric: String, replica: String?, form: Form? = nil, at time: WallTime, value: Double, line: Int = 0
    ) throws(ReplayFailure) {
        let key = Recording.key(service, metric, replica, form)
        let index = try index(key) { Recording.series(service, metric, hasReplica: replica != nil, form) }
        try add(to: index, time.milliseconds, value, line)
    }

    private static func key(_ service: String, _ metric: String, _ replica: String?, _ form: Form?) -> [UInt8] {
        Array("\(service)\0\(metric)\0\(replica ?? "\0\(form?.rawValue ?? 0)")".utf8)
    }

    /// Says that from `time` on nothing is known of a metric that is recorded without replicas, until the next point of it.
    mutating func end(service: String, metric: String, at time: WallTime) throws(ReplayFailure) {
        for form in Form.allCases {
            guard let index = indices[Recording.key(service, metric, nil, form)] else { continue }
            try append(.nan, to: index, time.milliseconds, 0)
        }
    }

    static func series(_ service: String, _ metric: String, hasReplica: Bool, _ form: Form? = nil) -> Series {
        let suffix = "_percent"
        let isPercent = metric.hasSuffix(suffix) && metric.utf8.count > suffix.utf8.count
        let name = isPercent ? String(metric.dropLast(suffix.count)) : metric
        let own: Form = hasReplica ? (isPercent ? .replicaPercent : .replica) : (isPercent ? .averagePercent : .total)
        return Series(service: service, metric: name, form: form ?? own)
    }

    mutating func add(to index: Int, _ at: Int64, _ value: Double, _ line: Int) throws(ReplayFailure) {
        guard value.isFinite else { return notNumbers.add(line) }
        guard value >= 0 else { return negatives.add(line) }
        try append(value, to: index, at, line)
    }

    private mutating func append(_ value: Double, to index: Int, _ at: Int64, _ line: Int) throws(ReplayFailure) {
        guard pointCount < Recording.pointLimit else {
            throw ReplayFailure(.tooLarge, "more than \(Recording.pointLimit) points: replay a shorter time")
        }
        // Within the years that can be written, so that no difference of two times overflows.
        let at = min(max(at, -Recording.latest), Recording.latest)
        if let last = series[index].points.last, at < last.at {
            series[index].isSorted = false
            backwards.add(line)
        }
        series[index].points.append(Point(at: at, value: value))
        pointCount += 1
    }

    /// Notes about what is odd in the recording, for people; empty when nothing is.
    public var notes: [String] {
        var out: [String] = []
        func note(_ oddity: Oddity, _ what: String) {
            guard oddity.count > 0 else { return }
            let values = oddity.count == 1 ? "1 value" : "\(oddity.count) values"
            out.append("\(what): \(values)\(oddity.firstLine > 0 ? " (the first in line \(oddity.firstLine))" : "")")
        }
        note(notNumbers, "left out because they are no finite numbers")
        note(negatives, "left out because they are negative")
        note(backwards, "put in order because they are earlier than the one before")
        return out + warnings
    }
}

extension Recording.Series {
    /// In order of time, one point a moment (of several the later in the file). Returns how many that left out.
    mutating func tidy() -> Int {
        if !isSorted {
            // The sort of the standard library keeps the order of equals: the later in the file stays the later.
            points.sort { $0.at < $1.at }
            isSorted = true
        }
        var kept = 0
        for index in points.indices {
            if kept > 0, points[kept - 1].at == points[index].at { kept -= 1 }
            points[kept] = points[index]
            kept += 1
        }
        let lost = points.count - kept
        points.removeLast(lost)
        return lost
    }

    /// Milliseconds between neighbours, the median of the first ten thousand; nil for less than two points.
    var usualDistance: Int64? {
        guard points.count > 1 else { return nil }
        let distances = (1..<min(points.count, 10_001)).map { points[$0].at - points[$0 - 1].at }.sorted()
        return distances[distances.count / 2]
    }

    /// A counter's points as what it grew in a second, up to each. A counter that fell was reset, and has grown by what it shows since.
    func rates(longest: Int64) -> (points: [Recording.Point], resets: Int) {
        var out: [Recording.Point] = [], resets = 0
        out.reserveCapacity(points.count)
        for index in points.indices.dropFirst() {
            let before = points[index - 1], now = points[index], elapsed = now.at - before.at
            if now.value < before.value { resets += 1 }
            guard elapsed <= longest else { continue }
            let growth = now.value < before.value ? now.value : now.value - before.value
            out.append(Recording.Point(at: now.at, value: growth * 1000 / Double(elapsed)))
        }
        return (out, resets)
    }
}
