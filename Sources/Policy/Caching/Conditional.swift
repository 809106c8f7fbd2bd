import Basics

/// Answers a client's conditions from what is stored (RFC 9111, 4.3.2; RFC 9110, 13).
public enum Conditional {
    /// Whether a GET or HEAD is answered 304. `ifNoneMatch` has each line of that field; it outweighs the date.
    public static func isNotModified(
        ifNoneMatch: [UnsafeRawBufferPointer], ifModifiedSince: UnsafeRawBufferPointer?, _ facts: ResponseFacts
    ) -> Bool {
        guard facts.status == 200 || facts.status == 203 else { return false }
        if !ifNoneMatch.isEmpty {
            return ifNoneMatch.contains { line in
                guard let tag = facts.entityTag else { return EntityTag.list(line, has: nil) }
                return tag.withUnsafeBytes { EntityTag.list(line, has: $0) }
            }
        }
        guard let given = ifModifiedSince else { return false }
        if let modified = facts.lastModified, given.elementsEqual(modified) { return true }
        guard let since = httpTime(given.string) else { return false }
        // Without Last-Modified the answer was made at its Date at the latest.
        guard let changed = facts.lastModifiedTime ?? facts.date else { return false }
        return changed <= since
    }

    /// Whether a `Range` applies, by its `If-Range`: only to the very bytes that the client has parts of.
    public static func rangeApplies(ifRange: UnsafeRawBufferPointer?, _ facts: ResponseFacts) -> Bool {
        guard let ifRange else { return true }
        if ifRange.first == 34 || EntityTag.isWeak(ifRange) {
            return facts.entityTag.map { $0.withUnsafeBytes { EntityTag.stronglyEqual($0, ifRange) } } ?? false
        }
        guard let modified = facts.lastModified, let time = facts.lastModifiedTime, ifRange.elementsEqual(modified) else { return false }
        // A date is as good as a strong tag only where the answer is at least a second younger than it (RFC 9110, 8.8.2.2).
        return facts.date.map { $0.milliseconds - time.milliseconds >= 1000 } ?? false
    }

    /// Whether a 304 is about the stored answer (RFC 9111, 4.3.4). Without any validator in it, it is about the one that was asked for.
    public static func fits(_ notModified: ResponseFacts, stored: ResponseFacts) -> Bool {
        if let new = notModified.entityTag {
            guard let old = stored.entityTag else { return false }
            return new.withUnsafeBytes { new in
                old.withUnsafeBytes { old in
                    EntityTag.isWeak(new) || EntityTag.isWeak(old)
                        ? EntityTag.weaklyEqual(new, old) : EntityTag.stronglyEqual(new, old)
                }
            }
        }
        if let new = notModified.lastModified, let old = stored.lastModified { return new == old }
        return true
    }
}

/// One range of bytes of a `Range` field (RFC 9110, 14).
public enum ByteRange: Sendable, Equatable {
    /// The field is not for us: another unit, several ranges, or malformed. Everything is sent.
    case whole
    case part(Range<Int>)
    /// Nothing of it is there: 416.
    case unsatisfiable

    public init(_ field: UnsafeRawBufferPointer, length: Int) {
        self = .whole
        guard field.count > 6, field.count <= 64, UnsafeRawBufferPointer(rebasing: field[..<6]).isWord("bytes=") else { return }
        let text = UnsafeRawBufferPointer(rebasing: field[6...]).withoutSpace
        guard let dash = text.firstIndex(of: 45), !text.contains(44) else { return }
        let first = UnsafeRawBufferPointer(rebasing: text[..<dash]).withoutSpace
        let last = UnsafeRawBufferPointer(rebasing: text[(dash + 1)...]).withoutSpace
        let most = 1 << 53
        if first.isEmpty {
            guard let count = last.digits(atMost: most) else { return }
            self = count == 0 || length == 0 ? .unsatisfiable : .part(max(0, length - count)..<length)
            return
        }
        guard let from = first.digits(atMost: most) else { return }
        var to = most
        if !last.isEmpty {
            guard let end = last.digits(atMost: most), end >= from else { return }
            to = end
        }
        self = from < length ? .part(from..<min(length, to.addingClamped(1))) : .unsatisfiable
    }
}
