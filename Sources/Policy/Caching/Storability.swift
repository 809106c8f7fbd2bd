import Basics

/// What a cache goes by in a request's head.
public struct RequestFacts: Sendable, Equatable {
    public var isGet = false
    public var isHead = false
    public var hasBody = false
    public var hasAuthorization = false
    public var hasRange = false
    /// `If-Match` or `If-Unmodified-Since`: only the origin answers those.
    public var hasOriginsCondition = false
    public var upgrades = false
    public var directives = RequestDirectives()
    private var saysCacheControl = false
    private var saysPragma = false

    public init() {}

    /// Takes one field. `name` may have any case.
    public mutating func take(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
        switch name.count {
        case 5: if name.isWord("range") { hasRange = true }
        case 6: if name.isWord("pragma"), value.isWord("no-cache") { saysPragma = true }
        case 8: if name.isWord("if-match") { hasOriginsCondition = true }
        case 13:
            if name.isWord("cache-control") {
                saysCacheControl = true
                directives.take(value)
            }
            if name.isWord("authorization") { hasAuthorization = true }
        case 19: if name.isWord("if-unmodified-since") { hasOriginsCondition = true }
        default: break
        }
    }

    /// All fields have been taken: `Pragma` counts only where `Cache-Control` says nothing.
    public mutating func settle() { if saysPragma, !saysCacheControl { directives.noCache = true } }

    /// Why the cache has no part in this request; nil when it has.
    public var bypass: CacheReason? {
        if !isGet, !isHead { return .method }
        if hasBody { return .requestBody }
        if upgrades { return .upgrade }
        if directives.noStore { return .requestNoStore }
        if hasOriginsCondition { return .originsCondition }
        return nil
    }
}

/// Why the cache did what it did: one word a rule, for explanations, `Cache-Status` and metrics.
public enum CacheReason: String, Sendable, CaseIterable {
    // Why the cache has no part in a request.
    case method, requestBody = "request-body", upgrade, requestNoStore = "request-no-store", originsCondition = "origins-condition"
    case range, session, head, authorization, certificate
    // What was found.
    case fresh, uriMiss = "uri-miss", varyMiss = "vary-miss", stale, noCache = "no-cache", requestDirective = "request-directive"
    case staleWhileRevalidate = "stale-while-revalidate", staleIfError = "stale-if-error", refreshPaused = "refresh-paused"
    case maxStale = "max-stale", onlyIfCached = "only-if-cached"
    // Why an answer was stored or not.
    case stored, noStore = "no-store", isPrivate = "private", setCookie = "set-cookie", varyAny = "vary-any", status
    case noLifetime = "no-lifetime", useless, mustUnderstand = "must-understand", tooLarge = "too-large", noRoom = "no-room"
    case outdated

    /// The rest of a sentence that begins with the answer, or the request.
    public var sentence: String {
        switch self {
        case .method: "its method is neither GET nor HEAD"
        case .requestBody: "the request has a body"
        case .upgrade: "it asks for another protocol"
        case .requestNoStore: "its Cache-Control says no-store"
        case .originsCondition: "If-Match and If-Unmodified-Since are for the origin to answer"
        case .range: "a part was asked for, and nothing is stored that it could be taken from"
        case .session: "it must see what its own session has written"
        case .head: "HEAD was asked for, and nothing is stored"
        case .authorization: "the request has Authorization, and the answer does not say that others may have it"
        case .certificate: "the client has shown a certificate, of which the backend is told"
        case .fresh: "a stored answer is fresh"
        case .uriMiss: "nothing is stored for this address"
        case .varyMiss: "what is stored was made for other fields of the request"
        case .stale: "what is stored is older than its lifetime"
        case .noCache: "the stored answer must be validated each time (no-cache)"
        case .requestDirective: "the request's Cache-Control asks for a newer answer"
        case .staleWhileRevalidate: "it is stale, and may be used while it is refreshed (stale-while-revalidate)"
        case .staleIfError: "it is stale, and may be used because the origin failed (stale-if-error)"
        case .refreshPaused: "it is stale, and a refresh has just failed"
        case .maxStale: "it is stale, and the request takes that (max-stale)"
        case .onlyIfCached: "only a stored answer was asked for, and none can be used"
        case .stored: "it may be stored"
        case .noStore: "it says no-store"
        case .isPrivate: "it says private"
        case .setCookie: "it sets a cookie, which is one client's"
        case .varyAny: "its Vary says *, or more than is kept apart"
        case .status: "its status is never stored"
        case .noLifetime: "it names no lifetime (max-age, s-maxage, Expires)"
        case .useless: "its lifetime is over, and nothing could validate it"
        case .mustUnderstand: "it says must-understand, and its status is unknown here"
        case .tooLarge: "it is larger than cache.object allows"
        case .noRoom: "there was no room in the cache"
        case .outdated: "its address was changed or purged while it came"
        }
    }
}

/// Decides whether an answer may be stored for others (RFC 9111, 3).
public enum Storability {
    /// `stored`, or the rule that forbids it. The order is the order in which a person would look.
    public static func verdict(_ request: RequestFacts, _ response: ResponseFacts, _ freshness: Freshness, now: MonotonicTime)
        -> CacheReason
    {
        guard request.isGet else { return .method }
        if request.hasBody { return .requestBody }
        if request.hasRange { return .range }
        if request.directives.noStore { return .requestNoStore }
        let directives = response.directives
        guard (200...599).contains(response.status), response.status != 206, response.status != 304 else { return .status }
        if directives.noStore { return .noStore }
        if directives.isPrivate { return .isPrivate }
        if response.setsCookie { return .setCookie }
        if response.variesByAnything { return .varyAny }
        if directives.mustUnderstand, !isUnderstood(response.status) { return .mustUnderstand }
        if request.hasAuthorization, !mayShareAuthorized(response) { return .authorization }
        if freshness.source == .none, !(directives.noCache && response.hasValidator) { return .noLifetime }
        // Never used but after a validation, which needs something to validate by.
        let isUsable = freshness.left(now) > .zero && !directives.noCache
        let stale = max(directives.staleIfError ?? 0, directives.staleWhileRevalidate ?? 0) > 0 && !directives.noCache
        if !isUsable, !stale, !response.hasValidator { return .useless }
        return .stored
    }

    /// Whether the answer to a request with `Authorization` may be given to others (RFC 9111, 3.5).
    public static func mayShareAuthorized(_ response: ResponseFacts) -> Bool {
        response.directives.isPublic || response.directives.sharedMaxAge != nil || response.directives.mustRevalidate
    }

    /// The statuses whose meaning for a cache this code knows (RFC 9110, 15).
    private static func isUnderstood(_ status: Int) -> Bool {
        switch status {
        case 200...205, 300...303, 305, 307, 308, 400...417, 421, 422, 426, 500...505: true
        default: false
        }
    }
}
