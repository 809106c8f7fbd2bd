/// Decides about the nodes of a store as a whole: which of them may start, and who takes over from a dead one. On the control loop.
public protocol StoreKeeper: AnyObject {
    /// Whether the process of this node may be started now. Asked before each start of it, the first one too. The answer may take its time:
    /// what must be done or decided before the node comes back (a successor chosen, a folder made fit) is done before it is given.
    func mayStart(_ node: Int) async -> StartVerdict
    /// The start that was allowed has been carried out, or is not wanted any more: what was held for it can be let go. Called once after each
    /// verdict `start`.
    func began(_ node: Int)
    /// The node has answered a probe; what it said may still be changed by what the keeper knows (its nodes are no store yet).
    func answered(_ node: Int, _ report: ProbeReport) -> ProbeReport
    /// The node's process has ended, and nobody told it to.
    func died(_ node: Int)
}

/// Whether a node's process may be started.
public enum StartVerdict: Sendable, Equatable {
    case start
    /// Not now, for the reason, which says what to do. The keeper is asked again in a second, until it lets the node start.
    case hold(String)
}
