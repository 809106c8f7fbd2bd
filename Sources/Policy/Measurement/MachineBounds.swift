import Basics

/// The most that the machine can do: a figure above it is a mistake or a lie.
public struct MachineBounds: Sendable, Equatable {
    /// Processors that the machine has (`sysconf(_SC_NPROCESSORS_CONF)`, those that are offline too).
    public let processors: Int
    /// The machine's memory in bytes.
    public let memory: Double

    /// Bounds of a machine with at least one processor; `memory` in bytes.
    public init(processors: Int, memory: Double) {
        self.processors = max(1, processors)
        self.memory = memory
    }

    /// Milli-cores above which a CPU figure is refused (>): all processors and a tenth, because the kernel counts in ticks of 10 ms and the
    /// clock is read beside the counter, not with it.
    public var mostMilliCores: Double { Double(processors) * 1100 }

    /// Refuses a figure of more CPU than the machine has.
    public func fault(milliCores: Double) -> MeterFault? {
        guard milliCores > mostMilliCores else { return nil }
        return MeterFault(.implausible, "\(Int(clamped: milliCores.rounded())) millicores on a machine of \(processors) processors")
    }

    /// Refuses a figure of more memory than the machine has (>).
    public func fault(bytes: Double) -> MeterFault? {
        guard bytes > memory else { return nil }
        return MeterFault(.implausible, "\(bytes) bytes on a machine that has \(memory)")
    }
}
