import Basics
import JSONCoding

extension Scenario {
    /// This scenario as a script for k6: each phase becomes a scenario of k6's, each expectation a threshold. `k6Refusals` says what k6
    /// cannot do.
    ///
    /// Three things differ, and the script says so: k6 counts latency from sending (its own, not corrected), starts the users of a phase at
    /// once, and drops a request (`dropped_iterations`) for which no virtual user is free.
    public func k6Script(target: LoadTarget) -> String {
        var out = K6Writer()
        out.script(self, target)
        return out.lines.joined(separator: "\n") + "\n"
    }
}

private struct K6Writer {
    var lines: [String] = []

    mutating func script(_ scenario: Scenario, _ target: LoadTarget) {
        let texts = scenario.requests.flatMap { [$0.target] + ($0.body.map { [$0] } ?? []) }
        let hasBinary = texts.contains { $0.parts.contains(where: \.isBinary) }
        lines += [
            "// Rendered by: muster load --render k6 (scenario \(K6Writer.comment(scenario.name))). Run with: k6 run FILE",
            "// k6 counts http_req_duration from sending, not from when a request was due: it is not corrected for coordinated omission.",
            "// n counts from 0 in each phase.",
        ]
        if scenario.spacing == .poisson, scenario.isOpen { lines.append("// The scenario's arrivals are Poisson; k6 spaces them evenly.") }
        lines += ["import http from 'k6/http';", "import exec from 'k6/execution';"]
        if scenario.isClosed { lines.append("import { sleep } from 'k6';") }
        if hasBinary { lines.append("import encoding from 'k6/encoding';") }
        options(scenario)
        let hasIDs = texts.contains { $0.parts.contains(.uuid) }
        if hasIDs { uuid() }
        requests(scenario, target)
        if scenario.isClosed { thinking(scenario) }
        main(scenario, hasIDs: hasIDs)
    }

    // MARK: options

    private mutating func options(_ scenario: Scenario) {
        lines += ["", "export const options = {", "  discardResponseBodies: true,", "  maxRedirects: 0,", "  scenarios: {"]
        var start = Duration.zero
        for (i, phase) in scenario.phases.enumerated() {
            self.phase(i, phase, start, scenario)
            start += phase.duration
        }
        lines.append("  },")
        let thresholds = K6Writer.thresholds(scenario.expectations)
        if !thresholds.isEmpty {
            lines.append("  thresholds: {")
            for (name, rules) in thresholds {
                lines.append("    \(name): [\(rules.map(K6Writer.string).joined(separator: ", "))],")
            }
            lines.append("  },")
        }
        lines.append("};")
    }

    private mutating func phase(_ index: Int, _ phase: LoadPhase, _ start: Duration, _ scenario: Scenario) {
        let isOpen = phase.unit == .arrivals
        // k6 keeps a level for a second at least; a ramp from a level to the same may be shorter.
        let isConstant = (phase.shape == .hold || phase.shape == .spike) && phase.duration >= .seconds(1)
        lines.append("    // \(phase.description)")
        lines.append("    phase_\(index + 1): {")
        lines.append(
            "      executor: "
                + "'\(isOpen ? (isConstant ? "constant-arrival-rate" : "ramping-arrival-rate") : (isConstant ? "constant-vus" : "ramping-vus"))',"
        )
        lines.append("      startTime: '\(K6Writer.time(start))',")
        lines.append("      gracefulStop: '\(K6Writer.time(scenario.timeout))',")
        if isOpen {
            // `k6Refusals` has told a phase that no unit fits.
            let rate = K6Rate(phase), factor = rate?.seconds ?? 1
            lines.append("      timeUnit: '\(rate?.unit ?? "1s")',")
            // k6 makes users ahead of time, and more of them while it goes on.
            lines.append("      preAllocatedVUs: \(min(scenario.connections, 100)),")
            lines.append("      maxVUs: \(scenario.connections),")
            if isConstant {
                lines.append("      rate: \(K6Writer.whole(phase.to * factor)),")
                lines.append("      duration: '\(K6Writer.time(phase.duration))',")
            } else {
                stages(phase, factor, "startRate")
            }
        } else if isConstant {
            lines.append("      vus: \(K6Writer.whole(phase.to)),")
            lines.append("      duration: '\(K6Writer.time(phase.duration))',")
        } else {
            lines.append("      gracefulRampDown: '\(K6Writer.time(scenario.timeout))',")
            stages(phase, 1, "startVUs")
        }
        lines.append("      env: { PHASE: '\(index + 1)' },")
        lines.append("    },")
    }

    private mutating func stages(_ phase: LoadPhase, _ factor: Double, _ first: String) {
        let pieces = [phase].pieces
        lines.append("      \(first): \(K6Writer.whole(pieces[0].from * factor)),")
        lines.append("      stages: [")
        for (i, piece) in pieces.enumerated() {
            // A stage of no length jumps.
            if i > 0 { lines.append("        { target: \(K6Writer.whole(piece.from * factor)), duration: '0s' },") }
            lines.append(
                "        { target: \(K6Writer.whole(piece.to * factor)), duration: '\(K6Writer.time(.nanoseconds(piece.duration)))' },")
        }
        lines.append("      ],")
    }

    private static func thresholds(_ expectations: [LoadExpectation]) -> [(name: String, rules: [String])] {
        var out: [(name: String, rules: [String])] = []
        func add(_ name: String, _ rule: String) {
            if let at = out.firstIndex(where: { $0.name == name }) { out[at].rules.append(rule) } else { out.append((name, [rule])) }
        }
        for expectation in expectations {
            let sign = expectation.relation.rawValue
            switch expectation.metric {
            case .errors: add("http_req_failed", "rate\(sign)\(figure(expectation.limit, 8))")
            case .rate: add("http_reqs", "rate\(sign)\(figure(expectation.limit, 6))")
            case .max: add("http_req_duration", "max\(sign)\(milliseconds(expectation.limit))")
            case .mean: add("http_req_duration", "avg\(sign)\(milliseconds(expectation.limit))")
            default:
                add(
                    "http_req_duration", "p(\(decimals((expectation.metric.share ?? 0) * 100, 1)))\(sign)\(milliseconds(expectation.limit))"
                )
            }
        }
        return out
    }

    private static func milliseconds(_ nanoseconds: Double) -> String { decimals(nanoseconds / 1e6, 6) }
    private static func whole(_ value: Double) -> Int { Int(clamped: value.rounded()) }

    /// At most so many digits after the point; all that there are where so few would make it another figure.
    private static func figure(_ value: Double, _ digits: Int) -> String {
        let short = decimals(value, digits)
        guard let read = Double(short), (read - value).magnitude <= value.magnitude * 1e-6 else { return "\(value)" }
        return short
    }

    /// k6 reads Go's durations: whole milliseconds where there is no shorter form.
    private static func time(_ duration: Duration) -> String {
        let milliseconds = duration.nanoseconds / 1_000_000
        return milliseconds % 1000 == 0 ? "\(milliseconds / 1000)s" : "\(milliseconds)ms"
    }

    // MARK: requests

    private mutating func uuid() {
        lines += [
            "", "function uuid() {",
            "  return 'xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx'.replace(/[xy]/g, (c) => {",
            "    const r = Math.floor(Math.random() * 16);",
            "    return (c === 'x' ? r : (r & 3) | 8).toString(16);", "  });", "}",
        ]
    }

    private mutating func requests(_ scenario: Scenario, _ target: LoadTarget) {
        lines += ["", "const target = \(K6Writer.string(target.description));", "const requests = ["]
        for request in scenario.requests {
            lines.append("  {")
            lines.append("    weight: \(request.weight),")
            lines.append("    method: \(K6Writer.string(request.method)),")
            lines.append("    url: (n, id) => target + \(K6Writer.expression(request.target)),")
            lines.append("    body: \(request.body.map { "(n, id) => \(K6Writer.expression($0))" } ?? "() => null"),")
            lines.append("    params: {")
            let headers = request.headers.map { "\(K6Writer.key($0.name)): \(K6Writer.string($0.value))" }
            lines.append("      headers: {\(headers.isEmpty ? "" : " \(headers.joined(separator: ", ")) ")},")
            lines.append("      timeout: '\(K6Writer.time(scenario.timeout))',")
            // One name for all URLs of a kind, or each would be a series of its own.
            lines.append("      tags: { name: \(K6Writer.string(request.label)) },")
            lines.append("    },")
            lines.append("  },")
        }
        lines += [
            "];", "const weights = requests.reduce((sum, request) => sum + request.weight, 0);", "", "function choose() {",
            "  let left = Math.random() * weights;", "  for (const request of requests) {", "    left -= request.weight;",
            "    if (left < 0) return request;", "  }",
            "  return requests[requests.length - 1];", "}",
        ]
    }

    private mutating func main(_ scenario: Scenario, hasIDs: Bool) {
        lines += [
            "", "export default function () {", "  const n = exec.scenario.iterationInTest;", "  const id = \(hasIDs ? "uuid()" : "''");",
            "  const request = choose();",
            "  http.request(request.method, request.url(n, id), request.body(n, id), request.params);",
        ]
        if scenario.isClosed {
            lines += [
                "  const [least, most] = think[__ENV.PHASE] || [0, 0];", "  if (most > 0) sleep(least + Math.random() * (most - least));",
            ]
        }
        lines.append("}")
    }

    private mutating func thinking(_ scenario: Scenario) {
        lines += ["", "// Seconds between an answer and the user's next request, by phase.", "const think = {"]
        for (i, phase) in scenario.phases.enumerated() where phase.unit == .users {
            let least = decimals(phase.think.lowerBound.secondsAsDouble, 6), most = decimals(phase.think.upperBound.secondsAsDouble, 6)
            lines.append("  \(i + 1): [\(least), \(most)],")
        }
        lines.append("};")
    }

    // MARK: JavaScript

    /// A text with what is filled in, as an expression.
    private static func expression(_ text: LoadText) -> String {
        if text.parts.isEmpty { return "''" }
        // Two numbers side by side would be added up.
        let isSum = text.parts.count > 1 && text.parts[0] == .number && text.parts[1] == .number
        return (isSum ? "'' + " : "")
            + text.parts.map { part in
                switch part {
                case .bytes(let bytes):
                    part.isBinary
                        ? "encoding.b64decode('\(bytes.withUnsafeBytes(encodeBase64))')" : string(String(decoding: bytes, as: UTF8.self))
                case .number: "n"
                case .uuid: "id"
                case .now: "new Date().toISOString()"
                }
            }.joined(separator: " + ") + (text.parts == [.number] ? " + ''" : "")
    }

    /// A JavaScript string: JSON's form is one, but for two line separators that older readers take as the end of a line, and `</` and
    /// `<!`, so that the text is harmless in a page as well.
    static func string(_ text: String) -> String {
        var bytes: [UInt8] = []
        var text = text
        text.withUTF8 { JSONWriter.escape(UnsafeRawBufferPointer($0), into: &bytes) }
        var out: [UInt8] = [], at = 0
        while at < bytes.count {
            let isSeparator = bytes[at] == 0xE2 && at + 2 < bytes.count && bytes[at + 1] == 0x80 && bytes[at + 2] & 0xFE == 0xA8
            if isSeparator {
                out += Array((bytes[at + 2] == 0xA8 ? "\\u2028" : "\\u2029").utf8)
                at += 3
            } else if bytes[at] == 60, at + 1 < bytes.count, bytes[at + 1] == 47 || bytes[at + 1] == 33 {
                out += Array("\\u003c".utf8)
                at += 1
            } else {
                out.append(bytes[at])
                at += 1
            }
        }
        return String(decoding: out, as: UTF8.self)
    }

    /// A name in an object. Plain, `__proto__` would set the object's prototype.
    private static func key(_ name: String) -> String { name == "__proto__" ? "[\(string(name))]" : string(name) }

    /// Without what would end a comment's line: control characters, and JavaScript's two further ends of a line.
    private static func comment(_ text: String) -> String {
        String(String.UnicodeScalarView(text.unicodeScalars.filter { $0.value >= 32 && $0.value != 0x2028 && $0.value != 0x2029 }))
    }
}
