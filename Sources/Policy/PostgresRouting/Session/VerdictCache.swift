/// What is known of texts, by the text: the longest unused is forgotten first. One for each loop; not for two at once.
///
/// Bounded in entries and in bytes of texts. A profile holds for one search path and one catalog: with others the text is read again.
///
/// - Complexity: a text that is known is found in O(its length), without an allocation.
public struct VerdictCache: Sendable {
    private struct Entry {
        var hash: UInt64
        var text: [UInt8]
        var path: SearchPath
        var catalog: Int
        var profile: TextProfile
        var newer: Int32
        var older: Int32
    }

    /// A text that a replica refused as a write keeps that mark for so many texts more.
    private static let mostLearned = 1024

    private let mostEntries: Int
    private let mostBytes: Int
    private var entries: [Entry] = []
    /// Places in `entries` by hash, open addressing; -1 is free.
    private var table: [Int32]
    private var bytes = 0
    private var newest: Int32 = -1
    private var oldest: Int32 = -1
    private var free: [Int32] = []
    private var learned: Set<[UInt8]> = []

    public private(set) var hits = 0
    public private(set) var misses = 0

    public init(entries: Int = 4096, bytes: Int = 8 << 20) {
        mostEntries = min(max(entries, 1), 1 << 20)
        mostBytes = bytes
        var size = 4
        while size < mostEntries * 2 { size <<= 1 }
        table = [Int32](repeating: -1, count: size)
    }

    public var count: Int { entries.count - free.count }

    /// What is known of a text of at most `TextProfile.longest` bytes; it is read when it is not known.
    mutating func profile(_ text: UnsafeRawBufferPointer, _ catalog: RoutingCatalog, _ path: SearchPath) -> TextProfile {
        let hash = VerdictCache.hash(text)
        if let place = find(hash, text) {
            if entries[place].catalog == catalog.number, entries[place].path == path {
                hits &+= 1
                touch(place)
                return entries[place].profile
            }
            remove(place)
        }
        misses &+= 1
        let copy = Array(text)
        let profile = TextProfile.read(text, catalog, path, learnedWrites: learned.contains(copy))
        insert(hash, copy, path, catalog.number, profile)
        return profile
    }

    /// A replica refused this text as a write (25006): from now on it goes to the primary.
    public mutating func learnWrite(_ text: UnsafeRawBufferPointer) {
        if learned.count >= VerdictCache.mostLearned { learned.removeAll() }
        learned.insert(Array(text))
        if let place = find(VerdictCache.hash(text), text) { remove(place) }
    }

    /// FNV-1a over words of eight bytes, mixed at the end. Texts are compared in full: a collision costs time only.
    private static func hash(_ text: UnsafeRawBufferPointer) -> UInt64 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        var at = 0
        while at + 8 <= text.count {
            hash = (hash ^ text.loadUnaligned(fromByteOffset: at, as: UInt64.self)) &* 0x9e37_79b9_7f4a_7c15
            hash ^= hash >> 32
            at += 8
        }
        while at < text.count {
            hash = (hash ^ UInt64(text[at])) &* 0x100_0000_01b3
            at += 1
        }
        hash ^= hash >> 29
        return hash &* 0xbf58_476d_1ce4_e5b9
    }

    private func find(_ hash: UInt64, _ text: UnsafeRawBufferPointer) -> Int? {
        let mask = table.count - 1
        var slot = Int(truncatingIfNeeded: hash) & mask
        while table[slot] >= 0 {
            let place = Int(table[slot])
            if entries[place].hash == hash, VerdictCache.isEqual(entries[place].text, text) { return place }
            slot = (slot + 1) & mask
        }
        return nil
    }

    private static func isEqual(_ known: [UInt8], _ text: UnsafeRawBufferPointer) -> Bool {
        guard known.count == text.count else { return false }
        return known.withUnsafeBytes { known in
            var at = 0
            while at + 8 <= known.count {
                let a = known.loadUnaligned(fromByteOffset: at, as: UInt64.self),
                    b = text.loadUnaligned(fromByteOffset: at, as: UInt64.self)
                if a != b { return false }
                at += 8
            }
            while at < known.count {
                if known[at] != text[at] { return false }
                at += 1
            }
            return true
        }
    }

    // MARK: the list from the newest to the oldest

    private mutating func touch(_ place: Int) {
        if newest == Int32(place) { return }
        unlink(place)
        link(place)
    }

    private mutating func link(_ place: Int) {
        entries[place].newer = -1
        entries[place].older = newest
        if newest >= 0 { entries[Int(newest)].newer = Int32(place) }
        newest = Int32(place)
        if oldest < 0 { oldest = newest }
    }

    private mutating func unlink(_ place: Int) {
        let (newer, older) = (entries[place].newer, entries[place].older)
        if newer >= 0 { entries[Int(newer)].older = older } else { newest = older }
        if older >= 0 { entries[Int(older)].newer = newer } else { oldest = newer }
    }

    private mutating func insert(_ hash: UInt64, _ text: [UInt8], _ path: SearchPath, _ catalog: Int, _ profile: TextProfile) {
        guard text.count <= mostBytes else { return }
        while oldest >= 0, count >= mostEntries || bytes + text.count > mostBytes { remove(Int(oldest)) }
        let entry = Entry(hash: hash, text: text, path: path, catalog: catalog, profile: profile, newer: -1, older: -1)
        let place: Int
        if let one = free.popLast() {
            place = Int(one)
            entries[place] = entry
        } else {
            place = entries.count
            entries.append(entry)
        }
        bytes += text.count
        link(place)
        let mask = table.count - 1
        var slot = Int(truncatingIfNeeded: hash) & mask
        while table[slot] >= 0 { slot = (slot + 1) & mask }
        table[slot] = Int32(place)
    }

    private mutating func remove(_ place: Int) {
        unlink(place)
        bytes -= entries[place].text.count
        let mask = table.count - 1
        var slot = Int(truncatingIfNeeded: entries[place].hash) & mask
        while table[slot] != Int32(place) { slot = (slot + 1) & mask }
        // What follows moves up, so that it is still found.
        var gap = slot
        var next = (slot + 1) & mask
        while table[next] >= 0 {
            let home = Int(truncatingIfNeeded: entries[Int(table[next])].hash) & mask
            if (next - home) & mask >= (next - gap) & mask {
                table[gap] = table[next]
                gap = next
            }
            next = (next + 1) & mask
        }
        table[gap] = -1
        entries[place].text = []
        free.append(Int32(place))
    }
}
