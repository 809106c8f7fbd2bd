import Basics

/// The way in which a histogram cuts values into buckets: evenly, or each wider than the one before by the same ratio.
///
/// Exponential buckets keep the relative error of a percentile below the ratio, 5 % by default, whatever the size of the container.
/// The formulas and their order are those of kubernetes/autoscaler, `histogram_options.go`.
///
/// - Complexity: a bucket is found with one logarithm, its start with one power.
public struct BucketScheme: Sendable, Equatable {
    /// How the widths follow each other.
    public enum Widths: Sendable, Equatable {
        /// Each bucket is as wide as `size`.
        case linear(size: Double)
        /// The first bucket is as wide as `first`, each other `ratio` times the one before.
        case exponential(first: Double, ratio: Double)
    }

    /// Why options make no buckets: which of them are wrong, and what they would have to be.
    public struct Refusal: Error, Equatable, CustomStringConvertible {
        public let description: String
    }

    /// The most buckets. More would only take memory: 5 % from a byte to 10^18 bytes are 850.
    public static let mostBuckets = 100_000

    /// The widths as they were given.
    public let widths: Widths
    /// The value that the last bucket is for; values above it count there too.
    public let highest: Double
    /// The weight below which a bucket counts as unused.
    public let epsilon: Double
    /// The number of buckets.
    public let count: Int
    private let logarithmOfRatio: Double

    private init(_ widths: Widths, highest: Double, epsilon: Double, count: Int, logarithmOfRatio: Double = 1) {
        self.widths = widths
        self.highest = highest
        self.epsilon = epsilon
        self.count = count
        self.logarithmOfRatio = logarithmOfRatio
    }

    /// `⌈highest/size⌉ + 1` buckets of the same width.
    public static func linear(highest: Double, size: Double, epsilon: Double) throws(Refusal) -> BucketScheme {
        try positive("max", highest)
        try positive("size", size)
        try positive("epsilon", epsilon)
        let count = try whole((highest / size).rounded(.up) + 1)
        return BucketScheme(.linear(size: size), highest: highest, epsilon: epsilon, count: count)
    }

    /// `⌈log_q(highest·(q−1)/first + 1)⌉ + 1` buckets, with q the ratio.
    public static func exponential(highest: Double, first: Double, ratio: Double, epsilon: Double) throws(Refusal) -> BucketScheme {
        try positive("max", highest)
        try positive("first", first)
        try positive("epsilon", epsilon)
        guard ratio.isFinite, ratio > 1 else {
            throw Refusal(description: "ratio is \(ratio), and must be above 1: each bucket is wider than the one before")
        }
        let logarithm = naturalLogarithm(ratio)
        let count = try whole((naturalLogarithm(highest * (ratio - 1) / first + 1) / logarithm).rounded(.up) + 1)
        return BucketScheme(
            .exponential(first: first, ratio: ratio), highest: highest, epsilon: epsilon, count: count, logarithmOfRatio: logarithm)
    }

    /// Buckets for CPU in cores: from 0.01 to 1000, each bucket 5 % wider.
    public static let cpu = known(highest: 1000, first: 0.01)
    /// Buckets for memory in bytes: from 10^7 to 10^12, each bucket 5 % wider.
    public static let memory = known(highest: 1e12, first: 1e7)

    private static func known(highest: Double, first: Double) -> BucketScheme {
        do { return try exponential(highest: highest, first: first, ratio: 1.05, epsilon: 0.0001) } catch {
            preconditionFailure(error.description)
        }
    }

    /// The start of a bucket. The first begins at 0; an index outside is taken as the nearest bucket's.
    public func start(_ bucket: Int) -> Double {
        let bucket = Double(min(max(bucket, 0), count - 1))
        switch widths {
        case .linear(let size): return bucket * size
        case .exponential(let first, let ratio): return bucket == 0 ? 0 : first * (power(ratio, bucket) - 1) / (ratio - 1)
        }
    }

    /// The end of a bucket, which is the start of the next; for the last bucket its start, because it has no end.
    public func end(_ bucket: Int) -> Double { start(bucket + 1) }

    /// The bucket of a value. A value below 0, or one that is no number, belongs to the first; a value above all buckets, to the last.
    public func bucket(_ value: Double) -> Int {
        let place: Double
        switch widths {
        case .linear(let size): place = value / size
        case .exponential(let first, let ratio):
            guard value >= first else { return 0 }
            place = naturalLogarithm(value * (ratio - 1) / first + 1) / logarithmOfRatio
        }
        guard place > 0 else { return 0 }
        return place >= Double(count - 1) ? count - 1 : Int(clamped: place)
    }

    private static func positive(_ name: String, _ value: Double) throws(Refusal) {
        guard value.isFinite, value > 0 else { throw Refusal(description: "\(name) is \(value), and must be a number above 0") }
    }

    private static func whole(_ count: Double) throws(Refusal) -> Int {
        guard count <= Double(mostBuckets) else {
            throw Refusal(
                description:
                    "these options make \(count) buckets, and at most \(mostBuckets) are kept: take wider buckets or a lower maximum")
        }
        return Int(clamped: count)
    }
}
