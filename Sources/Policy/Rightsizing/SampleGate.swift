import Basics

/// Decides for each sample of one container whether it counts, and what it changes: CPU as it comes, memory as one peak an interval.
///
/// A pure machine without histograms (see `ContainerUsage` for both). The rules are those of kubernetes/autoscaler, `container.go`. An
/// amount above `Amount.most` counts as `Amount.most`.
///
/// - Complexity: O(1), no allocation.
public struct SampleGate: Sendable {
    /// The settings of the gate.
    public struct Settings: Sendable, Equatable {
        /// The interval of which one peak of memory is kept. Upstream's default, 24 h.
        public var interval: Duration
        /// The number of intervals without a sample after which a state is dropped. Upstream's default, 8.
        public var intervals: Int
        /// How many times its use a container needs after it ran out of memory. Upstream's default, 1.2.
        public var bumpRatio: Double
        /// The least number of bytes beyond its use that such a container needs. Upstream's default, 100 MiB.
        public var bumpBytes: Int

        /// An interval below a second or above a century, a count below 1, and a ratio that is no number are taken as the nearest that
        /// makes sense.
        public init(interval: Duration = .seconds(86400), intervals: Int = 8, bumpRatio: Double = 1.2, bumpBytes: Int = 100 << 20) {
            self.interval = min(max(interval, .seconds(1)), .seconds(3_155_760_000))
            self.intervals = min(max(intervals, 1), 1_000_000)
            self.bumpRatio = bumpRatio.isFinite ? max(bumpRatio, 1) : 1.2
            self.bumpBytes = min(max(bumpBytes, 0), Amount.most)
        }

        /// Milliseconds.
        var intervalMilliseconds: Int64 { interval.nanoseconds / 1_000_000 }
    }

    /// Why a sample did not count.
    public enum Dropped: Error, Sendable, Equatable {
        /// The use in the sample is negative.
        case negative
        /// The sample is late. CPU: not strictly later than the last. Memory: earlier than the last. Out of memory: more than an interval
        /// earlier.
        case late
        /// The sample is more than a minute ahead of the clock that was given with it.
        case ahead
    }

    /// The change of a peak that a memory sample causes.
    public struct Peak: Sendable, Equatable {
        /// The peak of this interval until now, which the new one replaces; nil in a new interval.
        public let replaced: Int?
        /// The peak from now on, in bytes.
        public let value: Int
        /// The end of the interval, with which both peaks are stamped.
        public let end: WallTime
    }

    /// How far ahead of `now` a sample may be: clocks of machines differ.
    public static let lead: Int64 = 60_000

    public let settings: Settings
    private var lastCPU: WallTime?
    private var lastMemory: WallTime?
    private var end: WallTime?
    private var usagePeak = 0
    private var bumpPeak = 0

    public init(_ settings: Settings = Settings()) { self.settings = settings }

    /// Takes a sample of CPU use, in milli-cores, and returns the amount that counts.
    public mutating func cpu(_ used: Int, at time: WallTime, now: WallTime? = nil) throws(Dropped) -> Int {
        let time = try held(used, time, now)
        if let lastCPU, time <= lastCPU { throw .late }
        lastCPU = time
        return min(used, Amount.most)
    }

    /// Takes a sample of memory use, in bytes. Nil when it counts but is no new peak.
    public mutating func memory(_ used: Int, at time: WallTime, now: WallTime? = nil) throws(Dropped) -> Peak? {
        let time = try held(used, time, now)
        if let lastMemory, time < lastMemory { throw .late }
        return peak(min(used, Amount.most), time, isBump: false)
    }

    /// Notes that the container ran out of memory while it had asked for `request` bytes. It needs more than the larger of that and of what
    /// it was seen to use in this interval. The amount that a former such event added is left out, so that one after the other does not run
    /// away.
    public mutating func outOfMemory(request: Int, at time: WallTime, now: WallTime? = nil) throws(Dropped) -> Peak? {
        let time = try held(0, time, now)
        if let lastMemory, time.milliseconds < lastMemory.milliseconds - settings.intervalMilliseconds { throw .late }
        let used = min(max(request, usagePeak), Amount.most)
        let needed = max(used + settings.bumpBytes, Amount.scaled(used, by: settings.bumpRatio))
        return peak(min(needed, Amount.most), time, isBump: true)
    }

    /// Moves all that is remembered to `distance` milliseconds earlier.
    mutating func move(earlier distance: Int64) {
        func earlier(_ time: WallTime?) -> WallTime? { time?.earlier(distance) }
        lastCPU = earlier(lastCPU)
        lastMemory = earlier(lastMemory)
        end = earlier(end)
    }

    private mutating func peak(_ value: Int, _ time: WallTime, isBump: Bool) -> Peak? {
        lastMemory = time
        let ends = end ?? time
        end = ends
        var replaced: Int?
        if time < ends {
            let before = max(usagePeak, bumpPeak)
            // A first sample of 0 keeps its interval at 0, as upstream does.
            guard before != 0, value > before else { return nil }
            replaced = before
        } else {
            let interval = settings.intervalMilliseconds
            let whole = (time.milliseconds - ends.milliseconds) / interval * interval
            end = WallTime(milliseconds: ends.milliseconds + whole + interval)
            usagePeak = 0
            bumpPeak = 0
        }
        if isBump { bumpPeak = value } else { usagePeak = value }
        return Peak(replaced: replaced, value: value, end: end ?? time)
    }

    private func held(_ used: Int, _ time: WallTime, _ now: WallTime?) throws(Dropped) -> WallTime {
        guard used >= 0 else { throw .negative }
        let time = DecayingHistogram.held(time)
        if let now, time.milliseconds - DecayingHistogram.held(now).milliseconds > SampleGate.lead { throw .ahead }
        return time
    }
}

extension WallTime {
    /// So many milliseconds earlier, within the years 1 to 9999.
    func earlier(_ distance: Int64) -> WallTime {
        DecayingHistogram.held(WallTime(milliseconds: milliseconds.subtractingClamped(distance)))
    }
}
