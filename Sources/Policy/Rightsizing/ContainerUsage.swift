import Basics

/// The recorded use of one container: two decaying histograms, and from when to when it was watched. Some 4 kB.
///
/// Samples come in whole milli-cores and bytes; `Amount.whole` makes them of real numbers. A faulty sample throws the reason and never
/// traps.
///
/// - Complexity: a sample is O(1) and allocates nothing.
public struct ContainerUsage: Sendable {
    /// The weight of each sample of CPU. It is not the request, as older versions of upstream had it.
    public static let weightOfCPU = 0.1
    /// The weight of each peak of memory.
    public static let weightOfMemory = 1.0
    /// The half-life of both histograms: upstream's default.
    public static let halfLife = Duration.seconds(86400)

    public private(set) var cpu: DecayingHistogram
    public private(set) var memory: DecayingHistogram
    /// The times of the first and last sample, and the count, all of CPU samples alone.
    public private(set) var first: WallTime?
    public private(set) var last: WallTime?
    public private(set) var samples = 0
    /// When watching began: the age of a state without samples counts from here.
    public private(set) var created: WallTime
    private var gate: SampleGate

    public init(created: WallTime, settings: SampleGate.Settings = SampleGate.Settings(), halfLife: Duration = halfLife) {
        cpu = DecayingHistogram(.cpu, halfLife: halfLife)
        memory = DecayingHistogram(.memory, halfLife: halfLife)
        self.created = created
        gate = SampleGate(settings)
    }

    /// Adds a sample of CPU in use, in milli-cores. With `now`, a sample more than a minute ahead of it is dropped too.
    public mutating func addCPU(_ used: Int, at time: WallTime, now: WallTime? = nil) throws(SampleGate.Dropped) {
        let value = try gate.cpu(used, at: time, now: now)
        cpu.add(Double(value) / 1000, weight: ContainerUsage.weightOfCPU, at: time)
        let time = DecayingHistogram.held(time)
        first = min(first ?? time, time)
        last = max(last ?? time, time)
        samples = Amount.sum(samples, 1)
    }

    /// Adds a sample of memory in use, in bytes.
    public mutating func addMemory(_ used: Int, at time: WallTime, now: WallTime? = nil) throws(SampleGate.Dropped) {
        apply(try gate.memory(used, at: time, now: now))
    }

    /// Notes that the container ran out of memory while it had asked for `request` bytes.
    public mutating func addOutOfMemory(request: Int, at time: WallTime, now: WallTime? = nil) throws(SampleGate.Dropped) {
        apply(try gate.outOfMemory(request: request, at: time, now: now))
    }

    /// The wall clock was set back by `step`: moves all that was recorded to as much earlier, so that ages and the order of samples stay
    /// what they were and the next sample follows on the last. A step that is not positive changes nothing.
    public mutating func clockWentBack(by step: Duration) {
        let distance = step.nanoseconds / 1_000_000
        guard distance > 0 else { return }
        cpu.move(earlier: distance)
        memory.move(earlier: distance)
        first = first?.earlier(distance)
        last = last?.earlier(distance)
        created = created.earlier(distance)
        gate.move(earlier: distance)
    }

    private mutating func apply(_ peak: SampleGate.Peak?) {
        guard let peak else { return }
        if let replaced = peak.replaced { memory.subtract(Double(replaced), weight: ContainerUsage.weightOfMemory, at: peak.end) }
        memory.add(Double(peak.value), weight: ContainerUsage.weightOfMemory, at: peak.end)
    }

    /// Takes what a checkpoint tells into a state that is still empty.
    mutating func restore(_ checkpoint: UsageCheckpoint) throws(HistogramCheckpoint.Refusal) {
        try cpu.load(checkpoint.cpu)
        try memory.load(checkpoint.memory)
        first = checkpoint.first.map(DecayingHistogram.held)
        last = checkpoint.last.map(DecayingHistogram.held)
        samples = checkpoint.samples
    }

    /// Whether the state can be dropped: the last sample of CPU (the beginning, when there was none) is interval × count away or more
    /// (`>=`, 8 days by default). This is also so when the sample is as far ahead, which a clock that was set back leaves behind and
    /// nothing else would ever clear.
    public func isExpired(_ now: WallTime) -> Bool {
        ContainerUsage.isExpired(last: last, created: created, now: now, settings: gate.settings)
    }

    /// The rule of `isExpired`, for a state kept elsewhere.
    public static func isExpired(last: WallTime?, created: WallTime, now: WallTime, settings: SampleGate.Settings) -> Bool {
        let since = DecayingHistogram.held(now).milliseconds - DecayingHistogram.held(last ?? created).milliseconds
        return abs(since) >= settings.intervalMilliseconds * Int64(settings.intervals)
    }

    /// Adds what another replica of the same container was seen to use; moves the older reference of the two, so both change.
    /// False, and nothing changed, when half-lives differ.
    @discardableResult public mutating func merge(_ other: inout ContainerUsage) -> Bool {
        guard cpu.merge(&other.cpu), memory.merge(&other.memory) else { return false }
        if let theirs = other.first { first = min(first ?? theirs, theirs) }
        if let theirs = other.last { last = max(last ?? theirs, theirs) }
        samples = Amount.sum(samples, other.samples)
        return true
    }
}
