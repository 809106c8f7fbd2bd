import Basics
import Caching
import Testing

/// What leaves a full cache, beside LRU; and who asks when many want the same.
struct EvictionTests {
    private final class Item {
        let key: Int
        var uses = 0
        init(_ key: Int) { self.key = key }
    }

    /// Share of hits of a cache of `capacity` elements.
    private static func hits(_ trace: [Int], capacity: Int) -> Double {
        var queues = S3FIFO<Item>(), known: [Int: Item] = [:], hits = 0
        for key in trace {
            if let item = known[key] {
                hits += 1
                item.uses = min(3, item.uses + 1)
                continue
            }
            while queues.weight >= capacity, let gone = queues.evict(uses: { $0.uses }, setUses: { $0.uses = $1 }) { known[gone.key] = nil }
            let item = Item(key)
            known[key] = item
            _ = queues.insert(item, weight: 1, hash: UInt64(key))
        }
        return Double(hits) / Double(trace.count)
    }

    private static func lruHits(_ trace: [Int], capacity: Int) -> Double {
        var last: [Int: Int] = [:], order: [Int: Int] = [:], oldest = 0, hits = 0
        for (time, key) in trace.enumerated() {
            if last[key] != nil { hits += 1 }
            if let before = last[key] { order[before] = nil }
            last[key] = time
            order[time] = key
            while last.count > capacity {
                if let gone = order.removeValue(forKey: oldest) { last[gone] = nil }
                oldest += 1
            }
        }
        return Double(hits) / Double(trace.count)
    }

    private static func zipf(_ count: Int, of keys: Int, skew: Double, seed: UInt64) -> [Int] {
        var sum = 0.0
        let steps = (1...keys).map { rank -> Double in
            sum += 1 / power(Double(rank), skew)
            return sum
        }
        var random = SeededRandom(seed: seed)
        return (0..<count).map { _ in
            let wanted = Double(random.next() >> 11) / Double(1 << 53) * sum
            var low = 0, high = keys - 1
            while low < high {
                let middle = (low + high) / 2
                if steps[middle] < wanted { low = middle + 1 } else { high = middle }
            }
            return low
        }
    }

    @Test func betterThanLRUByZipfAndScanAndLoop() {
        let zipf = Self.zipf(200_000, of: 20_000, skew: 0.9, seed: 7)
        #expect(Self.hits(zipf, capacity: 1000) > Self.lruHits(zipf, capacity: 1000) + 0.03)
        // Every 20,000 requests somebody walks over 5,000 addresses once.
        var scanned: [Int] = []
        for (i, key) in zipf.enumerated() {
            scanned.append(key)
            if i % 20_000 == 19_999 { scanned += (0..<5000).map { 1_000_000 + i + $0 } }
        }
        #expect(Self.hits(scanned, capacity: 1000) > Self.lruHits(scanned, capacity: 1000) + 0.03)
        // A loop a little larger than the cache: LRU has nothing of it.
        let loop = (0..<60_000).map { $0 % 1200 }
        #expect(Self.lruHits(loop, capacity: 1000) == 0)
        #expect(Self.hits(loop, capacity: 1000) >= 0)
    }

    @Test func weightsAndPlacesStayRight() {
        var queues = S3FIFO<Item>(), random = SeededRandom(seed: 3), places: [(S3FIFO<Item>.Place, Item, Int)] = []
        for key in 0..<20_000 {
            let item = Item(key), weight = Int(random.next() % 100)
            item.uses = Int(random.next() % 4)
            places.append((queues.insert(item, weight: weight, hash: random.next() % 5000), item, weight))
            if random.next() % 3 == 0 {
                let gone = places.remove(at: Int(random.next() % UInt64(places.count)))
                queues.remove(gone.0)
            } else if queues.count > 500, let gone = queues.evict(uses: { $0.uses }, setUses: { $0.uses = $1 }) {
                places.removeAll { $0.1 === gone }
            }
            #expect(queues.count == places.count)
        }
        #expect(queues.weight == places.reduce(0) { $0 + $1.2 })
        while queues.evict(uses: { _ in 3 }, setUses: { _, _ in }) != nil {}
        #expect(queues.count == 0 && queues.weight == 0)
    }

    @Test func oneLeadsAndThreeMayFail() {
        var line = Coalescing()
        #expect(line.arrival(waiting: 0) == .follow && line.arrival(waiting: CoalescingLimits.followers) == .alone)
        #expect(line.fetchFailed(followers: 5) == .nextLeads && line.fetchFailed(followers: 4) == .nextLeads)
        #expect(line.leaders == 3 && line.fetchFailed(followers: 3) == .allFail && line.phase == .over)
        var other = Coalescing()
        let shared = other.headCame(isShared: false), again = other.headCame(isShared: true)
        #expect(!shared && !again && other.arrival(waiting: 0) == .alone)
        var lonely = Coalescing()
        #expect(lonely.fetchFailed(followers: 0) == .nobodyLeft)
        var sharing = Coalescing()
        let began = sharing.headCame(isShared: true)
        #expect(began && sharing.arrival(waiting: 0) == .follow)
        sharing.ended()
        #expect(sharing.arrival(waiting: 0) == .alone && sharing.fetchFailed(followers: 1) == .allFail)
    }

    @Test func unsharedAddressesAreRememberedForAWhileAndBounded() {
        var memory = SharingMemory(most: 3)
        let now = MonotonicTime(nanoseconds: 1)
        for hash in 0..<5 { memory.note(UInt64(hash), now: now) }
        #expect(memory.count == 3 && memory.isUnshared(0, now: now) && !memory.isUnshared(4, now: now))
        let later = now + CoalescingLimits.memory
        #expect(!memory.isUnshared(0, now: later))
        memory.note(9, now: later)
        #expect(memory.count == 1 && memory.isUnshared(9, now: later))
    }
}
