import Basics

/// Finds the replicas of a pool that serve much worse than the others, from their results over one interval.
///
/// Worse in success: a success rate below `mean - deviations × standard deviation` of the pool (Envoy's success-rate outlier), and at least
/// `successGap` below the mean. Worse in time: a mean latency over `latencyFactor` times the median of the pool and more than `latencyGap`
/// above it. All compared strictly. A pool that fails or slows down as a whole has no outlier.
///
/// Replicas with fewer than `requests` in the interval, or already ejected, are neither judged nor part of the mean and the median; those
/// with fewer answers than that are not judged by their latency, and no part of the median. Pure, and called once an interval: O(n log n), and it may allocate.
public struct OutlierDetection: Sendable, Equatable {
    /// The results of one replica over the interval.
    public struct Sample: Sendable, Equatable {
        /// The replica as `service/replica`, the subject of its record.
        public let name: String
        /// The requests that the replica was sent within the interval.
        public let requests: Int
        /// How many of the requests failed.
        public let failures: Int
        /// How many latencies are known: of answers, and of requests that were given up without one.
        public let answers: Int
        /// The sum of these latencies, in nanoseconds.
        public let latency: Int64
        /// Whether the replica is out already: it is not judged, but counts against the cap.
        public let isEjected: Bool

        /// Counts come from outside: negative ones count as 0, and more failures than requests count as all of them. `answers`: nil for as
        /// many as there were requests.
        public init(_ name: String, requests: Int, failures: Int, answers: Int? = nil, latency: Int64, isEjected: Bool = false) {
            self.name = name
            self.requests = max(requests, 0)
            self.failures = min(max(failures, 0), max(requests, 0))
            self.answers = max(answers ?? requests, 0)
            self.latency = max(latency, 0)
            self.isEjected = isEjected
        }

        var successRate: Double { 1 - Double(failures) / Double(requests) }
        /// Of a sample with answers.
        var meanLatency: Double { Double(latency) / Double(answers) }
    }

    /// The bounds of the judgement, and the source of each.
    public struct Settings: Sendable, Equatable {
        /// With fewer requests in the interval a replica is not judged. Envoy's `success_rate_request_volume`.
        public var requests: Int
        /// With fewer judged replicas there is no judgement of success. Envoy's `success_rate_minimum_hosts`.
        public var successReplicas: Int
        /// How many standard deviations below the mean a success rate may be. Envoy's `success_rate_stdev_factor`, 1900 thousandths.
        public var deviations: Double
        /// How far below the mean a success rate must at least be for ejection. Ours: one odd replica among five is two deviations away
        /// however little it differs, so Envoy's rule alone ejects for one failure in a thousand.
        public var successGap: Double
        /// With fewer judged replicas there is no judgement of latency. Ours: a median needs a middle.
        public var latencyReplicas: Int
        /// How many times the median a mean latency may be. Ours: three times the median is beyond what uneven requests make of equal
        /// replicas.
        public var latencyFactor: Double
        /// How far above the median a mean latency must be for ejection. Ours: below 50 ms more a person notices nothing.
        public var latencyGap: Duration
        /// The cap on ejections. Replicas that other checks ejected count as well.
        public var cap: EjectionCap

        /// Without arguments the defaults above are used.
        public init(
            requests: Int = 100, successReplicas: Int = 5, deviations: Double = 1.9, successGap: Double = 0.05, latencyReplicas: Int = 3,
            latencyFactor: Double = 3, latencyGap: Duration = .milliseconds(50), cap: EjectionCap = EjectionCap()
        ) {
            self.requests = requests
            self.successReplicas = successReplicas
            self.deviations = deviations
            self.successGap = successGap
            self.latencyReplicas = latencyReplicas
            self.latencyFactor = latencyFactor
            self.latencyGap = latencyGap
            self.cap = cap
        }
    }

    /// The bounds by which replicas are judged.
    public let settings: Settings

    /// Nothing is remembered from one interval to the next.
    public init(_ settings: Settings = Settings()) { self.settings = settings }

    /// The replicas to eject, by their places in `samples`, worst first: failing ones by their success rate, then slow ones by their
    /// latency. No more than the cap leaves, with those already ejected counted.
    public func judge(_ samples: [Sample]) -> [Decision<Int>] {
        let judged = samples.indices.filter { !samples[$0].isEjected && samples[$0].requests >= max(settings.requests, 1) }
        let failing = failing(judged, of: samples)
        let slow = slow(judged, of: samples).filter { slow in !failing.contains { $0.place == slow.place } }
        var ejected = samples.count { $0.isEjected }
        var decisions: [Decision<Int>] = []
        for outlier in failing + slow {
            guard settings.cap.allows(ejected: ejected, of: samples.count) else { break }
            ejected += 1
            decisions.append(
                outlier.decision(
                    samples[outlier.place].name, ejected: ejected, of: samples.count, most: settings.cap.most(of: samples.count)))
        }
        return decisions
    }

    private struct Outlier {
        let place: Int
        let inputs: [DecisionRecord.Input]
        let because: String
        let flip: String

        func decision(_ subject: String, ejected: Int, of size: Int, most: Int) -> Decision<Int> {
            Decision(
                place,
                because: DecisionRecord(
                    .eject, subject: subject, inputs: inputs + [.init("ejected", "\(ejected) of \(size), at most \(most)")], raw: "eject",
                    outcome: "ejected",
                    sentence: "\(subject) gets no requests: \(because).", flip: flip))
        }
    }

    private func failing(_ judged: [Int], of samples: [Sample]) -> [Outlier] {
        guard judged.count >= max(settings.successReplicas, 2) else { return [] }
        let rates = judged.map { samples[$0].successRate }
        let mean = rates.reduce(0, +) / Double(rates.count)
        let variance = rates.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(rates.count)
        let limit = min(mean - settings.deviations * variance.squareRoot(), mean - settings.successGap)
        return judged.filter { samples[$0].successRate < limit }.sorted { samples[$0].successRate < samples[$1].successRate }.map { place in
            let rate = percent(samples[place].successRate)
            return Outlier(
                place: place,
                inputs: [
                    .init("success_rate", rate), .init("pool_mean", percent(mean)), .init("limit", percent(limit)),
                    .init("requests", samples[place].requests),
                    .init("failures", samples[place].failures), .init("replicas", judged.count),
                ],
                because:
                    "\(rate) of its \(samples[place].requests) requests succeeded, while the \(judged.count) replicas of its pool have "
                    + "\(percent(mean)) on average",
                flip: "a success rate of \(percent(limit)) or more")
        }
    }

    private func slow(_ judged: [Int], of samples: [Sample]) -> [Outlier] {
        let judged = judged.filter { samples[$0].answers >= max(settings.requests, 1) }
        guard judged.count >= max(settings.latencyReplicas, 2) else { return [] }
        let sorted = judged.map { samples[$0].meanLatency }.sorted()
        let middle = sorted.count / 2
        let median = sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
        let limit = max(median * settings.latencyFactor, median + Double(settings.latencyGap.nanoseconds))
        return judged.filter { samples[$0].meanLatency > limit }.sorted { samples[$0].meanLatency > samples[$1].meanLatency }.map { place in
            let latency = time(samples[place].meanLatency)
            return Outlier(
                place: place,
                inputs: [
                    .init("mean_latency", latency), .init("pool_median", time(median)), .init("limit", time(limit)),
                    .init("requests", samples[place].answers),
                    .init("replicas", judged.count),
                ],
                because: "its requests took \(latency) on average, while the median of its pool is \(time(median))",
                flip: "a mean latency of \(time(limit)) or less")
        }
    }

    private func percent(_ share: Double) -> String { "\((share * 1000).rounded() / 10)%" }

    /// To 10 µs: whoever reads it compares, and does not compute.
    private func time(_ nanoseconds: Double) -> String {
        // Latencies are sums of Int64 over counts, so this fits; a limit may not, and is as good as endless then.
        let hundredths = min((nanoseconds / 10_000).rounded(), 9e14)
        return Duration.nanoseconds(Int64(clamped: hundredths).multipliedClamped(by: 10_000)).brief
    }
}
