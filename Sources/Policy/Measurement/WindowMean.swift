import Basics

/// The mean of a figure that is looked at from time to time, such as the number of requests under way. A single look would be chance.
///
/// Each value counts for the time until the next one. At most `capacity` values are kept; beyond it the oldest go.
public struct WindowMean: Sendable {
    /// The most values that are kept: four minutes of looks a second.
    public static let capacity = 256

    private let window: Duration
    private var values: [(at: MonotonicTime, value: Double)] = []

    /// A mean over the last `window`.
    public init(window: Duration) { self.window = window }

    /// Takes a value; a value that is no number, infinite or negative is not taken. When the clock has gone back, the mean begins anew.
    public mutating func add(_ value: Double, at now: MonotonicTime) {
        guard MeterFault.of(value, called: "") == nil else { return }
        if let last = values.last, now < last.at { values = [] }
        values.append((now, value))
        var old = 0
        while old + 1 < values.count, now - values[old + 1].at >= window { old += 1 }
        old = max(old, values.count - WindowMean.capacity)
        if old > 0 { values.removeFirst(old) }
    }

    /// The mean up to the last value, weighted by time, and the time it covers; nil without a value. With a single value the mean is that
    /// value.
    public var mean: (value: Double, window: Duration)? {
        guard let first = values.first, let last = values.last else { return nil }
        let whole = last.at - first.at
        guard whole > .zero else { return (last.value, .zero) }
        var sum = 0.0
        for (value, next) in zip(values, values.dropFirst()) { sum += value.value * (next.at - value.at).secondsAsDouble }
        return (sum / whole.secondsAsDouble, whole)
    }
}
