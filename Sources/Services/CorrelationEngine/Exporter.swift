import Basics
import Compression
import EventLoops
import HTTP
import Observability
import Resilience

/// Where a target is: `http://host[:port][/path]`.
public struct ExportURL: Sendable, Equatable {
    public let endpoint: Endpoint
    public let path: String

    /// nil when it is no such URL. The path of the API is added where none is given.
    public init?(_ text: String, path standard: String) {
        guard text.hasPrefix("http://") else { return nil }
        let rest = text.dropFirst(7)
        let slash = rest.firstIndex(of: "/") ?? rest.endIndex
        guard !rest[..<slash].contains("@"), let endpoint = Endpoint(String(rest[..<slash]), defaultPort: 80) else { return nil }
        self.endpoint = endpoint
        let given = rest[slash...]
        path = given.isEmpty || given == "/" ? standard : String(given)
    }
}

/// Sends one target's batches: takes them on lease, sends, finishes them. A target that is away costs nothing but its queue: the breaker
/// opens, and batches stay where they are. What a target refuses for good (400) is halved until the one correlation is found that it
/// refuses; that one is counted and told, and the others go through.
///
/// It lives on its loop; `run` ends after `stop`.
public final class Exporter {
    /// How often an empty queue is looked at.
    static let pause = Duration.milliseconds(250)
    static let timeout = Duration.seconds(10)
    static let batches = 4

    public let target: ExportTarget
    private let url: ExportURL
    private let queue: any ExportQueue
    private let client: HTTPClient
    private let loop: EventLoop
    private let logger: Logger
    private let journal: Journal
    public private(set) var breaker: Breaker
    private var backoff = Backoff(initial: .milliseconds(200), limit: .seconds(10))
    private var random = SeededRandom(seed: UInt64(MonotonicTime.now.nanoseconds))
    private var isStopping = false
    private var onStopped: (() -> Void)?

    private let depth: Gauge
    private let state: Gauge
    private let duration: Histogram
    private let outcomes: [String: Counter]
    private var droppedBefore: Int?
    private var looked = MonotonicTime.now
    /// Of a request: the lease outlives it.
    private let timeout: Duration

    public init(
        target: ExportTarget, url: ExportURL, queue: any ExportQueue, limits: ExportLimits, loop: EventLoop, metrics: MetricsRegistry,
        logger: Logger,
        journal: Journal
    ) {
        self.target = target
        self.url = url
        self.queue = queue
        self.loop = loop
        self.logger = logger
        self.journal = journal
        timeout = min(Exporter.timeout, .nanoseconds(limits.lease.nanoseconds / 2))
        client = HTTPClient(loop: loop, responseLimit: 64 << 10)
        breaker = Breaker(subject: "correlation-engine/\(target.rawValue)")
        let labels = [("target", target.rawValue)]
        depth = metrics.gauge("correlation_export_queue_depth", "Batches that wait to be sent, of the whole fleet.", labels: labels)
        metrics.gauge("correlation_export_queue_capacity", "The depth at which the oldest batch is dropped.", labels: labels).set(
            limits.batches)
        state = metrics.gauge("correlation_export_breaker", "0 closed, 1 half-open, 2 open.", labels: labels)
        duration = metrics.histogram("correlation_export_duration_seconds", "Time of one request to the target.", labels: labels)
        var counters: [String: Counter] = [:]
        for outcome in ["sent", "rejected", "dropped", "retried", "redelivered"] {
            counters[outcome] = metrics.counter(
                "correlation_exports_total", "Correlations sent to the target, by what became of them.",
                labels: labels + [("outcome", outcome)])
        }
        outcomes = counters
    }

    /// Stops after the request that is under way.
    public func stop(_ done: @escaping () -> Void) {
        isStopping = true
        onStopped = done
    }

    public func run() async {
        while !isStopping {
            if !breaker.allows(loop.now) {
                await look()
                await loop.sleep(min(max(breaker.wait(loop.now), .milliseconds(50)), Exporter.pause))
                continue
            }
            noteState()
            // A trial sends one batch, so that one failure is one failure.
            let limit = breaker.state == .closed ? Exporter.batches : 1
            guard let taken = try? await queue.take(limit), !taken.isEmpty else {
                breaker.untried()
                await look()
                await loop.sleep(Exporter.pause)
                continue
            }
            await send(taken)
        }
        client.close()
        onStopped?()
    }

    private func drop(_ correlations: Int, _ reason: String) {
        count("dropped", correlations)
        logger.error("export_dropped", .init("target", target.rawValue), .init("correlations", correlations), .init("reason", reason))
    }

    private func look() async {
        noteState()
        looked = .now
        if let waiting = try? await queue.depth() { depth.set(waiting) }
        guard let dropped = try? await queue.dropped() else { return }
        // Every instance sees, and tells, what the fleet dropped.
        if let before = droppedBefore, dropped > before { drop(dropped - before, "the queue is full") }
        droppedBefore = dropped
    }

    private func noteState() { state.set(breaker.state == .closed ? 0 : breaker.state == .halfOpen ? 1 : 2) }
    private func count(_ outcome: String, _ correlations: Int) { outcomes[outcome]!.add(correlations) }

    private func send(_ taken: [ExportBatch]) async {
        var rest = taken[...]
        while !isStopping, let batch = rest.first {
            if batch.redelivered {
                count("redelivered", batch.emissions.count)
                logger.warning("export_redelivered", .init("target", target.rawValue), .init("correlations", batch.emissions.count))
            }
            guard let correlations = try? await queue.load(batch) else { break }
            // Nothing takes them away before they are sent; if something did, it is told.
            let missing = batch.emissions.count { $0.to > $0.from } - correlations.count
            if missing > 0 { drop(missing, "they are no longer in the store") }
            var sent: Set<CorrelationKey> = []
            switch await deliver(correlations, of: batch, &sent) {
            case .done:
                await finish(batch)
                rest = rest.dropFirst()
            case .lost: rest = rest.dropFirst()
            case .away(let wait):
                count("retried", batch.emissions.count - sent.count)
                try? await queue.giveBack(batch, left: batch.without(sent))
                await giveBack(rest.dropFirst())
                if !isStopping { await loop.sleep(min(max(wait ?? .zero, backoff.next(using: &random)), .seconds(30))) }
                return
            }
            if MonotonicTime.now - looked > .seconds(1) { await look() }
        }
        // Neither success nor failure of the target.
        breaker.untried()
        await giveBack(rest)
    }

    /// Not finished here, it would be sent once more after its lease; so this goes on until the store is back.
    private func finish(_ batch: ExportBatch) async {
        for _ in 0..<60 {
            if (try? await queue.finish(batch)) != nil { return }
            await loop.sleep(.milliseconds(isStopping ? 50 : 500))
        }
    }

    private func giveBack(_ batches: ArraySlice<ExportBatch>) async {
        for batch in batches.reversed() { try? await queue.giveBack(batch, left: batch) }
    }

    private enum Delivery {
        case done
        /// Another instance has the batch.
        case lost
        /// Not now; after at least so long if the target said so.
        case away(Duration?)
    }

    private func deliver(_ correlations: [StoredCorrelation], of batch: ExportBatch, _ sent: inout Set<CorrelationKey>) async -> Delivery {
        let body = target == .loki ? LokiFormat.body(correlations) : TempoFormat.body(correlations)
        guard let body else {
            breaker.untried()
            sent.formUnion(correlations.map(\.key))
            return .done
        }
        if let mine = try? await queue.renew(batch), !mine {
            breaker.untried()
            return .lost
        }
        let start = MonotonicTime.now
        let packed = body.count > 1024
        var headers = [("Content-Type", target == .loki ? LokiFormat.contentType : TempoFormat.contentType), ("User-Agent", "muster")]
        if packed { headers.append(("Content-Encoding", "gzip")) }
        let result: Result<HTTPClientResponse, HTTPClientError>
        do throws(HTTPClientError) {
            result = .success(
                try await client.send(
                    "POST", url.path, to: url.endpoint, headers: headers, body: packed ? Gzip.pack(body) : body, timeout: timeout))
        } catch { result = .failure(error) }
        duration.observe(.now - start)
        switch result {
        case .failure(let error): return failed(error.description, nil)
        case .success(let response):
            switch response.status {
            case 200..<300:
                succeeded()
                count("sent", correlations.count)
                sent.formUnion(correlations.map(\.key))
                return .done
            // These say that this body will never do. Anything else (no such path, no access, moved, busy) may be mended, and is waited
            // for.
            case 400, 413, 422: return await refused(correlations, response, of: batch, &sent)
            default:
                return failed(
                    "status \(response.status)", response.header("retry-after").flatMap { Int($0) }.map { .seconds(min(max($0, 0), 3600)) })
            }
        }
    }

    /// The target takes requests, but not this one: that is no failure of the target.
    private func refused(
        _ correlations: [StoredCorrelation], _ response: HTTPClientResponse, of batch: ExportBatch, _ sent: inout Set<CorrelationKey>
    ) async -> Delivery {
        succeeded()
        if correlations.count == 1 {
            count("rejected", 1)
            logger.error(
                "export_rejected", .init("target", target.rawValue), .init("correlation", correlations[0].key.id),
                .init("status", response.status),
                .init("answer", String(response.text.prefix(200))))
            sent.insert(correlations[0].key)
            return .done
        }
        for half in [correlations[..<(correlations.count / 2)], correlations[(correlations.count / 2)...]] {
            let outcome = await deliver(Array(half), of: batch, &sent)
            guard case .done = outcome else { return outcome }
        }
        return .done
    }

    private func succeeded() {
        backoff.reset()
        note(breaker.success())
    }

    private func failed(_ reason: String, _ wait: Duration?) -> Delivery {
        note(breaker.failure(loop.now, reason: reason))
        logger.warning("export_failed", .init("target", target.rawValue), .init("reason", reason))
        return .away(wait)
    }

    private func note(_ decision: Decision<Breaker.State>?) {
        noteState()
        guard let decision else { return }
        journal.append(decision.record)
        logger.info(
            "breaker", .init("target", target.rawValue), .init("state", decision.result.rawValue), .init("why", decision.record.sentence))
    }
}
