import Basics

/// A value on its way to the server: a parameter of a statement.
///
/// Most are sent as text without a type, as libpq does: the server then takes the type that the statement has at that place.
public struct PostgresValue: Sendable, Hashable {
    /// nil is NULL.
    public let bytes: [UInt8]?
    /// 0: text, 1: binary.
    public let format: Int16
    /// The OID of the type; 0: the server finds it.
    public let type: UInt32

    public init(bytes: [UInt8]?, format: Int16, type: UInt32) {
        self.bytes = bytes
        self.format = format
        self.type = type
    }

    public static let null = PostgresValue(bytes: nil, format: 0, type: 0)
    public static func text(_ text: String, type: UInt32 = 0) -> PostgresValue {
        PostgresValue(bytes: Array(text.utf8), format: 0, type: type)
    }
}

/// A Swift value that can be a parameter.
public protocol PostgresEncodable {
    var postgresValue: PostgresValue { get }
}

/// One statement for the extended protocol: a text with `$1`, `$2`, … and their values.
public struct PostgresStatement: Sendable {
    public var text: String
    public var values: [PostgresValue]
    /// Whether the connection keeps it prepared under a name: the next time only values are sent. Without, it is parsed each time and leaves
    /// nothing behind.
    public var isKept = true
    /// The format in which the server sends the values of the rows.
    public var resultFormat = Format.text
    /// Time limit from its submission to its answer; nil: that of the connection's limits.
    public var within: Duration?

    public enum Format: Int16, Sendable {
        case text = 0
        case binary = 1
    }

    public init(_ text: String, values: [PostgresValue]) {
        self.text = text
        self.values = values
    }

    public init(_ text: String, _ values: any PostgresEncodable...) { self.init(text, values: values.map(\.postgresValue)) }

    /// A count of parameters on the wire has 16 bits without a sign.
    static let parameterLimit = 65_535
}
