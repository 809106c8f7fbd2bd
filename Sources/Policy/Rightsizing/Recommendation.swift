import Basics

/// The amount of one resource that one container should request, and the bounds between which its present request is still right.
public struct Recommendation: Sendable, Equatable {
    public let resource: Resource
    /// The target in milli-cores or bytes, as all amounts here.
    public let target: Int
    public let lower: Int
    public let upper: Int
    /// The target before a policy capped it.
    public let uncapped: Int
    /// The confidence behind the bounds; see `Confidence`.
    public let confidence: Double

    public init(resource: Resource, target: Int, lower: Int, upper: Int, uncapped: Int, confidence: Double) {
        self.resource = resource
        self.target = target
        self.lower = lower
        self.upper = upper
        self.uncapped = uncapped
        self.confidence = confidence
    }

    /// The advice about a declared request: nothing is to be done when it lies within the bounds, both included.
    public enum Advice: String, Sendable, Equatable { case keep, raise, lower, declare }

    public func advice(declared: Int?) -> Advice {
        guard let declared else { return .declare }
        return declared < lower ? .raise : declared > upper ? .lower : .keep
    }
}

/// The target and the two bounds of a recommendation, while they are computed.
public struct Estimate: Sendable, Equatable {
    public var target: Int
    public var lower: Int
    public var upper: Int

    public init(target: Int, lower: Int, upper: Int) {
        self.target = target
        self.lower = lower
        self.upper = upper
    }

    /// The percentiles of a histogram as amounts: CPU in milli-cores of its cores, memory in bytes.
    public init(_ histogram: DecayingHistogram, _ resource: Resource, _ percentiles: RecommenderSettings.Percentiles) {
        let unit = resource == .cpu ? 1000.0 : 1.0
        target = Amount.whole(histogram.percentile(percentiles.target) * unit)
        lower = Amount.whole(histogram.percentile(percentiles.lower) * unit)
        upper = Amount.whole(histogram.percentile(percentiles.upper) * unit)
    }

    /// The three figures, each with this share of itself added; both parts are cut to whole amounts.
    public func withMargin(_ share: Double) -> Estimate { mapped { Amount.sum($0, Amount.scaled($0, by: share)) } }

    /// The estimate with its bounds widened by the lack of confidence; the target is left as it is.
    public func widened(confidence: Double) -> Estimate {
        Estimate(
            target: target, lower: Confidence.lower.applied(lower, confidence: confidence),
            upper: Confidence.upper.applied(upper, confidence: confidence))
    }

    /// The three figures, each at least a container's share of the least: `scale(least, 1/containers)`. Less than one container counts as
    /// one.
    public func atLeast(_ least: Int, containers: Int) -> Estimate {
        let share = Amount.scaled(least, by: 1 / Double(max(containers, 1)))
        return mapped { max($0, share) }
    }

    /// The three figures, each with the same change applied.
    public func mapped(_ change: (Int) -> Int) -> Estimate { Estimate(target: change(target), lower: change(lower), upper: change(upper)) }
}
