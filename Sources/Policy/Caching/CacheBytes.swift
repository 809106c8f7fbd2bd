/// What reading fields needs of bytes. Fields are read as bytes, so that a request's are read without an allocation.
extension UnsafeRawBufferPointer {
    /// Without the spaces and tabs at either end.
    var withoutSpace: UnsafeRawBufferPointer {
        var start = 0, end = count
        while start < end, self[start] == 32 || self[start] == 9 { start += 1 }
        while end > start, self[end - 1] == 32 || self[end - 1] == 9 { end -= 1 }
        return UnsafeRawBufferPointer(rebasing: self[start..<end])
    }

    /// Equal to `word`, which is ASCII in lower case, whatever the case of this.
    func isWord(_ word: StaticString) -> Bool {
        guard count == word.utf8CodeUnitCount else { return false }
        for i in 0..<count where lowered(self[i]) != word.utf8Start[i] { return false }
        return true
    }

    /// Calls `body` for each part between commas, without the space around it; empty parts are left out.
    func eachMember(_ body: (UnsafeRawBufferPointer) -> Void) {
        var start = 0
        for i in 0...count where i == count || self[i] == 44 {
            let part = UnsafeRawBufferPointer(rebasing: self[start..<i]).withoutSpace
            if !part.isEmpty { body(part) }
            start = i + 1
        }
    }

    /// ASCII letters in lower case.
    var lowercase: [UInt8] { map(lowered) }

    /// The decimal number that this is, and nothing else; `most` when it is larger than that. nil for anything but digits.
    func digits(atMost most: Int) -> Int? {
        guard !isEmpty else { return nil }
        var value = 0
        for byte in self {
            guard byte &- 48 < 10 else { return nil }
            // Both stay far below what an Int holds: `most` is at most 2^53.
            value = Swift.min(most, value * 10 + Int(byte &- 48))
        }
        return value
    }
}

/// ASCII letters in lower case.
@inline(__always)
func lowered(_ byte: UInt8) -> UInt8 { byte &- 65 < 26 ? byte | 32 : byte }
