/// Sends a share of a route's requests to a new version, and lets a client say whether it wants that version or not.
///
/// A header's value decides first, then a cookie's, then chance: the order and the words of ingress-nginx's canary annotations. The values
/// `always` and `never` override the share, in any case of letters; any other value counts as none. O(1), no allocation.
public struct Canary: Sendable, Equatable {
    /// Why a request went to the version it went to.
    public enum Reason: String, Sendable {
        /// The header's value decided.
        case header
        /// The cookie's value decided.
        case cookie
        /// The share and the random number decided.
        case share
    }

    /// The version that a request goes to, and the reason.
    public struct Verdict: Sendable, Equatable {
        /// Whether the request goes to the new version.
        public let toCanary: Bool
        /// The reason for the choice.
        public let reason: Reason

        /// A verdict made by hand: for tests, and for callers that override the canary.
        public init(toCanary: Bool, reason: Reason) {
            self.toCanary = toCanary
            self.reason = reason
        }
    }

    /// The share of the requests that the new version gets, 0...1.
    public let share: Double
    /// The header whose value overrides the share, in lower case; nil for none.
    public let header: String?
    /// The cookie whose value overrides the share; nil for none.
    public let cookie: String?

    /// A share outside 0...1 counts as the nearer end; a share that is not a number counts as 0.
    public init(share: Double, header: String? = nil, cookie: String? = nil) {
        self.share = share > 0 ? min(share, 1) : 0
        self.header = header?.lowercased()
        self.cookie = cookie
    }

    /// Decides for one request. `draw` is a random number of 0..<1; the canary gets the request when it is `<` the share. Values are nil
    /// when the request has none, and are not looked at when the canary does not name their header or cookie.
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
