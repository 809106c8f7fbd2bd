import Balancing
import Basics
import EventLoops
import Observability
import Synchronization

/// One place that requests can be sent to, shared by all loops of the gateway.
public final class Replica: Sendable {
    /// Why a replica gets no requests; several may hold at once.
    public struct Obstacle: OptionSet, Sendable {
        public let rawValue: Int
        public init(rawValue: Int) { self.rawValue = rawValue }
        /// A probe, or the supervisor, says that the replica does not serve.
        public static let down = Obstacle(rawValue: 1)
        /// Requests to the replica failed.
        public static let ejected = Obstacle(rawValue: 2)
        /// The replica finishes what it has and then goes.
        public static let draining = Obstacle(rawValue: 4)
        /// Somebody took the replica out by hand.
        public static let disabled = Obstacle(rawValue: 8)
    }

    /// The replica's name: `correlation-engine/2`, or an address.
    public let name: String
    public let endpoint: Endpoint
    /// The replica's share of the requests, and its group: 0 is used first. Both may change while it runs.
    public var weight: Int { rank.load(ordering: .relaxed) & 0xFFFF_FFFF }
    public var priority: Int { rank.load(ordering: .relaxed) >> 32 }
    /// Weight and priority in one number, so that they change together.
    private let rank: Atomic<Int>
    /// Number by which hash balancing and sticky cookies know the replica.
    let identity: UInt64
    public let requests = Tally()
    public let failures = Tally()
    /// Answers of 500 and above.
    public let errors = Tally()
    public let bytesIn = Tally()
    public let bytesOut = Tally()
    /// Number of requests that `latency` is the sum over: those whose answer's head came after the whole request had been sent, and those
    /// that were given up without one (see `Exchange.giveUp`).
    public let answers = Tally()
    /// Time from a request's last byte to the head of its answer, or until it was given up, summed over `answers`, in nanoseconds.
    public let latency = Tally()
    private let flags: Atomic<Int>
    private let underWay = Atomic<Int>(0)
    /// When the replica last got a request, in nanoseconds of the monotonic clock; 0: never.
    private let lastBegan = Atomic<Int64>(0)
    private let mostUnderWay = Atomic<Int>(0)
    private let health: Mutex<PassiveHealth>
    /// Whether a success matters to the passive health, which is so only after a failure; otherwise a success need not take the lock.
    private let watchesSuccess = Atomic<Bool>(false)
    /// Since when the replica has been fit, in nanoseconds of the monotonic clock. 0: from the beginning, with no need to warm up.
    private let fitSince = Atomic<Int64>(0)
    private let told = Mutex(Told())

    private struct Told {
        /// The obstacles that were set with a reason, each with its reason and its time.
        var obstacles: [(Obstacle, text: String, at: WallTime)] = []
        /// Why there is no obstacle.
        var ready = (text: "since the gateway began", at: WallTime.now)
    }

    public init(
        name: String, endpoint: Endpoint, weight: Int = 1, priority: Int = 0, startsDown: Bool = false, isNew: Bool = false,
        eject: PassiveHealth.Settings = .init()
    ) {
        self.name = name
        self.endpoint = endpoint
        rank = Atomic(Replica.rank(weight, priority))
        identity = RendezvousHash.key(name.utf8)
        flags = Atomic(startsDown ? Obstacle.down.rawValue : 0)
        health = Mutex(PassiveHealth(eject))
        if isNew { fitSince.store(MonotonicTime.now.nanoseconds, ordering: .relaxed) }
        if startsDown { told.withLock { $0.obstacles = [(.down, "not seen serving yet", .now)] } }
    }

    private static func rank(_ weight: Int, _ priority: Int) -> Int { priority << 32 | weight & 0xFFFF_FFFF }

    /// Takes another weight and priority; what is known of the replica stays. The loops follow with the next routes that they are given.
    func follow(weight: Int, priority: Int) { rank.store(Replica.rank(weight, priority), ordering: .relaxed) }

    /// Takes another rule for ejection, from a reload; what is known of the replica's health stays.
    func follow(_ eject: PassiveHealth.Settings) { health.withLock { if $0.settings != eject { $0.settings = eject } } }

    /// A count that anybody may read.
    public final class Tally: Sendable {
        private let value = Atomic<Int>(0)
        public var current: Int { value.load(ordering: .relaxed) }
        func add(_ amount: Int = 1) { value.wrappingAdd(amount, ordering: .relaxed) }
    }

    /// Notes how long an answer took.
    func took(_ time: Duration) {
        latency.add(Int(time.nanoseconds))
        answers.add()
    }

    /// Zero when nothing was answered yet.
    var meanLatency: Duration {
        let answers = answers.current
        return answers > 0 ? .nanoseconds(Int64(latency.current / answers)) : .zero
    }

    public var obstacles: Obstacle { Obstacle(rawValue: flags.load(ordering: .relaxed)) }
    public var isEligible: Bool { flags.load(ordering: .relaxed) == 0 }
    public var inFlight: Int { underWay.load(ordering: .relaxed) }
    public var mostInFlight: Int { mostUnderWay.load(ordering: .relaxed) }

    /// When the replica last got a request; nil: never.
    public var lastRequest: MonotonicTime? {
        let last = lastBegan.load(ordering: .relaxed)
        return last == 0 ? nil : MonotonicTime(nanoseconds: last)
    }

    /// Notes that a request begins. `time` is the loop's: the beginning of its turn.
    func began(_ time: MonotonicTime) {
        lastBegan.store(time.nanoseconds, ordering: .relaxed)
        let now = underWay.wrappingAdd(1, ordering: .relaxed).newValue
        if now > mostUnderWay.load(ordering: .relaxed) { mostUnderWay.store(now, ordering: .relaxed) }
    }
    func ended() { underWay.wrappingSubtract(1, ordering: .relaxed) }

    /// How long the replica has been fit, for slow start; nil when it need not warm up.
    func age(_ now: MonotonicTime) -> Duration? {
        let since = fitSince.load(ordering: .relaxed)
        return since == 0 ? nil : now - MonotonicTime(nanoseconds: since)
    }

    public func add(_ obstacle: Obstacle, because reason: String = "") {
        let before = flags.bitwiseOr(obstacle.rawValue, ordering: .relaxed).oldValue
        guard before & obstacle.rawValue == 0, !reason.isEmpty else { return }
        told.withLock {
            $0.obstacles.removeAll { $0.0 == obstacle }
            $0.obstacles.append((obstacle, reason, .now))
        }
    }

    public func remove(_ obstacle: Obstacle, because reason: String = "") {
        let change = flags.bitwiseAnd(~obstacle.rawValue, ordering: .relaxed)
        guard change.oldValue & obstacle.rawValue != 0 else { return }
        told.withLock {
            $0.obstacles.removeAll { $0.0 == obstacle }
            if !reason.isEmpty { $0.ready = (reason, .now) }
        }
        if change.newValue == 0 { fitSince.store(MonotonicTime.now.nanoseconds, ordering: .relaxed) }
    }

    /// Why the replica is in its state, and since when: of several obstacles, the one that `state` names.
    public var reason: (text: String, at: WallTime) {
        let named = leading
        return told.withLock { told in told.obstacles.first { $0.0 == named }.map { ($0.text, $0.at) } ?? told.ready }
    }

    private var leading: Obstacle? {
        let obstacles = obstacles
        return [.draining, .disabled, .down, .ejected].first { obstacles.contains($0) }
    }

    func succeeded() {
        guard watchesSuccess.load(ordering: .relaxed) else { return }
        // Flags change under the lock, with what they stand for.
        health.withLock {
            $0.requestSucceeded()
            watchesSuccess.store(false, ordering: .relaxed)
        }
    }

    /// Notes a failed request. Returns the decision if this failure ejects the replica; `mayGo` is asked only then: too many may be out
    /// already.
    func failed(_ now: MonotonicTime, cause: String, mayGo: () -> Bool) -> DecisionRecord? {
        failures.add()
        return health.withLock {
            watchesSuccess.store(true, ordering: .relaxed)
            let decision = $0.requestFailed(now, subject: name, cause: cause, mayEject: mayGo)
            if let decision, $0.isEjected { add(.ejected, because: decision.record.sentence) }
            return decision?.record
        }
    }

    /// Ejects the replica for how it compares with the others.
    func eject(_ now: MonotonicTime, because record: DecisionRecord) {
        health.withLock {
            $0.eject(now)
            watchesSuccess.store(true, ordering: .relaxed)
            add(.ejected, because: record.sentence)
        }
    }

    /// Ends an ejection whose time has come.
    func timePassed(_ now: MonotonicTime) {
        guard obstacles.contains(.ejected) else { return }
        health.withLock {
            guard $0.timePassed(now) else { return }
            watchesSuccess.store(true, ordering: .relaxed)
            remove(.ejected, because: "on probation: its next request decides")
        }
    }

    /// Call when a probe or the supervisor has seen the replica serve: an ejection ends early, on probation.
    public func seenServing() {
        guard obstacles.contains(.ejected) else { return }
        health.withLock {
            $0.recovered()
            watchesSuccess.store(true, ordering: .relaxed)
            remove(.ejected, because: "seen serving again, on probation: its next request decides")
        }
    }

    /// The state in one word, for tables.
    public var state: String {
        let obstacles = obstacles
        if obstacles.contains(.draining) { return "draining" }
        if obstacles.contains(.disabled) { return "disabled" }
        if obstacles.contains(.down) { return "down" }
        return obstacles.contains(.ejected) ? "ejected" : "ready"
    }
}
