import Basics

/// A compact form of the use of one container, to be kept over a restart.
public struct UsageCheckpoint: Sendable, Equatable {
    /// The only version there is: `SupportedCheckpointVersion` of kubernetes/autoscaler.
    public static let supported = "v3"

    public var version: String
    public var first: WallTime?
    public var last: WallTime?
    public var samples: Int
    public var cpu: HistogramCheckpoint
    public var memory: HistogramCheckpoint

    public init(
        version: String = supported, first: WallTime?, last: WallTime?, samples: Int, cpu: HistogramCheckpoint, memory: HistogramCheckpoint
    ) {
        self.version = version
        self.first = first
        self.last = last
        self.samples = samples
        self.cpu = cpu
        self.memory = memory
    }
}

extension ContainerUsage {
    public func checkpoint() -> UsageCheckpoint {
        UsageCheckpoint(first: first, last: last, samples: samples, cpu: cpu.checkpoint(), memory: memory.checkpoint())
    }

    /// The use that a checkpoint holds. Another version, a negative count and all that `Histogram.load` refuses is an error. The checkpoint
    /// does not say which samples came last, so the first sample after it always counts.
    public init(
        _ checkpoint: UsageCheckpoint, created: WallTime, settings: SampleGate.Settings = SampleGate.Settings(),
        halfLife: Duration = halfLife
    ) throws(HistogramCheckpoint.Refusal) {
        guard checkpoint.version == UsageCheckpoint.supported else {
            throw HistogramCheckpoint.Refusal("its version is '\(checkpoint.version)', and only '\(UsageCheckpoint.supported)' is read")
        }
        guard checkpoint.samples >= 0 else { throw HistogramCheckpoint.Refusal("it counts \(checkpoint.samples) samples") }
        self.init(created: created, settings: settings, halfLife: halfLife)
        try restore(checkpoint)
    }
}
