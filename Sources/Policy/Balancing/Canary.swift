/// Sends a share of a route's requests to a new version, and lets a client say that it wants it, or not.
///
/// First a header's value, then a cookie's, then chance: the order and the words of ingress-nginx's canary annotations. `always` and
/// `never` override, in any case of letters; any other value is as good as none. O(1), no allocation.
public struct Canary: Sendable, Equatable {
    /// Why a request went where it went.
    public enum Reason: String, Sendable {
        /// The header said so.
        case header
        /// The cookie said so.
        case cookie
        /// By the share, and the number drawn.
        case share
    }

    /// Where a request goes, and why.
    public struct Verdict: Sendable, Equatable {
        /// To the new version.
        public let toCanary: Bool
        /// What decided it.
        public let reason: Reason

        /// For tests, and for who overrides it.
        public init(toCanary: Bool, reason: Reason) {
            self.toCanary = toCanary
            self.reason = reason
        }
    }

    /// 0...1.
    public let share: Double
    /// The header whose value overrides, in lower case; nil for none.
    public let header: String?
    /// The cookie whose value overrides; nil for none.
    public let cookie: String?

    /// A share outside 0...1 counts as the nearer end, one that is not a number as 0.
    public init(share: Double, header: String? = nil, cookie: String? = nil) {
        self.share = share > 0 ? min(share, 1) : 0
        self.header = header?.lowercased()
        self.cookie = cookie
    }

    /// `draw` is a random number of 0..<1; the canary gets the request when it is `<` the share. Values are nil when the request has none,
    /// and are not looked at when the canary does not name their header or cookie.
    public func decide(headerValue: UnsafeRawBufferPointer?, cookieValue: UnsafeRawBufferPointer?, draw: Double) -> Verdict {
        if header != nil, let headerValue, let wish = Canary.wish(headerValue) { return Verdict(toCanary: wish, reason: .header) }
        if cookie != nil, let cookieValue, let wish = Canary.wish(cookieValue) { return Verdict(toCanary: wish, reason: .cookie) }
        return Verdict(toCanary: draw < share, reason: .share)
    }

    private static func wish(_ value: UnsafeRawBufferPointer) -> Bool? {
        if equals(value, "always") { return true }
        if equals(value, "never") { return false }
        return nil
    }

    private static func equals(_ value: UnsafeRawBufferPointer, _ word: StaticString) -> Bool {
        guard value.count == word.utf8CodeUnitCount else { return false }
        for i in 0..<value.count {
            let byte = value[i]
            if (byte &- 65 < 26 ? byte | 32 : byte) != word.utf8Start[i] { return false }
        }
        return true
    }
}
