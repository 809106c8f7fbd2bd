import Glibc

/// A growable run of bytes with a read position: what sockets read into and write from.
///
/// Owned by one connection or loop at a time (`~Copyable`), so appending never copies by surprise.
/// Appending is amortized O(1); `consume` is O(1) and frees nothing until the buffer is empty.
public struct ByteBuffer: ~Copyable {
    // Inlined where it is used: a proxied request makes about a hundred appends.
    @usableFromInline var base: UnsafeMutableRawPointer?
    @usableFromInline var capacity = 0
    @usableFromInline var start = 0
    @usableFromInline var end = 0

    public init() {}

    /// A copy of bytes.
    public init(_ bytes: UnsafeRawBufferPointer) { append(bytes) }

    deinit { free(base) }

    @inlinable public var count: Int { end - start }
    @inlinable public var isEmpty: Bool { start == end }

    /// The bytes not yet consumed. Valid until the next mutation.
    @inlinable public var bytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: base.map { $0 + start }, count: end - start)
    }

    @inlinable
    public mutating func append(_ bytes: UnsafeRawBufferPointer) {
        guard let from = bytes.baseAddress, bytes.count > 0 else { return }
        if end + bytes.count > capacity { reserve(bytes.count) }
        memcpy(base! + end, from, bytes.count)
        end += bytes.count
    }

    @inlinable
    public mutating func append(_ text: StaticString) {
        append(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    @inlinable
    public mutating func append(_ byte: UInt8) {
        if end == capacity { reserve(1) }
        base!.storeBytes(of: byte, toByteOffset: end, as: UInt8.self)
        end += 1
    }

    public mutating func append(text: String) {
        var text = text
        text.withUTF8 { append(UnsafeRawBufferPointer($0)) }
    }

    public mutating func append(_ array: [UInt8]) {
        array.withUnsafeBytes { append($0) }
    }

    /// Decimal digits.
    public mutating func append(decimal value: Int) {
        if value < 0 { append(45) }
        var magnitude = value.magnitude
        reserve(20)
        var digits = 1
        var probe = magnitude
        while probe >= 10 {
            probe /= 10
            digits += 1
        }
        var at = end + digits
        end = at
        repeat {
            at -= 1
            base!.storeBytes(of: UInt8(48 + magnitude % 10), toByteOffset: at, as: UInt8.self)
            magnitude /= 10
        } while magnitude > 0
    }

    /// Hexadecimal digits, lower case, no leading zeros: an HTTP chunk size.
    public mutating func append(hex value: Int) {
        var shift = 60
        while shift > 0, (value >> shift) & 15 == 0 { shift -= 4 }
        while shift >= 0 {
            let digit = UInt8((value >> shift) & 15)
            append(digit < 10 ? 48 + digit : 87 + digit)
            shift -= 4
        }
    }

    /// Writes over bytes that are there.
    public mutating func overwrite(at offset: Int, _ bytes: UnsafeRawBufferPointer) {
        precondition(offset >= 0 && offset + bytes.count <= count)
        if let from = bytes.baseAddress { memcpy(base! + start + offset, from, bytes.count) }
    }

    @inlinable
    public mutating func consume(_ count: Int) {
        precondition(count >= 0 && count <= end - start)
        start += count
        if start == end {
            start = 0
            end = 0
        }
    }

    /// Forgets the contents; keeps the memory if it is at most `keeping` bytes.
    public mutating func clear(keeping: Int = .max) {
        start = 0
        end = 0
        if capacity > keeping {
            free(base)
            base = nil
            capacity = 0
        }
    }

    @usableFromInline
    mutating func reserve(_ extra: Int) {
        if end + extra <= capacity { return }
        if start > 0, end - start + extra <= capacity, start >= capacity / 2 {
            memmove(base!, base! + start, end - start)
            end -= start
            start = 0
            return
        }
        let wanted = max(256, max(capacity * 2, end - start + extra))
        let grown = malloc(wanted)!
        if end > start { memcpy(grown, base! + start, end - start) }
        free(base)
        base = grown
        capacity = wanted
        end -= start
        start = 0
    }
}

extension UnsafeRawBufferPointer {
    /// A string of these bytes; invalid UTF-8 becomes U+FFFD.
    public var string: String { String(decoding: self, as: UTF8.self) }

    /// A part of this buffer as a buffer of its own.
    public func part(_ start: Int, _ count: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: self[start..<start + count])
    }
}
