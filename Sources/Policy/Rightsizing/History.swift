import Basics

/// How long a container was watched, against how long it has to be before anything is recommended.
///
/// What was watched is what the confidence counts: the time from the first to the last sample, or a minute for each sample, whichever is
/// less. Upstream answers from the first sample on and leaves it to whoever reads to look at the bounds; the wait is ours.
public struct History: Sendable, Equatable {
    /// What was watched.
    public let known: Duration
    /// What is needed at least.
    public let least: Duration

    /// `confidence` as `Confidence.of` tells it; `interval` is the one that it was told for.
    public init(confidence: Double, interval: Duration, least: Duration) {
        // A century is more than anybody waits for, and keeps the product finite.
        let seconds = min(max(confidence, 0) * interval.secondsAsDouble, 3_155_760_000)
        known = .milliseconds(seconds.isFinite ? Int64(clamped: seconds * 1000) : 0)
        self.least = least
    }

    /// Whether it is enough: `known >= least`.
    public var isEnough: Bool { known >= least }

    /// How much longer it has to be watched; zero when it is enough.
    public var missing: Duration { max(least - known, .zero) }
}
