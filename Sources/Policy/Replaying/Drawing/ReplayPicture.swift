import Autoscaling
import Basics

/// The contents of a chart of a replay: the demand of one metric, and for each policy what its ready replicas carried and how many there
/// were.
public struct ReplayPicture: Sendable {
    public struct Run: Sendable {
        public let policy: ReplayPolicy
        public let model: ReplicaModel
        public let outcome: ReplayOutcome

        public init(_ policy: ReplayPolicy, _ model: ReplicaModel, _ outcome: ReplayOutcome) {
            self.policy = policy
            self.model = model
            self.outcome = outcome
        }
    }

    public let trace: LoadTrace
    public let runs: [Run]
    /// Of the trace's series the one that is drawn: the first that a policy scales by and something bounds, else the first.
    let series: Int

    public init(_ trace: LoadTrace, _ runs: [Run]) {
        self.trace = trace
        self.runs = runs
        let wanted = runs.flatMap { run in run.policy.scaling.metrics.map(\.name).filter { run.model.capacity[$0] != nil } }
        series = wanted.lazy.compactMap { trace.series(of: $0) }.first ?? 0
    }

    var metric: String { trace.series[series].metric }

    /// `cpu (cores)`.
    var title: String {
        switch metric {
        case "cpu": "cpu (cores)"
        case "memory": "memory (bytes)"
        default: metric.hasSuffix("_total") ? "\(metric) (a second)" : metric
        }
    }

    /// A run's capacity of the drawn metric for each replica; nil where nothing bounds it.
    func capacity(_ run: Run) -> Double? {
        let plain = LoadTrace.withoutTotal(metric)
        return run.model.capacity[metric] ?? run.model.capacity[plain]
    }

    /// Steps that are drawn as one.
    struct Column {
        let steps: Range<Int>
        /// The highest and lowest demand that is known; nil when none is.
        var most: Double?
        var least: Double?
        /// Ready replicas where the load was highest, and the highest load.
        var ready = 0
        var load = 0.0
        var smallest = 0
        var largest = 0
        var isOverloaded: Bool { load > 1 }
    }

    /// The whole trace in at most so many columns, for one run.
    func columns(_ count: Int, _ run: Run) -> [Column] {
        let steps = trace.count, count = max(1, min(count, steps)), demand = trace.series[series].demand, outcome = run.outcome
        guard steps > 0 else { return [] }
        return (0..<count).map { number in
            var column = Column(steps: number * steps / count..<(number + 1) * steps / count)
            column.smallest = .max
            for step in column.steps {
                let size = Int(outcome.sizes[step]), ready = Int(outcome.ready[step])
                column.smallest = min(column.smallest, size)
                column.largest = max(column.largest, size)
                if step == column.steps.lowerBound { column.ready = ready }
                if Double(outcome.loads[step]) > column.load {
                    column.load = Double(outcome.loads[step])
                    column.ready = ready
                }
                guard step < demand.count, !demand[step].isNaN else { continue }
                column.most = max(column.most ?? 0, demand[step])
                column.least = min(column.least ?? .infinity, demand[step])
            }
            return column
        }
    }

    /// Steps at which the calendar turns, with what to write there: days of a trace of two days or more, else hours.
    func marks(atMost: Int) -> [(step: Int, text: String)] {
        let stepMilliseconds = max(1, trace.step.nanoseconds / 1_000_000), length = Int64(trace.count) * stepMilliseconds
        let isLong = length >= 2 * 86_400_000
        var unit: Int64 = isLong ? 86_400_000 : length >= 7_200_000 ? 3_600_000 : 600_000
        let sizes: [Int64] = isLong ? [1, 2, 7, 14, 28, 91, 364] : [1, 2, 3, 6, 12]
        let base = unit
        for size in sizes {
            unit = base * size
            if length / unit <= Int64(max(1, atMost)) { break }
        }
        var out: [(Int, String)] = [], at = (trace.start.milliseconds + unit - 1) / unit * unit
        while at < trace.start.milliseconds + length {
            let step = Int((at - trace.start.milliseconds + stepMilliseconds - 1) / stepMilliseconds), time = WallTime(milliseconds: at)
            let day = CalendarTime.render(time).prefix(10)
            out.append(
                (step, isLong ? (unit > 7 * 86_400_000 ? String(day) : "\(Figures.day(time)) \(day.suffix(2))") : Figures.clock(time)))
            at += unit
        }
        return out
    }

    /// A round number at or above `value`: 1, 2, 2.5 or 5 times a power of ten.
    static func round(above value: Double) -> Double {
        guard value > 0, value.isFinite else { return 1 }
        var power = 1.0
        while power < value, power < 1e307 { power *= 10 }
        while power / 10 >= value, power > 1e-300 { power /= 10 }
        // Here power / 10 < value <= power; at the ends of what a double can be, where there is no such power, the value is its own.
        guard power >= value else { return value }
        for share in [0.2, 0.25, 0.4, 0.5, 0.6, 0.8] where power * share >= value { return power * share }
        return power
    }
}
