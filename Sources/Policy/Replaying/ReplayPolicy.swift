import Autoscaling
import Basics

/// A policy as it is replayed: the autoscaler's own policy, and the inputs that the live loop takes from the calendar and from history.
public struct ReplayPolicy: Sendable, Equatable {
    /// The policy's name for people: the stack file it comes from.
    public let name: String
    public let scaling: ScalingPolicy
    public let floors: [ScheduleFloor]
    /// How far the clock of the schedule floors is ahead of UTC.
    public let offset: Duration
    /// How far ahead history is asked; nil means that it is not asked.
    public let forecastAhead: Duration?

    public init(
        _ name: String, _ scaling: ScalingPolicy, floors: [ScheduleFloor] = [], offset: Duration = .zero, forecastAhead: Duration? = nil
    ) {
        self.name = name
        self.scaling = scaling
        self.floors = floors
        self.offset = offset
        self.forecastAhead = forecastAhead
    }

    /// The same policy with only those of its metrics of which the trace knows anything; and the names of the others. Metrics that nobody
    /// recorded would otherwise fail at every pass, and an autoscaler takes nothing away on half the knowledge.
    public func measured(in trace: LoadTrace) -> (policy: ReplayPolicy, leftOut: [String]) {
        let known = scaling.metrics.filter { trace.series(of: $0.name) != nil }
        guard known.count < scaling.metrics.count else { return (self, []) }
        var fewer = scaling
        fewer.metrics = known
        return (
            ReplayPolicy(name, fewer, floors: floors, offset: offset, forecastAhead: forecastAhead),
            scaling.metrics.map(\.name).filter { name in !known.contains { $0.name == name } }
        )
    }

    /// Enough replicas for a first load by the policy's own targets, within its range: where a replay begins when nobody says otherwise.
    func firstSize(_ trace: LoadTrace, _ model: ReplicaModel) -> Int {
        if let recorded = trace.recordedSize.first, !recorded.isNaN { return held(Int(clamped: recorded.rounded())) }
        var most = scaling.minimum
        for metric in scaling.metrics {
            guard let index = trace.series(of: metric.name), let demand = trace.series[index].demand.first(where: { !$0.isNaN }) else {
                continue
            }
            let each: Double
            switch metric.target {
            case .utilization(let percent): each = (model.requests[metric.name] ?? 0) * Double(percent) / 100
            case .average(let target): each = Double(target) / 1000
            case .value: each = 0
            }
            if each > 0 { most = max(most, Int(clamped: min((demand / each).rounded(.up), Double(scaling.maximum)))) }
        }
        return held(most)
    }

    private func held(_ size: Int) -> Int { min(max(size, scaling.minimum, 1), max(1, scaling.maximum)) }
}
