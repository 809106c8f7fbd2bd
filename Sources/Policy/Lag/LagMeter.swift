/// The lag of a group over all its partitions.
public struct LagReading: Sendable, Equatable {
    /// What asks for replicas.
    public let lag: Int
    /// With the lag that did not move: what counts for activation.
    public let lagAll: Int
    /// Those that were asked for, over all topics.
    public let partitions: Int
    /// Those whose `scaling` lag is above 0.
    public let partitionsWithLag: Int

    public init(lag: Int, lagAll: Int, partitions: Int, partitionsWithLag: Int) {
        self.lag = lag
        self.lagAll = lagAll
        self.partitions = partitions
        self.partitionsWithLag = partitionsWithLag
    }

    /// `lagAll > activationLagThreshold`, strictly.
    public func isActive(_ settings: LagSettings) -> Bool { lagAll > settings.activationThreshold }
}

/// Adds up the lag of a group, poll by poll, and remembers what was committed at the last one.
///
/// - Complexity: O(partitions) a poll; remembers a number for each partition ever seen, and only with `excludePersistentLag`.
public struct LagMeter: Sendable {
    /// A poll that says nothing: of which partition there was no answer.
    public struct Failure: Error, Equatable, CustomStringConvertible {
        public let topic: String
        public let partition: Int32
        public let description: String
    }

    private struct Place: Hashable {
        let topic: String
        let partition: Int32
    }

    public let settings: LagSettings
    private var previous: [Place: Int] = [:]

    public init(_ settings: LagSettings) { self.settings = settings }

    /// One poll. Offsets of other topics or partitions than the settings name are left out. When one has no answer the whole poll fails and
    /// nothing is remembered of it.
    public mutating func poll(_ offsets: [PartitionOffsets]) throws(Failure) -> LagReading {
        var lag = 0, lagAll = 0, count = 0, behind = 0
        var seen: [Place: Int] = [:]
        for one in offsets where isAsked(one) {
            let place = Place(topic: one.topic, partition: one.partition)
            let committed = try committed(one)
            let of = PartitionLag(committed: committed, latest: one.latest, previous: previous[place], settings)
            if settings.excludesPersistentLag, let committed, one.latest != nil { seen[place] = committed }
            lag = OffsetArithmetic.sum(lag, of.scaling)
            lagAll = OffsetArithmetic.sum(lagAll, of.all)
            count += 1
            if of.scaling > 0 { behind += 1 }
        }
        previous.merge(seen) { _, new in new }
        return LagReading(lag: lag, lagAll: lagAll, partitions: count, partitionsWithLag: behind)
    }

    private func isAsked(_ one: PartitionOffsets) -> Bool {
        if let topic = settings.topic, topic != one.topic { return false }
        return settings.partitions?.contains(one.partition) ?? true
    }

    private func committed(_ one: PartitionOffsets) throws(Failure) -> Int? {
        switch one.committed {
        case .none: return nil
        case .offset(let offset): return offset < 0 ? nil : offset
        case .failed(let why):
            throw Failure(
                topic: one.topic, partition: one.partition,
                description:
                    "no committed offset of partition \(one.partition) of \(one.topic): \(why); nothing is decided on the other "
                    + "partitions alone"
            )
        }
    }
}
