import Basics
import Rightsizing
import TestSupport
import Testing

/// The cases of kubernetes/autoscaler's own tests, re-expressed: `MUSTER_VPA_CASES` names a file of more.
@Suite struct VPAConformance {
    static let loaded = Result { try ConformanceCase.load("MUSTER_VPA_CASES", copy: "vpa-cases.json") }
    static let cases = (try? loaded.get()) ?? []

    @Test func thereAreCases() throws { #expect(try Self.loaded.get().count > 0) }

    @Test(arguments: cases) func conforms(_ item: ConformanceCase) {
        for fault in item.faults(Self.answers) { Issue.record("\(item.name): \(fault)") }
    }

    /// A runner that takes everything would be worth nothing.
    @Test func whatIsNotUnderstoodFails() {
        func faults(_ kind: String, _ expect: [String: JSONValue]) -> [String] {
            ConformanceCase(
                .object(["kind": .string(kind), "input": .object(["amount": .int(7), "factor": .int(2)]), "expect": .object(expect)])
            ).faults(Self.answers)
        }
        #expect(faults("scale", ["amount": .int(14)]) == [])
        #expect(faults("scale", ["amount": .int(15)]) != [])
        #expect(faults("scale", ["amount": .int(14), "colour": .int(1)]) != [])
        #expect(faults("scales", ["amount": .int(14)]) != [])
        #expect(faults("scale", ["error": .bool(true)]) != [])
        #expect(faults("scale", [:]) != [])
    }

    static func answers(_ item: ConformanceCase) throws -> [String: CaseAnswer] {
        let input = item.input
        switch item.kind {
        case "buckets": return try buckets(input)
        case "histogram", "decaying-histogram", "percentile", "percentiles", "estimator":
            return try HistogramCase.answers(input, item.expect)
        case "confidence": return try confidence(input)
        case "margin":
            let share = try input.number("fraction", "margin")
            return try resources(input) { $0.withMargin(share) }
        case "minimum", "minimum-resources": return try minimum(input)
        case "rounding":
            let steps = Resources(cpu: try input.int("round_cpu_milli", or: 1), memory: try input.int("round_memory_bytes", or: 1))
            return [
                "cpu_milli": .int(try cpu(input).map { Amount.roundedUp($0, toMultipleOf: steps.cpu) }),
                "memory_bytes": .int(try memory(input).map { Amount.roundedUp($0, toMultipleOf: steps.memory) }),
            ]
        case "expiry", "expired": return ["expired": .bool(try isExpired(input))]
        case "container", "oom", "memory-peaks": return try ContainerCase.answers(input)
        case "container-checkpoint", "aggregate-checkpoint", "checkpoint": return try ContainerCase.checkpoint(input)
        case "amount": return ["amount": .int(Amount.whole(try input.number("value", "amount")))]
        case "scale": return ["amount": .int(Amount.scaled(try input.int("amount"), by: try input.number("factor")))]
        case "recommendation", "recommend", "recommender", "policy", "capping", "post-processing", "integer-cpu", "controlled-resources":
            return try RecommendationCase.answers(
                input, isWholeChain: ["recommendation", "recommend", "recommender", "controlled-resources"].contains(item.kind))
        default: throw CaseFault("the kind '\(item.kind)' is not known")
        }
    }

    static func scheme(_ options: JSONValue) throws -> BucketScheme {
        if let name = options.string ?? options["default"].string {
            guard name == "cpu" || name == "memory" else { throw CaseFault("options '\(name)' are not known") }
            return name == "cpu" ? .cpu : .memory
        }
        let highest = try options.number("max"), epsilon = try options.number("epsilon", or: 0.0001)
        switch try options.needed("scheme").string {
        case "linear": return try .linear(highest: highest, size: options.number("size"), epsilon: epsilon)
        case "exponential":
            return try .exponential(highest: highest, first: options.number("first"), ratio: options.number("ratio"), epsilon: epsilon)
        default: throw CaseFault("the scheme of \(options) is not known")
        }
    }

    private static func buckets(_ input: JSONValue) throws -> [String: CaseAnswer] {
        let scheme = try scheme(input.first("options") ?? input)
        return [
            "count": .int(scheme.count), "epsilon": .double(scheme.epsilon),
            "starts": .query { wanted, tolerance in
                try wanted.pairs().compactMap { bucket, start in
                    let found = scheme.start(Int(bucket))
                    return CaseAnswer.matches(.double(found), start, tolerance)
                        ? nil : "bucket \(bucket) starts at \(found), not at \(start)"
                }
            },
            "finds": .query { wanted, tolerance in
                try wanted.pairs().compactMap { value, bucket in
                    let found = scheme.bucket(value)
                    return CaseAnswer.matches(.int(found), bucket, tolerance) ? nil : "\(value) is in bucket \(found), not in \(bucket)"
                }
            },
        ]
    }

    private static func confidence(_ input: JSONValue) throws -> [String: CaseAnswer] {
        let confidence = Confidence.of(
            first: input.first("first_s")?.time, last: input.first("last_s")?.time, samples: try input.int("samples", or: 0),
            interval: input.first("interval_s")?.duration ?? .seconds(86400))
        let widening = Confidence.Widening(multiplier: try input.number("multiplier", or: 1), exponent: try input.number("exponent", or: 1))
        return [
            "confidence": .double(confidence), "factor": .double(widening.factor(confidence)),
            "cpu_milli": .int(try cpu(input).map { widening.applied($0, confidence: confidence) }),
            "memory_bytes": .int(try memory(input).map { widening.applied($0, confidence: confidence) }),
        ]
    }

    private static func minimum(_ input: JSONValue) throws -> [String: CaseAnswer] {
        let least = Resources(
            cpu: Amount.whole(try input.number("min_cpu_milli", or: 25)),
            memory: Amount.whole(try input.first("min_memory_bytes")?.double ?? input.number("min_memory_mib", or: 250) * 1024 * 1024))
        let containers = try input.int("containers", or: 1)
        return [
            "cpu_milli": .int(
                try cpu(input).map { Estimate(target: $0, lower: $0, upper: $0).atLeast(least.cpu, containers: containers).target }),
            "memory_bytes": .int(
                try memory(input).map { Estimate(target: $0, lower: $0, upper: $0).atLeast(least.memory, containers: containers).target }),
        ]
    }

    private static func resources(_ input: JSONValue, _ change: (Estimate) -> Estimate) throws -> [String: CaseAnswer] {
        [
            "cpu_milli": .int(try cpu(input).map { change(Estimate(target: $0, lower: $0, upper: $0)).target }),
            "memory_bytes": .int(try memory(input).map { change(Estimate(target: $0, lower: $0, upper: $0)).target }),
        ]
    }

    private static func isExpired(_ input: JSONValue) throws -> Bool {
        let settings = SampleGate.Settings(
            interval: input.first("interval_s")?.duration ?? .seconds(86400), intervals: try input.int("interval_count", or: 8))
        let isSampled = try input.int("samples", or: 0) > 0
        guard let now = input.first("now_s")?.time, let created = (input.first("created_s") ?? .int(0)).time else {
            throw CaseFault("input has no 'now_s'")
        }
        return ContainerUsage.isExpired(
            last: isSampled ? input.first("last_sample_s")?.time : nil, created: created, now: now, settings: settings)
    }

    static func cpu(_ input: JSONValue) throws -> Int? {
        if let cores = input.first("cpu_cores")?.double { return Amount.whole(cores * 1000) }
        return try input.first("cpu_milli").map { try whole($0) }
    }

    static func memory(_ input: JSONValue) throws -> Int? { try input.first("memory_bytes").map { try whole($0) } }

    private static func whole(_ value: JSONValue) throws -> Int {
        guard let number = value.double else { throw CaseFault("\(value) is no amount") }
        return value.int ?? Amount.whole(number)
    }
}
