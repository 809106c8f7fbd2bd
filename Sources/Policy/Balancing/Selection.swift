/// The choice of a balancer and its reason, small enough for every request; the journal makes sentences of a sample of them.
public struct Selection: Sendable, Equatable {
    /// Why the candidate was chosen.
    public enum Reason: String, Sendable {
        /// The candidate was next in turn.
        case turn
        /// The candidate's share, by weight, was the furthest behind.
        case share
        /// The candidate had the fewest requests under way (for its weight).
        case fewest
        /// Of two candidates drawn at random this one had the fewer requests under way (for its weight).
        case fewer
        /// The request's key belongs to this candidate.
        case home
        /// The candidate that the key belongs to had more than its share under way.
        case spill
        /// A cookie of the client's names this candidate.
        case sticky
        /// Too few candidates were eligible, or none of those was left: the choice is over all that are not leaving, because some answer is
        /// better than none.
        case panic
    }

    /// The index of the chosen candidate in the list of candidates.
    public let index: Int
    /// The reason for the choice, for the journal.
    public let reason: Reason

    public init(_ index: Int, _ reason: Reason) {
        self.index = index
        self.reason = reason
    }
}
