/// Writes protobuf fields one after the other. Nested messages are written into a writer of their own and added as bytes.
public struct ProtobufWriter {
    public private(set) var bytes: [UInt8] = []

    public init(reserving: Int = 0) { if reserving > 0 { bytes.reserveCapacity(reserving) } }

    public mutating func varint(_ number: Int, _ value: UInt64) {
        ProtobufWriter.put(UInt64(number << 3), into: &bytes)
        ProtobufWriter.put(value, into: &bytes)
    }
    public mutating func fixed64(_ number: Int, _ value: UInt64) {
        ProtobufWriter.put(UInt64(number << 3 | 1), into: &bytes)
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }
    public mutating func fixed32(_ number: Int, _ value: UInt32) {
        ProtobufWriter.put(UInt64(number << 3 | 5), into: &bytes)
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }
    public mutating func bytes(_ number: Int, _ value: UnsafeRawBufferPointer) {
        ProtobufWriter.put(UInt64(number << 3 | 2), into: &bytes)
        ProtobufWriter.put(UInt64(value.count), into: &bytes)
        bytes.append(contentsOf: value)
    }
    public mutating func bytes(_ number: Int, _ value: [UInt8]) { value.withUnsafeBytes { bytes(number, $0) } }
    public mutating func string(_ number: Int, _ value: String) {
        var value = value
        value.withUTF8 { bytes(number, UnsafeRawBufferPointer($0)) }
    }
    public mutating func message(_ number: Int, _ write: (inout ProtobufWriter) -> Void) {
        var inner = ProtobufWriter()
        write(&inner)
        bytes(number, inner.bytes)
    }

    /// Appends a field with bytes to an array that is being written elsewhere.
    public static func append(_ number: Int, _ value: UnsafeRawBufferPointer, to out: inout [UInt8]) {
        put(UInt64(number << 3 | 2), into: &out)
        put(UInt64(value.count), into: &out)
        out.append(contentsOf: value)
    }

    static func put(_ value: UInt64, into out: inout [UInt8]) {
        var value = value
        while value >= 128 {
            out.append(UInt8(truncatingIfNeeded: value) | 128)
            value >>= 7
        }
        out.append(UInt8(value))
    }
}
