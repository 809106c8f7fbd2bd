import Basics

/// What a cache goes by in an answer's head. Filled field by field, in any order; fields that nobody goes by are passed over.
public struct ResponseFacts: Sendable, Equatable {
    /// When an answer's time is over, by `Expires`.
    public enum Expiry: Sendable, Equatable {
        case none
        /// A date that cannot be read, such as `0`: over already (RFC 9111, 5.3).
        case over
        case at(WallTime)
    }

    public let status: Int
    public var directives = ResponseDirectives()
    public var date: WallTime?
    public var expires = Expiry.none
    /// Seconds that caches before this one say to have had it.
    public var age = 0
    private var hasAge = false
    /// The first `ETag`, as it came.
    public var entityTag: [UInt8]?
    /// The first `Last-Modified`, as it came, and as a time where it is one.
    public var lastModified: [UInt8]?
    public var lastModifiedTime: WallTime?
    /// The names that `Vary` lists, in lower case, each once and in order.
    public var vary: [[UInt8]] = []
    /// Whether `Vary` says `*`, says what is no name, or says more than can be kept apart.
    public var variesByAnything = false
    public var setsCookie = false
    /// Whether the body is coded, other than by `identity`.
    public var isEncoded = false
    /// The values of `Cache-Tag`, cut at commas and spaces; at most `mostTags`.
    public var tags: [[UInt8]] = []

    /// Most names of fields in `Vary`.
    public static let mostVaryNames = 16
    /// Most tags of one answer, and bytes of one of them.
    public static let mostTags = 64
    public static let longestTag = 256

    public init(status: Int) { self.status = status }

    /// Takes one field. `name` may have any case.
    public mutating func take(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
        switch name.count {
        case 3: if name.isWord("age") { takeAge(value) }
        case 4:
            if name.isWord("date") { date = date ?? httpTime(value.string) }
            if name.isWord("etag"), entityTag == nil, !value.isEmpty { entityTag = Array(value) }
            if name.isWord("vary") { takeVary(value) }
        case 7: if name.isWord("expires") { takeExpires(value) }
        case 9: if name.isWord("cache-tag") { takeTags(value) }
        case 10: if name.isWord("set-cookie") { setsCookie = true }
        case 11: if name.isWord("set-cookie2") { setsCookie = true }
        case 13:
            if name.isWord("cache-control") { directives.take(value) }
            if name.isWord("last-modified"), lastModified == nil, !value.isEmpty {
                lastModified = Array(value)
                lastModifiedTime = httpTime(value.string)
            }
        case 16: if name.isWord("content-encoding"), !value.isWord("identity"), !value.isEmpty { isEncoded = true }
        default: break
        }
    }

    /// The first member of the first line counts; what is no number is no age (RFC 9111, 5.1).
    private mutating func takeAge(_ value: UnsafeRawBufferPointer) {
        guard !hasAge else { return }
        hasAge = true
        let end = value.firstIndex(of: 44) ?? value.count
        age = UnsafeRawBufferPointer(rebasing: value[..<end]).withoutSpace.digits(atMost: 1 << 31) ?? 0
    }

    /// Of several dates the earliest counts.
    private mutating func takeExpires(_ value: UnsafeRawBufferPointer) {
        guard let time = httpTime(value.string) else {
            expires = .over
            return
        }
        switch expires {
        case .none: expires = .at(time)
        case .over: break
        case .at(let other): expires = .at(min(time, other))
        }
    }

    private mutating func takeVary(_ value: UnsafeRawBufferPointer) {
        var names = vary, anything = variesByAnything
        value.eachMember { member in
            let name = member.lowercase
            if !name.allSatisfy(ResponseFacts.isTokenByte) || name == [42] {
                anything = true
            } else if !names.contains(name) {
                names.append(name)
            }
        }
        if names.count > ResponseFacts.mostVaryNames { anything = true }
        vary = anything ? [] : names
        variesByAnything = anything
    }

    private mutating func takeTags(_ value: UnsafeRawBufferPointer) {
        for part in value.split(whereSeparator: { $0 == 44 || $0 == 32 || $0 == 9 })
        where tags.count < ResponseFacts.mostTags && part.count <= ResponseFacts.longestTag { tags.append(Array(part)) }
    }

    private static func isTokenByte(_ byte: UInt8) -> Bool {
        if (byte | 32) &- 97 < 26 || byte &- 48 < 10 { return true }
        // ! # $ % & ' * + - . ^ _ ` | ~ (RFC 9110, 5.6.2)
        return [33, 35, 36, 37, 38, 39, 42, 43, 45, 46, 94, 95, 96, 124, 126].contains(byte)
    }

    /// Whether stale use is forbidden (RFC 9111, 4.2.4): by a directive that says so, or by `s-maxage`, which means as much
    /// (5.2.2.10), unless `trusted`.
    public func forbidsStale(trusted: Bool) -> Bool {
        directives.mustRevalidate || directives.proxyRevalidate || directives.noCache || (directives.sharedMaxAge != nil && !trusted)
    }

    public var hasValidator: Bool { entityTag != nil || lastModified != nil }
}
