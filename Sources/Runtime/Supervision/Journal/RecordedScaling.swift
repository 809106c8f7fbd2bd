import Autoscaling
import Basics
import JSONCoding
import Observability

/// What a stack's autoscalers did, read from `journal/scaling.jsonl`, and the size of each service, read from `journal/sizes.jsonl`. Lines
/// that cannot be read are passed over and counted.
public struct RecordedScaling {
    /// One service since the stack was last begun, and the machine was last started: no clock tells how long ago it was before that.
    struct Past {
        /// The size that it was last given.
        var size: Int?
        /// The size at which somebody holds it.
        var held: Int?
        /// What its passes have added, with when.
        var learned: [(at: MonotonicTime, ScalingLearned)] = []
    }

    private struct Recording {
        var metrics: [String] = []
        var points: [ScalingTimeline.Point] = []
    }

    /// Of a stack that has not ended as it was asked to: how each service stood. Empty after `down`.
    private(set) var pasts: [String: Past] = [:]
    private var recordings: [String: Recording] = [:]
    /// The last end of a stack since the machine was started.
    private var endedAt: MonotonicTime?
    public private(set) var skipped = 0

    /// Reads at most the last `limit` bytes of each file. Throws when a file is there and cannot be read.
    public init(_ folder: StackFolder, limit: Int = 2 << 20) throws(SystemError) {
        let file = StackJournal.File.scaling, document = JSONDocument(), now = MonotonicTime.now
        // Across a gap, in which a stack may have ended, nothing goes on.
        let contents = try LineFile.read(file.path(in: folder), limit: limit, unbroken: true)
        let sizes = try LineFile.read("\(folder.journal)/\(StackJournal.File.sizes)", limit: RecordedScaling.sizesLimit)
        func each(_ contents: LineFile.Contents, _ body: (ScalingLine) -> Void) {
            contents.each { bytes, hasEnded in
                if let line = ScalingLine(bytes, document) { body(line) } else if hasEnded { skipped += 1 }
            }
        }
        each(contents) { take($0, now) }
        // Of a version that did not write it.
        guard sizes.isThere else { return }
        var known: [String: Past] = [:]
        each(sizes) { line in
            // An end that is later was written by a version that does not know this file.
            guard let size = line.size, line.stamp.age(now) != nil, endedAt.map({ line.stamp.at > $0 }) ?? true else { return }
            known[line.service] = Past(size: size, held: line.held, learned: pasts[line.service]?.learned ?? [])
        }
        pasts = known
    }

    /// In bytes: some ten thousand services.
    private static let sizesLimit = 2 << 20

    private mutating func take(_ line: ScalingLine, _ now: MonotonicTime) {
        // The machine was started again since: nothing goes on from before.
        if line.stamp.age(now) == nil { pasts = [:] }
        func note(_ size: Int, _ learned: ScalingLearned) {
            guard line.stamp.age(now) != nil else { return }
            pasts[line.service, default: Past()].size = size
            pasts[line.service]!.held = line.held
            if learned != ScalingLearned() { pasts[line.service]!.learned.append((line.stamp.at, learned)) }
        }
        switch line.event {
        case .ended:
            pasts = [:]
            if line.stamp.age(now) != nil { endedAt = line.stamp.at }
        case .size(let size): note(size, ScalingLearned())
        case .pass(let point, let metrics, let learned):
            note(point.outcome, learned)
            // Other metrics are another recording: the figures of both cannot stand under one heading.
            if recordings[line.service]?.metrics != metrics { recordings[line.service] = Recording(metrics: metrics) }
            recordings[line.service]!.points.append(point)
        }
    }

    /// The passes of a service whose metrics are these, oldest first.
    func points(_ service: String, metrics: [String]) -> [ScalingTimeline.Point] {
        guard let recording = recordings[service], recording.metrics == metrics else { return [] }
        return recording.points
    }

    /// As JSON, in the form of `/api/scaling` as far as it goes: name, metrics and timeline. nil: nothing was recorded of the service.
    public func json(_ service: String) -> [UInt8]? {
        guard let recording = recordings[service] else { return nil }
        var json = JSONWriter(reserving: recording.points.count * 200 + 256)
        json.beginArray()
        json.beginObject()
        json.member("service", service)
        json.key("metrics")
        json.beginArray()
        for name in recording.metrics {
            json.beginObject()
            json.member("name", name)
            json.endObject()
        }
        json.endArray()
        ScalingJSON.timeline(recording.points, &json)
        json.endObject()
        json.endArray()
        return json.bytes
    }
}
