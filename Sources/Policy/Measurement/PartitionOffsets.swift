import Basics

/// The position of a consumer group in one partition of a topic.
public struct PartitionOffsets: Sendable, Hashable {
    public let topic: String
    public let partition: Int
    /// The offset that the group has committed; nil when the group has none (an exporter's -1), or the source does not say.
    public var committed: Int?
    /// The offset behind the last message; nil when the source does not say.
    public var latest: Int?
    /// The lag as the source itself gives it; nil when the source does not say.
    public var told: Int?

    /// A partition of which nothing is known yet.
    public init(topic: String, partition: Int, committed: Int? = nil, latest: Int? = nil, told: Int? = nil) {
        self.topic = topic
        self.partition = partition
        self.committed = committed
        self.latest = latest
        self.told = told
    }

    /// How many messages the group has before it: from the offsets where both are known, else as the source gave it; nil when neither is
    /// known. An offset that was committed above the latest one (they are not read at the same moment) is no lag.
    public var lag: Int? {
        if let committed, let latest { return max(0, latest.subtractingClamped(committed)) }
        return told
    }
}
