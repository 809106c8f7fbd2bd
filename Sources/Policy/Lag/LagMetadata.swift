/// KEDA's trigger metadata: keys and values are texts.
extension LagSettings {
    /// Reads those keys that say how lag is counted; others (brokers, certificates) are not ours and left alone.
    public init(metadata: [String: String]) throws(Refusal) {
        let limitation = metadata["topic"].map { !$0.isEmpty } == true ? metadata["partitionLimitation"] ?? "" : ""
        try self.init(
            threshold: LagSettings.number(metadata, "lagThreshold", default: 10),
            activationThreshold: LagSettings.number(metadata, "activationLagThreshold", default: 0),
            resetPolicy: LagSettings.policy(metadata["offsetResetPolicy"]),
            allowsIdleConsumers: LagSettings.flag(metadata, "allowIdleConsumers"),
            limitsToPartitionsWithLag: LagSettings.flag(metadata, "limitToPartitionsWithLag"),
            ensuresEvenDistribution: LagSettings.flag(metadata, "ensureEvenDistributionOfPartitions"),
            excludesPersistentLag: LagSettings.flag(metadata, "excludePersistentLag"),
            scalesToZeroOnInvalidOffset: LagSettings.flag(metadata, "scaleToZeroOnInvalidOffset"),
            topic: metadata["topic"], partitions: PartitionSet.read(limitation), strict: LagSettings.flag(metadata, "strict"))
    }

    private static func policy(_ text: String?) throws(Refusal) -> ResetPolicy {
        guard let text, !text.isEmpty else { return .latest }
        guard let policy = ResetPolicy(rawValue: text) else {
            throw Refusal("offsetResetPolicy", "'\(text)' is neither latest nor earliest")
        }
        return policy
    }

    private static func number(_ metadata: [String: String], _ key: String, default usual: Int) throws(Refusal) -> Int {
        guard let text = metadata[key], !text.isEmpty else { return usual }
        guard let value = Int(text) else { throw Refusal(key, "'\(text)' is no whole number") }
        return value
    }

    /// What Go's `strconv.ParseBool` takes.
    private static func flag(_ metadata: [String: String], _ key: String) throws(Refusal) -> Bool {
        switch metadata[key] ?? "" {
        case "": false
        case "1", "t", "T", "true", "TRUE", "True": true
        case "0", "f", "F", "false", "FALSE", "False": false
        default: throw Refusal(key, "'\(metadata[key] ?? "")' is neither true nor false")
        }
    }
}
