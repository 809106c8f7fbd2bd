import Basics

/// One expectation that a load test is to show true or false: `p95<150ms`, `errors<0.1%`, `rate>=500/s`.
public struct LoadExpectation: Sendable, Equatable {
    public enum Metric: String, Sendable, CaseIterable {
        case p50, p90, p95, p99
        case p999 = "p99.9"
        case max, mean, errors, rate

        /// The quantile of a latency, as a share; nil for the other metrics.
        public var share: Double? {
            switch self {
            case .p50: 0.5
            case .p90: 0.9
            case .p95: 0.95
            case .p99: 0.99
            case .p999: 0.999
            default: nil
            }
        }
        public var isLatency: Bool { self != .errors && self != .rate }
    }
    public enum Relation: String, Sendable, CaseIterable {
        case atMost = "<="
        case atLeast = ">="
        case below = "<"
        case above = ">"

        /// `<` and `>` do not hold for equal values, `<=` and `>=` do.
        public func holds(_ measured: Double, _ limit: Double) -> Bool {
            switch self {
            case .below: measured < limit
            case .atMost: measured <= limit
            case .above: measured > limit
            case .atLeast: measured >= limit
            }
        }
    }
    public let metric: Metric
    public let relation: Relation
    /// The limit: nanoseconds for latencies, a share from 0 to 1 for `errors`, answers a second for `rate`.
    public let limit: Double

    public init(_ metric: Metric, _ relation: Relation, _ limit: Double) {
        self.metric = metric
        self.relation = relation
        self.limit = limit
    }

    public var description: String { "\(metric.rawValue)\(relation.rawValue)\(metric.text(limit))" }

    /// What is wrong with an expectation, and at which byte (from 0) of the text.
    public struct Failure: Error, Equatable, Sendable, CustomStringConvertible {
        public let offset: Int
        public let message: String
        public var description: String { "at character \(offset + 1): \(message)" }
    }

    /// Reads expectations with commas between them. An empty text, or nothing between two commas, is a mistake.
    public static func parse(_ text: String) throws(Failure) -> [LoadExpectation] {
        let bytes = Array(text.utf8)
        var out: [LoadExpectation] = []
        var start = 0
        while true {
            let end = bytes[start...].firstIndex(of: 44) ?? bytes.count
            out.append(try one(bytes, start, end))
            if out.count > 100 { throw Failure(offset: start, message: "more than 100 expectations") }
            if end == bytes.count { return out }
            start = end + 1
        }
    }

    private static func one(_ bytes: [UInt8], _ from: Int, _ to: Int) throws(Failure) -> LoadExpectation {
        var start = from, end = to
        while start < end, bytes[start] == 32 { start += 1 }
        while end > start, bytes[end - 1] == 32 { end -= 1 }
        guard start < end else { throw Failure(offset: from, message: "expected an expectation such as p95<150ms, found nothing") }
        let names = Metric.allCases.map(\.rawValue)
        guard let sign = bytes[start..<end].firstIndex(where: { $0 == 60 || $0 == 62 }) else {
            throw Failure(
                offset: start, message: "'\(text(bytes, start, end))' compares with nothing: expected <, <=, > or >=, as in p95<150ms")
        }
        let word = text(bytes, start, trimmedEnd(bytes, start, sign))
        guard let metric = Metric(rawValue: word) else {
            let hint = nearestWord(to: word, in: names).map { "; did you mean '\($0)'?" } ?? ""
            throw Failure(offset: start, message: "'\(word)' is none of \(names.joined(separator: ", "))\(hint)")
        }
        let hasEqual = sign + 1 < end && bytes[sign + 1] == 61
        let relation: Relation = bytes[sign] == 60 ? (hasEqual ? .atMost : .below) : (hasEqual ? .atLeast : .above)
        var valueStart = sign + (hasEqual ? 2 : 1)
        while valueStart < end, bytes[valueStart] == 32 { valueStart += 1 }
        let value = text(bytes, valueStart, end)
        guard let limit = metric.value(value) else {
            throw Failure(
                offset: valueStart, message: "\(word): expected \(metric.expected), found \(value.isEmpty ? "nothing" : "'\(value)'")")
        }
        return LoadExpectation(metric, relation, limit)
    }

    private static func trimmedEnd(_ bytes: [UInt8], _ start: Int, _ end: Int) -> Int {
        var end = end
        while end > start, bytes[end - 1] == 32 { end -= 1 }
        return end
    }

    private static func text(_ bytes: [UInt8], _ from: Int, _ to: Int) -> String { String(decoding: bytes[from..<to], as: UTF8.self) }
}

extension LoadExpectation.Metric {
    /// Reads a limit; nil when it has another unit than this has.
    func value(_ text: String) -> Double? {
        switch self {
        case .errors:
            if text == "0" { return 0 }
            guard text.hasSuffix("%"), let percent = plainNumber(text.dropLast()), percent <= 100 else { return nil }
            return percent / 100
        case .rate: return arrivalRate(text)
        default: return Duration(text: text).map { Double($0.nanoseconds) }
        }
    }

    var expected: String {
        switch self {
        case .errors: "a share such as 0.1%"
        case .rate: "answers a second such as 500/s"
        default: "a time with its unit, such as 150ms or 1.5s"
        }
    }

    /// A value for a person: `150ms`, `0.1%`, `500/s`.
    public func text(_ value: Double) -> String {
        switch self {
        case .errors: "\(decimals(value * 100, 3))%"
        case .rate: "\(decimals(value, 1))/s"
        default: latencyText(Int64(clamped: value))
        }
    }
}

/// `12.3ms`, `850us`, `1.25s`: three digits that count.
public func latencyText(_ nanoseconds: Int64) -> String {
    let value = Double(nanoseconds)
    if value >= 1e9 { return "\(decimals(value / 1e9, value >= 1e10 ? 1 : 2))s" }
    if value >= 1e6 { return "\(decimals(value / 1e6, value >= 1e8 ? 0 : value >= 1e7 ? 1 : 2))ms" }
    return "\(decimals(value / 1e3, 0))us"
}

/// A value with at most `digits` digits after the point, and none that are 0 at the end.
public func decimals(_ value: Double, _ digits: Int) -> String {
    var scale = 1.0
    for _ in 0..<digits { scale *= 10 }
    let rounded = (value * scale).rounded() / scale
    return rounded == rounded.rounded() && rounded.magnitude < 1e15 ? "\(Int(clamped: rounded))" : "\(rounded)"
}
