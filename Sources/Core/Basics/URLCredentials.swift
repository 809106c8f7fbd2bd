/// Finds the end of the credentials in a URL. Whoever logs in with the credentials and whoever hides them go by this one rule.
///
/// The credentials end at the last `@`, whatever is in them: a password may have `/`, `?`, `#`, `:` or `@` in it (base64 has the first). So
/// when a URL is shown with its password hidden, more rather than less is hidden where the path has an `@`.
public struct URLCredentials: Sendable, Equatable {
    /// The part in front of `://`.
    public let scheme: Substring
    /// `user:password`, without the `@`; nil when there are no credentials.
    public let credentials: Substring?
    /// The hosts, and the rest of the URL behind them.
    public let rest: Substring

    /// nil when the text has no `://`, and so is no URL.
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

    /// The password; nil when there are no credentials or only a user.
    public var password: Substring? {
        let parts = credentials?.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false) ?? []
        return parts.count == 2 ? parts[1] : nil
    }

    /// The URL with `***` for the password. A single word in front of the `@` may be a token, so it is hidden as well.
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
