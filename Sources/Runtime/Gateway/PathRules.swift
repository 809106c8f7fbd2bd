import Basics
import HTTP

/// What may be asked for, whatever way it is written.
enum PathRules {
    /// The target without its query.
    static func path(_ target: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        guard let question = target.firstIndex(of: 63) else { return target }
        return target.part(0, question)
    }

    /// `/a` matches `/a`, `/a/b` and `/a?q`, not `/ab`; `/` matches everything.
    static func begins(_ target: UnsafeRawBufferPointer, with prefix: [UInt8]) -> Bool {
        guard target.count >= prefix.count else { return false }
        for i in 0..<prefix.count where target[i] != prefix[i] { return false }
        if target.count == prefix.count || prefix.last == 47 { return true }
        return target[prefix.count] == 47 || target[prefix.count] == 63
    }

    /// The target as a backend may read it, escapes decoded, slashes merged, parameters dropped, without the query; nil when that is what
    /// stands there. (What could be read in still other ways is refused altogether, see `isAmbiguous`.)
    static func plainReading(_ target: UnsafeRawBufferPointer) -> [UInt8]? {
        var differs = false, before: UInt8 = 0
        for byte in target {
            if byte == 63 { break }
            if byte == 37 || byte == 59 || (byte == 47 && before == 47) {
                differs = true
                break
            }
            before = byte
        }
        guard differs else { return nil }
        let path = path(target)
        var out: [UInt8] = []
        var at = 0, inParameters = false
        while at < path.count {
            var byte = path[at]
            if byte == 37, at + 2 < path.count, let high = hexDigit(path[at + 1]), let low = hexDigit(path[at + 2]) {
                byte = high << 4 | low
                at += 2
            }
            at += 1
            if byte == 47 {
                inParameters = false
                if out.last != 47 { out.append(47) }
            } else if byte == 59 {
                inParameters = true
            } else if !inParameters {
                out.append(byte)
            }
        }
        return out
    }

    /// Compared with the path as it is, and as a backend may read it.
    static func isDenied(_ target: UnsafeRawBufferPointer, _ deny: [[UInt8]]) -> Bool {
        for prefix in deny where begins(target, with: prefix) { return true }
        guard let plain = plainReading(target) else { return false }
        return plain.withUnsafeBytes { plain in deny.contains { begins(plain, with: $0) } }
    }

    /// Whether a backend could read another path than we do: `.` and `..` as segments, escaped or not (a client resolves them before it
    /// asks, RFC 3986, 5.2.4, and a route chosen before a backend resolves them would not be the route of what is served); a backslash,
    /// which some take for a slash; an escaped NUL, where some stop; overlong UTF-8; an escape that is none.
    static func isAmbiguous(_ target: UnsafeRawBufferPointer) -> Bool {
        // Most paths have nothing of the kind.
        var suspicious = false
        for byte in target {
            if byte == 63 { break }
            if byte == 37 || byte == 46 || byte == 92 {
                suspicious = true
                break
            }
        }
        guard suspicious else { return false }
        var segment: [UInt8] = []
        var parameters = false
        var lead: UInt8 = 0
        func isDots(_ segment: [UInt8]) -> Bool { segment == [46] || segment == [46, 46] }
        let path = path(target)
        var at = 0
        while at < path.count {
            var byte = path[at]
            if byte == 92 { return true }
            if byte == 37 {
                guard at + 2 < path.count, let high = hexDigit(path[at + 1]), let low = hexDigit(path[at + 2]) else { return true }
                byte = high << 4 | low
                at += 2
                if byte == 0 || byte == 92 { return true }
                // Overlong UTF-8 (RFC 3629, 3): a long way of writing what has a short one, `/` and `.` among them.
                if byte == 0xC0 || byte == 0xC1 || (lead == 0xE0 && byte & 0xE0 == 0x80) || (lead == 0xF0 && byte & 0xF0 == 0x80) {
                    return true
                }
                lead = byte
            } else {
                lead = 0
            }
            at += 1
            if byte == 47 {
                if isDots(segment) { return true }
                segment.removeAll(keepingCapacity: true)
                parameters = false
            } else if byte == 59 {
                parameters = true
            } else if !parameters {
                segment.append(byte)
            }
        }
        return isDots(segment)
    }
}
