import Basics
import EventLoops

/// A pool of connections to one Redis, for the code of one loop.
///
/// Commands pipeline by themselves; a second connection is opened only when the ones there are have `busyDepth` commands
/// under way, up to `maxConnections`. While no connection stands, commands wait for the attempt that is being made, and fail
/// at once (`unavailable`, not executed) between attempts, so that callers learn of an outage in microseconds.
///
/// Reconnecting goes on by itself, with jittered backoff, from the first `start` on.
public final class RedisClient: Sendable {
    public struct Options: Sendable {
        public var maxConnections = 50
        /// A reply later than this ends its connection.
        public var commandTime = Duration.seconds(2)
        public var connectTime = Duration.seconds(2)
        public var name = "muster"
        public init() {}
    }

    public enum Status: Sendable, Equatable {
        case connecting
        case connected
        case disconnected(String)
    }

    /// Commands under way on each connection before another one is opened: a few round trips' worth.
    static let busyDepth = 128
    /// Commands that may wait for the first connection.
    static let waitingLimit = 10_000

    public let loop: EventLoop
    private let core: LoopBound<Core>

    /// `onStatus` is called on the loop at each change.
    public init(url: RedisURL, loop: EventLoop, options: Options = Options(), onStatus: @escaping @Sendable (Status) -> Void = { _ in }) {
        self.loop = loop
        core = LoopBound(Core(url: url, loop: loop, options: options, onStatus: onStatus), on: loop)
    }

    /// Begins to connect. From any thread.
    public func start() {
        let core = core
        loop.execute { core.value.connectNext() }
    }

    public func close() {
        let core = core
        loop.execute { core.value.closeAll() }
    }

    /// On the loop.
    public var status: Status { core.value.status }

    public func send(_ command: RedisCommand) async throws(RedisError) -> RESPValue {
        try await pipeline([command])[0].get()
    }

    /// Sends all at once and answers when all are answered; replies stand where their commands stood.
    public func pipeline(_ commands: [RedisCommand]) async -> [Result<RESPValue, RedisError>] {
        if commands.isEmpty { return [] }
        let core = core
        return await withUnsafeContinuation { continuation in
            if loop.isCurrent {
                core.value.submit(commands) { continuation.resume(returning: $0) }
            } else {
                loop.execute { core.value.submit(commands) { continuation.resume(returning: $0) } }
            }
        }
    }

    /// Runs calls of one script (`RedisScript.call`), telling Redis its text where it is missing.
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

    private final class Core {
        let url: RedisURL
        let loop: EventLoop
        let options: Options
        let onStatus: @Sendable (Status) -> Void
        var status = Status.connecting
        private var connections: [RedisConnection] = []
        private var waiting: [(RedisCommand, (Result<RESPValue, RedisError>) -> Void)] = []
        private var isConnecting = false
        private var attempt: RedisConnection?
        private var isClosed = false
        private var backoff = Backoff(initial: .milliseconds(50), limit: .seconds(2))
        private var random = SeededRandom(seed: UInt64(MonotonicTime.now.nanoseconds))
        private var retry: LoopTimer?
        private var place: String { url.endpoint.description }

        init(url: RedisURL, loop: EventLoop, options: Options, onStatus: @escaping @Sendable (Status) -> Void) {
            self.url = url
            self.loop = loop
            self.options = options
            self.onStatus = onStatus
        }

        func submit(_ commands: [RedisCommand], _ done: @escaping ([Result<RESPValue, RedisError>]) -> Void) {
            let batch = Batch(commands.count, done)
            for (i, command) in commands.enumerated() { submit(command) { batch.finish(i, $0) } }
        }

        private func submit(_ command: RedisCommand, _ done: @escaping (Result<RESPValue, RedisError>) -> Void) {
            if let connection = leastBusy() {
                if connection.depth >= RedisClient.busyDepth, connections.count < options.maxConnections { connectNext() }
                return connection.send(command, done)
            }
            guard !isClosed, isConnecting else {
                let reason = if case .disconnected(let text) = status { text } else { "not connected" }
                return done(.failure(RedisError(.unavailable, .notExecuted, place: place, message: reason)))
            }
            guard waiting.count < RedisClient.waitingLimit else {
                return done(.failure(RedisError(.overloaded, .notExecuted, place: place, message: "too many commands wait to connect")))
            }
            waiting.append((command, done))
        }

        private func leastBusy() -> RedisConnection? {
            var best: RedisConnection?
            for connection in connections where connection.isReady {
                if connection.depth < best?.depth ?? .max { best = connection }
            }
            return best
        }

        func connectNext() {
            if isConnecting || isClosed { return }
            isConnecting = true
            let settings = RedisConnection.Settings(
                user: url.user, password: url.password, database: url.database, name: options.name,
                commandTime: options.commandTime, connectTime: options.connectTime)
            let connection = RedisConnection(loop: loop, settings: settings, place: place)
            connections.append(connection)
            attempt = connection
            connection.onReady = { [unowned self] in ready() }
            connection.onClosed = { [unowned self, unowned connection] error in
                connections.removeAll { $0 === connection }
                if attempt === connection { isConnecting = false }
                // While another connection serves, the next need for one is the next attempt.
                if !connections.contains(where: \.isReady), !isConnecting { failed(error) }
            }
            connection.open(url.endpoint)
        }

        private func ready() {
            isConnecting = false
            attempt = nil
            backoff.reset()
            set(.connected)
            let commands = waiting
            waiting = []
            for (command, done) in commands { submit(command, done) }
        }

        private func failed(_ error: RedisError) {
            isConnecting = false
            attempt = nil
            if isClosed { return }
            set(.disconnected(error.message))
            let commands = waiting
            waiting = []
            for (_, done) in commands { done(.failure(error)) }
            if retry == nil { retry = LoopTimer(loop: loop) { [unowned self] in connectNext() } }
            retry?.schedule(after: backoff.next(using: &random))
        }

        private func set(_ new: Status) {
            if status == new { return }
            // One word for every reason, or a server that is away would be reported at each attempt.
            if case .disconnected = status, case .disconnected = new { return }
            status = new
            onStatus(new)
        }

        func closeAll() {
            isClosed = true
            retry?.cancel()
            for connection in connections { connection.close() }
            let commands = waiting
            waiting = []
            for (_, done) in commands {
                done(.failure(RedisError(.unavailable, .notExecuted, place: place, message: "the client was closed")))
            }
        }
    }
}
