import Basics
import EventLoops
import Resilience

/// Redis for the code of one loop: one server, the master that sentinels know, or a cluster, as its URL says; used the same way.
///
/// - One server: see `RedisNode`; while it is away, commands fail at once.
/// - Sentinel and cluster: see `FailoverRouter`; while a master is replaced, commands wait, up to `patience`.
///
/// Connecting, and finding out who is master, goes on by itself from `start` on.
public final class RedisClient: Sendable {
    public struct Options: Sendable {
        /// Most connections to each server.
        public var maxConnections = 50
        /// A reply later than this ends its connection.
        public var commandTime = Duration.seconds(2)
        public var connectTime = Duration.seconds(2)
        /// How long a command waits for a master, where there can be another one.
        public var patience = Duration.seconds(5)
        public var name = "muster"
        public init() {}
    }

    public enum Status: Sendable, Equatable {
        case connecting
        case connected
        case disconnected(String)
    }

    /// Counts of a client of several servers, since it began.
    public struct Statistics: Sendable, Equatable {
        /// Answers MOVED and ASK that were followed.
        public var redirections = 0
        /// How often the client asked who serves what, and how often that had changed.
        public var refreshes = 0
        public var changes = 0
        /// Commands that waited for a master.
        public var parked = 0
        /// Commands that were sent a second time although the first may have been carried out.
        public var repeats = 0
        /// Repeats that the budget refused.
        public var refusedRepeats = 0
        /// Reads that a replica answered.
        public var replicaReads = 0
    }

    public let loop: EventLoop
    let router: LoopOwned<any CommandRouter>

    /// `onStatus` is called on the loop at each change.
    public init(url: RedisURL, loop: EventLoop, options: Options = Options(), onStatus: @escaping @Sendable (Status) -> Void = { _ in }) {
        self.loop = loop
        let settings = RedisConnection.Settings(
            user: url.user, password: url.password, database: url.database, name: options.name, commandTime: options.commandTime,
            connectTime: options.connectTime, tls: url.tlsContext)
        let router: any CommandRouter
        switch url.topology {
        case .single(let endpoint): router = RedisNode(endpoint, loop: loop, settings: settings, maxConnections: options.maxConnections)
        case .cluster(let seeds): router = ClusterRouter(seeds: seeds, loop: loop, settings: settings, options: options)
        case .sentinel(let sentinels, let name):
            router = SentinelRouter(url: url, sentinels: sentinels, master: name, loop: loop, settings: settings, options: options)
        }
        router.onStatus = onStatus
        self.router = LoopOwned(router, on: loop)
    }

    /// A client that is dropped without being closed is closed here: commands under way end with an error, on the loop.
    deinit { close() }

    /// Begins to connect. From any thread.
    public func start() {
        let router = router
        loop.execute { router.value.start() }
    }

    public func close() {
        let router = router
        loop.execute { router.value.close() }
    }

    /// Use it on the loop only.
    public var status: Status { router.value.status }
    /// Use it on the loop only.
    public var statistics: Statistics { router.value.statistics }

    public func send(_ command: RedisCommand) async throws(RedisError) -> RESPValue {
        try await pipeline([command])[0].get()
    }

    /// Sends all commands at once and answers when all are answered; replies stand where their commands stood. In a cluster each goes to
    /// its own node: those of one node are carried out in their order, unless a failover or a move of slots comes between.
    public func pipeline(_ commands: [RedisCommand]) async -> [Result<RESPValue, RedisError>] {
        if commands.isEmpty { return [] }
        let router = router
        return await withUnsafeContinuation { continuation in
            if loop.isCurrent {
                RedisClient.submit(commands, to: router.value) { continuation.resume(returning: $0) }
            } else {
                loop.execute { RedisClient.submit(commands, to: router.value) { continuation.resume(returning: $0) } }
            }
        }
    }

    /// Sends a command without a task: call it on the loop; `done` is called on the loop.
    public func submit(_ command: RedisCommand, _ done: @escaping (Result<RESPValue, RedisError>) -> Void) {
        router.value.submit(command, done)
    }

    /// Runs calls of one script (`RedisScript.call`); a server that does not have the script is told its text.
    public func run(_ script: RedisScript, _ calls: [RedisCommand]) async -> [Result<RESPValue, RedisError>] {
        var results = await pipeline(calls)
        let unknown = results.indices.filter { i in
            if case .failure(let error) = results[i] { error.serverCode == "NOSCRIPT" } else { false }
        }
        if unknown.isEmpty { return results }
        let again = await pipeline(unknown.map { script.withSource(calls[$0]) })
        for (i, result) in zip(unknown, again) { results[i] = result }
        return results
    }

    // MARK: on the loop

    private final class Batch {
        var results: [Result<RESPValue, RedisError>?]
        var missing: Int
        let done: ([Result<RESPValue, RedisError>]) -> Void

        init(_ count: Int, _ done: @escaping ([Result<RESPValue, RedisError>]) -> Void) {
            results = Array(repeating: nil, count: count)
            missing = count
            self.done = done
        }

        func finish(_ index: Int, _ result: Result<RESPValue, RedisError>) {
            results[index] = result
            missing -= 1
            if missing == 0 { done(results.map { $0! }) }
        }
    }

    private static func submit(
        _ commands: [RedisCommand], to router: any CommandRouter, _ done: @escaping ([Result<RESPValue, RedisError>]) -> Void
    ) {
        if commands.count == 1 { return router.submit(commands[0]) { done([$0]) } }
        let batch = Batch(commands.count, done)
        for (i, command) in commands.enumerated() { router.submit(command) { batch.finish(i, $0) } }
    }
}

/// Brings commands to their server. On its loop.
protocol CommandRouter: AnyObject {
    var status: RedisClient.Status { get }
    var statistics: RedisClient.Statistics { get }
    var onStatus: (RedisClient.Status) -> Void { get set }
    func start()
    /// `done` is called exactly once.
    func submit(_ command: RedisCommand, _ done: @escaping (Result<RESPValue, RedisError>) -> Void)
    func close()
    /// Where a subscription listens: at the slot's master, or anywhere.
    func endpoint(slot: Int?) -> Endpoint?
    var settings: RedisConnection.Settings { get }
}

extension RedisNode: CommandRouter {
    var statistics: RedisClient.Statistics { RedisClient.Statistics() }
    func start() { connectNext() }
    func submit(_ command: RedisCommand, _ done: @escaping (Result<RESPValue, RedisError>) -> Void) { submit(command, asking: false, done) }
    func endpoint(slot: Int?) -> Endpoint? { endpoint }
}
