import Basics

/// Recommends what a service's container should request: percentiles of what it used, a margin, and bounds that are the wider the less is
/// known.
///
/// The result is only ever a recommendation: nothing here changes a running service. Each comes with its reason, and a sentence that says
/// what to change in the stack file, or that nothing need change. The arithmetic and its order are kubernetes/autoscaler's.
///
/// - Complexity: O(buckets) for each of three percentiles and two resources; microseconds.
public struct Recommender: Sendable {
    public let settings: RecommenderSettings

    public init(_ settings: RecommenderSettings = RecommenderSettings()) { self.settings = settings }

    /// The whole chain of steps: `estimate`, the least, the rounding, and the policy.
    public func recommendation(
        _ resource: Resource, base: Estimate, confidence: Double, containers: Int = 1, policy: ResourcePolicy = ResourcePolicy()
    ) -> Recommendation {
        let steps = base.withMargin(settings.margin).widened(confidence: confidence).atLeast(
            settings.leastOfAll[resource], containers: containers)
        let rounded = steps.mapped { Amount.roundedUp($0, toMultipleOf: settings.steps[resource]) }
        let whole = rounded.mapped { policy.whole($0, of: resource) }
        let capped = whole.mapped { policy.capped($0, of: resource) }
        return Recommendation(
            resource: resource, target: capped.target, lower: capped.lower, upper: capped.upper, uncapped: whole.target,
            confidence: confidence)
    }

    /// One decision for each resource that the policy controls, CPU first.
    ///
    /// - Parameters:
    ///   - service: as it is called in the stack file.
    ///   - declared: its `resources` there.
    ///   - containers: how many containers of one replica share the least amount.
    public func recommend(
        _ usage: ContainerUsage, service: String, declared: OptionalResources, containers: Int = 1,
        policy: ResourcePolicy = ResourcePolicy()
    ) -> [Decision<Recommendation>] {
        let confidence = Confidence.of(first: usage.first, last: usage.last, samples: usage.samples, interval: settings.interval)
        return Resource.allCases.filter(policy.controlled.contains).map { resource in
            let histogram = resource == .cpu ? usage.cpu : usage.memory
            let base = Estimate(histogram, resource, settings.percentiles(resource))
            let result = recommendation(resource, base: base, confidence: confidence, containers: containers, policy: policy)
            let reason = RecommendationReason(
                result: result, base: base, service: service, declared: declared[resource], samples: usage.samples,
                isMeasured: !histogram.isEmpty,
                containers: containers, settings: settings, policy: policy)
            return Decision(result, because: reason.record)
        }
    }
}
