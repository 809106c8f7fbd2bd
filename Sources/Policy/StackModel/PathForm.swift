import Basics

/// Compares paths: tells which paths can be read in several ways, and gives the simplest writing of a path, in which two writings of the
/// same path are equal. Patterns of the configuration and paths of requests go through the same functions.
public enum PathForm {
    /// The parts that are left as they are when a path is simplified.
    public struct Kept: OptionSet, Sendable {
        public let rawValue: Int
        public init(rawValue: Int) { self.rawValue = rawValue }
        /// `;v=1` at the end of a segment, which some servers cut off.
        public static let parameters = Kept(rawValue: 1)
        /// `//`, which some servers take for one slash.
        public static let slashes = Kept(rawValue: 2)
    }

    /// The path of a target in its simplest writing: escapes decoded, slashes merged and parameters cut off, but for what is `kept`. A byte
    /// that cannot stand in a path is written as an escape with capital digits. A question mark, decoded or not, ends the path.
    public static func simplified(_ target: UnsafeRawBufferPointer, keeping kept: Kept = []) -> [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(target.count)
        var at = 0
        var inParameters = false
        while at < target.count {
            var byte = target[at]
            at += 1
            if byte == 37, at + 1 < target.count, let high = hexDigit(target[at]), let low = hexDigit(target[at + 1]) {
                byte = high << 4 | low
                at += 2
            }
            if byte == 63 { break }
            if byte == 47 {
                inParameters = false
                if out.last != 47 || kept.contains(.slashes) { out.append(47) }
            } else if byte == 59, !kept.contains(.parameters) {
                inParameters = true
            } else if !inParameters {
                append(byte, to: &out)
            }
        }
        return out
    }

    public static func simplified(_ pattern: [UInt8], keeping kept: Kept = []) -> [UInt8] {
        pattern.withUnsafeBytes { simplified($0, keeping: kept) }
    }

    private static func append(_ byte: UInt8, to out: inout [UInt8]) {
        if byte > 32, byte < 127, byte != 37, byte != 35 { return out.append(byte) }
        out.append(37)
        for digit in [byte >> 4, byte & 15] { out.append(digit < 10 ? 48 + digit : 55 + digit) }
    }

    /// A pattern of the configuration as it is compared with paths as they are sent: escapes that are not needed are decoded (`%61` is `a`),
    /// and those that are needed have capital digits. Escaped slashes, semicolons, question marks and `%` itself stay escaped.
    public static func canonical(_ pattern: String) -> String {
        var out: [UInt8] = []
        var rest = Array(pattern.utf8)[...]
        while let byte = rest.popFirst() {
            guard byte == 37, rest.count >= 2, let high = hexDigit(rest[rest.startIndex]), let low = hexDigit(rest[rest.startIndex + 1])
            else {
                out.append(byte)
                continue
            }
            rest = rest.dropFirst(2)
            let decoded = high << 4 | low
            if decoded == 47 || decoded == 59 || decoded == 63 {
                out += [37, 48 + high, low < 10 ? 48 + low : 55 + low]
            } else {
                append(decoded, to: &out)
            }
        }
        return String(decoding: out, as: UTF8.self)
    }

    /// An expression with its literal escapes (`%c3`) in capital digits, as paths are compared.
    public static func capitalEscapes(_ text: [UInt8]) -> [UInt8] {
        var out = text, at = 0
        while at + 2 < out.count {
            if out[at] == 37, hexDigit(out[at + 1]) != nil, hexDigit(out[at + 2]) != nil {
                for place in at + 1...at + 2 where out[place] >= 97 { out[place] -= 32 }
                at += 2
            }
            at += 1
        }
        return out
    }

    /// Whether an escape of the target's path has small digits.
    public static func hasSmallEscapes(_ target: UnsafeRawBufferPointer) -> Bool {
        var at = 0
        while at + 2 < target.count, target[at] != 63 {
            if target[at] == 37, target[at + 1] >= 97 || target[at + 2] >= 97 { return true }
            at += 1
        }
        return false
    }

    /// Whether the path is anything but what `simplified` makes of it, as far as a look at its signs can tell: it has an escape, a parameter
    /// or two slashes in a row.
    public static func maySimplify(_ target: UnsafeRawBufferPointer) -> Bool {
        var before: UInt8 = 0
        for byte in target {
            if byte == 63 { return false }
            if byte == 37 || byte == 59 || (byte == 47 && before == 47) { return true }
            before = byte
        }
        return false
    }

    /// Whether a backend could read another path than we do: `.` and `..` as segments, escaped or not (a client resolves them before it
    /// asks, RFC 3986, 5.2.4, and a route chosen before a backend resolves them would not be the route of what is served); a backslash,
    /// which some take for a slash; an escaped NUL, where some stop; overlong UTF-8; an escape that is none. The gateway refuses such paths,
    /// so no pattern may be one.
    public static func isAmbiguous(_ target: UnsafeRawBufferPointer) -> Bool {
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
        var at = 0
        while at < target.count {
            var byte = target[at]
            if byte == 63 { break }
            if byte == 92 { return true }
            if byte == 37 {
                guard at + 2 < target.count, let high = hexDigit(target[at + 1]), let low = hexDigit(target[at + 2]) else { return true }
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
