import Basics

/// A row as it stands in its message: the number of its values, and each with its length. It is kept as these bytes, because most rows are
/// only passed on or read once.
public struct DataRow: Hashable, Sendable {
    /// The body of the message, which was checked when this value was made.
    public let bytes: [UInt8]

    /// A row of these values; nil is SQL's NULL.
    public init(_ values: [[UInt8]?]) {
        var writer = MessageWriter()
        writer.put(count: values.count)
        for value in values { writer.put(value: value) }
        bytes = Array(writer.bytes)
    }

    init(_ body: UnsafeRawBufferPointer) throws(ProtocolFailure) {
        try DataRow.check(body, columns: nil)
        bytes = Array(body)
    }

    /// Throws unless this is the body of a row, and of so many columns where `columns` says how many.
    static func check(_ body: UnsafeRawBufferPointer, columns: Int?) throws(ProtocolFailure) {
        var reader = MessageReader(body, "DataRow")
        let count = try reader.count(ofAtLeast: 4)
        if let columns, count != columns { throw reader.failure("\(count) values in a row of \(columns) columns") }
        for _ in 0..<count { try reader.skipValue() }
        try reader.end()
    }

    /// The values in their order.
    public var values: [[UInt8]?] {
        bytes.withUnsafeBytes { body in
            var out: [[UInt8]?] = [], at = 2
            while at + 4 <= body.count {
                let count = Int(Int32(bigEndian: body.loadUnaligned(fromByteOffset: at, as: Int32.self)))
                at += 4
                if count < 0 {
                    out.append(nil)
                } else {
                    out.append(Array(body[at..<at + count]))
                    at += count
                }
            }
            return out
        }
    }
}
