import Basics
import Rightsizing
import TestSupport

/// From samples, or from amounts that stand for all percentiles, to a recommendation; or only what comes after the arithmetic.
enum RecommendationCase {
    static func answers(_ input: JSONValue, isWholeChain: Bool) throws -> [String: CaseAnswer] {
        let settings = try settings(input), policy = try policy(input)
        let run = try ContainerCase.run(input)
        let samples = try input.int("samples", or: run.usage.samples)
        let first = input.first("first_s")?.time ?? run.usage.first, last = input.first("last_s")?.time ?? run.usage.last
        let confidence =
            input.first("confidence")?.double ?? Confidence.of(first: first, last: last, samples: samples, interval: settings.interval)
        let containers = try input.int("containers", or: 1)
        var found: [Resource: Recommendation] = [:]
        for resource in Resource.allCases where policy.controlled.contains(resource) {
            let base = try base(input, resource, run.usage, settings)
            let recommendation =
                isWholeChain
                ? Recommender(settings).recommendation(resource, base: base, confidence: confidence, containers: containers, policy: policy)
                : onlyPolicy(base, resource, policy)
            found[resource] = recommendation
        }
        return answers(found, confidence)
    }

    private static func onlyPolicy(_ base: Estimate, _ resource: Resource, _ policy: ResourcePolicy) -> Recommendation {
        let whole = base.mapped { policy.whole($0, of: resource) }
        let capped = whole.mapped { policy.capped($0, of: resource) }
        return Recommendation(
            resource: resource, target: capped.target, lower: capped.lower, upper: capped.upper, uncapped: whole.target, confidence: 0)
    }

    private static func answers(_ found: [Resource: Recommendation], _ confidence: Double) -> [String: CaseAnswer] {
        func both(_ figure: (Recommendation) -> Int) -> CaseAnswer {
            var members: [String: JSONValue] = [:]
            if let cpu = found[.cpu] { members["cpu_milli"] = .int(figure(cpu)) }
            if let memory = found[.memory] { members["memory_bytes"] = .int(figure(memory)) }
            return .query { wanted, tolerance in
                // A resource that is not named is free; one that is expected to be null must not be there.
                guard !wanted.members.isEmpty else { throw CaseFault("\(wanted) asks nothing") }
                return wanted.members.compactMap { key, value in
                    CaseAnswer.matches(members[key] ?? .null, value, tolerance)
                        ? nil : "\(key) is \(members[key] ?? .null), and \(value) is expected"
                }
            }
        }
        let target = both(\.target), lower = both(\.lower), upper = both(\.upper), uncapped = both(\.uncapped)
        return [
            "target": target, "lower": lower, "lower_bound": lower, "upper": upper, "upper_bound": upper, "uncapped": uncapped,
            "uncapped_target": uncapped,
            "confidence": .double(confidence), "cpu_milli": .int(found[.cpu]?.target), "memory_bytes": .int(found[.memory]?.target),
            "resources": .value(.array(Resource.allCases.filter { found[$0] != nil }.map { .string($0.rawValue) })),
        ]
    }

    private static func base(_ input: JSONValue, _ resource: Resource, _ usage: ContainerUsage, _ settings: RecommenderSettings) throws
        -> Estimate
    {
        func figure(_ value: JSONValue?) throws -> Int? {
            guard let value else { return nil }
            return resource == .cpu ? try VPAConformance.cpu(value) : try VPAConformance.memory(value)
        }
        var target = try figure(input.first("target"))
        if target == nil { target = try figure(input) }
        guard let target else {
            return Estimate(resource == .cpu ? usage.cpu : usage.memory, resource, resource == .cpu ? settings.cpu : settings.memory)
        }
        let lower = try figure(input.first("lower", "lower_bound")), upper = try figure(input.first("upper", "upper_bound"))
        return Estimate(target: target, lower: lower ?? target, upper: upper ?? target)
    }

    private static func settings(_ input: JSONValue) throws -> RecommenderSettings {
        var settings = RecommenderSettings()
        settings.margin = try input.number("margin", "safety_margin", "fraction", or: settings.margin)
        settings.leastOfAll.cpu = Amount.whole(try input.number("min_cpu_milli", or: 25))
        settings.leastOfAll.memory = Amount.whole(try input.number("min_memory_mib", or: 250) * 1024 * 1024)
        settings.interval = input.first("confidence_interval_s")?.duration ?? settings.interval
        settings.steps = Resources(cpu: try input.int("round_cpu_milli", or: 1), memory: try input.int("round_memory_bytes", or: 1))
        let percentiles = RecommenderSettings.Percentiles(
            target: try input.number("target_percentile", or: 0.9), lower: try input.number("lower_percentile", or: 0.5),
            upper: try input.number("upper_percentile", or: 0.95))
        settings.cpu = percentiles
        settings.memory = percentiles
        return settings
    }

    private static func policy(_ input: JSONValue) throws -> ResourcePolicy {
        let policy = input.first("policy") ?? input
        func amounts(_ keys: JSONValue?) throws -> OptionalResources {
            guard let keys else { return OptionalResources() }
            return OptionalResources(cpu: try VPAConformance.cpu(keys), memory: try VPAConformance.memory(keys))
        }
        let controlled = (policy.first("controlled_resources", "controlled") ?? input.first("controlled_resources", "controlled"))?.items
        return ResourcePolicy(
            least: try amounts(policy.first("min_allowed")), most: try amounts(policy.first("max_allowed")),
            globalMost: try amounts(input.first("global_max_allowed", "global_max") ?? policy.first("global_max_allowed", "global_max")),
            controlled: Set(controlled?.compactMap { $0.string.flatMap(Resource.init(rawValue:)) } ?? [.cpu, .memory]),
            wholeCores: (input.first("integer_cpu") ?? policy.first("integer_cpu"))?.bool ?? false)
    }
}
