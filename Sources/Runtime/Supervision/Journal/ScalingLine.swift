import Autoscaling
import Basics
import JSONCoding
import Observability

/// A line of `journal/scaling.jsonl`: one pass of a service's autoscaler, with what the pass has added to what the autoscaler remembers; a
/// size that somebody has set; or the end of a stack that was asked to stop, after which everything begins anew.
struct ScalingLine: Sendable {
    enum Event: Sendable {
        case pass(ScalingTimeline.Point, metrics: [String], learned: ScalingLearned)
        case size(Int)
        case ended
    }

    let stamp: LineStamp
    /// Empty at the end of a stack.
    let service: String
    /// The size at which somebody holds the service.
    let held: Int?
    let event: Event

    var bytes: [UInt8] {
        var json = JournalLine.begin(stamp, 256)
        json.member("service", service)
        if let held { json.member("held", held) }
        switch event {
        case .ended: json.member("ended", true)
        case .size(let size): json.member("size", size)
        case .pass(let point, let metrics, let learned):
            json.member("at", CalendarTime.render(point.at))
            json.member("replicas", point.replicas)
            json.member("serving", point.serving)
            if let raw = point.raw { json.member("raw", raw) }
            json.member("size", point.outcome)
            json.member("metrics", metrics)
            ScalingLine.write("measured", point.measured, &json)
            ScalingLine.write("demand_milli", point.demand, &json)
            ScalingLine.write("wanted", learned.wanted, &json)
            if learned.added > 0 { json.member("added", learned.added) }
            if learned.removed > 0 { json.member("removed", learned.removed) }
        }
        json.endObject()
        return json.bytes + [10]
    }

    private static func write(_ key: String, _ figures: [Int?], _ json: inout JSONWriter) {
        json.key(key)
        json.beginArray()
        for figure in figures { if let figure { json.int(figure) } else { json.null() } }
        json.endArray()
    }

    /// The size that the line leaves its service with; nil: it is the end of the stack.
    var size: Int? {
        switch event {
        case .ended: nil
        case .size(let size): size
        case .pass(let point, _, _): point.outcome
        }
    }

    // MARK: reading

    /// The most replicas that a line is believed to speak of, and figures or recommendations that it has. What is wanted before any bound is
    /// applied to it goes up to `Int32.max`, as the autoscaler's arithmetic does.
    private static let mostReplicas = 1_000_000, mostWanted = Int(Int32.max), mostFigures = 1000

    /// nil: the line is damaged, of another version, or has a number that cannot be.
    init?(_ line: ArraySlice<UInt8>, _ document: JSONDocument) {
        guard line.count <= JournalLine.longest * 2,
            let one = (try? document.parse(Array(line), ScalingLine.read)) ?? nil
        else { return nil }
        self = one
    }

    init(stamp: LineStamp = LineStamp(), service: String, held: Int?, _ event: Event) {
        self.stamp = stamp
        self.service = service
        self.held = held
        self.event = event
    }

    private struct Damage: Error {}

    private static func read(_ root: JSONElement) throws -> ScalingLine? {
        guard let (version, stamp) = JournalLine.header(root), version == JournalLine.version, let service = root["service"]?.string else {
            return nil
        }
        if root["ended"]?.bool == true { return ScalingLine(stamp: stamp, service: "", held: nil, .ended) }
        guard !service.isEmpty, let size = try count(root["size"]) else { return nil }
        let held = try count(root["held"])
        guard let text = root["at"]?.string else { return ScalingLine(stamp: stamp, service: service, held: held, .size(size)) }
        guard let at = try? CalendarTime.parse(text), let replicas = try count(root["replicas"]), let serving = try count(root["serving"])
        else { return nil }
        let metrics = (root["metrics"]?.array ?? []).compactMap(\.string)
        let learned = ScalingLearned(
            wanted: try figures(root["wanted"]).compactMap { $0 }, added: try count(root["added"]) ?? 0,
            removed: try count(root["removed"]) ?? 0)
        guard learned.wanted.allSatisfy({ (0...mostWanted).contains($0) }) else { return nil }
        let point = ScalingTimeline.Point(
            at: at, replicas: replicas, serving: serving, raw: try count(root["raw"], most: mostWanted), outcome: size,
            measured: try figures(root["measured"]),
            demand: try figures(root["demand_milli"]))
        return ScalingLine(stamp: stamp, service: service, held: held, .pass(point, metrics: metrics, learned: learned))
    }

    /// nil: not given.
    private static func count(_ element: JSONElement?, most: Int = mostReplicas) throws -> Int? {
        guard let element else { return nil }
        guard let value = element.int, (0...most).contains(value) else { throw Damage() }
        return value
    }

    private static func figures(_ element: JSONElement?) throws -> [Int?] {
        let list = element?.array ?? []
        guard list.count <= mostFigures else { throw Damage() }
        return try list.map { one in
            if one.isNull { return nil }
            guard let value = one.int else { throw Damage() }
            return value
        }
    }
}

/// What one pass has added to what an autoscaler remembers: sizes that were wanted (for its windows), and replicas that came or went by its
/// decision (for its pace).
struct ScalingLearned: Equatable, Sendable {
    var wanted: [Int] = []
    var added = 0
    var removed = 0
}
