/// Latencies of a whole load test in 4,608 buckets: from 256 ns to 73 minutes each is at most 1/128 (0.8 %) wide, below that 1 ns. A
/// quantile is the middle of its bucket, so at most 0.4 % off; count, least, most and mean are exact. What is above the end counts in the
/// last bucket.
///
/// 36 KB, fixed; adding costs a few nanoseconds and no allocation. `Resilience` has a smaller one, an eighth off, for each replica of a
/// gateway, where a decision and not a report hangs on it.
public struct LatencyDistribution: Sendable, Equatable {
    private static let bits = 7
    private static let linear = 2 << bits
    private static let top: Int64 = 1 << 42
    private static let size = linear + (42 - bits - 1) << bits

    private var buckets = [UInt64](repeating: 0, count: size)
    public private(set) var count = 0
    /// The lowest and highest latency in nanoseconds; 0 when nothing was counted.
    public private(set) var least: Int64 = 0
    public private(set) var most: Int64 = 0
    private var sum = 0.0

    public init() {}

    /// The mean in nanoseconds. Latencies below 0 count as 0.
    public var mean: Double { count == 0 ? 0 : sum / Double(count) }

    public mutating func add(_ nanoseconds: Int64) {
        let value = max(nanoseconds, 0)
        buckets[LatencyDistribution.bucket(value)] += 1
        if count == 0 || value < least { least = value }
        if value > most { most = value }
        count += 1
        sum += Double(value)
    }

    public mutating func merge(_ other: LatencyDistribution) {
        if other.count == 0 { return }
        for i in buckets.indices { buckets[i] += other.buckets[i] }
        least = count == 0 ? other.least : min(least, other.least)
        most = max(most, other.most)
        count += other.count
        sum += other.sum
    }

    public mutating func clear() {
        for i in buckets.indices { buckets[i] = 0 }
        (count, least, most, sum) = (0, 0, 0, 0)
    }

    /// The latency, in nanoseconds, that at least `share` of those counted do not exceed (nearest rank); 0 when nothing was counted.
    public func quantile(_ share: Double) -> Int64 {
        if count == 0 { return 0 }
        let rank = min(max(Int(clamped: (share * Double(count)).rounded(.up)), 1), count)
        if rank == count { return most }
        var before = 0
        for (i, here) in buckets.enumerated() where here > 0 {
            before += Int(here)
            if before >= rank { return min(max(LatencyDistribution.middle(i), least), most) }
        }
        return most
    }

    static func bucket(_ value: Int64) -> Int {
        let value = min(value, top - 1)
        guard value >= linear else { return Int(value) }
        let exponent = 63 - value.leadingZeroBitCount
        let within = Int(value >> Int64(exponent - bits)) - 1 << bits
        return linear + (exponent - bits - 1) << bits + within
    }

    private static func middle(_ bucket: Int) -> Int64 {
        guard bucket >= linear else { return Int64(bucket) }
        let shift = Int64((bucket - linear) >> bits + 1), within = Int64((bucket - linear) & (1 << bits - 1))
        let start = (1 << Int64(bits) + within) << shift
        return start + 1 << (shift - 1)
    }
}
