import Basics

/// Turns successive readings of a counter into a rate a second.
///
/// A counter may have many series, such as one a queue: each series counts by itself, and the rate is that of their increases together. A
/// value below the one before means that the series began anew: it is counted from zero, as Prometheus' `rate` does, and the rate says so
/// (`resets`). A series that was not there at the reading before counts from its first value on, and one that has vanished takes nothing
/// away. Readings that cannot be believed give no rate and a reason: no time passed, the clock went back, nothing was read for too
/// long. The rate is over the readings of the last `window` and the one before them; nothing is extrapolated.
///
/// - Complexity: O(series) a reading, amortized; at most `capacity` readings are kept, and the values of the last one's series.
public struct CounterRate: Sendable {
    /// A rate, and the readings behind it in figures.
    public struct Rate: Equatable, Sendable {
        /// The increase a second: finite, not negative.
        public let perSecond: Double
        /// The increase that was counted.
        public let increase: Double
        /// The time from the first reading to the last one.
        public let window: Duration
        /// How often the counter began anew in that time.
        public let resets: Int

        /// A note for `MeterFigure`; empty without resets.
        public var note: String {
            resets == 0 ? "" : "the counter began anew \(resets == 1 ? "once" : "\(resets) times") and was counted from zero"
        }
    }

    private struct Point {
        let at: MonotonicTime
        /// All increases so far.
        let total: Double
        let resets: Int
    }

    /// The most readings that are kept. Beyond it the oldest are dropped, and the window is shorter than asked for.
    public static let capacity = 512
    /// The shortest time between readings. Below it a rate says more about the clock's ticks than about the counter: CPU time comes in
    /// steps of 10 ms.
    public static let shortest = Duration.milliseconds(100)

    private let name: String
    private let window: Duration
    private let longestGap: Duration
    /// The values of the last reading, by series.
    private var last: [Int: Double] = [:]
    private var points: [Point] = []

    /// `name` is the counter's name in faults. After more than `longestGap` without a reading the rate begins anew; by default four
    /// windows, so that three rounds may fail when a window is one round.
    public init(_ name: String, window: Duration, longestGap: Duration? = nil) {
        self.name = name
        self.window = max(window, CounterRate.shortest)
        self.longestGap = longestGap ?? self.window * 4
    }

    /// Takes a reading of a counter with one series. A failure says why there is no rate; the next reading may have one.
    public mutating func add(_ value: Double, at now: MonotonicTime) -> Result<Rate, MeterFault> { add(series: [0: value], at: now) }

    /// Takes a reading of all series of a counter, each under a number that is its own at every reading.
    public mutating func add(series values: [Int: Double], at now: MonotonicTime) -> Result<Rate, MeterFault> {
        for value in values.values { if let fault = MeterFault.of(value, called: name) { return .failure(fault) } }
        guard let before = points.last else {
            begin(values, now)
            return .failure(MeterFault(.tooEarly, "\(name) was read once; a rate needs two readings"))
        }
        let passed = now - before.at
        if passed == .zero { return .failure(MeterFault(.clock, "no time has passed since \(name) was read before")) }
        if passed < .zero {
            begin(values, now)
            return .failure(MeterFault(.clock, "the clock went back by \((before.at - now).brief) since \(name) was read before"))
        }
        if passed > longestGap {
            begin(values, now)
            return .failure(MeterFault(.gap, "\(name) was not read for \(passed.brief), more than \(longestGap.brief): it is counted anew"))
        }
        var total = before.total, resets = 0, isKnown = false
        for (series, value) in values {
            guard let known = last[series] else { continue }
            isKnown = true
            if value < known { resets += 1 }
            total += value < known ? value : value - known
        }
        // Nothing of this reading was there before: how much it grew is not known, which is another thing than that it did not grow.
        guard isKnown else {
            begin(values, now)
            return .failure(MeterFault(.tooEarly, "\(name) has other series than before; a rate needs two readings of one"))
        }
        last = values
        guard total.isFinite else {
            begin(values, now)
            return .failure(MeterFault(.infinite, "\(name) grew beyond any number"))
        }
        points.append(Point(at: now, total: total, resets: before.resets + resets))
        trim(now)
        return rate(now)
    }

    /// Forgets all readings: the next one is the first.
    public mutating func forget() { points = [] }

    private mutating func begin(_ values: [Int: Double], _ now: MonotonicTime) {
        last = values
        points = [Point(at: now, total: 0, resets: 0)]
    }

    private mutating func trim(_ now: MonotonicTime) {
        var old = 0
        // The reading at or before the window's beginning stays: the rate covers all of the window.
        while old + 2 < points.count, now - points[old + 1].at >= window { old += 1 }
        old = max(old, points.count - CounterRate.capacity)
        if old > 0 { points.removeFirst(old) }
    }

    private func rate(_ now: MonotonicTime) -> Result<Rate, MeterFault> {
        let first = points[0], last = points[points.count - 1]
        let passed = last.at - first.at
        guard passed >= CounterRate.shortest else {
            return .failure(MeterFault(.tooEarly, "\(name) was read for \(passed.brief) only; a rate needs \(CounterRate.shortest.brief)"))
        }
        let increase = max(0, last.total - first.total)
        let perSecond = increase / passed.secondsAsDouble
        // 1e308 in a tenth of a second.
        guard perSecond.isFinite else { return .failure(MeterFault(.infinite, "\(name) grew beyond any number")) }
        return .success(Rate(perSecond: perSecond, increase: increase, window: passed, resets: last.resets - first.resets))
    }
}
