import Basics
import Rightsizing
import Testing

/// Histograms over seeded random histories.
@Suite struct HistogramTests {
    static let hour: Int64 = 3_600_000
    static let begin: Int64 = 1_700_000_000_000

    private static func random(_ seed: Int) -> SeededRandom { SeededRandom(seed: UInt64(seed)) }

    /// A decaying histogram after some hundred samples over many half-lives, and what they were.
    private static func history(_ seed: Int, _ scheme: BucketScheme = .cpu) -> (DecayingHistogram, [Double]) {
        var random = random(seed)
        var histogram = DecayingHistogram(scheme, halfLife: .seconds(3600))
        var at = begin, values: [Double] = []
        for _ in 0..<300 {
            at += Int64.random(in: 0...hour / 4, using: &random)
            let value = scheme.start(Int.random(in: 0..<scheme.count, using: &random)) * Double.random(in: 0.9...1.1, using: &random)
            histogram.add(value, weight: Double.random(in: 0.1...2, using: &random), at: WallTime(milliseconds: at))
            values.append(value)
        }
        return (histogram, values)
    }

    @Test(arguments: [BucketScheme.cpu, .memory]) func bucketsFollowEachOther(scheme: BucketScheme) {
        #expect(scheme.count == 176)
        #expect(scheme.start(0) == 0)
        for bucket in 0..<scheme.count - 1 {
            #expect(scheme.start(bucket) < scheme.start(bucket + 1))
            let middle = (scheme.start(bucket) + scheme.end(bucket)) / 2
            #expect(scheme.bucket(middle) == bucket)
        }
        #expect(scheme.end(scheme.count - 1) == scheme.start(scheme.count - 1))
    }

    @Test func optionsThatMakeNoBucketsAreRefused() {
        for bad in [0, -1, .nan, .infinity] as [Double] {
            #expect(throws: BucketScheme.Refusal.self) { try BucketScheme.linear(highest: bad, size: 1, epsilon: 1) }
            #expect(throws: BucketScheme.Refusal.self) { try BucketScheme.linear(highest: 1, size: bad, epsilon: 1) }
            #expect(throws: BucketScheme.Refusal.self) { try BucketScheme.linear(highest: 1, size: 1, epsilon: bad) }
            #expect(throws: BucketScheme.Refusal.self) { try BucketScheme.exponential(highest: 10, first: bad, ratio: 2, epsilon: 1) }
            #expect(throws: BucketScheme.Refusal.self) { try BucketScheme.exponential(highest: 10, first: 1, ratio: bad, epsilon: 1) }
        }
        #expect(throws: BucketScheme.Refusal.self) { try BucketScheme.exponential(highest: 10, first: 1, ratio: 1, epsilon: 1) }
        #expect(throws: BucketScheme.Refusal.self) { try BucketScheme.linear(highest: 1e300, size: 1e-300, epsilon: 1) }
    }

    /// A percentile is the end of the bucket of one of the samples; it grows with the share.
    @Test(arguments: 1...20) func percentilesAreBucketEndsAndGrow(seed: Int) {
        let (histogram, values) = Self.history(seed)
        let ends = Set(values.map { BucketScheme.cpu.end(BucketScheme.cpu.bucket($0)) })
        var last = 0.0
        for step in -2...102 {
            let value = histogram.percentile(Double(step) / 100)
            #expect(value >= last && ends.contains(value), "seed \(seed), share \(step)")
            last = value
        }
        #expect(last == ends.max())
    }

    /// Of equal weights at one moment, the percentile is within a bucket of the real one.
    @Test(arguments: 1...20) func percentilesAreWithinABucketOfTheTruth(seed: Int) {
        var random = Self.random(seed)
        var histogram = Histogram(.cpu)
        var values = (0..<200).map { _ in Double.random(in: 0.02...50, using: &random) }
        for value in values { histogram.add(value, weight: 1) }
        values.sort()
        for rank in [1, 20, 100, 180, 190, 200] {
            let bucket = BucketScheme.cpu.bucket(values[rank - 1])
            let found = histogram.percentile(Double(rank) / 200)
            #expect(found == BucketScheme.cpu.end(bucket), "seed \(seed), rank \(rank)")
            #expect(found >= values[rank - 1])
        }
    }

    @Test(arguments: 1...20) func aCheckpointKeepsThePercentiles(seed: Int) throws {
        let (histogram, _) = Self.history(seed)
        let checkpoint = histogram.checkpoint()
        #expect(checkpoint.weights.values.max() == HistogramCheckpoint.heaviest)
        var copy = DecayingHistogram(.cpu, halfLife: .seconds(3600))
        try copy.load(checkpoint)
        #expect(copy.reference == histogram.reference)
        #expect(abs(copy.histogram.total - histogram.histogram.total) <= 1e-9 * histogram.histogram.total)
        // Each weight is a ten-thousandth of the heaviest off at most, so a percentile moves by a little of the share.
        for share in [0.1, 0.5, 0.9, 0.95] {
            let value = copy.percentile(share)
            #expect(
                histogram.percentile(share - 0.02) <= value && value <= histogram.percentile(share + 0.02), "seed \(seed), share \(share)")
        }
        let again = copy.checkpoint()
        #expect(again.weights == checkpoint.weights)
    }

    @Test func aBadCheckpointIsRefusedAndChangesNothing() {
        var histogram = Histogram(.cpu)
        histogram.add(1, weight: 1)
        let before = histogram
        let bad = [
            HistogramCheckpoint(total: -1, weights: [:]), HistogramCheckpoint(total: .nan, weights: [1: 1]),
            HistogramCheckpoint(total: .infinity, weights: [1: 1]),
            HistogramCheckpoint(total: 1, weights: [-1: 1]), HistogramCheckpoint(total: 1, weights: [3: 1, 176: 1]),
            HistogramCheckpoint(total: 1, weights: [1: -1]),
            HistogramCheckpoint(total: 1, weights: [1: .max, 2: .max]),
        ]
        for checkpoint in bad {
            #expect(throws: HistogramCheckpoint.Refusal.self) { try histogram.load(checkpoint) }
            #expect(histogram.matches(before) && histogram.total == before.total)
        }
        #expect(throws: Never.self) { try histogram.load(HistogramCheckpoint(total: 5, weights: [1: 0])) }
        #expect(histogram.matches(before) && histogram.total == before.total)
    }

    @Test(arguments: 1...20) func mergingIsSymmetric(seed: Int) {
        let (a, _) = Self.history(seed), (b, _) = Self.history(seed + 1000)
        var ab = a, ba = b, restOfA = a, restOfB = b
        let isMerged = [ab.merge(&restOfB), ba.merge(&restOfA)]
        #expect(isMerged == [true, true])
        #expect(ab.matches(ba), "seed \(seed)")
        for share in [0.1, 0.5, 0.9] {
            let low = min(a.percentile(share), b.percentile(share)), high = max(a.percentile(share), b.percentile(share))
            #expect((low...high).contains(ab.percentile(share)), "seed \(seed)")
        }
        var other = DecayingHistogram(.memory, halfLife: .seconds(3600))
        var slower = DecayingHistogram(.cpu, halfLife: .seconds(3601))
        let isRefused = [ab.merge(&other), ab.merge(&slower)]
        #expect(isRefused == [false, false])
    }

    /// What two replicas were seen to use is as if one had been seen so often: kubernetes/autoscaler's `Merge`, plain and decaying, with the
    /// older reference moved to the younger one, also where they lie hundreds of half-lives apart.
    @Test(arguments: [0, 1, 99, 250, 100_000]) func mergingIsAddingEverythingToOne(hoursApart: Int64) {
        func at(_ hours: Int64) -> WallTime { WallTime(milliseconds: Self.begin + hours * Self.hour) }
        var first = DecayingHistogram(.cpu, halfLife: .seconds(3600)), second = first, all = first
        let samples: [(Double, Int64, Bool)] = [
            (1, 0, true), (2, 1, true), (2, 2 + hoursApart, false), (3, 1 + hoursApart, false), (4, hoursApart, true),
        ]
        for (value, hours, isFirst) in samples {
            if isFirst { first.add(value, weight: 1, at: at(hours)) } else { second.add(value, weight: 1, at: at(hours)) }
        }
        for (value, hours, _) in samples.sorted(by: { $0.1 < $1.1 }) { all.add(value, weight: 1, at: at(hours)) }
        let isMerged = first.merge(&second)
        #expect(isMerged && first.reference == second.reference && first.reference >= all.reference)
        // The same weights, as they count from the younger reference. (No share lies on the edge of a bucket here.)
        let halvings = Double(first.reference.milliseconds - all.reference.milliseconds) / Double(Self.hour)
        let total = all.histogram.total * powerOfTwo(-halvings)
        #expect(abs(first.histogram.total - total) <= total * 1e-9)
        for share in [0.02, 0.15, 0.55, 0.77, 0.93] { #expect(first.percentile(share) == all.percentile(share), "\(share)") }
        // Merging an empty one changes nothing.
        var empty = DecayingHistogram(.cpu, halfLife: .seconds(3600)), before = first
        let isUnchanged = first.merge(&empty) && first.matches(before) && empty.merge(&before) && empty.matches(first)
        #expect(isUnchanged)
        var a = Histogram(.memory), b = Histogram(.memory), both = Histogram(.memory)
        for (value, weight) in [(1e7, 1.0), (5e8, 2), (1e12, 0.5)] {
            a.add(value, weight: weight)
            b.add(value * 0.9, weight: weight)
            both.add(value, weight: weight)
            both.add(value * 0.9, weight: weight)
        }
        let isPlainMerged = a.merge(b)
        #expect(isPlainMerged && a.matches(both) && a.total == both.total)
    }

    /// Taking everything back leaves nothing, whatever the order.
    @Test(arguments: 1...20) func whatIsSubtractedIsGone(seed: Int) {
        var random = Self.random(seed)
        var histogram = Histogram(.memory)
        let samples = (0..<100).map { _ in (Double.random(in: 0...2e12, using: &random), Double.random(in: 0.1...3, using: &random)) }
        for (value, weight) in samples { histogram.add(value, weight: weight) }
        #expect(!histogram.isEmpty)
        for (value, weight) in samples.shuffled(using: &random) { histogram.subtract(value, weight: weight) }
        #expect(histogram.isEmpty && histogram.percentile(0.9) == 0 && histogram.total < 0.001)
    }

    @Test func aHalfLifeHalves() {
        var histogram = DecayingHistogram(.cpu, halfLife: .seconds(3600))
        let at = WallTime(milliseconds: Self.begin), later = WallTime(milliseconds: Self.begin + Self.hour)
        histogram.add(1, weight: 1, at: at)
        histogram.add(2, weight: 0.51, at: later)
        #expect(histogram.percentile(0.5) > 2)
        histogram.subtract(2, weight: 0.02, at: later)
        #expect(histogram.percentile(0.5) < 1.1)
    }

    /// Clocks that jump, values and weights that are none: nothing traps, and what is answered is a number of the scheme.
    @Test(arguments: 1...20) func nonsenseNeverTraps(seed: Int) {
        var random = Self.random(seed)
        let strange: [Double] = [.nan, .infinity, -.infinity, -1, 0, 1e308, -1e308, .leastNonzeroMagnitude, 1]
        let times: [Int64] = [.min, .max, 0, -1, Self.begin, DecayingHistogram.dawn.milliseconds, DecayingHistogram.dusk.milliseconds]
        var histogram = DecayingHistogram(.memory, halfLife: .seconds(86400))
        for _ in 0..<400 {
            let time = WallTime(milliseconds: times.randomElement(using: &random)!)
            let value = strange.randomElement(using: &random)!, weight = strange.randomElement(using: &random)!
            if Bool.random(using: &random) {
                histogram.add(value, weight: weight, at: time)
            } else {
                histogram.subtract(value, weight: weight, at: time)
            }
            let answer = histogram.percentile(strange.randomElement(using: &random)!)
            #expect(answer.isFinite && answer >= 0 && answer <= 1.1e12)
            _ = histogram.checkpoint()
        }
    }
}
