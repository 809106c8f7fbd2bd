import Basics
import JSONCoding

/// A replay for programs. Times are RFC 3339, loads and shares from 0 up; a load with nobody ready is null beside `ready` 0.
public enum ReplayJSON {
    /// Writes one service's object.
    public static func write(_ section: ReplaySection, to json: inout JSONWriter) {
        let picture = section.picture, trace = picture.trace
        json.beginObject()
        json.member("service", trace.service)
        json.member("from", CalendarTime.render(trace.start))
        json.member("to", CalendarTime.render(trace.time(of: trace.count)))
        json.member("steps", trace.count)
        json.member("step_s", trace.step.secondsAsDouble)
        json.key("metrics")
        json.beginArray()
        for one in trace.series {
            json.beginObject()
            json.member("name", one.metric)
            json.member("demand", one.origin)
            json.member("mean", one.mean)
            json.member("peak", one.peak)
            json.member("unknown_steps", one.unknown)
            json.endObject()
        }
        json.endArray()
        json.member("notes", section.notes + trace.notes)
        json.key("policies")
        json.beginArray()
        for run in picture.runs { write(run, to: &json) }
        json.endArray()
        if let comparison = section.comparison {
            json.key("comparison")
            write(comparison, picture, to: &json)
        }
        json.endObject()
    }

    private static func write(_ run: ReplayPicture.Run, to json: inout JSONWriter) {
        let one = run.outcome
        json.beginObject()
        json.member("policy", one.policy)
        json.member("replica_hours", one.replicaHours)
        json.member("overload_minutes", one.overloadMinutes)
        json.member("overload_share", one.overloadShare)
        json.member("unknown_minutes", one.unknownMinutes)
        json.key("worst_minute")
        if let worst = one.worst {
            json.beginObject()
            json.member("at", CalendarTime.render(worst.at))
            json.member("load", worst.load)
            json.member("replicas", worst.size)
            json.member("ready", worst.ready)
            json.endObject()
        } else {
            json.null()
        }
        json.member("scalings", one.scalings.count)
        json.member("ups", one.ups)
        json.member("downs", one.downs)
        json.member("flaps", one.flaps)
        json.member("least_replicas", Int(one.sizes.min() ?? 0))
        json.member("most_replicas", one.peak)
        json.member("mean_replicas", one.meanSize)
        json.key("capacity")
        json.beginObject()
        for (name, value) in run.model.capacity.sorted(by: { $0.key < $1.key }) { json.member(name, value) }
        json.endObject()
        writeCauses(one, to: &json)
        json.endObject()
    }

    private static func writeCauses(_ one: ReplayOutcome, to json: inout JSONWriter) {
        json.key("held")
        json.beginArray()
        for holding in one.holdings {
            json.beginObject()
            json.member("constraint", holding.cause.rawValue)
            json.member("kept_replica_hours", holding.kept)
            json.member("withheld_replica_hours", holding.withheld)
            json.endObject()
        }
        json.endArray()
        json.key("overload_causes")
        json.beginArray()
        for cause in one.overloadCauses {
            json.beginObject()
            json.member("cause", cause.cause.name)
            json.member("minutes", cause.minutes)
            json.endObject()
        }
        json.endArray()
    }

    private static func write(_ comparison: Comparison, _ picture: ReplayPicture, to json: inout JSONWriter) {
        func name(_ side: Comparison.Side) -> String? {
            switch side {
            case .first: picture.runs.first?.policy.name
            case .second: picture.runs.last?.policy.name
            case .neither: nil
            }
        }
        json.beginObject()
        for (key, side) in [("cheaper", comparison.cheaper), ("safer", comparison.safer)] {
            json.key(key)
            if let text = name(side) { json.string(text) } else { json.null() }
        }
        json.member("replica_hours", comparison.replicaHours)
        json.member("overload_minutes", comparison.overloadMinutes)
        json.member("sentence", comparison.sentence)
        json.member("difference", comparison.difference)
        json.endObject()
    }
}
