/// The value of a hexadecimal digit of either case; nil for anything else.
public func hexDigit(_ byte: UInt8) -> UInt8? { byte &- 48 < 10 ? byte - 48 : (byte | 32) &- 97 < 6 ? (byte | 32) - 87 : nil }

/// The bytes that pairs of hexadecimal digits of either case stand for; nil for anything else.
public func decodeHex(_ text: UnsafeRawBufferPointer) -> [UInt8]? {
    guard text.count % 2 == 0 else { return nil }
    var out: [UInt8] = []
    out.reserveCapacity(text.count / 2)
    var i = 0
    while i < text.count {
        guard let high = hexDigit(text[i]), let low = hexDigit(text[i + 1]) else { return nil }
        out.append(high << 4 | low)
        i += 2
    }
    return out
}

/// The bytes as lower-case hexadecimal digits.
public func hexText(_ bytes: UnsafeRawBufferPointer) -> String {
    String(unsafeUninitializedCapacity: bytes.count * 2) { out in
        for (i, byte) in bytes.enumerated() {
            let high = byte >> 4, low = byte & 15
            out[2 * i] = high < 10 ? 48 + high : 87 + high
            out[2 * i + 1] = low < 10 ? 48 + low : 87 + low
        }
        return bytes.count * 2
    }
}

/// Decodes standard or URL-safe base64, with or without padding, as protobuf's JSON mapping takes it; nil for anything else.
public func decodeBase64(_ text: UnsafeRawBufferPointer) -> [UInt8]? {
    var out: [UInt8] = []
    out.reserveCapacity(text.count * 3 / 4)
    var bits: UInt32 = 0, have: UInt32 = 0, digits = 0
    var rest = text[...]
    while let last = rest.last, last == 61, text.count - rest.count < 2 { rest = rest.dropLast() }
    for byte in rest {
        let value: UInt8
        switch byte {
        case 65...90: value = byte - 65
        case 97...122: value = byte - 71
        case 48...57: value = byte + 4
        case 43, 45: value = 62
        case 47, 95: value = 63
        default: return nil
        }
        bits = bits << 6 | UInt32(value)
        have += 6
        digits += 1
        if have >= 8 {
            have -= 8
            out.append(UInt8(truncatingIfNeeded: bits >> have))
        }
    }
    return digits % 4 == 1 ? nil : out
}

/// Encodes as standard base64 with padding.
public func encodeBase64(_ bytes: UnsafeRawBufferPointer) -> String {
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    var out: [UInt8] = []
    out.reserveCapacity((bytes.count + 2) / 3 * 4)
    var i = 0
    while i < bytes.count {
        let left = bytes.count - i
        let word = UInt32(bytes[i]) << 16 | (left > 1 ? UInt32(bytes[i + 1]) << 8 : 0) | (left > 2 ? UInt32(bytes[i + 2]) : 0)
        out.append(alphabet[Int(word >> 18)])
        out.append(alphabet[Int(word >> 12 & 63)])
        out.append(left > 1 ? alphabet[Int(word >> 6 & 63)] : 61)
        out.append(left > 2 ? alphabet[Int(word & 63)] : 61)
        i += 3
    }
    return String(decoding: out, as: UTF8.self)
}

/// Whether a text is one of the ways in which programs write that there is no value: nothing, blanks, `-`, `null`, `nil`, `none`,
/// `undefined`, `n/a` (in any case, also in parentheses or angle brackets, as `(null)` and `<nil>`).
public func meansNone(_ text: UnsafeRawBufferPointer) -> Bool {
    let blank: (UInt8) -> Bool = { $0 == 32 || $0 == 9 }
    guard let first = text.firstIndex(where: { !blank($0) }), let last = text.lastIndex(where: { !blank($0) }) else { return true }
    guard last - first < 11 else { return false }
    var word = text[first...last].map { $0 &- 65 < 26 ? $0 | 32 : $0 }
    if word.count > 2, word[0] == 40 && word.last == 41 || word[0] == 60 && word.last == 62 { word = Array(word.dropFirst().dropLast()) }
    return ["-", "--", "null", "nil", "none", "undefined", "n/a"].contains { Array($0.utf8) == word }
}

/// Whether a trace or span id written as text is of zeros only (with hyphens between them or not), which means that there is none.
public func meansNoID(_ text: UnsafeRawBufferPointer) -> Bool { text.contains(48) && text.allSatisfy { $0 == 48 || $0 == 45 } }
