import Basics

/// Writes JSON text, escaping as RFC 8259 asks and nothing more. The writer sets the commas. The caller balances `begin` and `end` (checked
/// when the text is taken).
public struct JSONWriter {
    public private(set) var bytes: [UInt8]
    private var needsComma = false
    private var depth = 0

    public init(reserving: Int = 256) {
        bytes = []
        bytes.reserveCapacity(reserving)
    }

    public var text: String {
        precondition(depth == 0, "an object or array was begun and not ended")
        return String(decoding: bytes, as: UTF8.self)
    }

    public mutating func beginObject() { open(123) }
    public mutating func endObject() { close(125) }
    public mutating func beginArray() { open(91) }
    public mutating func endArray() { close(93) }

    public mutating func key(_ name: String) {
        string(name)
        bytes.append(58)
        needsComma = false
    }

    public mutating func string(_ value: String) {
        separate()
        var value = value
        value.withUTF8 { JSONWriter.escape(UnsafeRawBufferPointer($0), into: &bytes) }
    }

    public mutating func string(_ value: UnsafeRawBufferPointer) {
        separate()
        JSONWriter.escape(value, into: &bytes)
    }

    public mutating func int(_ value: Int) {
        separate()
        JSONWriter.decimal(value, into: &bytes)
    }

    /// NaN and the infinities have no JSON form and become null.
    public mutating func double(_ value: Double) {
        separate()
        if !value.isFinite {
            bytes.append(contentsOf: "null".utf8)
        } else if value == value.rounded(), abs(value) < 1e15 {
            JSONWriter.decimal(Int(value), into: &bytes)
        } else {
            bytes.append(contentsOf: value.description.utf8)
        }
    }

    public mutating func bool(_ value: Bool) {
        separate()
        bytes.append(contentsOf: (value ? "true" : "false").utf8)
    }

    public mutating func null() {
        separate()
        bytes.append(contentsOf: "null".utf8)
    }

    /// Writes text that is JSON already, as it stands.
    public mutating func raw(_ json: some Sequence<UInt8>) {
        separate()
        bytes.append(contentsOf: json)
    }

    // One call for a member, which is most of what is written.
    public mutating func member(_ name: String, _ value: String) {
        key(name)
        string(value)
    }
    public mutating func member(_ name: String, _ value: Int) {
        key(name)
        int(value)
    }
    public mutating func member(_ name: String, _ value: Double) {
        key(name)
        double(value)
    }
    public mutating func member(_ name: String, _ value: Bool) {
        key(name)
        bool(value)
    }
    public mutating func member(_ name: String, _ values: some Sequence<String>) {
        key(name)
        beginArray()
        for value in values { string(value) }
        endArray()
    }

    private mutating func separate() {
        if needsComma { bytes.append(44) }
        needsComma = true
    }
    private mutating func open(_ byte: UInt8) {
        separate()
        bytes.append(byte)
        needsComma = false
        depth += 1
    }
    private mutating func close(_ byte: UInt8) {
        bytes.append(byte)
        needsComma = true
        depth -= 1
    }

    /// Appends `value` with its quotes.
    public static func escape(_ value: UnsafeRawBufferPointer, into out: inout [UInt8]) {
        out.append(34)
        var clean = 0
        var i = 0
        while i < value.count {
            let byte = value[i]
            if byte >= 0x20, byte != 34, byte != 92 {
                i += 1
                continue
            }
            out.append(contentsOf: value[clean..<i])
            i += 1
            clean = i
            out.append(92)
            switch byte {
            case 34, 92: out.append(byte)
            case 10: out.append(110)
            case 13: out.append(114)
            case 9: out.append(116)
            default:
                out.append(117)
                out.append(48)
                out.append(48)
                out.append(48 + (byte >> 4))
                out.append(byte & 15 < 10 ? 48 + (byte & 15) : 87 + (byte & 15))
            }
        }
        out.append(contentsOf: value[clean...])
        out.append(34)
    }

    public static func decimal(_ value: Int, into out: inout [UInt8]) {
        out.append(contentsOf: String(value).utf8)
    }
}
