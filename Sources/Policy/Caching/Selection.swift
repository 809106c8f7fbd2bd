/// The form in which a request's field is compared with the one that a stored answer was made for (RFC 9111, 4.1): white space around
/// commas does not count, and `Accept-Encoding` is a set.
public enum FieldForm {
    /// The common form of a field's lines. `name` is in lower case.
    public static func of(_ name: [UInt8], _ lines: [UnsafeRawBufferPointer]) -> [UInt8] {
        name == acceptEncoding ? encodings(lines) : plain(lines)
    }

    static let acceptEncoding = Array("accept-encoding".utf8)

    /// Members joined by commas, in their order, runs of white space as one space.
    private static func plain(_ lines: [UnsafeRawBufferPointer]) -> [UInt8] {
        var out: [UInt8] = []
        for line in lines {
            if !out.isEmpty { out.append(44) }
            var pending = false
            for byte in line.withoutSpace {
                if byte == 32 || byte == 9 {
                    pending = true
                    continue
                }
                if pending, byte != 44, out.last != 44 { out.append(32) }
                pending = false
                out.append(byte)
            }
        }
        return out
    }

    /// The codings that are taken, each once, in order of their names. A coding with `q=0` is refused, which is as good as not naming it,
    /// except for `identity` and `*`.
    private static func encodings(_ lines: [UnsafeRawBufferPointer]) -> [UInt8] {
        var names: Set<[UInt8]> = []
        for line in lines {
            line.eachMember { member in
                let end = member.firstIndex(of: 59) ?? member.count
                let name = UnsafeRawBufferPointer(rebasing: member[..<end]).withoutSpace.lowercase
                let known = name == xGzip ? gzip : name
                if end < member.count, isRefused(UnsafeRawBufferPointer(rebasing: member[(end + 1)...])) {
                    if known == identity || known == [42] { names.insert([33] + known) }
                } else if known != identity, !known.isEmpty {
                    names.insert(known)
                }
            }
        }
        return Array(names.sorted { $0.lexicographicallyPrecedes($1) }.joined(separator: [44]))
    }

    private static let gzip = Array("gzip".utf8)
    private static let xGzip = Array("x-gzip".utf8)
    private static let identity = Array("identity".utf8)

    /// Whether parameters say `q=0`, in any of its spellings.
    private static func isRefused(_ parameters: UnsafeRawBufferPointer) -> Bool {
        let text = parameters.withoutSpace
        guard text.count >= 3, text[0] | 32 == 113, text[1] == 61 else { return false }
        return text[2...].allSatisfy { $0 == 48 || $0 == 46 }
    }
}
