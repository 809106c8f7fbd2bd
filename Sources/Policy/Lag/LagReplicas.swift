import Basics

/// From a reported lag to replicas, as the horizontal autoscaler does for an external metric with an average value; and a cap of ours.
public enum LagReplicas {
    /// How far `lag/(threshold · status)` may be from 1 without a change; the autoscaler's default.
    public static let tolerance = 0.1

    /// `⌈lag/threshold⌉`; or the replicas there are, when the ratio is within the tolerance (both ends included). With 0 replicas there is
    /// no tolerance.
    public static func wanted(lag: Int, threshold: Int, status: Int, tolerance: Double = tolerance) -> Int {
        let lag = max(lag, 0), threshold = max(threshold, 1)
        if status > 0 {
            let ratio = Double(lag) / (Double(threshold) * Double(status))
            if ratio >= 1 - tolerance, ratio <= 1 + tolerance { return status }
        }
        return lag / threshold + (lag % threshold > 0 ? 1 : 0)
    }

    /// What the reported metric asks for, and with `strict` never more than there are partitions: those beyond would be idle.
    ///
    /// - Parameter status: how many replicas there are; 0 at an activation.
    public static func decide(
        _ reading: LagReading, _ settings: LagSettings, status: Int, tolerance: Double = tolerance, subject: String
    ) -> Decision<Int> {
        let metric = LagMetric.report(reading, settings, subject: subject)
        let raw = wanted(lag: metric.result, threshold: settings.threshold, status: status, tolerance: tolerance)
        var replicas = raw
        var constraints = metric.record.constraints
        if settings.strict, let bound = LagMetric.bound(reading, settings), replicas > bound {
            let reason = "a partition is read by one replica of a group: more than \(bound) would be idle"
            constraints.append(.init("strict-partitions", before: "\(replicas)", after: "\(bound)", reason: reason))
            replicas = bound
        }
        let isCut = replicas < raw || metric.result < reading.lag
        let more = isCut ? "; more replicas will not help, more partitions would" : ""
        let record = DecisionRecord(
            .scale, subject: subject, inputs: metric.record.inputs + [.init("replicas", status), .init("reported_lag", metric.result)],
            raw: "\(raw)", constraints: constraints, outcome: "\(replicas)",
            sentence: "\(subject) has a lag of \(reading.lag), at \(settings.threshold) a replica: \(replicas) replicas\(more)",
            flip: isCut
                ? "more partitions"
                : replicas == status ? "a lag more than \(Int(clamped: (tolerance * 100).rounded())) % off" : "another lag")
        return Decision(replicas, because: record)
    }
}
