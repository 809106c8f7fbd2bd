import Basics

/// Decodes `%XX`; nil when an escape is malformed or the result is no UTF-8.
public func percentDecoded(_ text: Substring, plusIsSpace: Bool = false) -> String? {
    var out: [UInt8] = []
    out.reserveCapacity(text.utf8.count)
    var bytes = text.utf8.makeIterator()
    while let byte = bytes.next() {
        if byte == 37 {
            guard let high = bytes.next().flatMap(hexDigit), let low = bytes.next().flatMap(hexDigit) else { return nil }
            out.append(high << 4 | low)
        } else {
            out.append(byte == 43 && plusIsSpace ? 32 : byte)
        }
    }
    return String(validating: out, as: UTF8.self)
}
