import Basics
import LoadPlanning

/// A request as bytes. One without placeholders is made once; the others are put together for each, in a buffer that is used again.
struct RequestBytes {
    private enum Form {
        case fixed([UInt8])
        case filled(head: LoadText, fields: [UInt8], body: LoadText?)
    }

    let isHead: Bool
    let isIdempotent: Bool
    private let form: Form

    init(_ request: LoadRequest, host: String) {
        isHead = request.method == "HEAD"
        isIdempotent = request.isIdempotent
        var fields = " HTTP/1.1\r\n"
        let names = request.headers.map { $0.name.lowercased() }
        if !names.contains("host") { fields += "Host: \(host)\r\n" }
        if !names.contains("user-agent") { fields += "User-Agent: muster-load\r\n" }
        for (name, value) in request.headers { fields += "\(name): \(value)\r\n" }
        let takesBody = ["POST", "PUT", "PATCH"].contains(request.method)
        let start = Array(request.method.utf8) + [32]
        if request.target.isFixed, request.body?.isFixed ?? true {
            let body = request.body.map(RequestBytes.bytes) ?? []
            if request.body != nil || takesBody { fields += "Content-Length: \(body.count)\r\n" }
            form = .fixed(start + RequestBytes.bytes(request.target) + Array((fields + "\r\n").utf8) + body)
        } else {
            if request.body == nil { fields += takesBody ? "Content-Length: 0\r\n\r\n" : "\r\n" }
            form = .filled(head: request.target, fields: Array(fields.utf8), body: request.body)
        }
        method = start
    }

    private let method: [UInt8]

    private static func bytes(_ text: LoadText) -> [UInt8] {
        text.parts.flatMap { if case .bytes(let bytes) = $0 { bytes } else { [UInt8]() } }
    }

    /// Hands the bytes of request `number` to `body`, valid until it returns.
    func with<T>(_ number: Int, _ random: inout SeededRandom, _ scratch: inout [UInt8], _ body: (UnsafeRawBufferPointer) -> T) -> T {
        switch form {
        case .fixed(let bytes): return bytes.withUnsafeBytes(body)
        case .filled(let head, let fields, let content):
            scratch.removeAll(keepingCapacity: true)
            scratch += method
            let id = (random.next(), random.next())
            RequestBytes.fill(head, number, id, &scratch)
            scratch += fields
            if let content {
                scratch += "Content-Length: \(content.length(number: number, nowLength: RequestBytes.nowLength))\r\n\r\n".utf8
                RequestBytes.fill(content, number, id, &scratch)
            }
            return scratch.withUnsafeBytes(body)
        }
    }

    /// `2026-11-21T15:57:42.123Z`
    static let nowLength = 24

    private static func fill(_ text: LoadText, _ number: Int, _ id: (UInt64, UInt64), _ out: inout [UInt8]) {
        for part in text.parts {
            switch part {
            case .bytes(let bytes): out += bytes
            case .number: out += String(number).utf8
            case .uuid: uuid(id, &out)
            case .now:
                withUnsafeTemporaryAllocation(byteCount: nowLength, alignment: 1) { place in
                    CalendarTime.render(.now, into: place)
                    out += place
                }
            }
        }
    }

    /// Version 4.
    private static func uuid(_ words: (UInt64, UInt64), _ out: inout [UInt8]) {
        for i in 0..<32 {
            if i == 8 || i == 12 || i == 16 || i == 20 { out.append(45) }
            let word = i < 16 ? words.0 : words.1
            var digit = UInt8(word >> UInt64(60 - 4 * (i % 16)) & 15)
            if i == 12 { digit = 4 }
            if i == 16 { digit = 8 | digit & 3 }
            out.append(digit < 10 ? 48 + digit : 87 + digit)
        }
    }
}
