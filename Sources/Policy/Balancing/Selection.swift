/// What a balancer chose and why, small enough for every request; the journal makes sentences of a sample of them.
public struct Selection: Sendable, Equatable {
    /// Why it was chosen.
    public enum Reason: String, Sendable {
        /// It was next in turn.
        case turn
        /// Its share, by weight, was the furthest behind.
        case share
        /// It had the fewest requests under way (for its weight).
        case fewest
        /// Of two drawn at random it had the fewer requests under way (for its weight).
        case fewer
        /// Its key belongs there.
        case home
        /// The one that its key belongs to had more than its share under way.
        case spill
        /// A cookie of the client's names it.
        case sticky
        /// Too few were eligible, or none of those was left: over all that are not leaving, because some answer is better than none.
        case panic
    }

    /// Its place in the list of candidates.
    public let index: Int
    /// For the journal.
    public let reason: Reason

    public init(_ index: Int, _ reason: Reason) {
        self.index = index
        self.reason = reason
    }
}
