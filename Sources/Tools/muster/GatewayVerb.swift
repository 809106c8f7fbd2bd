import Basics
import EventLoops
import Gateway
import Glibc
import HTTP
import Observability
import Synchronization
import Topology

let gatewayVerb = Verb(
    name: "gateway", summary: "run the gateway alone, for containers and ingress",
    help: """
        usage: muster gateway FILE

        Runs the gateway that FILE describes, in the foreground. SIGHUP reads the file again, without losing a connection;
        SIGTERM and SIGINT drain and stop.

        example:
          cat > gateway.yaml <<'END'
          gateway:
            listen: 127.0.0.1:8010
            admin: 127.0.0.1:8404
            routes:
              - path: /
                balance: least-connections
                backends: [127.0.0.1:9001, 127.0.0.1:9002]
          END
          muster gateway gateway.yaml
        """
) { arguments in
    try arguments.atMost(1, "one file")
    guard let file = arguments.positional.first else { throw Exit.usage("which file?") }
    try StandaloneGateway(file: file).run()
}

/// Reads a stack file; what is wrong with it becomes status 2.
func readStack(_ path: String, environment: @escaping (String) -> String? = environmentValue) throws(Exit) -> Stack {
    let text: [UInt8]
    do throws(SystemError) { text = try Files.read(path, limit: 1 << 20) } catch { throw .usage("\(error)") }
    do throws(Problems) { return try Stack.read(text, path: path, environment: environment) } catch { throw .usage("the file is wrong:\n\(error)") }
}

/// The gateway as a process of its own.
private final class StandaloneGateway: Sendable {
    private let file: String
    private let logger = Logger(level: .info, format: environmentValue("LOG_FORMAT") == "json" ? .json : .text, immediate: true)
    private let failure = Mutex<Exit?>(nil)
    private static let grace = Duration.seconds(30)

    init(file: String) { self.file = file }

    func run() throws {
        let stack = try readStack(file)
        guard let spec = stack.gateway else { throw Exit.usage("\(file) has no gateway") }
        let loop = try EventLoop()
        let events = Mutex<(@Sendable (Int32) -> Void)?>(nil)
        let watch = try SignalWatch([SIGTERM, SIGINT, SIGHUP], loop: loop) { signal in events.withLock { $0 }?(signal) }
        let metrics = MetricsRegistry()
        metrics.addProcessMetrics()
        let gateway = try Gateway(
            threads: spec.threads, metrics: metrics, journal: Journal(), logger: logger, accessLog: spec.accessLog ? 1 : -1)
        let prober = Prober(gateway: gateway, loop: loop)
        events.withLock { slot in
            slot = { signal in
                // Ends with its reload or with the process.
                Task(executorPreference: loop) {
                    if signal == SIGHUP { await self.reload(gateway, prober, spec) } else { await self.stop(gateway, loop) }
                }
            }
        }
        let begin = LoopBound(watch, on: loop)
        loop.execute { try? begin.value.start() }
        // Ends when all listens; a failure stops the loop.
        Task(executorPreference: loop) { [self] in
            do { try await start(gateway, prober, spec, loop) } catch {
                failure.withLock { $0 = Exit.failed("\(error)") }
                loop.stop()
            }
        }
        loop.run()
        gateway.stop()
        if let exit = failure.withLock({ $0 }) { throw exit }
    }

    private func start(_ gateway: Gateway, _ prober: Prober, _ spec: GatewaySpec, _ loop: EventLoop) async throws {
        try await apply(spec, to: gateway)
        try await gateway.listen(on: try socketAddress(spec.listen))
        prober.follow()
        logger.info("gateway_listening", .init("address", spec.listen), .init("routes", spec.routes.count))
        guard let admin = spec.admin else { return }
        var router = Router()
        AdminAPI.add(to: &router, gateway: gateway)
        let server = LoopBound(HTTPServer(loop: loop, router: router), on: loop)
        let address = try socketAddress(admin)
        try await loop.run { _ = try server.value.listen(on: address) }
        logger.info("admin_listening", .init("address", admin))
    }

    private func apply(_ spec: GatewaySpec, to gateway: Gateway) async throws {
        if spec.routes.contains(where: { if case .service = $0.target { true } else { false } }) {
            throw Exit.usage("a route names a service; the gateway alone knows only backends (muster up runs services)")
        }
        try await gateway.apply(spec.routes) { _ in [] }
    }

    private func reload(_ gateway: Gateway, _ prober: Prober, _ old: GatewaySpec) async {
        do {
            guard let spec = try readStack(file).gateway else { throw Exit.usage("\(file) has no gateway any more") }
            if spec.listen != old.listen || spec.admin != old.admin || spec.threads != old.threads {
                logger.warning("reload_partial", .init("reason", "listen, admin and threads take effect at the next start"))
            }
            try await apply(spec, to: gateway)
            prober.follow()
            logger.info("reloaded", .init("routes", spec.routes.count))
        } catch {
            logger.error("reload_failed", .init("error", "\((error as? Exit)?.message ?? "\(error)")"), .init("kept", "the configuration before"))
        }
    }

    private func stop(_ gateway: Gateway, _ loop: EventLoop) async {
        logger.info("draining", .init("grace", StandaloneGateway.grace.brief))
        let cut = await gateway.drain(grace: StandaloneGateway.grace)
        logger.info("stopped", .init("connections_cut", cut))
        loop.stop()
    }
}

func socketAddress(_ address: ListenAddress) throws(Exit) -> SocketAddress {
    guard let socket = SocketAddress(host: address.host, port: address.port) else {
        throw .usage("'\(address)' is no address to listen on")
    }
    return socket
}
