import Basics

/// How long a stack may take to start and to stop, from what its file gives its units; and how long whoever waits for that should.
public struct StackTimes: Sendable, Equatable {
    /// The longest until one unit is ready, or a task is done.
    public let start: Duration
    /// The longest until everything has stopped.
    public let stop: Duration

    /// A day: the bound of what is waited for, whatever a file says.
    public static let longest = Duration.seconds(86_400)
    /// The gateway's drain when the stack stops: requests that are under way then have so long to end.
    public static let gatewayDrain = Duration.seconds(10)
    /// What a store's node is given when it stops: so long until SIGTERM at most, and as long again until SIGKILL.
    public static let storeGrace = Duration.seconds(10)

    /// A start: what the file gives the slowest service or task, and for a store, which may have to read much, ten minutes. A stop: the gateway's
    /// drain, then the slowest service or task (a service has its grace twice: to drain, and from SIGTERM to SIGKILL), then the stores.
    public init(_ stack: Stack) {
        // A task that has changed while it runs runs twice.
        let limits = stack.services.map(\.startTime) + stack.tasks.map { $0.timeLimit * 2 } + (stack.stores.isEmpty ? [] : [.seconds(600)])
        let grace = (stack.services.map(\.grace) + stack.tasks.map(\.grace)).max() ?? .zero
        let drain: Duration = stack.gateway == nil ? .zero : StackTimes.gatewayDrain
        let stores: Duration = stack.stores.isEmpty ? .zero : StackTimes.storeGrace * 2
        start = limits.max() ?? .zero
        stop = drain + grace * 2 + stores
    }

    /// What somebody else tells, in seconds, each held to `longest`. Of a stack of which nothing is known: 0 and 0.
    public init(startSeconds: Int, stopSeconds: Int) {
        start = .seconds(min(max(startSeconds, 0), 86_400))
        stop = .seconds(min(max(stopSeconds, 0), 86_400))
    }

    /// How long to wait until the stack has stopped: half a minute beyond all graces, and two minutes at least, because a supervisor may first
    /// have to end what one before it has left.
    public var downLimit: Duration { min(max(stop + .seconds(30), .seconds(120)), StackTimes.longest) }

    /// How long to wait until the stack is quiet: half a minute beyond what starts and what leaves may take, and five minutes at least.
    public var quietLimit: Duration { min(max(start + stop + .seconds(30), .seconds(300)), StackTimes.longest) }
}
