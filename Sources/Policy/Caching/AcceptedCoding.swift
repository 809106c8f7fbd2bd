/// Chooses a coding for an answer by the request's `Accept-Encoding` (RFC 9110, 12.5.3).
public enum AcceptedCoding {
    /// Of `offered`, in the order of our own liking, the one that the client likes best; nil: none, or the client likes it plain better.
    /// Parameters that cannot be read refuse their coding.
    public static func choose(_ lines: [UnsafeRawBufferPointer], of offered: [StaticString]) -> Int? {
        if lines.isEmpty { return nil }
        var weights = [Int?](repeating: nil, count: offered.count), star: Int?, plain: Int?
        for line in lines {
            line.eachMember { member in
                let end = member.firstIndex(of: 59) ?? member.count
                let name = UnsafeRawBufferPointer(rebasing: member[..<end]).withoutSpace
                let weight = end == member.count ? 1000 : quality(UnsafeRawBufferPointer(rebasing: member[(end + 1)...]))
                if name.count == 1, name[0] == 42 { star = weight }
                if name.isWord("identity") { plain = weight }
                for (i, coding) in offered.enumerated() where name.isWord(coding) { weights[i] = weight }
            }
        }
        var best: Int?, most = 0
        for i in offered.indices {
            let weight = weights[i] ?? star ?? 0
            if weight > most { (best, most) = (i, weight) }
        }
        // Plain is always accepted unless it is refused; it wins only where it is named with a larger weight.
        if let plain, plain > most { return nil }
        return best
    }

    /// `q=0.5` in thousandths; 0 for what is no such parameter.
    private static func quality(_ parameters: UnsafeRawBufferPointer) -> Int {
        let text = parameters.withoutSpace
        guard text.count >= 3, text.count <= 7, text[0] | 32 == 113, text[1] == 61 else { return 0 }
        let digits = text[2...]
        guard let first = digits.first, first == 48 || first == 49 else { return 0 }
        var value = Int(first - 48) * 1000, place = 100
        for (i, byte) in digits.dropFirst().enumerated() {
            if i == 0 {
                guard byte == 46 else { return 0 }
                continue
            }
            guard byte &- 48 < 10 else { return 0 }
            value += Int(byte - 48) * place
            place /= 10
        }
        return min(value, 1000)
    }
}
