import Basics
import Measurement
import Observability

/// Reads how far a Kafka consumer group is behind, partition by partition, from the metrics page of an exporter.
///
/// This asks an exporter, not Kafka: the figure is as old as the exporter's own round, and no exporter tells how old that is. A client that
/// asks the brokers follows with the house's Kafka client; it will give the same `PartitionOffsets`.
public struct LagMeter: Sendable, CustomStringConvertible {
    /// The names of an exporter's metrics and labels.
    public struct Names: Sendable, Equatable {
        /// The group's lag, by partition.
        public let lag: String
        /// The group's committed offset; nil when the exporter has none.
        public let committed: String?
        /// The partition's newest offset; nil when the exporter has none.
        public let latest: String?
        /// The labels of group, topic and partition.
        public let group: String, topic: String, partition: String

        /// Names of an exporter of one's own.
        public init(lag: String, committed: String?, latest: String?, group: String, topic: String, partition: String) {
            self.lag = lag
            self.committed = committed
            self.latest = latest
            self.group = group
            self.topic = topic
            self.partition = partition
        }

        /// danielqsj/kafka_exporter, as its README lists them.
        public static let kafkaExporter = Names(
            lag: "kafka_consumergroup_lag", committed: "kafka_consumergroup_current_offset", latest: "kafka_topic_partition_current_offset",
            group: "consumergroup", topic: "topic", partition: "partition")
        /// redpanda-data/kminion, as its documentation lists them.
        public static let kminion = Names(
            lag: "kminion_kafka_consumer_group_topic_partition_lag", committed: nil,
            latest: "kminion_kafka_topic_partition_high_water_mark",
            group: "group_id", topic: "topic_name", partition: "partition_id")
    }

    private let source: PageSource
    private let names: Names
    private let group: String
    private let topic: String
    private let selectors: [SampleSelector]

    /// Throws when the format does not allow one of the names.
    public init(_ source: PageSource, group: String, topic: String, names: Names = .kafkaExporter) throws(SampleSelector.Failure) {
        self.source = source
        self.names = names
        self.group = group
        self.topic = topic
        let ofTopic = "\(names.topic)=\"\(LagMeter.escaped(topic))\"", ofGroup = "\(names.group)=\"\(LagMeter.escaped(group))\""
        var selectors = [try SampleSelector("\(names.lag){\(ofGroup),\(ofTopic)}")]
        if let committed = names.committed { selectors.append(try SampleSelector("\(committed){\(ofGroup),\(ofTopic)}")) }
        if let latest = names.latest { selectors.append(try SampleSelector("\(latest){\(ofTopic)}")) }
        self.selectors = selectors
    }

    /// The page, the group and the topic.
    public var description: String { "\(source) group \(group) topic \(topic)" }

    private static func escaped(_ text: String) -> String {
        var out = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\\", "\"": out += "\\\(scalar)"
            case "\n": out += "\\n"
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out
    }

    /// Asks for the page once. Returns the sum of the lags, with all partitions. Partitions whose lag nobody knows (the group has committed
    /// nothing there) add nothing, are noted, and make the figure partial; when no partition's lag is known, that is a fault.
    public func read() async -> Result<MeterFigure, MeterFault> {
        switch await source.fetch(selectors, keepsSamples: true) {
        case .failure(let fault): return .failure(fault)
        case .success(let found):
            for (place, selector) in selectors.enumerated() {
                if let fault = found.staleness(place, called: selector.description) { return .failure(fault) }
            }
            return figure(found.samples, found.at)
        }
    }

    private func figure(_ samples: [(place: Int, sample: ExpositionSample)], _ at: MonotonicTime) -> Result<MeterFigure, MeterFault> {
        var partitions: [Int: PartitionOffsets] = [:]
        var seen: [String: Set<Int>] = [:]
        for (place, sample) in samples {
            let selector = selectors[place]
            guard let number = sample[names.partition].flatMap({ Int($0) }), number >= 0 else {
                return .failure(MeterFault(.malformed, "\(source): a sample of \(selector) has no number in its label \(names.partition)"))
            }
            // One of them would stand for both, and the other's lag for nobody's.
            guard seen[selector.name, default: []].insert(number).inserted else {
                return .failure(
                    MeterFault(
                        .malformed,
                        "\(source): \(selector) has more than one sample of partition \(number): they differ in another label, and no figure "
                            + "is made of two groups' offsets; name a page with one of them"))
            }
            // Exporters write -1 where there is no offset.
            let isUnknown = sample.value == -1
            if !isUnknown, let fault = Plausibility.fault(sample.value, called: "\(selector), partition \(number)") {
                return .failure(fault)
            }
            let value = isUnknown ? nil : Int(clamped: sample.value)
            var entry = partitions[number] ?? PartitionOffsets(topic: topic, partition: number)
            switch selector.name {
            case names.lag: entry.told = value
            case names.committed: entry.committed = value
            default: entry.latest = value
            }
            partitions[number] = entry
        }
        let all = partitions.values.sorted { $0.partition < $1.partition }
        let known = all.compactMap(\.lag)
        guard !known.isEmpty else { return .failure(MeterFault(.absent, "\(source) knows no lag of group '\(group)' in topic '\(topic)'")) }
        let note = known.count == all.count ? "" : "of \(all.count) partitions, the lag of \(all.count - known.count) is not known"
        // Sums of at most 10,000 values below 2^53 stay far below 2^63... and are checked once more as one figure.
        let sum = known.reduce(0.0) { $0 + Double($1) }
        if let fault = Plausibility.fault(sum, called: "the lag of group '\(group)' in topic '\(topic)'") { return .failure(fault) }
        return .success(MeterFigure(sum, .count, takenAt: at, note: note, isPartial: known.count < all.count, partitions: all))
    }
}
