import Basics
import Observability
import Resilience
import Synchronization

/// Tells the operator when this process lacks something for its connections (descriptors, local ports, memory): each time by a metric, and
/// in the log when the shortage begins and when it is over. Nobody else is at fault, so no replica, breaker or store is told of it.
final class Shortage: Sendable {
    private let edge = Mutex(EdgeCount(quiet: .seconds(5)))
    private let counter: Counter
    private let logger: Logger

    init(metrics: MetricsRegistry, logger: Logger) {
        counter = metrics.counter(
            "gateway_shortages_total", "Connections that this process could not make or take for want of descriptors, ports or memory.")
        self.logger = logger
    }

    /// Notes a shortage; `detail` is the system's word for it.
    func happened(_ detail: String) {
        counter.add()
        guard edge.withLock({ $0.happened(.now) }) else { return }
        logger.error(
            "gateway_short", .init("error", detail),
            .init("now", "idle connections are closed; requests that get no connection are answered 503 gateway_short"),
            .init("next", "raise the limit of descriptors (ulimit -n, LimitNOFILE) or lower gateway.limits.connections"))
    }

    /// Tells when the shortage is over. Called a few times a second.
    func timePassed(_ now: MonotonicTime) {
        guard let end = edge.withLock({ $0.ended(now) }) else { return }
        logger.info("gateway_short_over", .init("connections", end.count), .init("lasted", end.lasted.brief))
    }
}
