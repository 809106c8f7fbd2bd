import Basics

/// Reads the body of one message, from its first byte to its last. Whatever the bytes are, reading ends in a value or in a
/// `ProtocolFailure`; a count that the peer names is compared with the bytes that are there before anything is reserved for it.
///
/// The bytes must stay as they are while this value lives.
struct MessageReader {
    private let bytes: UnsafeRawBufferPointer
    private(set) var at = 0
    /// The message's name, for failures.
    private let message: StaticString

    init(_ bytes: UnsafeRawBufferPointer, _ message: StaticString) {
        self.bytes = bytes
        self.message = message
    }

    var left: Int { bytes.count - at }

    func failure(_ what: String) -> ProtocolFailure { ProtocolFailure("\(message): \(what) (byte \(at) of \(bytes.count))") }

    mutating func byte() throws(ProtocolFailure) -> UInt8 {
        guard left >= 1 else { throw failure("it ends too early") }
        at += 1
        return bytes[at - 1]
    }

    mutating func int16() throws(ProtocolFailure) -> Int16 {
        guard left >= 2 else { throw failure("it ends too early") }
        at += 2
        return Int16(bigEndian: bytes.loadUnaligned(fromByteOffset: at - 2, as: Int16.self))
    }

    mutating func int32() throws(ProtocolFailure) -> Int32 {
        guard left >= 4 else { throw failure("it ends too early") }
        at += 4
        return Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: at - 4, as: Int32.self))
    }

    mutating func oid() throws(ProtocolFailure) -> UInt32 { UInt32(bitPattern: try int32()) }

    /// A count of things of at least `size` bytes each. It has no sign: a client may send 65,535 parameters.
    mutating func count(ofAtLeast size: Int) throws(ProtocolFailure) -> Int {
        let count = Int(UInt16(bitPattern: try int16()))
        guard count <= left / size else { throw failure("a count of \(count), and \(left) bytes behind it") }
        return count
    }

    /// Up to the next zero byte, which is taken too.
    mutating func text() throws(ProtocolFailure) -> WireText {
        var end = at
        while end < bytes.count, bytes[end] != 0 { end += 1 }
        guard end < bytes.count else { throw failure("a text without its end") }
        let text = WireText(bytes: Array(bytes[at..<end]))
        at = end + 1
        return text
    }

    mutating func take(_ count: Int) throws(ProtocolFailure) -> [UInt8] {
        guard count >= 0, count <= left else { throw failure("\(count) bytes of a value, and \(left) behind it") }
        at += count
        return Array(bytes[(at - count)..<at])
    }

    /// A length and so many bytes; -1 is no value.
    mutating func value() throws(ProtocolFailure) -> [UInt8]? {
        let count = Int(try int32())
        return count == -1 ? nil : try take(count)
    }

    /// Passes a value over.
    mutating func skipValue() throws(ProtocolFailure) {
        let count = Int(try int32())
        if count == -1 { return }
        guard count >= 0, count <= left else { throw failure("\(count) bytes of a value, and \(left) behind it") }
        at += count
    }

    mutating func rest() -> [UInt8] {
        let start = at
        at = bytes.count
        return Array(bytes[start...])
    }

    func end() throws(ProtocolFailure) { if left != 0 { throw failure("\(left) bytes too many") } }
}

/// Writes messages one behind the other.
struct MessageWriter: ~Copyable {
    private(set) var buffer = ByteBuffer()
    private var start = 0

    init() {}

    var bytes: UnsafeRawBufferPointer { buffer.bytes }
    var count: Int { buffer.count }

    /// Begins a message of this kind; 0: one of the first messages, which have no kind.
    mutating func begin(_ kind: UInt8) {
        if kind != 0 { buffer.append(kind) }
        start = buffer.count
        put(Int32(0))
    }

    /// Writes the length of the message that was begun, itself included.
    mutating func end() {
        let length = UInt32(truncatingIfNeeded: buffer.count - start).bigEndian
        withUnsafeBytes(of: length) { buffer.overwrite(at: start, $0) }
    }

    mutating func clear() { buffer.clear(keeping: 16384) }

    mutating func put(_ byte: UInt8) { buffer.append(byte) }
    mutating func put(_ value: Int16) { withUnsafeBytes(of: value.bigEndian) { buffer.append($0) } }
    mutating func put(_ value: Int32) { withUnsafeBytes(of: value.bigEndian) { buffer.append($0) } }
    mutating func put(oid value: UInt32) { put(Int32(bitPattern: value)) }
    mutating func put(_ bytes: [UInt8]) { buffer.append(bytes) }
    mutating func put(_ bytes: UnsafeRawBufferPointer) { buffer.append(bytes) }
    /// What stands behind a zero byte in the text would be taken for the next field, so the text ends there.
    mutating func put(_ text: WireText) {
        buffer.append(text.bytes.contains(0) ? Array(text.bytes.prefix { $0 != 0 }) : text.bytes)
        buffer.append(0)
    }
    mutating func put(text: String) {
        buffer.append(text: text)
        buffer.append(0)
    }
    mutating func put(value: [UInt8]?) {
        guard let value else { return put(Int32(-1)) }
        put(Int32(clamping: value.count))
        put(value)
    }
    /// A count on the wire has 16 bits; `PostgresStatement` refuses more parameters before it comes to this.
    mutating func put(count: Int) { put(Int16(bitPattern: UInt16(clamping: count))) }
}
