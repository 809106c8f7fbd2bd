import Autoscaling
import Balancing
import Basics
import Patterns

/// Holds a YAML tree against its description and gathers everything that is wrong, not just the first thing.
struct SchemaChecker {
    let file: String
    /// What the file as a whole is called.
    let subject: String
    private(set) var problems: [Problem] = []
    private var hints = 0

    init(file: String, subject: String = "the stack") {
        self.file = file
        self.subject = subject
    }

    mutating func report(_ line: Int, _ column: Int, _ message: String) {
        problems.append(Problem(file: file, line: line, column: column, message: message))
    }

    /// For the first hundred problems: thousands of words against thousands of names would take minutes.
    mutating func nearest(to word: String, in known: [String]) -> String? {
        guard hints < 100 else { return nil }
        hints += 1
        return nearestWord(to: word, in: known)
    }

    private mutating func wrong(_ node: YAMLNode, _ path: String, _ expected: String) -> Checked? {
        report(node.line, node.column, "\(path): expected \(expected), found \(node.kind)")
        return nil
    }

    mutating func object(_ node: YAMLNode, _ spec: ObjectSpec, _ path: String) -> CheckedObject? {
        guard case .mapping(let pairs) = node.content else {
            report(
                node.line, node.column,
                "\(path.isEmpty ? "the file" : path): expected \(spec.title) (keys \(spec.keys.map(\.name).joined(separator: ", "))), "
                    + "found \(node.kind)"
            )
            return nil
        }
        var values: [String: Checked] = [:]
        var places: [String: (line: Int, column: Int)] = [:]
        for (keyNode, valueNode) in pairs {
            guard case .scalar(let name, _) = keyNode.content else { continue }
            guard let key = spec.key(name) else {
                let known = spec.keys.map(\.name)
                let hint =
                    nearest(to: name, in: known).map { "; did you mean '\($0)'?" } ?? "; known here: \(known.joined(separator: ", "))"
                report(keyNode.line, keyNode.column, "unknown key '\(name)' in \(path.isEmpty ? subject : path)\(hint)")
                continue
            }
            places[name] = (valueNode.line, valueNode.column)
            values[name] = check(valueNode, key.type, path.isEmpty ? name : "\(path).\(name)")
        }
        for key in spec.keys where key.isRequired && !pairs.contains(where: { isKey($0.key, key.name) }) {
            report(node.line, node.column, "\(path.isEmpty ? subject : path): '\(key.name)' is missing (\(key.about))")
        }
        return CheckedObject(line: node.line, column: node.column, values: values, places: places)
    }

    private func isKey(_ node: YAMLNode, _ name: String) -> Bool {
        if case .scalar(let text, _) = node.content { text == name } else { false }
    }

    mutating func check(_ node: YAMLNode, _ type: ValueType, _ path: String) -> Checked? {
        switch type {
        case .list(let element): return list(node, element, path)
        case .map(let element): return map(node, element, path)
        case .object(let spec): return object(node, spec, path).map(Checked.object)
        case .objectOr(let spec, let short):
            if case .scalar = node.content, let key = spec.key(short) {
                return check(node, key.type, path).map {
                    .object(
                        CheckedObject(line: node.line, column: node.column, values: [short: $0], places: [short: (node.line, node.column)]))
                }
            }
            return object(node, spec, path).map(Checked.object)
        default: break
        }
        guard case .scalar(let text, let isQuoted) = node.content, !text.isEmpty || isQuoted else {
            return wrong(node, path, SchemaChecker.expected(type))
        }
        if case .regex = type {
            do throws(Pattern.Failure) { _ = try Pattern(text) } catch {
                report(node.line, node.column, "\(path): '\(text)' is no regular expression: \(error)")
                return nil
            }
        }
        if let checked = SchemaChecker.scalar(text, type) { return checked }
        var choices: [String]?
        if case .choice(let words) = type { choices = words }
        if case .balance = type { choices = RouteSpec.balanceMethods + ["hash(header:NAME)", "hash(cookie:NAME)"] }
        if let words = choices {
            let hint = nearest(to: text, in: words).map { "; did you mean '\($0)'?" } ?? ""
            report(node.line, node.column, "\(path): '\(text)' is none of \(words.joined(separator: ", "))\(hint)")
            return nil
        }
        return wrong(node, path, SchemaChecker.expected(type))
    }

    private mutating func list(_ node: YAMLNode, _ element: ValueType, _ path: String) -> Checked? {
        guard case .sequence(let items) = node.content else {
            return check(node, element, path).map { .list([$0]) }
        }
        var out: [Checked] = []
        for (i, item) in items.enumerated() {
            if let checked = check(item, element, "\(path)[\(i)]") { out.append(checked) }
        }
        return .list(out)
    }

    private mutating func map(_ node: YAMLNode, _ element: ValueType, _ path: String) -> Checked? {
        guard case .mapping(let pairs) = node.content else { return wrong(node, path, "names, each with its value") }
        var out: [(name: String, value: Checked, line: Int, column: Int)] = []
        for (keyNode, valueNode) in pairs {
            guard case .scalar(let name, _) = keyNode.content else { continue }
            if let checked = check(valueNode, element, "\(path).\(name)") { out.append((name, checked, keyNode.line, keyNode.column)) }
        }
        return .map(out)
    }

    static func scalar(_ text: String, _ type: ValueType) -> Checked? {
        switch type {
        case .string: .string(text)
        case .name: isName(text) ? .string(text) : nil
        case .integer(let range): Int(text).flatMap { range.contains($0) ? .integer($0) : nil }
        case .boolean: text == "true" ? .boolean(true) : text == "false" ? .boolean(false) : nil
        case .duration: Duration(text: text).map(Checked.duration)
        case .percent: percent(text).map(Checked.fraction)
        case .size: bytes(text).map(Checked.integer)
        case .cpu: millicores(text).map(Checked.integer)
        case .address: ListenAddress(text).map(Checked.address)
        case .replicas: replicas(text).map(Checked.range)
        case .path: text.hasPrefix("/") && text.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != 63 && $0 != 35 } ? .string(text) : nil
        case .token: isToken(text) ? .string(text) : nil
        case .rate: rate(text).map { _ in .string(text) }
        case .usage(let kind): usage(text, kind)
        case .amount: amount(text).map(Checked.integer)
        case .hours: ScheduleFloor(text: text, replicas: 0).map { _ in .string(text) }
        case .limitKey:
            text == "client-ip" || text == "route" || text.hasPrefix("header:") && isToken(text.dropFirst(7)) ? .string(text) : nil
        case .balance: BalanceMethod(rawValue: text) != nil ? .string(text) : nil
        case .range: AddressRange(text).map { _ in .string(text) }
        case .regex: .string(text)
        case .choice(let words): words.contains(text) ? .string(text) : nil
        default: nil
        }
    }

    static func expected(_ type: ValueType) -> String {
        switch type {
        case .string: "a text"
        case .name: "a name of letters, digits and dashes"
        case .integer(let range): "a whole number from \(range.lowerBound) to \(range.upperBound)"
        case .boolean: "true or false"
        case .duration: "a time with its unit, such as 250ms, 5s or 2m"
        case .percent: "a percentage such as 20%"
        case .size: "a size such as 512Mi or 2Gi"
        case .cpu: "cores such as 500m or 2"
        case .address: "a port or host:port, such as 8080 or 127.0.0.1:8080"
        case .replicas: "a number or a range, such as 3 or 3..20"
        case .path: "a path that begins with /"
        case .token: "a name of letters, digits and dashes"
        case .rate: "a rate such as 100/s, 5/min or 1000/h"
        case .usage(of: .cpu): "a share of the requested cores such as 70%, or cores such as 400m"
        case .usage(of: .size): "a share of the requested memory such as 80%, or a size such as 400Mi"
        case .amount: "a number above 0, such as 800 or 0.5"
        case .hours: "hours such as 08:00-18:00 or Mon-Fri 08:00-18:00"
        case .limitKey: "client-ip, route or header:NAME"
        case .balance: "a way to balance, such as least-connections"
        case .range: "an address or a range such as 10.0.0.0/8"
        case .regex: "a regular expression"
        case .choice(let words): "one of \(words.joined(separator: ", "))"
        case .list: "a list"
        case .map: "names, each with its value"
        case .object(let spec), .objectOr(let spec, _): spec.title
        }
    }

    /// 1 to 63 letters, digits, dashes; begins and ends with a letter or digit (a DNS label, which Kubernetes wants too).
    static func isName(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        func alphanumeric(_ b: UInt8) -> Bool { (b | 32) &- 97 < 26 || b &- 48 < 10 }
        guard let first = bytes.first, let last = bytes.last, bytes.count <= 63, alphanumeric(first), alphanumeric(last) else {
            return false
        }
        return bytes.allSatisfy { alphanumeric($0) || $0 == 45 }
    }

    static func percent(_ text: String) -> Double? {
        guard text.hasSuffix("%"), let value = Double(text.dropLast()), value >= 0, value <= 100 else { return nil }
        return value / 100
    }

    /// RFC 9110's token, at most 64 bytes.
    static func isToken(_ text: some StringProtocol) -> Bool {
        !text.isEmpty && text.utf8.count <= 64
            && text.utf8.allSatisfy { ($0 | 32) &- 97 < 26 || $0 &- 48 < 10 || "!#$%&'*+-.^_`|~".utf8.contains($0) }
    }

    /// `5/min` as so many a second.
    static func rate(_ text: String) -> Double? {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, let count = Int(parts[0]), (1...1_000_000).contains(count), parts[0].first != "+" else { return nil }
        let seconds: [Substring: Double] = ["s": 1, "min": 60, "h": 3600]
        return seconds[parts[1]].map { Double(count) / $0 }
    }

    /// Kubernetes' suffixes: k M G decimal, Ki Mi Gi binary.
    static func bytes(_ text: String) -> Int? {
        let units: [(String, Int)] = [
            ("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("k", 1000), ("M", 1_000_000), ("G", 1_000_000_000), ("", 1),
        ]
        for (suffix, factor) in units where text.hasSuffix(suffix) {
            guard let number = Int(text.dropLast(suffix.count)), number > 0 else { return nil }
            let (product, overflow) = number.multipliedReportingOverflow(by: factor)
            return overflow || product > 1 << 46 ? nil : product
        }
        return nil
    }

    static func millicores(_ text: String) -> Int? {
        if text.hasSuffix("m") { return Int(text.dropLast()).flatMap { (1...1_000_000).contains($0) ? $0 : nil } }
        return Double(text).flatMap { $0 >= 0.001 && $0 <= 1000 ? Int($0 * 1000) : nil }
    }

    /// `70%` as a fraction, anything else as what it is of. Above a hundred too: a request is no limit.
    static func usage(_ text: String, _ kind: UsageKind) -> Checked? {
        if text.hasSuffix("%") { return Int(text.dropLast()).flatMap { (1...1000).contains($0) ? .fraction(Double($0) / 100) : nil } }
        return (kind == .cpu ? millicores(text) : bytes(text)).map(Checked.integer)
    }

    /// Thousandths, up to a billion.
    static func amount(_ text: String) -> Int? {
        guard text.utf8.allSatisfy({ $0 &- 48 < 10 || $0 == 46 }), let value = Double(text), value >= 0.001, value <= 1e9 else {
            return nil
        }
        return Int((value * 1000).rounded())
    }

    static let replicaLimit = 1000

    static func replicas(_ text: String) -> ClosedRange<Int>? {
        if let number = Int(text) { return (0...replicaLimit).contains(number) ? number...number : nil }
        let parts = text.split(separator: ".", omittingEmptySubsequences: true)
        guard parts.count == 2, text.contains(".."), let low = Int(parts[0]), let high = Int(parts[1]), low >= 0, low <= high,
            high <= replicaLimit
        else { return nil }
        return low...high
    }
}
