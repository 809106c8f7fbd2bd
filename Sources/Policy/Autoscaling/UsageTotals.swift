import Basics

/// Sums of the figures that count, and the two ratios made of them.
///
/// Integers drop their fraction (the utilization in whole percent, the average in whole thousandths) and the ratio is a plain double, in
/// exactly Kubernetes' order: 7 %/3 % of 27 replicas is 63.00000000000001 and asks for 64.
public struct UsageTotals: Sendable, Equatable {
    /// Sums over the replicas whose request is known: their figures, their requests and their number.
    public private(set) var value = 0
    public private(set) var request = 0
    public private(set) var matched = 0
    /// Sums over all figures, those of replicas that nobody knows too: the figures and their number.
    public private(set) var everyValue = 0
    public private(set) var count = 0

    public init() {}

    /// Adds the figure of a replica with this request; nil for a replica that nobody knows.
    public mutating func add(value: Int, request: Int?) {
        everyValue.addClamped(value)
        count += 1
        guard let request else { return }
        self.value.addClamped(value)
        self.request.addClamped(request)
        matched += 1
    }

    public struct Ratio: Sendable, Equatable {
        /// The usage divided by the target.
        public let ratio: Double
        /// The usage in whole percent of the requests; nil for an average.
        public let utilization: Int?
        /// The usage of each replica, in thousandths.
        public let average: Int
    }

    /// The ratio to a target in whole percent of the requests.
    public func utilization(target: Int) throws(MetricFault) -> Ratio {
        guard request != 0, matched > 0 else { throw .noMatchingMetrics }
        let percent = value.multipliedClamped(by: 100) / request
        return Ratio(ratio: Double(percent) / Double(target), utilization: percent, average: value / matched)
    }

    /// The ratio to a target in thousandths of each replica.
    public func average(target: Int) throws(MetricFault) -> Ratio {
        guard count > 0 else { throw .noUsableMetrics }
        let average = everyValue / count
        return Ratio(ratio: Double(average) / Double(target), utilization: nil, average: average)
    }
}

/// How far from the target a ratio may lie without a change: from 1 - down to 1 + up, both ends included.
public struct Tolerance: Sendable, Equatable {
    public var down: Double
    public var up: Double

    /// Default: kube-controller-manager's.
    public init(down: Double = 0.1, up: Double = 0.1) {
        self.down = down
        self.up = up
    }

    public func holds(_ ratio: Double) -> Bool { 1.0 - down <= ratio && ratio <= 1.0 + up }
}
