import Basics

/// The arithmetic of amounts: whole milli-cores and whole bytes, as Kubernetes' vertical recommender counts them. Never traps.
public enum Amount {
    /// The largest amount: `MaxResourceAmount` of kubernetes/autoscaler.
    public static let most = 100_000_000_000_000

    /// Makes a whole amount of a real number. The fraction is dropped; a value above `most` becomes `most`; a value below 0, or one that is
    /// no number, becomes 0.
    ///
    /// That no number is 0 is ours: with no samples the upper bound would be 0 · ∞, and Go's conversion of that depends on the processor.
    public static func whole(_ value: Double) -> Int {
        min(max(Int(clamped: value), 0), most)
    }

    /// `amount · factor`, made a whole amount by `whole`.
    public static func scaled(_ amount: Int, by factor: Double) -> Int { whole(Double(amount) * factor) }

    /// The least multiple of `step` that is `>=` the amount. 0 stays 0; a step of 1 or less changes nothing.
    public static func roundedUp(_ amount: Int, toMultipleOf step: Int) -> Int {
        guard step > 1, amount > 0, amount % step != 0 else { return amount }
        let (sum, overflow) = amount.addingReportingOverflow(step - amount % step)
        return overflow ? amount : sum
    }

    /// The sum, held to the largest `Int`.
    public static func sum(_ a: Int, _ b: Int) -> Int { a.addingClamped(b) }
}

/// The resources for which something is recommended.
public enum Resource: String, Sendable, CaseIterable {
    /// CPU, in thousandths of a core.
    case cpu
    /// Memory, in bytes.
    case memory

    /// The amount as a stack file has it: `350m`, `263Mi`. Memory is rounded up to whole MiB.
    public func text(_ amount: Int) -> String {
        switch self {
        case .cpu: amount % 1000 == 0 && amount > 0 ? "\(amount / 1000)" : "\(amount)m"
        case .memory: "\(Amount.roundedUp(amount, toMultipleOf: 1 << 20) >> 20)Mi"
        }
    }
}

/// An amount of each resource.
public struct Resources: Sendable, Equatable {
    /// Milli-cores.
    public var cpu: Int
    /// Bytes.
    public var memory: Int

    public init(cpu: Int, memory: Int) {
        self.cpu = cpu
        self.memory = memory
    }

    public subscript(_ resource: Resource) -> Int { resource == .cpu ? cpu : memory }
}

/// An amount of each resource, or none: declared amounts, or amounts that a policy allows.
public struct OptionalResources: Sendable, Equatable {
    /// Milli-cores.
    public var cpu: Int?
    /// Bytes.
    public var memory: Int?

    public init(cpu: Int? = nil, memory: Int? = nil) {
        self.cpu = cpu
        self.memory = memory
    }

    public subscript(_ resource: Resource) -> Int? { resource == .cpu ? cpu : memory }
}
