import Basics
import Observability
import Resilience
import StackModel
import Synchronization

/// Limits how much a route takes at once and how fast: rate limits, the limit of requests under way, the breaker. Shared by all loops, and
/// kept over a reload that does not change them.
final class RouteGuards: Sendable {
    let spec: GuardSpec
    let limiters: [RateLimiter]
    private let subject: String
    private let journal: Journal
    private let breaker: Mutex<Breaker>
    /// Whether the breaker has something to say: it is not closed, or a failure is remembered.
    private let watches = Atomic<Bool>(false)
    private let gradient: Mutex<GradientLimit>
    private let underWay = Atomic<Int>(0)

    enum Refusal: Equatable {
        case full(limit: Int)
        case breakerOpen(wait: Duration)
    }

    init(_ spec: GuardSpec, route: String, journal: Journal) {
        self.spec = spec
        self.journal = journal
        subject = "route \(route)"
        limiters = spec.limits.map { RateLimiter($0, route: route) }
        breaker = Mutex(Breaker(subject: "route \(route)", failures: spec.breakerFailures ?? 5, recovery: spec.breakerRecovery))
        gradient = Mutex(GradientLimit(subject: "route \(route)", GradientLimit.Settings(highest: spec.concurrency ?? 10_000)))
    }

    /// Whether there is nothing to ask.
    var isOpen: Bool { limiters.isEmpty && !countsRequests && spec.breakerFailures == nil }
    var countsRequests: Bool { spec.concurrency != nil || spec.isAdaptive }
    var hasBreaker: Bool { spec.breakerFailures != nil }
    var inFlight: Int { underWay.load(ordering: .relaxed) }

    /// What a request occupies in the guards while it is under way.
    struct Place {
        /// Whether the request counts as under way.
        var isCounted = false
        /// The number of the half-open breaker's trial, if the request is one; 0: it is none.
        var trial = 0
    }

    /// Takes a place for a request. Returns nil when it got one, else why it was refused; `ended` gives the place back. An adaptive limit
    /// is about what the replicas do at once: a request whose body the client is still sending is let in by it, but counts from
    /// `becameWhole` on, so that slow clients do not take the places of others.
    func admit(_ now: MonotonicTime, isWhole: Bool, _ place: inout Place) -> Refusal? {
        place = Place()
        if hasBreaker, watches.load(ordering: .relaxed) {
            let wait: Duration? = breaker.withLock { breaker in
                guard breaker.allows(now) else { return breaker.wait(now) }
                if breaker.state == .halfOpen { place.trial = breaker.trial }
                return nil
            }
            if let wait { return .breakerOpen(wait: wait) }
        }
        guard countsRequests else { return nil }
        let before = underWay.wrappingAdd(1, ordering: .relaxed).oldValue
        let limit: Int?
        if spec.isAdaptive {
            limit = gradient.withLock { $0.admitted(inFlight: before) ? nil : $0.limit }
        } else {
            limit = spec.concurrency.flatMap { before < $0 ? nil : $0 }
        }
        place.isCounted = limit == nil && (isWhole || !spec.isAdaptive)
        if !place.isCounted { underWay.wrappingSubtract(1, ordering: .relaxed) }
        guard let limit else { return nil }
        handOn(&place)
        return .full(limit: limit)
    }

    /// Call when the client has sent the whole request.
    func becameWhole(_ place: inout Place) {
        guard countsRequests, !place.isCounted else { return }
        place.isCounted = true
        let before = underWay.wrappingAdd(1, ordering: .relaxed).oldValue
        // It is in already: this only tells how many there are.
        if spec.isAdaptive { gradient.withLock { _ = $0.admitted(inFlight: before) } }
    }

    /// Call when the request is over. `latency` is nil when there was no answer to measure.
    func ended(_ now: MonotonicTime, _ place: inout Place, latency: Duration?) {
        guard countsRequests, place.isCounted else { return }
        place.isCounted = false
        underWay.wrappingSubtract(1, ordering: .relaxed)
        guard spec.isAdaptive, let latency else { return }
        if let change = gradient.withLock({ $0.finished(latency, now: now) }) { journal.append(change.record) }
    }

    func succeeded() {
        guard hasBreaker, watches.load(ordering: .relaxed) else { return }
        let change = breaker.withLock { breaker in
            let change = breaker.success()
            if breaker.state == .closed { watches.store(false, ordering: .relaxed) }
            return change
        }
        if let change { journal.append(change.record) }
    }

    func failed(_ now: MonotonicTime, reason: String) {
        guard hasBreaker else { return }
        let change = breaker.withLock { breaker in
            watches.store(true, ordering: .relaxed)
            return breaker.failure(now, reason: reason)
        }
        if let change { journal.append(change.record) }
    }

    /// Lets another request be the half-open breaker's trial, if this one is: its client went away, or is not done with sending it, or it
    /// waits for a replica. The result of this request counts all the same, should there be one.
    func handOn(_ place: inout Place) {
        guard place.trial != 0 else { return }
        let trial = place.trial
        place.trial = 0
        breaker.withLock { $0.untried(trial) }
    }

    /// For the admin page: `closed`, `open`, `half_open`, and the limit of requests under way.
    var state: (breaker: String?, limit: Int?) {
        (hasBreaker ? breaker.withLock { $0.state.rawValue } : nil, spec.isAdaptive ? gradient.withLock { $0.limit } : spec.concurrency)
    }
}
