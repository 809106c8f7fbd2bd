/// CRC-64 as Redis computes it: Jones' polynomial 0xad93d23594c935a9, reflected, begun with zero. It stands in the last eight bytes of a
/// snapshot.
///
/// - Complexity: eight bytes a step (slicing by eight), no allocation.
struct RDBChecksum {
    private(set) var value: UInt64 = 0

    mutating func add(_ bytes: UnsafeRawBufferPointer) {
        var crc = value
        var i = 0
        RDBChecksum.tables.withUnsafeBufferPointer { table in
            while i + 8 <= bytes.count {
                let word = crc ^ UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: i, as: UInt64.self))
                let low = table[7 << 8 | Int(word & 255)] ^ table[6 << 8 | Int(word >> 8 & 255)] ^ table[5 << 8 | Int(word >> 16 & 255)]
                let middle =
                    table[4 << 8 | Int(word >> 24 & 255)] ^ table[3 << 8 | Int(word >> 32 & 255)] ^ table[2 << 8 | Int(word >> 40 & 255)]
                crc = low ^ middle ^ table[1 << 8 | Int(word >> 48 & 255)] ^ table[Int(word >> 56)]
                i += 8
            }
            while i < bytes.count {
                crc = table[Int((crc ^ UInt64(bytes[i])) & 255)] ^ crc >> 8
                i += 1
            }
        }
        value = crc
    }

    /// Table k at `k << 8`: what a byte does that stands k bytes before the end of the step.
    private static let tables: [UInt64] = {
        // The polynomial with its bits in reverse order.
        let polynomial: UInt64 = 0x95AC_9329_AC4B_C9B5
        var tables = (0..<256).map { byte in
            var crc = UInt64(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ polynomial : crc >> 1 }
            return crc
        }
        for i in 256..<2048 { tables.append(tables[Int(tables[i - 256] & 255)] ^ tables[i - 256] >> 8) }
        return tables
    }()
}
