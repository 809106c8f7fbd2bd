import Basics

/// The number of replicas that one metric asks for, and why.
public struct MetricProposal: Sendable, Equatable {
    public enum Reason: Sendable, Equatable {
        case withinTolerance
        /// The size is the ratio times the replicas that count.
        case ratio
        /// The size is held: figures were assumed for replicas that have none or are not ready, and those would have turned the direction
        /// or overshot it.
        case heldByAssumptions
        /// The size comes from the ratio, with figures assumed for replicas that have none or are not ready.
        case ratioWithAssumptions
        /// The size is the whole divided by the target of each.
        case share
        /// The metric asks for fewer, but a figure was thrown away or is a part of the whole (`MetricRemarks`): the size is held.
        case heldByDoubt
    }

    public let replicas: Int
    /// The ratio of the measured figures to the target, before anything was assumed.
    public let ratio: Double
    /// The use of the request in whole percent; nil where the target is no utilization.
    public let utilization: Int?
    /// The measured figure in thousandths: of each replica for an average, else in all.
    public let usage: Int
    public let reason: Reason
    /// The number of replicas that counted, and of those for which a figure was assumed.
    public let counted: Int
    public let assumedMissing: Int
    public let assumedUnready: Int

    /// The same figures, asking for the present size because they may be too small.
    func held(at current: Int) -> MetricProposal {
        MetricProposal(
            replicas: current, ratio: ratio, utilization: utilization, usage: usage, reason: .heldByDoubt, counted: counted,
            assumedMissing: assumedMissing, assumedUnready: assumedUnready)
    }
}

/// From one metric's reading to a number of replicas: Kubernetes' replica calculator (v1.36), pure.
public struct ProposalRules: Sendable {
    let replicas: [ReplicaState]
    let current: Int
    let status: Int
    let tolerance: Tolerance
    let groups: ReplicaGroups.Settings
    let now: MonotonicTime

    /// Rules for a service of which `current` replicas are to be, and `status` replicas are there.
    public init(
        replicas: [ReplicaState], current: Int, status: Int, tolerance: Tolerance, groups: ReplicaGroups.Settings, now: MonotonicTime
    ) {
        self.replicas = replicas
        self.current = current
        self.status = status
        self.tolerance = tolerance
        self.groups = groups
        self.now = now
    }

    /// The number of replicas that the metric asks for, before anything but its own tolerance holds it.
    public func proposal(_ metric: ScalingMetric, _ reading: MetricReading) throws(MetricFault) -> MetricProposal {
        if case .failed(let fault) = reading { throw fault }
        switch metric.target {
        case .utilization(let target), .average(let target), .value(let target):
            if target <= 0 { throw .unreadable("a target of \(target) is none") }
        }
        switch (metric.source, metric.target) {
        case (.unknown(let name), _): throw .unknownSource(name)
        case (.object, .average(let target)), (.external, .average(let target)): return share(try total(reading), target)
        case (.object, .value(let target)), (.external, .value(let target)): return try multiple(try total(reading), target)
        case (.object, .utilization), (.external, .utilization): throw .unreadable("a share of the request is known of resources only")
        case (.resource(let resource, _), _): return try ofEach(metric, reading, isCPU: resource == .cpu)
        case (.replicas, .utilization): throw .unreadable("a share of the request is known of resources only")
        case (.replicas, .value): throw .unreadable("a figure that each replica tells needs an average as its target")
        case (.replicas, .average): return try ofEach(metric, reading, isCPU: false)
        }
    }

    // MARK: figures of each replica

    private func ofEach(_ metric: ScalingMetric, _ reading: MetricReading, isCPU: Bool) throws(MetricFault) -> MetricProposal {
        guard case .samples(let samples, let declared) = reading, !samples.isEmpty else { throw .noMetrics }
        guard !replicas.isEmpty else { throw .noReplicas }
        let sorted = ReplicaGroups(replicas, samples: samples, isCPU: isCPU, settings: groups, now: now)
        guard !sorted.kept.isEmpty else { throw .noUsableMetrics }
        var requests: [Int]?
        if case .utilization = metric.target {
            guard let declared else { throw .missingRequest }
            requests = try declared.get()
        }
        var totals = UsageTotals()
        for (index, value) in sorted.kept { totals.add(value: value, request: requests.map { all in index.map { all[$0] } } ?? nil) }
        let measured = try ratio(metric.target, totals)
        return try fromRatio(measured, metric.target, sorted, requests, totals)
    }

    private func ratio(_ target: ScalingMetric.Target, _ totals: UsageTotals) throws(MetricFault) -> UsageTotals.Ratio {
        switch target {
        case .utilization(let percent): try totals.utilization(target: percent)
        case .average(let each), .value(let each): try totals.average(target: each)
        }
    }

    private func fromRatio(
        _ measured: UsageTotals.Ratio, _ target: ScalingMetric.Target, _ sorted: ReplicaGroups, _ requests: [Int]?, _ totals: UsageTotals
    ) throws(MetricFault) -> MetricProposal {
        let r = measured.ratio, upUnready = sorted.unreadyCount > 0 && r > 1
        func answer(_ count: Int, _ reason: MetricProposal.Reason, missing: Int = 0, unready: Int = 0) -> MetricProposal {
            MetricProposal(
                replicas: count, ratio: r, utilization: measured.utilization, usage: measured.average, reason: reason,
                counted: sorted.readyCount,
                assumedMissing: missing, assumedUnready: unready)
        }
        if !upUnready, sorted.missingCount == 0 {
            if tolerance.holds(r) { return answer(current, .withinTolerance) }
            return answer(.replicas(r * Double(sorted.readyCount)), .ratio)
        }
        var filled = totals, missing = 0, unready = 0
        for (index, group) in sorted.groups.enumerated() {
            let request = requests?[index]
            if group == .missing, r != 1 {
                filled.add(value: r < 1 ? assumedAtRest(target, request) : 0, request: request)
                missing += 1
            } else if group == .unready, upUnready {
                filled.add(value: 0, request: request)
                unready += 1
            }
        }
        let again = try ratio(target, filled).ratio
        let turned = (r < 1 && again > 1) || (r > 1 && again < 1)
        if tolerance.holds(again) || turned { return answer(current, .heldByAssumptions, missing: missing, unready: unready) }
        let count = Int.replicas(again * Double(filled.count))
        let overshot = (again < 1 && count > current) || (again > 1 && count < current)
        return answer(overshot ? current : count, overshot ? .heldByAssumptions : .ratioWithAssumptions, missing: missing, unready: unready)
    }

    /// What a replica without a figure is taken to use before the size may shrink: its whole request, or the target where that is more.
    private func assumedAtRest(_ target: ScalingMetric.Target, _ request: Int?) -> Int {
        switch target {
        case .utilization(let percent): (request ?? 0).multipliedClamped(by: max(100, percent)) / 100
        case .average(let each), .value(let each): each
        }
    }

    // MARK: one figure for all

    private func total(_ reading: MetricReading) throws(MetricFault) -> Int {
        switch reading {
        case .value(let value): return value
        case .values(let values):
            guard !values.isEmpty else { throw .noMetrics }
            return values.sumClamped()
        default: throw .noMetrics
        }
    }

    private func multiple(_ value: Int, _ target: Int) throws(MetricFault) -> MetricProposal {
        let r = Double(value) / Double(target)
        func answer(_ count: Int, _ reason: MetricProposal.Reason, _ counted: Int) -> MetricProposal {
            MetricProposal(
                replicas: count, ratio: r, utilization: nil, usage: value, reason: reason, counted: counted, assumedMissing: 0,
                assumedUnready: 0)
        }
        if current == 0 { return answer(.replicas(r), .ratio, 0) }
        if tolerance.holds(r) { return answer(current, .withinTolerance, current) }
        guard !replicas.isEmpty else { throw .noReplicas }
        let serving = replicas.count { $0.phase == .running && $0.ready == .yes && !ReplicaGroups.isWarmingUp($0, groups, now) }
        return answer(.replicas(r * Double(serving)), .ratio, serving)
    }

    private func share(_ value: Int, _ target: Int) -> MetricProposal {
        let r = Double(value) / (Double(target) * Double(status))
        let held = tolerance.holds(r)
        // With no replica there is nothing to divide by, and nothing is what each has.
        let each = status > 0 ? Int.milli((Double(value) / Double(status)).rounded(.up)) : 0
        return MetricProposal(
            replicas: held ? status : .replicas(Double(value) / Double(target)), ratio: r, utilization: nil, usage: each,
            reason: held ? .withinTolerance : .share, counted: status, assumedMissing: 0, assumedUnready: 0)
    }
}

extension Int {
    /// A computed figure as thousandths, held to the range of Int; 0 for what is no number.
    static func milli(_ computed: Double) -> Int {
        Int(clamped: computed)
    }
}
