import Basics

/// Finds by itself how many requests a service should have under way: as many as it serves without queueing.
///
/// It compares the latency of now with the latency without load (Envoy's adaptive concurrency, after Netflix's concurrency-limits). Each
/// window: `limit = limit × clamp(least × (1 + tolerance) / sample, 0.5...2) + √limit`, within `lowest...highest`. The root is Envoy's
/// headroom: the queue that it allows, and without which the limit could never grow.
///
/// `sample` is a quantile of a window of at least `samples` requests, and at least `interval` long, and at least as long as one such
/// request. `least` is the lowest sample of a period. After a period it is forgotten and measured anew, or a service that became slower for
/// good would be throttled forever. While it is measured, half of the limit is admitted, so that a busy service's own queue is not taken
/// for its latency. Envoy goes down to 3 there, which refuses most of the requests.
///
/// The limit does not grow in a window that never used half of it (Netflix's rule): such a window says nothing about more load.
///
/// Only latencies of answers that did the work belong here; a quick refusal is not a fast service. O(1) (a window's end: 200 steps), no
/// allocation but for a decision.
public struct GradientLimit: Sendable {
    /// The bounds of the limit, and the source of each.
    public struct Settings: Sendable, Equatable {
        /// The limit at the start. Netflix's Gradient2 starts with 20.
        public var start: Int
        /// The lowest limit. Envoy's `min_concurrency`.
        public var lowest: Int
        /// The highest limit. Envoy's `max_concurrency_limit`.
        public var highest: Int
        /// How far the latency may be above the least latency, as a part of it. Envoy's `min_rtt_calc_params.buffer`, 25 %.
        public var tolerance: Double
        /// The quantile of a window's latencies that is taken as its sample. Envoy's `sample_aggregate_percentile`, p50.
        public var quantile: Double
        /// The fewest requests in a window. Envoy's `min_rtt_calc_params.request_count`.
        public var samples: Int
        /// The shortest window. Envoy's `concurrency_update_interval` in its own example.
        public var interval: Duration
        /// The time after which the least latency is measured anew. Envoy's `min_rtt_calc_params.interval` in its own example.
        public var period: Duration

        /// A setting that makes no sense is replaced by the nearest one that does: bounds the wrong way round, a quantile that is no
        /// number.
        public init(
            start: Int = 20, lowest: Int = 3, highest: Int = 1000, tolerance: Double = 0.25, quantile: Double = 0.5, samples: Int = 50,
            interval: Duration = .milliseconds(100), period: Duration = .seconds(60)
        ) {
            self.lowest = max(lowest, 1)
            self.highest = max(highest, self.lowest)
            self.start = min(max(start, self.lowest), self.highest)
            self.tolerance = tolerance >= 0 ? tolerance : 0
            self.quantile = quantile > 0 ? min(quantile, 1) : 0.5
            self.samples = max(samples, 1)
            self.interval = interval
            self.period = period
        }
    }

    private enum Phase: Sendable, Equatable {
        /// Each window moves the limit. Leaves for `settling` at the first end of a window at or after the period's end.
        case following
        /// Half of the limit is admitted, and requests that began under the whole limit are let pass. Leaves for `measuring` after `left`
        /// more answers.
        case settling(left: Int)
        /// Half of the limit is admitted. The window's sample becomes the least latency, and the phase leaves for `following`.
        case measuring
    }

    /// The subject of the limit's decisions, as their records name it.
    public let subject: String
    /// The settings, made sensible by their `init`.
    public let settings: Settings
    /// How many requests may be under way; half of it while `isMeasuring`.
    public var limit: Int { Int(clamped: exact) }
    /// Whether the least latency is being measured anew.
    public var isMeasuring: Bool { phase != .following }

    private var exact: Double
    private var told: Int
    /// In nanoseconds; nil until the first window.
    private var least: Double?
    private var phase = Phase.following
    private var window = LatencyHistogram()
    private var windowBegan: MonotonicTime?
    private var periodBegan: MonotonicTime?
    /// The most that was under way in this window, of those admitted.
    private var peak = 0

    /// A limit that knows no latency yet: the first window measures it, with `start` as the limit.
    public init(subject: String, _ settings: Settings = Settings()) {
        self.subject = subject
        self.settings = settings
        exact = Double(settings.start)
        told = settings.start
    }

    /// How many are admitted at this moment.
    private var inForce: Int { isMeasuring ? max(limit / 2, settings.lowest) : limit }

    /// Whether one more request may begin when `inFlight` are under way.
    public mutating func admitted(inFlight: Int) -> Bool {
        guard inFlight < inForce else {
            // Refused is used to the full.
            peak = max(peak, inForce)
            return false
        }
        peak = max(peak, inFlight + 1)
        return true
    }

    /// Notes that a request ended after `latency`. Returns a decision when the limit is 10 % or more away from the one last told.
    public mutating func finished(_ latency: Duration, now: MonotonicTime) -> Decision<Int>? {
        if case .settling(let left) = phase {
            phase = left > 1 ? .settling(left: left - 1) : .measuring
            windowBegan = now
            return nil
        }
        let began = windowBegan ?? now
        if windowBegan == nil { windowBegan = now }
        if periodBegan == nil { periodBegan = now }
        window.add(nanoseconds: latency.nanoseconds)
        guard window.count >= settings.samples, now - began >= settings.interval else { return nil }
        let sample = max(window.quantile(settings.quantile), 1)
        guard now - began >= .nanoseconds(Int64(sample)) else { return nil }
        return windowEnded(sample, now)
    }

    private mutating func windowEnded(_ sample: Double, _ now: MonotonicTime) -> Decision<Int>? {
        defer {
            window.clear()
            windowBegan = now
            peak = 0
        }
        if phase == .measuring {
            least = sample
            phase = .following
            periodBegan = now
            return nil
        }
        let lowestSample = min(least ?? sample, sample)
        least = lowestSample
        let gradient = min(max(lowestSample * (1 + settings.tolerance) / sample, 0.5), 2)
        let wanted = exact * gradient + exact.squareRoot()
        var new = min(max(wanted, Double(settings.lowest)), Double(settings.highest))
        if peak * 2 < limit { new = min(new, exact) }
        exact = new
        if let periodBegan, now - periodBegan >= settings.period { phase = .settling(left: limit) }
        guard abs(limit - told) * 10 >= told else { return nil }
        return tell(wanted: wanted, sample: sample, least: lowestSample, gradient: gradient)
    }

    private mutating func tell(wanted: Double, sample: Double, least: Double, gradient: Double) -> Decision<Int> {
        let before = told
        told = limit
        let now = brief(sample), best = brief(least), factor = (gradient * 100).rounded() / 100
        let record = DecisionRecord(
            .limit, subject: subject,
            inputs: [
                .init("latency", now), .init("least_latency", best),
                .init("tolerance", "\(Int(clamped: (settings.tolerance * 100).rounded()))%"),
                .init("gradient", factor),
                .init("peak_in_flight", peak),
            ],
            raw: "\(before)",
            constraints: limit == settings.lowest || limit == settings.highest
                ? [
                    .init(
                        "bounds", before: "\(Int(clamped: wanted))", after: "\(limit)",
                        reason: "between \(settings.lowest) and \(settings.highest)")
                ] : [],
            outcome: "\(limit)",
            sentence: "\(subject) may have \(limit) requests under way in place of \(before): they take \(now), and \(best) without load.",
            flip: limit < before ? "a latency closer to \(best)" : "a latency further above \(best), or fewer requests under way")
        return Decision(limit, because: record)
    }

    private func brief(_ nanoseconds: Double) -> String {
        Duration.nanoseconds(Int64(clamped: nanoseconds / 1000).multipliedClamped(by: 1000)).brief
    }
}
