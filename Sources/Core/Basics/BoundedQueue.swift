/// A first-in first-out queue with a bound. Overflow rule: `append` refuses (returns false); nothing that is
/// already in is ever dropped. O(1) each.
///
/// Inlinable: of an element's type that only another module knows, each call would otherwise ask for its metadata.
public struct BoundedQueue<Element> {
    @usableFromInline var storage: [Element?] = []
    @usableFromInline var head = 0
    @usableFromInline var held = 0
    public let capacity: Int

    @inlinable public init(capacity: Int) {
        precondition(capacity > 0)
        self.capacity = capacity
    }

    @inlinable public var count: Int { held }
    @inlinable public var isEmpty: Bool { held == 0 }
    @inlinable public var first: Element? { count == 0 ? nil : storage[head] }

    @inlinable public mutating func append(_ element: Element) -> Bool {
        if count == capacity { return false }
        if count == storage.count { grow() }
        var place = head + count
        if place >= storage.count { place -= storage.count }
        storage[place] = element
        held += 1
        return true
    }

    @inlinable public mutating func removeFirst() -> Element? {
        if count == 0 { return nil }
        let element = storage[head]
        storage[head] = nil
        head += 1
        if head == storage.count { head = 0 }
        held -= 1
        return element
    }

    /// The elements from the first to the last, as a copy: O(count).
    @inlinable public var elements: [Element] { (0..<count).compactMap { storage[(head + $0) % storage.count] } }

    @usableFromInline mutating func grow() {
        var larger: [Element?] = []
        let size = min(capacity, max(8, storage.count * 2))
        larger.reserveCapacity(size)
        for i in 0..<count { larger.append(storage[(head + i) % storage.count]) }
        for _ in count..<size { larger.append(nil) }
        storage = larger
        head = 0
    }
}
