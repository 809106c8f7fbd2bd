import Basics
import JSONCoding

/// Range queries to Prometheus' HTTP API: split so that no answer has more points than it gives, and read into a recording.
///
/// Series with a label `replica`, `pod` or `instance`, and all of an answer with more than one, are of replicas, told apart by all their
/// labels; a single one without such a label is the whole. A value that is NaN or infinite is passed over, as in any recording.
public struct PrometheusRange: Sendable {
    /// The name that the query's result has in the stack file, and the query.
    public let metric: String
    public let query: String
    public let from: WallTime
    public let to: WallTime
    public let step: Duration

    /// Prometheus refuses a range query with more steps than this ("exceeded maximum resolution of 11,000 points per timeseries").
    public static let pointsAtOnce = 11_000

    public init(metric: String, query: String, from: WallTime, to: WallTime, step: Duration) {
        self.metric = metric
        self.query = query
        self.from = from
        self.to = to
        self.step = step
    }

    /// Splits `cpu=sum(rate(…))` as it stands on a command line: the metric's name is before the first `=`. nil without an `=`, or with
    /// nothing on one side.
    public static func split(_ text: String) -> (metric: String, query: String)? {
        guard let at = text.firstIndex(of: "="), at != text.startIndex, text.index(after: at) != text.endIndex else { return nil }
        let name = text[..<at]
        guard name.utf8.allSatisfy({ ($0 | 32) &- 97 < 26 || $0 &- 48 < 10 || $0 == 95 || $0 == 58 }) else { return nil }
        return (String(name), String(text[text.index(after: at)...]))
    }

    /// The requests to make in turn: paths with their queries, each of at most `pointsAtOnce` points, without a point twice.
    public func targets(base: String = "") -> [String] {
        let stepMilliseconds = max(1, step.nanoseconds / 1_000_000)
        let page = Int64(PrometheusRange.pointsAtOnce) * stepMilliseconds
        // Times of the calendar, whatever was given: the sums below stay far from the end of 64 bits.
        let last = min(to.milliseconds, Recording.latest)
        var out: [String] = [], start = max(from.milliseconds, -Recording.latest)
        while start <= last {
            let end = min(last, start + page - stepMilliseconds)
            out.append(
                "\(base)/api/v1/query_range?query=\(PrometheusRange.escaped(query))&start=\(PrometheusRange.seconds(start))"
                    + "&end=\(PrometheusRange.seconds(end))&step=\(PrometheusRange.seconds(stepMilliseconds))")
            start += page
        }
        return out
    }

    private static func seconds(_ milliseconds: Int64) -> String {
        let rest = String((milliseconds % 1000).magnitude), whole = (milliseconds / 1000).magnitude
        return "\(milliseconds < 0 ? "-" : "")\(whole).\(String(repeating: "0", count: 3 - rest.utf8.count))\(rest)"
    }

    /// Everything but letters, digits and `-._~` as `%XX`.
    static func escaped(_ text: String) -> String {
        let digits = Array("0123456789ABCDEF".unicodeScalars)
        var out = String.UnicodeScalarView()
        for byte in text.utf8 {
            if (byte | 32) &- 97 < 26 || byte &- 48 < 10 || [45, 46, 95, 126].contains(byte) {
                out.append(Unicode.Scalar(byte))
            } else {
                out.append(contentsOf: ["%", digits[Int(byte >> 4)], digits[Int(byte & 15)]])
            }
        }
        return String(out)
    }

    /// Adds the series of an answer. A refusal is reported as Prometheus said it.
    public func read(_ body: [UInt8], of service: String, into recording: inout Recording) throws {
        do {
            try JSONDocument().parse(body) { root in
                if root["status"]?.string == "error" {
                    throw ReplayFailure(
                        .refused,
                        "Prometheus refuses the query '\(query)': \(root["errorType"]?.string ?? "error"): \(root["error"]?.string ?? "")")
                }
                guard root["status"]?.string == "success", let result = root["data"]?["result"]?.array,
                    root["data"]?["resultType"]?.string == "matrix"
                else {
                    throw ReplayFailure(.malformed, "what answers is no range query of Prometheus: is the address its own?")
                }
                // An answer that says that it may be a part (a store behind it did not answer) is told as one.
                for warning in (root["warnings"]?.array ?? []).prefix(3) {
                    let text = "Prometheus warns of the answer to '\(query)', which may not be whole: \(warning.string ?? "")"
                    if !recording.warnings.contains(text) { recording.warnings.append(text) }
                }
                for series in result { try add(series, alone: result.count == 1, service, &recording) }
            }
        } catch is JSONFailure { throw ReplayFailure(.malformed, "what answers sends no JSON: is the address Prometheus' own?") }
    }

    private static let replicaLabels: Set<String> = ["replica", "pod", "instance"]

    private func add(_ series: JSONElement, alone: Bool, _ service: String, _ recording: inout Recording) throws {
        let labels = series["metric"]?.members ?? []
        let isReplica = !alone || labels.contains { PrometheusRange.replicaLabels.contains($0.key) }
        let name = isReplica ? labels.map { "\($0.key)=\($0.value.string ?? "")" }.sorted().joined(separator: ",") : nil
        for point in series["values"]?.array ?? [] {
            guard let pair = point.array, pair.count == 2, let seconds = pair[0].double, let text = pair[1].string else {
                throw ReplayFailure(.malformed, "a point of '\(query)' is no pair of a time and a value")
            }
            guard let milliseconds = Int64(exactly: (seconds * 1000).rounded()), milliseconds.magnitude <= Recording.latest else {
                throw ReplayFailure(.malformed, "a point of '\(query)' has the time \(seconds), which lies in no year up to 9999")
            }
            try recording.add(
                service: service, metric: metric, replica: name, at: WallTime(milliseconds: milliseconds),
                value: PrometheusRange.value(text))
        }
    }

    /// `+Inf` and `-Inf` as Prometheus writes them are infinite; what is no number at all counts as NaN.
    private static func value(_ text: String) -> Double { Double(text) ?? .nan }
}
