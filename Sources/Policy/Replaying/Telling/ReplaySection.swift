import Basics
import Drawing

/// A replay of one service as it is told: its picture, the comparison of its policies, and what a reader has to know about the figures.
public struct ReplaySection: Sendable {
    public let picture: ReplayPicture
    /// nil where one policy was replayed.
    public let comparison: Comparison?
    public let notes: [String]

    public init(_ picture: ReplayPicture, _ comparison: Comparison?, notes: [String]) {
        self.picture = picture
        self.comparison = comparison
        self.notes = notes
    }

    /// The section as a part of a page.
    public var report: HTMLReport.Section {
        let trace = picture.trace, outcomes = picture.runs.map(\.outcome)
        return HTMLReport.Section(
            title: "Replay of \(trace.service)",
            subtitle: "\(Figures.date(trace.start)) to \(Figures.date(trace.time(of: trace.count))) UTC, \(trace.count) steps of "
                + "\(trace.step.brief)",
            verdict: comparison.map { ($0.sentence, $0.difference) }, figures: ReplayTable.rows(outcomes), chart: picture.chart,
            causes: ("What held the size, and what left it too small", causes(outcomes)),
            notes: trace.series.map { "Demand of \($0.metric): \($0.origin)." } + notes + trace.notes)
    }

    /// Replica-hours that each constraint kept or withheld, and minutes of overload by cause.
    private func causes(_ outcomes: [ReplayOutcome]) -> [[String]] {
        var rows = [[""] + outcomes.map(\.policy)]
        for cause in HoldCause.allCases {
            let found = outcomes.map { one in one.holdings.first { $0.cause == cause } }
            if found.contains(where: { ($0?.kept ?? 0) > 0 }) {
                rows.append(["\(cause.rawValue): kept, replica-hours"] + found.map { Figures.fixed($0?.kept ?? 0) })
            }
            if found.contains(where: { ($0?.withheld ?? 0) > 0 }) {
                rows.append(["\(cause.rawValue): withheld, replica-hours"] + found.map { Figures.fixed($0?.withheld ?? 0) })
            }
        }
        let causes = Set(outcomes.flatMap { $0.overloadCauses.map(\.cause) }).sorted { $0.name < $1.name }
        for cause in causes {
            rows.append(
                ["\(cause.name): overload-minutes"]
                    + outcomes.map { one in Figures.fixed(one.overloadCauses.first { $0.cause == cause }?.minutes ?? 0) })
        }
        return rows
    }
}
