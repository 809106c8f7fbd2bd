/// Latencies in 200 buckets of 1 µs to 134 s, eight to each doubling: a quantile is at most an eighth off. What is outside counts as the
/// nearer end. A value of 800 bytes; no allocation.
struct LatencyHistogram: Sendable {
    private var buckets = InlineArray<200, UInt32>(repeating: 0)
    private(set) var count = 0

    mutating func add(nanoseconds: Int64) {
        let bucket = LatencyHistogram.bucket(microseconds: nanoseconds / 1000)
        if buckets[bucket] < .max { buckets[bucket] += 1 }
        count += 1
    }

    /// The latency, in nanoseconds, that `share` of those counted do not pass; within its bucket in proportion. 0 when nothing was counted.
    func quantile(_ share: Double) -> Double {
        let rank = share * Double(count)
        var before = 0.0
        for bucket in 0..<200 where buckets[bucket] > 0 {
            let here = Double(buckets[bucket])
            if before + here >= rank {
                let from = LatencyHistogram.start(bucket), to = LatencyHistogram.start(bucket + 1)
                return (from + (to - from) * max(rank - before, 0) / here) * 1000
            }
            before += here
        }
        return 0
    }

    mutating func clear() { self = LatencyHistogram() }

    /// 0 to 7 have a bucket each; beyond, the exponent and the three bits after the first.
    private static func bucket(microseconds: Int64) -> Int {
        let value = min(max(microseconds, 0), (1 << 27) - 1)
        guard value >= 8 else { return Int(value) }
        let exponent = 63 - value.leadingZeroBitCount
        return (exponent - 2) * 8 + Int((value >> Int64(exponent - 3)) & 7)
    }

    /// Where a bucket begins, in microseconds.
    private static func start(_ bucket: Int) -> Double {
        guard bucket >= 8 else { return Double(bucket) }
        return Double((8 + bucket % 8) << (bucket / 8 - 1))
    }
}
