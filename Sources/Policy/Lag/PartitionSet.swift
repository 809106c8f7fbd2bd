/// Some partitions of a topic, written as `1,2,5-8`.
public struct PartitionSet: Sendable, Equatable {
    public let ranges: [ClosedRange<Int32>]

    public init(_ ranges: [ClosedRange<Int32>]) { self.ranges = ranges }

    /// Nil for blanks alone, which limit nothing. Otherwise numbers from 0 on and ranges of them, in any order, blanks around each allowed.
    public static func read(_ text: String) throws(LagSettings.Refusal) -> PartitionSet? {
        let words = text.split(separator: ",", omittingEmptySubsequences: false).map(trimmed)
        if words.count == 1, words[0].isEmpty { return nil }
        var ranges: [ClosedRange<Int32>] = []
        for word in words {
            let ends = word.split(separator: "-", omittingEmptySubsequences: false).map { number(trimmed($0)) }
            guard (1...2).contains(ends.count), let first = ends[0], let last = ends[ends.count - 1], first <= last else {
                throw LagSettings.Refusal(
                    "partitionLimitation", "'\(word)' is no partition and no range of them: write numbers such as 1,2,5-8")
            }
            ranges.append(first...last)
        }
        return PartitionSet(ranges)
    }

    public func contains(_ partition: Int32) -> Bool { ranges.contains { $0.contains(partition) } }

    private static func number(_ text: Substring) -> Int32? {
        guard !text.isEmpty, text.utf8.allSatisfy({ (48...57).contains($0) }) else { return nil }
        return Int32(text)
    }

    private static func trimmed(_ text: Substring) -> Substring {
        var text = text
        while text.first == " " || text.first == "\t" { text = text.dropFirst() }
        while text.last == " " || text.last == "\t" { text = text.dropLast() }
        return text
    }
}
