import Basics
import Caching
import Compression
import EventLoops
import Observability
import StackModel
import Synchronization

/// The answers that the gateway has stored, for all of its loops.
///
/// Sixty-four shards, each with a mutex and a generation that every change of its contents raises; entries are immutable and counted. What
/// occupies memory is counted in a `CacheLedger`, and what would exceed its bounds is not stored. A shard's mutex may be held while the
/// eviction's is taken, never the other way round.
final class ResponseCache: Sendable {
    static let shardCount = 64
    /// Variants of one address.
    static let mostVariants = 64
    /// Entries that are evicted for one wish at most; then the wish fails.
    private static let mostVictims = 4096

    let seed: UInt64
    let ledger = CacheLedger()
    let metrics: CacheMetrics
    private let shards: [CacheShard]
    private let evictor = Mutex(S3FIFO<CacheEntry>())
    private let limits: Mutex<CacheSpec>
    private let memoryLimit: Atomic<Int>
    private let keysLimit: Atomic<Int>
    private let objectLimit: Atomic<Int>
    private let numbers = Mutex<[String: Int]>([:])
    private let loops = Mutex<[LoopBound<GatewayLoop>]>([])
    private let gatewayLoops = Mutex<[EventLoop]>([])
    private let swept = Atomic<Int>(0)
    /// Requests that wait for another one's fetch.
    let waiting = Atomic<Int>(0)

    init(_ spec: CacheSpec, metrics registry: MetricsRegistry) {
        var random = SystemRandomNumberGenerator()
        seed = random.next()
        shards = (0..<ResponseCache.shardCount).map { _ in CacheShard() }
        limits = Mutex(spec)
        memoryLimit = Atomic(spec.memory)
        keysLimit = Atomic(spec.keys)
        objectLimit = Atomic(spec.object)
        metrics = CacheMetrics(registry)
        let ledger = ledger
        registry.gauge("gateway_cache_bytes", "Memory of the response cache.", labels: [("of", "bodies")]) {
            Double(ledger.bodies.load(ordering: .relaxed))
        }
        registry.gauge("gateway_cache_bytes", "Memory of the response cache.", labels: [("of", "heads")]) {
            Double(ledger.heads.load(ordering: .relaxed))
        }
    }

    /// Takes other limits; what is over them goes when something new comes, or at the next sweeps.
    func apply(_ spec: CacheSpec) {
        limits.withLock { $0 = spec }
        memoryLimit.store(spec.memory, ordering: .relaxed)
        keysLimit.store(spec.keys, ordering: .relaxed)
        objectLimit.store(spec.object, ordering: .relaxed)
    }

    var spec: CacheSpec { limits.withLock { $0 } }
    var largestObject: Int { objectLimit.load(ordering: .relaxed) }

    /// The number of a configuration of a route: the same text has the same number.
    func number(_ text: String) -> Int {
        numbers.withLock { numbers in
            if let known = numbers[text] { return known }
            numbers[text] = numbers.count
            return numbers.count - 1
        }
    }

    /// A loop that may have entries in its front table.
    func join(_ loop: EventLoop, _ part: LoopBound<GatewayLoop>) {
        loops.withLock { $0.append(part) }
        gatewayLoops.withLock { $0.append(loop) }
    }

    private func shard(_ hash: UInt64) -> CacheShard { shards[Int(hash >> 58)] }

    // MARK: finding

    struct Found {
        var entry: CacheEntry?
        /// Whether answers are stored for the address, and none for the request's fields.
        var isVaryMiss = false
        var variants = 0
    }

    /// The newest stored answer that was made for such a request. A hot one is found with one atomic load.
    func find(_ visit: CacheVisit, front: FrontTable, now: MonotonicTime) -> Found {
        let shard = shard(visit.hash)
        if let entry = front.entry(visit.hash, shard.generation.load(ordering: .acquiring)), visit.fits(entry) {
            entry.touch(now)
            return Found(entry: entry, variants: 1)
        }
        let (variants, generation) = shard.state.withLock { state in
            (state.addresses[visit.hash]?.variants ?? [], shard.generation.load(ordering: .relaxed))
        }
        var found = Found(variants: variants.count)
        for entry in variants where visit.fits(entry) {
            found.entry = entry
            entry.touch(now)
            if entry.uses.load(ordering: .relaxed) > 1, entry.body.count <= FrontTable.largestBody {
                entry.isFronted.store(true, ordering: .relaxed)
                front.put(visit.hash, entry, generation)
            }
            return found
        }
        found.isVaryMiss = variants.contains {
            $0.route == visit.cache?.number && $0.key.bytes.withUnsafeBytes { $0.elementsEqual(visit.key) }
        }
        return found
    }

    // MARK: fetches

    enum Joined {
        /// The fetch was begun here; whether others may wait for it.
        case lead(CacheFlow)
        case follow(CacheFlow)
    }

    /// Finds the fetch that a request may wait for, or begins one. `alone`: nobody is waited for, and nobody waits.
    func join(_ visit: CacheVisit, _ cache: RouteCache, validating: CacheEntry?, alone: Bool, now: MonotonicTime) -> Joined {
        let hash = visit.hash, waiting = waiting.load(ordering: .relaxed)
        return shard(hash).state.withLock { state in
            let isUnshared = state.unshared.isUnshared(hash, now: now)
            if !alone, !isUnshared {
                for flow in state.flows[hash] ?? [] where flow.takes(visit, waiting: waiting) { return .follow(flow) }
            }
            let names =
                state.addresses[hash]?.variants.first { $0.route == cache.number }?.selecting.map(\.name) ?? cache.headers
            let flow = CacheFlow(
                key: visit.makeCacheKey(), cache: cache, request: visit.facts, known: visit.selecting(names), validating: validating,
                isOpen: !alone && !isUnshared, begun: now, leaders: visit.leaders)
            state.flows[hash, default: []].append(flow)
            return .lead(flow)
        }
    }

    /// A fetch is over.
    func leave(_ flow: CacheFlow) {
        shard(flow.key.hash).state.withLock { state in
            state.flows[flow.key.hash]?.removeAll { $0 === flow }
            if state.flows[flow.key.hash]?.isEmpty == true { state.flows[flow.key.hash] = nil }
        }
    }

    /// The address's answers are not for sharing, for a while.
    func noteUnshared(_ key: CacheKey, now: MonotonicTime) {
        shard(key.hash).state.withLock { $0.unshared.note(key.hash, now: now) }
    }

    // MARK: storing

    /// Memory for a part of a body; nil when there is no room for it.
    func segment(_ capacity: Int) -> CacheSegment? {
        guard makeRoom(bodies: capacity + CacheSegment.overhead) else { return nil }
        return CacheSegment(capacity: capacity, ledger: ledger)
    }

    /// Charges the ledger, after making room; false when there is none.
    private func makeRoom(bodies: Int = 0, heads: Int = 0) -> Bool {
        func over() -> Int {
            let b = ledger.bodies.load(ordering: .relaxed) - memoryLimit.load(ordering: .relaxed)
            let h = ledger.heads.load(ordering: .relaxed) - keysLimit.load(ordering: .relaxed)
            return max(b, h)
        }
        ledger.bodies.wrappingAdd(bodies, ordering: .relaxed)
        ledger.heads.wrappingAdd(heads, ordering: .relaxed)
        // What leaves may still be held by readers: no more is pushed out than what would make the room.
        var left = over(), victims = 0
        while left > 0, over() > 0, victims < ResponseCache.mostVictims {
            guard let victim = takeVictim() else { break }
            victims += 1
            left -= bodies > 0 ? max(1, victim.body.count) : victim.weight
            drop(victim)
        }
        if over() <= 0 { return true }
        ledger.bodies.wrappingSubtract(bodies, ordering: .relaxed)
        ledger.heads.wrappingSubtract(heads, ordering: .relaxed)
        return false
    }

    private func takeVictim() -> CacheEntry? {
        evictor.withLock { queues in
            let victim = queues.evict(
                uses: { $0.uses.load(ordering: .relaxed) }, setUses: { $0.uses.store($1, ordering: .relaxed) })
            victim?.place.store(-1, ordering: .relaxed)
            return victim
        }
    }

    /// Takes an evicted entry out of its shard.
    private func drop(_ entry: CacheEntry) {
        metrics.evictions.add()
        let shard = shard(entry.key.hash)
        shard.state.withLock { state in
            if state.remove(entry) { shard.changed() }
        }
        dropFromFronts(entry)
    }

    private func dropFromFronts(_ entry: CacheEntry) {
        guard entry.isFronted.load(ordering: .relaxed) else { return }
        let hash = entry.key.hash
        let parts = loops.withLock { $0 }, loops = gatewayLoops.withLock { $0 }
        for (loop, part) in zip(loops, parts) { loop.execute { part.value.front.drop(hash) } }
    }

    private func unlist(_ entry: CacheEntry) {
        evictor.withLock { queues in
            let place = entry.place.exchange(-1, ordering: .relaxed)
            if place >= 0 { queues.remove(place) }
        }
    }

    /// Stores an answer; it replaces what was stored for the same fields. Returns the entry also where it is not stored.
    func store(_ content: CacheEntry.Content, _ body: CacheBody, _ flow: CacheFlow, now: MonotonicTime) -> (CacheEntry?, CacheReason) {
        guard makeRoom(heads: content.charge) else { return (nil, .noRoom) }
        let entry = CacheEntry(content, body: body, now: now, ledger: ledger)
        let shard = shard(content.key.hash)
        let (gone, result) = shard.state.withLock { state -> ([CacheEntry], CacheReason) in
            if flow.isOutdated || flow.isPurged(content.facts.tags) { return ([], .outdated) }
            state.unshared.clear(content.key.hash)
            var address = state.addresses[content.key.hash] ?? CacheShard.Address(key: content.key, variants: [])
            var gone: [CacheEntry] = []
            // Two addresses of one hash: the newer one stays.
            if address.key.bytes != content.key.bytes {
                gone = address.variants
                address = CacheShard.Address(key: content.key, variants: [])
            }
            gone += address.variants.filter { $0.route == entry.route && $0.selecting == entry.selecting }
            address.variants.removeAll { $0.route == entry.route && $0.selecting == entry.selecting }
            address.variants.insert(entry, at: 0)
            while address.variants.count > ResponseCache.mostVariants { gone.append(address.variants.removeLast()) }
            state.addresses[content.key.hash] = address
            evictor.withLock { queues in
                entry.place.store(queues.insert(entry, weight: entry.weight, hash: content.key.hash), ordering: .relaxed)
            }
            shard.changed()
            return (gone, .stored)
        }
        for old in gone {
            unlist(old)
            dropFromFronts(old)
        }
        return (entry, result)
    }

    /// Larger bodies are compressed for each client as it reads: at once they would hold the loop up.
    static let largestCoded = 256 << 10

    /// A stored body in a coding, made when it is first wanted; nil where it is too large, or does not fit.
    func coded(_ entry: CacheEntry, _ coding: ContentCoding) -> CacheBody? {
        guard entry.body.count <= ResponseCache.largestCoded else { return nil }
        if let known = entry.coded.withLock({ $0.first { $0.coding == coding }?.body }) { return known }
        var plain: [UInt8] = [], cursor = BodyCursor()
        plain.reserveCapacity(entry.body.count)
        while case let part = entry.body.part(&cursor, most: .max), !part.isEmpty {
            plain.append(contentsOf: part)
            cursor.advance(part.count)
        }
        guard let packed = plain.withUnsafeBytes({ StreamEncoder.pack($0, coding.algorithm) }), let segment = segment(packed.count) else {
            return nil
        }
        packed.withUnsafeBytes { segment.write($0, at: 0) }
        let body = CacheBody(segments: [segment], count: packed.count)
        entry.coded.withLock { $0.append(CacheEntry.CodedBody(coding: coding, body: body)) }
        return body
    }

    // MARK: removing

    /// Takes one stored answer out, because the origin has another one now that is not stored.
    func remove(_ entry: CacheEntry) {
        let shard = shard(entry.key.hash)
        let removed = shard.state.withLock { state in
            let removed = state.remove(entry)
            if removed { shard.changed() }
            return removed
        }
        if removed {
            unlist(entry)
            dropFromFronts(entry)
        }
    }

    /// The address was changed: all of its answers go, and what is being fetched is not stored.
    func invalidate(_ key: CacheKey) -> Int {
        let shard = shard(key.hash)
        let gone = shard.state.withLock { state -> [CacheEntry] in
            for flow in state.flows[key.hash] ?? [] where flow.key.bytes == key.bytes { flow.outdate() }
            guard let address = state.addresses[key.hash], address.key.bytes == key.bytes else { return [] }
            state.addresses[key.hash] = nil
            shard.changed()
            return address.variants
        }
        for entry in gone {
            unlist(entry)
            dropFromFronts(entry)
        }
        return gone.count
    }

    /// What a purge is about.
    enum Purge: Sendable {
        case url([UInt8])
        case target([UInt8])
        case prefix([UInt8])
        case tag([UInt8])
        case all

        /// Whether it is about what is being fetched: without a head nobody knows its tags.
        func takes(_ key: CacheKey, tags: [[UInt8]]?) -> Bool {
            switch self {
            case .url(let bytes): key.bytes == bytes
            case .target(let bytes): key.target.elementsEqual(bytes)
            case .prefix(let bytes): bytes.first == 47 ? key.target.starts(with: bytes) : Array(key.text.utf8).starts(with: bytes)
            case .tag(let tag): tags?.contains(tag) ?? true
            case .all: true
            }
        }
    }

    /// Takes answers out, or (`soft`) makes them stale. Returns how many. Looks at every address, one shard after the other.
    func purge(_ what: Purge, soft: Bool, now: MonotonicTime) -> Int {
        var count = 0
        for shard in shards {
            let gone = shard.state.withLock { state -> [CacheEntry] in
                for flows in state.flows.values {
                    for flow in flows { flow.purged(what) }
                }
                var gone: [CacheEntry] = []
                for (hash, address) in state.addresses {
                    let taken = address.variants.filter { what.takes(address.key, tags: $0.facts.tags) }
                    if taken.isEmpty { continue }
                    gone += taken
                    if soft { continue }
                    let left = address.variants.filter { entry in !taken.contains { $0 === entry } }
                    state.addresses[hash] = left.isEmpty ? nil : CacheShard.Address(key: address.key, variants: left)
                }
                if !gone.isEmpty { shard.changed() }
                return gone
            }
            count += gone.count
            for entry in gone {
                if soft {
                    entry.expire(now)
                } else {
                    unlist(entry)
                    dropFromFronts(entry)
                }
            }
        }
        return count
    }

    /// Looks at one shard and takes out what nobody has used for `inactive`, and what nobody could be served by. Call a few times a second.
    func sweep(_ now: MonotonicTime) {
        let shard = shards[swept.wrappingAdd(1, ordering: .relaxed).oldValue & (ResponseCache.shardCount - 1)]
        let oldest = (now.nanoseconds - spec.inactive.nanoseconds) / 1_000_000_000
        let gone = shard.state.withLock { state -> [CacheEntry] in
            state.unshared.forget(now)
            var gone: [CacheEntry] = []
            for (hash, address) in state.addresses {
                let left = address.variants.filter { $0.lastUse.load(ordering: .relaxed) >= oldest && !$0.isSpent(now) }
                if left.count == address.variants.count { continue }
                gone += address.variants.filter { entry in !left.contains { $0 === entry } }
                state.addresses[hash] = left.isEmpty ? nil : CacheShard.Address(key: address.key, variants: left)
            }
            if !gone.isEmpty { shard.changed() }
            return gone
        }
        for entry in gone {
            unlist(entry)
            dropFromFronts(entry)
        }
    }

    // MARK: looking

    /// All stored answers whose key fits, at most `most`.
    func entries(_ what: Purge, most: Int) -> [CacheEntry] {
        var out: [CacheEntry] = []
        for shard in shards where out.count < most {
            out += shard.state.withLock { state in
                state.addresses.values.flatMap { address in address.variants.filter { what.takes(address.key, tags: $0.facts.tags) } }
            }
        }
        return Array(out.prefix(most))
    }

    var count: Int { evictor.withLock { $0.count } }
}

/// A part of the cache, by hash.
final class CacheShard: Sendable {
    struct Address: Sendable {
        let key: CacheKey
        /// The newest first.
        var variants: [CacheEntry]
    }

    struct State: Sendable {
        var addresses: [UInt64: Address] = [:]
        /// Fetches under way.
        var flows: [UInt64: [CacheFlow]] = [:]
        var unshared = SharingMemory(most: 256)

        /// Takes one entry out; false when it is not there.
        mutating func remove(_ entry: CacheEntry) -> Bool {
            let hash = entry.key.hash
            guard var address = addresses[hash], let place = address.variants.firstIndex(where: { $0 === entry }) else { return false }
            address.variants.remove(at: place)
            addresses[hash] = address.variants.isEmpty ? nil : address
            return true
        }
    }

    let state = Mutex(State())
    let generation = Atomic<UInt64>(1)

    /// The contents have changed. With the mutex held.
    func changed() { generation.wrappingAdd(1, ordering: .releasing) }
}

struct CacheMetrics: Sendable {
    let evictions: Counter
    let fills: Counter
    let followers: Counter
    let refreshFailures: Counter
    let purged: Counter

    init(_ registry: MetricsRegistry) {
        evictions = registry.counter("gateway_cache_evictions_total", "Stored answers that went to make room for others.")
        fills = registry.counter("gateway_cache_fills_total", "Fetches of the cache from backends.")
        followers = registry.counter("gateway_cache_followers_total", "Requests that waited for another one's fetch.")
        refreshFailures = registry.counter(
            "gateway_cache_refresh_failures_total", "Fetches for what was stored that brought no usable answer.")
        purged = registry.counter("gateway_cache_purged_total", "Stored answers that were purged, or whose address was changed.")
    }
}

/// A loop's own way to the hottest answers: direct-mapped by hash. A place counts as long as its shard has the generation that it was
/// filled at.
final class FrontTable {
    private struct Slot {
        var hash: UInt64 = 0
        var generation: UInt64 = 0
        var entry: CacheEntry?
    }
    private static let size = 1024
    /// Larger bodies take so long to send that finding them does not matter.
    static let largestBody = 64 << 10
    private var slots: [Slot] = []

    func entry(_ hash: UInt64, _ generation: UInt64) -> CacheEntry? {
        if slots.isEmpty { return nil }
        let place = Int(hash & UInt64(FrontTable.size - 1))
        guard slots[place].hash == hash, slots[place].generation == generation else { return nil }
        return slots[place].entry
    }

    func put(_ hash: UInt64, _ entry: CacheEntry, _ generation: UInt64) {
        if slots.isEmpty { slots = [Slot](repeating: Slot(), count: FrontTable.size) }
        slots[Int(hash & UInt64(FrontTable.size - 1))] = Slot(hash: hash, generation: generation, entry: entry)
    }

    /// Lets go of what was found by this hash.
    func drop(_ hash: UInt64) {
        if slots.isEmpty { return }
        let place = Int(hash & UInt64(FrontTable.size - 1))
        if slots[place].hash == hash { slots[place] = Slot() }
    }
}
