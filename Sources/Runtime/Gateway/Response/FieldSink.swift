import Basics
import HTTP

/// Where the fields of a head go. What rewrites heads knows only this, so that it is the same for each form in which a head can be sent:
/// HTTP/1's text, which a `ByteBuffer` takes, and others. Used as a generic parameter only: no call goes through a witness table.
protocol FieldSink: ~Copyable {
    /// Begins an answer's head. `reason` may be empty: then the registered phrase is meant.
    mutating func status(_ code: Int, reason: UnsafeRawBufferPointer)
    mutating func field(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer)
    mutating func field(_ name: StaticString, decimal: Int)
    /// Takes fields that stand as lines already, each with its line end: made once, with a route or with the second.
    mutating func lines(_ lines: UnsafeRawBufferPointer)
}

extension FieldSink where Self: ~Copyable {
    @inline(__always)
    mutating func field(_ name: StaticString, _ value: UnsafeRawBufferPointer) {
        field(UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount), value)
    }

    mutating func field(_ name: StaticString, text: String) {
        var text = text
        text.withUTF8 { field(name, UnsafeRawBufferPointer($0)) }
    }

    @inline(__always)
    mutating func lines(_ lines: StaticString) {
        self.lines(UnsafeRawBufferPointer(start: lines.utf8Start, count: lines.utf8CodeUnitCount))
    }

    mutating func lines(_ lines: [UInt8]) { lines.withUnsafeBytes { self.lines($0) } }
}

/// HTTP/1: `name: value` and a line end.
extension ByteBuffer: FieldSink {
    mutating func status(_ code: Int, reason: UnsafeRawBufferPointer) {
        append("HTTP/1.1 ")
        append(decimal: code)
        append(32)
        if reason.isEmpty { append(text: reasonPhrase(code)) } else { append(reason) }
        append("\r\n")
    }

    @inline(__always)
    mutating func field(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
        append(name)
        append(": ")
        append(value)
        append("\r\n")
    }

    @inline(__always)
    mutating func lines(_ lines: UnsafeRawBufferPointer) { append(lines) }

    mutating func field(_ name: StaticString, decimal: Int) {
        append(name)
        append(": ")
        append(decimal: decimal)
        append("\r\n")
    }
}
