import Basics

/// The amount of data that a cluster can hold. It is not the sum of its nodes' memory: a replica holds a copy, and each process needs
/// memory beside its data.
public struct Capacity: Sendable, Equatable {
    /// The most memory that a process takes, as a multiple of maxmemory: while it saves, each page that is written to exists twice.
    /// Measured with full nodes whose keys were all rewritten during one snapshot: 131 MiB for 64 (docs/guides/redis-monitoring.md).
    /// Managed services set aside a quarter by default, which holds where few keys change meanwhile.
    public static let worst = 2
    /// The share of the capacity above which there is no time left to add a node.
    public static let fillLimit = 0.8

    public let masters: Int
    public let nodes: Int
    /// The `maxmemory` of each node in bytes; 0: without limit.
    public let memory: Int
    /// The bytes of each node that `repl-backlog-size` and clients' buffers take; they count within maxmemory.
    public let buffers: Int

    public init(masters: Int, nodes: Int, memory: Int, buffers: Int = 16 << 20) {
        self.masters = masters
        self.nodes = nodes
        self.memory = memory
        self.buffers = buffers
    }

    public var raw: Int { nodes.multipliedClamped(by: memory) }
    /// The data that the cluster can hold in bytes, each key counted once.
    public var usable: Int { masters.multipliedClamped(by: max(0, memory.subtractingClamped(buffers))) }
    /// The memory that the container or the machine must leave one node.
    public var processLimit: Int { memory.multipliedClamped(by: Capacity.worst) }

    /// The arithmetic in words, a line for each step; one line where there is no limit.
    public var lines: [String] {
        if memory == 0 { return ["no maxmemory is set: a node grows until the machine's memory ends, and the kernel kills it"] }
        let size = ByteSize.text(memory)
        return [
            "raw: \(nodes) nodes x \(size) = \(ByteSize.text(raw)); replicas hold copies, so data fits once into \(masters) x \(size) = "
                + "\(ByteSize.text(masters.multipliedClamped(by: memory)))",
            "less \(ByteSize.text(buffers)) a node for the replication backlog and clients' buffers: \(ByteSize.text(usable)) usable; "
                + "plan for 80 % of it, \(ByteSize.text(Int(clamped: Double(usable) * Capacity.fillLimit)))",
            "a process takes up to twice its maxmemory while it saves and all keys are rewritten: 2 x \(size) = "
                + "\(ByteSize.text(processLimit)) each, \(ByteSize.text(nodes.multipliedClamped(by: processLimit))) for all; a container's limit must not "
                + "be below it",
        ]
    }
}

/// Writes and reads sizes in bytes as people write them.
public enum ByteSize {
    /// A size as text: `512 MiB`, `1.5 GiB`, `300 B`. At most one digit behind the point; 0 for a negative size.
    public static func text(_ bytes: Int) -> String {
        var value = Double(max(0, bytes)), unit = 0
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
        while value >= 1024, unit < units.count - 1 {
            value /= 1024
            unit += 1
        }
        let tenths = Int(clamped: (value * 10).rounded())
        return tenths % 10 == 0 || unit == 0
            ? "\(Int(clamped: value.rounded())) \(units[unit])" : "\(tenths / 10).\(tenths % 10) \(units[unit])"
    }

    /// Reads `512Mi`, `1Gi`, `64mb`, `1024`; nil for anything else, negative, or above 1 PiB.
    public static func read(_ text: String) -> Int? {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        guard let value = Int(digits) else { return nil }
        let factors = [
            "": 1, "k": 1000, "ki": 1 << 10, "kb": 1 << 10, "m": 1_000_000, "mi": 1 << 20, "mb": 1 << 20, "g": 1_000_000_000, "gi": 1 << 30,
            "gb": 1 << 30,
        ]
        guard let factor = factors[text.dropFirst(digits.count).lowercased()] else { return nil }
        let (bytes, tooLarge) = value.multipliedReportingOverflow(by: factor)
        return tooLarge || bytes > 1 << 50 ? nil : bytes
    }
}
