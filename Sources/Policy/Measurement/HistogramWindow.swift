import Basics

/// A quantile of the observations that a histogram counted in the last `window`, from successive readings of its counts.
///
/// Interpolated within a bucket as Prometheus' `histogram_quantile` does. Counts that fall, or other buckets, begin anew.
public struct HistogramWindow: Sendable {
    /// The most readings that are kept. Beyond it the oldest are dropped, and the window is shorter than asked for.
    public static let capacity = 128

    private let window: Duration
    private let bounds: [Duration]
    private var readings: [(at: MonotonicTime, counts: [Int])] = []

    /// `bounds` are the buckets' upper bounds (inclusive), ascending; the counts have one more, for observations above them all.
    public init(window: Duration, bounds: [Duration]) {
        self.window = window
        self.bounds = bounds
    }

    /// Takes the present counts of the buckets, not cumulative over the buckets.
    public mutating func add(_ counts: [Int], at now: MonotonicTime) {
        guard counts.count == bounds.count + 1 else {
            readings = []
            return
        }
        if let last = readings.last, now <= last.at || zip(counts, last.counts).contains(where: { $0 < $1 }) { readings = [] }
        readings.append((now, counts))
        var old = 0
        while old + 2 < readings.count, now - readings[old + 1].at >= window { old += 1 }
        old = max(old, readings.count - HistogramWindow.capacity)
        if old > 0 { readings.removeFirst(old) }
    }

    /// The value under which `share` (0…1) of the observations of the window lie, how many there were, and the time they are from. nil
    /// before the second reading, and when nothing was observed. Above the last bound it answers that bound.
    public func quantile(_ share: Double) -> (value: Duration, count: Int, window: Duration)? {
        guard let first = readings.first, let last = readings.last, readings.count > 1 else { return nil }
        let counts = zip(last.counts, first.counts).map { $0.subtractingClamped($1) }
        let total = counts.sumClamped()
        guard total > 0 else { return nil }
        let rank = min(max(share, 0), 1) * Double(total)
        var below = 0, value = bounds.last ?? .zero
        for (i, count) in counts.enumerated() where i < bounds.count {
            if count > 0, Double(below.addingClamped(count)) >= rank {
                let low = i == 0 ? 0 : Double(bounds[i - 1].nanoseconds)
                let part = (rank - Double(below)) / Double(count)
                let width = Double(bounds[i].nanoseconds) - low
                value = .nanoseconds(Int64(clamped: low + width * part))
                break
            }
            below.addClamped(count)
        }
        return (value, total, last.at - first.at)
    }
}
