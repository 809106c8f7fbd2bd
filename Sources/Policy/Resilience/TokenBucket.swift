import Basics

/// Limits the rate of each key. The state of a key is one number: the generic cell rate algorithm (ITU-T I.371), as redis-cell has it.
///
/// That number is the time at which all requests taken so far would have come in at the steady rate. Beyond that rate, `burst` extra
/// requests may come at once, as with nginx's `burst` and `nodelay`. So with 5 a minute, burst 0 allows one request and then one every 12
/// s, and burst 2 allows three at once.
///
/// Promise: over any time t, at most `rate × t + burst + 1` are allowed. The interval between two is a whole number of nanoseconds, rounded
/// up; up to 1,000,000 a second that costs at most a thousandth of the rate. A refused request costs nothing.
///
/// No state and no time makes it trap. O(1), no allocation.
public struct TokenBucket: Sendable, Equatable {
    /// The answer to one request.
    public struct Verdict: Sendable, Equatable {
        /// Whether the request may go on; it was then paid for from the bucket.
        public let allowed: Bool
        /// How many more requests could come at once now.
        public let remaining: Int
        /// The time until a request of the same cost would be allowed; zero when it would be allowed now. A cost above `burst + 1` is never
        /// allowed, whatever this says.
        public let wait: Duration
        /// The time until the bucket is full again.
        public let reset: Duration

        /// A verdict made by hand: for tests, and for a limit that is kept elsewhere.
        public init(allowed: Bool, remaining: Int, wait: Duration, reset: Duration) {
            self.allowed = allowed
            self.remaining = remaining
            self.wait = wait
            self.reset = reset
        }
    }

    /// The steady rate in requests a second, from 1/3600 (one an hour) to 1,000,000,000. A rate outside this range counts as its nearer
    /// end; one that is no number counts as the lower end. A bucket that has a share of a rate has that share of the range as well.
    public let rate: Double
    /// How many extra requests may come at once, 0 or more.
    public let burst: Int
    /// Between two requests at the steady rate, in nanoseconds.
    private let interval: Int64
    /// How far ahead of now a key's number may be: `burst + 1` intervals, at most 146 years.
    private let span: Int64

    /// Most buckets that share a rate: with more, the time between two requests of the lowest rate would not fit.
    public static let mostShares = 1_000_000

    /// One bucket serves all keys of a rule; each key has only its number. `shares`: how many buckets share rate and burst, each of which
    /// has this part of both; 1 to `mostShares`, and what is outside counts as the nearer end.
    public init(rate: Double, burst: Int, shares: Int = 1) {
        let shares = min(max(shares, 1), TokenBucket.mostShares)
        self.rate = (rate > 1.0 / 3600 ? min(rate, 1e9) : 1.0 / 3600) / Double(shares)
        self.burst = max(burst, 0) / shares
        // A relative 1e-15 less before it is rounded up: 5 / 60 is not exact, and its interval should still be 12 s.
        interval = max(Int64(clamped: (1e9 / self.rate * (1 - 1e-15)).rounded(.up)), 1)
        let capacity = self.burst == .max ? Int64.max : Int64(self.burst) + 1
        let (span, isTooLong) = interval.multipliedReportingOverflow(by: capacity)
        self.span = isTooLong ? .max / 2 : min(span, .max / 2)
    }

    /// The time between two requests at the steady rate, in whole microseconds, rounded up: the form in which a store that several gateways
    /// share counts.
    public var intervalMicroseconds: Int { Int((interval + 999) / 1000) }

    /// Takes `cost` out of the key's bucket if that much is in it. `state` is the key's number; 0, or any time past, is a full bucket. A
    /// number that no bucket of this kind can have left (too far ahead: the clock or the settings changed) counts as an empty bucket.
    ///
    /// A cost of 0 or less takes nothing, is allowed, and shows how full the bucket is.
    public func take(_ state: inout Int64, now: MonotonicTime, cost: Int = 1) -> Verdict {
        let now = now.nanoseconds
        var debt = state <= now ? 0 : min(state.subtractingSaturating(now), span)
        let price = interval.multipliedSaturating(Int64(max(cost, 0)))
        let allowed = debt.addingSaturating(price) <= span
        if allowed { debt += price }
        state = now.addingSaturating(debt)
        let wait = max(debt.addingSaturating(price).subtractingSaturating(span), 0)
        return Verdict(allowed: allowed, remaining: Int((span - debt) / interval), wait: .nanoseconds(wait), reset: .nanoseconds(debt))
    }

    /// The key's number after one request that was taken is put back: somebody else refused it. Never fuller than full.
    public func givenBack(_ state: Int64) -> Int64 { state.subtractingSaturating(interval) }
}

extension Int64 {
    fileprivate func addingSaturating(_ other: Int64) -> Int64 {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? (other < 0 ? .min : .max) : sum
    }

    fileprivate func subtractingSaturating(_ other: Int64) -> Int64 {
        let (difference, overflow) = subtractingReportingOverflow(other)
        return overflow ? (other < 0 ? .max : .min) : difference
    }

    /// Of two numbers that are not negative.
    fileprivate func multipliedSaturating(_ other: Int64) -> Int64 {
        let (product, overflow) = multipliedReportingOverflow(by: other)
        return overflow ? .max : product
    }
}
