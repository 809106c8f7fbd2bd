import Basics

/// The results of running a policy over a trace.
public struct ReplayOutcome: Sendable, Equatable {
    public struct Minute: Sendable, Equatable {
        /// The beginning of the minute.
        public let at: WallTime
        /// The demand divided by what the ready replicas carried, as the mean of the minute; infinite when nobody was ready.
        public let load: Double
        public let size: Int
        public let ready: Int
    }

    public struct Scaling: Sendable, Equatable {
        /// The index of the step at which the scaling was decided.
        public let index: Int
        public let before: Int
        public let after: Int
    }

    public let policy: String
    /// The length of the trace in hours.
    public let hours: Double
    /// The replica-hours that ran until the trace's end; starting and draining replicas count.
    public internal(set) var replicaHours = 0.0
    /// Minutes in which more was asked than the ready replicas carried (>), by any metric.
    public internal(set) var overloadMinutes = 0.0
    /// The part of all demand that was beyond what the ready replicas carried at its time; of the metric where that part is largest. From 0
    /// to 1.
    public internal(set) var overloadShare = 0.0
    /// Minutes in which nothing is known of any metric that bounds the load: neither overloaded nor not.
    public internal(set) var unknownMinutes = 0.0
    /// The minute with the highest load; nil when nothing bounds the load.
    public internal(set) var worst: Minute?
    public internal(set) var scalings: [Scaling] = []
    /// The number of scalings against the direction of the one before, at most 10 minutes (<=) after it.
    public internal(set) var flaps = 0
    public internal(set) var peak = 0
    /// Minutes of overload by their cause, the largest first.
    public internal(set) var overloadCauses: [(cause: OverloadCause, minutes: Double)] = []
    /// What held the sizes, the largest first.
    public internal(set) var holdings: [Holding] = []
    /// For each step, after its pass: how many replicas there are to be, how many are ready, and the load (NaN: unknown).
    public internal(set) var sizes: [Int32] = []
    public internal(set) var ready: [Int32] = []
    public internal(set) var loads: [Float] = []

    public var ups: Int { scalings.count { $0.after > $0.before } }
    public var downs: Int { scalings.count - ups }
    public var meanSize: Double { hours > 0 ? replicaHours / hours : 0 }

    /// How soon a turn in the other direction counts as a flap: twice the 5 minutes that kube-controller-manager waits before it shrinks.
    /// Replicas that came or went for so short a time served nothing else.
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
