import Basics
import LoadPlanning
import Testing

@Suite struct LatencyDistributionTests {
    private static let shares = [0.0, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0]

    /// Nearest rank on the sorted values: what a quantile is compared with.
    private func exact(_ sorted: [Int64], _ share: Double) -> Int64 {
        sorted[min(max(Int((share * Double(sorted.count)).rounded(.up)), 1), sorted.count) - 1]
    }

    private func expectClose(_ distribution: LatencyDistribution, _ values: [Int64]) {
        let sorted = values.sorted()
        for share in Self.shares {
            let right = exact(sorted, share), told = distribution.quantile(share)
            #expect(Double(abs(told - right)) <= max(Double(right) * 0.004, 1), "\(share): \(told) for \(right)")
        }
    }

    @Test(arguments: 1...20) func quantilesAreWithinFourThousandths(seed: Int) {
        var random = SeededRandom(seed: UInt64(seed))
        var distribution = LatencyDistribution()
        var values: [Int64] = []
        for _ in 0..<2000 {
            // Every size from nanoseconds to an hour.
            let value = Int64.random(in: 0...(1 << Int64.random(in: 0...41, using: &random)), using: &random)
            values.append(value)
            distribution.add(value)
        }
        expectClose(distribution, values)
        #expect(distribution.count == values.count && distribution.most == values.max() && distribution.least == values.min())
        let mean = values.reduce(0.0) { $0 + Double($1) } / Double(values.count)
        #expect(abs(distribution.mean - mean) <= mean * 1e-9)
    }

    /// Each bucket's own ends, where an error would show first.
    @Test func edgesOfBuckets() {
        for exponent in 0..<42 {
            for offset in [-1, 0, 1] {
                let value = Int64(1) << Int64(exponent) + Int64(offset)
                var distribution = LatencyDistribution()
                for _ in 0..<3 { distribution.add(value) }
                distribution.add(1 << 42)
                let told = distribution.quantile(0.5)
                #expect(Double(abs(told - value)) <= Double(value) * 0.004, "\(value): \(told)")
            }
        }
    }

    @Test func whatIsOutsideCountsAtTheEnd() {
        var distribution = LatencyDistribution()
        #expect(distribution.quantile(0.5) == 0 && distribution.mean == 0)
        distribution.add(-5)
        #expect(distribution.quantile(0.5) == 0 && distribution.least == 0)
        distribution.add(.max)
        #expect(distribution.count == 2 && distribution.most == .max && distribution.quantile(1) == .max)
        distribution.clear()
        #expect(distribution == LatencyDistribution())
    }

    @Test(arguments: 1...10) func mergingIsCountingAll(seed: Int) {
        var random = SeededRandom(seed: UInt64(seed))
        var one = LatencyDistribution(), other = LatencyDistribution(), all = LatencyDistribution()
        for i in 0..<1000 {
            let value = Int64.random(in: 0...10_000_000_000, using: &random)
            if i % 3 == 0 { one.add(value) } else { other.add(value) }
            all.add(value)
        }
        var ab = one, ba = other
        ab.merge(other)
        ba.merge(one)
        for share in Self.shares {
            #expect(ab.quantile(share) == all.quantile(share) && ba.quantile(share) == all.quantile(share))
        }
        #expect(ab.count == 1000 && ab.most == all.most && ab.least == all.least)
        var empty = LatencyDistribution()
        empty.merge(all)
        #expect(empty.least == all.least && empty.count == all.count)
        all.merge(LatencyDistribution())
        #expect(all.count == 1000)
    }
}
