import Basics

/// A histogram that forgets: a sample that was added a half-life earlier weighs half.
///
/// A sample at `t` is given the weight `w · 2^((t − reference) / halfLife)`, so nothing old need be touched. When `t` is more than 100
/// half-lives past the reference (`>`), the reference moves to `t`, rounded half up to a multiple of the half-life counted from the dawn of
/// time, and all weights shrink by a power of two. As kubernetes/autoscaler's `decaying_histogram.go`.
///
/// - Complexity: adding is O(1) but for a move of the reference (O(buckets), once in 100 half-lives); no allocation.
public struct DecayingHistogram: Sendable {
    /// 1 January of the year 1. The reference starts there, and the multiples of a half-life are counted from there.
    public static let dawn = WallTime(milliseconds: -62_135_596_800_000)
    /// The end of the year 9999. A time outside `dawn` and `dusk` is taken as the nearer of the two.
    public static let dusk = WallTime(milliseconds: 253_402_300_799_999)
    private static let mostHalfLives: Int64 = 100

    public private(set) var histogram: Histogram
    /// The time at which a sample weighs just what it says.
    public private(set) var reference = dawn
    /// Milliseconds.
    private let halfLife: Int64

    /// `halfLife` is at least a millisecond and at most a century; a value outside is taken as the nearer end.
    public init(_ scheme: BucketScheme, halfLife: Duration) {
        histogram = Histogram(scheme)
        self.halfLife = min(max(halfLife.nanoseconds / 1_000_000, 1), 3_155_760_000_000)
    }

    public var isEmpty: Bool { histogram.isEmpty }

    /// See `Histogram.percentile`.
    public func percentile(_ share: Double) -> Double { histogram.percentile(share) }

    /// See `Histogram.add`.
    @discardableResult public mutating func add(_ value: Double, weight: Double, at time: WallTime) -> Bool {
        guard weight.isFinite else { return false }
        return histogram.add(value, weight: weight * factor(time))
    }

    /// See `Histogram.subtract`. The time is that of the sample that is taken back, not that of taking it back.
    @discardableResult public mutating func subtract(_ value: Double, weight: Double, at time: WallTime) -> Bool {
        guard weight.isFinite else { return false }
        return histogram.subtract(value, weight: weight * factor(time))
    }

    /// Adds all that is in `other`, whose reference is moved if it is the older of the two: merging changes both. False, and nothing
    /// changed, when buckets or half-lives differ.
    @discardableResult public mutating func merge(_ other: inout DecayingHistogram) -> Bool {
        guard halfLife == other.halfLife, histogram.scheme == other.histogram.scheme else { return false }
        if reference < other.reference { shift(to: other.reference) } else if other.reference < reference { other.shift(to: reference) }
        return histogram.merge(other.histogram)
    }

    /// Whether both have the same half-life and reference, and their histograms match.
    public func matches(_ other: DecayingHistogram) -> Bool {
        halfLife == other.halfLife && reference == other.reference && histogram.matches(other.histogram)
    }

    /// See `Histogram.checkpoint`. The checkpoint has the reference as well.
    public func checkpoint() -> HistogramCheckpoint {
        var checkpoint = histogram.checkpoint()
        checkpoint.reference = reference
        return checkpoint
    }

    /// See `Histogram.load`. The reference becomes the checkpoint's, so it is meant for a histogram that is still empty.
    public mutating func load(_ checkpoint: HistogramCheckpoint) throws(HistogramCheckpoint.Refusal) {
        try histogram.load(checkpoint)
        if let moment = checkpoint.reference, checkpoint.weights.values.contains(where: { $0 > 0 }) {
            reference = DecayingHistogram.held(moment)
        }
    }

    /// Moves all that was added to `distance` milliseconds earlier, as if each sample had been added with a time as much earlier. The
    /// reference stays a multiple of the half-life.
    mutating func move(earlier distance: Int64) {
        let whole = distance / halfLife * halfLife
        reference = DecayingHistogram.held(WallTime(milliseconds: reference.milliseconds.subtractingClamped(whole)))
        histogram.scale(by: powerOfTwo(-Double(distance - whole) / Double(halfLife)))
    }

    /// What a weight of 1 at `time` is multiplied with; moves the reference when it lies too far back.
    private mutating func factor(_ time: WallTime) -> Double {
        let time = DecayingHistogram.held(time)
        if time.milliseconds - reference.milliseconds > DecayingHistogram.mostHalfLives * halfLife { shift(to: time) }
        return powerOfTwo(Double(time.milliseconds - reference.milliseconds) / Double(halfLife))
    }

    private mutating func shift(to time: WallTime) {
        let rest = (time.milliseconds - DecayingHistogram.dawn.milliseconds) % halfLife
        let rounded = rest + rest >= halfLife ? time.milliseconds + (halfLife - rest) : time.milliseconds - rest
        let exponent = (Double(reference.milliseconds - rounded) / Double(halfLife) + 0.5).rounded(.down)
        histogram.scale(by: powerOfTwo(exponent))
        reference = WallTime(milliseconds: rounded)
    }

    /// Within the years 1 to 9999, so that no difference overflows.
    static func held(_ time: WallTime) -> WallTime { min(max(time, dawn), dusk) }
}
