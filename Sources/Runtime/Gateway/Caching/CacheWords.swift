import Basics
import Caching

/// How `muster why --request` tells a request's way through the cache.
enum CacheWords {
    static func inputs(_ note: CacheNote) -> [DecisionRecord.Input] {
        guard note.result != .none else { return [] }
        var out: [DecisionRecord.Input] = [.init("cache", "\(note.result)"), .init("rule", note.why.rawValue)]
        if note.result == .hit || note.result == .stale || note.result == .validated {
            out += [.init("age", "\(note.age)s"), .init("left", "\(note.left)s")]
        }
        if let stored = note.stored { out.append(.init("stored", stored.rawValue)) }
        if note.isCollapsed { out.append(.init("waited_for", "another request's fetch")) }
        out.append(.init("variants", Int(note.variants)))
        return out
    }

    static func sentence(_ note: CacheNote, _ id: String, _ replica: String?) -> String {
        let origin = replica ?? "the origin"
        switch note.result {
        case .none: return "Request \(id) had nothing to do with the cache."
        case .hit: return "Request \(id) was served from the cache: \(note.why.sentence), \(note.age) s old, for another \(note.left) s."
        case .stale: return "Request \(id) was served from the cache, stale: \(note.why.sentence)."
        case .validated: return "Request \(id) was served from the cache after \(origin) said that it still holds: \(note.why.sentence)."
        case .bypass: return "Request \(id) passed the cache by: \(note.why.sentence)."
        case .failed: return "Request \(id) got no answer from the origin, and nothing that is stored may stand in for it."
        case .miss:
            let how = note.isCollapsed ? "waited for another request's fetch" : "was answered by \(origin)"
            let kept = note.stored.map { $0 == .stored ? "; the answer was stored" : "; the answer was not stored: \($0.sentence)" } ?? ""
            return "Request \(id) \(how): \(note.why.sentence)\(kept)."
        }
    }

    /// What would have changed it.
    static func flip(_ note: CacheNote) -> String {
        switch note.result {
        case .hit: "a purge, or \(max(0, note.left)) more seconds"
        case .stale: "a refresh"
        case .validated: "a longer lifetime of the answer"
        case .miss:
            note.stored.map { $0 == .stored ? "the same request a moment later" : "an answer that may be stored" } ?? "a stored answer"
        case .bypass: "another request"
        case .failed, .none: "an answer of the origin"
        }
    }
}
