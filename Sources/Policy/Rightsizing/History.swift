import Basics

/// Compares how long a container was watched with how long it has to be watched before anything is recommended.
///
/// The time watched is the one that the confidence counts: the time from the first to the last sample, or a minute for each sample,
/// whichever is less. Upstream answers from the first sample on and leaves it to its readers to look at the bounds; the wait is ours.
public struct History: Sendable, Equatable {
    /// The time for which the container was watched.
    public let known: Duration
    /// The least time that is needed.
    public let least: Duration

    /// `confidence` comes from `Confidence.of`; `interval` is the one that the confidence was computed for.
    public init(confidence: Double, interval: Duration, least: Duration) {
        // A century is more than anybody waits for, and keeps the product finite.
        let seconds = min(max(confidence, 0) * interval.secondsAsDouble, 3_155_760_000)
        known = .milliseconds(seconds.isFinite ? Int64(clamped: seconds * 1000) : 0)
        self.least = least
    }

    /// Whether the container was watched long enough: `known >= least`.
    public var isEnough: Bool { known >= least }

    /// How much longer the container has to be watched; zero when the time is enough.
    public var missing: Duration { max(least - known, .zero) }
}
