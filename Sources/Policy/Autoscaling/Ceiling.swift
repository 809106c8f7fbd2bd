import Basics

/// A limit that lies outside the service: beyond it more replicas do not help, or do harm.
public struct Ceiling: Sendable, Equatable {
    public enum Kind: Sendable, Equatable {
        /// Connections that a database or another server accepts, less those reserved for others, shared out among the replicas.
        case connections(of: String, limit: Int, each: Int, reserved: Int)
        /// Partitions of a topic: consumers of a group beyond their number sit idle.
        case partitions(topic: String, count: Int)
        /// Memory of the machine that may be given away, in bytes.
        case memory(available: Int, each: Int)
        /// The number of instances that a licence covers.
        case licences(Int)
        /// Cost, in thousandths of a unit of money an hour.
        case cost(perHour: Int, each: Int)
    }

    public let kind: Kind
    /// The most replicas that the ceiling allows; 0 when not even one fits.
    public let most: Int

    /// A ceiling of this kind. `each` and every limit must not be negative; an `each` of 0 costs nothing and gives no ceiling (nil).
    public init?(_ kind: Kind) {
        self.kind = kind
        switch kind {
        case .connections(_, let limit, let each, let reserved):
            guard each > 0 else { return nil }
            most = max(0, limit.subtractingClamped(reserved)) / each
        case .partitions(_, let count): most = max(0, count)
        case .memory(let available, let each):
            guard each > 0 else { return nil }
            most = max(0, available) / each
        case .licences(let count): most = max(0, count)
        case .cost(let perHour, let each):
            guard each > 0 else { return nil }
            most = max(0, perHour) / each
        }
    }

    /// The ceiling in words: `more replicas will not help because …`
    public var sentence: String {
        "more replicas will not help because " + reason
    }

    public var reason: String {
        switch kind {
        case .connections(let name, let limit, let each, let reserved):
            "\(name) accepts \(limit) connections\(reserved > 0 ? ", \(reserved) of them kept for others," : "") and each replica takes "
                + "\(each): \(most) replicas fit"
        case .partitions(let topic, let count):
            "the topic \(topic) has \(count) partitions and a partition has one consumer of a group: the others would sit idle"
        case .memory(let available, let each):
            "the machine has \(available >> 20) MiB for it and each replica takes \(each >> 20) MiB: \(most) replicas fit"
        case .licences(let count): "the licence covers \(count)"
        case .cost(let perHour, let each):
            "\(Ceiling.money(perHour)) an hour may be spent and each replica costs \(Ceiling.money(each)): \(most) replicas fit"
        }
    }

    private static func money(_ thousandths: Int) -> String {
        let rest = String(thousandths % 1000 + 1000).dropFirst()
        return "\(thousandths / 1000).\(rest.hasSuffix("0") ? rest.dropLast() : rest)"
    }
}
