/// What `Cache-Status` says of one answer (RFC 9211), as a whole field value.
public struct CacheStatus: Sendable, Equatable {
    /// Why a request went to the origin (RFC 9211, 2.2).
    public enum Forward: String, Sendable, CaseIterable {
        case uriMiss = "uri-miss", varyMiss = "vary-miss", stale, method, bypass, request
    }

    /// nil: the answer was stored.
    public var forward: Forward?
    /// Seconds until it is stale; negative when it is.
    public var ttl: Int?
    /// The status of the origin's answer, where it is not the one that the client gets.
    public var forwardStatus: Int?
    public var isStored = false
    public var isCollapsed = false
    /// The rule, for people.
    public var detail: CacheReason?

    public init(forward: Forward? = nil, ttl: Int? = nil) {
        self.forward = forward
        self.ttl = ttl
    }

    public var text: String {
        var out = "muster"
        if let forward { out += "; fwd=\(forward.rawValue)" } else { out += "; hit" }
        if let forwardStatus { out += "; fwd-status=\(forwardStatus)" }
        if let ttl { out += "; ttl=\(ttl)" }
        if isStored { out += "; stored" }
        if isCollapsed { out += "; collapsed" }
        if let detail { out += "; detail=\(detail.rawValue)" }
        return out
    }
}

extension CacheStatus.Forward {
    /// The word of RFC 9211 for a rule of ours.
    public init(_ why: CacheReason) {
        switch why {
        case .method: self = .method
        case .uriMiss, .head, .range: self = .uriMiss
        case .varyMiss: self = .varyMiss
        case .stale, .noCache, .refreshPaused, .staleIfError, .staleWhileRevalidate, .maxStale: self = .stale
        case .requestDirective, .requestNoStore, .requestBody, .originsCondition, .onlyIfCached: self = .request
        default: self = .bypass
        }
    }
}
