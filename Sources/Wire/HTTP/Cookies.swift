import Basics

/// Cookies as a browser sends them (RFC 6265, 4.2): `name=value; other=value`.
extension HeadTable {
    /// The value of a cookie, without the quotes around it; nil when there is none of this name. Names are compared byte for byte; the
    /// first one counts, over all `Cookie` fields.
    public func cookie(_ name: [UInt8]) -> UnsafeRawBufferPointer? {
        for field in fields where field.known == .other && text(field.name).equals("cookie") {
            if let value = cookieValue(text(field.value), name) { return value }
        }
        return nil
    }
}

/// The value of `name` in one `Cookie` field.
public func cookieValue(_ field: UnsafeRawBufferPointer, _ name: [UInt8]) -> UnsafeRawBufferPointer? {
    var at = 0
    while at < field.count {
        var end = at
        while end < field.count, field[end] != 59 { end += 1 }
        let pair = trimmed(field[at..<end])
        at = end + 1
        guard pair.count > name.count, pair[name.count] == 61, pair.part(0, name.count).elementsEqual(name) else { continue }
        let value = trimmed(pair[(name.count + 1)...])
        if value.count >= 2, value.first == 34, value.last == 34 { return value.part(1, value.count - 2) }
        return value
    }
    return nil
}
