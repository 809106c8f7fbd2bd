import Autoscaling
import Basics

/// What a replica costs and carries, for a replay: how long it takes to become ready, how much it serves, how long it takes to leave.
public struct ReplicaModel: Sendable, Equatable {
    /// From start to ready. One: always so long. Several: drawn from them, each as likely, the same in every replay of the same trace.
    /// Never empty.
    public let startTimes: [Duration]
    /// What one replica carries, for each metric, in its unit (cores, bytes, requests a second); the service is overloaded while the demand
    /// of any of them is above (>) what its ready replicas carry together.
    public let capacity: [String: Double]
    /// What one replica requests of a resource, in cores or bytes.
    public let requests: [String: Double]
    /// After becoming ready a replica's capacity grows in a straight line to the whole, from a tenth (Envoy's least in slow start).
    public let warmUp: Duration
    /// From being told to leave to its end. It costs, and carries nothing.
    public let drain: Duration
    /// A replica's own figures show at most its capacity, as where a limit cuts what it takes; else what it was asked for.
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

    /// What one replica carries by `policy`, where nobody has declared it: of a resource what it requests; of another metric its target for
    /// each replica with the tolerance upwards, which is what the autoscaler itself lets stand. Nothing for a metric whose target is a
    /// total.
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
