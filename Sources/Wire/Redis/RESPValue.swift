import Basics

/// One reply of Redis, RESP2 or RESP3.
public enum RESPValue: Equatable, Sendable {
    case null
    case bool(Bool)
    case int(Int)
    case double(Double)
    case simple(String)
    case error(String)
    case bulk([UInt8])
    /// Arrays, sets; and RESP3 maps, flattened to key, value, key, value, as RESP2 sends them.
    case array([RESPValue])
    /// Out-of-band data (RESP3 pushes).
    case push([RESPValue])

    public var int: Int? { if case .int(let value) = self { value } else { nil } }
    public var array: [RESPValue]? { if case .array(let value) = self { value } else { nil } }
    public var bytes: [UInt8]? { if case .bulk(let value) = self { value } else { nil } }
    public var isNull: Bool { self == .null }

    /// The text of a bulk or simple string, or a number's digits.
    public var string: String? {
        switch self {
        case .bulk(let bytes): String(decoding: bytes, as: UTF8.self)
        case .simple(let text): text
        case .int(let value): String(value)
        case .double(let value): String(value)
        default: nil
        }
    }
}

/// Why a reply is refused: it is no RESP, or larger than is accepted.
public struct RESPFailure: Error, Equatable {
    public let reason: String
}

/// Reads replies from bytes. For a reply that is not complete yet the result is nil, and its beginning is read again when more has come;
/// bulk strings are skipped by their length, so that is cheap.
public struct RESPParser {
    /// Most bytes of a bulk string: Redis itself refuses bulks above 512 MB; nothing of ours comes near 64.
    public static let bulkLimit = 64 << 20
    /// Most elements of one aggregate.
    public static let elementLimit = 1 << 20
    public static let depthLimit = 16

    /// The first reply in `bytes` and how many bytes it took; nil while it is incomplete.
    public static func parse(_ bytes: UnsafeRawBufferPointer) throws(RESPFailure) -> (value: RESPValue, used: Int)? {
        let span = Span<UInt8>(_unsafeBytes: bytes)
        var end = 0
        // Nothing is copied before all of it is here: a reply of megabytes comes in many reads.
        guard try skip(span, &end, depth: 0) else { return nil }
        var at = 0
        guard let value = try parse(span, &at, depth: 0) else { return nil }
        return (value, at)
    }

    /// Moves `at` behind the reply; false while it is incomplete. Costs one look a line, whatever the length of the bulks.
    private static func skip(_ span: Span<UInt8>, _ at: inout Int, depth: Int) throws(RESPFailure) -> Bool {
        guard depth < depthLimit else { throw RESPFailure(reason: "nested deeper than \(depthLimit)") }
        guard at < span.count else { return false }
        let kind = span[at]
        at += 1
        guard let line = try readLine(span, &at) else { return false }
        switch kind {
        case 36, 61, 33:
            let count = try bytes(span, line)
            if count >= 0 { at += count + 2 }
            return at <= span.count
        case 42, 126, 62, 37, 124:
            let count = try elements(span, line)
            guard count >= 0 else { return true }
            let total = kind == 37 ? count * 2 : kind == 124 ? count * 2 + 1 : count
            for _ in 0..<total where try !skip(span, &at, depth: depth + 1) { return false }
            return true
        default: return true
        }
    }

    private static func parse(_ span: Span<UInt8>, _ at: inout Int, depth: Int) throws(RESPFailure) -> RESPValue? {
        guard depth < depthLimit else { throw RESPFailure(reason: "nested deeper than \(depthLimit)") }
        guard at < span.count else { return nil }
        let kind = span[at]
        at += 1
        guard let line = try readLine(span, &at) else { return nil }
        switch kind {
        case 43: return .simple(text(span, line))  // +
        case 45: return .error(text(span, line))  // -
        case 58: return .int(try integer(span, line))  // :
        case 95: return .null  // _
        case 35: return .bool(line.count == 1 && span[line.lowerBound] == 116)  // #
        case 44: return .double(Double(text(span, line)) ?? .nan)  // ,
        case 40: return .simple(text(span, line))  // (  big numbers stay text
        case 36, 61, 33: return try bulk(kind, span, line, &at)  // $ = !
        case 42, 126, 62, 37, 124: return try aggregate(kind, span, line, &at, depth)  // * ~ > % |
        default: throw RESPFailure(reason: "unknown reply type \(kind)")
        }
    }

    private static func bulk(_ kind: UInt8, _ span: Span<UInt8>, _ line: Range<Int>, _ at: inout Int) throws(RESPFailure) -> RESPValue? {
        let count = try bytes(span, line)
        if count == -1 { return .null }
        guard at + count + 2 <= span.count else { return nil }
        guard span[at + count] == 13, span[at + count + 1] == 10 else { throw RESPFailure(reason: "bulk without its end") }
        var content = span.extracting(at..<at + count).withUnsafeBufferPointer { Array($0) }
        at += count + 2
        if kind == 33 { return .error(String(decoding: content, as: UTF8.self)) }
        if kind == 61, content.count >= 4 { content.removeFirst(4) }
        return .bulk(content)
    }

    private static func aggregate(
        _ kind: UInt8, _ span: Span<UInt8>, _ line: Range<Int>, _ at: inout Int, _ depth: Int
    ) throws(RESPFailure) -> RESPValue? {
        let count = try elements(span, line)
        if count == -1 { return .null }
        let total = kind == 37 || kind == 124 ? count * 2 : count
        var elements: [RESPValue] = []
        elements.reserveCapacity(min(total, 1024))
        for _ in 0..<total {
            guard let element = try parse(span, &at, depth: depth + 1) else { return nil }
            elements.append(element)
        }
        // An attribute (|) describes the reply behind it; that reply is what counts.
        if kind == 124 { return try parse(span, &at, depth: depth + 1) }
        return kind == 62 ? .push(elements) : .array(elements)
    }

    /// The range of the line's content; `at` is moved behind its CR LF.
    private static func readLine(_ span: Span<UInt8>, _ at: inout Int) throws(RESPFailure) -> Range<Int>? {
        let start = at
        var end = at
        while end < span.count, span[end] != 13 {
            guard end - start < 65536 else { throw RESPFailure(reason: "a line without an end") }
            end += 1
        }
        guard end + 1 < span.count else { return nil }
        guard span[end + 1] == 10 else { throw RESPFailure(reason: "CR without LF") }
        at = end + 2
        return start..<end
    }

    /// How many bytes a bulk string announces, from 0 to `bulkLimit`; -1 is null.
    private static func bytes(_ span: Span<UInt8>, _ line: Range<Int>) throws(RESPFailure) -> Int {
        let count = try integer(span, line)
        guard count >= -1, count <= bulkLimit else { throw RESPFailure(reason: "bulk of \(count) bytes") }
        return count
    }

    /// How many elements an aggregate announces, from 0 to `elementLimit`; -1 is null.
    private static func elements(_ span: Span<UInt8>, _ line: Range<Int>) throws(RESPFailure) -> Int {
        let count = try integer(span, line)
        guard count >= -1, count <= elementLimit else { throw RESPFailure(reason: "aggregate of \(count) elements") }
        return count
    }

    private static func integer(_ span: Span<UInt8>, _ line: Range<Int>) throws(RESPFailure) -> Int {
        guard !line.isEmpty, line.count <= 20 else { throw RESPFailure(reason: "a number of \(line.count) digits") }
        let negative = span[line.lowerBound] == 45
        // Counted downwards: the smallest number has no positive one of its size.
        var value = 0
        for i in (negative ? line.lowerBound + 1 : line.lowerBound)..<line.upperBound {
            let digit = span[i] &- 48
            let (product, tooLarge) = value.multipliedReportingOverflow(by: 10)
            let (sum, over) = product.subtractingReportingOverflow(Int(digit))
            guard digit < 10, !tooLarge, !over else { throw RESPFailure(reason: "not a number") }
            value = sum
        }
        guard negative || value != .min else { throw RESPFailure(reason: "not a number") }
        return negative ? value : -value
    }

    private static func text(_ span: Span<UInt8>, _ line: Range<Int>) -> String {
        span.extracting(line).withUnsafeBufferPointer { String(decoding: $0, as: UTF8.self) }
    }
}
