/// How the lag of a Kafka consumer group becomes a number of replicas: KEDA's trigger metadata, checked once.
///
/// Names and defaults are those of kedacore/keda, `kafka_scaler.go`; `strict` is ours.
public struct LagSettings: Sendable, Equatable {
    /// Where a consumer begins that has committed nothing.
    public enum ResetPolicy: String, Sendable, CaseIterable { case latest, earliest }

    /// A setting that cannot be: which, and what to do.
    public struct Refusal: Error, Equatable, CustomStringConvertible {
        /// As KEDA calls it.
        public let setting: String
        public let description: String

        init(_ setting: String, _ what: String) {
            self.setting = setting
            description = "\(setting): \(what)"
        }
    }

    /// lagThreshold: as much lag as one replica is for. Above 0; 10.
    public let threshold: Int
    /// activationLagThreshold: with more lag than this (`>`) the service is active. From 0 on; 0.
    public let activationThreshold: Int
    /// offsetResetPolicy; latest.
    public let resetPolicy: ResetPolicy
    /// allowIdleConsumers: there may be more replicas than partitions.
    public let allowsIdleConsumers: Bool
    /// limitToPartitionsWithLag: no more replicas than partitions that have lag.
    public let limitsToPartitionsWithLag: Bool
    /// ensureEvenDistributionOfPartitions: only as many replicas as divide the partitions evenly.
    public let ensuresEvenDistribution: Bool
    /// excludePersistentLag: a partition whose committed offset did not move since the last poll does not ask for replicas.
    public let excludesPersistentLag: Bool
    /// scaleToZeroOnInvalidOffset: a partition without a committed offset has no lag.
    public let scalesToZeroOnInvalidOffset: Bool
    /// Nil: all topics for which the group has committed offsets.
    public let topic: String?
    /// partitionLimitation: only these; nil, all. Nil without a topic.
    public let partitions: PartitionSet?
    /// Never more replicas than partitions: KEDA's own cap lets one more through. See `LagReplicas`.
    public let strict: Bool

    /// An empty topic is none. Throws what is out of range, and settings that contradict each other.
    public init(
        threshold: Int = 10, activationThreshold: Int = 0, resetPolicy: ResetPolicy = .latest, allowsIdleConsumers: Bool = false,
        limitsToPartitionsWithLag: Bool = false, ensuresEvenDistribution: Bool = false, excludesPersistentLag: Bool = false,
        scalesToZeroOnInvalidOffset: Bool = false, topic: String? = nil, partitions: PartitionSet? = nil, strict: Bool = false
    ) throws(Refusal) {
        guard threshold > 0 else {
            throw Refusal("lagThreshold", "it is \(threshold), and must be above 0: it is the lag that one replica is for")
        }
        guard activationThreshold >= 0 else {
            throw Refusal("activationLagThreshold", "it is \(activationThreshold), and must be 0 or more")
        }
        let topic = topic?.isEmpty == true ? nil : topic
        if limitsToPartitionsWithLag {
            if allowsIdleConsumers {
                throw Refusal(
                    "limitToPartitionsWithLag",
                    "it caps at the partitions with lag, and allowIdleConsumers takes every cap away: set one of the two")
            }
            if ensuresEvenDistribution {
                throw Refusal("limitToPartitionsWithLag", "it caps where ensureEvenDistributionOfPartitions rounds up: set one of the two")
            }
            if topic == nil { throw Refusal("limitToPartitionsWithLag", "it needs a topic: name one") }
        }
        if ensuresEvenDistribution, topic == nil { throw Refusal("ensureEvenDistributionOfPartitions", "it needs a topic: name one") }
        if strict, allowsIdleConsumers {
            throw Refusal("allowIdleConsumers", "it wants more replicas than partitions, and strict forbids that: set one of the two")
        }
        self.threshold = threshold
        self.activationThreshold = activationThreshold
        self.resetPolicy = resetPolicy
        self.allowsIdleConsumers = allowsIdleConsumers
        self.limitsToPartitionsWithLag = limitsToPartitionsWithLag
        self.ensuresEvenDistribution = ensuresEvenDistribution
        self.excludesPersistentLag = excludesPersistentLag
        self.scalesToZeroOnInvalidOffset = scalesToZeroOnInvalidOffset
        self.topic = topic
        self.partitions = topic == nil ? nil : partitions
        self.strict = strict
    }

    /// Whether a cap applies at all.
    public var isCapped: Bool { !allowsIdleConsumers || limitsToPartitionsWithLag || ensuresEvenDistribution }
}
