import Autoscaling
import Balancing
import Basics
import Patterns
import StackModel

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
                if spec.takesExtensions, name.hasPrefix("x-") { continue }
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
        case .command:
            if case .sequence = node.content { return list(node, .string, path) }
            return check(node, .string, path)
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
        if !isQuoted, SchemaChecker.nulls.contains(text) {
            report(node.line, node.column, "\(path): \(text) is nothing in YAML; put it in quotes if it is a text, or leave the key out")
            return nil
        }
        if case .regex = type, let reason = SchemaChecker.flaw(ofExpression: text) {
            report(node.line, node.column, "\(path): '\(text)' is no regular expression: \(reason)")
            return nil
        }
        if let checked = SchemaChecker.scalar(text, type) { return checked }
        if case .pathPattern = type, let reason = SchemaChecker.flaw(ofPath: text) {
            report(node.line, node.column, "\(path): '\(text)' \(reason)")
            return nil
        }
        var choices: [String]?
        if case .choice(let words) = type { choices = words }
        if case .balance = type { choices = RouteSpec.balanceMethods + ["hash(header:NAME)", "hash(cookie:NAME)"] }
        if let words = choices {
            let hint = nearest(to: text, in: words).map { "; did you mean '\($0)'?" } ?? ""
            report(node.line, node.column, "\(path): '\(text)' is none of \(words.joined(separator: ", "))\(hint)")
            return nil
        }
        return wrong(node, path, SchemaChecker.bounds(text, type) ?? SchemaChecker.expected(type))
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

    /// How YAML writes that there is no value.
    private static let nulls: Set<String> = ["~", "null", "Null", "NULL"]

    /// Why no request could have a path that this expression matches; nil when one may.
    private static func flaw(ofExpression text: String) -> String? {
        do throws(Pattern.Failure) { _ = try Pattern(text) } catch { return "\(error)" }
        guard text.utf8.allSatisfy({ $0 < 128 }) else {
            return "a path is sent in ASCII, so other characters are matched as escapes: é is %C3%A9"
        }
        return nil
    }

    /// Why a path cannot be compared with what clients send; nil when it is only no path.
    private static func flaw(ofPath text: String) -> String? {
        guard text.hasPrefix("/") else { return nil }
        if let other = text.unicodeScalars.first(where: { $0.value <= 32 || $0.value >= 127 }) {
            let escapes = String(other).utf8.map { "%" + ($0 < 16 ? "0" : "") + String($0, radix: 16, uppercase: true) }.joined()
            return "has a character that a path is not sent with: write \(escapes)"
        }
        if text.contains("?") || text.contains("#") { return "is more than a path: a path has no '?' and no '#'" }
        return
            "can be read in more than one way ('.' or '..' as a segment, a backslash, %00, a bad escape), and the gateway refuses such paths"
    }

    /// Digits, with at most three more after a point, as thousandths. Nothing else that a number could be written as: what is taken is exactly
    /// what stands there.
    static func thousandths(_ text: some StringProtocol) -> Int? {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count), parts.allSatisfy({ !$0.isEmpty && $0.utf8.allSatisfy { $0 &- 48 < 10 } }),
            parts[0].utf8.count <= 12, let whole = Int(parts[0])
        else { return nil }
        guard parts.count == 2 else { return whole * 1000 }
        guard parts[1].utf8.count <= 3, let rest = Int(parts[1]) else { return nil }
        return whole * 1000 + rest * [100, 10, 1][parts[1].utf8.count - 1]
    }

    /// Digits only, at most 18 of them.
    static func digits(_ text: some StringProtocol) -> Int? {
        !text.isEmpty && text.utf8.count <= 18 && text.utf8.allSatisfy { $0 &- 48 < 10 } ? Int(text) : nil
    }

    static func scalar(_ text: String, _ type: ValueType) -> Checked? {
        switch type {
        case .string: .string(text)
        case .name: isName(text) ? .string(text) : nil
        case .integer(let range): Int(text).flatMap { range.contains($0) ? .integer($0) : nil }
        case .boolean: text == "true" ? .boolean(true) : text == "false" ? .boolean(false) : nil
        case .duration(let range, let orZero):
            Duration(text: text).flatMap { range.contains($0) || orZero && $0 == .zero ? .duration($0) : nil }
        case .percent: percent(text).map(Checked.fraction)
        case .size(let range): bytes(text).flatMap { range.contains($0) ? .integer($0) : nil }
        case .cpu: millicores(text).map(Checked.integer)
        case .address: ListenAddress(text).map(Checked.address)
        case .replicas: replicas(text).map(Checked.range)
        case .path: text.hasPrefix("/") && text.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != 63 && $0 != 35 } ? .string(text) : nil
        case .pathPattern:
            if case .string? = scalar(text, .path), !Array(text.utf8).withUnsafeBytes(PathForm.isAmbiguous) {
                .string(PathForm.canonical(text))
            } else {
                nil
            }
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
        case .path, .pathPattern: "a path that begins with /"
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
        case .command: "a program with its arguments: a list of words, or one line"
        case .list: "a list"
        case .map: "names, each with its value"
        case .object(let spec), .objectOr(let spec, _): spec.title
        }
    }

    /// What is expected instead of a value of the right form beyond its bounds; nil when that is not what is wrong with it.
    private static func bounds(_ text: String, _ type: ValueType) -> String? {
        switch type {
        case .duration(let range, let orZero):
            guard Duration(text: text) != nil else { return nil }
            let most = range.upperBound == ValueType.longestTime ? "" : " and at most \(range.upperBound.brief)"
            return "a time of at least \(range.lowerBound.brief)\(most)\(orZero ? ", or 0s" : "")"
        case .size(let range):
            guard bytes(text) != nil else { return nil }
            return "a size from \(sizeText(range.lowerBound)) to \(sizeText(range.upperBound))"
        default: return nil
        }
    }

    /// `64Mi`
    static func sizeText(_ bytes: Int) -> String {
        for (unit, name) in [(1 << 40, "Ti"), (1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")] where bytes >= unit && bytes % unit == 0 {
            return "\(bytes / unit)\(name)"
        }
        return String(bytes)
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
        guard text.hasSuffix("%"), let value = thousandths(text.dropLast()), value <= 100_000 else { return nil }
        return Double(value) / 100_000
    }

    /// RFC 9110's token, at most 64 bytes.
    static func isToken(_ text: some StringProtocol) -> Bool {
        !text.isEmpty && text.utf8.count <= 64
            && text.utf8.allSatisfy { ($0 | 32) &- 97 < 26 || $0 &- 48 < 10 || "!#$%&'*+-.^_`|~".utf8.contains($0) }
    }

    /// `5/min` as so many a second.
    static func rate(_ text: String) -> Double? {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, let count = digits(parts[0]), (1...1_000_000).contains(count) else { return nil }
        let seconds: [Substring: Double] = ["s": 1, "min": 60, "h": 3600]
        return seconds[parts[1]].map { Double(count) / $0 }
    }

    /// Kubernetes' suffixes: k M G decimal, Ki Mi Gi binary; also KiB MiB GiB, as people write them.
    static func bytes(_ text: String) -> Int? {
        let units: [(String, Int)] = [
            ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("k", 1000),
            ("M", 1_000_000), ("G", 1_000_000_000), ("", 1),
        ]
        for (suffix, factor) in units where text.hasSuffix(suffix) {
            guard let number = digits(text.dropLast(suffix.count)), number > 0 else { return nil }
            let (product, overflow) = number.multipliedReportingOverflow(by: factor)
            return overflow || product > ValueType.largestSize ? nil : product
        }
        return nil
    }

    static func millicores(_ text: String) -> Int? {
        let value = text.hasSuffix("m") ? digits(text.dropLast()) : thousandths(text)
        return value.flatMap { (1...1_000_000).contains($0) ? $0 : nil }
    }

    /// `70%` as a fraction, anything else as what it is of. Above a hundred too: a request is no limit.
    static func usage(_ text: String, _ kind: UsageKind) -> Checked? {
        if text.hasSuffix("%") { return digits(text.dropLast()).flatMap { (1...1000).contains($0) ? .fraction(Double($0) / 100) : nil } }
        return (kind == .cpu ? millicores(text) : bytes(text)).map(Checked.integer)
    }

    /// Thousandths, up to a billion.
    static func amount(_ text: String) -> Int? {
        thousandths(text).flatMap { (1...1_000_000_000_000).contains($0) ? $0 : nil }
    }

    /// `3`, or `3..20`: two numbers with exactly two dots between them.
    static func replicas(_ text: String) -> ClosedRange<Int>? {
        let parts = text.split(separator: "..", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count), let low = digits(parts[0]), let high = digits(parts[parts.count - 1]), low <= high,
            high <= ServiceSpec.replicaLimit
        else { return nil }
        return low...high
    }
}
