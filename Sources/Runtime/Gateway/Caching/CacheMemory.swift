import Basics
import Glibc
import Synchronization

/// What the cache's contents occupy, in bytes, as long as anybody holds them: also an answer that has left the cache counts until its last
/// slow reader has it.
final class CacheLedger: Sendable {
    let bodies = Atomic<Int>(0)
    let heads = Atomic<Int>(0)
}

/// A piece of memory with a part of a body. One fill writes it, from the beginning on; what has been published as written may be read by
/// anybody, and is never written again.
final class CacheSegment: Sendable {
    // An address and no pointer, because pointers may not be shared between threads: who may look at which bytes is said above.
    private let address: UInt
    let capacity: Int
    private let ledger: CacheLedger?

    /// Bytes that a segment costs beside its capacity: the object, its place in lists, and the allocator's own.
    static let overhead = 96

    /// `ledger`: has been charged already; gets it back at the end. nil: the memory is only on its way to a client and counted nowhere.
    init(capacity: Int, ledger: CacheLedger?) {
        self.capacity = capacity
        self.ledger = ledger
        address = UInt(bitPattern: malloc(max(1, capacity))!)
    }

    deinit {
        free(UnsafeMutableRawPointer(bitPattern: address))
        ledger?.bodies.wrappingSubtract(capacity + CacheSegment.overhead, ordering: .relaxed)
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
        precondition(offset >= 0 && offset + bytes.count <= capacity)
        guard let from = bytes.baseAddress, let base = UnsafeMutableRawPointer(bitPattern: address) else { return }
        memcpy(base + offset, from, bytes.count)
    }

    func bytes(_ offset: Int, _ count: Int) -> UnsafeRawBufferPointer {
        precondition(offset >= 0 && offset + count <= capacity)
        return UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: address).map { $0 + offset }, count: count)
    }
}

/// A body in pieces. All pieces but the last are full.
struct CacheBody: Sendable {
    var segments: [CacheSegment] = []
    var count = 0

    /// The bytes from `position` on, as far as they stand in one piece; empty at the end. Pieces have about the same size: found by walking
    /// from the place where the reader stopped last.
    func part(_ cursor: inout BodyCursor, most: Int) -> UnsafeRawBufferPointer {
        guard cursor.position < count else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        while cursor.segment < segments.count, cursor.offset >= segments[cursor.segment].capacity {
            cursor.offset -= segments[cursor.segment].capacity
            cursor.segment += 1
        }
        guard cursor.segment < segments.count else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        let segment = segments[cursor.segment]
        let size = min(segment.capacity - cursor.offset, count - cursor.position, most)
        return segment.bytes(cursor.offset, size)
    }
}

/// How far a reader has come in a body.
struct BodyCursor: Sendable {
    var position = 0
    fileprivate(set) var segment = 0
    fileprivate(set) var offset = 0

    init() {}

    /// A cursor at `position`; `part` finds the piece.
    init(at position: Int) {
        self.position = position
        offset = position
    }

    mutating func advance(_ count: Int) {
        position += count
        offset += count
    }

    /// Goes on in the same body after its first `pieces` pieces, which this reader has read, are gone. `old`: the body with them.
    mutating func dropped(_ pieces: Int, of old: CacheBody) {
        while segment < min(pieces, old.segments.count), offset >= old.segments[segment].capacity {
            offset -= old.segments[segment].capacity
            segment += 1
        }
        segment -= min(pieces, segment)
    }
}
