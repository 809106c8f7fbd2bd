/// The replicas that a request has been tried on. At most 8 tries are made (`RetryPolicy`), so it needs no heap.
public struct TriedSet: Sendable {
    private var places: (Int32, Int32, Int32, Int32, Int32, Int32, Int32, Int32) = (-1, -1, -1, -1, -1, -1, -1, -1)
    public private(set) var count = 0

    public init() {}

    public func contains(_ place: Int) -> Bool {
        let place = Int32(truncatingIfNeeded: place)
        return places.0 == place || places.1 == place || places.2 == place || places.3 == place || places.4 == place
            || places.5 == place || places.6 == place || places.7 == place
    }

    public mutating func insert(_ place: Int) {
        let place = Int32(truncatingIfNeeded: place)
        switch count {
        case 0: places.0 = place
        case 1: places.1 = place
        case 2: places.2 = place
        case 3: places.3 = place
        case 4: places.4 = place
        case 5: places.5 = place
        case 6: places.6 = place
        default: places.7 = place
        }
        count = min(count + 1, 8)
    }
}
