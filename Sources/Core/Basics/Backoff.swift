/// How long to wait before the next try: doubles from `initial` to `limit`, with "equal jitter" (half fixed,
/// half random; M. Brooker, "Exponential Backoff And Jitter"), so that many clients of one dead server
/// neither return together nor return at once.
public struct Backoff: Sendable {
    public let initial: Duration
    public let limit: Duration
    public private(set) var failures = 0

    public init(initial: Duration, limit: Duration) {
        self.initial = initial
        self.limit = limit
    }

    /// The wait after one more failure.
    public mutating func next(using random: inout SeededRandom) -> Duration {
        let doublings = min(failures, 30)
        failures += 1
        let full = min(initial.nanoseconds.multipliedClamped(by: 1 << doublings), limit.nanoseconds)
        let ceiling = full <= 0 ? limit.nanoseconds : full
        let half = ceiling / 2
        return .nanoseconds(half + Int64.random(in: 0...max(ceiling - half, 0), using: &random))
    }

    /// Notes a success: the next failure waits `initial` again.
    public mutating func reset() { failures = 0 }
}
