import Basics

/// Ejects a replica whose requests fail: `failures` of them within `window` take it out for `ejection` (nginx's max_fails and
/// fail_timeout, which are one number there). A success forgets the failures before it.
///
/// After `ejection` the replica is on probation: the next request decides. A failure there ejects it again, twice as long each
/// time, at most `longest`.
public struct PassiveHealth: Sendable {
    public struct Settings: Sendable, Equatable {
        public var failures: Int
        public var window: Duration
        public var ejection: Duration
        public var longest: Duration
        /// nginx's 3 fails within 30 s (document 000), but 10 s out at first: the supervisor or a probe tells of recovery sooner.
        public init(failures: Int = 3, window: Duration = .seconds(30), ejection: Duration = .seconds(10), longest: Duration = .seconds(60))
        {
            self.failures = failures
            self.window = window
            self.ejection = ejection
            self.longest = longest
        }
    }

    public enum State: Sendable, Equatable {
        /// The replica takes requests. Leaves for `ejected` at the last of too many failures.
        case healthy
        /// The replica takes no requests. Leaves for `probation` at or after `until`.
        case ejected(until: MonotonicTime)
        /// The replica takes requests; one success makes it healthy, one failure ejects it again.
        case probation
    }

    /// The settings. They may change while the machine runs: the rule at the next failure counts.
    public var settings: Settings
    public private(set) var state = State.healthy
    /// Times of the latest failures, oldest first; at most `settings.failures` of them, however many there are.
    private var recent: [MonotonicTime] = []
    /// That it stays in although it fails has been told; it is told again after a success, or when fewer failures lie within the window.
    private var toldKept = false
    private var ejections = 0

    public init(_ settings: Settings) { self.settings = settings }

    public var isEjected: Bool { if case .ejected = state { true } else { false } }

    public mutating func requestSucceeded() {
        if state == .probation {
            state = .healthy
            ejections = 0
        }
        if !recent.isEmpty { recent.removeAll(keepingCapacity: true) }
        toldKept = false
    }

    /// Notes a failure. Returns a decision when this failure ejects the replica, or would but for `mayEject` (asked only then: how many may
    /// be out at once); nil when it only counts.
    public mutating func requestFailed(_ now: MonotonicTime, subject: String, cause: String, mayEject: () -> Bool = { true }) -> Decision<
        State
    >? {
        if isEjected { return nil }
        remember(now)
        guard state == .probation || recent.count >= settings.failures else {
            toldKept = false
            return nil
        }
        guard mayEject() else {
            if toldKept { return nil }
            toldKept = true
            return kept(subject, cause)
        }
        toldKept = false
        let wasProbation = state == .probation
        let count = recent.count
        let time = nextTime()
        recent.removeAll(keepingCapacity: true)
        state = .ejected(until: now + time)
        let reason = wasProbation ? "its first request on probation failed" : "\(count) requests failed within \(settings.window.brief)"
        let record = DecisionRecord(
            .eject, subject: subject,
            inputs: [
                .init("failures", count), .init("limit", settings.failures), .init("window", settings.window.brief),
                .init("last_failure", cause),
            ],
            raw: "eject for \(settings.ejection.brief)",
            constraints: [
                .init(
                    "longer each time", before: settings.ejection.brief, after: time.brief,
                    reason: "ejection number \(ejections), at most \(settings.longest.brief)")
            ],
            outcome: "ejected for \(time.brief)",
            sentence: "\(subject) gets no requests for \(time.brief): \(reason); the last one: \(cause).",
            flip: "a successful request before the \(settings.failures)th failure, or a successful probe now")
        return Decision(state, because: record)
    }

    /// O(1) but for failures that leave the window: each leaves once.
    private mutating func remember(_ now: MonotonicTime) {
        let expired = recent.prefix { now - $0 > settings.window }.count
        // A reload may have lowered the number.
        let surplus = recent.count + 1 - max(settings.failures, 1)
        let gone = max(expired, min(surplus, recent.count))
        if gone > 0 { recent.removeFirst(gone) }
        recent.append(now)
    }

    /// How long the next ejection lasts: twice as long as the one before, at most `longest`, whatever the file says.
    private mutating func nextTime() -> Duration {
        let doubled = settings.ejection.multipliedClamped(by: 1 << min(ejections, 20))
        ejections += 1
        return min(doubled, settings.longest)
    }

    /// It would go, but as many as may be out are out.
    private func kept(_ subject: String, _ cause: String) -> Decision<State> {
        Decision(
            state,
            because: DecisionRecord(
                .eject, subject: subject,
                inputs: [.init("failures", recent.count), .init("limit", settings.failures), .init("last_failure", cause)],
                raw: "eject for \(settings.ejection.brief)",
                constraints: [
                    .init("ejection cap", before: "ejected", after: "kept", reason: "as many replicas as may be out are out already")
                ], outcome: "kept",
                sentence:
                    "\(subject) fails, but goes on getting requests: as many replicas as may be out are out already; the last failure: "
                    + "\(cause).",
                flip: "a replica that comes back, or a higher eject.at-most"))
    }

    /// Ejects the replica for another reason than its failures in a row, for as long as those would.
    public mutating func eject(_ now: MonotonicTime) {
        guard !isEjected else { return }
        let time = nextTime()
        recent.removeAll(keepingCapacity: true)
        state = .ejected(until: now + time)
    }

    /// Lets time pass: an ejection that is over becomes probation.
    public mutating func timePassed(_ now: MonotonicTime) -> Bool {
        guard case .ejected(let until) = state, now >= until else { return false }
        state = .probation
        return true
    }

    /// Ends an ejection with probation, because something better than our own observation (a probe, the supervisor) says that the replica
    /// serves again.
    public mutating func recovered() {
        if isEjected { state = .probation }
    }
}
