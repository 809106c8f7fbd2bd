import Basics
import JSONCoding

/// Messages described as data: which field has which number, name and type. One description checks bytes, and reads and
/// writes protobuf's JSON form.
public struct ProtobufSchema: Sendable {
    /// The deepest nesting of messages that is read. Protobuf libraries refuse deeper nesting as well (their default is 100).
    public static let depthLimit = 64

    public enum Kind: Sendable, Equatable {
        /// UTF-8.
        case string
        /// Base64 in JSON.
        case bytes
        /// Bytes that JSON writes in hexadecimal (OTLP's trace and span ids).
        case hex
        case bool
        /// Varints. JSON has 64-bit ones as strings.
        case int32, uint32, int64, enumeration
        case fixed64, fixed32, double
        /// Another message of this schema, by its index.
        case message(Int)

        public var wire: ProtobufField.Wire {
            switch self {
            case .string, .bytes, .hex, .message: .bytes
            case .bool, .int32, .uint32, .int64, .enumeration: .varint
            case .fixed64, .double: .fixed64
            case .fixed32: .fixed32
            }
        }
    }

    public struct Field: Sendable {
        public let number: Int
        /// lowerCamelCase.
        public let name: StaticString
        public let kind: Kind
        public let repeated: Bool

        public init(_ number: Int, _ name: StaticString, _ kind: Kind, repeated: Bool = false) {
            self.number = number
            self.name = name
            self.kind = kind
            self.repeated = repeated
        }
    }

    public struct Message: Sendable {
        public let name: String
        /// In ascending order of their numbers.
        public let fields: [Field]
        /// By number; all of ours are small.
        let byNumber: [Field?]

        public init(_ name: String, _ fields: [Field]) {
            self.name = name
            self.fields = fields
            var table = [Field?](repeating: nil, count: (fields.map(\.number).max() ?? 0) + 1)
            for field in fields { table[field.number] = field }
            byNumber = table
        }
    }

    public let messages: [Message]
    /// Kinds as flat tables, so that checking touches no strings and no reference counts.
    private let shapes: [[Shape]]

    private struct Shape: Sendable {
        var known = false
        var wire: ProtobufField.Wire = .varint
        var isText = false
        /// -1: no message.
        var message = -1
    }

    public init(_ messages: [Message]) {
        self.messages = messages
        shapes = messages.map { message in
            message.byNumber.map { field in
                guard let field else { return Shape() }
                var shape = Shape(known: true, wire: field.kind.wire, isText: field.kind == .string)
                if case .message(let index) = field.kind { shape.message = index }
                return shape
            }
        }
    }

    /// Checks that `bytes` are a well-formed message of this kind to its innermost field, as the official parsers would find:
    /// lengths, wire types, UTF-8, nesting. Unknown fields pass.
    public func check(_ bytes: UnsafeRawBufferPointer, as message: Int) throws(ProtobufFailure) {
        var work = WorkBudget()
        try check(bytes, as: message, &work)
    }

    /// The same check, in which each field costs one part of the budget.
    public func check(_ bytes: UnsafeRawBufferPointer, as message: Int, _ work: inout WorkBudget, depth: Int = 0) throws(ProtobufFailure) {
        guard depth <= ProtobufSchema.depthLimit else { throw ProtobufFailure("nests more than \(ProtobufSchema.depthLimit) deep") }
        var reader = ProtobufReader(bytes)
        while let field = try reader.next() {
            try work.spend()
            guard field.number < shapes[message].count else { continue }
            let shape = shapes[message][field.number]
            guard shape.known else { continue }
            guard shape.wire == field.wire else {
                throw ProtobufFailure("\(messages[message].name).\(messages[message].byNumber[field.number]!.name) has the wrong wire type")
            }
            if shape.message >= 0 {
                try check(field.bytes, as: shape.message, &work, depth: depth + 1)
            } else if shape.isText, !field.bytes.isValidUTF8 {
                throw ProtobufFailure("\(messages[message].name).\(messages[message].byNumber[field.number]!.name) is not UTF-8")
            }
        }
    }
}
