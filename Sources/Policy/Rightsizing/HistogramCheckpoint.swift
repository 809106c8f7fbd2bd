import Basics

/// A compact form of a histogram, to be kept in a file: the weights in ten-thousandths of the heaviest.
public struct HistogramCheckpoint: Sendable, Equatable {
    /// The weight of the heaviest bucket: `MaxCheckpointWeight` of kubernetes/autoscaler.
    public static let heaviest = 10_000

    public var total: Double
    /// Weights by bucket; those that round to 0 are left out.
    public var weights: [Int: Int]
    /// For a decaying histogram, the moment at which a sample weighs what it says.
    public var reference: WallTime?

    public init(total: Double, weights: [Int: Int], reference: WallTime? = nil) {
        self.total = total
        self.weights = weights
        self.reference = reference
    }

    /// Why a checkpoint was not loaded.
    public struct Refusal: Error, Equatable, CustomStringConvertible {
        public let description: String

        init(_ what: String) { description = "the checkpoint was not loaded: \(what)" }
    }
}

extension Histogram {
    /// The checkpoint of this histogram. Weights are rounded half up. An empty histogram has no buckets.
    public func checkpoint() -> HistogramCheckpoint {
        var heaviest = 0.0
        for bucket in used { heaviest = max(heaviest, weight(of: bucket)) }
        var weights: [Int: Int] = [:]
        let ratio = Double(HistogramCheckpoint.heaviest) / heaviest
        for bucket in used where heaviest > 0 && ratio.isFinite {
            let rounded = Int(clamped: (weight(of: bucket) * ratio).rounded())
            if rounded > 0 { weights[bucket] = rounded }
        }
        return HistogramCheckpoint(total: total, weights: weights)
    }

    /// Spreads the checkpoint's total over the buckets in proportion and adds it to the weights that are here. Weights that sum to 0 change
    /// nothing. On an error nothing is changed either.
    public mutating func load(_ checkpoint: HistogramCheckpoint) throws(HistogramCheckpoint.Refusal) {
        guard checkpoint.total.isFinite, checkpoint.total >= 0 else {
            throw HistogramCheckpoint.Refusal("its total weight is \(checkpoint.total), and must be a number from 0 on")
        }
        var sum = 0
        for (bucket, weight) in checkpoint.weights {
            guard (0..<scheme.count).contains(bucket) else {
                throw HistogramCheckpoint.Refusal("bucket \(bucket) does not exist, there are 0 to \(scheme.count - 1)")
            }
            guard (0...Int(UInt32.max)).contains(weight) else {
                throw HistogramCheckpoint.Refusal("bucket \(bucket) weighs \(weight), and must weigh from 0 to \(UInt32.max)")
            }
            sum.addClamped(weight)
        }
        guard sum > 0 else { return }
        let ratio = checkpoint.total / Double(sum)
        for (bucket, weight) in checkpoint.weights { load(bucket: bucket, weight: Double(weight) * ratio) }
        load(total: checkpoint.total)
        tighten()
    }
}
