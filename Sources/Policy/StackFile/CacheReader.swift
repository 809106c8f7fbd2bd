import Basics
import StackModel

/// The keys of the response cache.
extension StackSchema {
    static let cache = ObjectSpec(
        "the response cache of the routes that have cache",
        [
            KeySpec("memory", .size(65_536...1 << 40), "bytes of bodies, a hard bound; default 64Mi"),
            KeySpec("keys", .size(65_536...1 << 36), "bytes of heads and keys, a hard bound; default an eighth of memory"),
            KeySpec("inactive", .time(from: .seconds(1)), "what nobody asked for in this time goes; default 1h"),
            KeySpec("object", .size(1...1 << 34), "the largest body that is stored; default 16Mi, at most a quarter of memory"),
        ])
    static let cacheKey = ObjectSpec(
        "what belongs to the key, beside scheme, host and path",
        [
            KeySpec("query", .list(.string), "only these parameters; the others are not sent on; default all"),
            KeySpec("ignore", .list(.string), "all parameters but these, which are not sent on"),
            KeySpec("headers", .list(.token), "these fields of the request"),
        ])
    static let routeCache = ObjectSpec(
        "answers are stored where they allow it, and served from memory",
        [
            KeySpec("key", .object(cacheKey), "what belongs to the key"),
            KeySpec(
                "stale", .choice(["strict", "trusted"]),
                "trusted: answers with s-maxage may be used stale where they say stale-while-revalidate or stale-if-error; default strict"),
        ])
}

extension StackReader {
    mutating func cache(_ object: CheckedObject) -> CacheSpec? {
        guard let cache = object.object("cache") else { return nil }
        let standard = CacheSpec.standard, memory = cache.integer("memory") ?? standard.memory
        let keys = cache.integer("keys") ?? max(65_536, memory / 8)
        let largest = max(1, memory / 4), given = cache.integer("object")
        if let given, given > largest {
            let place = cache.places["object"] ?? (cache.line, cache.column)
            checker.report(place.line, place.column, "gateway.cache.object: at most a quarter of memory, which is \(largest) bytes")
        }
        return CacheSpec(
            memory: memory, keys: keys, inactive: cache.duration("inactive") ?? standard.inactive,
            object: min(given ?? standard.object, largest))
    }

    mutating func routeCache(_ object: CheckedObject, _ path: String) -> RouteCacheSpec? {
        guard let cache = object.object("cache") else { return nil }
        for key in ["answer", "redirect"] where object.places[key] != nil {
            checker.report(cache.line, cache.column, "\(path).cache: the gateway itself answers this route; there is nothing to store")
        }
        if object.places["canary"] != nil {
            checker.report(
                cache.line, cache.column,
                "\(path).cache: with a canary, what one version answers would be stored for those who were sent to the other")
        }
        let key = cache.object("key"), only = key?.strings("query") ?? [], ignored = key?.strings("ignore") ?? []
        if let key, key.places["query"] != nil, key.places["ignore"] != nil {
            checker.report(key.line, key.column, "\(path).cache.key: give query or ignore")
        }
        let query: RouteCacheSpec.Query = key?.places["query"] != nil ? .only(only) : ignored.isEmpty ? .all : .allBut(ignored)
        return RouteCacheSpec(
            query: query, headers: (key?.strings("headers") ?? []).map { $0.lowercased() }, trustsStale: cache.string("stale") == "trusted")
    }
}
