/// The gateway's response cache: what all routes that have `cache` share.
public struct CacheSpec: Sendable, Equatable {
    /// The most bytes of bodies, and of heads with their keys. Hard: what does not fit is not stored.
    public let memory: Int
    public let keys: Int
    /// What nobody asked for in this time goes.
    public let inactive: Duration
    /// The largest body that is stored.
    public let object: Int

    public init(memory: Int, keys: Int, inactive: Duration, object: Int) {
        self.memory = memory
        self.keys = keys
        self.inactive = inactive
        self.object = object
    }

    /// What holds where the stack file says nothing.
    public static let standard = CacheSpec(memory: 64 << 20, keys: 8 << 20, inactive: .seconds(3600), object: 16 << 20)
}

/// How a route uses the cache.
public struct RouteCacheSpec: Sendable, Equatable {
    /// Which parameters of the query belong to the key. The others are not sent to the backend either.
    public enum Query: Sendable, Equatable {
        case all
        case only([String])
        case allBut([String])
    }

    public let query: Query
    /// Names, in lower case, of request fields that belong to the key.
    public let headers: [String]
    /// Whether answers with `s-maxage` may be used stale where they say so.
    public let trustsStale: Bool

    public init(query: Query = .all, headers: [String] = [], trustsStale: Bool = false) {
        self.query = query
        self.headers = headers
        self.trustsStale = trustsStale
    }
}
