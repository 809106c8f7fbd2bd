import Basics

/// What is to be done with a stored answer that fits a request.
public enum ReuseAction: Sendable, Equatable {
    /// Serve it. `isStale`: its lifetime is over; `refreshes`: and it is to be refreshed meanwhile.
    case serve(isStale: Bool, refreshes: Bool)
    /// Ask the origin whether it still holds.
    case validate
}

/// Decides whether a stored answer may be used for a request (RFC 9111, 4; RFC 5861).
public struct Reuse: Sendable {
    public let facts: ResponseFacts
    public let freshness: Freshness
    /// Since when the answer counts as stale, whatever its lifetime says: a soft purge.
    public var staleSince: MonotonicTime?
    /// Until when nobody asks the origin, because a refresh has failed.
    public var pausedUntil: MonotonicTime?
    /// Whether the route trusts answers with `s-maxage` to be used stale where they allow it.
    public var trusted: Bool

    public init(
        _ facts: ResponseFacts, _ freshness: Freshness, staleSince: MonotonicTime? = nil, pausedUntil: MonotonicTime? = nil,
        trusted: Bool = false
    ) {
        self.facts = facts
        self.freshness = freshness
        self.staleSince = staleSince
        self.pausedUntil = pausedUntil
        self.trusted = trusted
    }

    public func verdict(_ request: RequestDirectives, now: MonotonicTime) -> (action: ReuseAction, why: CacheReason) {
        if facts.directives.noCache { return (.validate, .noCache) }
        if request.noCache { return (.validate, .requestDirective) }
        let over = staleness(now)
        // To the moment, so that `max-age=0` takes nothing that is stored.
        if let most = request.maxAge, Duration.seconds(freshness.lifetime) - freshness.left(now) > .seconds(most) {
            return (.validate, .requestDirective)
        }
        if over < .zero {
            if let least = request.minFresh, freshness.left(now) < .seconds(least) { return (.validate, .requestDirective) }
            return (.serve(isStale: false, refreshes: false), .fresh)
        }
        if facts.forbidsStale(trusted: trusted) { return (.validate, .stale) }
        let isPaused = pausedUntil.map { now < $0 } ?? false
        if let time = facts.directives.staleWhileRevalidate, over <= .seconds(time) {
            return (.serve(isStale: true, refreshes: !isPaused), .staleWhileRevalidate)
        }
        if isPaused, let time = facts.directives.staleIfError, over <= .seconds(time) {
            return (.serve(isStale: true, refreshes: false), .refreshPaused)
        }
        if let most = request.maxStale, over <= .seconds(min(most, 1 << 31)) {
            return (.serve(isStale: true, refreshes: false), .maxStale)
        }
        return (.validate, .stale)
    }

    /// Whether the answer may be served because the origin did not answer, or with 500, 502, 503 or 504.
    public func mayServeOnError(_ request: RequestDirectives, now: MonotonicTime) -> Bool {
        if facts.forbidsStale(trusted: trusted) { return false }
        let allowed = max(facts.directives.staleIfError ?? 0, request.staleIfError ?? 0)
        return allowed > 0 && staleness(now) <= .seconds(allowed)
    }

    /// How long the answer is stale; negative while it is fresh.
    private func staleness(_ now: MonotonicTime) -> Duration {
        let byAge = Duration.zero - freshness.left(now)
        guard let staleSince else { return byAge }
        return max(byAge, now - staleSince)
    }

    /// Whether an answer of this status counts as a failure of the origin (RFC 5861, 4).
    public static func isFailure(_ status: Int) -> Bool { status == 500 || (502...504).contains(status) }
}
