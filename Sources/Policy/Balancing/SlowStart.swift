import Basics

/// Lets a replica that has just become ready take its share little by little, so that cold caches and empty connection pools are not met
/// by full load.
///
/// Its admission grows in a straight line from `least` to 1 over `window`: HAProxy's `slowstart`, and Envoy's slow start with an aggression
/// of 1.0. O(1), no allocation.
public struct SlowStart: Sendable, Equatable {
    /// How long slow start takes. Zero or less means that there is no slow start.
    public let window: Duration
    /// The admission that a replica begins with, 0...1.
    public let least: Double

    /// The default of `least` is Envoy's `min_weight_percent`: 10 %. Below that a replica gets too little to warm up on.
    public init(window: Duration, least: Double = 0.1) {
        self.window = window
        self.least = least >= 0 ? min(least, 1) : 0
    }

    /// The admission in thousandths (`Candidate.admission`) for the time since the replica became ready. 1000 from `window` on; `least` for
    /// a negative age.
    public func admission(age: Duration) -> Int {
        guard window > .zero, age < window else { return 1000 }
        let share = age > .zero ? age / window : 0
        return Int(clamped: (max(least, share) * 1000).rounded())
    }
}
