import Autoscaling
import Basics

/// The cost and the capacity of a replica, for a replay: how long it takes to become ready, how much it serves, how long it takes to leave.
public struct ReplicaModel: Sendable, Equatable {
    /// The time from start to ready. A single time always applies. Of several times one is drawn for each start, each as likely, the same
    /// in every replay of the same trace. Never empty.
    public let startTimes: [Duration]
    /// The capacity of one replica for each metric, in the metric's unit (cores, bytes, requests a second). The service is overloaded while
    /// the demand of any metric is above (>) what its ready replicas carry together.
    public let capacity: [String: Double]
    /// The amount of a resource that one replica requests, in cores or bytes.
    public let requests: [String: Double]
    /// After becoming ready a replica's capacity grows in a straight line to the whole, from a tenth (Envoy's least in slow start).
    public let warmUp: Duration
    /// The time from being told to leave to the replica's end. A replica that drains costs, and carries nothing.
    public let drain: Duration
    /// Whether a replica's own figures show at most its capacity, as where a limit cuts what it takes. Otherwise they show what it was
    /// asked for.
    public let saturates: Bool

    public init(
        startTimes: [Duration], capacity: [String: Double], requests: [String: Double] = [:], warmUp: Duration = .zero,
        drain: Duration = .zero,
        saturates: Bool = false
    ) {
        self.startTimes = startTimes.isEmpty ? [.zero] : startTimes.map { max(.zero, $0) }
        self.capacity = capacity
        self.requests = requests
        self.warmUp = warmUp
        self.drain = max(.zero, drain)
        self.saturates = saturates
    }

    static let leastWarmth = 0.1

    /// How much of its capacity a replica has `age` after it became ready.
    func warmth(_ age: Duration) -> Double {
        guard warmUp > .zero, age < warmUp else { return 1 }
        return max(ReplicaModel.leastWarmth, Double(age.nanoseconds) / Double(warmUp.nanoseconds))
    }

    /// The capacity of one replica by `policy`, where nobody has declared it: for a resource the amount that the replica requests; for
    /// another metric its target for each replica with the tolerance upwards, which is what the autoscaler itself lets stand. There is no
    /// capacity for a metric whose target is a total.
    public static func capacity(of policy: ScalingPolicy, requests: [String: Double]) -> [String: Double] {
        var out: [String: Double] = [:]
        for metric in policy.metrics {
            switch metric.target {
            case .utilization: out[metric.name] = requests[metric.name]
            case .average(let each): out[metric.name] = requests[metric.name] ?? Double(each) / 1000 * (1 + policy.tolerance.up)
            case .value: break
            }
        }
        return out
    }
}
