import Basics

/// A load test: its requests, how many of them are sent when, and what is expected of the answers.
public struct Scenario: Sendable, Equatable {
    public let name: String
    /// The server under load; nil stands for the gateway of the stack that runs.
    public let target: LoadTarget?
    /// The requests, at least one.
    public let requests: [LoadRequest]
    /// The phases, at least one and at most `mostPhases`.
    public let phases: [LoadPhase]
    public let expectations: [LoadExpectation]
    /// How the arrivals of the open phases are spaced.
    public let spacing: ArrivalSchedule.Spacing
    /// The seed of everything random but UUIDs: Poisson arrivals, the choice among requests, think times.
    public let seed: UInt64
    /// The time from sending a request (and connecting for it) to the end of its answer; a request that takes longer has failed.
    public let timeout: Duration
    /// The most connections of the open phases, and so the most requests under way. A request that finds no connection free is sent when
    /// one is: its latency counts from when it was due. (A user of the closed phases has a connection of its own.)
    public let connections: Int
    /// The lines at which the scenario's parts stand in its file, for messages.
    public var places = Places()

    /// Lines of a scenario's file, from 1.
    public struct Places: Sendable, Equatable {
        /// The lines of the phases, and of the requests; empty for a scenario that came from no file.
        public var phases: [Int]
        public var requests: [Int]

        public init(phases: [Int] = [], requests: [Int] = []) {
            self.phases = phases
            self.requests = requests
        }

        func phase(_ index: Int) -> Int? { index < phases.count ? phases[index] : nil }
        func request(_ index: Int) -> Int? { index < requests.count ? requests[index] : nil }
    }

    public static let mostPhases = 100
    public static let mostRequests = 50
    /// The longest time that all phases together may take.
    public static let longest = Duration.seconds(24 * 3600)
    /// The default of `timeout`. k6's is a minute; nobody waits so long for a page.
    public static let defaultTimeout = Duration.seconds(10)
    public static let defaultConnections = 1000
    public static let mostConnections = mostUsers

    public init(
        name: String = "load", target: LoadTarget? = nil, requests: [LoadRequest], phases: [LoadPhase],
        expectations: [LoadExpectation] = [],
        spacing: ArrivalSchedule.Spacing = .even, seed: UInt64 = 1, timeout: Duration = Scenario.defaultTimeout,
        connections: Int = Scenario.defaultConnections
    ) {
        precondition(!requests.isEmpty && !phases.isEmpty)
        self.name = name
        self.target = target
        self.requests = requests
        self.phases = phases
        self.expectations = expectations
        self.spacing = spacing
        self.seed = seed
        self.timeout = timeout
        self.connections = connections
    }

    /// The same scenario with another target, expectations or seed; nil leaves the present one.
    public func changing(target: LoadTarget? = nil, expectations: [LoadExpectation]? = nil, seed: UInt64? = nil) -> Scenario {
        var changed = Scenario(
            name: name, target: target ?? self.target, requests: requests, phases: phases, expectations: expectations ?? self.expectations,
            spacing: spacing,
            seed: seed ?? self.seed, timeout: timeout, connections: connections)
        changed.places = places
        return changed
    }

    public var duration: Duration { phases.reduce(.zero) { $0 + $1.duration } }
    public var isOpen: Bool { phases.contains { $0.unit == .arrivals } }
    public var isClosed: Bool { phases.contains { $0.unit == .users } }

    /// The most connections that the scenario may need at once.
    public var peakConnections: Int {
        let users = phases.filter { $0.unit == .users }.map { max($0.from, $0.to) }.max() ?? 0
        return Int(clamped: users).addingClamped(isOpen ? connections : 0)
    }
}

/// Chooses among requests by their weights: the same seed gives the same row of choices. O(log requests).
public struct RequestChoice: Sendable {
    private let ends: [Int]
    private var random: SeededRandom

    public init(_ requests: [LoadRequest], seed: UInt64) {
        var sum = 0
        ends = requests.map {
            sum += $0.weight
            return sum
        }
        random = SeededRandom(seed: seed)
    }

    public mutating func next() -> Int {
        if ends.count == 1 { return 0 }
        let drawn = Int.random(in: 0..<ends[ends.count - 1], using: &random)
        var low = 0, high = ends.count - 1
        while low < high {
            let middle = (low + high) / 2
            if drawn < ends[middle] { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
