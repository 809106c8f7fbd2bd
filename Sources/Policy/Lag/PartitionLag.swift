/// Sums and products of offsets, held to the largest `Int`: a broker's nonsense never traps.
enum OffsetArithmetic {
    static func sum(_ a: Int, _ b: Int) -> Int {
        let (sum, overflow) = a.addingReportingOverflow(b)
        return overflow ? (a < 0 ? .min : .max) : sum
    }

    static func product(_ a: Int, _ b: Int) -> Int {
        let (product, overflow) = a.multipliedReportingOverflow(by: b)
        return overflow ? ((a < 0) == (b < 0) ? .max : .min) : product
    }

    /// From `b` to `a`; 0 when that is backward.
    static func distance(_ a: Int, from b: Int) -> Int {
        guard a > b else { return 0 }
        let (difference, overflow) = a.subtractingReportingOverflow(b)
        return overflow ? .max : difference
    }
}

/// What the group's coordinator and the partition's leader said of one partition.
public struct PartitionOffsets: Sendable, Equatable {
    /// What the group has committed.
    public enum Committed: Sendable, Equatable {
        /// Nothing: Kafka says −1.
        case none
        case offset(Int)
        /// The answer has no block for this partition, or one with this error. Fails the whole reading.
        case failed(String)
    }

    public let topic: String
    public let partition: Int32
    public let committed: Committed
    /// The next offset that will be written; nil when the topic or the partition is not in the answer.
    public let latest: Int?

    public init(topic: String, partition: Int32, committed: Committed, latest: Int?) {
        self.topic = topic
        self.partition = partition
        self.committed = committed
        self.latest = latest
    }

    /// A committed offset below 0 is none.
    public init(topic: String, partition: Int32, committed: Int, latest: Int?) {
        self.init(topic: topic, partition: partition, committed: committed < 0 ? .none : .offset(committed), latest: latest)
    }
}

/// The lag of one partition, and which rule gave it.
public struct PartitionLag: Sendable, Equatable {
    public enum Rule: String, Sendable {
        case nothingCommitted = "nothing committed"
        case nothingLatest = "no latest offset"
        case whole = "nothing committed, read from the earliest"
        case persistent = "did not move since the last poll"
        case distance = "latest less committed"
    }

    /// What asks for replicas.
    public let scaling: Int
    /// What counts for activation: with the persistent lag.
    public let all: Int
    public let rule: Rule

    /// KEDA's five rules, in their order. `previous`: the committed offset at the last poll, nil at the first.
    ///
    /// Never below 0: a committed offset beyond the latest one (answers of two moments, a truncated log) is no lag. KEDA would subtract it
    /// from the lag of other partitions.
    public init(committed: Int?, latest: Int?, previous: Int?, _ settings: LagSettings) {
        let toZero = settings.scalesToZeroOnInvalidOffset
        guard let committed else {
            if settings.resetPolicy == .latest {
                self.init(toZero ? 0 : 1, .nothingCommitted)
            } else if toZero {
                self.init(0, .nothingCommitted)
            } else {
                self.init(max(latest ?? 0, 0), latest == nil ? .nothingLatest : .whole)
            }
            return
        }
        guard let latest else {
            self.init(0, .nothingLatest)
            return
        }
        let distance = OffsetArithmetic.distance(latest, from: committed)
        if settings.excludesPersistentLag, previous == committed {
            self.init(0, all: distance, .persistent)
        } else {
            self.init(distance, .distance)
        }
    }

    private init(_ scaling: Int, all: Int? = nil, _ rule: Rule) {
        self.scaling = scaling
        self.all = all ?? scaling
        self.rule = rule
    }
}
