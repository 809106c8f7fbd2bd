import Basics
import EventLoops

/// A pool of connections to one server. On its loop.
///
/// Commands pipeline by themselves; a second connection is opened only when the ones there are have `busyDepth` commands under way, up to
/// `maxConnections`. While no connection stands, commands wait for the attempt that is being made, and fail at once (`unavailable`, not
/// executed) between attempts, so that callers learn of an outage in microseconds. Reconnecting goes on by itself, with jittered backoff.
final class RedisNode {
    /// Commands under way on each connection before another one is opened: a few round trips' worth.
    static let busyDepth = 128
    /// Commands that may wait for the first connection.
    static let waitingLimit = 10_000

    let endpoint: Endpoint
    let loop: EventLoop
    let settings: RedisConnection.Settings
    private let maxConnections: Int
    private(set) var status = RedisClient.Status.connecting
    /// Called when `status` has changed.
    var onStatus: (RedisClient.Status) -> Void = { _ in }
    private var connections: [RedisConnection] = []
    private var waiting: [(RedisCommand, Bool, (Result<RESPValue, RedisError>) -> Void)] = []
    private var isConnecting = false
    private var attempt: RedisConnection?
    private var isClosed = false
    private var backoff: Backoff
    private var random = SeededRandom(seed: UInt64(MonotonicTime.now.nanoseconds))
    private var retry: LoopTimer?
    /// Why the last attempt failed.
    private(set) var lastFailure: RedisError?
    private let tie = Tie()
    private var place: String { endpoint.description }

    init(
        _ endpoint: Endpoint, loop: EventLoop, settings: RedisConnection.Settings, maxConnections: Int, backoffLimit: Duration = .seconds(2)
    ) {
        self.endpoint = endpoint
        self.loop = loop
        self.settings = settings
        self.maxConnections = maxConnections
        backoff = Backoff(initial: .milliseconds(50), limit: backoffLimit)
    }

    deinit { tie.holds = false }

    /// Commands without a reply.
    var depth: Int { connections.reduce(waiting.count) { $0 + $1.depth } }
    /// How long the oldest command has waited.
    var age: Duration { connections.reduce(.zero) { max($0, $1.age) } }
    var isReady: Bool { connections.contains(where: \.isReady) }
    /// Whether commands given to it now would fail at once.
    var isAway: Bool { !isConnecting && !isReady && status != .connecting }

    func submit(_ command: RedisCommand, asking: Bool = false, _ done: @escaping (Result<RESPValue, RedisError>) -> Void) {
        if let connection = leastBusy() {
            if connection.depth >= RedisNode.busyDepth, connections.count < maxConnections { connectNext() }
            return connection.send(command, asking: asking, done)
        }
        if status == .connecting { connectNext() }
        guard !isClosed, isConnecting else {
            // A wrong password is told as one, also to who asks between two attempts.
            if let lastFailure, lastFailure.code == .authentication { return done(.failure(lastFailure)) }
            let reason = if case .disconnected(let text) = status { text } else { "not connected" }
            let isOwnWant = lastFailure?.isOwnWant ?? false
            return done(.failure(RedisError(.unavailable, .notExecuted, place: place, message: reason, isOwnWant: isOwnWant)))
        }
        guard waiting.count < RedisNode.waitingLimit else {
            return done(.failure(RedisError(.overloaded, .notExecuted, place: place, message: "too many commands wait to connect")))
        }
        waiting.append((command, asking, done))
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
        let connection = RedisConnection(loop: loop, settings: settings, place: place)
        connections.append(connection)
        attempt = connection
        // Whoever drops a client without closing it leaves its connections to the loop: they must not call back.
        connection.onReady = { [unowned self, tie] in if tie.holds { ready() } }
        connection.onClosed = { [unowned self, tie, unowned connection] error in
            guard tie.holds else { return }
            connections.removeAll { $0 === connection }
            if attempt === connection { isConnecting = false }
            // While another connection serves, the next need for one is the next attempt.
            if !connections.contains(where: \.isReady), !isConnecting { failed(error) }
        }
        connection.open(endpoint)
    }

    private func ready() {
        isConnecting = false
        attempt = nil
        lastFailure = nil
        backoff.reset()
        let commands = waiting
        waiting = []
        for (command, asking, done) in commands { submit(command, asking: asking, done) }
        set(.connected)
    }

    private func failed(_ error: RedisError) {
        isConnecting = false
        attempt = nil
        lastFailure = error
        if isClosed { return }
        if retry == nil { retry = LoopTimer(loop: loop) { [unowned self, tie] in if tie.holds { connectNext() } } }
        retry?.schedule(after: backoff.next(using: &random))
        let commands = waiting
        waiting = []
        set(.disconnected(error.message))
        for (_, _, done) in commands { done(.failure(error)) }
    }

    private func set(_ new: RedisClient.Status) {
        if status == new { return }
        // One word for every reason, or a server that is away would be reported at each attempt.
        if case .disconnected = status, case .disconnected = new { return }
        status = new
        onStatus(new)
    }

    /// Ends the node's connections, so that commands under way learn their fate now; the node may connect again.
    func dropConnections() { for connection in connections { connection.close() } }

    func close() {
        isClosed = true
        retry?.cancel()
        for connection in connections { connection.close() }
        let commands = waiting
        waiting = []
        for (_, _, done) in commands {
            done(.failure(RedisError(.unavailable, .notExecuted, place: place, message: "the client was closed")))
        }
    }
}

/// Tells callbacks that outlive their owner that it is gone. A weak reference would do, but would make every count of references to the
/// owner slow.
final class Tie {
    var holds = true
}
