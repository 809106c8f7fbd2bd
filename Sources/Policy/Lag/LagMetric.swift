import Basics

/// What KEDA reports to the horizontal autoscaler: the lag, rounded up to an even distribution, cut at the partitions.
///
/// The cut is KEDA's: `⌊lag/threshold⌋ > bound`. So a lag of up to `bound · threshold + (threshold − 1)` is not cut, and stands for one
/// replica more than there are partitions. `LagReplicas` closes that gap where `strict` is set.
public enum LagMetric {
    /// How many replicas the cut allows: all partitions, or those with lag. Nil: no cut.
    public static func bound(_ reading: LagReading, _ settings: LagSettings) -> Int? {
        guard settings.isCapped else { return nil }
        return settings.limitsToPartitionsWithLag ? reading.partitionsWithLag : reading.partitions
    }

    /// The lag to report, with what changed it.
    public static func report(_ reading: LagReading, _ settings: LagSettings, subject: String) -> Decision<Int> {
        let threshold = settings.threshold
        var lag = reading.lag
        var constraints: [DecisionRecord.Constraint] = []
        if settings.ensuresEvenDistribution {
            let factor = Divisors.even(lag: lag, partitions: reading.partitions, threshold: threshold)
            let even = OffsetArithmetic.product(factor, threshold)
            if even != lag {
                let reason = "\(factor) replicas share \(reading.partitions) partitions evenly"
                constraints.append(.init("even-distribution", before: "\(lag)", after: "\(even)", reason: reason))
            }
            lag = even
        }
        if let bound = bound(reading, settings), lag / threshold > bound {
            let cut = OffsetArithmetic.product(bound, threshold)
            let what = settings.limitsToPartitionsWithLag ? "partitions with lag" : "partitions"
            constraints.append(
                .init("partitions", before: "\(lag)", after: "\(cut)", reason: "\(bound) \(what) keep \(bound) replicas busy, and no more"))
            lag = cut
        }
        let record = DecisionRecord(
            .scale, subject: subject,
            inputs: [
                .init("lag", reading.lag), .init("lag_all", reading.lagAll), .init("partitions", reading.partitions),
                .init("partitions_with_lag", reading.partitionsWithLag), .init("lag_threshold", threshold),
            ],
            raw: "\(reading.lag)", constraints: constraints, outcome: "\(lag)",
            sentence:
                "\(subject) has a lag of \(reading.lag) over \(reading.partitions) partitions; \(lag) is reported, at \(threshold) a "
                + "replica",
            flip: constraints.isEmpty ? "another lag" : "more partitions, or another lag")
        return Decision(lag, because: record)
    }
}
