import Basics

/// The contents of a chart of a load: what was asked at each step, and for each of some runs what its ready replicas carried and how many
/// there were. Numbers and names only; `SVGChart` and `TerminalChart` draw it.
public struct LoadChart: Sendable {
    /// One run over the load, such as a replay under one policy.
    public struct Run: Sendable {
        /// The run's name in headings and legends.
        public let name: String
        /// The part of the load that one ready replica carries, in the unit of `demand`; nil where nothing bounds it.
        public let capacity: Double?
        /// The largest number of replicas.
        public let peak: Int
        /// For each step the number of replicas there are to be.
        public let sizes: [Int32]
        /// For each step the number of replicas that are ready.
        public let ready: [Int32]
        /// For each step what was asked as a share of what the ready replicas carried; NaN where that is not known.
        public let loads: [Float]

        /// `sizes`, `ready` and `loads` have an element for each step of the chart.
        public init(_ name: String, capacity: Double?, peak: Int, sizes: [Int32], ready: [Int32], loads: [Float]) {
            self.name = name
            self.capacity = capacity
            self.peak = peak
            self.sizes = sizes
            self.ready = ready
            self.loads = loads
        }
    }

    /// The name of what is under load: a service.
    public let subject: String
    /// The name of the metric that is drawn, and the name with its unit: `cpu (cores)`.
    public let metric: String
    public let title: String
    /// The time of the first step, the length of a step, and the number of steps.
    public let start: WallTime
    public let step: Duration
    public let count: Int
    /// What was asked at each step; NaN where it is not known. It may be shorter than `count`: nothing is known of the steps after it.
    public let demand: [Double]
    public let runs: [Run]

    /// The parameters are those of the properties.
    public init(
        subject: String, metric: String, title: String, start: WallTime, step: Duration, count: Int, demand: [Double], runs: [Run]
    ) {
        self.subject = subject
        self.metric = metric
        self.title = title
        self.start = start
        self.step = step
        self.count = count
        self.demand = demand
        self.runs = runs
    }

    /// The load of a step in words: `137 % of what was ready`.
    public static func words(ofLoad load: Double) -> String {
        load.isInfinite ? "nobody was ready" : "\(Figures.percent(load)) of what was ready"
    }

    func time(of index: Int) -> WallTime { start + step.multipliedClamped(by: index) }

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
        let steps = self.count, count = max(1, min(count, steps))
        guard steps > 0 else { return [] }
        return (0..<count).map { number in
            var column = Column(steps: number * steps / count..<(number + 1) * steps / count)
            column.smallest = .max
            for step in column.steps {
                let size = Int(run.sizes[step]), ready = Int(run.ready[step])
                column.smallest = min(column.smallest, size)
                column.largest = max(column.largest, size)
                if step == column.steps.lowerBound { column.ready = ready }
                if Double(run.loads[step]) > column.load {
                    column.load = Double(run.loads[step])
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
        let stepMilliseconds = max(1, step.nanoseconds / 1_000_000), length = Int64(count) * stepMilliseconds
        let isLong = length >= 2 * 86_400_000
        var unit: Int64 = isLong ? 86_400_000 : length >= 7_200_000 ? 3_600_000 : 600_000
        let sizes: [Int64] = isLong ? [1, 2, 7, 14, 28, 91, 364] : [1, 2, 3, 6, 12]
        let base = unit
        for size in sizes {
            unit = base * size
            if length / unit <= Int64(max(1, atMost)) { break }
        }
        var out: [(Int, String)] = [], at = (start.milliseconds + unit - 1) / unit * unit
        while at < start.milliseconds + length {
            let step = Int((at - start.milliseconds + stepMilliseconds - 1) / stepMilliseconds), time = WallTime(milliseconds: at)
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
