import Basics

/// How much is known of a container: 1 after a whole interval (24 h by default) with a sample a minute, growing on with each further one.
///
/// The confidence widens the bounds of a recommendation: with little known, the upper is far up and the lower far down.
public enum Confidence {
    /// The lower bound: `(1 + 0.001/confidence)^−2`.
    public static let lower = Widening(multiplier: 0.001, exponent: -2)
    /// The upper bound: `(1 + 1/confidence)^1`.
    public static let upper = Widening(multiplier: 1, exponent: 1)

    /// `(1 + multiplier/confidence)^exponent`.
    public struct Widening: Sendable, Equatable {
        public let multiplier: Double
        public let exponent: Double

        public init(multiplier: Double, exponent: Double) {
            self.multiplier = multiplier
            self.exponent = exponent
        }

        /// Infinite at a confidence of 0 when the exponent is above 0, and 0 when it is below. 1 when nothing is to be widened.
        public func factor(_ confidence: Double) -> Double {
            multiplier == 0 || exponent == 0 ? 1 : power(1 + multiplier / confidence, exponent)
        }

        /// The amount times the factor; 0 when that is 0 · ∞.
        public func applied(_ amount: Int, confidence: Double) -> Int { Amount.scaled(amount, by: factor(confidence)) }
    }

    /// The confidence: the smaller of the time watched in intervals, and of the samples as if each stood for a minute. 0 without samples,
    /// when the last is not after the first, or when the interval is not above 0.
    public static func of(first: WallTime?, last: WallTime?, samples: Int, interval: Duration) -> Double {
        let milliseconds = Double(interval.nanoseconds / 1_000_000)
        guard let first, let last, samples > 0, milliseconds > 0 else { return 0 }
        let watched = Double(DecayingHistogram.held(last).milliseconds - DecayingHistogram.held(first).milliseconds) / milliseconds
        let counted = Double(samples) / (milliseconds / 60_000)
        return max(min(watched, counted), 0)
    }
}
