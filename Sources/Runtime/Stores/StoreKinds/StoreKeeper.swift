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
    /// The stack ends the store: what ends from here on was told to. Nothing is begun any more, and `mayStart` comes to an end.
    func stops()
    /// What is shown of the store as a whole; nil: there is nothing beyond its nodes.
    func view() -> StoreView?
    /// Carries out what a person asks for, and tells what became of it.
    func carryOut(_ order: StoreOrder) async throws(StoreFailure) -> String
}

extension StoreKeeper {
    public func stops() {}
    public func view() -> StoreView? { nil }
    public func carryOut(_ order: StoreOrder) async throws(StoreFailure) -> String {
        throw StoreFailure("a store of this kind knows no '\(order.verb)'")
    }
}

/// A store as a whole, as its keeper sees it.
public struct StoreView: Sendable, Equatable {
    public struct Node: Sendable, Equatable {
        public let number: Int
        /// What it does, in the kind's own word.
        public let state: String
        /// Its part in the store; nil: unknown.
        public let role: String?
        /// Further figures by name, in the order in which they are shown. They are numbers where they read as such.
        public let figures: [Figure]

        public init(number: Int, state: String, role: String?, figures: [Figure]) {
            self.number = number
            self.state = state
            self.role = role
            self.figures = figures
        }
    }

    public struct Figure: Sendable, Equatable {
        public let name: String
        public let value: String

        public init(_ name: String, _ value: some CustomStringConvertible) {
            self.name = name
            self.value = value.description
        }
    }

    public let state: String
    public let figures: [Figure]
    public let nodes: [Node]

    public init(state: String, figures: [Figure], nodes: [Node]) {
        self.state = state
        self.figures = figures
        self.nodes = nodes
    }
}

/// What a person asks of a store.
public struct StoreOrder: Sendable, Equatable {
    /// The word for it: `promote`, `rejoin`.
    public let verb: String
    /// The node that it is about; nil: none.
    public let node: Int?
    /// What may be lost by it was accepted.
    public let isForced: Bool
    /// Only what would be done is told.
    public let isDry: Bool

    public init(verb: String, node: Int?, isForced: Bool, isDry: Bool) {
        self.verb = verb
        self.node = node
        self.isForced = isForced
        self.isDry = isDry
    }
}

/// Whether a node's process may be started.
public enum StartVerdict: Sendable, Equatable {
    case start
    /// Not now, for the reason, which says what to do. The keeper is asked again in a second, until it lets the node start.
    case hold(String)
}
