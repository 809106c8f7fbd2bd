import Basics
import Caching
import HTTP
import Synchronization

/// The address of answers: scheme, host, path and query, as text with line ends between them.
final class CacheKey: Sendable {
    let bytes: [UInt8]
    let hash: UInt64
    /// Where the target begins in `bytes`.
    let targetAt: Int

    init(bytes: [UInt8], hash: UInt64, targetAt: Int) {
        self.bytes = bytes
        self.hash = hash
        self.targetAt = targetAt
    }

    var target: ArraySlice<UInt8> { bytes[targetAt...] }
    /// `scheme://host/path?query`
    var text: String {
        let parts = String(decoding: bytes, as: UTF8.self).split(separator: "\n", maxSplits: 2, omittingEmptySubsequences: false)
        return parts.count == 3 ? "\(parts[0])://\(parts[1])\(parts[2])" : String(decoding: bytes, as: UTF8.self)
    }
}

/// A field of the request that a stored answer was made for. `value` is its `FieldForm`; nil: the field was not there.
struct SelectingField: Sendable, Equatable {
    let name: [UInt8]
    let value: [UInt8]?
}

/// One stored answer. Immutable but for its counts: a renewed answer is another entry with the same body.
final class CacheEntry: Sendable {
    let key: CacheKey
    /// The number of the route (with its key and edits) that it was stored for.
    let route: Int
    let selecting: [SelectingField]
    let facts: ResponseFacts
    let freshness: Freshness
    /// The end-to-end fields as lines, without Age, Content-Length and tags.
    let lines: [UInt8]
    let body: CacheBody
    let storedAt: WallTime
    /// The id of the request that fetched it.
    let leader: [UInt8]
    /// Whether the body's type is worth compressing, and nothing forbids it.
    let isCompressible: Bool
    /// Uses since eviction looked at it last.
    let uses = Atomic<Int>(0)
    /// When it was last used, in seconds of the monotonic clock.
    let lastUse: Atomic<Int64>
    /// Nanoseconds of the monotonic clock; 0: not set. Since when it counts as stale; until when nobody refreshes it.
    private let staleSinceTime = Atomic<Int64>(0)
    private let pausedUntilTime = Atomic<Int64>(0)
    private let failures = Atomic<Int>(0)
    /// Its place in the eviction's queues; touched under their lock only. -1: in none.
    let place = Atomic<Int32>(-1)
    /// Whether some loop's front table may have it.
    let isFronted = Atomic<Bool>(false)
    let coded = Mutex<[CodedBody]>([])
    private let charge: Int
    private let ledger: CacheLedger

    /// The body in one coding.
    struct CodedBody: Sendable {
        let coding: ContentCoding
        let body: CacheBody
    }

    /// What goes into an entry.
    struct Content: Sendable {
        var key: CacheKey
        var route: Int
        var selecting: [SelectingField]
        var facts: ResponseFacts
        var freshness: Freshness
        var lines: [UInt8]
        var leader: [UInt8]
        var isCompressible: Bool

        /// Bytes that an entry of this content costs, beside its body: its texts with the allocator's own, and the places in the shard's
        /// dictionary and in the eviction's queues (measured on 64 bits, rounded up).
        var charge: Int {
            var sum = 640 + key.bytes.count + lines.count + leader.count
            for field in selecting { sum += 96 + field.name.count + (field.value?.count ?? 0) }
            for name in facts.vary { sum += 48 + name.count }
            for tag in facts.tags { sum += 48 + tag.count }
            sum += (facts.entityTag?.count ?? 0) + (facts.lastModified?.count ?? 0)
            return sum
        }
    }

    /// `ledger` has been charged with the content's charge, and gets it back at the end.
    init(_ content: Content, body: CacheBody, now: MonotonicTime, ledger: CacheLedger) {
        key = content.key
        route = content.route
        selecting = content.selecting
        facts = content.facts
        freshness = content.freshness
        lines = content.lines
        leader = content.leader
        isCompressible = content.isCompressible
        charge = content.charge
        self.body = body
        self.ledger = ledger
        storedAt = .now
        lastUse = Atomic(now.nanoseconds / 1_000_000_000)
    }

    deinit { ledger.heads.wrappingSubtract(charge, ordering: .relaxed) }

    /// Bytes that go when it goes.
    var weight: Int { charge + body.segments.reduce(0) { $0 + $1.capacity + CacheSegment.overhead } }

    /// Counts a use.
    func touch(_ now: MonotonicTime) {
        if uses.load(ordering: .relaxed) < 3 { uses.wrappingAdd(1, ordering: .relaxed) }
        let second = now.nanoseconds / 1_000_000_000
        if lastUse.load(ordering: .relaxed) != second { lastUse.store(second, ordering: .relaxed) }
    }

    /// What decides about its use for a request.
    func reuse(trusted: Bool) -> Reuse {
        let stale = staleSinceTime.load(ordering: .relaxed), paused = pausedUntilTime.load(ordering: .relaxed)
        return Reuse(
            facts, freshness, staleSince: stale == 0 ? nil : MonotonicTime(nanoseconds: stale),
            pausedUntil: paused == 0 ? nil : MonotonicTime(nanoseconds: paused), trusted: trusted)
    }

    /// From now on it counts as stale.
    func expire(_ now: MonotonicTime) { staleSinceTime.store(max(1, now.nanoseconds), ordering: .relaxed) }

    /// A refresh has failed: the next one has to wait.
    func refreshFailed(_ now: MonotonicTime) {
        let count = failures.wrappingAdd(1, ordering: .relaxed).newValue
        pausedUntilTime.store((now + RefreshPause.after(failures: count)).nanoseconds, ordering: .relaxed)
    }

    /// Whether hardly anybody could be served by it any more: it is stale, nothing validates it, no rule of its own lets it be used stale,
    /// and a minute for requests that take what is stale (`max-stale`) is over.
    func isSpent(_ now: MonotonicTime) -> Bool {
        let grace = max(60, facts.directives.staleIfError ?? 0, facts.directives.staleWhileRevalidate ?? 0)
        return !facts.hasValidator && freshness.left(now) + .seconds(grace) < .zero
    }
}

/// Reads and writes heads as lines.
enum CacheLines {
    static func render(_ fields: [FieldMerge.Field]) -> [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(fields.reduce(0) { $0 + $1.name.count + $1.value.count + 4 })
        for field in fields { out += field.name + [58, 32] + field.value + [13, 10] }
        return out
    }

    /// Calls `body` with each line's name, value and the whole line with its end.
    static func each(
        _ lines: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer, UnsafeRawBufferPointer) -> Void
    ) {
        var at = 0
        while at < lines.count {
            guard let end = lines[at...].firstIndex(of: 13), end + 1 < lines.count else { return }
            if let colon = lines[at..<end].firstIndex(of: 58) {
                let value = trimmed(lines[(colon + 1)..<end])
                body(lines.part(at, colon - at), value, lines.part(at, end + 2 - at))
            }
            at = end + 2
        }
    }

    /// The same, for whoever writes into something on the way.
    static func each<Sink: FieldSink & ~Copyable>(
        _ lines: UnsafeRawBufferPointer, into out: inout Sink,
        _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer, UnsafeRawBufferPointer, inout Sink) -> Void
    ) {
        var at = 0
        while at < lines.count {
            guard let end = lines[at...].firstIndex(of: 13), end + 1 < lines.count else { return }
            if let colon = lines[at..<end].firstIndex(of: 58) {
                let value = trimmed(lines[(colon + 1)..<end])
                body(lines.part(at, colon - at), value, lines.part(at, end + 2 - at), &out)
            }
            at = end + 2
        }
    }

    static func fields(_ lines: [UInt8]) -> [FieldMerge.Field] {
        var out: [FieldMerge.Field] = []
        lines.withUnsafeBytes { lines in
            each(lines) { name, value, _ in out.append(FieldMerge.Field(name: Array(name), value: Array(value))) }
        }
        return out
    }

    /// The lines of a 304: what describes a body that is not sent is left out (RFC 9110, 15.4.5).
    static func forNotModified(_ lines: [UInt8]) -> [UInt8] {
        var out: [UInt8] = []
        lines.withUnsafeBytes { lines in
            each(lines) { name, _, line in
                let describes = name.equals("content-type") || name.equals("content-encoding") || name.equals("content-language")
                if !describes && !name.equals("content-range") { out += line }
            }
        }
        return out
    }
}
