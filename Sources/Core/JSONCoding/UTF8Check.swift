import CSimdJSON

extension UnsafeRawBufferPointer {
    /// Whether these bytes are UTF-8. ASCII, which most names and messages are, is seen eight bytes at a time.
    public var isValidUTF8: Bool {
        guard let base = baseAddress else { return true }
        var i = 0
        while i + 8 <= count {
            if base.loadUnaligned(fromByteOffset: i, as: UInt64.self) & 0x8080_8080_8080_8080 != 0 { return sj_is_utf8(base, count) }
            i += 8
        }
        while i < count {
            if self[i] >= 128 { return sj_is_utf8(base, count) }
            i += 1
        }
        return true
    }
}
