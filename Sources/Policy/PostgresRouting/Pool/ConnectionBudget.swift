import Basics

/// Whether all replicas' pools together fit into a server's `max_connections`.
///
/// Needed: for each service its replicas times `size + overflow`, 3 that PostgreSQL reserves for superusers, and 5 for Muster itself.
public enum ConnectionBudget {
    /// `superuser_reserved_connections` of PostgreSQL, its default.
    public static let reserved = 3
    /// Probes, the catalog, replication commands and verbs of Muster.
    public static let own = 5

    /// A service that uses the store.
    public struct User: Sendable, Equatable {
        public let service: String
        public let fewest: Int
        public let most: Int
        public let pool: PoolSettings

        public init(service: String, fewest: Int, most: Int, pool: PoolSettings) {
            self.service = service
            self.fewest = min(max(fewest, 0), 1_000_000)
            self.most = min(max(most, self.fewest), 1_000_000)
            self.pool = pool
        }
    }

    public enum Result: Sendable, Equatable {
        case fits
        /// Only the most replicas do not fit: the ceiling of each service's autoscaler, which is below its most.
        case warning(ceilings: [String: Int])
        /// Not even the fewest fit.
        case error
    }

    /// - Parameter maxConnections: the server's.
    public static func judge(_ users: [User], maxConnections: Int, store: String) -> Decision<Result> {
        let base = reserved + own
        let atFewest = users.map { $0.fewest.multipliedClamped(by: $0.pool.most) }.sumClamped().addingClamped(base)
        let atMost = users.map { $0.most.multipliedClamped(by: $0.pool.most) }.sumClamped().addingClamped(base)
        let terms = users.map { "\($0.service) \($0.fewest)..\($0.most) x (\($0.pool.size) + \($0.pool.overflow))" }.joined(
            separator: " + ")
        let inputs: [DecisionRecord.Input] = [
            .init("max_connections", maxConnections), .init("pools", terms), .init("reserved", reserved), .init("muster", own),
            .init("needed at the fewest", atFewest), .init("needed at the most", atMost),
        ]
        func decide(_ result: Result, _ outcome: String, _ sentence: String, _ flip: String) -> Decision<Result> {
            Decision(
                result,
                because: DecisionRecord(
                    .limit, subject: store, inputs: inputs, raw: "\(atMost)", outcome: outcome, sentence: sentence, flip: flip))
        }
        if atMost <= maxConnections {
            return decide(
                .fits, "fits", "\(terms) + \(base) = \(atMost) connections fit into max_connections \(maxConnections).",
                "more replicas or larger pools")
        }
        if atFewest > maxConnections {
            return decide(
                .error, "error",
                "\(terms) + \(base): even the fewest replicas need \(atFewest) connections, and max_connections is \(maxConnections).",
                "a larger max_connections, a smaller pool, or the proxy")
        }
        let ceilings = ceilings(users, spare: maxConnections - atFewest)
        let words = ceilings.sorted { $0.key < $1.key }.map { "\($0.key) to \($0.value)" }.joined(separator: ", ")
        return decide(
            .warning(ceilings: ceilings), "warning",
            "\(terms) + \(base): the most replicas need \(atMost) connections, and max_connections is \(maxConnections): the autoscaler "
                + "holds \(words).",
            "a larger max_connections, a smaller pool, or the proxy")
    }

    /// What is left above the fewest replicas is shared out by what each service asks for beyond them, so that all ceilings together fit.
    /// With one service that is floor((max_connections - 8) / (size + overflow)).
    private static func ceilings(_ users: [User], spare: Int) -> [String: Int] {
        let wishes = users.map { ($0.most - $0.fewest).multipliedClamped(by: $0.pool.most) }
        let sum = max(wishes.sumClamped(), 1)
        var out: [String: Int] = [:]
        for (user, wish) in zip(users, wishes) {
            // spare < sum, or all would fit; both stay below 2^62 for a million replicas of twenty thousand connections.
            let share = wish == sum ? spare : Int(clamped: (Double(spare) * Double(wish) / Double(sum)).rounded(.down))
            let ceiling = user.fewest + share / max(user.pool.most, 1)
            if ceiling < user.most { out[user.service] = ceiling }
        }
        return out
    }
}
