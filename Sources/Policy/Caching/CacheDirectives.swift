/// Reads the members of `Cache-Control` fields (RFC 9111, 5.2; the syntax is RFC 9110's, 5.6).
enum DirectiveScanner {
    /// What stands behind a directive's name.
    enum Argument {
        case none
        /// A token, or what stands between quotation marks.
        case text(UnsafeRawBufferPointer)
        /// Something that the syntax does not allow: space around the equals sign, or a quotation that does not end.
        case malformed

        /// The number of seconds that the argument is; nil for what is no such number. More than 2^31 is 2^31 (RFC 9111, 1.2.2).
        var seconds: Int? { if case .text(let bytes) = self { bytes.digits(atMost: 1 << 31) } else { nil } }
        var isNone: Bool { if case .none = self { true } else { false } }
    }

    /// Calls `body` with each directive of one field line. Never reads outside of quotations what stands in one.
    static func each(_ field: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer, Argument) -> Void) {
        var at = 0
        while at < field.count {
            if field[at] == 44 || field[at] == 32 || field[at] == 9 {
                at += 1
                continue
            }
            let start = at
            while at < field.count, field[at] != 44, field[at] != 61 { at += 1 }
            let written = UnsafeRawBufferPointer(rebasing: field[start..<at]), name = written.withoutSpace
            guard at < field.count, field[at] == 61 else {
                body(name, .none)
                continue
            }
            at += 1
            let argument = readArgument(field, &at)
            body(name, name.count == written.count ? argument : .malformed)
        }
    }

    /// Reads what follows an equals sign, up to the comma behind it.
    private static func readArgument(_ field: UnsafeRawBufferPointer, _ at: inout Int) -> Argument {
        guard at < field.count, field[at] == 34 else {
            let start = at
            while at < field.count, field[at] != 44 { at += 1 }
            let written = UnsafeRawBufferPointer(rebasing: field[start..<at])
            if let first = written.first, first == 32 || first == 9 { return .malformed }
            return .text(written.withoutSpace)
        }
        at += 1
        let start = at
        while at < field.count, field[at] != 34 { at += field[at] == 92 ? 2 : 1 }
        guard at < field.count else {
            at = field.count
            return .malformed
        }
        let text = UnsafeRawBufferPointer(rebasing: field[start..<at])
        at += 1
        let behind = at
        while at < field.count, field[at] != 44 { at += 1 }
        return UnsafeRawBufferPointer(rebasing: field[behind..<at]).withoutSpace.isEmpty ? .text(text) : .malformed
    }
}

/// What an answer's `Cache-Control` says, over all lines of it. A number that is given twice is the smaller one; one that is no number is
/// zero: what nobody can read makes nothing live longer.
public struct ResponseDirectives: Sendable, Equatable {
    public var maxAge: Int?
    public var sharedMaxAge: Int?
    public var staleWhileRevalidate: Int?
    public var staleIfError: Int?
    public var noStore = false
    /// Also where it names fields: then the whole answer is treated so (RFC 9111, 5.2.2.4).
    public var noCache = false
    /// Also where it names fields.
    public var isPrivate = false
    public var isPublic = false
    public var mustRevalidate = false
    public var proxyRevalidate = false
    public var mustUnderstand = false
    public var noTransform = false

    public init() {}

    /// Takes one line of the field.
    public mutating func take(_ field: UnsafeRawBufferPointer) {
        var found = self
        DirectiveScanner.each(field) { name, argument in found.take(name, argument) }
        self = found
    }

    private mutating func take(_ name: UnsafeRawBufferPointer, _ argument: DirectiveScanner.Argument) {
        func smaller(_ old: Int?) -> Int { min(old ?? .max, argument.seconds ?? 0) }
        switch name.count {
        case 6: if name.isWord("public"), argument.isNone { isPublic = true }
        case 7:
            if name.isWord("max-age") { maxAge = smaller(maxAge) }
            if name.isWord("private") { isPrivate = true }
        case 8:
            if name.isWord("s-maxage") { sharedMaxAge = smaller(sharedMaxAge) }
            if name.isWord("no-store") { noStore = true }
            if name.isWord("no-cache") { noCache = true }
        case 12: if name.isWord("no-transform") { noTransform = true }
        case 14: if name.isWord("stale-if-error") { staleIfError = smaller(staleIfError) }
        case 15:
            if name.isWord("must-revalidate") { mustRevalidate = true }
            if name.isWord("must-understand") { mustUnderstand = true }
        case 16: if name.isWord("proxy-revalidate") { proxyRevalidate = true }
        case 22: if name.isWord("stale-while-revalidate") { staleWhileRevalidate = smaller(staleWhileRevalidate) }
        default: break
        }
    }
}

/// What a request's `Cache-Control` asks for. What cannot be read is taken for the stricter wish.
public struct RequestDirectives: Sendable, Equatable {
    public var noStore = false
    public var noCache = false
    public var onlyIfCached = false
    public var noTransform = false
    public var maxAge: Int?
    public var minFresh: Int?
    /// How many seconds over its time an answer may be; `Int.max` when no number is said.
    public var maxStale: Int?
    public var staleIfError: Int?

    public init() {}

    /// Takes one line of the field.
    public mutating func take(_ field: UnsafeRawBufferPointer) {
        var found = self
        DirectiveScanner.each(field) { name, argument in found.take(name, argument) }
        self = found
    }

    private mutating func take(_ name: UnsafeRawBufferPointer, _ argument: DirectiveScanner.Argument) {
        switch name.count {
        case 7: if name.isWord("max-age") { maxAge = min(maxAge ?? .max, argument.seconds ?? 0) }
        case 8:
            if name.isWord("no-store") { noStore = true }
            if name.isWord("no-cache") { noCache = true }
        case 9:
            if name.isWord("min-fresh") { minFresh = max(minFresh ?? 0, argument.seconds ?? 1 << 31) }
            if name.isWord("max-stale") { maxStale = min(maxStale ?? .max, argument.isNone ? .max : argument.seconds ?? 0) }
        case 12: if name.isWord("no-transform") { noTransform = true }
        case 14:
            if name.isWord("only-if-cached") { onlyIfCached = true }
            if name.isWord("stale-if-error") { staleIfError = min(staleIfError ?? .max, argument.seconds ?? 0) }
        default: break
        }
    }
}
