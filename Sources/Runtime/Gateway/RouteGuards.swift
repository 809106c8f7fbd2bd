import Basics
import Observability
import Resilience
import Synchronization
import Topology

/// What a route takes at once and how fast: rate limits, the limit of requests under way, the breaker. Shared by all loops, and kept over
/// a reload that does not change them.
final class RouteGuards: Sendable {
    let spec: GuardSpec
    let limiters: [RateLimiter]
    private let subject: String
    private let journal: Journal
    private let breaker: Mutex<Breaker>
    /// The breaker has something to say: it is not closed, or a failure is remembered.
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

    /// There is nothing to ask.
    var isOpen: Bool { limiters.isEmpty && !countsRequests && spec.breakerFailures == nil }
    var countsRequests: Bool { spec.concurrency != nil || spec.isAdaptive }
    var hasBreaker: Bool { spec.breakerFailures != nil }
    var inFlight: Int { underWay.load(ordering: .relaxed) }

    /// Takes a place; nil when it was given. `ended` gives it back.
    func admit(_ now: MonotonicTime) -> Refusal? {
        if hasBreaker, watches.load(ordering: .relaxed) {
            let wait: Duration? = breaker.withLock { $0.allows(now) ? nil : $0.wait(now) }
            if let wait { return .breakerOpen(wait: wait) }
        }
        guard countsRequests else { return nil }
        let count = underWay.wrappingAdd(1, ordering: .relaxed).newValue
        let limit = spec.isAdaptive ? gradient.withLock { $0.limit } : spec.concurrency!
        guard count > limit else { return nil }
        underWay.wrappingSubtract(1, ordering: .relaxed)
        if hasBreaker, watches.load(ordering: .relaxed) { breaker.withLock { $0.untried() } }
        return .full(limit: limit)
    }

    /// The request is over. `latency` is nil when there was no answer to measure.
    func ended(_ now: MonotonicTime, latency: Duration?) {
        guard countsRequests else { return }
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

    /// Neither: the client went away before there was an answer.
    func untried() {
        if hasBreaker, watches.load(ordering: .relaxed) { breaker.withLock { $0.untried() } }
    }

    /// For the admin page: `closed`, `open`, `half_open`, and the limit of requests under way.
    var state: (breaker: String?, limit: Int?) {
        (hasBreaker ? breaker.withLock { $0.state.rawValue } : nil, spec.isAdaptive ? gradient.withLock { $0.limit } : spec.concurrency)
    }
}
