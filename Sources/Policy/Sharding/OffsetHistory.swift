/// Offsets of a master's replication stream, sampled over time: tells how old a replica's offset is.
///
/// The difference of two offsets is bytes, and bytes say nothing of time: a kilobyte is nothing behind a busy master, and an hour behind an
/// idle one.
public struct OffsetHistory: Sendable, Equatable {
    public enum Age: Sendable, Equatable {
        /// The replica has everything that the master had at the last sample.
        case current
        /// The seconds since the master was where the replica is, between two samples by proportion.
        case seconds(Double)
        /// The offset is older than the first sample.
        case moreThan(Double)
    }

    /// Seconds, ascending, and offset.
    private var samples: [(at: Double, offset: Int)] = []

    public init() {}

    public static func == (a: Self, b: Self) -> Bool { a.samples.elementsEqual(b.samples) { $0 == $1 } }

    /// Adds a sample. One that is older than the last or has a smaller offset (another master) begins the history anew.
    public mutating func add(at seconds: Double, offset: Int) {
        if let last = samples.last, seconds < last.at || offset < last.offset { samples = [] }
        samples.append((seconds, offset))
    }

    public var last: Int? { samples.last?.offset }

    /// The age of `offset` at `now`; nil without samples.
    public func age(of offset: Int, at now: Double) -> Age? {
        guard let last = samples.last, let first = samples.first else { return nil }
        if offset >= last.offset { return .current }
        if offset < first.offset { return .moreThan(max(0, now - first.at)) }
        // The last sample that the replica has, and the next, which it has not.
        let i = samples.lastIndex { $0.offset <= offset }!
        let before = samples[i], after = samples[i + 1]
        let share = (Double(offset) - Double(before.offset)) / (Double(after.offset) - Double(before.offset))
        return .seconds(max(0, now - (before.at + share * (after.at - before.at))))
    }
}
