import Basics
import Rightsizing
import TestSupport

/// Runs samples of one container through the gate, and through a whole state beside it.
enum ContainerCase {
    static func settings(_ input: JSONValue) throws -> SampleGate.Settings {
        SampleGate.Settings(
            interval: input.first("interval_s")?.duration ?? .seconds(86400), intervals: try input.int("interval_count", or: 8),
            bumpRatio: try input.number("oom_ratio", or: 1.2), bumpBytes: Amount.whole(try input.number("oom_min_bytes", or: 104_857_600)))
    }

    /// What the ops of a case did: which were accepted, and what reached the histograms.
    struct Run {
        var accepted: [JSONValue] = []
        var calls: [JSONValue] = []
        var usage: ContainerUsage
    }

    static func run(_ input: JSONValue) throws -> Run {
        let settings = try settings(input)
        var gate = SampleGate(settings)
        var run = Run(
            usage: ContainerUsage(created: (input.first("created_s") ?? .int(0)).time ?? DecayingHistogram.dawn, settings: settings))
        for op in input.first("ops")?.items ?? [] {
            guard let at = op.first("at_s")?.time else { throw CaseFault("when? \(op)") }
            do {
                switch try op.needed("op").string {
                case "cpu":
                    let milli = try op.int("milli", "cpu_milli", "value")
                    let counted = try gate.cpu(milli, at: at)
                    run.calls.append(call("cpu-add", Double(counted) / 1000, at))
                    try run.usage.addCPU(milli, at: at)
                case "memory":
                    let bytes = try op.int("bytes", "memory_bytes", "value")
                    note(try gate.memory(bytes, at: at), &run)
                    try run.usage.addMemory(bytes, at: at)
                case "oom":
                    let request = try op.int("request_bytes", "bytes")
                    note(try gate.outOfMemory(request: request, at: at), &run)
                    try run.usage.addOutOfMemory(request: request, at: at)
                default: throw CaseFault("the operation of \(op) is not known")
                }
                run.accepted.append(.bool(true))
            } catch is SampleGate.Dropped {
                run.accepted.append(.bool(false))
            }
        }
        return run
    }

    static func answers(_ input: JSONValue) throws -> [String: CaseAnswer] {
        let run = try run(input)
        let usage = run.usage
        return [
            "accepted": .value(.array(run.accepted)), "aggregate_calls": .value(.array(run.calls)), "calls": .value(.array(run.calls)),
            "samples": .int(usage.samples), "first_s": .value(JSONValue.seconds(usage.first)),
            "last_s": .value(JSONValue.seconds(usage.last)),
            "cpu_percentiles": percentiles(usage.cpu), "memory_percentiles": percentiles(usage.memory),
            "cpu_empty": .bool(usage.cpu.isEmpty), "memory_empty": .bool(usage.memory.isEmpty),
        ]
    }

    /// A checkpoint of a whole state, loaded.
    static func checkpoint(_ input: JSONValue) throws -> [String: CaseAnswer] {
        let value = input.first("checkpoint") ?? input
        let checkpoint = UsageCheckpoint(
            version: value.first("version")?.string ?? "", first: value.first("first_s", "first_sample_s")?.time,
            last: value.first("last_s", "last_sample_s")?.time,
            samples: try value.int("samples", "total_samples", or: 0),
            cpu: try HistogramCase.checkpoint(value.first("cpu", "cpu_histogram") ?? .object([:])),
            memory: try HistogramCase.checkpoint(value.first("memory", "memory_histogram") ?? .object([:])))
        let usage = try ContainerUsage(checkpoint, created: DecayingHistogram.dawn)
        return [
            "samples": .int(usage.samples), "first_s": .value(JSONValue.seconds(usage.first)),
            "last_s": .value(JSONValue.seconds(usage.last)),
            "cpu_empty": .bool(usage.cpu.isEmpty), "memory_empty": .bool(usage.memory.isEmpty),
            "version": .value(.string(usage.checkpoint().version)),
            "cpu_percentiles": percentiles(usage.cpu), "memory_percentiles": percentiles(usage.memory),
        ]
    }

    static func percentiles(_ histogram: DecayingHistogram) -> CaseAnswer { HistogramCase.percentiles(histogram.histogram) }

    private static func note(_ peak: SampleGate.Peak?, _ run: inout Run) {
        guard let peak else { return }
        if let replaced = peak.replaced { run.calls.append(call("memory-subtract", Double(replaced), peak.end)) }
        run.calls.append(call("memory-add", Double(peak.value), peak.end))
    }

    private static func call(_ what: String, _ value: Double, _ at: WallTime) -> JSONValue {
        .array([.string(what), .double(value), JSONValue.seconds(at)])
    }
}
