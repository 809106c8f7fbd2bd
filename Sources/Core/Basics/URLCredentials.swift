/// Where the credentials of a URL end: the one rule for who logs in with them and for who hides them.
///
/// They end at the last `@`, whatever is in them: a password may have `/`, `?`, `#`, `:` or `@` in it (base64 has the first). So a text
/// that is shown hides more rather than less where a path has an `@`.
public struct URLCredentials: Sendable, Equatable {
    /// In front of `://`.
    public let scheme: Substring
    /// `user:password`, without the `@`; nil: there are none.
    public let credentials: Substring?
    /// Hosts and what follows them.
    public let rest: Substring

    /// nil: the text has no `://`, and is no URL.
    public init?(_ url: String) {
        guard let mark = URLCredentials.range(of: "://", in: url) else { return nil }
        scheme = url[..<mark.lowerBound]
        let behind = url[mark.upperBound...]
        let at = behind.lastIndex(of: "@")
        credentials = at.map { behind[..<$0] }
        rest = at.map { behind[behind.index(after: $0)...] } ?? behind
    }

    public var user: Substring? {
        guard let name = credentials?.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).first, !name.isEmpty else {
            return nil
        }
        return name
    }

    /// nil: only a user stands there, or nothing.
    public var password: Substring? {
        let parts = credentials?.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false) ?? []
        return parts.count == 2 ? parts[1] : nil
    }

    /// With `***` for the password. A single word in front of the `@` may be a token: it is hidden as well.
    public var redacted: String {
        guard credentials != nil else { return "\(scheme)://\(rest)" }
        return password == nil ? "\(scheme)://***@\(rest)" : "\(scheme)://\(user ?? ""):***@\(rest)"
    }

    private static func range(of mark: String, in text: String) -> Range<String.Index>? {
        var start = text.startIndex
        while start < text.endIndex {
            if text[start...].hasPrefix(mark) { return start..<text.index(start, offsetBy: mark.count) }
            start = text.index(after: start)
        }
        return nil
    }
}
