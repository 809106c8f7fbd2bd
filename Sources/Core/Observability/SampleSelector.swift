/// Selects samples of a metrics page: `name` or `name{label="value",other!="value"}`, as Prometheus writes it.
///
/// A label that a sample does not have counts as the empty value, as in Prometheus. Expressions (`=~`, `!~`) are refused: a metric that a
/// service is scaled by should be named.
public struct SampleSelector: Sendable, Hashable, CustomStringConvertible {
    /// Why a text is no selector; `column` counts bytes from 1.
    public struct Failure: Error, Equatable, CustomStringConvertible {
        /// What is wrong with the text, and what would be right.
        public let reason: String
        /// The place of the fault, in bytes from 1; one behind the last byte when the text ends too early.
        public let column: Int
        public var description: String { "column \(column): \(reason)" }
    }

    /// One condition on a label.
    public struct Condition: Sendable, Hashable {
        let label: [UInt8]
        let value: [UInt8]
        let isEqual: Bool
    }

    /// The metric's name, in ASCII.
    public let name: String
    let nameBytes: [UInt8]
    let conditions: [Condition]

    /// The longest text that is read, in bytes: a selector is written by hand.
    public static let lengthLimit = 1024

    /// Reads a selector; blanks around names, values and signs are allowed, and a comma before the closing brace.
    public init(_ text: String) throws(Failure) {
        var reader = SelectorReader(bytes: Array(text.utf8))
        guard reader.bytes.count <= SampleSelector.lengthLimit else {
            throw Failure(reason: "a selector has at most \(SampleSelector.lengthLimit) bytes", column: SampleSelector.lengthLimit + 1)
        }
        reader.skipBlanks()
        nameBytes = try reader.name("a metric's name, such as queue_depth", colons: true)
        name = String(decoding: nameBytes, as: UTF8.self)
        reader.skipBlanks()
        conditions = try reader.conditions()
        reader.skipBlanks()
        guard reader.isAtEnd else { throw reader.failure("expected the end, or conditions in braces") }
    }

    /// Whether a sample with these labels is meant; its name is not looked at.
    func takes(_ labels: [ExpositionSample.Label]) -> Bool {
        conditions.allSatisfy { condition in
            let given = labels.first { $0.name == condition.label }?.value ?? []
            return (given == condition.value) == condition.isEqual
        }
    }

    /// The selector as text, always in the same form; reading that text gives the same selector.
    public var description: String {
        if conditions.isEmpty { return name }
        let parts = conditions.map { condition -> String in
            var value: [UInt8] = []
            for byte in condition.value {
                switch byte {
                case 10: value += [92, 110]
                case 34, 92: value += [92, byte]
                default: value.append(byte)
                }
            }
            let sign = condition.isEqual ? "=" : "!="
            return "\(String(decoding: condition.label, as: UTF8.self))\(sign)\"\(String(decoding: value, as: UTF8.self))\""
        }
        return "\(name){\(parts.joined(separator: ","))}"
    }
}

private struct SelectorReader {
    let bytes: [UInt8]
    var at = 0

    init(bytes: [UInt8]) { self.bytes = bytes }

    var isAtEnd: Bool { at == bytes.count }
    var next: UInt8? { isAtEnd ? nil : bytes[at] }

    func failure(_ reason: String) -> SampleSelector.Failure { SampleSelector.Failure(reason: reason, column: at + 1) }

    mutating func skipBlanks() { while let byte = next, byte == 32 || byte == 9 { at += 1 } }

    mutating func name(_ what: String, colons: Bool) throws(SampleSelector.Failure) -> [UInt8] {
        let start = at
        while let byte = next, ExpositionText.isName(byte, first: at == start, colons: colons) { at += 1 }
        guard at > start else { throw failure("expected \(what)") }
        return Array(bytes[start..<at])
    }

    /// What stands in braces; nothing, when there are none.
    mutating func conditions() throws(SampleSelector.Failure) -> [SampleSelector.Condition] {
        guard next == 123 else { return [] }
        at += 1
        var conditions: [SampleSelector.Condition] = []
        skipBlanks()
        while next != 125 {
            conditions.append(try condition())
            skipBlanks()
            if next == 44 {
                at += 1
                skipBlanks()
            } else if next != 125 {
                throw failure("expected , or }")
            }
        }
        at += 1
        return conditions
    }

    private mutating func condition() throws(SampleSelector.Failure) -> SampleSelector.Condition {
        let label = try name("a label's name or }", colons: false)
        skipBlanks()
        let isEqual = next != 33
        if !isEqual { at += 1 }
        if next == 126 { throw failure("expressions are not taken; name the value with = or !=") }
        guard next == 61 else { throw failure("expected = or !=") }
        at += 1
        if next == 126 { throw failure("expressions are not taken; name the value with = or !=") }
        skipBlanks()
        return SampleSelector.Condition(label: label, value: try quoted(), isEqual: isEqual)
    }

    private mutating func quoted() throws(SampleSelector.Failure) -> [UInt8] {
        guard next == 34 else { throw failure("expected a value in \" \"") }
        at += 1
        var value: [UInt8] = []
        while let byte = next, byte != 34 {
            at += 1
            guard byte == 92 else {
                value.append(byte)
                continue
            }
            switch next {
            case 110: value.append(10)
            case 34, 92: value.append(bytes[at])
            default: throw failure("after \\ stands \\, \" or n")
            }
            at += 1
        }
        guard next == 34 else { throw failure("the value has no closing \"") }
        at += 1
        return value
    }
}
