import Basics

extension ScalingVerdict {
    /// The decision in words, for the journal. `policy` is the policy by which it was made.
    public func record(of service: String, _ policy: ScalingPolicy) -> DecisionRecord {
        let words = ScalingWords(service: service, verdict: self, policy: policy)
        return DecisionRecord(
            .scale, subject: service, inputs: words.inputs, raw: raw.map(String.init) ?? "none", constraints: steps.map(words.constraint),
            outcome: String(outcome), sentence: words.sentence, flip: words.flip)
    }

    /// Whether a person would call it the same decision as `other`: the same size, held by the same thing last, though the figures have
    /// moved.
    public func isLike(_ other: ScalingVerdict) -> Bool {
        func shape(_ step: ScalingStep) -> String {
            switch step.kind {
            case .stabilized(let up, _, _): "stabilized \(up)"
            case .limited(let reason, _): reason.rawValue
            case .forecast: "forecast"
            default: "\(step.kind)"
            }
        }
        func faults(_ verdict: ScalingVerdict) -> [Int] {
            verdict.proposals.indices.filter { if case .failure = verdict.proposals[$0] { true } else { false } }
        }
        // That a figure is thrown away is news; which one, and how it reads now, is not.
        func doubts(_ verdict: ScalingVerdict) -> [Int] {
            verdict.remarks.indices.filter { verdict.remarks[$0].isDoubtful }
        }
        return current == other.current && outcome == other.outcome && failure == other.failure && faults(self) == faults(other)
            && doubts(self) == doubts(other)
            && steps.last.map(shape) == other.steps.last.map(shape)
    }
}

/// The words of a verdict: everything a person reads about a decision to scale is made here, from its figures.
struct ScalingWords {
    let service: String
    let verdict: ScalingVerdict
    let policy: ScalingPolicy

    var inputs: [DecisionRecord.Input] {
        var list = [DecisionRecord.Input("replicas", verdict.current), .init("range", "\(policy.minimum)..\(policy.maximum)")]
        for (index, (metric, proposal)) in zip(policy.metrics, verdict.proposals).enumerated() {
            switch proposal {
            case .success(let one):
                list.append(
                    .init(
                        metric.name,
                        "\(measured(metric, one)), target \(target(metric)): \(replicas(one.replicas))\(assumptions(one))"
                            + told(remarks(index).thrownAway, "thrown away") + told(remarks(index).missing, "not known")
                            + told(remarks(index).notes, "note")))
            case .failure(let fault): list.append(.init(metric.name, "unknown: \(fault)"))
            }
        }
        return list
    }

    private func remarks(_ index: Int) -> MetricRemarks { index < verdict.remarks.count ? verdict.remarks[index] : MetricRemarks() }

    private func told(_ list: [String], _ what: String) -> String { list.isEmpty ? "" : "; \(what): \(MetricRemarks.text(list))" }

    // MARK: the sentence

    var sentence: String {
        if let failure = verdict.failure {
            let knowsSome = verdict.proposals.contains { if case .success = $0 { true } else { false } }
            let others = knowsSome ? "; the metrics that are known ask for fewer, and nothing is taken away on half the knowledge" : ""
            return "\(service) stays at \(replicas(verdict.current)): \(failingMetric)\(failure)\(others)."
        }
        if case .switchedOff = verdict.steps.first?.kind {
            return "\(service) stays at 0 replicas: somebody set it to 0, and the autoscaler leaves that alone."
        }
        let change =
            verdict.outcome == verdict.current
            ? "\(service) stays at \(replicas(verdict.current))" : "\(service) goes from \(verdict.current) to \(replicas(verdict.outcome))"
        guard let raw = verdict.raw else { return "\(change): \(verdict.steps.map(cause).joined(separator: "; "))." }
        let cause = cause(ofRaw: raw)
        guard !verdict.steps.isEmpty else { return "\(change): \(cause)." }
        return "\(change): \(cause); \(verdict.steps.map(self.cause).joined(separator: "; "))."
    }

    private var failingMetric: String {
        for (metric, proposal) in zip(policy.metrics, verdict.proposals) {
            if case .failure = proposal { return "\(metric.name) is not known, because " }
        }
        return ""
    }

    private func cause(ofRaw raw: Int) -> String {
        guard let index = verdict.leading, index < policy.metrics.count, case .success(let one) = verdict.proposals[index] else {
            return "no metric asks for another size"
        }
        let metric = policy.metrics[index]
        let figure = "\(metric.name) is \(measured(metric, one)) against a target of \(target(metric))"
        let thrownAway = MetricRemarks.text(remarks(index).thrownAway)
        let missing = MetricRemarks.text(remarks(index).missing)
        let lost =
            (thrownAway.isEmpty ? "" : ", with a figure thrown away (\(thrownAway))")
            + (missing.isEmpty ? "" : ", with a part not known (\(missing))")
        switch one.reason {
        case .withinTolerance: return "\(figure), which is near enough\(lost)"
        case .heldByAssumptions: return "\(figure), and replicas without a figure might change that\(assumptions(one))\(lost)"
        case .heldByDoubt:
            return "\(figure), which asks for fewer, but nothing is taken away while \(remarks(index).doubt)"
        default: return "\(figure), which asks for \(raw)\(assumptions(one))\(lost)"
        }
    }

    /// What a step did, as part of a sentence.
    private func cause(_ step: ScalingStep) -> String {
        switch step.kind {
        case .switchedOff: "it is switched off"
        case .belowMinimum: "fewer than the declared minimum of \(policy.minimum)"
        case .aboveMaximum: "more than the declared maximum of \(policy.maximum)"
        case .scheduleFloor(let floor): "at least \(floor.replicas) are declared for \(floor.text)"
        case .forecast(let forecast): "\(forecast.replicas) are expected within \(forecast.ahead.brief), \(basis(forecast))"
        case .stabilized(true, let window, _):
            "at some time in the last \(window.brief) only \(step.after) were needed, and growth waits for all of it"
        case .stabilized(false, let window, let left):
            "\(step.after) were needed in the last \(window.brief), which holds for another \(ScalingWords.whole(left))"
        case .limited(let reason, let floor): limit(reason, floor, step)
        case .ceiling(let ceiling): ceiling.sentence
        }
    }

    private func limit(_ reason: RateLimit.Reason, _ floor: ScheduleFloor.Standing?, _ step: ScalingStep) -> String {
        switch reason {
        case .withinRange: "nothing holds it"
        case .tooMany: "at most \(policy.maximum) are declared"
        case .tooFew: floor.map { "at least \($0.replicas) are declared for \($0.text)" } ?? "at least \(policy.minimum) are declared"
        case .upLimit: "at once it may grow to \(step.after) (\(rules(policy.behavior?.up)))"
        case .downLimit: "at once it may shrink to \(step.after) (\(rules(policy.behavior?.down)))"
        }
    }

    private func rules(_ rules: ScalingRules?) -> String {
        guard let rules else {
            return
                "at most \(ScalingWords.plain(policy.growthFactor)) times as many, or \(ScalingWords.plain(policy.growthFloor)), in a pass"
        }
        if rules.selection == .disabled { return "this direction is switched off" }
        let each = rules.policies.map { "\($0.value)\($0.kind == .percent ? " %" : "") in \($0.period.brief)" }
        return each.count == 1 ? each[0] : "the \(rules.selection == .max ? "larger" : "smaller") of \(each.joined(separator: " and "))"
    }

    func constraint(_ step: ScalingStep) -> DecisionRecord.Constraint {
        let name =
            switch step.kind {
            case .switchedOff: "switched off"
            case .belowMinimum: "minimum"
            case .aboveMaximum: "maximum"
            case .scheduleFloor: "schedule floor"
            case .forecast: "forecast"
            case .stabilized(let up, _, _): up ? "stabilization up" : "stabilization down"
            case .limited(let reason, _):
                reason == .tooMany ? "maximum" : reason == .tooFew ? "minimum" : reason == .upLimit ? "pace up" : "pace down"
            case .ceiling: "ceiling"
            }
        return DecisionRecord.Constraint(name, before: String(step.before), after: String(step.after), reason: cause(step))
    }

    // MARK: what would change it

    var flip: String {
        if verdict.failure != nil { return "the metric can be read again" }
        switch verdict.steps.last?.kind {
        case .switchedOff: return "muster scale \(service)=1"
        case .belowMinimum, .aboveMaximum: return "another range in the stack file"
        case .scheduleFloor: return "the end of that time, or another floor in the stack file"
        case .stabilized(true, _, let left): return "the same wish for another \(ScalingWords.whole(left))"
        case .stabilized(false, _, let left):
            return "\(ScalingWords.whole(left)) without a need for more than \(verdict.raw.map(String.init) ?? "that")"
        case .limited(.upLimit, _) where policy.behavior?.up.selection == .disabled,
            .limited(.downLimit, _) where policy.behavior?.down.selection == .disabled:
            return "a direction that is not switched off in the stack file"
        case .limited(.upLimit, _), .limited(.downLimit, _):
            return "the next pass, when the period has passed; or a wider policy in the stack file"
        case .limited(.tooMany, _): return "a maximum above \(policy.maximum) in the stack file\(ceilingNote)"
        case .limited(.tooFew, _): return "a lower minimum in the stack file"
        case .ceiling(let ceiling): return "more room there: \(ceiling.reason)"
        case .forecast, .limited(.withinRange, _), nil: return thresholds
        }
    }

    private var ceilingNote: String {
        policy.ceilings.min { $0.most < $1.most }.map { $0.most <= policy.maximum ? "; but \($0.sentence)" : "" } ?? ""
    }

    /// Where the leading metric would ask for another size.
    private var thresholds: String {
        guard let index = verdict.leading, index < policy.metrics.count else { return "a metric that asks for another size" }
        let metric = policy.metrics[index], tolerance = policy.effectiveTolerance
        if case .success(let one) = verdict.proposals[index], one.reason == .heldByDoubt {
            return "a reading of \(metric.name) of which nothing is thrown away\(remarks(index).missing.isEmpty ? "" : " or missing")"
        }
        func at(_ share: Double) -> String {
            switch metric.target {
            case .utilization(let percent): ScalingWords.plain(Double(percent) * share) + " %"
            case .average(let each): figure(metric, Int.milli(Double(each) * share))
            case .value(let all): figure(metric, Int.milli(Double(all) * share))
            }
        }
        return "\(metric.name) above \(at(1 + tolerance.up)) asks for more, below \(at(1 - tolerance.down)) for fewer"
    }

    // MARK: figures

    private func measured(_ metric: ScalingMetric, _ one: MetricProposal) -> String {
        if let utilization = one.utilization { return "\(utilization) % of the request" }
        switch metric.target {
        case .average: return "\(figure(metric, one.usage)) each"
        default: return figure(metric, one.usage)
        }
    }

    private func target(_ metric: ScalingMetric) -> String {
        switch metric.target {
        case .utilization(let percent): "\(percent) %"
        case .average(let each): "\(figure(metric, each)) each"
        case .value(let all): figure(metric, all)
        }
    }

    private func figure(_ metric: ScalingMetric, _ milli: Int) -> String {
        switch metric.source {
        case .resource(.cpu, _): "\(milli)m"
        case .resource(.memory, _): "\(milli / 1000 >> 20) MiB"
        default: ScalingWords.plain(Double(milli) / 1000)
        }
    }

    private func assumptions(_ one: MetricProposal) -> String {
        var parts: [String] = []
        if one.assumedMissing > 0 { parts.append("\(one.assumedMissing) without a figure") }
        if one.assumedUnready > 0 { parts.append("\(one.assumedUnready) still starting") }
        return parts.isEmpty ? "" : " (\(parts.joined(separator: ", ")))"
    }

    private func replicas(_ count: Int) -> String { count == 1 ? "1 replica" : "\(count) replicas" }

    private func basis(_ forecast: Forecast) -> String {
        switch forecast.basis {
        case .days(let count): "as on the \(count) days before at this time"
        case .weeks(let count): "as in the \(count) weeks before at this time"
        }
    }

    static func plain(_ value: Double) -> String {
        let rounded = (value * 100).rounded() / 100
        return rounded == rounded.rounded() && abs(rounded) < 1e15 ? String(Int(clamped: rounded)) : String(rounded)
    }

    /// Up to the next whole second: nobody waits for less.
    static func whole(_ duration: Duration) -> String {
        Duration.seconds(duration.nanoseconds.addingClamped(999_999_999) / 1_000_000_000).brief
    }
}
