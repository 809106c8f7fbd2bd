/// The verdict on a load test: for each expectation whether it holds, and why.
public struct LoadVerdict: Sendable, Equatable {
    public struct Finding: Sendable, Equatable {
        public let expectation: LoadExpectation
        /// The measured value, in the expectation's unit; nil when nothing was measured, and then the expectation does not hold.
        public let measured: Double?
        public let holds: Bool
        /// The finding in words: `p95<50ms: 31.2ms measured`
        public let sentence: String
    }
    public let findings: [Finding]
    /// Why the run measured nothing of the service, however its figures look; nil when it did.
    public let unmeasured: String?

    /// Whether all expectations hold. True when there are none, unless the run measured nothing.
    public var holds: Bool { unmeasured == nil && findings.allSatisfy(\.holds) }

    /// Judges a report. Latencies count from when requests were due. A test in which no request ended shows nothing, so that no expectation
    /// holds.
    public init(_ expectations: [LoadExpectation], of report: LoadReport) {
        unmeasured = report.failures[.own].map { count in
            "could not be measured: \(count) request\(count == 1 ? " was" : "s were") not sent, because this machine lacked something of "
                + "its own (\(report.firstWant ?? "")); give it more (ulimit -n, net.ipv4.ip_local_port_range), or ask for less"
        }
        findings = expectations.map { expectation in
            guard let measured = report.measured(expectation.metric) else {
                return Finding(
                    expectation: expectation, measured: nil, holds: false, sentence: "\(expectation.description): nothing was measured")
            }
            let holds = expectation.relation.holds(measured, expectation.limit)
            return Finding(
                expectation: expectation, measured: measured, holds: holds,
                sentence: "\(expectation.description): \(expectation.metric.text(measured)) measured\(holds ? "" : ", which it is not")")
        }
    }
}

extension LoadReport {
    /// The measured value of a metric; nil when no request has ended.
    public func measured(_ metric: LoadExpectation.Metric) -> Double? {
        if ended == 0 { return nil }
        if let share = metric.share { return Double(total.response.quantile(share)) }
        return switch metric {
        case .max: Double(total.response.most)
        case .mean: total.response.mean
        case .errors: errorShare
        default: rate
        }
    }
}
