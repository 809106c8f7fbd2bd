import Basics

/// Facts beyond the recorded figures themselves that are needed to turn them into demand.
public struct DemandRules: Sendable {
    public var step: Duration
    /// Metrics whose series without a replica are averages of the replicas, and not the whole.
    public var averages: Set<String>
    /// The amount that one replica requests, in cores or bytes: for figures in percent.
    public var requests: [String: Double]

    public init(step: Duration = .seconds(15), averages: Set<String> = [], requests: [String: Double] = [:]) {
        self.step = step
        self.averages = averages
        self.requests = requests
    }
}

extension Recording {
    /// The load of one service, on a grid of steps that begins with its first figure.
    ///
    /// - Complexity: O(points + steps × metrics), and a sort of the series that were not in order.
    public func trace(of service: String, _ rules: DemandRules) throws(ReplayFailure) -> LoadTrace {
        var gridding = try Gridding(self, service, rules)
        return try gridding.trace()
    }
}

/// Lays the series of one service on a grid.
private struct Gridding {
    private let service: String
    private let rules: DemandRules
    private let stepMilliseconds: Int64
    private let tellsChangesOnly: Bool
    private var series: [Recording.Series]
    private var notes: [String]
    private let start: Int64
    private let count: Int
    /// Figures laid on the grid until now, which is what it costs.
    private var laidOut = 0

    /// The recorded name of a series of sizes.
    private static let sizeName = "replicas"

    init(_ recording: Recording, _ service: String, _ rules: DemandRules) throws(ReplayFailure) {
        self.service = service
        self.rules = rules
        stepMilliseconds = max(1, rules.step.nanoseconds / 1_000_000)
        tellsChangesOnly = recording.tellsChangesOnly
        notes = recording.notes
        series = recording.series.filter { $0.service == service && !$0.points.isEmpty }
        guard !series.isEmpty else {
            let hint = nearestWord(to: service, in: recording.services).map { "; did you mean '\($0)'?" } ?? ""
            let known =
                recording.services.isEmpty
                ? "it holds no usable figure at all" : "it knows of \(Gridding.listed(recording.services))"
            throw ReplayFailure(.nothingToReplay, "nothing is recorded of '\(service)': \(known)\(hint)")
        }
        var lost = 0
        for index in series.indices { lost += series[index].tidy() }
        if lost > 0 {
            notes.append("left out because the same time comes again later in the recording: \(lost) \(lost == 1 ? "value" : "values")")
        }
        let first = series.map { $0.points[0].at }.min() ?? 0, last = series.map { $0.points[$0.points.count - 1].at }.max() ?? 0
        start = first
        let days = (last - first) / 86_400_000
        guard days <= LoadTrace.mostDays else {
            throw ReplayFailure(
                .tooLarge,
                "from \(CalendarTime.render(WallTime(milliseconds: first))) to \(CalendarTime.render(WallTime(milliseconds: last))) are "
                    + "\(days / 365) years, and at most \(LoadTrace.mostDays / 365) are replayed: is a time written in another unit?")
        }
        let steps = (last - first) / stepMilliseconds + 1
        guard steps <= LoadTrace.stepLimit else {
            throw ReplayFailure(
                .tooLarge,
                "\(steps) steps of \(rules.step.brief) are more than \(LoadTrace.stepLimit): is a time written in another unit? Or take a "
                    + "longer --step"
            )
        }
        count = Int(steps)
        let metrics = Set(series.map(\.metric)).count
        guard metrics.multipliedClamped(by: count) <= LoadTrace.figureLimit else {
            throw ReplayFailure(
                .tooLarge,
                "\(metrics) metrics at \(count) steps are more than \(LoadTrace.figureLimit) figures: take a longer --step, or leave "
                    + "metrics out that the policy does not know")
        }
    }

    private static func listed(_ names: [String]) -> String {
        names.prefix(5).joined(separator: ", ") + (names.count > 5 ? " and \(names.count - 5) more" : "")
    }

    mutating func trace() throws(ReplayFailure) -> LoadTrace {
        let sizes =
            series.contains { $0.metric == Gridding.sizeName }
            ? try grid(series.indices.filter { series[$0].metric == Gridding.sizeName }, 1).values : []
        var out: [LoadTrace.Series] = []
        for metric in Set(series.map(\.metric)).subtracting([Gridding.sizeName]).sorted() { out.append(try demand(of: metric, sizes)) }
        guard !out.isEmpty else {
            throw ReplayFailure(.nothingToReplay, "of '\(service)' only the number of replicas is recorded, and no load")
        }
        return LoadTrace(
            service: service, start: WallTime(milliseconds: start), step: rules.step, series: out, recordedSize: sizes, notes: notes)
    }

    private mutating func demand(of metric: String, _ sizes: [Double]) throws(ReplayFailure) -> LoadTrace.Series {
        let all = series.indices.filter { series[$0].metric == metric }
        // Figures of replicas say more than one figure of the whole; both together would count twice.
        let ofReplicas = all.filter { series[$0].form == .replica || series[$0].form == .replicaPercent }
        let chosen = ofReplicas.isEmpty ? all : ofReplicas
        if chosen.count < all.count {
            notes.append("\(metric) is recorded of each replica and of the whole: the replicas' figures are used")
        }
        let form = series[chosen[0]].form == .total && rules.averages.contains(metric) ? .average : series[chosen[0]].form
        guard !chosen.contains(where: { series[$0].form != series[chosen[0]].form }) else {
            throw ReplayFailure(.unknownUnit, "\(metric) of '\(service)' is recorded in percent and in figures: keep one of the two")
        }
        var factor = 1.0
        if form.isPercent {
            guard let request = rules.requests[metric], request > 0 else {
                throw ReplayFailure(
                    .unknownUnit,
                    "\(metric) of '\(service)' is recorded in percent of a request, and none is declared: add \(metric): to the stack file")
            }
            factor = request / 100
        }
        // A journal has what a counter grew in a second, and not the counter.
        let isCounter = metric.hasSuffix("_total") && !tellsChangesOnly
        if isCounter { makeRates(metric, chosen) }
        var laid = try grid(chosen, factor)
        if form.isAverage {
            guard !sizes.isEmpty else {
                throw ReplayFailure(
                    .unknownUnit,
                    "\(metric) of '\(service)' is an average of its replicas, and their number is not recorded: record a series named "
                        + "'replicas'"
                )
            }
            for step in laid.values.indices { laid.values[step] *= sizes[step] }
        }
        let source =
            switch form {
            case .total: "total as recorded"
            case .replica: laid.most == 1 ? "figure of the replica" : "sum of up to \(laid.most) replicas"
            case .average: "average times recorded replicas"
            case .replicaPercent: "percent of the request, sum of up to \(laid.most) replicas"
            case .averagePercent: "percent of the request times recorded replicas"
            }
        return LoadTrace.Series(metric, laid.values, origin: isCounter ? "growth in a second, \(source)" : source)
    }

    private mutating func makeRates(_ metric: String, _ chosen: [Int]) {
        var resets = 0
        for index in chosen {
            let rates = series[index].rates(longest: bridged(series[index]).longest)
            series[index].points = rates.points
            resets += rates.resets
        }
        if resets > 0 { notes.append("the counter \(metric) was reset \(resets) \(resets == 1 ? "time" : "times")") }
    }

    /// How long a figure stands by itself, and how long when another one follows.
    private func bridged(_ one: Recording.Series) -> (usual: Int64, longest: Int64) {
        if tellsChangesOnly { return (stepMilliseconds, .max) }
        let usual = max(one.usualDistance ?? stepMilliseconds, stepMilliseconds)
        return (usual, usual * LoadTrace.bridgedDistances)
    }

    /// The sum of some series at each step, NaN where none has a figure; and the most that had one at once.
    private mutating func grid(_ chosen: [Int], _ factor: Double) throws(ReplayFailure) -> (values: [Double], most: Int) {
        var sums = [Double](repeating: 0, count: count)
        var have = [Int32](repeating: 0, count: count)
        for index in chosen {
            let one = series[index], (usual, longest) = bridged(one)
            for (position, point) in one.points.enumerated() where !point.value.isNaN {
                var until = point.at + usual
                if position + 1 < one.points.count {
                    let next = one.points[position + 1].at
                    until = next - point.at <= longest ? next : min(next, until)
                }
                // The first step at or after the point, to the last one before its end.
                var step = Int((point.at - start + stepMilliseconds - 1) / stepMilliseconds)
                let end = min(count, Int((until - start + stepMilliseconds - 1) / stepMilliseconds))
                laidOut.addClamped(max(0, end - step))
                guard laidOut <= LoadTrace.workLimit else {
                    throw ReplayFailure(
                        .tooLarge,
                        "more than \(LoadTrace.workLimit) figures of replicas would be laid on \(count) steps of \(rules.step.brief): "
                            + "take a longer --step, or replay a shorter time")
                }
                while step < end {
                    sums[step] += point.value
                    have[step] += 1
                    step += 1
                }
            }
        }
        var most: Int32 = 0
        for step in 0..<count {
            if have[step] == 0 { sums[step] = .nan } else { sums[step] *= factor }
            most = max(most, have[step])
        }
        return (sums, Int(most))
    }
}
