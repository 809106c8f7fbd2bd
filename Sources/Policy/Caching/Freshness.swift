import Basics

/// How long an answer may be used, and how old it is (RFC 9111, 4.2). Ages run on the monotonic clock; the wall clock only says how old the
/// answer was when it came.
public struct Freshness: Sendable, Equatable {
    /// What set the lifetime.
    public enum Source: String, Sendable { case none, sharedMaxAge = "s-maxage", maxAge = "max-age", expires = "Expires" }

    /// Seconds for which it is fresh, counted from its making.
    public let lifetime: Int
    public let source: Source
    /// How old it was when it came, in seconds.
    public let initialAge: Int
    /// When it came.
    public let came: MonotonicTime

    /// `asked` and `came`: when the request left and its answer's head came; `cameWall`: the same moment on the wall clock.
    public init(_ facts: ResponseFacts, asked: MonotonicTime, came: MonotonicTime, cameWall: WallTime) {
        (lifetime, source) = Freshness.lifetime(facts, cameWall: cameWall)
        // Dates are whole seconds: so is the difference, or an answer made this second would be a second old.
        let apparent = facts.date.map { max(0, cameWall.milliseconds / 1000 - $0.milliseconds / 1000) } ?? 0
        let delay = max(0, (came - asked).nanoseconds) / 1_000_000_000
        let corrected = Int64(facts.age).addingClamped(delay)
        initialAge = Int(clamping: max(apparent, corrected))
        self.came = came
    }

    private static func lifetime(_ facts: ResponseFacts, cameWall: WallTime) -> (Int, Source) {
        if let time = facts.directives.sharedMaxAge { return (time, .sharedMaxAge) }
        if let time = facts.directives.maxAge { return (time, .maxAge) }
        switch facts.expires {
        case .none: return (0, .none)
        case .over: return (0, .expires)
        case .at(let end):
            let from = facts.date ?? WallTime(milliseconds: cameWall.milliseconds / 1000 * 1000)
            return (Int(clamping: min(1 << 31, max(0, (end - from).nanoseconds / 1_000_000_000))), .expires)
        }
    }

    /// Whole seconds since it was made.
    public func age(_ now: MonotonicTime) -> Int {
        Int(clamping: Int64(initialAge).addingClamped(max(0, (now - came).nanoseconds) / 1_000_000_000))
    }

    /// The time until it is stale; negative once it is. Exactly zero is stale: fresh means that the lifetime exceeds the age.
    public func left(_ now: MonotonicTime) -> Duration {
        .nanoseconds(
            (Int64(lifetime) - Int64(initialAge)).multipliedClamped(by: 1_000_000_000).subtractingClamped((now - came).nanoseconds))
    }
}

/// How long a stale answer is left alone after a refresh of it has failed: 1 s, doubling to 30 s. So an origin that is down is not asked
/// by every request for what is stale.
public enum RefreshPause {
    public static func after(failures: Int) -> Duration { .seconds(min(30, 1 << min(max(failures - 1, 0), 5))) }
}
