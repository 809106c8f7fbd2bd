/// Remarks about the figures of one metric that have to be known beside the figures themselves.
public struct MetricRemarks: Sendable, Equatable {
    /// Figures that came and were not believed, each in words: no number, more than there can be, a page that cannot be read. What they
    /// really were is not known, and may have been much. So while there is one, the metric asks for no fewer replicas than there are: a
    /// guard may hold a wish, it never turns it round. Upwards it changes nothing.
    public var thrownAway: [String]
    /// Notes that a person should know and that change nothing: a replica without a figure and why, one that stands far out from its
    /// siblings.
    public var notes: [String]

    /// Without arguments there is nothing to remark.
    public init(thrownAway: [String] = [], notes: [String] = []) {
        self.thrownAway = thrownAway
        self.notes = notes
    }

    /// At most this many of a kind are put into words; of the others only how many there are. A sentence about 10,000 replicas is none.
    static let mostTold = 3

    /// `a; b; c; and 4 more`.
    static func text(_ list: [String]) -> String {
        let told = list.prefix(mostTold).joined(separator: "; ")
        return list.count > mostTold ? "\(told); and \(list.count - mostTold) more" : told
    }
}
