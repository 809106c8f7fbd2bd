import Basics

/// Where a consumer group stands in one partition of a topic.
public struct PartitionOffsets: Sendable, Hashable {
    public let topic: String
    public let partition: Int
    /// The offset that the group has committed; nil when it has none (an exporter's -1) or nobody said.
    public var committed: Int?
    /// The offset behind the last message; nil when nobody said.
    public var latest: Int?
    /// How far the group is behind, as it was told; nil when nobody said.
    public var told: Int?

    /// A partition of which nothing is known yet.
    public init(topic: String, partition: Int, committed: Int? = nil, latest: Int? = nil, told: Int? = nil) {
        self.topic = topic
        self.partition = partition
        self.committed = committed
        self.latest = latest
        self.told = told
    }

    /// How many messages the group has before it: from the offsets where both are known, else as told; nil when neither. An offset that was
    /// committed above the latest one (they are not read at the same moment) is no lag.
    public var lag: Int? {
        if let committed, let latest { return max(0, latest.subtractingClamped(committed)) }
        return told
    }
}
