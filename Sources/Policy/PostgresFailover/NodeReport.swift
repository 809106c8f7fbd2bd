import Basics

/// What a node of a PostgreSQL store does, in the word that people see.
public enum PostgresNodeState: String, Sendable, CaseIterable {
    /// Its copy is being made.
    case cloning
    /// Its process runs and does not answer yet, or replays its log after a crash.
    case starting
    case primary
    /// It receives and replays the primary's log, and has for a second.
    case streaming
    /// It receives the log and has not for a second, or lies behind.
    case catchingUp = "catching-up"
    /// It runs and receives nothing.
    case detached
    /// It is being made primary.
    case promoting
    /// It led, is ended for certain, and cannot start as primary.
    case fenced
    /// What its log has beyond the fork is being taken back.
    case rewinding
    /// It ended, or could not be made fit, and is tried again.
    case backingOff = "backing-off"
    case stopped
}

/// What a PostgreSQL store does as a whole.
public enum PostgresStoreState: String, Sendable, CaseIterable {
    /// The primary has not answered since the stack was started.
    case forming
    case serving
    /// It serves, with fewer standbys than were declared, or acknowledges writes that only the primary has.
    case degraded
    /// Nobody serves: the primary is lost and nobody has been promoted.
    case headless
    case promoting
}

/// What a node says of itself.
public struct NodeReport: Sendable, Equatable {
    public enum Role: String, Sendable { case primary, standby }

    public var role: Role
    /// nil: a standby that receives nothing does not know it.
    public var timeline: UInt32?
    /// Of a primary what it has flushed; of a standby the further one of what it has received and replayed.
    public var position: WALPosition
    /// Whether a standby receives the log now.
    public var isReceiving: Bool
    /// Of a primary: the standbys that stream from it.
    public var streaming: Set<Int>
    /// Of a primary: the standbys whose log was removed before they had it. They can follow only with a new copy.
    public var cutOff: Set<Int>
    /// Of a primary: whether it waits for a standby before it acknowledges a commit.
    public var isStrict: Bool

    public init(
        _ role: Role, timeline: UInt32?, position: WALPosition, isReceiving: Bool = false, streaming: Set<Int> = [], cutOff: Set<Int> = [],
        isStrict: Bool = false
    ) {
        self.role = role
        self.timeline = timeline
        self.position = position
        self.isReceiving = isReceiving
        self.streaming = streaming
        self.cutOff = cutOff
        self.isStrict = isStrict
    }
}

/// What became of a question to a node.
public enum NodeTestimony: Sendable, Equatable {
    case answered(NodeReport)
    /// It answers that it starts, replays or ends: it lives, and does not serve.
    case occupied(String)
    /// No answer to a new connection within the time.
    case silent(String)
    /// It could not be asked, for want of something here. That tells nothing of the node.
    case unasked(String)
}
