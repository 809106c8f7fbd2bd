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

    /// Compared with the path as it is, and as a backend may read it: escapes, doubled slashes and parameters must not open what is
    /// denied. (Dot segments are refused altogether.)
    static func isDenied(_ target: UnsafeRawBufferPointer, _ deny: [[UInt8]]) -> Bool {
        for prefix in deny where begins(target, with: prefix) { return true }
        guard target.contains(37) || target.contains(59) || target.string.contains("//") else { return false }
        let path = target.string.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)[0]
        guard let decoded = percentDecoded(path) else { return true }
        let segments = decoded.split(separator: "/").map { $0.prefix { $0 != ";" } }
        let normal = Array(("/" + segments.joined(separator: "/")).utf8)
        return deny.contains { prefix in normal.withUnsafeBytes { begins($0, with: prefix) } }
    }

    /// Whether a backend could read another path than we do: `.` and `..` as segments, escaped or not (a client resolves them before it asks,
    /// RFC 3986, 5.2.4, and a route chosen before a backend resolves them would not be the route of what is served); a backslash, which some
    /// take for a slash; an escaped NUL, where some stop; an escape that is none.
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
