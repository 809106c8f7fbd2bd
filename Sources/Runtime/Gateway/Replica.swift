import Balancing
import Basics
import EventLoops
import Observability
import Synchronization

/// One place that requests can be sent to, as all loops of the gateway see it.
public final class Replica: Sendable {
    /// Why a replica gets no requests; several may hold at once.
    public struct Obstacle: OptionSet, Sendable {
        public let rawValue: Int
        public init(rawValue: Int) { self.rawValue = rawValue }
        /// A probe, or the supervisor, says that it does not serve.
        public static let down = Obstacle(rawValue: 1)
        /// Its requests failed.
        public static let ejected = Obstacle(rawValue: 2)
        /// It finishes what it has and then goes.
        public static let draining = Obstacle(rawValue: 4)
    }

    /// `correlation-engine/2`, or an address.
    public let name: String
    public let endpoint: Endpoint
    public let weight: Int
    public let requests = Tally()
    public let failures = Tally()
    private let flags: Atomic<Int>
    private let underWay = Atomic<Int>(0)
    private let health: Mutex<PassiveHealth>
    /// A success matters to the passive health only after a failure; otherwise it need not take the lock.
    private let watchesSuccess = Atomic<Bool>(false)

    public init(name: String, endpoint: Endpoint, weight: Int = 1, startsDown: Bool = false, eject: PassiveHealth.Settings = .init()) {
        self.name = name
        self.endpoint = endpoint
        self.weight = weight
        flags = Atomic(startsDown ? Obstacle.down.rawValue : 0)
        health = Mutex(PassiveHealth(eject))
    }

    /// A count that anybody may read.
    public final class Tally: Sendable {
        private let value = Atomic<Int>(0)
        public var current: Int { value.load(ordering: .relaxed) }
        func add() { value.wrappingAdd(1, ordering: .relaxed) }
    }

    public var obstacles: Obstacle { Obstacle(rawValue: flags.load(ordering: .relaxed)) }
    public var isEligible: Bool { flags.load(ordering: .relaxed) == 0 }
    public var inFlight: Int { underWay.load(ordering: .relaxed) }

    func began() { underWay.wrappingAdd(1, ordering: .relaxed) }
    func ended() { underWay.wrappingSubtract(1, ordering: .relaxed) }

    public func add(_ obstacle: Obstacle) { flags.bitwiseOr(obstacle.rawValue, ordering: .relaxed) }
    public func remove(_ obstacle: Obstacle) { flags.bitwiseAnd(~obstacle.rawValue, ordering: .relaxed) }

    func succeeded() {
        guard watchesSuccess.load(ordering: .relaxed) else { return }
        // Flags change under the lock, with what they stand for.
        health.withLock {
            $0.requestSucceeded()
            watchesSuccess.store(false, ordering: .relaxed)
        }
    }

    /// The decision, when this failure ejects it.
    func failed(_ now: MonotonicTime, cause: String) -> DecisionRecord? {
        failures.add()
        return health.withLock {
            watchesSuccess.store(true, ordering: .relaxed)
            let decision = $0.requestFailed(now, subject: name, cause: cause)
            if decision != nil { add(.ejected) }
            return decision?.record
        }
    }

    /// Ends an ejection whose time has come.
    func timePassed(_ now: MonotonicTime) {
        guard obstacles.contains(.ejected) else { return }
        health.withLock {
            guard $0.timePassed(now) else { return }
            watchesSuccess.store(true, ordering: .relaxed)
            remove(.ejected)
        }
    }

    /// A probe or the supervisor has seen it serve: an ejection ends early, on probation.
    public func seenServing() {
        guard obstacles.contains(.ejected) else { return }
        health.withLock {
            $0.recovered()
            watchesSuccess.store(true, ordering: .relaxed)
            remove(.ejected)
        }
    }

    /// One word for tables.
    public var state: String {
        let obstacles = obstacles
        if obstacles.contains(.draining) { return "draining" }
        if obstacles.contains(.down) { return "down" }
        return obstacles.contains(.ejected) ? "ejected" : "ready"
    }
}
