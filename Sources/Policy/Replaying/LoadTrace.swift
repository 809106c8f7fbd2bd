import Basics

/// The load of one service over time: for each metric what was asked of all replicas together, at every step.
///
/// Load is what was asked, whatever the size was that answered it. How a metric's demand comes from what was recorded:
/// - figures of replicas are summed over the replicas that had one at the time;
/// - a figure without a replica is the whole service's, as it stands;
/// - an average of the replicas (said so by the caller, or by a journal) is multiplied by the recorded series `replicas`;
/// - a percentage of the request (`cpu_percent`) is multiplied by the request, and then as above: summed, or times `replicas`;
/// - a counter (`…_total`) becomes its growth in a second; when it falls it was reset.
///
/// A figure stands until the next of its series, when that comes within 3 usual distances of the series (or 3 steps, where steps are
/// longer); else the time in between is unknown but for one distance. Nothing is interpolated.
public struct LoadTrace: Sendable, Equatable {
    public struct Series: Sendable, Equatable {
        public let metric: String
        /// The demand at every step, in cores, bytes, or the metric's own unit; NaN where nothing is known.
        public let demand: [Double]
        /// The way in which the demand was made from the recorded figures: `sum of replicas`.
        public let origin: String
        /// The number of steps of which nothing is known.
        public let unknown: Int
    }

    public let service: String
    public let start: WallTime
    public let step: Duration
    public let series: [Series]
    /// The recorded number of replicas at every step; NaN where it is not recorded, empty when it never was.
    public let recordedSize: [Double]
    public let count: Int
    /// Notes about what is odd in the recording, for people.
    public let notes: [String]

    public init(
        service: String, start: WallTime, step: Duration, series: [Series], recordedSize: [Double] = [], notes: [String] = []
    ) {
        self.service = service
        self.start = start
        self.step = step
        self.series = series
        self.recordedSize = recordedSize
        self.notes = notes
        count = max(series.map(\.demand.count).max() ?? 0, recordedSize.count)
    }

    public func time(of index: Int) -> WallTime { start + step.multipliedClamped(by: index) }
    public var length: Duration { step.multipliedClamped(by: count) }

    /// The index of the series for a policy's metric of this name: the series of that name, or of the counter behind it, or of the counter's
    /// growth under its name without `_total`.
    public func series(of metric: String) -> Int? {
        series.firstIndex { $0.metric == metric } ?? series.firstIndex { $0.metric == metric + "_total" }
            ?? series.firstIndex { $0.metric != metric && $0.metric == LoadTrace.withoutTotal(metric) }
    }

    /// A counter's name before `_total`, by which its growth in a second is known; any other name as it is.
    public static func withoutTotal(_ metric: String) -> String { metric.hasSuffix("_total") ? String(metric.dropLast(6)) : metric }

    /// The most steps of a trace: four years of 15 seconds have fewer, so a trace with more is another mistake.
    public static let stepLimit = 10_000_000
    /// The most figures of a trace, steps times metrics: at 8 bytes each, 800 MB.
    public static let figureLimit = 100_000_000
    /// The most work for one trace: figures of replicas that are added up on the steps (some seconds), and replicas that are looked at
    /// while the trace is replayed (some minutes).
    public static let workLimit = 1_000_000_000
    /// The longest recording in days: a century. In a longer one two points are of two units or one is a mistake, and nanoseconds of the
    /// whole would not fit in 64 bits.
    public static let mostDays: Int64 = 36_525
    /// A figure stands at most this many usual distances for those that are missing after it (<=). Ours: two lost scrapes are jitter, three
    /// in a row are an outage.
    public static let bridgedDistances: Int64 = 3
}

extension LoadTrace.Series {
    public init(_ metric: String, _ demand: [Double], origin: String = "total as recorded") {
        self.init(metric: metric, demand: demand, origin: origin, unknown: demand.count { $0.isNaN })
    }

    /// The highest demand that is known; 0 when none is.
    public var peak: Double { demand.reduce(0) { $1 > $0 ? $1 : $0 } }
    public var mean: Double {
        var sum = 0.0, count = 0
        for value in demand where !value.isNaN {
            sum += value
            count += 1
        }
        return count > 0 ? sum / Double(count) : 0
    }
}
