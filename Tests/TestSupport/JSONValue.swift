import JSONCoding

/// A JSON value that a test keeps and compares; numbers that are whole are `int`.
public indirect enum JSONValue: Sendable, Equatable, CustomStringConvertible {
    case null
    case bool(Bool)
    case int(Int)
    case double(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    public init(_ element: JSONElement) {
        switch element.kind {
        case .null: self = .null
        case .bool: self = .bool(element.bool!)
        case .number: self = element.int.map(JSONValue.int) ?? .double(element.double!)
        case .string: self = .string(element.string!)
        case .array: self = .array(element.array!.map(JSONValue.init))
        case .object: self = .object(Dictionary(element.members!.map { ($0.key, JSONValue($0.value)) }) { $1 })
        }
    }

    public static func parse(_ bytes: [UInt8]) throws -> JSONValue { try JSONDocument().parse(bytes) { JSONValue($0) } }

    /// A member; `null` where there is none.
    public subscript(_ key: String) -> JSONValue {
        if case .object(let members) = self { members[key] ?? .null } else { .null }
    }

    public var members: [String: JSONValue] { if case .object(let members) = self { members } else { [:] } }
    public var list: [JSONValue] { if case .array(let list) = self { list } else { [] } }
    public var isNull: Bool { self == .null }
    public var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
    public var string: String? { if case .string(let value) = self { value } else { nil } }
    public var int: Int? {
        switch self {
        case .int(let value): value
        case .double(let value) where value == value.rounded(): Int(exactly: value)
        default: nil
        }
    }
    public var double: Double? {
        switch self {
        case .int(let value): Double(value)
        case .double(let value): value
        default: nil
        }
    }

    public var description: String {
        switch self {
        case .null: "null"
        case .bool(let value): "\(value)"
        case .int(let value): "\(value)"
        case .double(let value): "\(value)"
        case .string(let value): "\"\(value)\""
        case .array(let list): "[\(list.map(\.description).joined(separator: ", "))]"
        case .object(let members): "{\(members.sorted { $0.key < $1.key }.map { "\"\($0.key)\": \($0.value)" }.joined(separator: ", "))}"
        }
    }

    /// Every member of `self` is in `other` with an equal value (a number by its value, absent like null); nested members likewise.
    public func isContained(in other: JSONValue) -> Bool {
        switch (self, other) {
        case (.object(let wanted), .object): wanted.allSatisfy { $0.value.isContained(in: other[$0.key]) }
        case (.array(let wanted), .array(let given)):
            wanted.count == given.count && zip(wanted, given).allSatisfy { $0.isContained(in: $1) }
        case (.int, .double), (.double, .int): double == other.double
        default: self == other
        }
    }
}
