import Basics

/// Puts the reason of a recommendation into words: one record, which everything that explains reads.
struct RecommendationReason {
    let result: Recommendation
    let base: Estimate
    let service: String
    let declared: Int?
    let samples: Int
    let isMeasured: Bool
    let containers: Int
    let settings: RecommenderSettings
    let policy: ResourcePolicy

    private var resource: Resource { result.resource }
    private var history: History { History(confidence: result.confidence, interval: settings.interval, least: settings.leastHistory) }
    /// Where the request stands in a stack file.
    private var key: String { "services.\(service).resources.\(resource.rawValue)" }

    var record: DecisionRecord {
        let percentiles = settings.percentiles(resource)
        return DecisionRecord(
            .resources, subject: "\(service)/\(resource.rawValue)",
            inputs: [
                .init("samples", samples), .init("confidence", days(result.confidence)), .init(share(percentiles.target), base.target),
                .init(share(percentiles.lower), base.lower), .init(share(percentiles.upper), base.upper),
                .init("declared", declared.map(resource.text) ?? "none"),
            ],
            raw: resource.text(base.target), constraints: constraints, outcome: isTooEarly ? "none yet" : resource.text(result.target),
            sentence: sentence,
            flip: flip)
    }

    /// What moved the target, in the order of the arithmetic; what changed nothing is left out.
    private var constraints: [DecisionRecord.Constraint] {
        var list: [DecisionRecord.Constraint] = []
        var at = base.target
        func step(_ name: String, to after: Int, _ reason: String) {
            if after != at { list.append(.init(name, before: "\(at)", after: "\(after)", reason: reason)) }
            at = after
        }
        let withMargin = base.withMargin(settings.margin)
        step("margin", to: withMargin.target, "\(share(settings.margin)) more than was used, for what was not seen")
        let least = resource.text(settings.leastOfAll[resource])
        let shared = containers > 1 ? ", shared by \(containers) containers" : ""
        step(
            "least", to: withMargin.atLeast(settings.leastOfAll[resource], containers: containers).target,
            "a replica is given at least \(least)\(shared)")
        step(
            "step", to: Amount.roundedUp(at, toMultipleOf: settings.steps[resource]),
            "rounded up to multiples of \(settings.steps[resource])")
        step("whole-cores", to: policy.whole(at, of: resource), "whole cores are wanted")
        step("policy", to: result.target, bounds)
        return list
    }

    private var bounds: String {
        let least = policy.least[resource].map { "at least \(resource.text($0))" }
        let most =
            policy.most[resource].map { "at most \(resource.text($0))" }
            ?? policy.globalMost[resource].map { "at most \(resource.text($0)) anywhere" }
        return "the policy allows " + [least, most].compactMap { $0 }.joined(separator: " and ")
    }

    /// Nothing was measured, or not for long enough to say anything by it.
    private var isTooEarly: Bool { !history.isEnough }

    private var early: String {
        let most = "so far at most \(resource.text(base.upper)) in \(share(settings.percentiles(resource).upper)) of the time"
        let declaration = declared.map { "declared \(resource.text($0))" } ?? "nothing declared"
        guard isMeasured else {
            return "no \(name) of \(service) was measured yet, and \(history.least.brief) of it are needed to recommend any; \(declaration)"
        }
        return
            "too little is known of the \(name) of \(service) to recommend any: it was watched for \(whole(history.known, up: false)) of "
            + "the \(history.least.brief) that are needed, \(whole(history.missing, up: true)) more; \(most); \(declaration)"
    }

    private var sentence: String {
        if isTooEarly { return early }
        let declaration = declared.map { "declared \(resource.text($0))" } ?? "nothing declared"
        let seen =
            isMeasured
            ? "\(service) uses at most \(resource.text(base.upper)) of \(name) in \(share(settings.percentiles(resource).upper)) of the "
                + "time"
            : "no \(name) of \(service) was measured yet"
        let range =
            isUnbounded
            ? "\(resource.text(result.lower)) or more" : "between \(resource.text(result.lower)) and \(resource.text(result.upper))"
        return
            "\(seen); \(declaration); recommend \(resource.text(result.target)) (\(range), confidence \(days(result.confidence))): "
            + "\(advice)"
    }

    private var advice: String {
        let target = resource.text(result.target)
        // Nothing is asked for on no evidence.
        guard isMeasured else { return "nothing need change until there are samples" }
        return switch result.advice(declared: declared) {
        case .keep: "nothing need change"
        case .raise: "raise \(key) to \(target) in the stack file"
        case .lower: "lower \(key) to \(target) in the stack file"
        case .declare: "set \(key) to \(target) in the stack file"
        }
    }

    private var flip: String {
        if isTooEarly { return "\(whole(history.missing, up: true)) more of samples" }
        guard isMeasured else { return "samples" }
        guard declared != nil else { return "a declared request" }
        let range =
            isUnbounded ? "\(resource.text(result.lower)) or more" : "\(resource.text(result.lower)) to \(resource.text(result.upper))"
        return result.advice(declared: declared) == .keep
            ? "a declared request outside \(range), or more samples, which narrow it"
            : "a declared request of \(range), or another use of \(name)"
    }

    private var name: String { resource == .cpu ? "CPU" : "memory" }
    /// With hardly anything known the upper bound is no bound.
    private var isUnbounded: Bool { result.upper >= Amount.most }

    /// `95 %`, `99.9 %`.
    private func share(_ share: Double) -> String {
        guard share.isFinite, abs(share) < 1e6 else { return "\(share)" }
        let tenths = Int(clamped: (share * 1000).rounded())
        return tenths % 10 == 0 ? "\(tenths / 10) %" : "\(Double(tenths) / 10) %"
    }

    /// Whole seconds, from two minutes on whole minutes. What was watched is told as no more than it was, what is missing as no less.
    private func whole(_ duration: Duration, up: Bool) -> String {
        let unit: Int64 = duration < .seconds(120) ? 1_000_000_000 : 60_000_000_000
        return Duration.nanoseconds(duration.nanoseconds.addingClamped(up ? unit - 1 : 0) / unit * unit).brief
    }

    /// The confidence as the days it stands for: `3.2 days`.
    private func days(_ confidence: Double) -> String {
        let days = confidence * settings.interval.secondsAsDouble / 86400
        guard days.isFinite, days < 1e9 else { return "\(days) days" }
        return "\((days * 10).rounded() / 10) days"
    }
}
