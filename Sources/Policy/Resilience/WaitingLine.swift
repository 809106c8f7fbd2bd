import Basics

/// A line of waiters for something that is about to be there: in order of arrival, each until its own deadline.
///
/// The line itself has no bound: the caller that lets a waiter join has counted first, because the waiters it counts may be spread over
/// several lines. Time enters only through `now`.
///
/// - Complexity: `join`, `leave`, `first(after:)` and `earliest` take O(log n) or less on average, n being the number of waiters; `overdue`
///   takes O(1) while no waiter is overdue, else O(n). Memory is bounded by about twice the most that waited at once.
public struct WaitingLine<Element> {
    /// The place of one waiter. Numbers are not used twice, and later places have higher ones.
    public struct Place {
        public let number: Int
        public let element: Element
        public let deadline: MonotonicTime
    }

    private struct Due {
        let number: Int
        let deadline: MonotonicTime
    }

    /// By number, with the places of those who have left as `nil` until there are as many as others.
    private var slots: [(number: Int, place: Place?)] = []
    /// Before this slot nobody waits.
    private var head = 0
    /// Who is overdue first, as a binary heap. The top is always somebody who still waits.
    private var dues: [Due] = []
    private var joined = 0
    public private(set) var count = 0

    public init() {}

    public var isEmpty: Bool { count == 0 }
    /// The places in order of arrival. O(n).
    public var places: [Place] { slots.compactMap(\.place) }
    /// The time at which the next waiter is overdue; nil when nobody waits.
    public var earliest: MonotonicTime? { dues.first?.deadline }

    /// Puts a waiter at the end of the line. Returns the number of its place.
    public mutating func join(_ element: Element, until deadline: MonotonicTime) -> Int {
        joined += 1
        count += 1
        slots.append((joined, Place(number: joined, element: element, deadline: deadline)))
        push(Due(number: joined, deadline: deadline))
        return joined
    }

    /// Gives a place up; false when there is no place of this number (any more).
    @discardableResult
    public mutating func leave(_ number: Int) -> Bool {
        let index = index(of: number)
        guard index < slots.count, slots[index].number == number, slots[index].place != nil else { return false }
        slots[index].place = nil
        count -= 1
        while head < slots.count, slots[head].place == nil { head += 1 }
        if slots.count > 2 * count + 16 {
            slots.removeAll { $0.place == nil }
            head = 0
            dues = slots.map { Due(number: $0.number, deadline: $0.place?.deadline ?? MonotonicTime(nanoseconds: .max)) }
            for parent in stride(from: dues.count / 2 - 1, through: 0, by: -1) { sink(parent) }
        }
        while let first = dues.first, !isThere(first.number) { pop() }
        return true
    }

    /// The first place behind this number; with 0, the first of the line. So a line can be walked while it changes.
    public func first(after number: Int) -> Place? {
        var index = max(head, index(of: number + 1))
        while index < slots.count {
            if let place = slots[index].place { return place }
            index += 1
        }
        return nil
    }

    /// The places whose deadline is `<= now`, in order of arrival. They stay in the line until they leave.
    public func overdue(_ now: MonotonicTime) -> [Place] {
        guard let earliest, earliest <= now else { return [] }
        return places.filter { $0.deadline <= now }
    }

    /// Where this number is, or would be.
    private func index(of number: Int) -> Int {
        var low = 0, high = slots.count
        while low < high {
            let middle = (low + high) / 2
            if slots[middle].number < number { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private func isThere(_ number: Int) -> Bool {
        let index = index(of: number)
        return index < slots.count && slots[index].number == number && slots[index].place != nil
    }

    // MARK: the heap

    private mutating func push(_ due: Due) {
        dues.append(due)
        var i = dues.count - 1
        while i > 0, dues[(i - 1) / 2].deadline > dues[i].deadline {
            dues.swapAt(i, (i - 1) / 2)
            i = (i - 1) / 2
        }
    }

    private mutating func pop() {
        let last = dues.removeLast()
        guard !dues.isEmpty else { return }
        dues[0] = last
        sink(0)
    }

    private mutating func sink(_ start: Int) {
        var i = start
        while true {
            let left = 2 * i + 1
            guard left < dues.count else { return }
            let right = left + 1
            let child = right < dues.count && dues[right].deadline < dues[left].deadline ? right : left
            if dues[i].deadline <= dues[child].deadline { return }
            dues.swapAt(i, child)
            i = child
        }
    }
}
