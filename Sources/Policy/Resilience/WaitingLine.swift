import Basics

/// Those who wait for something that is about to be there, in order of arrival, each until its own deadline.
///
/// Not bounded here: whoever lets somebody join has counted first, because what counts may be spread over several lines. Time enters only
/// through `now`.
///
/// - Complexity: `join` O(1); all else O(those who wait). Nothing is kept for a line that is empty.
public struct WaitingLine<Element> {
    /// Somebody's place. Numbers are not used twice.
    public struct Place {
        public let number: Int
        public let element: Element
        public let deadline: MonotonicTime
    }

    /// First come, first.
    public private(set) var places: [Place] = []
    private var joined = 0

    public init() {}

    public var isEmpty: Bool { places.isEmpty }
    public var count: Int { places.count }
    /// The next time at which somebody is overdue; nil when nobody waits.
    public var earliest: MonotonicTime? { places.lazy.map(\.deadline).min() }

    /// At the end of the line. Returns the number of the place.
    public mutating func join(_ element: Element, until deadline: MonotonicTime) -> Int {
        joined += 1
        places.append(Place(number: joined, element: element, deadline: deadline))
        return joined
    }

    /// Gives the place up; false when there is none of this number (any more).
    @discardableResult
    public mutating func leave(_ number: Int) -> Bool {
        guard let place = places.firstIndex(where: { $0.number == number }) else { return false }
        places.remove(at: place)
        return true
    }

    /// Whose deadline is `<= now`, in order. They keep their places until they leave.
    public func overdue(_ now: MonotonicTime) -> [Place] { places.filter { $0.deadline <= now } }
}
