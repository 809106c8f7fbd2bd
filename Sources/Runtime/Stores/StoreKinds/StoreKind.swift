import Basics
import EventLoops
import Glibc
import StackModel

/// A kind of store that a stack can run, or name where somebody else runs it. The supervisor knows stores only by this: a kind's name
/// stands nowhere in it.
public protocol StoreKind: Sendable {
    /// The kind's word in the stack file.
    var name: StoreKindName { get }
    /// Makes a declared store ready to be run: judges what lies on the disk, chooses ports, writes folders, configurations and secrets.
    /// Nothing runs yet. Throws when the store cannot be run so, with what to do about it; then nothing may be started.
    func open(_ plan: StorePlan) throws(StoreFailure) -> any Store
    /// Whether no store of this name has ever been here: neither its folder nor a mark of it is there. What cannot be looked at may be there.
    func isUnknown(_ folder: String) -> Bool
    /// Removes what `open` has made in and beside the folder of a store that was unknown before it and has never served.
    func discard(_ folder: String)
}

extension StoreKind {
    public func isUnknown(_ folder: String) -> Bool { Files.isAbsent(folder) }

    public func discard(_ folder: String) { Files.remove(folder) }
}

/// What a kind is given to open a store.
public struct StorePlan {
    public let spec: StoreSpec
    /// The folder of the store's data, which the kind makes when it needs one.
    public let folder: String
    public let host: any StoreHost

    public init(spec: StoreSpec, folder: String, host: any StoreHost) {
        self.spec = spec
        self.folder = folder
        self.host = host
    }
}

/// Why a store cannot be run, and what to do about it.
public struct StoreFailure: Error, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

/// What a store is given of the stack around it. On the control loop, and as long as the store.
public protocol StoreHost: AnyObject {
    var loop: EventLoop { get }
    /// The path of a program that a node needs; nil: it is not installed.
    func program(_ name: String) -> String?
    /// A line for whoever runs the stack.
    var tell: (String) -> Void { get }
    /// A decision for the journal, which `muster why` reads.
    func decided(_ record: DecisionRecord)
    /// The nodes run and cannot be made a store. A stack that starts for the first time does not start then.
    func failed(_ reason: String)
    /// Runs a program to its end, as a part of the stack: it is on the list of what belongs to it, and is ended with it.
    func run(_ step: NodeStep) async -> StepEnding
    /// Ends the steps of a store that run.
    func endSteps(of store: String)
    /// How long a part of something took that a store did (`failover`, `promote`), for the metrics page.
    func took(_ store: String, _ phase: String, _ time: Duration)
}

/// A program that must run, and end, before a node can start: one that makes its folder, say.
public struct NodeStep: Sendable {
    public let store: String
    public let number: Int
    /// The program's path.
    public let program: String
    /// Its arguments. No secret stands in them.
    public let arguments: [String]
    /// The folder in which it runs.
    public let folder: String
    /// Who it runs as; nil: the user of this process.
    public let user: String?
    public let environment: [(name: String, value: String)]
    /// The file that its output is appended to.
    public let output: String
    /// Beyond it, it is killed.
    public let limit: Duration

    public init(
        store: String, number: Int, program: String, arguments: [String], folder: String, user: String? = nil,
        environment: [(name: String, value: String)] = [], output: String, limit: Duration
    ) {
        self.store = store
        self.number = number
        self.program = program
        self.arguments = arguments
        self.folder = folder
        self.user = user
        self.environment = environment
        self.output = output
        self.limit = limit
    }
}

/// How a step ended.
public enum StepEnding: Sendable, Equatable {
    case done
    /// It could not be started, ended without success, or was killed: why.
    case failed(String)
}

/// A declared store, opened. On the control loop.
public protocol Store: AnyObject {
    /// The processes that Muster runs, number 1 and on; none for an external store.
    var nodes: [NodePlan] { get }
    /// Where an external store is, for people: hosts and ports, and no password. Empty for one that Muster runs.
    var place: String { get }
    /// The probe of a node's process that has just been started; nil for the node of an external store. Whoever asks closes it.
    func probe(_ node: NodePlan?) -> any NodeProbe
    /// What a service that uses this store finds in its environment, `use.variable` first.
    func environment(for use: StoreUse) -> [(name: String, value: Secret)]
    /// Decides about the nodes as a whole; nil: each node lives for itself and may start at any time.
    var keeper: (any StoreKeeper)? { get }
    /// Counts something in the store, for the autoscaler; nil: there is nothing of that sort in a store of this kind.
    func gauge(_ length: MetricOrigin.Length) -> StoreGauge?
    /// Ends all connections. Nothing is asked afterwards.
    func close()
}

/// A process that Muster runs for a store.
public struct NodePlan: Sendable {
    /// Its number in the store, from 1.
    public let number: Int
    /// The program's path.
    public let program: String
    /// Its arguments. No secret stands in them: every user of the machine can read them.
    public let arguments: [String]
    /// The folder in which it runs.
    public let folder: String
    /// Written to its standard input, for secrets; at most 32,767 bytes.
    public let input: [UInt8]
    /// The port on 127.0.0.1 on which it answers, the same over restarts.
    public let port: UInt16
    /// The longest time from its start until it serves; beyond it, it is killed and started again.
    public let startTime: Duration
    /// Who it runs as; nil: the user of this process.
    public let user: String?
    /// What ends it in order. With another than SIGTERM its children are left to it.
    public let stopSignal: Int32
    /// Variables beside those that every process gets.
    public let environment: [(name: String, value: String)]

    public init(
        number: Int, program: String, arguments: [String], folder: String, input: [UInt8] = [], port: UInt16,
        startTime: Duration = .seconds(30), user: String? = nil, stopSignal: Int32 = SIGTERM,
        environment: [(name: String, value: String)] = []
    ) {
        self.user = user
        self.stopSignal = stopSignal
        self.environment = environment
        self.number = number
        self.program = program
        self.arguments = arguments
        self.folder = folder
        self.input = input
        self.port = port
        self.startTime = startTime
    }
}
