import Basics
import Caching
import HTTP
import JSONCoding
import Observability

/// The cache's part of the admin port.
extension AdminAPI {
    /// Longest address or tag that a question may name.
    private static let longest = 16 << 10
    /// Stored answers that one question tells of at most.
    private static let mostTold = 200

    static func addCache(to router: inout Router, gateway: Gateway) {
        router.add("POST", "/api/cache/purge") { request, _ in
            try authorize(request, gateway)
            let query = try request.query("url", "prefix", "tag", "all", "soft")
            try request.refuseBody()
            let (what, words) = try purge(query), soft = try isSet(query, "soft")
            let count = gateway.cache.purge(what, soft: soft, now: .now)
            gateway.cache.metrics.purged.add(count)
            gateway.journal.append(
                DecisionRecord(
                    .cache, subject: words, inputs: [.init("answers", count), .init("soft", soft)], raw: "purge",
                    outcome: "purged \(count)",
                    sentence:
                        "Somebody purged \(words): \(count) stored answers \(soft ? "are to be validated before they are used" : "went").",
                    flip: "another request to /api/cache/purge"))
            return .json { $0.member("purged", count) }
        }
        router.get("/api/cache") { request, _ in
            let query = try request.query("url")
            guard let url = query.filled("url") else { return .json { summary(gateway.cache, into: &$0) } }
            let entries = gateway.cache.entries(try address(url), most: mostTold)
            return .json { json in
                json.key("entries")
                json.beginArray()
                for entry in entries { write(entry, into: &json) }
                json.endArray()
            }
        }
    }

    private static func isSet(_ query: QueryFields, _ name: String) throws(APIError) -> Bool {
        guard let value = query.filled(name) else { return false }
        guard ["1", "true", "0", "false"].contains(value) else { throw APIError(400, "bad_parameter", "is 1 or 0", field: name) }
        return value == "1" || value == "true"
    }

    /// What a purge is about, and how it is told.
    private static func purge(_ query: QueryFields) throws(APIError) -> (ResponseCache.Purge, String) {
        let given = ["url", "prefix", "tag"].filter { query.filled($0) != nil }, all = try isSet(query, "all")
        guard given.count + (all ? 1 : 0) == 1 else {
            throw APIError(400, "bad_parameter", "give one of url, prefix, tag and all=1")
        }
        if all { return (.all, "the whole cache") }
        let text = query.filled(given[0]) ?? ""
        guard text.utf8.count <= longest else { throw APIError(400, "too_long", "at most \(longest) bytes", field: given[0]) }
        switch given[0] {
        case "url": return (try address(text), text)
        case "prefix":
            guard text.hasPrefix("/") || text.contains("://") else {
                throw APIError(400, "bad_prefix", "expected a path, or an address with scheme and host", field: "prefix")
            }
            return (.prefix(Array(text.utf8)), "what begins with \(text)")
        default: return (.tag(Array(text.utf8)), "the tag \(text)")
        }
    }

    /// A path, on every host; or a whole address.
    private static func address(_ text: String) throws(APIError) -> ResponseCache.Purge {
        if text.hasPrefix("/") { return .target(Array(text.utf8)) }
        guard let colon = text.range(of: "://") else {
            throw APIError(400, "bad_url", "expected a path such as /a/b?c=d, or an address such as http://host/a", field: "url")
        }
        let scheme = text[..<colon.lowerBound].lowercased(), rest = text[colon.upperBound...]
        let host = rest.prefix { $0 != "/" }.lowercased(), target = rest.dropFirst(host.count)
        return .url(Array("\(scheme)\n\(host)\n\(target.isEmpty ? "/" : String(target))".utf8))
    }

    private static func summary(_ cache: ResponseCache, into json: inout JSONWriter) {
        let spec = cache.spec
        json.member("entries", cache.count)
        json.member("body_bytes", cache.ledger.bodies.load(ordering: .relaxed))
        json.member("head_bytes", cache.ledger.heads.load(ordering: .relaxed))
        json.member("memory", spec.memory)
        json.member("keys", spec.keys)
        json.member("object", spec.object)
        json.member("inactive", spec.inactive.brief)
        json.member("evictions", cache.metrics.evictions.current)
        json.member("fills", cache.metrics.fills.current)
        json.member("followers", cache.metrics.followers.current)
        json.member("refresh_failures", cache.metrics.refreshFailures.current)
    }

    private static func write(_ entry: CacheEntry, into json: inout JSONWriter) {
        let now = MonotonicTime.now
        json.beginObject()
        json.member("url", entry.key.text)
        json.member("status", entry.facts.status)
        json.member("bytes", entry.body.count)
        json.member("age", entry.freshness.age(now))
        json.member("lifetime", entry.freshness.lifetime)
        json.member("lifetime_from", entry.freshness.source.rawValue)
        json.member("ttl", entry.freshness.lifetime.subtractingClamped(entry.freshness.age(now)))
        json.member("stored_at", CalendarTime.render(entry.storedAt))
        json.member("fetched_by", String(decoding: entry.leader, as: UTF8.self))
        if let tag = entry.facts.entityTag { json.member("etag", String(decoding: tag, as: UTF8.self)) }
        json.key("varies_by")
        json.beginObject()
        for field in entry.selecting {
            json.member(String(decoding: field.name, as: UTF8.self), field.value.map { String(decoding: $0, as: UTF8.self) } ?? "")
        }
        json.endObject()
        json.key("tags")
        json.beginArray()
        for tag in entry.facts.tags { json.string(String(decoding: tag, as: UTF8.self)) }
        json.endArray()
        let (action, why) = entry.reuse(trusted: false).verdict(RequestDirectives(), now: now)
        json.member("use", action == .validate ? "validate" : "serve")
        json.member("why", why.sentence)
        json.endObject()
    }
}

extension String {
    /// Where `other` first stands in this.
    fileprivate func range(of other: String) -> Range<String.Index>? {
        var at = startIndex
        while at < endIndex {
            if self[at...].hasPrefix(other) { return at..<index(at, offsetBy: other.count) }
            at = index(after: at)
        }
        return nil
    }
}
