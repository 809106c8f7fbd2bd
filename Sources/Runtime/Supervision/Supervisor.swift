import Basics
import EventLoops
import Gateway
import Glibc
import HTTP
import Observability
import Synchronization
import Topology

/// A stack's supervisor as the whole work of a process: takes the lock, opens the gateway, runs the stack, serves the control socket,
/// and returns when all has stopped.
public final class Supervisor: Sendable {
    public struct Failure: Error, CustomStringConvertible {
        public let description: String
        /// Another supervisor runs this stack; speak to it instead.
        public let isRunningAlready: Bool
        init(_ description: String, isRunningAlready: Bool = false) {
            self.description = description
            self.isRunningAlready = isRunningAlready
        }
    }

    private let stack: Stack
    private let file: String
    private let counts: [String: Int]
    private let folder: StackFolder
    private let tell: @Sendable (String) -> Void
    private let onRunning: @Sendable () -> Void
    private let readStack: @Sendable (String, [String: String]) throws -> Stack
    private let outcome = Mutex<String?>(nil)

    /// `tell` gets a line for each thing that happens; `onRunning` is called when everything is ready.
    public init(
        stack: Stack, file: String, counts: [String: Int], readStack: @escaping @Sendable (String, [String: String]) throws -> Stack,
        tell: @escaping @Sendable (String) -> Void, onRunning: @escaping @Sendable () -> Void
    ) {
        self.stack = stack
        self.file = file
        self.counts = counts
        self.tell = tell
        self.onRunning = onRunning
        self.readStack = readStack
        folder = StackFolder(stackFile: file, stack: stack.name)
    }

    /// Takes the calling thread until the stack has stopped. Throws why it could not start; nothing is left behind then.
    public func run() throws {
        guard let lock = try takeLock() else { throw Failure("the stack runs already", isRunningAlready: true) }
        // Held until the very end; children do not inherit it.
        defer { close(lock) }
        try folder.prepare()
        // Before ports are chosen: a store that was left behind still holds its own.
        var table = ProcessTable(file: folder.processes)
        let cleaned = table.endAll(grace: .seconds(10), stores: Set(stack.stores.map(\.name)))
        if cleaned > 0 { tell("ended \(cleaned) processes that a supervisor before this one had left") }
        let loop = try EventLoop()
        let onSignal = Mutex<(@Sendable () -> Void)?>(nil)
        let signals = try SignalWatch([SIGTERM, SIGINT, SIGHUP], loop: loop) { signal in if signal != SIGHUP { onSignal.withLock { $0 }?() }
        }
        let journal = Journal()
        let metrics = MetricsRegistry()
        let gateway = try makeGateway(journal, metrics)
        defer { gateway?.stop() }
        let end = LoopBound(loop, on: loop)
        let runner = try StackRunner(
            stack: stack, file: file, folder: folder, counts: counts, gateway: gateway, journal: journal, metrics: metrics, loop: loop,
            tell: tell, onRunning: onRunning
        ) { [self] ending in
            if case .failed(let why) = ending { outcome.withLock { $0 = why } }
            end.value.stop()
        }
        let bound = LoopBound(runner, on: loop)
        gateway?.onDemand = { service in loop.execute { bound.value.scaling?.wake(service) } }
        onSignal.withLock { $0 = { bound.value.shutDown() } }
        let watch = LoopBound(signals, on: loop)
        // Lives as long as the loop, and ends it on failure.
        Task(executorPreference: loop) { [self] in
            do {
                try watch.value.start()
                try await begin(bound, gateway, loop)
            } catch {
                outcome.withLock { $0 = "\(error)" }
                loop.stop()
            }
        }
        loop.run()
        unlink(folder.controlSocket)
        if let why = outcome.withLock({ $0 }) { throw Failure(why) }
    }

    /// Another verb's look at the lock holds it for a moment: only a second of refusals means that a supervisor lives.
    private func takeLock() throws -> Int32? {
        let deadline = MonotonicTime.now + .seconds(1)
        while true {
            if let lock = try folder.lock() { return lock }
            if MonotonicTime.now > deadline { return nil }
            usleep(20_000)
        }
    }

    private func makeGateway(_ journal: Journal, _ metrics: MetricsRegistry) throws -> Gateway? {
        guard let spec = stack.gateway else { return nil }
        let path = spec.accessLog.file ?? folder.accessLog
        let log = spec.accessLog.format == .none ? -1 : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        if spec.accessLog.format != .none, log < 0 { throw Failure("gateway.access-log: \(SystemError("open \(path)"))") }
        metrics.addProcessMetrics()
        let logger = Logger(level: .info, format: .text, descriptor: 2, immediate: true)
        return try Gateway(spec, metrics: metrics, journal: journal, logger: logger, accessLog: log)
    }

    /// The addresses first: a port that is taken must be told before anything has been started.
    private func begin(_ runner: LoopBound<StackRunner>, _ gateway: Gateway?, _ loop: EventLoop) async throws {
        if let gateway, let spec = stack.gateway {
            try await listen("gateway.listen", spec.listen) { try await gateway.listen(on: $0) }
            try await gateway.apply(spec) { _ in [] }
            if let admin = spec.admin { try await openAdmin(admin, gateway, runner, loop) }
            let prober = Prober(gateway: gateway, loop: loop)
            let discovery = Discovery(
                gateway: gateway, loop: loop, logger: Logger(level: .info, format: .text, descriptor: 2, immediate: true)
            ) { prober.follow() }
            runner.value.onRoutes = {
                prober.follow()
                discovery.follow()
            }
            runner.value.onRoutes()
        }
        var control = Router()
        ControlAPI.addReading(to: &control, runner)
        AdminAPI.addWhy(to: &control, journal: runner.value.journal)
        if let gateway { AdminAPI.addRequests(to: &control, gateway: gateway) }
        ControlAPI.addChanging(to: &control, runner, readStack: readStack)
        let server = HTTPServer(loop: loop, router: control)
        // Not even for a moment may others reach it: the mask is set before the socket appears.
        let mask = umask(0o077)
        let opened = Result { try server.listen(on: .unix(folder.controlSocket)) }
        // Back before anything is started: children inherit it.
        umask(mask)
        if case .failure(let error) = opened { throw Failure("cannot open the control socket: \(error)") }
        runner.value.start()
    }

    private func openAdmin(_ admin: ListenAddress, _ gateway: Gateway, _ runner: LoopBound<StackRunner>, _ loop: EventLoop) async throws {
        var router = Router()
        AdminAPI.add(to: &router, gateway: gateway, onChange: { loop.execute { runner.value.onRoutes() } })
        ControlAPI.addReading(to: &router, runner)
        let server = LoopBound(HTTPServer(loop: loop, router: router), on: loop)
        try await listen("gateway.admin", admin) { _ = try server.value.listen(on: $0) }
    }

    private func listen(_ key: String, _ address: ListenAddress, _ open: (SocketAddress) async throws -> Void) async throws {
        guard let socket = SocketAddress(host: address.host, port: address.port) else {
            throw Failure("\(key): '\(address)' is no address")
        }
        do { try await open(socket) } catch let error as SystemError {
            let advice =
                error.code == EADDRINUSE
                ? "port \(address.port) is in use: stop what listens there (ss -ltnp 'sport = :\(address.port)'), or change \(key) in "
                    + "\(file)"
                : error.description
            throw Failure("\(key): \(advice)")
        }
    }

    /// Without a supervisor: ends what a killed one has left, and with `purge` removes the folder, all under the stack's lock. Returns how
    /// many processes; nil when a supervisor lives (nothing is done then).
    public static func endLeftovers(of stack: Stack, file: String, purge: Bool) throws -> Int? {
        let folder = StackFolder(stackFile: file, stack: stack.name)
        guard folder.exists else { return 0 }
        guard let lock = try folder.lock() else { return nil }
        defer { close(lock) }
        var table = ProcessTable(file: folder.processes)
        let ended = table.endAll(grace: .seconds(10), stores: Set(stack.stores.map(\.name)))
        if purge { Files.remove(folder.path) }
        return ended
    }

    /// Whether a supervisor holds the stack's lock.
    public static func isRunning(_ folder: StackFolder) -> Bool {
        folder.exists && folder.isLocked
    }
}
