import Basics

/// A part of a scenario that `muster load` runs and that no k6 script can say.
public struct K6Refusal: Error, Sendable, Equatable, CustomStringConvertible {
    /// The line in the scenario's file; nil for a part that came from the command line.
    public let line: Int?
    /// What the part is, why k6 cannot do it, and what to write instead.
    public let message: String

    public var description: String { line.map { "line \($0): \(message)" } ?? message }
}

extension Scenario {
    /// The parts that keep this scenario from being rendered for k6 (1.1); empty when `k6Script` gives a script that k6 runs.
    public var k6Refusals: [K6Refusal] {
        var out: [K6Refusal] = []
        for (index, phase) in phases.enumerated() where phase.unit == .arrivals && K6Rate(phase) == nil {
            out.append(
                K6Refusal(
                    line: places.phase(index),
                    message: "phases[\(index)]: \(phase.description) is too seldom for k6, which counts whole requests in at most "
                        + "\(K6Rate.longest / 3600) hours: take a higher rate"))
        }
        for (index, request) in requests.enumerated() {
            if let body = request.body, body.parts.count > 1, body.parts.contains(where: \.isBinary) {
                out.append(
                    K6Refusal(
                        line: places.request(index),
                        message: "requests[\(index)].body: bytes that are no UTF-8 stand beside a placeholder, and k6 joins only texts: "
                            + "take one of the two out"))
            }
            if Scenario.hasBrokenEscape(request.target) {
                out.append(
                    K6Refusal(
                        line: places.request(index),
                        message: "requests[\(index)]: the path has a % without two hexadecimal digits behind it, and k6 refuses such an "
                            + "address: write %25"))
            }
        }
        return out
    }

    /// Go's address parser reads the escapes of a path, and leaves those of a query alone.
    private static func hasBrokenEscape(_ target: LoadText) -> Bool {
        for part in target.parts {
            guard case .bytes(let bytes) = part else { continue }
            for (at, byte) in bytes.enumerated() {
                if byte == 63 { return false }
                guard byte == 37 else { continue }
                guard at + 2 < bytes.count, hexDigit(bytes[at + 1]) != nil, hexDigit(bytes[at + 2]) != nil else { return true }
            }
        }
        return false
    }
}

extension LoadText.Part {
    /// Bytes that are no text.
    var isBinary: Bool {
        if case .bytes(let bytes) = self { String(validating: bytes, as: UTF8.self) == nil } else { false }
    }
}

/// k6's rates are whole numbers in a unit of time; nil for a phase for whose levels there is no such unit.
struct K6Rate {
    /// k6's units are durations of Go, which end at 292 years. This many seconds are 114.
    static let longest = 3_600_000_000

    /// As k6 reads it: `1s`, `1m`, `1h`, `1000h`.
    let unit: String
    /// Seconds of the unit: a rate times this is k6's number.
    let seconds: Double

    /// The shortest unit in which all levels are whole numbers; else the first in which each is so large that rounding it changes it by
    /// less than a thousandth.
    init?(_ phase: LoadPhase) {
        let levels = ([phase.from, phase.to] + [phase].pieces.flatMap { [$0.from, $0.to] }).filter { $0 > 0 }
        let units: [(String, Double)] = [
            ("1s", 1), ("1m", 60), ("1h", 3600), ("1000h", 3_600_000), ("1000000h", Double(K6Rate.longest)),
        ]
        func isWhole(_ count: Double) -> Bool { count >= 0.5 && (count - count.rounded()).magnitude < 1e-6 }
        guard
            let found = units.first(where: { one in levels.allSatisfy { isWhole($0 * one.1) } })
                ?? units.first(where: { one in levels.allSatisfy { $0 * one.1 >= 1000 } })
                ?? units.last.flatMap({ one in levels.allSatisfy { $0 * one.1 >= 0.5 } ? one : nil })
        else { return nil }
        (unit, seconds) = found
    }
}
