import Autoscaling
import Basics
import JSONCoding
import Observability
import StackModel

/// What the autoscalers stand at and have seen, as JSON: for `muster why`, the dashboard, and the recording of a replay.
enum ScalingJSON {
    static func write(_ standings: [(name: String, scaler: ServiceScaler)], only service: String?, points: Int, _ runner: StackRunner)
        -> [UInt8]
    {
        var json = JSONWriter(reserving: 16_384)
        json.beginArray()
        for (name, scaler) in standings where service == nil || service == name {
            json.beginObject()
            json.member("service", name)
            json.member("replicas", runner.serviceMachine(name)?.desired ?? 0)
            json.member("minimum", scaler.scaling.policy.minimum)
            json.member("maximum", scaler.scaling.policy.maximum)
            json.key("held")
            if let held = scaler.ownership.held { json.int(held) } else { json.null() }
            json.member("period_ms", Int(scaler.scaling.period.nanoseconds / 1_000_000))
            metrics(scaler, &json)
            json.key("standing")
            if let standing = scaler.standing { Journal.write(standing, at: nil, to: &json) } else { json.null() }
            timeline(scaler.timeline.latest(max(0, points)), &json)
            json.endObject()
        }
        json.endArray()
        return json.bytes
    }

    private static func metrics(_ scaler: ServiceScaler, _ json: inout JSONWriter) {
        json.key("metrics")
        json.beginArray()
        for (metric, name) in zip(scaler.scaling.policy.metrics, ScalingReadings.names(scaler.scaling)) {
            json.beginObject()
            json.member("name", name)
            switch metric.target {
            case .utilization(let percent):
                json.member("kind", "utilization")
                json.member("target", percent)
            case .average(let each):
                json.member("kind", "average")
                json.member("target_milli", each)
            case .value(let all):
                json.member("kind", "value")
                json.member("target_milli", all)
            }
            json.endObject()
        }
        json.endArray()
    }

    static func timeline(_ points: [ScalingTimeline.Point], _ json: inout JSONWriter) {
        json.key("timeline")
        json.beginArray()
        for point in points {
            json.beginObject()
            json.member("at", CalendarTime.render(point.at))
            json.member("replicas", point.replicas)
            json.member("serving", point.serving)
            json.key("raw")
            if let raw = point.raw { json.int(raw) } else { json.null() }
            json.member("outcome", point.outcome)
            // Percent for a share, else thousandths.
            figures("measured", point.measured, &json)
            // Of all replicas together, in thousandths.
            figures("demand_milli", point.demand, &json)
            json.endObject()
        }
        json.endArray()
    }

    private static func figures(_ key: String, _ list: [Int?], _ json: inout JSONWriter) {
        json.key(key)
        json.beginArray()
        for figure in list { if let figure { json.int(figure) } else { json.null() } }
        json.endArray()
    }
}
