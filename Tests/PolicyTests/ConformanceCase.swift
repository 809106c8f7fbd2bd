import Basics
import TestSupport
import Testing

/// A situation and what is expected of it, from a file of cases. The keys of `expect` must all match; what it does not name is free.
struct ConformanceCase: Sendable, CustomTestStringConvertible {
    let name: String
    let kind: String
    let input: JSONValue
    let expect: JSONValue
    /// For real numbers; a few units in the last place when the case does not say.
    let tolerance: Double

    var testDescription: String { name }

    init(_ value: JSONValue) {
        name = value.first("name")?.string ?? "a case without a name: \(value)"
        kind = value.first("kind")?.string ?? ""
        input = value.first("input") ?? .null
        expect = value.first("expect") ?? .null
        tolerance = value.first("relative_tolerance")?.double ?? 1e-13
    }

    /// The cases of the file that `variable` names, or of the project's copy: a list, or one case a line. A folder: all its files.
    static func load(_ variable: String, copy: String) throws -> [ConformanceCase] {
        let path = environmentValue(variable).flatMap { $0.isEmpty ? nil : $0 } ?? Files.folder(of: #filePath) + "/Cases/" + copy
        let inside = Files.list(path).filter { $0.hasSuffix(".json") || $0.hasSuffix(".jsonl") }
        let files = inside.isEmpty ? [path] : inside.map { "\(path)/\($0)" }
        return try files.flatMap { file -> [ConformanceCase] in
            let bytes = try Files.read(file)
            let texts = file.hasSuffix(".jsonl") ? bytes.split(separator: 10).map { Array($0) } : [bytes]
            return try texts.flatMap { text -> [ConformanceCase] in
                let root = try JSONValue.parse(text)
                return (root.items ?? root.first("cases")?.items ?? [root]).map { ConformanceCase($0) }
            }
        }
    }

    /// What does not match, in words; empty when everything does. An error that was not expected, a key of `expect` that has no answer, and
    /// an `expect` without keys are faults too.
    func faults(_ answer: (ConformanceCase) throws -> [String: CaseAnswer]) -> [String] {
        if expect.members.isEmpty { return ["nothing is expected"] }
        let wantsError = expect.first("error").map { $0 != .bool(false) } ?? false
        do {
            let answers = try answer(self)
            if wantsError { return ["an error is expected (\(expect.first("error") ?? .null)), and there was none"] }
            return expect.members.sorted { $0.key < $1.key }.flatMap { key, wanted -> [String] in
                if key == "error" { return [] }
                guard let answer = answers[key] else { return ["'\(key)' of expect is not known for the kind '\(kind)'"] }
                return answer.faults(key, wanted, tolerance)
            }
        } catch let fault as CaseFault {
            return [fault.description]
        } catch {
            guard wantsError else { return ["failed with '\(error)', which was not expected"] }
            return expect.members.keys.filter { $0 != "error" }.map { "'\($0)' is expected, and it failed with '\(error)'" }
        }
    }
}

/// A case that cannot be run: it is written in a way that the runner does not understand.
struct CaseFault: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// What the code says to one key of `expect`.
enum CaseAnswer {
    case value(JSONValue)
    /// For keys that ask: gets what is wanted and says what does not match.
    case query((_ wanted: JSONValue, _ tolerance: Double) throws -> [String])

    static func int(_ value: Int?) -> CaseAnswer { .value(value.map { .int($0) } ?? .null) }
    static func double(_ value: Double) -> CaseAnswer { .value(.double(value)) }
    static func bool(_ value: Bool) -> CaseAnswer { .value(.bool(value)) }

    func faults(_ key: String, _ wanted: JSONValue, _ tolerance: Double) -> [String] {
        switch self {
        case .value(let value): CaseAnswer.matches(value, wanted, tolerance) ? [] : ["\(key) is \(value), and \(wanted) is expected"]
        case .query(let ask): CaseAnswer.asked(key) { try ask(wanted, tolerance) }
        }
    }

    private static func asked(_ key: String, _ ask: () throws -> [String]) -> [String] {
        do { return try ask().map { "\(key): \($0)" } } catch { return ["\(key): \(error)"] }
    }

    /// Numbers to within the tolerance, whole ones exactly unless the case gives one; of objects every member.
    static func matches(_ value: JSONValue, _ wanted: JSONValue, _ tolerance: Double) -> Bool {
        if case .int(let a) = value, case .int(let b) = wanted, a == b || tolerance < 1e-12 { return a == b }
        if let a = value.double, let b = wanted.double { return a == b || abs(a - b) <= tolerance * abs(b) }
        if let a = value.items, let b = wanted.items { return a.count == b.count && zip(a, b).allSatisfy { matches($0, $1, tolerance) } }
        if case .object(let a) = value, case .object(let b) = wanted {
            return a.count == b.count && b.allSatisfy { key, wanted in a[key].map { matches($0, wanted, tolerance) } ?? false }
        }
        return value == wanted
    }
}

extension JSONValue {
    /// The first of these members that is there and not null.
    func first(_ keys: String...) -> JSONValue? {
        for key in keys where !self[key].isNull { return self[key] }
        return nil
    }

    /// The elements of an array; nil for anything else.
    var items: [JSONValue]? { if case .array(let items) = self { items } else { nil } }

    /// `[[0.9, x], …]` or `{"0.9": x, …}`, and at least one: a list that asks nothing is a fault.
    func pairs() throws -> [(Double, JSONValue)] {
        let pairs = try items.map { items in
            try items.map { item -> (Double, JSONValue) in
                guard let pair = item.items, pair.count == 2, let first = pair[0].double else { throw CaseFault("\(item) is no pair") }
                return (first, pair[1])
            }
        }
        let all =
            try pairs
            ?? members.map { key, value -> (Double, JSONValue) in
                guard let first = Double(key) else { throw CaseFault("'\(key)' is no number") }
                return (first, value)
            }
        guard !all.isEmpty else { throw CaseFault("\(self) asks nothing") }
        return all
    }

    /// As `pairs`, of whole numbers; there may be none.
    func numbered() throws -> [(Int, JSONValue)] {
        if self == .object([:]) || self == .array([]) { return [] }
        return try pairs().map {
            guard let number = Int(exactly: $0.0) else { throw CaseFault("\($0.0) is no whole number") }
            return (number, $0.1)
        }
    }

    /// A number of seconds as a point in time.
    var time: WallTime? { double.map { WallTime(milliseconds: Int64(max(min(($0 * 1000).rounded(), 9e18), -9e18))) } }

    /// A number of seconds as a duration.
    var duration: Duration? { double.map { Duration.nanoseconds(Int64(max(min($0 * 1e9, 9e18), -9e18))) } }

    func needed(_ keys: String...) throws -> JSONValue {
        for key in keys { if let value = first(key) { return value } }
        throw CaseFault("input has no '\(keys[0])': \(self)")
    }

    func int(_ keys: String..., or usual: Int? = nil) throws -> Int {
        for key in keys { if let value = first(key)?.int { return value } }
        guard let usual else { throw CaseFault("input has no whole number '\(keys[0])': \(self)") }
        return usual
    }

    func number(_ keys: String..., or usual: Double? = nil) throws -> Double {
        for key in keys { if let value = first(key)?.double { return value } }
        guard let usual else { throw CaseFault("input has no number '\(keys[0])': \(self)") }
        return usual
    }

    /// A point in time in seconds.
    static func seconds(_ time: WallTime?) -> JSONValue { time.map { .double(Double($0.milliseconds) / 1000) } ?? .null }
}
