import Basics
import Caching
import Observability
import StackModel

/// A route's part of the cache.
final class RouteCache: Sendable {
    let store: ResponseCache
    let spec: RouteCacheSpec
    /// The route, its key and its edits, as a number: what was stored under other edits fits no request.
    let number: Int
    /// Edits of what is stored, on its way to a client.
    let edits: HeaderEdits
    let compresses: Bool
    let results: [Counter]
    let headers: [[UInt8]]

    /// Fields by which an origin may be led to another answer than the key says; not sent to it, unless they are in the key.
    static let misleading: Set<[UInt8]> = Set(
        [
            "x-original-url", "x-rewrite-url", "x-http-method-override", "x-http-method", "x-method-override", "x-forwarded-scheme",
            "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-server", "x-forwarded-ssl", "x-forwarded-path", "x-host",
            "x-original-host", "forwarded",
        ].map { Array($0.utf8) })
    /// Fields that the gateway writes anew for each request: what varies by them is one request's.
    static let ownNames: Set<[UInt8]> = Set(
        ["x-forwarded-for", "x-real-ip", "x-request-id", "traceparent", "tracestate", "x-request-timeout", "connection"].map {
            Array($0.utf8)
        })
    /// Fields that are in the key already.
    static let keyNames: Set<[UInt8]> = Set(["host", "x-forwarded-host", "x-forwarded-proto"].map { Array($0.utf8) })

    init(_ route: RouteSpec, _ spec: RouteCacheSpec, store: ResponseCache, edits: HeaderEdits, metrics: MetricsRegistry) {
        self.store = store
        self.spec = spec
        self.edits = edits
        compresses = route.compresses
        headers = spec.headers.map { Array($0.utf8) }
        number = store.number("\(route.label)|\(spec)|\(route.compresses)|\(route.edits)|\(route.access.cors != nil)")
        results = CacheNote.Result.allCases.map { result in
            metrics.counter(
                "gateway_cache_requests_total", "Requests of routes with a cache, by how they were answered.",
                labels: [("route", route.label), ("result", "\(result)")], limit: MetricsRegistry.configuredSeriesLimit)
        }
    }

    /// Whether a field of the request does not reach the backend as the client wrote it.
    func hides(_ name: [UInt8]) -> Bool {
        if compresses, name == RouteCache.acceptEncoding { return true }
        return RouteCache.misleading.contains(name) && !headers.contains(name)
    }

    static let acceptEncoding = Array("accept-encoding".utf8)

    /// The fields by which answers with this `Vary` are told apart; nil when they cannot be.
    func selectingNames(_ facts: ResponseFacts) -> [[UInt8]]? {
        if facts.variesByAnything { return nil }
        var names = headers
        for name in facts.vary where !names.contains(name) && !RouteCache.keyNames.contains(name) {
            if RouteCache.ownNames.contains(name) { return nil }
            names.append(name)
        }
        return names
    }
}
