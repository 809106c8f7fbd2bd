import Basics
import Lag
import TestSupport
import Testing

/// The cases of kedacore/keda's own tests, re-expressed: `MUSTER_KEDA_CASES` names a file of more.
@Suite struct KEDAConformance {
    static let loaded = Result { try ConformanceCase.load("MUSTER_KEDA_CASES", copy: "keda-cases.json") }
    static let cases = (try? loaded.get()) ?? []

    @Test func thereAreCases() throws { #expect(try Self.loaded.get().count > 0) }

    @Test(arguments: cases) func conforms(_ item: ConformanceCase) {
        for fault in item.faults(Self.answers) { Issue.record("\(item.name): \(fault)") }
    }

    @Test func whatIsNotUnderstoodFails() {
        func faults(_ kind: String, _ expect: [String: JSONValue]) -> [String] {
            ConformanceCase(.object(["kind": .string(kind), "input": .object(["n": .int(4)]), "expect": .object(expect)])).faults(
                Self.answers)
        }
        #expect(faults("divisors", ["divisors": .array([.int(1), .int(2), .int(4)])]) == [])
        #expect(faults("divisors", ["divisors": .array([.int(1), .int(4)])]) != [])
        #expect(faults("divisors", ["primes": .array([])]) != [])
        #expect(faults("factors-of", ["divisors": .array([])]) != [])
    }

    static func answers(_ item: ConformanceCase) throws -> [String: CaseAnswer] {
        let input = item.input
        switch item.kind.hasPrefix("kafka-") ? String(item.kind.dropFirst(6)) : item.kind {
        case "even-factor":
            let threshold = try input.int("lag_threshold", or: 10)
            let factor = Divisors.even(lag: try input.int("lag"), partitions: try input.int("partitions"), threshold: threshold)
            return ["factor": .int(factor), "lag": .int(factor * threshold)]
        case "divisors", "factors":
            return ["divisors": ints(Divisors.of(try input.int("n"))), "factors": ints(Divisors.of(try input.int("n")))]
        case "partition-lag": return try partitionLag(input)
        case "total-lag", "lag", "metric", "total", "replicas", "scale", "activity", "is-active": return try total(input)
        case "settings", "metadata", "parse", "parse-metadata": return try settings(input)
        case "partition-limitation", "partitions", "topic-partitions": return try limitation(input)
        case "activation", "activate", "executor", "scale-executor", "cooldown", "request-scale": return try ActivationCase.answers(input)
        default: throw CaseFault("the kind '\(item.kind)' is not known")
        }
    }

    private static func ints(_ values: [Int]) -> CaseAnswer { .value(.array(values.map { .int($0) })) }

    /// Every setting, in snake_case, in KEDA's own spelling, or under `settings` or `metadata`.
    static func readSettings(_ input: JSONValue, needsTopic: Bool = false) throws -> LagSettings {
        let names = [
            "lagThreshold": "lag_threshold", "activationLagThreshold": "activation_lag_threshold",
            "offsetResetPolicy": "offset_reset_policy",
            "allowIdleConsumers": "allow_idle_consumers", "limitToPartitionsWithLag": "limit_to_partitions_with_lag",
            "ensureEvenDistributionOfPartitions": "ensure_even_distribution_of_partitions",
            "excludePersistentLag": "exclude_persistent_lag",
            "scaleToZeroOnInvalidOffset": "scale_to_zero_on_invalid_offset", "topic": "topic",
            "partitionLimitation": "partition_limitation", "strict": "strict",
        ]
        let source = input.first("settings", "metadata") ?? input
        var metadata: [String: String] = [:]
        for (name, snake) in names {
            guard let value = source.first(snake, name) else { continue }
            metadata[name] = value.string ?? value.description
        }
        if let short = source.first("ensure_even_distribution", "ensureEvenDistribution") {
            metadata["ensureEvenDistributionOfPartitions"] = short.string ?? short.description
        }
        // Arithmetic is asked about without a topic where it does not matter which.
        if needsTopic, source.first("topic") == nil, source.members["topic"] == nil { metadata["topic"] = "topic" }
        return try LagSettings(metadata: metadata)
    }

    static func offsets(_ value: JSONValue, topic: String, partition: Int32) throws -> PartitionOffsets {
        let committed: PartitionOffsets.Committed
        if value.first("block_missing", "missing_block")?.bool == true {
            committed = .failed("no block")
        } else if let error = value.first("block_error", "error"), error != .bool(false), error != .int(0) {
            committed = .failed(error.description)
        } else if let offset = value.first("committed", "consumer_offset", "offset")?.int, offset >= 0 {
            committed = .offset(offset)
        } else {
            committed = .none
        }
        return PartitionOffsets(
            topic: topic, partition: partition, committed: committed, latest: value.first("latest", "latest_offset")?.int)
    }

    private static func partitionLag(_ input: JSONValue) throws -> [String: CaseAnswer] {
        let settings = try readSettings(input, needsTopic: true)
        let previous = input.first("previous", "previous_committed", "previous_offset")?.int
        let one = try offsets(input, topic: settings.topic ?? "topic", partition: 0)
        var meter = LagMeter(settings)
        if let previous { _ = try meter.poll([PartitionOffsets(topic: one.topic, partition: 0, committed: previous, latest: previous)]) }
        let reading = try meter.poll([one])
        return ["lag": .int(reading.lag), "lag_with_persistent": .int(reading.lagAll), "lag_all": .int(reading.lagAll)]
    }

    /// `partitions`: a number, with `lag` (and `partitions_with_lag`); a list of offsets; or topics to such lists. `polls`: such lists in
    /// turn.
    private static func total(_ input: JSONValue) throws -> [String: CaseAnswer] {
        let settings = try readSettings(input, needsTopic: true)
        let reading: LagReading
        if let lag = input.first("lag")?.int {
            let partitions = try input.int("partitions")
            reading = LagReading(
                lag: lag, lagAll: try input.int("lag_with_persistent", "lag_all", or: lag), partitions: partitions,
                partitionsWithLag: try input.int("partitions_with_lag", or: lag > 0 ? partitions : 0))
        } else {
            var meter = LagMeter(settings)
            var last: LagReading?
            for poll in try input.first("polls")?.items ?? [input.needed("topics", "partitions")] {
                last = try read(poll, settings, &meter)
            }
            guard let last else { throw CaseFault("no poll") }
            reading = last
        }
        let metric = LagMetric.report(reading, settings, subject: "group").result
        let status = try input.int("status_replicas", "replicas", "current_replicas", or: 0)
        let replicas = LagReplicas.decide(
            reading, settings, status: status, tolerance: try input.number("tolerance", or: LagReplicas.tolerance), subject: "group")
        return [
            "lag": .int(metric), "metric": .int(metric), "total_lag": .int(metric), "raw_lag": .int(reading.lag),
            "lag_with_persistent": .int(reading.lagAll),
            "lag_all": .int(reading.lagAll), "total_lag_with_persistent": .int(reading.lagAll), "partitions": .int(reading.partitions),
            "partitions_with_lag": .int(reading.partitionsWithLag), "active": .bool(reading.isActive(settings)),
            "is_active": .bool(reading.isActive(settings)),
            "replicas": .int(replicas.result),
        ]
    }

    private static func read(_ poll: JSONValue, _ settings: LagSettings, _ meter: inout LagMeter) throws -> LagReading {
        let poll = poll.first("topics", "partitions") ?? poll
        let topics = poll.items.map { [settings.topic ?? "topic": JSONValue.array($0)] } ?? poll.members
        var now: [PartitionOffsets] = [], before: [PartitionOffsets] = []
        for (topic, partitions) in topics.sorted(by: { $0.key < $1.key }) {
            let numbered: [(Int, JSONValue)]
            if let list = partitions.items {
                numbered = try list.enumerated().map { (try $0.element.int("partition", or: $0.offset), $0.element) }
            } else {
                numbered = try partitions.numbered()
            }
            for (number, value) in numbered {
                let name = value.first("topic")?.string ?? topic
                now.append(try offsets(value, topic: name, partition: Int32(number)))
                if let previous = value.first("previous", "previous_committed", "previous_offset")?.int {
                    before.append(PartitionOffsets(topic: name, partition: Int32(number), committed: previous, latest: previous))
                }
            }
        }
        if !before.isEmpty { _ = try meter.poll(before) }
        return try meter.poll(now)
    }

    private static func settings(_ input: JSONValue) throws -> [String: CaseAnswer] {
        let settings = try readSettings(input)
        let topic = CaseAnswer.value(settings.topic.map { .string($0) } ?? .null)
        return [
            "lag_threshold": .int(settings.threshold), "activation_lag_threshold": .int(settings.activationThreshold),
            "offset_reset_policy": .value(.string(settings.resetPolicy.rawValue)),
            "allow_idle_consumers": .bool(settings.allowsIdleConsumers),
            "limit_to_partitions_with_lag": .bool(settings.limitsToPartitionsWithLag),
            "ensure_even_distribution_of_partitions": .bool(settings.ensuresEvenDistribution),
            "exclude_persistent_lag": .bool(settings.excludesPersistentLag),
            "scale_to_zero_on_invalid_offset": .bool(settings.scalesToZeroOnInvalidOffset),
            "topic": topic, "partition_limitation": list(settings.partitions), "partitions": list(settings.partitions),
            "valid": .bool(true), "ok": .bool(true),
        ]
    }

    private static func list(_ partitions: PartitionSet?) -> CaseAnswer {
        .query { wanted, _ in
            let all = partitions.map { $0.ranges.flatMap { $0.prefix(10_000).map { JSONValue.int(Int($0)) } } }
            if all == nil, wanted == .null || wanted == .array([]) { return [] }
            return .array(all ?? []) == wanted ? [] : ["it is \(JSONValue.array(all ?? [])), and \(wanted) is expected"]
        }
    }

    private static func limitation(_ input: JSONValue) throws -> [String: CaseAnswer] {
        let text = input.first("partition_limitation", "text", "limitation")?.string ?? ""
        let set = try PartitionSet.read(text)
        let present = input.first("partition_ids", "partitions", "ids")?.items?.compactMap(\.int)
        guard let present else { return ["partitions": list(set), "partition_limitation": list(set)] }
        return ["partitions": ints(present.filter { set?.contains(Int32($0)) ?? true })]
    }
}

/// One poll, or a list of them, of the machine between nothing and something.
enum ActivationCase {
    static func answers(_ input: JSONValue) throws -> [String: CaseAnswer] {
        let fallback = input.first("fallback").flatMap { $0.int ?? $0.first("replicas")?.int } ?? input.first("fallback_replicas")?.int
        let settings = try ActivationSettings(
            least: try input.int("min_replica_count", "min_replicas", or: 0),
            most: try input.int("max_replica_count", "max_replicas", or: 100),
            idle: input.first("idle_replica_count", "idle_replicas")?.int, fallback: fallback,
            cooldown: input.first("cooldown_period_s", "cooldown_period", "cooldown_s")?.duration ?? .seconds(300),
            initialCooldown: input.first("initial_cooldown_period_s", "initial_cooldown_period", "initial_cooldown_s")?.duration ?? .zero,
            polling: input.first("polling_interval_s", "polling_interval")?.duration ?? .seconds(30))
        let now = try input.number("now_s", or: 1_000_000)
        let created = try input.first("created_age_s")?.double.map { now - $0 } ?? input.number("created_s", or: 0)
        let last = input.first("last_active_s")?.double ?? input.first("last_active_age_s", "since_last_active_s")?.double.map { now - $0 }
        var machine = Activation(settings, subject: "service", created: time(created), lastActive: last.map(time))
        var replicas = try input.int("replicas", "current_replicas")
        var action = "none", seen: [JSONValue] = []
        for poll in input.first("polls")?.items ?? [input] {
            let at = try poll.number("at_s", "now_s", or: now)
            let isActive = try poll.first("active", "is_active")?.bool ?? isActive(poll, input)
            let failed = poll.first("error", "is_error", "failed")?.bool ?? false
            let decision = machine.polled(.init(isActive: isActive, hasFailed: failed), replicas: replicas, now: time(at))
            action = decision.map { $0.result > replicas ? "up" : "down" } ?? "none"
            replicas = decision?.result ?? replicas
            seen.append(.int(replicas))
        }
        return [
            "replicas": .int(replicas), "action": .value(.string(action)), "scaled": .bool(action != "none"),
            "changed": .bool(action != "none"),
            "replicas_after_each": .value(.array(seen)), "hpa_min_replicas": .int(settings.autoscalerLeast),
        ]
    }

    private static func isActive(_ poll: JSONValue, _ input: JSONValue) throws -> Bool {
        let lag = try poll.int("lag_with_persistent", "lag_all", "lag", or: 0)
        return lag > (try input.int("activation_lag_threshold", or: 0))
    }

    private static func time(_ seconds: Double) -> MonotonicTime { MonotonicTime(nanoseconds: Int64(seconds * 1e9)) }
}
