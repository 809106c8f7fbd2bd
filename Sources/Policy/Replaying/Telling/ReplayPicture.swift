import Autoscaling
import Basics
import Drawing

/// What a chart of a replay shows: of a trace the demand of one metric, and for each policy what its ready replicas carried and how many
/// there were.
public struct ReplayPicture: Sendable {
    public struct Run: Sendable {
        public let policy: ReplayPolicy
        public let model: ReplicaModel
        public let outcome: ReplayOutcome

        public init(_ policy: ReplayPolicy, _ model: ReplicaModel, _ outcome: ReplayOutcome) {
            self.policy = policy
            self.model = model
            self.outcome = outcome
        }
    }

    public let trace: LoadTrace
    public let runs: [Run]
    /// Of the trace's series the one that is drawn: the first that a policy scales by and something bounds, else the first.
    let series: Int

    public init(_ trace: LoadTrace, _ runs: [Run]) {
        self.trace = trace
        self.runs = runs
        let wanted = runs.flatMap { run in run.policy.scaling.metrics.map(\.name).filter { run.model.capacity[$0] != nil } }
        series = wanted.lazy.compactMap { trace.series(of: $0) }.first ?? 0
    }

    var metric: String { trace.series[series].metric }

    /// `cpu (cores)`.
    var title: String {
        switch metric {
        case "cpu": "cpu (cores)"
        case "memory": "memory (bytes)"
        default: metric.hasSuffix("_total") ? "\(metric) (a second)" : metric
        }
    }

    /// A run's capacity of the drawn metric for each replica; nil where nothing bounds it.
    func capacity(_ run: Run) -> Double? {
        let plain = LoadTrace.withoutTotal(metric)
        return run.model.capacity[metric] ?? run.model.capacity[plain]
    }

    /// The picture as numbers and names, for whoever draws it.
    public var chart: LoadChart {
        LoadChart(
            subject: trace.service, metric: metric, title: title, start: trace.start, step: trace.step, count: trace.count,
            demand: trace.series[series].demand,
            runs: runs.map { run in
                LoadChart.Run(
                    run.policy.name, capacity: capacity(run), peak: run.outcome.peak, sizes: run.outcome.sizes, ready: run.outcome.ready,
                    loads: run.outcome.loads)
            })
    }
}
