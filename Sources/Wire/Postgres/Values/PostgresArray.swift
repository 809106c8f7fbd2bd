import Basics

extension Array: PostgresDecodable where Element: PostgresDecodable {
    public static var wanted: String { "an array of \(Element.wanted)" }

    /// An array of one dimension without NULL. Other bounds than from 1 are not kept.
    public init?(cell: PostgresCell) {
        guard let elements = PostgresArrayReader.elements(cell) else { return nil }
        var out: [Element] = []
        out.reserveCapacity(elements.count)
        for element in elements {
            guard let bytes = element.bytes else { return nil }
            let value: Element? = bytes.withUnsafeBytes {
                Element(cell: PostgresCell(bytes: $0, isBinary: cell.isBinary, type: element.type))
            }
            guard let value else { return nil }
            out.append(value)
        }
        self = out
    }
}

extension Optional: PostgresDecodable where Wrapped: PostgresDecodable {
    public static var wanted: String { Wrapped.wanted }

    /// For elements of arrays: a cell is never NULL itself.
    public init?(cell: PostgresCell) {
        guard let value = Wrapped(cell: cell) else { return nil }
        self = .some(value)
    }
}

/// An array some of whose elements may be NULL.
public struct PostgresArray<Element: PostgresDecodable>: PostgresDecodable {
    public static var wanted: String { "an array of \(Element.wanted)" }

    public let elements: [Element?]

    public init?(cell: PostgresCell) {
        guard let found = PostgresArrayReader.elements(cell) else { return nil }
        var out: [Element?] = []
        for element in found {
            guard let bytes = element.bytes else {
                out.append(nil)
                continue
            }
            let value: Element? = bytes.withUnsafeBytes {
                Element(cell: PostgresCell(bytes: $0, isBinary: cell.isBinary, type: element.type))
            }
            guard let value else { return nil }
            out.append(value)
        }
        elements = out
    }
}

/// Takes an array of one dimension apart. What is not in order is nil, whatever the bytes are.
enum PostgresArrayReader {
    struct Element {
        /// nil is NULL.
        let bytes: [UInt8]?
        let type: UInt32
    }

    static func elements(_ cell: PostgresCell) -> [Element]? { cell.isBinary ? binary(cell.bytes) : text(cell.bytes) }

    private static func binary(_ bytes: UnsafeRawBufferPointer) -> [Element]? {
        var reader = MessageReader(bytes, "an array")
        do throws(ProtocolFailure) {
            let dimensions = try reader.int32(), flags = try reader.int32(), type = try reader.oid()
            guard (0...1).contains(flags) else { return nil }
            if dimensions == 0 {
                try reader.end()
                return []
            }
            guard dimensions == 1 else { return nil }
            let count = Int(try reader.int32())
            _ = try reader.int32()
            guard count >= 0, count <= reader.left / 4 else { return nil }
            var out: [Element] = []
            for _ in 0..<count { out.append(Element(bytes: try reader.value(), type: type)) }
            try reader.end()
            return out
        } catch { return nil }
    }

    /// `{1,"a b",NULL}`. Bounds before it (`[2:3]={…}`) and arrays within it are not taken.
    private static func text(_ bytes: UnsafeRawBufferPointer) -> [Element]? {
        guard bytes.count >= 2, bytes[0] == 123, bytes[bytes.count - 1] == 125 else { return nil }
        if bytes.count == 2 { return [] }
        let end = bytes.count - 1
        var out: [Element] = [], at = 1
        while true {
            var value: [UInt8] = [], isQuoted = false
            if at < end, bytes[at] == 34 {
                isQuoted = true
                at += 1
                while at < end, bytes[at] != 34 {
                    if bytes[at] == 92 { at += 1 }
                    guard at < end else { return nil }
                    value.append(bytes[at])
                    at += 1
                }
                guard at < end else { return nil }
                at += 1
            } else {
                while at < end, bytes[at] != 44 {
                    if bytes[at] == 92 { at += 1 }
                    guard at < end, ![34, 123, 125].contains(bytes[at]) || bytes[at - 1] == 92 else { return nil }
                    value.append(bytes[at])
                    at += 1
                }
                guard !value.isEmpty else { return nil }
            }
            let isNull = !isQuoted && value.count == 4 && zip(value, [110, 117, 108, 108]).allSatisfy { $0 | 32 == $1 }
            // What came as text says nothing of its elements' type, and needs none.
            out.append(Element(bytes: isNull ? nil : value, type: 0))
            if at == end { return out }
            guard bytes[at] == 44 else { return nil }
            at += 1
        }
    }
}
