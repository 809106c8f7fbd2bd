import Basics
import JSONCoding
import Observability
import Rightsizing
import StackModel

/// What the services of a stack should be given, as JSON: for `muster why --resources`.
enum ResourcesJSON {
    /// Nothing is recommended before a service was watched for an hour: percentiles of a few minutes are those of its start. Ours.
    static let leastHistory = Duration.seconds(3600)

    static var settings: RecommenderSettings {
        var settings = RecommenderSettings()
        settings.leastHistory = leastHistory
        return settings
    }

    /// Of each service in the order of the stack file, or of one: what is declared, how much is known, and of each resource the figures
    /// with their decision. `target`, `lower` and `upper` are null until enough is known.
    static func write(_ services: [ServiceSpec], only name: String?, _ recorder: ResourceRecorder, now: WallTime) -> [UInt8] {
        var json = JSONWriter(reserving: 4096)
        json.beginArray()
        for service in services where name == nil || service.name == name {
            guard let usage = recorder.whole(of: service.name, wall: now) else { continue }
            write(service, usage, replicas: recorder.usage(of: service.name).count, &json)
        }
        json.endArray()
        return json.bytes
    }

    private static func write(_ service: ServiceSpec, _ usage: ContainerUsage, replicas: Int, _ json: inout JSONWriter) {
        let declared = OptionalResources(cpu: service.cpu, memory: service.memory)
        let decisions = Recommender(settings).recommend(usage, service: service.name, declared: declared)
        let confidence = decisions.first?.result.confidence ?? 0
        let history = History(confidence: confidence, interval: settings.interval, least: settings.leastHistory)
        json.beginObject()
        json.member("service", service.name)
        json.member("replicas_seen", replicas)
        json.member("samples", usage.samples)
        json.key("since")
        if let first = usage.first { json.string(CalendarTime.render(first)) } else { json.null() }
        json.member("confidence_days", confidence * settings.interval.secondsAsDouble / 86400)
        json.member("known_seconds", Int(history.known.nanoseconds / 1_000_000_000))
        json.member("missing_seconds", Int(history.missing.nanoseconds.addingClamped(999_999_999) / 1_000_000_000))
        json.key("resources")
        json.beginArray()
        for decision in decisions { write(decision, usage, declared, isEnough: history.isEnough, &json) }
        json.endArray()
        json.endObject()
    }

    /// Milli-cores or bytes.
    private static func write(
        _ decision: Decision<Recommendation>, _ usage: ContainerUsage, _ declared: OptionalResources, isEnough: Bool,
        _ json: inout JSONWriter
    ) {
        let result = decision.result, isCPU = result.resource == .cpu
        let histogram = isCPU ? usage.cpu : usage.memory, isKnown = isEnough && !histogram.isEmpty
        let used = Estimate(histogram, result.resource, RecommenderSettings.Percentiles())
        func figure(_ key: String, _ value: Int?) {
            json.key(key)
            if let value { json.int(value) } else { json.null() }
        }
        json.beginObject()
        json.member("resource", result.resource.rawValue)
        json.member("unit", isCPU ? "millicores" : "bytes")
        figure("declared", declared[result.resource])
        figure("used_p50", histogram.isEmpty ? nil : used.lower)
        figure("used_p90", histogram.isEmpty ? nil : used.target)
        figure("used_p95", histogram.isEmpty ? nil : used.upper)
        figure("target", isKnown ? result.target : nil)
        figure("lower", isKnown ? result.lower : nil)
        // Without an end while hardly anything is known.
        figure("upper", isKnown && result.upper < Amount.most ? result.upper : nil)
        json.member("advice", isKnown ? result.advice(declared: declared[result.resource]).rawValue : "wait")
        json.key("decision")
        Journal.write(decision.record, at: nil, to: &json)
        json.endObject()
    }
}
