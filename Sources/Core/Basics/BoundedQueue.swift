/// A first-in first-out queue with a bound. Overflow rule: `append` refuses (returns false); nothing that is
/// already in is ever dropped. O(1) each.
public struct BoundedQueue<Element> {
    private var storage: [Element?] = []
    private var head = 0
    public private(set) var count = 0
    public let capacity: Int

    public init(capacity: Int) {
        precondition(capacity > 0)
        self.capacity = capacity
    }

    public var isEmpty: Bool { count == 0 }
    public var first: Element? { count == 0 ? nil : storage[head] }

    public mutating func append(_ element: Element) -> Bool {
        if count == capacity { return false }
        if count == storage.count { grow() }
        storage[(head + count) % storage.count] = element
        count += 1
        return true
    }

    public mutating func removeFirst() -> Element? {
        if count == 0 { return nil }
        let element = storage[head]
        storage[head] = nil
        head = (head + 1) % storage.count
        count -= 1
        return element
    }

    private mutating func grow() {
        var larger: [Element?] = []
        let size = min(capacity, max(8, storage.count * 2))
        larger.reserveCapacity(size)
        for i in 0..<count { larger.append(storage[(head + i) % storage.count]) }
        for _ in count..<size { larger.append(nil) }
        storage = larger
        head = 0
    }
}
