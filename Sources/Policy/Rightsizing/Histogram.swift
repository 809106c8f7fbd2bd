/// Weights of values in buckets, and percentiles over them. A bucket lighter than the scheme's epsilon counts as unused.
///
/// Nothing traps: a value or a weight that is no finite number, and a weight below 0, is refused.
///
/// - Complexity: adding is O(1) without allocation; a percentile, scaling and merging are O(buckets), 176 by default.
public struct Histogram: Sendable {
    public let scheme: BucketScheme
    /// The sum of the weights that were added, less those that were subtracted. With rounding it may differ a little from the sum of the
    /// buckets.
    public private(set) var total = 0.0
    private var weights: [Double]
    private var lowest: Int
    private var highest = 0

    /// A histogram without any weight.
    public init(_ scheme: BucketScheme) {
        self.scheme = scheme
        weights = [Double](repeating: 0, count: scheme.count)
        lowest = scheme.count - 1
    }

    /// Whether the lowest used bucket weighs less than epsilon.
    public var isEmpty: Bool { weights[lowest] < scheme.epsilon }

    /// The weight of a bucket; 0 outside the scheme.
    public func weight(of bucket: Int) -> Double { weights.indices.contains(bucket) ? weights[bucket] : 0 }

    /// Adds to the bucket of `value`. The used range grows only when that bucket weighs epsilon or more (`>=`). False when it was refused.
    @discardableResult public mutating func add(_ value: Double, weight: Double) -> Bool {
        guard value.isFinite, weight.isFinite, weight >= 0 else { return false }
        let bucket = scheme.bucket(value)
        weights[bucket] = held(weights[bucket] + weight)
        total = held(total + weight)
        if weights[bucket] >= scheme.epsilon { include(bucket) }
        return true
    }

    /// Takes from the bucket of `value`; what falls below epsilon becomes 0, and the used range shrinks past unused buckets.
    @discardableResult public mutating func subtract(_ value: Double, weight: Double) -> Bool {
        guard value.isFinite, weight.isFinite, weight >= 0 else { return false }
        let bucket = scheme.bucket(value)
        total = less(total, weight)
        weights[bucket] = less(weights[bucket], weight)
        tighten()
        return true
    }

    /// The end of the bucket in which the sum from the lowest reaches `share` of the total (`>=`); 0 when empty. A share below 0 gives the
    /// lowest used bucket, one above 1 (or none at all) the highest.
    public func percentile(_ share: Double) -> Double {
        if isEmpty { return 0 }
        let threshold = share * total
        var sum = 0.0, bucket = lowest
        while bucket < highest {
            sum += weights[bucket]
            if sum >= threshold { break }
            bucket += 1
        }
        return scheme.end(bucket)
    }

    /// Adds all that is in `other`. False, and nothing changed, when its buckets are others.
    @discardableResult public mutating func merge(_ other: Histogram) -> Bool {
        guard scheme == other.scheme else { return false }
        for bucket in 0..<weights.count { weights[bucket] = held(weights[bucket] + other.weights[bucket]) }
        total = held(total + other.total)
        lowest = min(lowest, other.lowest)
        highest = max(highest, other.highest)
        return true
    }

    /// Multiplies every weight, and shrinks the used range. A factor that is not finite, or below 0, changes nothing.
    public mutating func scale(by factor: Double) {
        guard factor.isFinite, factor >= 0 else { return }
        for bucket in 0..<weights.count { weights[bucket] = held(weights[bucket] * factor) }
        total = held(total * factor)
        tighten()
    }

    /// Whether both use the same buckets of the same scheme, each with the same weight to within epsilon.
    public func matches(_ other: Histogram) -> Bool {
        guard scheme == other.scheme, lowest == other.lowest, highest == other.highest else { return false }
        guard lowest <= highest else { return true }
        return (lowest...highest).allSatisfy { abs(weights[$0] - other.weights[$0]) <= scheme.epsilon }
    }

    /// Adds to a bucket by its number, for a checkpoint; the caller has checked both and calls `tighten` at the end.
    mutating func load(bucket: Int, weight: Double) {
        weights[bucket] = held(weights[bucket] + weight)
        include(bucket)
    }

    /// Adds to the total alone, for a checkpoint.
    mutating func load(total weight: Double) { total = held(total + weight) }

    /// Moves both ends of the used range inward past buckets lighter than epsilon.
    mutating func tighten() {
        while lowest < weights.count - 1, weights[lowest] < scheme.epsilon { lowest += 1 }
        while highest > 0, weights[highest] < scheme.epsilon { highest -= 1 }
    }

    /// The buckets from the lowest to the highest used; none when empty.
    var used: Range<Int> { lowest <= highest ? lowest..<(highest + 1) : 0..<0 }

    private mutating func include(_ bucket: Int) {
        lowest = min(lowest, bucket)
        highest = max(highest, bucket)
    }

    /// Never infinite, or the next difference would be no number.
    private func held(_ weight: Double) -> Double { min(weight, .greatestFiniteMagnitude) }

    private func less(_ value: Double, _ weight: Double) -> Double { value - weight < scheme.epsilon ? 0 : value - weight }
}
