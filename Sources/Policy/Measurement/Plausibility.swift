import Basics

/// Keeps out figures that cannot be true, and notes those that are odd.
public enum Plausibility {
    /// Above 2^53 (>) a double no longer counts by ones: no counter of requests, bytes or messages gets there.
    public static let bound = 9_007_199_254_740_992.0
    /// A replica whose figure is this many times the median of its siblings (>=) is noted. It may be a mistake of a unit (milli, kilo) or
    /// a lie, and it may be the one replica that has the hot key, the hot partition or all sticky clients: so its figure stays, and counts
    /// as any other.
    public static let outlierFactor = 1000.0
    /// The fewest replicas that are compared: with two nobody can tell which of them lies.
    public static let fewestSiblings = 3

    /// The fault of a value that is no number, infinite, negative, or more than `most` (>), which is at most `bound`.
    public static func fault(_ value: Double, called name: String, most: Double? = nil) -> MeterFault? {
        if let fault = MeterFault.of(value, called: name) { return fault }
        let limit = min(most ?? bound, bound)
        guard value > limit else { return nil }
        return MeterFault(.implausible, "\(name) is \(value), more than \(limit) can be")
    }

    /// Compares the replicas of each service's metric with each other, and says on the figure of each outlier that it is one. No figure is
    /// taken away: a guard that believes the majority would turn a wish round. Siblings at zero say nothing of what is much: where the
    /// median of the others is zero, nobody is noted.
    public static func withOutliersNoted(_ readings: [MeterReading]) -> [MeterReading] {
        var groups: [MeterKey: [Int]] = [:]
        for (i, reading) in readings.enumerated() where reading.key.replica != nil && reading.figure != nil {
            groups[MeterKey(service: reading.key.service, metric: reading.key.metric), default: []].append(i)
        }
        var noted = readings
        for group in groups.values where group.count >= fewestSiblings {
            let sorted = group.sorted { readings[$0].figure!.value < readings[$1].figure!.value }
            for (rank, i) in sorted.enumerated() {
                let figure = readings[i].figure!
                let median = medianOfOthers(sorted.count, without: rank) { readings[sorted[$0]].figure!.value }
                guard median > 0, figure.value >= outlierFactor * median else { continue }
                noted[i].figure = figure.noted("it is \(figure.value), where the median of its siblings is \(median)")
            }
        }
        return noted
    }

    /// Of the sorted values but the one at `rank`.
    private static func medianOfOthers(_ count: Int, without rank: Int, _ value: (Int) -> Double) -> Double {
        func other(_ place: Int) -> Double { value(place < rank ? place : place + 1) }
        let middle = (count - 1) / 2
        return (count - 1) % 2 == 1 ? other(middle) : (other(middle - 1) + other(middle)) / 2
    }
}
