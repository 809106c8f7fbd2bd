import Basics
import HTTP

/// Writes heads for the other side: end-to-end fields as they came, hop-by-hop fields (RFC 9110, 7.6.1) never, forwarding fields
/// added, framing by our own hand.
enum HeadRewriter {
    /// Where in the rewritten head the parts lie that the access log wants.
    struct Marks {
        var method = 0..<0
        var target = 0..<0
        var id = 0..<0
    }

    static func request(
        _ table: HeadTable, into out: inout ByteBuffer, peer: [UInt8], nextID: () -> UInt64
    ) -> Marks {
        var marks = Marks()
        let base = out.count
        let method = table.methodText, target = table.targetText
        out.append(method)
        marks.method = 0..<method.count
        out.append(32)
        marks.target = method.count + 1..<method.count + 1 + target.count
        out.append(target)
        out.append(" HTTP/1.1\r\n")
        var id: UnsafeRawBufferPointer?
        for field in table.fields {
            switch field.known {
            case .other, .host, .idempotencyKey, .contentType:
                if field.known == .other, table.nominatesFields, table.isNominated(field.name) { continue }
                copy(table.text(field.name), table.text(field.value), into: &out)
            case .xRequestID: id = acceptable(table.text(field.value))
            case .contentLength:
                copy(table.text(field.name), table.text(field.value), into: &out)
            default: break
            }
        }
        if table.framing == .chunked { out.append("Transfer-Encoding: chunked\r\n") }
        out.append("X-Forwarded-For: ")
        // Every line of it, in order: the address that a proxy before us added may stand in a line of its own.
        for field in table.fields where field.known == .xForwardedFor && field.value.count > 0 {
            out.append(table.text(field.value))
            out.append(", ")
        }
        out.append(peer)
        out.append("\r\nX-Real-IP: ")
        out.append(peer)
        out.append("\r\nX-Forwarded-Proto: http\r\n")
        // HTTP/1.0 needs no Host; what we speak on does.
        if let host = table.first(.host) { copy("X-Forwarded-Host", host, into: &out) } else { out.append("Host: localhost\r\n") }
        out.append("X-Request-Id: ")
        let idStart = out.count - base
        if let id { out.append(id) } else { hex(nextID(), into: &out) }
        marks.id = idStart..<out.count - base
        out.append("\r\n\r\n")
        return marks
    }

    /// How the body goes to the client.
    enum Passing { case none, asIs, chunked, untilClose }

    static func response(
        _ table: HeadTable, into out: inout ByteBuffer, id: UnsafeRawBufferPointer, clientIsOld: Bool, close: Bool
    ) -> Passing {
        out.append("HTTP/1.1 ")
        out.append(decimal: table.status)
        out.append(32)
        out.append(text: reasonPhrase(table.status))
        out.append("\r\n")
        var hasID = false
        for field in table.fields {
            switch field.known {
            case .other, .contentType, .host, .idempotencyKey, .proxyAuthenticate, .expect, .xForwardedFor, .xForwardedProto, .xForwardedHost, .xRealIP:
                if field.known == .other, table.nominatesFields, table.isNominated(field.name) { continue }
                copy(table.text(field.name), table.text(field.value), into: &out)
            case .contentLength:
                copy(table.text(field.name), table.text(field.value), into: &out)
            case .xRequestID:
                hasID = true
                copy(table.text(field.name), table.text(field.value), into: &out)
            default: break
            }
        }
        if !hasID { copy("X-Request-Id", id, into: &out) }
        let passing = passing(table.framing, clientIsOld)
        if passing == .chunked { out.append("Transfer-Encoding: chunked\r\n") }
        if close || passing == .untilClose { out.append("Connection: close\r\n") } else if clientIsOld { out.append("Connection: keep-alive\r\n") }
        out.append("\r\n")
        return passing
    }

    private static func passing(_ framing: BodyFraming, _ clientIsOld: Bool) -> Passing {
        switch framing {
        case .none: .none
        case .length: .asIs
        case .chunked, .untilClose: clientIsOld ? .untilClose : .chunked
        }
    }

    /// A request id from outside is kept if it is short and plain.
    private static func acceptable(_ id: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        guard !id.isEmpty, id.count <= 128 else { return nil }
        for byte in id where !((byte | 32) &- 97 < 26 || byte &- 48 < 10 || byte == 45 || byte == 95 || byte == 46 || byte == 58) { return nil }
        return id
    }

    private static func copy(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, into out: inout ByteBuffer) {
        out.append(name)
        out.append(": ")
        out.append(value)
        out.append("\r\n")
    }

    private static func copy(_ name: StaticString, _ value: UnsafeRawBufferPointer, into out: inout ByteBuffer) {
        out.append(name)
        out.append(": ")
        out.append(value)
        out.append("\r\n")
    }

    private static func hex(_ value: UInt64, into out: inout ByteBuffer) {
        for shift in stride(from: UInt64(60), through: 0, by: -4) {
            let digit = UInt8(value >> shift & 15)
            out.append(digit < 10 ? 48 + digit : 87 + digit)
        }
    }
}
