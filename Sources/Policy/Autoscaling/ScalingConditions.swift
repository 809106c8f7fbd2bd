/// The conditions of the autoscaler, in Kubernetes' words and order: a condition keeps its place, a new one comes last.
public struct ScalingConditions: Sendable, Equatable {
    public enum Kind: String, Sendable {
        case ableToScale = "AbleToScale"
        case scalingActive = "ScalingActive"
        case scalingLimited = "ScalingLimited"
        case scaledToZero = "ScaledToZero"
    }

    public struct Condition: Sendable, Equatable {
        public let kind: Kind
        public let holds: Bool
        public let reason: String
    }

    public private(set) var list: [Condition] = []

    public init() {}

    public mutating func set(_ kind: Kind, _ holds: Bool, _ reason: String) {
        let one = Condition(kind: kind, holds: holds, reason: reason)
        if let index = list.firstIndex(where: { $0.kind == kind }) { list[index] = one } else { list.append(one) }
    }

    public mutating func remove(_ kind: Kind) { list.removeAll { $0.kind == kind } }

    /// Whether a condition holds; nil: it was not told yet.
    public func status(_ kind: Kind) -> Bool? { list.first { $0.kind == kind }?.holds }
}
