import Basics
import CLinux
import EventLoops
import Glibc
import HTTP
import Observability
import StackModel
import Synchronization

/// The gateway as a process of its own: it listens, reads its file again at SIGHUP, hands its sockets to a successor at SIGUSR2, and drains at
/// SIGTERM, SIGINT and SIGQUIT.
public final class StandaloneGateway: Sendable {
    /// Why it did not start, or ended.
    public enum Failure: Error, CustomStringConvertible {
        /// What the file says is wrong, or cannot be done by a gateway that runs alone.
        case wrongFile(String)
        case failed(String)

        public var description: String {
            switch self {
            case .wrongFile(let message), .failed(let message): message
            }
        }
    }

    private let file: String
    private let successorArguments: [String]
    private let read: @Sendable () throws(Failure) -> GatewaySpec?
    private let logger: Logger
    private let state = Mutex(State())
    private static let grace = Duration.seconds(30)
    /// How long the first answers of discovery are waited for. A successor has longer than a name server may take (30 s): it is missed by
    /// nobody.
    private static let patience = Duration.seconds(3)
    private static let successorsPatience = Duration.seconds(35)

    private struct State {
        var failure: Failure?
        var spec: GatewaySpec?
        var adminListener: Int32 = -1
        /// The process that is to follow; 0: none, -1: one is about to be started.
        var successor: Int32 = 0
        var isStopping = false
        var logFile: String?
        var logDescriptor: Int32 = -1
    }

    /// What belongs to the running process, made once.
    private struct Parts: Sendable {
        let gateway: Gateway
        let prober: Prober
        let discovery: Discovery
        let keeper: CertificateKeeper
        let loop: EventLoop
    }

    /// `file` is named in messages; `read` reads it, now and at each SIGHUP, and returns nil when it has no gateway. `successor`: the arguments
    /// of this program by which a successor is started.
    public init(
        file: String, successor: [String], logger: Logger, read: @escaping @Sendable () throws(Failure) -> GatewaySpec?
    ) {
        self.file = file
        successorArguments = successor
        self.logger = logger
        self.read = read
    }

    /// Takes the calling thread until the gateway has stopped.
    public func run() throws {
        guard let spec = try read() else { throw Failure.wrongFile("\(file) has no gateway") }
        state.withLock { $0.spec = spec }
        let loop = try EventLoop()
        let events = Mutex<(@Sendable (Int32) -> Void)?>(nil)
        let watch = try SignalWatch([SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR2, SIGCHLD], loop: loop) { signal in
            events.withLock { $0 }?(signal)
        }
        let metrics = MetricsRegistry()
        metrics.addProcessMetrics()
        let gateway: Gateway
        do {
            gateway = try Gateway(
                spec, metrics: metrics, journal: Journal(), logger: logger, accessLog: try openLog(spec), folder: certificateFolder)
        } catch let
            error as Gateway.Failure
        {
            throw Failure.wrongFile(error.description)
        }
        let prober = Prober(gateway: gateway, loop: loop)
        let discovery = Discovery(gateway: gateway, loop: loop, logger: logger) { prober.follow() }
        let keeper = CertificateKeeper(gateway: gateway, loop: loop)
        let parts = Parts(gateway: gateway, prober: prober, discovery: discovery, keeper: keeper, loop: loop)
        events.withLock { slot in
            slot = { signal in
                // Ends with its reload, its replacement, or with the process.
                Task(executorPreference: loop) { await self.handle(signal, parts) }
            }
        }
        let begin = LoopBound(watch, on: loop)
        loop.execute { try? begin.value.start() }
        // Ends when all listens; a failure stops the loop.
        Task(executorPreference: loop) { [self] in
            do { try await start(parts, spec) } catch {
                state.withLock { $0.failure = (error as? Failure) ?? .failed("\(error)") }
                loop.stop()
            }
        }
        loop.run()
        gateway.stop()
        if let failure = state.withLock({ $0.failure }) { throw failure }
    }

    /// Where an authority of the gateway's own is kept.
    private var certificateFolder: String { Files.folder(of: Files.absolute(file)) + "/.muster-certificates" }

    private func openLog(_ spec: GatewaySpec) throws -> Int32 {
        guard spec.accessLog.format != .none else { return -1 }
        guard let path = spec.accessLog.file else { return 1 }
        let descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o640)
        if descriptor < 0 { throw Failure.failed("gateway.access-log: \(SystemError("open \(path)"))") }
        state.withLock { ($0.logFile, $0.logDescriptor) = (path, descriptor) }
        return descriptor
    }

    private func handle(_ signal: Int32, _ parts: Parts) async {
        switch signal {
        case SIGHUP: await reload(parts)
        case SIGUSR2: await replace(parts)
        case SIGCHLD: reapSuccessor()
        case SIGQUIT: await stop(parts, gently: true)
        default: await stop(parts, gently: false)
        }
    }

    private func start(_ parts: Parts, _ spec: GatewaySpec) async throws {
        let inherited = Succession.inherited(
            for: ["listen": spec.listeners.map(\.description), "admin": spec.admin.map { [$0.description] } ?? []])
        if let keys = Succession.inheritedKeys() { parts.gateway.takeTicketKeys(keys, .now) }
        try await apply(spec, to: parts.gateway)
        parts.prober.follow()
        parts.discovery.follow()
        // Clients come only when it is known where to send them. A predecessor knows; where there is none, an answer of the gateway's own is
        // better than a port that is closed for long.
        let isSuccessor = !inherited.isEmpty
        let unknown = await parts.discovery.firstRound(
            within: isSuccessor ? StandaloneGateway.successorsPatience : StandaloneGateway.patience)
        if isSuccessor, let route = unknown.first {
            throw Failure.failed(
                "route \(route): no backends were found and none are declared; the process before goes on: mend what "
                    + "backends-file or backends-dns names (the line backends_not_found says what is wrong), then send it SIGUSR2 again")
        }
        for place in spec.listeners {
            let taken = inherited.filter { $0.name == "listen" && $0.address == place.description }
            try await parts.gateway.listen(
                on: try StandaloneGateway.socketAddress(place.address), as: ListenerKind(place), inherited: taken.map(\.descriptor))
        }
        for place in spec.listeners {
            logger.info("gateway_listening", .init("address", place), .init("routes", spec.routes.count))
        }
        if let admin = spec.admin {
            var router = Router()
            AdminAPI.add(
                to: &router, gateway: parts.gateway, onChange: { parts.prober.follow() }, reload: { try await self.tryReload(parts) })
            let loop = parts.loop
            let server = LoopBound(HTTPServer(loop: loop, router: router), on: loop)
            let address = try StandaloneGateway.socketAddress(admin)
            let taken = inherited.first { $0.name == "admin" }?.descriptor
            let descriptor = try await loop.run {
                try server.value.listen(on: address, inherited: taken)
                return server.value.listening.first ?? -1
            }
            state.withLock { $0.adminListener = descriptor }
            logger.info("admin_listening", .init("address", admin))
        }
        Succession.tellPredecessor()
    }

    private func apply(_ spec: GatewaySpec, to gateway: Gateway) async throws {
        if spec.routes.contains(where: { if case .service = $0.target { true } else { $0.canary?.service != nil } }) {
            throw Failure.wrongFile("a route names a service; the gateway alone knows only backends (muster up runs services)")
        }
        do { try await gateway.apply(spec) { _ in [] } } catch { throw Failure.wrongFile(error.description) }
    }

    // MARK: reload

    private func reload(_ parts: Parts) async {
        do { try await tryReload(parts) } catch {
            logger.error("reload_failed", .init("error", "\(error)"), .init("kept", "the configuration before"))
        }
    }

    private struct NotReloaded: Error, CustomStringConvertible {
        let description: String
    }

    private func tryReload(_ parts: Parts) async throws(NotReloaded) {
        // First: whoever moved the log away and asks for a new one gets it, whatever is wrong with the file.
        reopenLog()
        do {
            guard let spec = try read(), let old = state.withLock({ $0.spec }) else {
                throw Failure.wrongFile("\(file) has no gateway any more")
            }
            if StandaloneGateway.needsReplacement(old, spec) {
                logger.warning(
                    "reload_partial",
                    .init(
                        "reason",
                        "listen, admin, threads, access-log, limits, tracing and limit-store take effect when the process is replaced "
                            + "(SIGUSR2) or started anew"
                    ))
            }
            try await apply(spec, to: parts.gateway)
            parts.prober.follow()
            parts.discovery.follow()
            logger.info("reloaded", .init("routes", spec.routes.count))
        } catch { throw NotReloaded(description: "\(error)") }
    }

    /// The log's file may have been moved away: the descriptor goes on as the one that stands at its path now.
    private func reopenLog() {
        guard let (path, descriptor) = state.withLock({ state in state.logFile.map { ($0, state.logDescriptor) } }) else { return }
        let fresh = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o640)
        guard fresh >= 0 else { return logger.warning("log_not_reopened", .init("error", "\(SystemError("open \(path)"))")) }
        if dup2(fresh, descriptor) < 0 { logger.warning("log_not_reopened", .init("error", "\(SystemError("dup2 \(path)"))")) }
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        close(fresh)
    }

    private static func needsReplacement(_ old: GatewaySpec, _ new: GatewaySpec) -> Bool {
        old.listeners != new.listeners || old.admin != new.admin || old.threads != new.threads || old.accessLog != new.accessLog
            || old.limits != new.limits
            || old.tracing != new.tracing || old.limitStore != new.limitStore
    }

    // MARK: replacement

    /// Starts the program that stands at our place now, with our listening sockets. It tells us to go once it serves.
    private func replace(_ parts: Parts) async {
        guard getpid() != 1 else {
            return logger.warning(
                "replace_refused", .init("reason", "as process 1 of a container its end is the container's: start a new container instead"))
        }
        let refusal: String? = state.withLock { state in
            if state.isStopping { return "this process is ending" }
            if state.successor != 0 { return "a successor is starting already" }
            state.successor = -1
            return nil
        }
        if let refusal { return logger.warning("replace_refused", .init("reason", refusal)) }
        var pid: Int32 = 0
        defer { state.withLock { $0.successor = pid } }
        guard let spec = state.withLock({ $0.spec }) else { return }
        var sockets: [Succession.Socket] = []
        // In the order in which they were opened, which is the file's.
        for (place, descriptors) in zip(spec.listeners, await parts.gateway.listening) {
            for descriptor in descriptors { sockets.append(.init(name: "listen", address: place.description, descriptor: descriptor)) }
        }
        let (admin, isStopping) = state.withLock { ($0.adminListener, $0.isStopping) }
        // It may have been told to end meanwhile: then its listeners are closed, and nobody is left to be followed.
        if isStopping { return logger.warning("replace_refused", .init("reason", "this process is ending")) }
        if admin >= 0, let address = spec.admin { sockets.append(.init(name: "admin", address: address.description, descriptor: admin)) }
        do {
            let keys = spec.tls == nil ? nil : parts.gateway.ticketKeys(.now)
            pid = try Succession.start(successorArguments, sockets, keys: keys)
            logger.info("successor_started", .init("pid", Int(pid)))
        } catch { logger.error("replace_failed", .init("error", "\(error)"), .init("kept", "this process")) }
    }

    private func reapSuccessor() {
        let pid = state.withLock { $0.successor }
        var code: Int32 = 0
        guard pid > 0, muster_reap(pid, &code) == 1 else { return }
        state.withLock { $0.successor = 0 }
        logger.error("successor_ended", .init("pid", Int(pid)), .init("code", Int(code)), .init("kept", "this process"))
    }

    private func stop(_ parts: Parts, gently: Bool) async {
        let isFirst = state.withLock { state in
            defer { state.isStopping = true }
            return !state.isStopping
        }
        guard isFirst else { return }
        logger.info("draining", .init("grace", StandaloneGateway.grace.brief))
        let cut = await parts.gateway.drain(grace: StandaloneGateway.grace, gently: gently)
        logger.info("stopped", .init("connections_cut", cut))
        parts.loop.stop()
    }

    private static func socketAddress(_ address: ListenAddress) throws(Failure) -> SocketAddress {
        guard let socket = SocketAddress(host: address.host, port: address.port) else {
            throw .wrongFile("'\(address)' is no address to listen on")
        }
        return socket
    }
}
