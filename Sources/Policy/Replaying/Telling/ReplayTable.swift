import Basics
import Drawing

/// The figures of a replay side by side: a row for each figure, a column for each policy.
public enum ReplayTable {
    /// The rows of the table. The first row names the policies.
    public static func rows(_ outcomes: [ReplayOutcome]) -> [[String]] {
        var rows = [[""] + outcomes.map(\.policy)]
        func row(_ name: String, _ value: (ReplayOutcome) -> String) { rows.append([name] + outcomes.map(value)) }
        row("replica-hours") { Figures.fixed($0.replicaHours) }
        row("overload-minutes") { Figures.fixed($0.overloadMinutes) }
        row("beyond capacity") { "\(Figures.fixed($0.overloadShare * 100, 2)) %" }
        row("worst minute") { one in
            one.worst.map { "\(Figures.moment($0.at)), \(LoadChart.words(ofLoad: $0.load))" } ?? "no capacity known"
        }
        row("scalings") { "\($0.scalings.count) (\($0.ups) up, \($0.downs) down)" }
        row("flaps") { String($0.flaps) }
        row("replicas") { "\($0.sizes.min() ?? 0) to \($0.peak), mean \(Figures.fixed($0.meanSize))" }
        if outcomes.contains(where: { $0.unknownMinutes > 0 }) { row("minutes unknown") { Figures.fixed($0.unknownMinutes) } }
        return rows
    }
}
