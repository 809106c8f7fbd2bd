import Basics

/// Who leads a PostgreSQL store, and what is done when the primary is lost: a pure machine, events in, actions out; no process, no file, no
/// clock. `deadline` is when it wants a `tick` at the latest.
///
/// It promises that nobody is promoted before the old primary is known to be ended and kept from starting (`fence`), and that every step is
/// in the record before it is taken, so that a supervisor that is killed between two steps goes on with the right one. Effects carry the
/// number of the attempt that wanted them: what comes back late is recognised and ignored.
public struct FailoverMachine: Sendable {
    public struct Settings: Sendable, Equatable {
        /// The store's name.
        public let name: String
        /// Its nodes have the numbers 1 to this.
        public let nodes: Int
        /// How many standbys must have a commit before it is acknowledged; 0: none.
        public let quorum: Int
        /// How long commits wait where no standby streams, before the primary acknowledges them alone; nil: as long as it takes.
        public let relax: Duration?
        /// An heir may be so many bytes behind the last known position of the primary.
        public let maxLoss: UInt64
        /// From the fault to the first acknowledged write.
        public let failover: Duration

        public init(name: String, nodes: Int, quorum: Int, relax: Duration?, maxLoss: UInt64, failover: Duration) {
            self.name = name
            self.nodes = nodes
            self.quorum = nodes > 1 ? quorum : 0
            self.relax = relax
            self.maxLoss = maxLoss
            self.failover = failover
        }

        /// Probes follow each other so, and none waits longer for its answer. The third failure in a row comes at most four of these after
        /// the fault, which leaves a second of `failover` for the rest.
        public var probeInterval: Duration {
            let left = failover.nanoseconds.subtractingClamped(1_000_000_000) / 4
            return .nanoseconds(max(50_000_000, left))
        }
    }

    /// What the store is about, and how that is left.
    public enum Phase: Sendable, Equatable {
        /// The recorded primary is started. Leaves by its answer as primary (serving), or by an order to promote another while it is down.
        case forming
        /// The primary serves. Leaves by its death (fencing) or an order to promote another (checkpointing).
        case serving
        /// A switchover: the primary writes a checkpoint, so that its stop is short. Leaves when it has, fails, or dies.
        case checkpointing(heir: Int)
        /// A switchover: the primary was told to stop. Leaves by its end, or by the time (fencing).
        case stopping(heir: Int)
        /// Every process of the lost primary is ended. Leaves by the outcome: choosing, or headless.
        case fencing
        /// The fence is not confirmed, so nobody may be promoted. Tried again every second. Leaves by success (choosing).
        case headless(String)
        /// The standbys are asked how far they are. Leaves when all have answered or 100 ms are over: promoting, or forming.
        case choosing
        /// The heir is made primary. Leaves by its success only: it may have been promoted unseen.
        case promoting(heir: Int)
    }

    public enum Event: Sendable, Equatable {
        /// The process of a node has been started.
        case began(Int)
        /// The process of a node has ended, told to or not.
        case ended(Int)
        case probed(Int, NodeTestimony)
        case fenced(attempt: Int, Fencing)
        /// How far a standby is; nil: it did not say.
        case position(attempt: Int, node: Int, NodeReport?)
        case promoted(attempt: Int, Promotion)
        /// A standby was told to follow the primary, and how far its log is; nil: it could not be told.
        case following(attempt: Int, node: Int, WALPosition?)
        /// A checkpoint of the primary has ended; nil: with success.
        case checkpointed(attempt: Int, failure: String?)
        /// A node was made fit to follow, or could not be. `term` is that of the plan: fit for another primary is not fit for this one.
        case rejoined(Int, term: Int, Rejoining)
        /// Commits that the old log of a node has beyond the fork; nil: they could not be counted.
        case counted(Int, commits: Int?)
        case ordered(Order)
        /// The stack stops: whatever ends from here on was told to.
        case stops
        case tick
    }

    /// What became of a fence.
    public enum Fencing: Sendable, Equatable {
        /// No process works in the data folder any more, and the node cannot start as primary. `clean`: where its last checkpoint is, when
        /// it was shut down in order.
        case confirmed(clean: WALPosition?)
        case failed(String)
    }

    public enum Promotion: Sendable, Equatable {
        case done(timeline: UInt32, fork: WALPosition?)
        case failed(String)
    }

    public enum Rejoining: Sendable, Equatable {
        case rewound, cloned
        case failed(String)
    }

    /// What a person asks for.
    public enum Order: Sendable, Equatable {
        /// `isForced`: also where the primary does not run, and what the heir lacks is lost.
        case promote(Int, isForced: Bool)
        case rejoin(Int)
    }

    public enum Action: Sendable, Equatable {
        /// The record is to be on the disk. Where an action has a record with it, it is written before anything else is done.
        case keep(StoreRecord)
        /// Ends every process of the node and keeps it from starting as primary, then tells `fenced`.
        case fence(attempt: Int, node: Int, keep: StoreRecord)
        /// Asks the node how far it is, and tells `position`.
        case ask(attempt: Int, node: Int)
        /// Makes the node primary, unless it is one already, and tells `promoted`.
        case promote(attempt: Int, node: Int, keep: StoreRecord)
        /// Makes slots on the primary for all others, once it leads.
        case prepare(node: Int)
        /// Lets a running standby follow the primary, and tells `following`.
        case follow(attempt: Int, node: Int, primary: Int)
        /// Writes a checkpoint, and tells `checkpointed`.
        case checkpoint(attempt: Int, node: Int)
        /// Stops the node in order: it ends its clients' connections and sends its standbys all it has.
        case stop(node: Int)
        /// Ends the node's processes at once; it is started again by what `plan` says then.
        case end(node: Int)
        /// Whether the primary waits for a standby before it acknowledges a commit.
        case acknowledge(node: Int, strict: Bool)
        /// Who leads; nil: nobody does now.
        case lead(Int?)
        case decided(DecisionRecord)
        /// How long a phase of the failover took.
        case measured(phase: String, Duration)
        /// The outcome of an order; nil: it is carried out. A failure says why not.
        case answered(failure: String?)
    }

    /// How a node is to be started.
    public enum StartPlan: Sendable, Equatable {
        /// Not now, and why.
        case hold(String)
        /// It has no data, and none is missing: a new one is made.
        case initialise
        /// The record is to be on the disk before it starts.
        case asPrimary(keep: StoreRecord)
        case asStandby(of: Int)
        /// What its log has beyond the fork is counted and taken back, or it gets a new copy where that fails.
        case rewind(from: Int, term: Int)
        /// Its data is set aside, and a copy of the primary's made.
        case clone(from: Int, term: Int)
    }

    struct Node: Sendable {
        var isRunning = false
        var state = PostgresNodeState.stopped
        var report: NodeReport?
        /// Probes of the primary in a row without an answer.
        var silences = 0
        var firstSilence: MonotonicTime?
        var streamingSince: MonotonicTime?
        var detachedSince: MonotonicTime?
        /// How often it was made fit again since it last streamed.
        var rejoins = 0
        /// See `HeirChoice.Standby.bound`; set by the second answer of the primary after the node's end.
        var bound: WALPosition?
        var answersUntilBound = 0
    }

    public let settings: Settings
    public internal(set) var record: StoreRecord
    public internal(set) var phase = Phase.forming
    /// When a `tick` is wanted; nil: by no time.
    public internal(set) var deadline: MonotonicTime?
    /// Whether the primary acknowledges commits that no standby has.
    public internal(set) var isRelaxed = false
    var nodes: [Node]
    var attempt = 0
    /// The heir that a person has named.
    var wanted: Int?
    var isOrdered = false
    /// Whom the order that is being carried out is to make primary, and whether it was given while nobody served: what is lost by it was
    /// accepted then.
    var orderedHeir: Int?
    var isForced = false
    /// The old primary was stopped in order, and its last checkpoint is here: it needs no rewind.
    var cleanStop: WALPosition?
    var answers: [Int: NodeReport?] = [:]
    var lastPosition: WALPosition?
    var wasStrict = false
    /// The standbys are asked, and those that have not answered may be waited for a little longer.
    var isPatient = false
    var isCheckpointed = false
    var aloneSince: MonotonicTime?
    var isStopping = false
    /// Why the last try of a step failed, which is told once.
    var failure: String?
    /// When the death was seen, and when the present phase of the failover began.
    var seenAt: MonotonicTime?
    var phaseBegan: MonotonicTime?

    /// A store that is started with what its record says.
    public init(_ settings: Settings, record: StoreRecord) {
        self.settings = settings
        self.record = record
        nodes = Array(repeating: Node(), count: settings.nodes)
        if record.step == .promoting { phase = .promoting(heir: record.primary) }
    }

    /// Probes without an answer that are a death.
    static let deadAfter = 3
    static let askingTime = Duration.milliseconds(100)
    /// On a busy machine an answer takes longer: where those that came do not make an heir, the others are waited for a little longer.
    static let longAskingTime = Duration.milliseconds(400)
    static let fencingTime = Duration.seconds(5)
    static let fenceAgain = Duration.seconds(1)
    static let promoteAgain = Duration.milliseconds(100)
    static let stoppingTime = Duration.seconds(10)
    static let checkpointTime = Duration.seconds(60)
    /// A standby that has received nothing for so long, while the primary serves, is made fit again.
    static let detachedTime = Duration.seconds(15)
    static let steadyTime = Duration.seconds(1)
    /// A switchover costs the time that this takes to be sent.
    static let switchoverLag: UInt64 = 1 << 20

    func name(_ number: Int) -> String { "\(settings.name)/\(number)" }
    func node(_ number: Int) -> Node { nodes[number - 1] }
    var others: [Int] { (1...settings.nodes).filter { $0 != record.primary } }

    public mutating func handle(_ event: Event, now: MonotonicTime) -> [Action] {
        if isStopping { return [] }
        switch event {
        case .began(let number): return began(number)
        case .ended(let number): return ended(number, now)
        case .probed(let number, let testimony): return probed(number, testimony, now)
        case .fenced(attempt, let outcome): return fenced(outcome, now)
        case .position(attempt, let number, let report):
            guard phase == .choosing else { return [] }
            answers[number] = .some(report)
            return haveAllAnswers ? choose(now) : []
        case .promoted(attempt, let outcome): return promoted(outcome, now)
        case .following(attempt, let number, let position): return following(number, position)
        case .checkpointed(attempt, let failure): return checkpointed(failure, now)
        case .rejoined(let number, let term, let outcome): return term == record.term ? rejoined(number, outcome) : []
        case .counted(let number, let commits): return [.decided(lost(number, commits))]
        case .ordered(let order): return ordered(order, now)
        case .stops:
            isStopping = true
            deadline = nil
            return isOrdered ? [.answered(failure: "the stack stops")] : []
        case .tick: return tick(now)
        case .fenced, .position, .promoted, .following, .checkpointed: return []
        }
    }

    private mutating func tick(_ now: MonotonicTime) -> [Action] {
        guard let due = deadline, now >= due else { return [] }
        deadline = nil
        switch phase {
        case .fencing: return fenced(.failed("it took longer than \(FailoverMachine.fencingTime.brief)"), now)
        case .headless: return fence(now)
        case .choosing:
            if isPatient, choice.result == nil {
                isPatient = false
                deadline = now + FailoverMachine.longAskingTime
                return []
            }
            return choose(now)
        case .promoting(let heir): return promote(heir, now)
        case .checkpointing: return checkpointed("it took longer than \(FailoverMachine.checkpointTime.brief)", now)
        case .stopping: return lose("did not stop within \(FailoverMachine.stoppingTime.brief)", now)
        case .forming, .serving: return []
        }
    }

    /// A failure is news where another one, or none, came before it.
    mutating func isNews(_ why: String) -> Bool {
        defer { failure = why }
        return failure != why
    }

    mutating func enter(_ new: Phase, until: MonotonicTime? = nil) {
        phase = new
        attempt += 1
        deadline = until
    }

    /// The time since the failover's last phase began, which begins the next one.
    mutating func measure(_ name: String, _ now: MonotonicTime) -> [Action] {
        guard let began = phaseBegan else { return [] }
        phaseBegan = now
        return [.measured(phase: name, now - began)]
    }

    mutating func began(_ number: Int) -> [Action] {
        nodes[number - 1].isRunning = true
        nodes[number - 1].state = .starting
        nodes[number - 1].bound = nil
        nodes[number - 1].answersUntilBound = 0
        forget(number)
        return []
    }

    /// What a process said before says nothing of the next one.
    mutating func forget(_ number: Int) {
        nodes[number - 1].report = nil
        nodes[number - 1].silences = 0
        nodes[number - 1].firstSilence = nil
        nodes[number - 1].streamingSince = nil
        nodes[number - 1].detachedSince = nil
    }

    // MARK: what is shown

    /// The store as a whole.
    public var state: PostgresStoreState {
        switch phase {
        case .forming: .forming
        case .serving, .checkpointing:
            isRelaxed || others.contains { node($0).state != .streaming } ? .degraded : .serving
        case .stopping, .fencing, .headless, .choosing: .headless
        case .promoting: .promoting
        }
    }

    /// The node in the word that people see.
    public func state(of number: Int) -> PostgresNodeState {
        if case .promoting(number) = phase { return .promoting }
        let isLost = number == record.primary && !node(number).isRunning
        switch phase {
        case .fencing, .headless, .choosing: return isLost ? .fenced : node(number).state
        case .forming, .serving, .checkpointing, .stopping, .promoting: return node(number).state
        }
    }

    /// Whether the process of a node runs, for all that was told.
    public func isRunning(_ number: Int) -> Bool { node(number).isRunning }

    /// What a node said last; nil: its process has not answered.
    public func report(of number: Int) -> NodeReport? { node(number).report }

    /// How many bytes a standby is behind the primary's last known position; nil: one of them is not known.
    public func lag(of number: Int) -> UInt64? {
        guard let position = node(number).report?.position, let lastPosition else { return nil }
        return lastPosition.bytes(beyond: position)
    }

    /// Who leads now; nil: nobody is known to.
    public var leader: Int? {
        switch phase {
        case .serving, .checkpointing: record.primary
        case .forming, .stopping, .fencing, .headless, .choosing, .promoting: nil
        }
    }
}
