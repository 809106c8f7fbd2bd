/// Remarks about the figures of one metric that have to be known beside the figures themselves.
public struct MetricRemarks: Sendable, Equatable {
    /// Figures that came and were not believed, each in words: no number, more than there can be, a page that cannot be read. What they
    /// really were is not known, and may have been much. So while there is one, the metric asks for no fewer replicas than there are: a
    /// guard may hold a wish, it never turns it round. Upwards it changes nothing.
    public var thrownAway: [String]
    /// What is missing from figures that are parts of a whole, each in words: a partition whose lag nobody knows. The whole may be more, so
    /// the metric asks for no fewer replicas, as with figures that were thrown away.
    public var missing: [String]
    /// Notes that a person should know and that change nothing: a replica without a figure and why, one that stands far out from its
    /// siblings.
    public var notes: [String]

    /// Without arguments there is nothing to remark.
    public init(thrownAway: [String] = [], missing: [String] = [], notes: [String] = []) {
        self.thrownAway = thrownAway
        self.missing = missing
        self.notes = notes
    }

    /// Whether the figures may be too small, so that nothing may shrink by them.
    var isDoubtful: Bool { !thrownAway.isEmpty || !missing.isEmpty }

    /// Why nothing is taken away: `a figure is thrown away: …`.
    var doubt: String {
        let thrown = thrownAway.isEmpty ? nil : "a figure is thrown away: \(MetricRemarks.text(thrownAway))"
        let parts = missing.isEmpty ? nil : "a part of it is not known: \(MetricRemarks.text(missing))"
        return [thrown, parts].compactMap(\.self).joined(separator: ", and ")
    }

    /// At most this many of a kind are put into words; of the others only how many there are. A sentence about 10,000 replicas is none.
    static let mostTold = 3

    /// `a; b; c; and 4 more`.
    static func text(_ list: [String]) -> String {
        let told = list.prefix(mostTold).joined(separator: "; ")
        return list.count > mostTold ? "\(told); and \(list.count - mostTold) more" : told
    }
}
