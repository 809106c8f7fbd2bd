import Basics

/// What a policy made of a trace.
public struct ReplayOutcome: Sendable, Equatable {
    public struct Minute: Sendable, Equatable {
        /// Its beginning.
        public let at: WallTime
        /// What was asked over what the ready replicas carried, the mean of the minute; infinite when nobody was ready.
        public let load: Double
        public let size: Int
        public let ready: Int
    }

    public struct Scaling: Sendable, Equatable {
        /// The step it was decided at.
        public let index: Int
        public let before: Int
        public let after: Int
    }

    public let policy: String
    /// Hours of the trace.
    public let hours: Double
    /// What ran, starting and draining replicas with it, until the trace's end.
    public internal(set) var replicaHours = 0.0
    /// Minutes in which more was asked than the ready replicas carried (>), by any metric.
    public internal(set) var overloadMinutes = 0.0
    /// Of all that was asked, the part beyond what the ready replicas carried at its time; of the metric where it is most. From 0 to 1.
    public internal(set) var overloadShare = 0.0
    /// Minutes in which nothing is known of any metric that bounds the load: neither overloaded nor not.
    public internal(set) var unknownMinutes = 0.0
    /// The minute with the highest load; nil when nothing bounds the load.
    public internal(set) var worst: Minute?
    public internal(set) var scalings: [Scaling] = []
    /// Scalings against the direction of the one before, at most 10 minutes (<=) after it.
    public internal(set) var flaps = 0
    public internal(set) var peak = 0
    /// Minutes of overload by what caused them, the most first.
    public internal(set) var overloadCauses: [(cause: OverloadCause, minutes: Double)] = []
    /// The most first.
    public internal(set) var holdings: [Holding] = []
    /// At each step, after its pass: how many there are to be, how many are ready, and the load (NaN: unknown).
    public internal(set) var sizes: [Int32] = []
    public internal(set) var ready: [Int32] = []
    public internal(set) var loads: [Float] = []

    public var ups: Int { scalings.count { $0.after > $0.before } }
    public var downs: Int { scalings.count - ups }
    public var meanSize: Double { hours > 0 ? replicaHours / hours : 0 }

    /// A turn within twice the 5 minutes that kube-controller-manager waits before it shrinks: the replicas that came or went served
    /// nothing else.
    public static let flapWindow = Duration.seconds(600)

    public static func == (a: ReplayOutcome, b: ReplayOutcome) -> Bool {
        a.policy == b.policy && a.replicaHours == b.replicaHours && a.overloadMinutes == b.overloadMinutes
            && a.overloadShare == b.overloadShare
            && a.unknownMinutes == b.unknownMinutes && a.worst == b.worst && a.scalings == b.scalings && a.flaps == b.flaps
            && a.holdings == b.holdings
            && a.sizes == b.sizes && a.ready == b.ready && a.overloadCauses.map(\.cause) == b.overloadCauses.map(\.cause)
            && a.overloadCauses.map(\.minutes) == b.overloadCauses.map(\.minutes)
    }

    /// How often the direction turned so soon.
    static func flaps(_ scalings: [Scaling], step: Duration) -> Int {
        var count = 0
        for index in scalings.indices.dropFirst() {
            let before = scalings[index - 1], now = scalings[index]
            let turned = (now.after > now.before) != (before.after > before.before)
            let apart = Int64(now.index - before.index) * step.nanoseconds
            if turned, apart <= flapWindow.nanoseconds { count += 1 }
        }
        return count
    }
}
