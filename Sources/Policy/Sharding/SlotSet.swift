/// A set of slots as ascending ranges that do not touch: `0-5460 5500`.
public struct SlotSet: Sendable, Equatable, CustomStringConvertible {
    public private(set) var ranges: [ClosedRange<Int>]

    public init() { ranges = [] }

    /// A set of these ranges, in any order, overlapping or not; each within 0...16383.
    public init(_ parts: [ClosedRange<Int>]) {
        ranges = []
        for part in parts.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            precondition(part.lowerBound >= 0 && part.upperBound < HashSlot.count)
            if let last = ranges.last, part.lowerBound <= last.upperBound + 1 {
                ranges[ranges.count - 1] = last.lowerBound...max(last.upperBound, part.upperBound)
            } else {
                ranges.append(part)
            }
        }
    }

    public init(slots: some Sequence<Int>) { self.init(slots.map { $0...$0 }) }

    /// Reads `0-5460` or `5461`; nil when the text is no range of slots.
    public static func range(_ text: some StringProtocol) -> ClosedRange<Int>? {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count), let low = Int(parts[0]), let high = Int(parts[parts.count - 1]) else { return nil }
        return low >= 0 && low <= high && high < HashSlot.count ? low...high : nil
    }

    public static let all = SlotSet([0...HashSlot.count - 1])

    public var count: Int { ranges.reduce(0) { $0 + $1.count } }
    public var isEmpty: Bool { ranges.isEmpty }
    public var slots: [Int] { ranges.flatMap { Array($0) } }

    /// - Complexity: logarithmic in the number of ranges.
    public func contains(_ slot: Int) -> Bool {
        var low = 0, high = ranges.count
        while low < high {
            let middle = (low + high) / 2
            if ranges[middle].upperBound < slot { low = middle + 1 } else { high = middle }
        }
        return low < ranges.count && ranges[low].contains(slot)
    }

    public func union(_ other: SlotSet) -> SlotSet { SlotSet(ranges + other.ranges) }

    public func subtracting(_ other: SlotSet) -> SlotSet {
        var left: [ClosedRange<Int>] = []
        for range in ranges {
            var start = range.lowerBound
            for gone in other.ranges where gone.overlaps(range) {
                if gone.lowerBound > start { left.append(start...gone.lowerBound - 1) }
                start = max(start, gone.upperBound + 1)
            }
            if start <= range.upperBound { left.append(start...range.upperBound) }
        }
        return SlotSet(left)
    }

    public func intersection(_ other: SlotSet) -> SlotSet { subtracting(subtracting(other)) }

    public var description: String {
        ranges.map { $0.count == 1 ? "\($0.lowerBound)" : "\($0.lowerBound)-\($0.upperBound)" }.joined(separator: " ")
    }
}
