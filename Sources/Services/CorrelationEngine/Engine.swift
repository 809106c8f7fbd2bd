import Basics
import EventLoops
import HTTP
import JSONCoding
import Observability
import Redis
import SharedState

/// The correlation engine's behaviour, apart from its process: what each endpoint does.
public final class Engine: Sendable {
    let configuration: Configuration
    let store: any CorrelationStore
    let redis: RedisOperations?
    let metrics: MetricsRegistry
    let logger: Logger
    private let loop: EventLoop
    private let document: LoopBound<JSONDocument>
    private let parser: IngestParser

    private let depth: Gauge
    private let accepted: Counter
    private let duplicates: Counter
    private let rejected: Counter
    private let irregular: Counter
    private let correlations: Counter

    public init(
        configuration: Configuration, store: any CorrelationStore, redis: RedisOperations?, metrics: MetricsRegistry,
        logger: Logger, loop: EventLoop
    ) {
        self.configuration = configuration
        self.store = store
        self.redis = redis
        self.metrics = metrics
        self.logger = logger
        self.loop = loop
        document = LoopBound(JSONDocument(), on: loop)
        parser = IngestParser(maximumAge: configuration.maximumAge, window: configuration.window)
        depth = metrics.gauge("correlation_queue_depth", "Records taken in and not yet stored.")
        metrics.gauge("correlation_queue_capacity", "The depth at which records are refused with 503.").set(configuration.queueCapacity)
        metrics.gauge("correlation_state_backend", "Where the state lives: 1 = redis, 0 = in-memory.").set(configuration.usesRedis ? 1 : 0)
        accepted = metrics.counter("correlation_records_total", "Records by what became of them.", labels: [("outcome", "accepted")])
        duplicates = metrics.counter("correlation_records_total", "Records by what became of them.", labels: [("outcome", "duplicate")])
        rejected = metrics.counter("correlation_records_total", "Records by what became of them.", labels: [("outcome", "rejected")])
        irregular = metrics.counter("correlation_irregular_trace_ids_total", "Records whose trace id is not W3C's 32 hex digits.")
        correlations = metrics.counter(
            "instance_correlations_total", "Correlations that this instance was the first to see.",
            labels: [("instance_id", configuration.instanceID)])
    }

    public func router() -> Router {
        var router = Router()
        router.post("/api/logs") { [self] request, _ in try await ingest(request) }
        router.get("/api/correlations") { [self] request, _ in try await list(request) }
        router.get("/api/correlations/{id}") { [self] _, parameters in try await one(parameters.string("id")) }
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

    private func ingest(_ request: HTTPRequest) async throws -> HTTPResponse {
        if let type = request.header("content-type"), !type.lowercased().hasPrefix("application/json") {
            throw APIError(415, "unsupported_media_type", "send application/json, not \(type.prefix(60))", field: "Content-Type")
        }
        let batch = try parser.parse(document.value, request.body, now: .now)
        let count = batch.recordCount - batch.rejected.count
        guard depth.current + count <= configuration.queueCapacity else {
            throw APIError(
                503, "queue_full", "\(depth.current) of \(configuration.queueCapacity) records wait to be stored; send again later", retryAfter: 1)
        }
        depth.add(count)
        defer { depth.add(-count) }
        let outcomes: [IngestOutcome]
        do throws(StoreFailure) { outcomes = try await store.ingest(batch.groups) } catch {
            logger.error("correlation_store_failed", .init("records", count), .init("error", error.reason))
            throw Engine.storeAway
        }
        return answer(batch, outcomes)
    }

    private static let storeAway = APIError(
        503, "state_unavailable", "the shared state does not answer; nothing was acknowledged, send again", retryAfter: 1)

    private func answer(_ batch: IngestParser.Batch, _ outcomes: [IngestOutcome]) -> HTTPResponse {
        let added = outcomes.reduce(0) { $0 + $1.added }
        let repeated = outcomes.reduce(0) { $0 + $1.duplicates }
        let refused = outcomes.reduce(0) { $0 + $1.refused }
        accepted.add(added)
        duplicates.add(repeated)
        rejected.add(batch.rejected.count + refused)
        irregular.add(batch.irregularTraceIDs)
        correlations.add(outcomes.filter(\.created).count)
        return .json(status: 202) { json in
            json.member("accepted", added)
            json.member("duplicates", repeated)
            json.key("rejected")
            json.beginArray()
            for rejection in batch.rejected {
                json.beginObject()
                json.member("index", rejection.index)
                json.member("field", rejection.field)
                json.member("message", rejection.message)
                json.endObject()
            }
            for (group, outcome) in zip(batch.groups, outcomes) where outcome.refused > 0 {
                json.beginObject()
                json.member("index", -1)
                json.member("field", "records")
                json.member("message", "\(outcome.refused) records refused: correlation \(group.key.id) holds all that one may")
                json.endObject()
            }
            json.endArray()
            json.member("correlations", batch.groups.map(\.key.id))
        }
    }

    // MARK: reading

    private func one(_ id: String) async throws -> HTTPResponse {
        guard id.utf8.count <= 200, let json = try await reading({ () throws(StoreFailure) in try await store.correlation(id: id) }) else {
            throw APIError(404, "no_such_correlation", "no correlation has this id; it may have expired", field: "id")
        }
        return .json(json)
    }

    private func list(_ request: HTTPRequest) async throws -> HTTPResponse {
        let query = try CorrelationQuery(request)
        let page: CorrelationPage
        if let trace = request.queryValue("trace_id"), !trace.isEmpty {
            let id = CorrelationKey.trace(IngestParser.normal(trace)).id
            var found = CorrelationPage()
            if let json = try await reading({ () throws(StoreFailure) in try await store.correlation(id: id) }) { found.items = [json] }
            page = found
        } else {
            page = try await reading { () throws(StoreFailure) in try await store.list(query) }
        }
        return .json { json in
            json.key("correlations")
            json.beginArray()
            for item in page.items { json.raw(item) }
            json.endArray()
            json.key("next_cursor")
            if let next = page.next { json.string(next.text) } else { json.null() }
        }
    }

    private func reading<T>(_ body: () async throws(StoreFailure) -> T) async throws(APIError) -> T {
        do throws(StoreFailure) { return try await body() } catch {
            logger.error("correlation_store_failed", .init("error", error.reason))
            throw APIError(503, "state_unavailable", "the shared state does not answer; ask again", retryAfter: 1)
        }
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
        // No exporter is configured, so none is behind.
        json.member("exporters", "ready")
        json.endObject()
    }
}

extension CorrelationQuery {
    /// Reads the query's parameters; a wrong one is named.
    init(_ request: HTTPRequest) throws(APIError) {
        self.init()
        func time(_ name: String) throws(APIError) -> WallTime? {
            guard let text = request.queryValue(name), !text.isEmpty else { return nil }
            do throws(CalendarTime.Failure) { return try CalendarTime.parse(text) } catch {
                throw APIError(400, "invalid_parameter", "must be an RFC 3339 time such as 2026-11-21T03:30:00Z", field: name)
            }
        }
        func whole(_ name: String, _ range: ClosedRange<Int>) throws(APIError) -> Int? {
            guard let text = request.queryValue(name), !text.isEmpty else { return nil }
            guard let value = Int(text), range.contains(value) else {
                throw APIError(400, "invalid_parameter", "must be a whole number from \(range.lowerBound) to \(range.upperBound)", field: name)
            }
            return value
        }
        service = request.queryValue("service").flatMap { $0.isEmpty ? nil : $0 }
        status = request.queryValue("status").flatMap { $0.isEmpty ? nil : $0 }
        if let status, !["ok", "warning", "error"].contains(status) {
            throw APIError(400, "invalid_parameter", "must be ok, warning or error", field: "status")
        }
        from = try time("from")
        to = try time("to")
        minimumDuration = try whole("min_duration_ms", 0...Int(Int32.max)).map { .milliseconds($0) }
        limit = try whole("limit", 1...200) ?? 50
        if let text = request.queryValue("cursor"), !text.isEmpty {
            guard let parsed = Cursor(text: text) else {
                throw APIError(400, "invalid_parameter", "is no cursor of ours; take it from next_cursor", field: "cursor")
            }
            cursor = parsed
        }
    }
}
