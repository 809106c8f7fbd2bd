import Basics
import EventLoops
import Observability
import Synchronization

/// Completes and forgets correlations now and then, and reads the ledger for the metrics page. Every instance has one; the store sees to it
/// that work is done once.
final class Settler {
    private static let pause = Duration.milliseconds(200)
    /// The ledger is read every so many rounds.
    private static let ledgerRounds = 25

    private let store: any CorrelationStore
    private let loop: EventLoop
    private let logger: Logger
    private let byQuiet: Counter
    private let byRoot: Counter
    private let updated: Counter
    private let expired: Counter
    private let forgotten: Counter
    private let lag: Lag
    private let ledger: [Gauge]
    private let imbalance: Gauge
    private final class Lag: Sendable { let milliseconds = Atomic<Int>(0) }

    private var succeeded = MonotonicTime.now
    private var round = 0
    /// What was told last that somebody must mend in the store: again after ten seconds, something else at once.
    private var told: (reason: String, at: MonotonicTime)?
    private var timer: LoopTimer?

    init(store: any CorrelationStore, loop: EventLoop, metrics: MetricsRegistry, logger: Logger) {
        self.store = store
        self.loop = loop
        self.logger = logger
        let help = "Correlations that became complete, by what made them so."
        byQuiet = metrics.counter("correlation_emitted_total", help, labels: [("reason", "quiet")])
        byRoot = metrics.counter("correlation_emitted_total", help, labels: [("reason", "root")])
        updated = metrics.counter("correlation_updated_total", "Of these, emitted again because more had come.")
        expired = metrics.counter("correlation_expired_total", "Correlations forgotten at the end of their lifetime.")
        forgotten = metrics.counter(
            "correlation_forgotten_total", "Complete and exported correlations forgotten before the end of their lifetime, to make room.")
        let lag = Lag()
        self.lag = lag
        metrics.gauge("correlation_settle_lag_seconds", "How long what is complete waits to be emitted; 0 when on time.") {
            Double(lag.milliseconds.load(ordering: .relaxed)) / 1000
        }
        ledger = Ledger.columns.map {
            metrics.gauge("correlation_ledger_records", "The fleet's records by what became of them.", labels: [("outcome", $0.name)])
        }
        imbalance = metrics.gauge(
            "correlation_ledger_imbalance", "Received records minus all others of the ledger: 0, or records were lost or counted twice.")
    }

    /// On the loop. Goes on until the loop ends.
    func start() {
        timer = LoopTimer(loop: loop) { [unowned self] in go() }
        timer?.schedule(after: Settler.pause)
    }

    private func go() {
        let bound = LoopBound(self, on: loop)
        // Ends with its round, which schedules the next one.
        Task(executorPreference: loop) {
            let more = await bound.value.turn()
            bound.value.timer?.schedule(after: more ? .zero : Settler.pause)
        }
    }

    private func turn() async -> Bool {
        round += 1
        do throws(StoreFailure) {
            let settled = try await store.settle()
            byQuiet.add(settled.byQuiet)
            byRoot.add(settled.byRoot)
            updated.add(settled.updated)
            expired.add(settled.expired)
            forgotten.add(settled.forgotten)
            // A shard that fails completes nothing: the turn counts as done only when all shards did theirs.
            if let failure = settled.failure { tell(failure) } else { succeeded = .now }
            let late = settled.failure == nil ? settled.lag : max(settled.lag, MonotonicTime.now - succeeded)
            lag.milliseconds.store(Int(late.nanoseconds / 1_000_000), ordering: .relaxed)
            if round % Settler.ledgerRounds == 0 { try await readLedger() }
            return settled.more
        } catch {
            // Nothing is completed while the store is away.
            lag.milliseconds.store(Int((MonotonicTime.now - succeeded).nanoseconds / 1_000_000), ordering: .relaxed)
            tell(error)
            return false
        }
    }

    /// An outage is told by the store's own status already; said again here only in detail.
    private func tell(_ failure: StoreFailure) {
        if failure.needsMending, told.map({ $0.reason != failure.reason || MonotonicTime.now - $0.at > .seconds(10) }) ?? true {
            told = (failure.reason, .now)
            logger.error("settle_failed", .init("error", failure.reason))
        } else {
            logger.debug("settle_failed", .init("error", failure.reason))
        }
    }

    private func readLedger() async throws(StoreFailure) {
        let sum = try await store.ledger().values.reduce(Ledger(), +)
        for (gauge, column) in zip(ledger, Ledger.columns) { gauge.set(sum[keyPath: column.path]) }
        imbalance.set(sum.imbalance)
    }
}
