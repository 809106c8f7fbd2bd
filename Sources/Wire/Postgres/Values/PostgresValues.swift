import Basics

// Swift values as parameters. They go as text without a type, so that the server takes the type of the place where they stand, except for
// bytes, whose text form would have to be escaped.

extension PostgresValue: PostgresEncodable {
    public var postgresValue: PostgresValue { self }
}

extension String: PostgresEncodable {
    public var postgresValue: PostgresValue { .text(self) }
}

extension Bool: PostgresEncodable {
    public var postgresValue: PostgresValue { .text(self ? "t" : "f") }
}

extension Int: PostgresEncodable {
    public var postgresValue: PostgresValue { .text(String(self)) }
}

extension Int16: PostgresEncodable {
    public var postgresValue: PostgresValue { .text(String(self)) }
}

extension Int32: PostgresEncodable {
    public var postgresValue: PostgresValue { .text(String(self)) }
}

extension Int64: PostgresEncodable {
    public var postgresValue: PostgresValue { .text(String(self)) }
}

extension Double: PostgresEncodable {
    /// The shortest text that is read back as the same number; `NaN`, `Infinity` and `-Infinity` as PostgreSQL spells them.
    public var postgresValue: PostgresValue {
        if isNaN { return .text("NaN") }
        if isInfinite { return .text(self < 0 ? "-Infinity" : "Infinity") }
        return .text(description)
    }
}

extension Float: PostgresEncodable {
    public var postgresValue: PostgresValue {
        if isNaN { return .text("NaN") }
        if isInfinite { return .text(self < 0 ? "-Infinity" : "Infinity") }
        return .text(description)
    }
}

extension Optional: PostgresEncodable where Wrapped: PostgresEncodable {
    public var postgresValue: PostgresValue { self?.postgresValue ?? .null }
}

extension Array: PostgresEncodable where Element: PostgresEncodable {
    /// A one-dimensional array as PostgreSQL writes it: `{1,2,"a b",NULL}`.
    public var postgresValue: PostgresValue {
        var out: [UInt8] = [123]
        for (i, element) in enumerated() {
            if i > 0 { out.append(44) }
            let value = element.postgresValue
            guard let bytes = value.bytes else {
                out += [UInt8]("NULL".utf8)
                continue
            }
            out.append(34)
            if value.format == 1 {
                // Bytes: bytea's text form, whose backslash is doubled within an array.
                out += [UInt8]("\\\\x".utf8) + bytes.withUnsafeBytes { [UInt8](hexText($0).utf8) }
            } else {
                for byte in bytes {
                    if byte == 34 || byte == 92 { out.append(92) }
                    out.append(byte)
                }
            }
            out.append(34)
        }
        out.append(125)
        return PostgresValue(bytes: out, format: 0, type: 0)
    }
}

/// Bytes as a value of bytea.
public struct PostgresBytes: PostgresEncodable, Sendable, Hashable {
    public let bytes: [UInt8]

    public init(_ bytes: [UInt8]) { self.bytes = bytes }

    public var postgresValue: PostgresValue { PostgresValue(bytes: bytes, format: 1, type: 17) }
}
