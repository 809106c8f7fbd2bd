import Basics
import HTTP

/// A place in a trace (W3C Trace Context): the id of the trace, and the span that is the parent of what follows.
struct TraceContext: Equatable {
    /// The trace's id: 16 bytes in two halves.
    var traceHigh: UInt64
    var traceLow: UInt64
    var span: UInt64
    /// Whether the sender records the trace.
    var isSampled: Bool

    /// Reads `00-<32 hex>-<16 hex>-<2 hex>`; nil for anything malformed, for zeros and for version ff. A later version is read as far as it
    /// agrees with this one.
    init?(_ text: UnsafeRawBufferPointer) {
        guard text.count >= 55, text.count <= 512, text[2] == 45, text[35] == 45, text[52] == 45 else { return nil }
        guard let version = TraceContext.hex(text.part(0, 2)), version != 255, version != 0 || text.count == 55,
            text.count == 55 || text[55] == 45
        else { return nil }
        guard let high = TraceContext.hex(text.part(3, 16)), let low = TraceContext.hex(text.part(19, 16)),
            let span = TraceContext.hex(text.part(36, 16))
        else {
            return nil
        }
        guard let flags = TraceContext.hex(text.part(53, 2)), high | low != 0, span != 0 else { return nil }
        traceHigh = high
        traceLow = low
        self.span = span
        isSampled = flags & 1 == 1
    }

    init(traceHigh: UInt64, traceLow: UInt64, span: UInt64, isSampled: Bool) {
        self.traceHigh = traceHigh
        self.traceLow = traceLow
        self.span = span
        self.isSampled = isSampled
    }

    /// Reads hexadecimal digits; lower case only, as the standard wants them.
    private static func hex(_ text: UnsafeRawBufferPointer) -> UInt64? {
        var value: UInt64 = 0
        for byte in text {
            guard byte &- 65 >= 26, let digit = hexDigit(byte) else { return nil }
            value = value << 4 | UInt64(digit)
        }
        return value
    }

    /// Writes the field `traceparent: …\r
    /// `.
    func field(into out: inout ByteBuffer) {
        out.append("traceparent: 00-")
        HeadRewriter.hex(traceHigh, into: &out)
        HeadRewriter.hex(traceLow, into: &out)
        out.append(45)
        HeadRewriter.hex(span, into: &out)
        if isSampled { out.append("-01\r\n") } else { out.append("-00\r\n") }
    }
}
