import Basics
import CSimdJSON

/// Why a text is not JSON, or not the JSON that was wanted.
public struct JSONFailure: Error, Equatable, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

/// A parsed JSON text (simdjson underneath: strict, UTF-8 checked, at most 256 levels deep).
///
/// One document is reused for many texts by one thread or loop: `parse` ends the life of every element of
/// the text before it, which is why elements are only handed to a closure.
public final class JSONDocument {
    private let parser: OpaquePointer

    public init() {
        guard let parser = sj_new() else { fatalError("out of memory") }
        self.parser = parser
    }

    deinit { sj_free(parser) }

    /// Parses `bytes` and hands the root to `body`; the root and all below it are valid only in there.
    public func parse<T>(_ bytes: UnsafeRawBufferPointer, _ body: (JSONElement) throws -> T) throws -> T {
        if bytes.isEmpty { throw JSONFailure("the body is empty") }
        var root = sj_element()
        let code = sj_parse(parser, bytes.baseAddress, bytes.count, &root)
        if code != 0 { throw JSONFailure(String(cString: sj_message(code))) }
        return try body(JSONElement(raw: root))
    }

    public func parse<T>(_ bytes: [UInt8], _ body: (JSONElement) throws -> T) throws -> T {
        try bytes.withUnsafeBytes { try parse($0, body) }
    }
}

/// One value in a parsed document. Valid only inside the closure of `JSONDocument.parse`.
public struct JSONElement {
    public enum Kind: String { case null, bool, number, string, array, object }

    var raw: sj_element

    public var kind: Kind {
        switch Int(withUnsafePointer(to: raw) { sj_kind($0) }) {
        case SJ_NULL: .null
        case SJ_BOOL: .bool
        case SJ_STRING: .string
        case SJ_ARRAY: .array
        case SJ_OBJECT: .object
        default: .number
        }
    }

    private var code: Int { Int(withUnsafePointer(to: raw) { sj_kind($0) }) }

    public var isNull: Bool { code == SJ_NULL }
    public var bool: Bool? { code == SJ_BOOL ? withUnsafePointer(to: raw) { sj_bool($0) } : nil }

    /// The value if it is a whole number that fits.
    public var int: Int? {
        switch code {
        case SJ_INT: Int(withUnsafePointer(to: raw) { sj_int($0) })
        case SJ_UINT: Int(exactly: withUnsafePointer(to: raw) { sj_uint($0) })
        default: nil
        }
    }

    public var double: Double? {
        switch code {
        case SJ_INT: Double(withUnsafePointer(to: raw) { sj_int($0) })
        case SJ_UINT: Double(withUnsafePointer(to: raw) { sj_uint($0) })
        case SJ_DOUBLE: withUnsafePointer(to: raw) { sj_double($0) }
        default: nil
        }
    }

    /// The decoded bytes of a string, without a copy.
    public var stringBytes: UnsafeRawBufferPointer? {
        guard code == SJ_STRING else { return nil }
        var count = 0
        let start = withUnsafePointer(to: raw) { sj_string($0, &count) }
        return UnsafeRawBufferPointer(start: start, count: count)
    }

    public var string: String? { stringBytes?.string }

    /// Elements of an array or members of an object (at most 2^24 - 1 are told apart); 0 for anything else. O(1).
    public var count: Int { code == SJ_ARRAY || code == SJ_OBJECT ? withUnsafePointer(to: raw) { sj_count($0) } : 0 }

    /// The entries of an array or an object, one after the other and without a list of them. Any other value has no entries.
    public var entries: JSONEntries { JSONEntries(self) }

    /// The elements of an array; nil for anything else.
    public var array: [JSONElement]? {
        guard code == SJ_ARRAY else { return nil }
        var out: [JSONElement] = []
        forEachEntry { _, value in out.append(value) }
        return out
    }

    /// The members of an object in their order; nil for anything else.
    public var members: [(key: String, value: JSONElement)]? {
        guard code == SJ_OBJECT else { return nil }
        var out: [(String, JSONElement)] = []
        forEachEntry { key, value in out.append((key.string, value)) }
        return out
    }

    /// A member of an object; nil when this is no object or has no such key. O(members).
    public subscript(_ key: StaticString) -> JSONElement? {
        guard code == SJ_OBJECT else { return nil }
        var found = sj_element()
        let ok = key.utf8Start.withMemoryRebound(to: CChar.self, capacity: key.utf8CodeUnitCount) { name in
            withUnsafePointer(to: raw) { sj_find($0, name, key.utf8CodeUnitCount, &found) }
        }
        return ok ? JSONElement(raw: found) : nil
    }

    private func forEachEntry(_ body: (UnsafeRawBufferPointer, JSONElement) -> Void) {
        var all = entries
        while let (key, value) = all.next() { body(key, value) }
    }
}

/// Walks through an array or an object. Valid as long as the element it was made from.
public struct JSONEntries: IteratorProtocol {
    private let container: sj_element
    private var cursor: sj_cursor?

    init(_ element: JSONElement) {
        container = element.raw
        let isOne = element.kind == .array || element.kind == .object
        cursor = isOne ? withUnsafePointer(to: container) { sj_begin($0) } : nil
    }

    /// The next entry; in an array the key is empty.
    public mutating func next() -> (key: UnsafeRawBufferPointer, value: JSONElement)? {
        guard var at = cursor else { return nil }
        var key: UnsafePointer<CChar>?
        var count = 0
        var value = sj_element()
        guard withUnsafePointer(to: container, { sj_next($0, &at, &key, &count, &value) }) else { return nil }
        cursor = at
        return (UnsafeRawBufferPointer(start: key, count: count), JSONElement(raw: value))
    }
}

extension JSONElement.Kind {
    /// The name of the type with its article, for messages: `a string`, `an object`, `null`.
    public var article: String { self == .array || self == .object ? "an \(rawValue)" : self == .null ? "null" : "a \(rawValue)" }
}
