/// The slot of a key: CRC16 (XMODEM) of its hash tag, or of all of it, modulo 16384, as Redis Cluster's specification has it.
public enum HashSlot {
    /// The number of slots of a cluster; fixed by the protocol.
    public static let count = 16384

    /// The slot of a key. The part between the first `{` and the next `}` decides alone, unless it is empty.
    ///
    /// - Complexity: one table look-up a byte, no allocation.
    public static func of(_ key: Span<UInt8>) -> Int {
        var open = -1
        for i in 0..<key.count {
            if open < 0, key[i] == 123 {
                open = i
            } else if open >= 0, key[i] == 125 {
                return i == open + 1 ? crc16(key, 0, key.count) & 16383 : crc16(key, open + 1, i) & 16383
            }
        }
        return crc16(key, 0, key.count) & 16383
    }

    public static func of(_ key: String) -> Int {
        let bytes = Array(key.utf8)
        return of(bytes.span)
    }

    private static func crc16(_ bytes: Span<UInt8>, _ start: Int, _ end: Int) -> Int {
        var crc: UInt16 = 0
        for i in start..<end { crc = (crc << 8) ^ table[Int((crc >> 8) ^ UInt16(bytes[i]))] }
        return Int(crc)
    }

    /// Polynomial 0x1021, most significant bit first, begun with zero.
    private static let table: [UInt16] = (0..<256).map { byte in
        var crc = UInt16(byte) << 8
        for _ in 0..<8 { crc = crc & 0x8000 != 0 ? (crc << 1) ^ 0x1021 : crc << 1 }
        return crc
    }
}
