/// Compares entity tags (RFC 9110, 8.8.3.2).
public enum EntityTag {
    public static func isWeak(_ tag: some RandomAccessCollection<UInt8>) -> Bool {
        var bytes = tag.makeIterator()
        return bytes.next() == 87 && bytes.next() == 47
    }

    /// Without the mark of a weak tag.
    private static func opaque(_ tag: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        isWeak(tag) ? UnsafeRawBufferPointer(rebasing: tag[2...]) : tag
    }

    /// Whether two tags name the same meaning.
    public static func weaklyEqual(_ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer) -> Bool { opaque(a).elementsEqual(opaque(b)) }

    /// Whether two tags name the same bytes.
    public static func stronglyEqual(_ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer) -> Bool {
        !isWeak(a) && !isWeak(b) && a.elementsEqual(b)
    }

    /// Whether a list of tags has `tag`, by meaning; `*` has every tag. Commas inside of a tag belong to it.
    static func list(_ field: UnsafeRawBufferPointer, has tag: UnsafeRawBufferPointer?) -> Bool {
        if field.withoutSpace.elementsEqual([42]) { return true }
        guard let tag else { return false }
        var start = 0, quoted = false
        for i in 0...field.count {
            if i < field.count, field[i] == 34 { quoted.toggle() }
            guard i == field.count || field[i] == 44 && !quoted else { continue }
            let one = UnsafeRawBufferPointer(rebasing: field[start..<i]).withoutSpace
            if !one.isEmpty, weaklyEqual(one, tag) { return true }
            start = i + 1
        }
        return false
    }
}
