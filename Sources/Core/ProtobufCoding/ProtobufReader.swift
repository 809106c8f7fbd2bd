import Basics

/// Why bytes are not the protobuf message that was wanted.
public struct ProtobufFailure: Error, Equatable, CustomStringConvertible {
    /// The place in the message where the fault is: `spans[3].name`; empty for the message itself.
    public private(set) var place = ""
    public let reason: String
    /// Whether the bytes are not wrong, but more than is taken in one request: the sender can send them in parts.
    public var isTooMuch = false

    public init(_ reason: String, isTooMuch: Bool = false) {
        self.reason = reason
        self.isTooMuch = isTooMuch
    }

    public var description: String { place.isEmpty ? reason : "\(place) \(reason)" }

    /// The same failure with the place that the message holding the member `name` gives it.
    public func inside(_ name: String) -> ProtobufFailure {
        var outer = self
        outer.place = place.isEmpty ? name : place.hasPrefix("[") ? name + place : "\(name).\(place)"
        return outer
    }

    static let truncated = ProtobufFailure("ends in the middle of a field")
}

/// How much work reading one request may be. A small body can hold millions of empty parts, each of which costs time though it has no
/// bytes. So parts are counted: fields of messages, members and elements of JSON.
public struct WorkBudget {
    public let limit: Int
    private var left: Int

    /// A budget of `limit` parts; by default as many as there can be.
    public init(limit: Int = .max) {
        self.limit = limit
        left = limit
    }

    /// Whether more parts were asked for than the budget had. Then the request as a whole is refused, and not only the part that was being
    /// read.
    public var isSpent: Bool { left < 0 }

    @inline(__always)
    public mutating func spend(_ parts: Int = 1) throws(ProtobufFailure) {
        left = left.subtractingClamped(parts)
        if left < 0 {
            throw ProtobufFailure(
                "has more than \(limit) fields, attributes and values, which is all that one request may; split it", isTooMuch: true)
        }
    }
}

/// One field as it stands on the wire. `bytes` points into the message.
public struct ProtobufField {
    public enum Wire: UInt8, Sendable { case varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 }
    public let number: Int
    public let wire: Wire
    /// The value of a varint or fixed field.
    public let scalar: UInt64
    public let bytes: UnsafeRawBufferPointer
}

/// Walks the fields of one message (proto3 wire format). Strict about what has one meaning only: a field number of 0, a number
/// beyond 2^29, a varint beyond 64 bits and a length beyond the end are failures. Groups, which proto3 does not have, are
/// passed over whole, as unknown fields are.
public struct ProtobufReader {
    private let base: UnsafeRawPointer
    private let end: Int
    private var at = 0

    public init(_ bytes: UnsafeRawBufferPointer) {
        base = bytes.baseAddress ?? UnsafeRawPointer(bitPattern: 1)!
        end = bytes.count
    }

    public mutating func next() throws(ProtobufFailure) -> ProtobufField? {
        while at < end {
            let key = try varint()
            let number = key >> 3
            guard number > 0, number < 1 << 29 else { throw ProtobufFailure("has field number \(number)") }
            switch key & 7 {
            case 0: return ProtobufField(number: Int(number), wire: .varint, scalar: try varint(), bytes: ProtobufReader.none)
            case 1: return ProtobufField(number: Int(number), wire: .fixed64, scalar: try fixed(8), bytes: ProtobufReader.none)
            case 5: return ProtobufField(number: Int(number), wire: .fixed32, scalar: try fixed(4), bytes: ProtobufReader.none)
            case 2:
                let count = try varint()
                guard count <= UInt64(end - at) else { throw .truncated }
                let bytes = UnsafeRawBufferPointer(start: base + at, count: Int(count))
                at += Int(count)
                return ProtobufField(number: Int(number), wire: .bytes, scalar: 0, bytes: bytes)
            case 3: try skipGroup(Int(number), depth: 1)
            default: throw ProtobufFailure("has wire type \(key & 7)")
            }
        }
        return nil
    }

    private static var none: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: nil, count: 0) }

    private mutating func varint() throws(ProtobufFailure) -> UInt64 {
        guard at < end else { throw .truncated }
        var byte = base.load(fromByteOffset: at, as: UInt8.self)
        at += 1
        if byte < 128 { return UInt64(byte) }
        var value = UInt64(byte & 127)
        var shift: UInt64 = 7
        while true {
            guard at < end else { throw .truncated }
            byte = base.load(fromByteOffset: at, as: UInt8.self)
            at += 1
            if shift == 63, byte > 1 { throw ProtobufFailure("has a number of more than 64 bits") }
            value |= UInt64(byte & 127) << shift
            if byte < 128 { return value }
            shift += 7
        }
    }

    private mutating func fixed(_ count: Int) throws(ProtobufFailure) -> UInt64 {
        guard end - at >= count else { throw .truncated }
        defer { at += count }
        return count == 8
            ? UInt64(littleEndian: base.loadUnaligned(fromByteOffset: at, as: UInt64.self))
            : UInt64(UInt32(littleEndian: base.loadUnaligned(fromByteOffset: at, as: UInt32.self)))
    }

    private mutating func skipGroup(_ number: Int, depth: Int) throws(ProtobufFailure) {
        guard depth <= ProtobufSchema.depthLimit else { throw ProtobufFailure("nests more than \(ProtobufSchema.depthLimit) deep") }
        while true {
            let key = try varint()
            switch key & 7 {
            case 0: _ = try varint()
            case 1: _ = try fixed(8)
            case 5: _ = try fixed(4)
            case 2:
                let count = try varint()
                guard count <= UInt64(end - at) else { throw .truncated }
                at += Int(count)
            case 3: try skipGroup(Int(key >> 3), depth: depth + 1)
            case 4:
                guard Int(key >> 3) == number else { throw ProtobufFailure("ends another group than it began") }
                return
            default: throw ProtobufFailure("has wire type \(key & 7)")
            }
        }
    }
}

extension ProtobufField {
    public var double: Double { Double(bitPattern: scalar) }
    public var int64: Int64 { Int64(bitPattern: scalar) }
}
