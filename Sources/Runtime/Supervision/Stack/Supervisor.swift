import Basics
import CLinux
import EventLoops
import Gateway
import Glibc
import HTTP
import Observability
import StackModel
import StoreKinds
import Synchronization

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
    private let manner: Manner
    private let kinds: [any StoreKind]
    private let outcome = Mutex<String?>(nil)

    private final class Flag: Sendable { let isSet = Atomic<Bool>(false) }

    /// How the supervisor was started.
    public struct Manner: Sendable {
        /// From a terminal that somebody watches: a hang-up of that terminal stops the stack, and so does the end of the watcher.
        public var isForeground: Bool
        /// The supervisor before this one has crashed.
        public var isRestart: Bool

        public init(isForeground: Bool, isRestart: Bool) {
            self.isForeground = isForeground
            self.isRestart = isRestart
        }
    }

    /// `kinds`: the kinds of store that can be run. `tell` gets a line for each thing that happens; `onRunning` is called when everything is ready.
    public init(
        stack: Stack, file: String, counts: [String: Int], manner: Manner, kinds: [any StoreKind],
        readStack: @escaping @Sendable (String, [String: String]) throws -> Stack,
        tell: @escaping @Sendable (String) -> Void, onRunning: @escaping @Sendable () -> Void
    ) {
        self.stack = stack
        self.file = file
        self.counts = counts
        self.manner = manner
        self.kinds = kinds
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
        // What loses its parent among our descendants becomes our child, and can be found.
        guard muster_become_subreaper() == 0 else { throw SystemError("prctl") }
        let mark = ProcessMark(stack: try folder.identity())
        try endLeftovers(mark)
        folder.removeSockets()
        try folder.setOwner(file)
        let loop = try EventLoop()
        let onSignal = Mutex<(@Sendable (Int32) -> Void)?>(nil)
        let signals = try SignalWatch([SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR2, SIGCHLD], loop: loop) { signal in
            onSignal.withLock { $0 }?(signal)
        }
        // Not before the signals are watched: threads inherit the mask.
        let housekeeping = try EventLoop.start(name: "housekeeping")
        defer { housekeeping.stop() }
        let record = StackJournal(folder, thread: housekeeping, tell: tell)
        let (earlier, recorded) = readRecord()
        let journal = Journal(earlier: earlier) { record.take($0) }
        noteRestart(journal)
        let metrics = MetricsRegistry()
        let gateway = try makeGateway(journal, metrics)
        defer { gateway?.stop() }
        let end = LoopBound(loop, on: loop)
        let context = StackContext(
            loop: loop, folder: folder, fileFolder: Files.folder(of: Files.absolute(file)), mark: mark, isRestart: manner.isRestart,
            gateway: gateway, journal: journal, record: record, metrics: metrics, tell: tell)
        let runner = try StackRunner(
            stack, counts: counts, recorded: recorded, context: context, kinds: kinds, housekeeping: housekeeping, onRunning: onRunning
        ) { [self] ending in
            if case .failed(let why) = ending { outcome.withLock { $0 = why } }
            end.value.stop()
        }
        let bound = LoopBound(runner, on: loop)
        gateway?.onDemand = { service in loop.execute { bound.value.scaling.scalers?.wake(service) } }
        onSignal.withLock { $0 = { [self] in take($0, bound.value) } }
        let watch = LoopBound(signals, on: loop)
        // Lives as long as the loop, and ends it on failure.
        Task(executorPreference: loop) { [self] in
            do {
                try watch.value.start()
                followWatcher()
                try await begin(bound, gateway, loop)
            } catch {
                outcome.withLock { $0 = "\(error)" }
                loop.stop()
            }
        }
        loop.run()
        if let socket = try? folder.controlSocket { unlink(socket) }
        folder.removeSockets()
        endRest(mark, housekeeping)
        if let why = outcome.withLock({ $0 }) { throw Failure(why) }
    }

    private func take(_ signal: Int32, _ runner: StackRunner) {
        switch signal {
        case SIGCHLD: runner.childEnded()
        case SIGUSR2: tell("the process that would start this supervisor again after a crash has ended: nothing does that now")
        case SIGHUP where !manner.isForeground: break
        default: runner.signalled()
        }
    }

    /// Learns of the watcher's end: in the foreground, where the watcher is what somebody has started, it stops the stack.
    private func followWatcher() {
        guard let watcher = environmentValue(Watcher.watcherVariable).flatMap({ Int32($0) }) else { return }
        let signal = manner.isForeground ? SIGTERM : SIGUSR2
        let asked = muster_die_with_parent(signal)
        // It may have ended before we asked.
        if asked == 0, getppid() != watcher { kill(getpid(), signal) }
    }

    /// What supervisors before this one have written down. A file that cannot be read is told, and begun anew in memory.
    private func readRecord() -> (earlier: [Journal.Entry], scaling: RecordedScaling?) {
        let limit = 1 << 20
        do throws(SystemError) {
            let decisions = try RecordedJournal(folder, limit: limit)
            return (decisions.decisions.map(\.entry), try RecordedScaling(folder, limit: limit))
        } catch {
            tell("what was decided before cannot be read, so everything begins anew: \(error)")
            return ([], nil)
        }
    }

    private func noteRestart(_ journal: Journal) {
        guard manner.isRestart, let how = environmentValue(Watcher.crashVariable) else { return }
        journal.append(
            DecisionRecord(
                .restart, subject: "supervisor", inputs: [.init("ended", how)], raw: "restart", outcome: "restarted",
                sentence: "The supervisor ended (\(how)) and was started again; it ended what was left of the stack and starts it anew.",
                flip: "nothing; a supervisor that crashes is started again, up to \(Watcher.loopsAt - 1) times in a row"))
    }

    /// Before ports are chosen: a store that was left behind still holds its own.
    private func endLeftovers(_ mark: ProcessMark) throws {
        let outcome = try ProcessTable(file: folder.processes, identity: mark.stack).endAll(mark)
        try Files.replace(folder.processes, with: Array(ProcessTable(identity: mark.stack).text.utf8))
        if outcome.ended > 0 { tell("ended \(outcome.ended) processes that a supervisor before this one had left") }
        if let trouble = outcome.trouble(of: "a supervisor before this one") { throw Failure("\(trouble), so the stack cannot be started") }
    }

    /// All runners have ended. What is left now has left its group, its session or its environment.
    private func endRest(_ mark: ProcessMark, _ housekeeping: EventLoop) {
        let done = Flag(), deadline = MonotonicTime.now + .seconds(5)
        housekeeping.execute { done.isSet.store(true, ordering: .releasing) }
        while !done.isSet.load(ordering: .acquiring), .now < deadline { usleep(1000) }
        let strays = mark.end()
        let orphans = Orphans.endAll()
        if strays.ended + orphans > 0 { tell("ended \(strays.ended + orphans) processes that services had left") }
        if let trouble = strays.trouble(of: "the stack") { tell(trouble) }
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
        return try Gateway(spec, metrics: metrics, journal: journal, logger: logger, accessLog: log, folder: folder.path + "/certificates")
    }

    /// The addresses first: a port that is taken must be told before anything has been started.
    private func begin(_ runner: LoopBound<StackRunner>, _ gateway: Gateway?, _ loop: EventLoop) async throws {
        let admin = LoopBound(StackAdmin(runner.value), on: loop)
        if let gateway, let spec = stack.gateway {
            for place in spec.listeners {
                try await listen("gateway.listen", place.address) { try await gateway.listen(on: $0, as: ListenerKind(place)) }
            }
            try await gateway.apply(spec) { _ in [] }
            if let place = spec.admin { try await openAdmin(place, gateway, admin, loop) }
            let prober = Prober(gateway: gateway, loop: loop)
            let discovery = Discovery(
                gateway: gateway, loop: loop, logger: Logger(level: .info, format: .text, descriptor: 2, immediate: true)
            ) { prober.follow() }
            runner.value.publisher.onRoutes = {
                prober.follow()
                discovery.follow()
            }
            runner.value.publisher.onRoutes()
        }
        var control = Router()
        ControlAPI.addReading(to: &control, admin)
        AdminAPI.addWhy(to: &control, journal: runner.value.context.journal)
        if let gateway { AdminAPI.addRequests(to: &control, gateway: gateway) }
        ControlAPI.addChanging(to: &control, admin, readStack: readStack)
        let server = HTTPServer(loop: loop, router: control)
        // Not even for a moment may others reach it: the mask is set before the socket appears.
        let mask = umask(0o077)
        let opened = Result { try server.listen(on: .unix(try folder.placeControlSocket())) }
        // Back before anything is started: children inherit it.
        umask(mask)
        if case .failure(let error) = opened { throw Failure("cannot open the control socket: \(error)") }
        runner.value.start()
    }

    private func openAdmin(_ place: ListenAddress, _ gateway: Gateway, _ admin: LoopBound<StackAdmin>, _ loop: EventLoop) async throws {
        var router = Router()
        AdminAPI.add(to: &router, gateway: gateway, onChange: { loop.execute { admin.value.runner.publisher.onRoutes() } })
        ControlAPI.addReading(to: &router, admin)
        let server = LoopBound(HTTPServer(loop: loop, router: router), on: loop)
        try await listen("gateway.admin", place) { _ = try server.value.listen(on: $0) }
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
    /// many processes ended, and what is wrong with others (then nothing is removed); nil when a supervisor lives (nothing is done then).
    public static func endLeftovers(in folder: StackFolder, purge: Bool) throws -> (count: Int, trouble: String?)? {
        guard try folder.standing() != .absent else { return (0, nil) }
        guard let lock = try folder.lock() else { return nil }
        defer { close(lock) }
        let identity = try folder.knownIdentity()
        let outcome = try ProcessTable(file: folder.processes, identity: identity).endAll(identity.map { ProcessMark(stack: $0) })
        if let trouble = outcome.trouble(of: "the stack") { return (outcome.ended, trouble) }
        folder.removeSockets()
        if Files.exists(folder.processes) {
            try Files.replace(folder.processes, with: Array(ProcessTable(identity: identity).text.utf8))
        }
        if purge {
            Files.remove(folder.path)
            if Files.exists(folder.path) { throw Failure("not everything in \(folder.path) could be removed: see what is left there") }
        }
        return (outcome.ended, nil)
    }

    /// The supervisor of a folder that was removed while it ran: nothing but the process itself tells of it then. In this view of the file
    /// system: a path of another container's is another folder.
    public static func ofRemovedFolder(_ folder: StackFolder) throws(SystemError) -> Int32? {
        let entry = Array("\(Watcher.folderVariable)=\(folder.path)".utf8)
        func view(_ pid: String) -> UInt64 {
            var info = stat()
            return stat("/proc/\(pid)/ns/mnt", &info) == 0 ? UInt64(info.st_ino) : 0
        }
        let own = view("self")
        return try ProcessMark.pids { $0.elementsEqual(entry) }.first { view(String($0)) == own }
    }

    /// The watcher of a supervisor, which ends after it; nil: it has none, or is gone. Throws when that cannot be seen.
    public static func watcher(of supervisor: Int32) throws(SystemError) -> (pid: Int32, started: UInt64)? {
        guard let fields = try ProcessList.status(supervisor), fields.count > 1, let parent = Int32(fields[1]), parent > 1 else {
            return nil
        }
        let entry = Array("\(Watcher.watcherVariable)=\(parent)".utf8)
        guard let variables = try ProcessList.read(supervisor, "environ"),
            variables.split(separator: 0).contains(where: { $0.elementsEqual(entry) })
        else { return nil }
        return try ProcessIdentity.startTime(parent).map { (parent, $0) }
    }
}
