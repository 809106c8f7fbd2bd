import Basics
import Compression
import EventLoops
import HTTP
import JSONCoding
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
        // Credentials are not taken, and must not be taken for a part of the path, which is logged.
        guard !rest.contains("@"), let endpoint = Endpoint(String(rest[..<slash]), defaultPort: 80) else { return nil }
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
    private let refusedRecords: Counter
    private let document = JSONDocument()
    private let reader: BodyReader?
    /// False once the target has said that it takes no compressed bodies.
    private var packs = true
    /// Which failure of the store was told last: an outage is told now and then, not four times a second.
    private var storeTold: (reason: String, at: MonotonicTime)?
    private var droppedBefore: Int?
    private var looked = MonotonicTime.now
    /// Of a request: the lease outlives it.
    private let timeout: Duration

    init(
        target: ExportTarget, url: ExportURL, queue: any ExportQueue, limits: ExportLimits, loop: EventLoop, metrics: MetricsRegistry,
        logger: Logger,
        journal: Journal, reader: BodyReader? = nil
    ) {
        self.target = target
        self.reader = reader
        self.url = url
        self.queue = queue
        self.loop = loop
        self.logger = logger
        self.journal = journal
        timeout = min(Exporter.timeout, .nanoseconds(limits.lease.nanoseconds / 2))
        client = HTTPClient(loop: loop, responseLimit: 64 << 10, passesOver: true)
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
        refusedRecords = metrics.counter(
            "correlation_export_refused_records_total",
            "Spans or logs that the target said it did not take, in the body of an answer of 2xx.", labels: labels)
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
            let taken = await attempt("take") { () throws(StoreFailure) in try await queue.take(limit) } ?? []
            if taken.isEmpty {
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

    /// nil when the store failed, which is told: at once, and the same again every ten seconds.
    private func attempt<T>(_ what: String, _ body: () async throws(StoreFailure) -> T) async -> T? {
        do throws(StoreFailure) { return try await body() } catch {
            if let storeTold, storeTold.reason == error.reason, MonotonicTime.now - storeTold.at < .seconds(10) { return nil }
            storeTold = (error.reason, .now)
            logger.error(
                "export_store_failed", .init("target", target.rawValue), .init("operation", what), .init("error", error.reason))
            return nil
        }
    }

    private func drop(_ correlations: Int, _ reason: String) {
        count("dropped", correlations)
        logger.error("export_dropped", .init("target", target.rawValue), .init("correlations", correlations), .init("reason", reason))
    }

    private func look() async {
        noteState()
        looked = .now
        if let waiting = await attempt("depth", { () throws(StoreFailure) in try await queue.depth() }) { depth.set(waiting) }
        guard let dropped = await attempt("dropped", { () throws(StoreFailure) in try await queue.dropped() }) else { return }
        // Every instance sees, and tells, what the fleet dropped.
        if let before = droppedBefore, dropped > before { drop(dropped - before, "the queue is full") }
        droppedBefore = dropped
    }

    private func noteState() { state.set(breaker.state == .closed ? 0 : breaker.state == .halfOpen ? 1 : 2) }
    private func count(_ outcome: String, _ correlations: Int) { outcomes[outcome]!.add(correlations) }

    private func send(_ taken: [ExportBatch]) async {
        var rest = taken[...]
        while !isStopping, var batch = rest.first {
            if batch.redelivered {
                count("redelivered", batch.emissions.count)
                logger.warning("export_redelivered", .init("target", target.rawValue), .init("correlations", batch.emissions.count))
            }
            let loaded = batch
            guard let correlations = await attempt("load", { () throws(StoreFailure) in try await queue.load(loaded) }) else { break }
            // Nothing takes them away before they are sent; if something did, it is told.
            let missing = batch.emissions.count { $0.to > $0.from } - correlations.count
            if missing > 0 { drop(missing, "they are no longer in the store") }
            // What is no longer there has been told: it does not go back into the queue, and is not told again.
            let found = Set(correlations.map(\.key))
            var sent = Set(batch.emissions.map(\.key).filter { !found.contains($0) })
            switch await deliver(correlations, of: &batch, &sent) {
            case .done:
                await finish(batch)
                rest = rest.dropFirst()
            case .lost: rest = rest.dropFirst()
            case .away(let wait):
                count("retried", batch.emissions.count - sent.count)
                await giveBack(batch, left: batch.without(sent))
                for other in rest.dropFirst().reversed() { await giveBack(other, left: other) }
                if !isStopping { await loop.sleep(min(max(wait ?? .zero, backoff.next(using: &random)), .seconds(30))) }
                return
            }
            if MonotonicTime.now - looked > .seconds(1) { await look() }
        }
        // Neither success nor failure of the target.
        breaker.untried()
        for batch in rest.reversed() { await giveBack(batch, left: batch) }
    }

    /// Not finished here, it would be sent once more after its lease; so this goes on until the store is back.
    private func finish(_ batch: ExportBatch) async {
        await insist("finish") { () throws(StoreFailure) in try await queue.finish(batch) }
    }

    /// Not given back, it would wait until its lease has run out.
    private func giveBack(_ batch: ExportBatch, left: ExportBatch) async {
        await insist("give_back") { () throws(StoreFailure) in try await queue.giveBack(batch, left: left) }
    }

    /// At most 60 times, half a minute in all.
    private func insist(_ what: String, _ body: () async throws(StoreFailure) -> Void) async {
        for _ in 0..<60 {
            if await attempt(what, body) != nil { return }
            await loop.sleep(.milliseconds(isStopping ? 50 : 500))
        }
    }

    private enum Delivery {
        case done
        /// Another instance has the batch.
        case lost
        /// Not now; after at least so long if the target said so.
        case away(Duration?)
    }

    private func deliver(_ correlations: [StoredCorrelation], of batch: inout ExportBatch, _ sent: inout Set<CorrelationKey>) async
        -> Delivery
    {
        guard let (body, packed) = await prepare(correlations) else {
            breaker.untried()
            sent.formUnion(correlations.map(\.key))
            return .done
        }
        let held = batch
        // A store that does not answer is no reason not to send: at worst it arrives twice.
        if let answer = await attempt("renew", { () throws(StoreFailure) in try await queue.renew(held) }) {
            guard let renewed = answer else {
                breaker.untried()
                return .lost
            }
            batch = renewed
        }
        let start = MonotonicTime.now
        var headers = [("Content-Type", target == .loki ? LokiFormat.contentType : TempoFormat.contentType), ("User-Agent", "muster")]
        if packed { headers.append(("Content-Encoding", "gzip")) }
        let result: Result<HTTPClientResponse, HTTPClientError>
        do throws(HTTPClientError) {
            result = .success(
                try await client.send(
                    "POST", url.path, to: url.endpoint, headers: headers, body: body, timeout: timeout))
        } catch { result = .failure(error) }
        duration.observe(.now - start)
        guard case .success(let response) = result else {
            if case .failure(let error) = result {
                guard error.isOwnWant else { return failed(error.description, nil) }
                // The engine itself lacks descriptors or memory: the target has no part in it, and its breaker stays as it is.
                breaker.untried()
                logger.warning("export_failed", .init("target", target.rawValue), .init("reason", error.description))
            }
            return .away(nil)
        }
        let answer = TargetAnswer(response, packed: packed, now: .now, document)
        switch answer.verdict {
        case .taken, .takenWithout, .takenNothing:
            succeeded()
            noteTaken(correlations, answer)
            sent.formUnion(correlations.map(\.key))
            return .done
        case .refused: return await refused(correlations, answer, of: &batch, &sent)
        case .notPacked:
            packs = false
            logger.warning("export_unpacked", .init("target", target.rawValue), .init("reason", "it takes no gzip"))
            return await deliver(correlations, of: &batch, &sent)
        case .later(let wait): return failed(answer.words, wait)
        }
    }

    /// The body of a request, and whether it is packed; nil when there is nothing for this target. A large one is made on the thread that reads
    /// bodies: it may be thirty times what the correlations hold.
    private func prepare(_ correlations: [StoredCorrelation]) async -> ([UInt8], packed: Bool)? {
        let target = target, packs = packs
        let make = { @Sendable () -> ([UInt8], packed: Bool)? in
            guard let body = target == .loki ? LokiFormat.body(correlations) : TempoFormat.body(correlations) else { return nil }
            return packs && body.count > 1024 ? (Gzip.pack(body), true) : (body, false)
        }
        let bytes = correlations.reduce(0) { $0 + $1.text.count }
        guard let reader, bytes > BodyReader.atOnce else { return make() }
        return await reader.read(bytes: bytes, packed: false) { _ in make() }
    }

    /// Counts what an answer of 2xx says. Records that the target did not take are told, and not sent again.
    private func noteTaken(_ correlations: [StoredCorrelation], _ answer: TargetAnswer) {
        let rejected: Int
        switch answer.verdict {
        case .takenWithout(let count): rejected = count
        case .takenNothing: rejected = .max
        default: rejected = 0
        }
        if rejected == 0 {
            count("sent", correlations.count)
            if !answer.words.isEmpty {
                logger.warning("export_warning", .init("target", target.rawValue), .init("answer", answer.words))
            }
            return
        }
        let records = correlations.reduce(0) { $0 + ($1.read { target == .loki ? $0.logs.count : $0.spans.count } ?? 0) }
        count(rejected >= records ? "rejected" : "sent", correlations.count)
        refusedRecords.add(min(rejected, records))
        logger.error(
            "export_partial", .init("target", target.rawValue), .init("records", records), .init("refused", min(rejected, records)),
            .init("answer", answer.words))
    }

    /// The target takes requests, but not this one: that is no failure of the target.
    private func refused(
        _ correlations: [StoredCorrelation], _ answer: TargetAnswer, of batch: inout ExportBatch, _ sent: inout Set<CorrelationKey>
    ) async -> Delivery {
        succeeded()
        if correlations.count == 1 {
            count("rejected", 1)
            logger.error(
                "export_rejected", .init("target", target.rawValue), .init("correlation", correlations[0].key.id),
                .init("answer", answer.words))
            sent.insert(correlations[0].key)
            return .done
        }
        for half in [correlations[..<(correlations.count / 2)], correlations[(correlations.count / 2)...]] {
            let outcome = await deliver(Array(half), of: &batch, &sent)
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
