import Basics

/// Why a value is not what was asked for.
public struct PostgresDecodingFailure: Error, Equatable, Sendable, CustomStringConvertible {
    /// The column's name, or its number where it has none of that name.
    public let column: String
    /// The type's OID, as the server names it.
    public let type: UInt32
    /// What was asked for, and why it is not that. The value itself is not quoted.
    public let reason: String

    public var description: String { "column \(column) (type \(type)): \(reason)" }
}

/// A value as it came: its bytes, their format and type. Valid only inside of the call that it is handed to.
public struct PostgresCell {
    public let bytes: UnsafeRawBufferPointer
    public let isBinary: Bool
    public let type: UInt32

    public init(bytes: UnsafeRawBufferPointer, isBinary: Bool, type: UInt32) {
        self.bytes = bytes
        self.isBinary = isBinary
        self.type = type
    }

    /// The bytes as UTF-8; nil when they are not.
    var text: String? { String(validating: bytes, as: UTF8.self) }

    /// A big-endian integer of 2, 4 or 8 bytes; nil for another length.
    var integer: Int64? {
        switch bytes.count {
        case 2: Int64(Int16(bigEndian: bytes.loadUnaligned(as: Int16.self)))
        case 4: Int64(Int32(bigEndian: bytes.loadUnaligned(as: Int32.self)))
        case 8: Int64(bigEndian: bytes.loadUnaligned(as: Int64.self))
        default: nil
        }
    }
}

/// OIDs of types that are the same in every PostgreSQL (its catalog pg_type.dat).
enum PostgresType {
    static let bool: UInt32 = 16, bytea: UInt32 = 17, char: UInt32 = 18, name: UInt32 = 19, int8: UInt32 = 20, int2: UInt32 = 21
    static let int4: UInt32 = 23, text: UInt32 = 25, oid: UInt32 = 26, json: UInt32 = 114, float4: UInt32 = 700, float8: UInt32 = 701
    static let bpchar: UInt32 = 1042, varchar: UInt32 = 1043, timestamp: UInt32 = 1114, timestamptz: UInt32 = 1184, numeric: UInt32 = 1700
    static let uuid: UInt32 = 2950, jsonb: UInt32 = 3802, unknown: UInt32 = 705
}

/// A Swift value that a column may be read as. Decoding is checked: what does not fit is told and never cut.
public protocol PostgresDecodable {
    /// For messages: `a whole number`.
    static var wanted: String { get }
    /// nil when the cell is none of these.
    init?(cell: PostgresCell)
}

extension PostgresRow {
    /// The value of column `place` as `T`. NULL is a failure; ask `optional` where there may be one.
    public func value<T: PostgresDecodable>(_ place: Int, as type: T.Type = T.self) throws(PostgresDecodingFailure) -> T {
        guard let value = try optional(place, as: type) else { throw failure(place, "it is NULL, and \(T.wanted) was asked for") }
        return value
    }

    /// The value of column `place` as `T`; nil is NULL.
    public func optional<T: PostgresDecodable>(_ place: Int, as type: T.Type = T.self) throws(PostgresDecodingFailure) -> T? {
        guard place >= 0, place < columns.all.count else { throw failure(place, "there are \(columns.all.count) columns") }
        let column = columns.all[place]
        return try withValue(place) { (bytes) throws(PostgresDecodingFailure) in
            guard let bytes else { return nil }
            let cell = PostgresCell(bytes: bytes, isBinary: column.format == 1, type: column.type)
            guard let value = T(cell: cell) else {
                throw failure(place, "\(bytes.count) bytes of \(cell.isBinary ? "binary" : "text") are not \(T.wanted)")
            }
            return value
        }
    }

    public func value<T: PostgresDecodable>(_ name: String, as type: T.Type = T.self) throws(PostgresDecodingFailure) -> T {
        try value(try place(name), as: type)
    }

    public func optional<T: PostgresDecodable>(_ name: String, as type: T.Type = T.self) throws(PostgresDecodingFailure) -> T? {
        try optional(try place(name), as: type)
    }

    private func place(_ name: String) throws(PostgresDecodingFailure) -> Int {
        guard let place = columns.place(of: name) else {
            throw PostgresDecodingFailure(
                column: name, type: 0, reason: "there is none; there are \(columns.names.joined(separator: ", "))")
        }
        return place
    }

    private func failure(_ place: Int, _ reason: String) -> PostgresDecodingFailure {
        let isThere = place >= 0 && place < columns.all.count
        return PostgresDecodingFailure(
            column: isThere ? columns.names[place] : "\(place)", type: isThere ? columns.all[place].type : 0, reason: reason)
    }
}

// MARK: the common types

extension PostgresDecodable where Self: FixedWidthInteger {
    public static var wanted: String { "a whole number of \(bitWidth) bits" }

    public init?(cell: PostgresCell) {
        if !cell.isBinary {
            guard let text = cell.text, let value = Self(text) else { return nil }
            self = value
        } else if cell.type == PostgresType.oid {
            guard cell.bytes.count == 4, let value = Self(exactly: UInt32(bigEndian: cell.bytes.loadUnaligned(as: UInt32.self))) else {
                return nil
            }
            self = value
        } else {
            guard [PostgresType.int2, PostgresType.int4, PostgresType.int8].contains(cell.type), let number = cell.integer,
                let value = Self(exactly: number)
            else { return nil }
            self = value
        }
    }
}

extension Int: PostgresDecodable {}
extension Int16: PostgresDecodable {}
extension Int32: PostgresDecodable {}
extension Int64: PostgresDecodable {}
extension UInt32: PostgresDecodable {}

extension Bool: PostgresDecodable {
    public static var wanted: String { "true or false" }

    public init?(cell: PostgresCell) {
        guard cell.bytes.count == 1 else { return nil }
        switch (cell.bytes[0], cell.isBinary) {
        case (116, false), (1, true): self = true
        case (102, false), (0, true): self = false
        default: return nil
        }
    }
}

extension Double: PostgresDecodable {
    public static var wanted: String { "a number" }

    public init?(cell: PostgresCell) {
        guard cell.isBinary else {
            guard let text = cell.text else { return nil }
            switch text {
            case "NaN": self = .nan
            case "Infinity": self = .infinity
            case "-Infinity": self = -.infinity
            default:
                guard let value = Double(text), value.isFinite else { return nil }
                self = value
            }
            return
        }
        switch (cell.type, cell.bytes.count) {
        case (PostgresType.float8, 8): self = Double(bitPattern: UInt64(bigEndian: cell.bytes.loadUnaligned(as: UInt64.self)))
        case (PostgresType.float4, 4): self = Double(Float(bitPattern: UInt32(bigEndian: cell.bytes.loadUnaligned(as: UInt32.self))))
        default: return nil
        }
    }
}

extension String: PostgresDecodable {
    public static var wanted: String { "a text" }

    /// The text of the types that are one, of numeric (every digit of it), json, jsonb and uuid. What came as text is always one.
    public init?(cell: PostgresCell) {
        guard cell.isBinary else {
            guard let text = cell.text else { return nil }
            self = text
            return
        }
        let text: String? =
            switch cell.type {
            case PostgresType.numeric: PostgresNumeric.text(cell.bytes)
            case PostgresType.uuid: PostgresUUID(cell: cell)?.description
            case PostgresType.jsonb: cell.bytes.first == 1 ? String(validating: cell.bytes.dropFirst(), as: UTF8.self) : nil
            case PostgresType.text, PostgresType.varchar, PostgresType.bpchar, PostgresType.name, PostgresType.json, PostgresType.char,
                PostgresType.unknown:
                cell.text
            default: nil
            }
        guard let text else { return nil }
        self = text
    }
}

extension PostgresBytes: PostgresDecodable {
    public static var wanted: String { "bytes" }

    public init?(cell: PostgresCell) {
        if cell.isBinary {
            self.init(Array(cell.bytes))
        } else {
            // bytea_output = hex, the default.
            guard cell.bytes.count >= 2, cell.bytes[0] == 92, cell.bytes[1] == 120,
                let bytes = decodeHex(cell.bytes.part(2, cell.bytes.count - 2))
            else { return nil }
            self.init(bytes)
        }
    }
}

/// A UUID: 16 bytes.
public struct PostgresUUID: Hashable, Sendable, PostgresDecodable, PostgresEncodable, CustomStringConvertible {
    public static var wanted: String { "a UUID" }

    public let bytes: [UInt8]

    /// The form with or without hyphens; nil for another text.
    public init?(_ text: String) {
        let digits = text.utf8.filter { $0 != 45 }
        guard digits.count == 32, let bytes = digits.withUnsafeBytes({ decodeHex($0) }) else { return nil }
        self.bytes = bytes
    }

    public init?(cell: PostgresCell) {
        if cell.isBinary {
            guard cell.bytes.count == 16 else { return nil }
            bytes = Array(cell.bytes)
        } else {
            guard let text = cell.text, let value = PostgresUUID(text) else { return nil }
            self = value
        }
    }

    public var description: String {
        let digits = Array(bytes.withUnsafeBytes { hexText($0) })
        return [0..<8, 8..<12, 12..<16, 16..<20, 20..<32].map { String(digits[$0]) }.joined(separator: "-")
    }

    public var postgresValue: PostgresValue { .text(description) }
}
