import Basics
import LoadPlanning
import StackModel

extension Scenario {
    /// Reads and validates a scenario. Everything that is wrong is in the error, each with line and column.
    ///
    /// `path` is for messages and the default name; `readFile` is asked for the files that `body-file` names.
    public static func read(
        _ text: [UInt8], path: String,
        readFile: @escaping (String) throws(SystemError) -> [UInt8] = { name throws(SystemError) in throw SystemError("open \(name)", 2) }
    ) throws(Problems) -> Scenario {
        let root: YAMLNode
        do throws(Problem) { root = try YAMLNode.parse(text, file: path) } catch { throw Problems(list: [error]) }
        var reader = ScenarioReader(checker: SchemaChecker(file: path, subject: "the scenario"), readFile: readFile)
        let scenario = reader.scenario(root, defaultName: Stack.defaultName(of: path))
        if let scenario, reader.checker.problems.isEmpty { return scenario }
        throw Problems(list: reader.checker.problems.sorted { ($0.line, $0.column) < ($1.line, $1.column) })
    }
}

struct ScenarioReader {
    var checker: SchemaChecker
    let readFile: (String) throws(SystemError) -> [UInt8]

    mutating func scenario(_ root: YAMLNode, defaultName: String) -> Scenario? {
        guard let top = checker.object(root, ScenarioSchema.scenario, "") else { return nil }
        var target: LoadTarget?
        if let text = top.string("target") {
            do throws(LoadTarget.Failure) { target = try LoadTarget(text) } catch { report(top, "target", "target: \(error.message)") }
            if let target, target.path != "/" { report(top, "target", "target: the path '\(target.path)' belongs to the requests") }
        }
        var requests: [LoadRequest] = []
        for (i, object) in top.objects("requests").enumerated() {
            if let request = request(object, "requests[\(i)]") { requests.append(request) }
        }
        bound(top, "requests", top.list("requests").count, Scenario.mostRequests)
        var phases: [LoadPhase] = []
        for (i, object) in top.objects("phases").enumerated() {
            if let phase = phase(object, "phases[\(i)]") { phases.append(phase) }
        }
        bound(top, "phases", top.list("phases").count, Scenario.mostPhases)
        if phases.reduce(Duration.zero, { $0 + $1.duration }) > Scenario.longest {
            report(top, "phases", "phases: longer than \(Scenario.longest.brief) in all")
        }
        let timeout = top.duration("timeout") ?? Scenario.defaultTimeout
        if timeout < .milliseconds(1) || timeout > .seconds(600) {
            report(top, "timeout", "timeout: expected 1ms to 10m, found \(timeout.brief)")
        }
        let expectations = expectations(top)
        guard checker.problems.isEmpty else { return nil }
        var scenario = Scenario(
            name: top.string("load") ?? defaultName, target: target, requests: requests, phases: phases, expectations: expectations,
            spacing: ArrivalSchedule.Spacing(rawValue: top.string("arrivals") ?? "") ?? .even, seed: UInt64(top.integer("seed") ?? 1),
            timeout: timeout,
            connections: top.integer("connections") ?? Scenario.defaultConnections)
        scenario.places = Scenario.Places(
            phases: top.objects("phases").map(\.line), requests: top.objects("requests").map(\.line))
        return scenario
    }

    private mutating func report(_ object: CheckedObject, _ key: String, _ message: String) {
        let place = object.places[key] ?? (object.line, object.column)
        checker.report(place.line, place.column, message)
    }

    private mutating func bound(_ top: CheckedObject, _ key: String, _ count: Int, _ most: Int) {
        // A list that is missing has been told already, and so has one whose elements are all wrong.
        if top.values[key] != nil, count == 0, checker.problems.isEmpty { report(top, key, "\(key): at least one is needed") }
        if count > most { report(top, key, "\(key): at most \(most), found \(count)") }
    }

    private mutating func expectations(_ top: CheckedObject) -> [LoadExpectation] {
        var out: [LoadExpectation] = []
        for text in top.strings("expect") {
            do throws(LoadExpectation.Failure) { out += try LoadExpectation.parse(text) } catch {
                report(top, "expect", "expect: '\(text)' \(error)")
            }
        }
        return out
    }

    // MARK: requests

    private mutating func request(_ object: CheckedObject, _ path: String) -> LoadRequest? {
        let given = ScenarioSchema.methods.filter { object.places[$0] != nil }
        guard given.count == 1, let method = given.first else {
            checker.report(
                object.line, object.column,
                "\(path): give one of \(ScenarioSchema.methods.joined(separator: ", ")); found "
                    + "\(given.isEmpty ? "none" : given.joined(separator: " and "))"
            )
            return nil
        }
        guard let text = object.string(method) else { return nil }
        let isPath = text.hasPrefix("/") && text.utf8.count <= 4096 && text.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != 35 }
        if !isPath {
            report(
                object, method,
                "\(path).\(method): expected a path that begins with /, of printable ASCII without spaces and #, found '\(text.prefix(60))'"
            )
        }
        let target = self.text(Array(text.utf8), object, method, path)
        let body = self.body(object, method, path)
        guard isPath, let target else { return nil }
        return LoadRequest(method.uppercased(), target, weight: object.integer("weight") ?? 1, headers: headers(object, path), body: body)
    }

    private mutating func text(_ bytes: [UInt8], _ object: CheckedObject, _ key: String, _ path: String) -> LoadText? {
        do throws(LoadText.Failure) { return try LoadText(bytes) } catch {
            report(object, key, "\(path).\(key): byte \(error.offset + 1): \(error.message)")
            return nil
        }
    }

    private mutating func body(_ object: CheckedObject, _ method: String, _ path: String) -> LoadText? {
        if object.places["body"] != nil, object.places["body-file"] != nil {
            report(object, "body-file", "\(path): give one of body and body-file")
            return nil
        }
        if method == "get" || method == "head", let key = ["body", "body-file"].first(where: { object.places[$0] != nil }) {
            report(object, key, "\(path).\(key): a \(method.uppercased()) has no body")
            return nil
        }
        if let text = object.string("body") { return checkedBody(Array(text.utf8), object, "body", path) }
        guard let name = object.string("body-file") else { return nil }
        do throws(SystemError) { return checkedBody(try readFile(name), object, "body-file", path) } catch {
            report(object, "body-file", "\(path).body-file: \(error)")
            return nil
        }
    }

    private mutating func checkedBody(_ bytes: [UInt8], _ object: CheckedObject, _ key: String, _ path: String) -> LoadText? {
        guard bytes.count <= LoadText.mostBytes else {
            report(object, key, "\(path).\(key): at most \(LoadText.mostBytes >> 20) MiB, found \(bytes.count) bytes")
            return nil
        }
        return text(bytes, object, key, path)
    }

    private mutating func headers(_ object: CheckedObject, _ path: String) -> [(name: String, value: String)] {
        var out: [(name: String, value: String)] = []
        let ours = ["content-length", "transfer-encoding", "connection", "expect", "upgrade", "te"]
        for entry in object.map("headers") {
            guard case .string(let value) = entry.value else { continue }
            if !SchemaChecker.isToken(entry.name) {
                checker.report(entry.line, entry.column, "\(path).headers: '\(entry.name)' is no name of a header field")
            }
            if ours.contains(entry.name.lowercased()) {
                checker.report(entry.line, entry.column, "\(path).headers: '\(entry.name)' is set by the load generator itself")
            }
            if !value.utf8.allSatisfy({ $0 >= 32 && $0 != 127 }) || value.utf8.count > 4096 {
                checker.report(
                    entry.line, entry.column, "\(path).headers.\(entry.name): a value has no control characters and at most 4096 bytes")
            }
            out.append((entry.name, value))
        }
        return out
    }

    // MARK: phases

    private static let shapes = ["rate", "users", "ramp", "step", "spike"]

    private mutating func phase(_ object: CheckedObject, _ path: String) -> LoadPhase? {
        let given = ScenarioReader.shapes.filter { object.places[$0] != nil }
        guard given.count == 1, let key = given.first else {
            checker.report(
                object.line, object.column,
                "\(path): give one of \(ScenarioReader.shapes.joined(separator: ", ")); found "
                    + "\(given.isEmpty ? "none" : given.joined(separator: " and "))"
            )
            return nil
        }
        if object.places["steps"] != nil, key != "step" { report(object, "steps", "\(path).steps: only a step has steps") }
        guard let text = object.string(key), let levels = levels(text, object, key, path) else { return nil }
        guard let duration = object.duration("for") else { return nil }
        if duration < .milliseconds(100) || duration > Scenario.longest {
            report(object, "for", "\(path).for: expected 100ms to \(Scenario.longest.brief), found \(duration.brief)")
            return nil
        }
        var think = Duration.zero ... .zero
        if let text = object.string("think") {
            if levels.unit == .arrivals {
                report(object, "think", "\(path).think: requests of a rate have no users who think; with users: it has")
                return nil
            }
            guard let range = ScenarioReader.thinkTime(text) else {
                report(object, "think", "\(path).think: expected a time such as 1s or 500ms..1500ms, at most 1h, found '\(text)'")
                return nil
            }
            think = range
        }
        let shape: LoadPhase.Shape =
            switch key {
            case "ramp": .ramp
            case "step": .step(object.integer("steps") ?? 5)
            case "spike": .spike
            default: .hold
            }
        return LoadPhase(levels.unit, shape, from: levels.from, to: levels.to, duration: duration, think: think)
    }

    private mutating func levels(
        _ text: String, _ object: CheckedObject, _ key: String, _ path: String
    ) -> (unit: LoadPhase.Unit, from: Double, to: Double)? {
        let needsTwo = key == "ramp" || key == "step"
        let words = text.split(separator: "..", omittingEmptySubsequences: false).map(String.init)
        let unit: LoadPhase.Unit = key == "rate" || (key != "users" && text.contains("/")) ? .arrivals : .users
        if words.count == (needsTwo ? 2 : 1), let from = ScenarioReader.level(words[0], unit),
            let to = ScenarioReader.level(words[words.count - 1], unit)
        {
            // A level of 0 makes sense only on the way to another.
            if from > 0 || to > 0 { return (unit, from, to) }
        }
        let rate = "a rate up to \(Int(clamped: mostArrivals))/s", users = "up to \(mostUsers) users"
        let expected: String =
            switch key {
            case "rate": "\(rate) such as 200/s"
            case "users": "\(users) such as 1000"
            case "spike": "\(rate) such as 2000/s, or \(users) such as 5000"
            default: "two levels such as 200/s..1000/s or 0..1000, \(rate) or \(users)"
            }
        report(object, key, "\(path).\(key): expected \(expected), found '\(text)'")
        return nil
    }

    private static func level(_ text: String, _ unit: LoadPhase.Unit) -> Double? {
        if text == "0" || text == "0/s" { return 0 }
        if unit == .arrivals { return arrivalRate(text) }
        return Int(text).flatMap { (1...mostUsers).contains($0) && text.first != "+" ? Double($0) : nil }
    }

    /// `1s` or `500ms..1500ms`, at most an hour.
    static func thinkTime(_ text: String) -> ClosedRange<Duration>? {
        let words = text.split(separator: "..", omittingEmptySubsequences: false).map(String.init)
        guard words.count <= 2, let low = Duration(text: words[0]), let high = Duration(text: words[words.count - 1]) else { return nil }
        guard low <= high, high <= .seconds(3600) else { return nil }
        return low...high
    }
}

/// `1s` or `500ms..1500ms` as the range it is chosen from; nil for anything else, and above an hour.
public func thinkTime(_ text: String) -> ClosedRange<Duration>? { ScenarioReader.thinkTime(text) }
