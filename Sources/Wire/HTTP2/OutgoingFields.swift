import Basics
import CNGHTTP2
import HTTP

/// Fields on their way out, gathered one by one and given to the library in one call: names become lower case. Reused for one message after
/// the other; allocates nothing once its buffers have grown.
public struct OutgoingFields: ~Copyable {
    private struct Place {
        var name: Int32
        var nameCount: Int32
        var value: Int32
        var valueCount: Int32
    }

    private var text = ByteBuffer()
    private var places: [Place] = []
    private var pairs: [nghttp2_nv] = []

    /// The status that is sent in place of the one that is written.
    public var statusInstead: Int?

    public init() {}

    public var isEmpty: Bool { places.isEmpty }
    public var count: Int { places.count }

    public mutating func clear() {
        statusInstead = nil
        text.clear(keeping: 65_536)
        places.removeAll(keepingCapacity: true)
    }

    public mutating func add(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
        let start = text.count
        for byte in name { text.append(byte &- 65 < 26 ? byte | 32 : byte) }
        let middle = text.count
        text.append(value)
        note(start, middle)
    }

    public mutating func add(_ name: StaticString, _ value: UnsafeRawBufferPointer) {
        add(UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount), value)
    }

    public mutating func add(_ name: StaticString, _ value: StaticString) {
        add(name, UnsafeRawBufferPointer(start: value.utf8Start, count: value.utf8CodeUnitCount))
    }

    public mutating func add(_ name: StaticString, decimal: Int) {
        let isStatus = statusInstead != nil && name.utf8CodeUnitCount == 7 && name.utf8Start.pointee == 58
        let decimal = isStatus ? statusInstead ?? decimal : decimal
        let start = text.count
        text.append(name)
        let middle = text.count
        text.append(decimal: decimal)
        note(start, middle)
    }

    private mutating func note(_ start: Int, _ middle: Int) {
        places.append(
            Place(
                name: Int32(clamping: start), nameCount: Int32(clamping: middle - start), value: Int32(clamping: middle),
                valueCount: Int32(clamping: text.count - middle)))
    }

    /// Takes fields that stand as lines of HTTP/1, each with its line end.
    /// `but`: a field that is left out.
    public mutating func addLines(_ lines: UnsafeRawBufferPointer, but left: KnownHeader = .connection) {
        var rest = lines
        while let end = rest.firstIndex(of: 13) {
            let line = rest.part(0, end)
            if let colon = line.firstIndex(of: 58) {
                var value = line.part(colon + 1, line.count - colon - 1)
                while value.first == 32 { value = value.part(1, value.count - 1) }
                while value.last == 32 { value = value.part(0, value.count - 1) }
                let name = line.part(0, colon)
                // What speaks of a connection has no meaning here (RFC 9113, 8.2.2).
                switch KnownHeader.identify(Span<UInt8>(_unsafeBytes: name)) {
                case left: break
                case .connection, .keepAlive, .proxyConnection, .transferEncoding, .upgrade, .te: break
                default: add(name, value)
                }
            }
            let next = min(end + 2, rest.count)
            rest = rest.part(next, rest.count - next)
        }
    }

    /// Gives the fields to `body` in the library's form, which is valid until `body` returns.
    mutating func give<Result>(_ body: (UnsafePointer<nghttp2_nv>?, Int) -> Result) -> Result {
        pairs.removeAll(keepingCapacity: true)
        guard let base = text.bytes.baseAddress else { return body(nil, 0) }
        let bytes = UnsafeMutablePointer(mutating: base.assumingMemoryBound(to: UInt8.self))
        for place in places {
            pairs.append(
                nghttp2_nv(
                    name: bytes + Int(place.name), value: bytes + Int(place.value), namelen: Int(place.nameCount),
                    valuelen: Int(place.valueCount), flags: UInt8(NGHTTP2_NV_FLAG_NONE.rawValue)))
        }
        return pairs.withUnsafeBufferPointer { body($0.baseAddress, $0.count) }
    }
}
