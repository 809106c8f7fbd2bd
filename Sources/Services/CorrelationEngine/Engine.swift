import Basics
import EventLoops
import HTTP
import JSONCoding
import Observability
import Redis
import SharedState
import Synchronization

/// The correlation engine's behaviour, apart from its process: what each endpoint does.
public final class Engine: Sendable {
    let configuration: Configuration
    let store: any CorrelationStore
    let redis: RedisOperations?
    let metrics: MetricsRegistry
    let logger: Logger
    let loop: EventLoop
    let pause: Pause
    let reader: BodyReader
    let exporters: [LoopBound<Exporter>]
    private let journal: Journal
    private let parser: IngestParser
    private let intake: LoopBound<Intake>
    let otlp: OTLPIngest
    let streams: Gauge
    private let draining = Atomic<Bool>(false)
    private let records: [String: Counter]
    /// By `signal encoding outcome`.
    private let requestCounters: [String: Counter]
    private let irregular: Counter
    private let correlations: Counter

    init(
        configuration: Configuration, store: any CorrelationStore, redis: RedisOperations?, exporters: [LoopBound<Exporter>] = [],
        journal: Journal = Journal(),
        metrics: MetricsRegistry,
        logger: Logger, loop: EventLoop, reader: BodyReader, pause: @escaping @Sendable () async -> Void
    ) {
        self.pause = pause
        self.configuration = configuration
        self.store = store
        self.redis = redis
        self.exporters = exporters
        self.journal = journal
        self.metrics = metrics
        self.logger = logger
        self.loop = loop
        self.reader = reader
        parser = IngestParser(maximumAge: configuration.maximumAge, window: configuration.window)
        otlp = OTLPIngest(maximumAge: configuration.maximumAge, window: configuration.window)
        let depth = metrics.gauge("correlation_queue_depth", "Records taken in and not yet stored.")
        intake = LoopBound(
            Intake(most: .init(records: configuration.queueCapacity, bytes: Engine.intakeBytes), depth: depth), on: loop)
        metrics.gauge("correlation_queue_capacity", "The depth from which on records wait for room.").set(configuration.queueCapacity)
        metrics.gauge("correlation_state_backend", "Where the state lives: 1 = redis, 0 = in-memory.").set(configuration.usesRedis ? 1 : 0)
        streams = metrics.gauge("correlation_streams", "Open streams of new correlations.")
        var counters: [String: Counter] = [:]
        for outcome in ["accepted", "duplicate", "rejected"] {
            counters[outcome] = metrics.counter(
                "correlation_records_total", "Records by what became of them.", labels: [("outcome", outcome)])
        }
        records = counters
        // Made once: the registry's look-up takes a lock, and a series must be there at 0 for its first increase to show.
        counters = [:]
        for (signal, encoding) in [
            ("api_logs", "json"), ("otlp_logs", "json"), ("otlp_logs", "protobuf"), ("otlp_traces", "json"), ("otlp_traces", "protobuf"),
        ] {
            for outcome in ["accepted", "partial", "refused", "unavailable"] {
                counters["\(signal) \(encoding) \(outcome)"] = metrics.counter(
                    "correlation_requests_total", "Requests that brought records, by what became of them.",
                    labels: [("signal", signal), ("encoding", encoding), ("outcome", outcome)])
            }
        }
        requestCounters = counters
        irregular = metrics.counter("correlation_irregular_trace_ids_total", "Records whose trace id is not W3C's 32 hex digits.")
        correlations = metrics.counter(
            "instance_correlations_total", "Correlations that this instance was the first to see.",
            labels: [("instance_id", configuration.instanceID)])
    }

    /// Streams end, so that the process can.
    public func drain() { draining.store(true, ordering: .relaxed) }
    var isDraining: Bool { draining.load(ordering: .relaxed) }

    public func router() -> Router {
        var router = Router()
        router.post("/api/logs") { [self] request, _ in try await ingest(request) }
        router.post("/v1/logs") { [self] request, _ in await export(request, .logs) }
        router.post("/v1/traces") { [self] request, _ in await export(request, .traces) }
        router.get("/api/correlations") { [self] request, _ in try await list(request) }
        router.get("/api/correlations/stream") { [self] request, _ in try await stream(request) }
        router.get("/api/correlations/{id}") { [self] _, parameters in try await one(parameters.string("id")) }
        router.get("/api/ledger") { [self] request, _ in try await ledger(request) }
        // What this instance decided, in the form of `muster why --json`.
        router.get("/api/why") { [self] _, _ in .json(Journal.json(journal.entries())) }
        router.get("/health") { [self] _, _ in health() }
        router.get("/health/live") { _, _ in
            .json { json in
                json.member("status", "healthy")
                json.key("checks")
                json.beginObject()
                json.member("app", "running")
                json.endObject()
            }
        }
        router.get("/health/ready") { [self] _, _ in ready() }
        router.get("/metrics") { [self] _, _ in .text(metrics.render(), type: "text/plain; version=0.0.4; charset=utf-8") }
        return router
    }

    // MARK: ingest

    /// Bytes of records that are under way, and of those that wait for room.
    static let intakeBytes = 128 << 20

    private func ingest(_ request: HTTPRequest) async throws(APIError) -> HTTPResponse {
        do throws(APIError) {
            let (batch, outcomes) = try await takeLogs(request)
            // Also what its correlation had no room for is not there.
            let isWhole = batch.rejected.isEmpty && !outcomes.contains { $0.refused > 0 }
            requests("api_logs", "json", isWhole ? "accepted" : "partial")
            return answer(batch, outcomes)
        } catch {
            requests("api_logs", "json", error.status == 503 ? "unavailable" : "refused")
            throw error
        }
    }

    private func takeLogs(_ request: HTTPRequest) async throws(APIError) -> (IngestParser.Batch, [IngestOutcome]) {
        if let type = try request.single("content-type"), !type.lowercased().hasPrefix("application/json") {
            throw APIError(415, "unsupported_media_type", "send application/json, not \(type.prefix(60))", field: "Content-Type")
        }
        let packed = try Engine.isPacked(request)
        let parser = parser, body = request.body
        let batch = try await reader.read(bytes: body.count, packed: packed) { (document) throws(APIError) in
            try parser.parse(document, packed ? try Engine.unpack(body) : body, now: .now)
        }
        let outcomes = try await take(batch.delivery)
        if batch.delivery.groups.isEmpty, let first = batch.rejected.first {
            throw APIError(400, "invalid_record", first.message, field: first.field)
        }
        return (batch, outcomes)
    }

    /// Stores a delivery and counts it, in its turn. Throws 503 when it was not stored; then nothing of it is acknowledged.
    func take(_ delivery: Delivery) async throws(APIError) -> [IngestOutcome] {
        let load = IntakeLine.Load(records: delivery.recordCount, bytes: delivery.bytes)
        guard await intake.value.enter(load) else {
            throw APIError(
                503, "queue_full",
                "\(intake.value.records) records wait to be stored, and \(configuration.queueCapacity) may; send again later", retryAfter: 1
            )
        }
        defer { intake.value.leave(load) }
        let outcomes: [IngestOutcome]
        do throws(StoreFailure) { outcomes = try await store.ingest(delivery) } catch {
            logger.error("correlation_store_failed", .init("records", load.records), .init("error", error.reason))
            throw Engine.unavailable(error, "nothing was acknowledged, send again")
        }
        var sum = IngestOutcome()
        for outcome in outcomes {
            sum.added.addClamped(outcome.added)
            sum.duplicates.addClamped(outcome.duplicates)
            sum.refused.addClamped(outcome.refused)
            if outcome.created { correlations.add() }
        }
        records["accepted"]!.add(sum.added)
        records["duplicate"]!.add(sum.duplicates.addingClamped(delivery.duplicates))
        records["rejected"]!.add(sum.refused.addingClamped(delivery.rejected))
        irregular.add(delivery.irregularTraceIDs)
        return outcomes
    }

    func requests(_ signal: String, _ encoding: String, _ outcome: String) {
        requestCounters["\(signal) \(encoding) \(outcome)"]!.add()
    }

    private func answer(_ batch: IngestParser.Batch, _ outcomes: [IngestOutcome]) -> HTTPResponse {
        .json(status: 202) { json in
            json.member("accepted", outcomes.map(\.added).sumClamped())
            json.member("duplicates", outcomes.map(\.duplicates).sumClamped().addingClamped(batch.delivery.duplicates))
            json.key("rejected")
            json.beginArray()
            for rejection in batch.rejected {
                json.beginObject()
                json.member("index", rejection.index)
                json.member("field", rejection.field)
                json.member("message", rejection.message)
                json.endObject()
            }
            for (key, refused) in Engine.refusals(batch.delivery, outcomes) {
                json.beginObject()
                json.member("index", -1)
                json.member("field", "records")
                json.member("message", Engine.full(key, refused))
                json.endObject()
            }
            json.endArray()
            json.member("correlations", Engine.distinct(batch.delivery.groups.map(\.key.id)))
        }
    }

    /// Records refused because their correlation is full: once for each correlation, with their number.
    static func refusals(_ delivery: Delivery, _ outcomes: [IngestOutcome]) -> [(key: CorrelationKey, refused: Int)] {
        var places: [CorrelationKey: Int] = [:]
        var all: [(key: CorrelationKey, refused: Int)] = []
        for (group, outcome) in zip(delivery.groups, outcomes) where outcome.refused > 0 {
            if let place = places[group.key] {
                all[place].refused.addClamped(outcome.refused)
            } else {
                places[group.key] = all.count
                all.append((group.key, outcome.refused))
            }
        }
        return all
    }

    /// What a client is told of a failure of the store. What somebody must mend is said as it is; what passes by itself is not.
    static func unavailable(_ failure: StoreFailure, _ what: String) -> APIError {
        // Asked again it would fail again.
        if failure.isTooLarge { return APIError(413, "too_large_for_memory", failure.reason) }
        if failure.needsMending {
            return APIError(503, "state_broken", "the shared state must be mended: \(failure.reason)", retryAfter: 30)
        }
        return APIError(503, "state_unavailable", "the shared state does not answer; \(what)", retryAfter: 1)
    }

    static func full(_ key: CorrelationKey, _ refused: Int) -> String {
        "\(refused) records refused: correlation \(key.id) holds all that one may"
    }

    private static func distinct(_ ids: [String]) -> [String] {
        var seen: Set<String> = []
        return ids.filter { seen.insert($0).inserted }
    }

    // MARK: health

    /// nil: no Redis is declared.
    private var redisConnected: Bool? { redis.map { $0.client.status == .connected } }

    private func health() -> HTTPResponse {
        let degraded = redisConnected == false
        return .json { json in
            json.member("status", degraded ? "degraded" : "healthy")
            json.member("instance_id", configuration.instanceID)
            json.member("backend", store.backend)
            writeChecks(&json)
        }
    }

    /// Ready means: this instance can take requests. Redis being away makes it degraded, not unready, because then every
    /// instance would leave the pool at once for a fault that none of them has (F1.15).
    private func ready() -> HTTPResponse {
        .json { json in
            json.member("status", redisConnected == false ? "degraded" : "ready")
            writeChecks(&json)
        }
    }

    private func writeChecks(_ json: inout JSONWriter) {
        json.key("checks")
        json.beginObject()
        json.member("redis", redisConnected.map { $0 ? "connected" : "disconnected" } ?? "in-memory")
        // `ready`, also when none is configured; else which one is away. That never makes an instance unready: its queue holds.
        let away = exporters.map(\.value).filter { $0.breaker.state == .open }.map(\.target.rawValue)
        json.member("exporters", away.isEmpty ? "ready" : "away: " + away.joined(separator: ", "))
        json.endObject()
    }
}
