import Basics
import EventLoops
import Glibc
import HTTP
import Observability
import Redis
import SharedState

/// The engine as a process: reads its environment, serves until SIGTERM or SIGINT, drains, ends with 0.
public enum EngineProcess {
    /// How long requests under way may take to finish after SIGTERM.
    static let grace = Duration.seconds(10)

    /// Returns the exit status: 0 after a drain, 2 for a wrong environment, 1 when it could not start.
    public static func run() -> Int32 {
        let configuration: Configuration
        do throws(Configuration.Failure) { configuration = try Configuration(environment: environmentValue) } catch {
            Logger(level: .error, format: .text, immediate: true).error("configuration_invalid", .init("reason", error.description))
            return 2
        }
        let logger = Logger(level: configuration.logLevel, format: configuration.logFormat)
        defer { logger.flush() }
        do {
            try serve(configuration, logger)
            return 0
        } catch {
            logger.error("start_failed", .init("error", "\(error)"))
            return 1
        }
    }

    private static func serve(_ configuration: Configuration, _ logger: Logger) throws {
        let loop = try EventLoop()
        let onSignal = Box({})
        // Before there is any other thread (of the log, or that reads bodies): threads inherit the mask that keeps these signals from ending
        // the process at once.
        let signals = try SignalWatch([SIGTERM, SIGINT], loop: loop) { _ in onSignal.value() }
        let metrics = MetricsRegistry()
        metrics.addProcessMetrics()
        loop.onTurnEnd = { logger.flush() }
        let redis = configuration.redis.map { makeRedis($0, configuration, metrics, logger, loop) }
        let pause = Turns.pause(on: loop)
        let reader = try BodyReader(loop: loop)
        let store = makeStore(configuration, redis, pause)
        let journal = Journal()
        let exporters = configuration.targets.map { target in
            LoopBound(
                Exporter(
                    target: target, url: configuration.url(target)!, queue: store.exports(target), limits: configuration.exports,
                    loop: loop, metrics: metrics,
                    logger: logger, journal: journal, reader: reader), on: loop)
        }
        let engine = Engine(
            configuration: configuration, store: store, redis: redis, exporters: exporters, journal: journal, metrics: metrics,
            logger: logger,
            loop: loop, reader: reader, pause: pause)
        let settler = Settler(store: store, loop: loop, metrics: metrics, logger: logger)
        let server = makeServer(engine, metrics, logger, loop)
        onSignal.value = {
            // A second signal does not drain a second time.
            onSignal.value = {}
            drain(engine, server, exporters.map(\.value), reader, logger, loop)
        }
        let failure = Box<(any Error)?>(nil)
        let start = LoopBound(
            {
                do {
                    try signals.start()
                    try open(server, configuration, logger)
                    settler.start()
                    for exporter in exporters { begin(exporter, loop) }
                } catch {
                    failure.value = error
                    loop.stop()
                }
            }, on: loop)
        loop.execute { start.value() }
        logger.info("correlation_state_backend", .init("backend", store.backend))
        redis?.client.start()
        loop.run()
        if let error = failure.value { throw error }
    }

    private static func drain(
        _ engine: Engine, _ server: HTTPServer, _ exporters: [Exporter], _ reader: BodyReader, _ logger: Logger, _ loop: EventLoop
    ) {
        logger.info("draining", .init("grace", grace.brief))
        engine.drain()
        server.drain(grace: grace) {
            stop(exporters, loop) {
                reader.stop()
                logger.info("stopped")
                loop.stop()
            }
        }
    }

    private static func open(_ server: HTTPServer, _ configuration: Configuration, _ logger: Logger) throws {
        guard let address = SocketAddress(host: configuration.host, port: configuration.port) else {
            throw Configuration.Failure(description: "HOST: '\(configuration.host)' is no numeric address")
        }
        let bound = try server.listen(on: address)
        if let socket = configuration.socket {
            // Not even for a moment may other users reach it: the mask is set before the socket appears. Nothing else makes files.
            let mask = umask(0o077)
            defer { umask(mask) }
            try server.listen(on: .unix(socket))
        }
        logger.info(
            "Correlation Engine started", .init("address", bound), .init("socket", configuration.socket ?? "-"),
            .init("instance", configuration.instanceID), .init("env", configuration.deployment))
    }

    private static func makeRedis(
        _ url: RedisURL, _ configuration: Configuration, _ metrics: MetricsRegistry, _ logger: Logger, _ loop: EventLoop
    ) -> RedisOperations {
        var options = RedisClient.Options()
        options.maxConnections = configuration.redisConnections
        options.name = "correlation-engine-\(configuration.instanceID)".filter { $0 != " " }
        let client = RedisClient(url: url, loop: loop, options: options) { status in
            switch status {
            case .connected: logger.info("redis_connected", .init("url", configuration.redisLabel))
            case .disconnected(let reason):
                logger.error("Failed to connect to Redis", .init("url", configuration.redisLabel), .init("error", reason))
            case .connecting: break
            }
        }
        return RedisOperations(client: client, metrics: metrics)
    }

    private static func makeServer(_ engine: Engine, _ metrics: MetricsRegistry, _ logger: Logger, _ loop: EventLoop) -> HTTPServer {
        let duration = metrics.histogram("http_request_duration_seconds", "Time from a request's head to its answer.")
        let classes = (1...5).map {
            metrics.counter("http_requests_total", "Requests answered, by class of status.", labels: [("status", "\($0)xx")])
        }
        let refused = metrics.counter("http_requests_refused_total", "Messages that were no acceptable HTTP request.")
        let id = engine.configuration.instanceID
        // Probes and scrapes would drown what the log is read for (F1.12).
        let quiet: Set<String> = ["/health/live", "/health/ready", "/metrics"]
        let server = HTTPServer(loop: loop, router: engine.router()) { summary in
            duration.observe(summary.duration)
            classes[min(max(summary.status / 100, 1), 5) - 1].add()
            if quiet.contains(summary.pattern) { return }
            logger.info(
                "request_completed", .init("method", summary.method), .init("path", summary.path), .init("status", summary.status),
                .init("duration_ms", Double(summary.duration.nanoseconds / 1000) / 1000), .init("instance", id),
                .init("request_id", summary.requestID ?? "-"))
        }
        server.context.onRefusal = { _ in refused.add() }
        return server
    }

    private static func makeStore(_ configuration: Configuration, _ redis: RedisOperations?, _ pause: @escaping Pause)
        -> any CorrelationStore
    {
        guard let redis else {
            return MemoryCorrelationStore(
                lifetime: configuration.lifetime, instance: configuration.instanceID, rule: configuration.completion,
                capacity: configuration.memory,
                targets: configuration.targets, exports: configuration.exports, pause: pause)
        }
        return RedisCorrelationStore(
            redis: redis, prefix: configuration.keyPrefix, shards: configuration.shards, confirmedBy: configuration.redisConfirmations,
            lifetime: configuration.lifetime,
            instance: configuration.instanceID, rule: configuration.completion,
            targets: configuration.targets, exports: configuration.exports, pause: pause)
    }

    private static func begin(_ exporter: LoopBound<Exporter>, _ loop: EventLoop) {
        // Ends after `stop`, which draining calls.
        Task(executorPreference: loop) { await exporter.value.run() }
    }

    /// Lets what is being sent arrive; a target that takes longer than a request may is not waited for, and its batch is sent again by
    /// another instance.
    private static func stop(_ exporters: [Exporter], _ loop: EventLoop, _ done: @escaping () -> Void) {
        if exporters.isEmpty { return done() }
        let left = Box(exporters.count)
        let timer = Box<LoopTimer?>(nil)
        func finish() {
            if left.value == 0 { return }
            left.value = 0
            timer.value = nil
            done()
        }
        timer.value = LoopTimer(loop: loop) { finish() }
        timer.value?.schedule(after: Exporter.timeout + .seconds(1))
        for exporter in exporters {
            exporter.stop {
                if left.value == 1 { finish() } else { left.value -= 1 }
            }
        }
    }
}

private final class Box<T> {
    var value: T
    init(_ value: T) { self.value = value }
}
