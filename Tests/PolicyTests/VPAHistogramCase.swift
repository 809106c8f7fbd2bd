import Basics
import Rightsizing
import TestSupport

/// Runs the operations of a case on named histograms (`on`, "a" when not said) and answers about one of them.
struct HistogramCase {
    enum Held {
        case plain(Histogram)
        case decaying(DecayingHistogram)

        var histogram: Histogram {
            switch self {
            case .plain(let histogram): histogram
            case .decaying(let decaying): decaying.histogram
            }
        }

        var checkpoint: HistogramCheckpoint {
            switch self {
            case .plain(let histogram): histogram.checkpoint()
            case .decaying(let decaying): decaying.checkpoint()
            }
        }

        var reference: WallTime? { if case .decaying(let decaying) = self { decaying.reference } else { nil } }

        func matches(_ other: Held) -> Bool {
            switch (self, other) {
            case (.plain(let a), .plain(let b)): a.matches(b)
            case (.decaying(let a), .decaying(let b)): a.matches(b)
            default: false
            }
        }
    }

    let empty: Held
    var named: [String: Held] = [:]

    static func answers(_ input: JSONValue, _ expect: JSONValue) throws -> [String: CaseAnswer] {
        let scheme = try VPAConformance.scheme(try input.needed("options"))
        let halfLife = input.first("half_life_s", "half_life")?.duration
        var run = HistogramCase(empty: halfLife.map { .decaying(DecayingHistogram(scheme, halfLife: $0)) } ?? .plain(Histogram(scheme)))
        for op in input.first("ops")?.items ?? [] { try run.apply(op) }
        return run.answers(on: expect.first("on")?.string ?? "a")
    }

    private func held(_ name: String) -> Held { named[name] ?? empty }

    private mutating func apply(_ op: JSONValue) throws {
        let name = op.first("into", "to", "on")?.string ?? "a"
        switch (try op.needed("op").string ?? "", held(name)) {
        case ("add", .plain(var histogram)):
            histogram.add(try op.number("value"), weight: try op.number("weight", or: 1))
            named[name] = .plain(histogram)
        case ("add", .decaying(var decaying)):
            decaying.add(try op.number("value"), weight: try op.number("weight", or: 1), at: try time(op))
            named[name] = .decaying(decaying)
        case ("subtract", .plain(var histogram)):
            histogram.subtract(try op.number("value"), weight: try op.number("weight", or: 1))
            named[name] = .plain(histogram)
        case ("subtract", .decaying(var decaying)):
            decaying.subtract(try op.number("value"), weight: try op.number("weight", or: 1), at: try time(op))
            named[name] = .decaying(decaying)
        case ("scale", .plain(var histogram)):
            histogram.scale(by: try op.number("factor"))
            named[name] = .plain(histogram)
        case ("merge", let held): try merge(held, name, op)
        case ("load", let held): named[name] = try load(held, op)
        case (let other, _): throw CaseFault("the operation '\(other)' is not known: \(op)")
        }
    }

    private mutating func merge(_ first: Held, _ name: String, _ op: JSONValue) throws {
        // Whatever else names a histogram is what is merged into the first; one that nothing was added to yet is an empty one.
        let named = named.merging(
            ["from", "other", "with", "source"].compactMap { op.first($0)?.string }.map { ($0, held($0)) }
        ) { old, _ in old }
        let others = op.members.filter { $0.key != "op" && $0.value.string.map { named[$0] != nil && $0 != name } ?? false }.compactMap(
            \.value.string)
        guard let other = others.first, Set(others).count == 1 else { throw CaseFault("merge with what? \(op)") }
        switch (first, held(other)) {
        case (.plain(var a), .plain(let b)):
            guard a.merge(b) else { throw CaseFault("cannot be merged: \(op)") }
            self.named[name] = .plain(a)
        case (.decaying(var a), .decaying(var b)):
            guard a.merge(&b) else { throw CaseFault("cannot be merged: \(op)") }
            self.named[other] = .decaying(b)
            self.named[name] = .decaying(a)
        default: throw CaseFault("cannot be merged: \(op)")
        }
    }

    private func load(_ held: Held, _ op: JSONValue) throws -> Held {
        let checkpoint = try op.first("from")?.string.map { self.held($0).checkpoint } ?? HistogramCase.checkpoint(op.first("checkpoint"))
        switch held {
        case .plain(var histogram):
            try histogram.load(checkpoint)
            return .plain(histogram)
        case .decaying(var decaying):
            try decaying.load(checkpoint)
            return .decaying(decaying)
        }
    }

    struct NoCheckpoint: Error {}

    /// No checkpoint at all is an error, as it is upstream.
    static func checkpoint(_ value: JSONValue?) throws -> HistogramCheckpoint {
        guard let value else { throw NoCheckpoint() }
        var weights: [Int: Int] = [:]
        for (bucket, weight) in try (value.first("buckets", "bucket_weights", "weights") ?? .object([:])).numbered() {
            guard let weight = weight.int else { throw CaseFault("\(weight) is no weight") }
            weights[bucket] = weight
        }
        return HistogramCheckpoint(
            total: try value.number("total_weight", "total", or: 0), weights: weights,
            reference: value.first("reference_s", "reference_timestamp_s", "ref_s", "reference_at_s")?.time)
    }

    private func time(_ op: JSONValue) throws -> WallTime { op.first("at_s")?.time ?? DecayingHistogram.dawn }

    private func answers(on name: String) -> [String: CaseAnswer] {
        let held = held(name), histogram = held.histogram
        let checkpoint = held.checkpoint
        var answers = answers(histogram, checkpoint)
        answers["on"] = .value(.string(name))
        for key in ["reference_s", "reference_timestamp_s", "ref_s"] { answers[key] = .value(JSONValue.seconds(held.reference)) }
        for key in ["equal", "equals", "equal_to", "same"] { answers[key] = equality(name) }
        for one in named.keys {
            for other in named.keys { answers["\(one)_equals_\(other)"] = .bool(self.held(one).matches(self.held(other))) }
        }
        return answers
    }

    private func answers(_ histogram: Histogram, _ checkpoint: HistogramCheckpoint) -> [String: CaseAnswer] {
        [
            "empty": .bool(histogram.isEmpty), "total_weight": .double(histogram.total), "total": .double(histogram.total),
            "percentiles": HistogramCase.percentiles(histogram),
            "checkpoint": .query { wanted, tolerance in
                guard !wanted.members.isEmpty else { throw CaseFault("\(wanted) asks nothing") }
                return wanted.members.flatMap { key, value in
                    guard let answer = HistogramCase.answers(checkpoint)[key] else { return ["'\(key)' of a checkpoint is not known"] }
                    return answer.faults(key, value, tolerance)
                }
            },
            "bucket_weights": weights(histogram), "weights": weights(histogram), "buckets": weights(histogram),
        ]
    }

    static func percentiles(_ histogram: Histogram) -> CaseAnswer {
        .query { wanted, tolerance in
            try wanted.pairs().compactMap { share, value in
                let found = histogram.percentile(share)
                return CaseAnswer.matches(.double(found), value, tolerance) ? nil : "percentile \(share) is \(found), not \(value)"
            }
        }
    }

    private static func answers(_ checkpoint: HistogramCheckpoint) -> [String: CaseAnswer] {
        var buckets: [String: JSONValue] = [:]
        for (bucket, weight) in checkpoint.weights { buckets["\(bucket)"] = .int(weight) }
        let reference = CaseAnswer.value(JSONValue.seconds(checkpoint.reference))
        return [
            "total_weight": .double(checkpoint.total), "buckets": .value(.object(buckets)), "bucket_weights": .value(.object(buckets)),
            "reference_s": reference, "reference_timestamp_s": reference, "ref_s": reference,
            "version": .value(.string(UsageCheckpoint.supported)),
        ]
    }

    private func weights(_ histogram: Histogram) -> CaseAnswer {
        .query { wanted, tolerance in
            try wanted.pairs().compactMap { bucket, weight in
                let found = histogram.weight(of: Int(bucket))
                return CaseAnswer.matches(.double(found), weight, tolerance) ? nil : "bucket \(bucket) weighs \(found), not \(weight)"
            }
        }
    }

    /// `"b"`, `["a", "b"]`, `[["a", "b"], ["c", "d"]]`, or true and false: all that were named, or not all.
    private func equality(_ name: String) -> CaseAnswer {
        .query { wanted, _ in
            if let truth = wanted.bool {
                let names = named.keys.sorted()
                guard names.count > 1 else { throw CaseFault("equal to what?") }
                let same = names.allSatisfy { held(names[0]).matches(held($0)) }
                return same == truth ? [] : ["\(names) are \(same ? "" : "not ")the same"]
            }
            let groups: [[String]]
            if let other = wanted.string {
                groups = [[name, other]]
            } else {
                let lists = wanted.items ?? []
                groups =
                    lists.contains { $0.items != nil } ? lists.map { ($0.items ?? []).compactMap(\.string) } : [lists.compactMap(\.string)]
            }
            return try groups.compactMap { group in
                guard let first = group.first, group.count > 1, group.allSatisfy({ named[$0] != nil }) else {
                    throw CaseFault("equal to what? \(wanted)")
                }
                return group.allSatisfy { held(first).matches(held($0)) } ? nil : "\(group) are not the same"
            }
        }
    }
}
