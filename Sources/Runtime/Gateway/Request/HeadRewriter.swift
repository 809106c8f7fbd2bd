import Basics
import HTTP

/// Facts that a backend is told in addition to what the client said.
struct Forwarding {
    /// The client's address; nil over a Unix socket.
    var client: IPAddress?
    /// The connection's peer, where it differs from the client (a trusted proxy).
    var peer: IPAddress?
    /// Whether the peer is a trusted proxy: then what it says of the client is passed on.
    var isTrusted = false
    /// Whether the client's connection has TLS, and fields about the certificate that the client has shown, as whole lines.
    var isSecure = false
    var certificate: [UInt8] = []
    /// Target and host that replace the client's; nil: the client's stay.
    var target: [UInt8]?
    var host: [UInt8]?
    /// The protocol that the connection may be upgraded to.
    var upgrade: UnsafeRawBufferPointer?
    /// Whether a deadline is written into the head, and again at each try.
    var hasDeadline = false
    var trace: TraceContext?
    /// Names, in lower case, of fields by which routes are chosen and limits count: other spellings of them are not passed on.
    var guarded: [[UInt8]] = []
    /// What a route with a cache does not send on; nil for other routes.
    var cached: CacheForwarding?
    /// Whether the trace begins here: then what a client says of another trace is not passed on.
    var beginsTrace = false
}

/// Writes heads for the other side. End-to-end fields are passed on as they came, hop-by-hop fields (RFC 9110, 7.6.1) never; forwarding
/// fields are added, and the framing is the gateway's own. docs/decisions/0020 lists what of RFC 9110 and 9112 is mended on the way.
enum HeadRewriter {
    /// Width of the deadline's place in a head, in bytes: `600000ms` and a space.
    static let deadlineWidth = 9

    /// Writes a request's head. Returns where in the head the deadline's place lies; 0: nowhere.
    static func request(
        _ table: HeadTable, into out: inout ByteBuffer, _ forwarding: Forwarding, id: UnsafeRawBufferPointer, edits: HeaderEdits?
    ) -> Int {
        let base = out.count
        out.append(table.methodText)
        out.append(32)
        if let target = forwarding.target { out.append(target) } else { out.append(table.targetText) }
        out.append(" HTTP/1.1\r\n")
        let edits = edits.flatMap { $0.isEmpty ? nil : $0 }
        var hasHost = false
        for field in table.fields {
            switch field.known {
            case .other, .idempotencyKey, .contentType, .date, .via:
                if table.nominatesFields, table.isNominated(field.name) { continue }
                if let cached = forwarding.cached, cached.leavesOut(table.text(field.name)) { continue }
                if table.hasOddNames, readsAsGuarded(table.text(field.name), edits, forwarding.guarded) { continue }
                if forwarding.trace != nil, field.known == .other, table.text(field.name).equals("traceparent") { continue }
                if field.known == .other, !forwarding.isTrusted || !forwarding.certificate.isEmpty, speaksForOthers(table.text(field.name))
                {
                    continue
                }
                if forwarding.beginsTrace, field.known == .other, table.text(field.name).equals("tracestate") { continue }
                if let edits, edits.leavesOut(table.text(field.name)) { continue }
                out.field(table.text(field.name), table.text(field.value))
            case .host:
                hasHost = true
                if forwarding.host == nil { out.field(table.text(field.name), table.text(field.value)) }
            case .contentLength:
                out.field(table.text(field.name), table.text(field.value))
            case .maxForwards: maxForwards(table, field, into: &out)
            default: break
            }
        }
        if edits?.leavesOut("via") != true {
            if table.majorVersion == 2 {
                out.append("Via: 2.0 muster\r\n")
            } else {
                out.append(table.minorVersion == 0 ? "Via: 1.0 muster\r\n" : "Via: 1.1 muster\r\n")
            }
        }
        if table.framing == .chunked { out.append("Transfer-Encoding: chunked\r\n") }
        if let host = forwarding.host {
            host.withUnsafeBytes { out.field("Host", $0) }
        } else if !hasHost {
            // HTTP/1.0 needs no Host; what we speak on does.
            out.append("Host: localhost\r\n")
        }
        forwardingFields(table, forwarding, edits, into: &out)
        if edits?.leavesOut("x-request-id") != true {
            out.append("X-Request-Id: ")
            out.append(id)
            out.append("\r\n")
        }
        if !forwarding.certificate.isEmpty { out.append(forwarding.certificate) }
        if let trace = forwarding.trace { trace.field(into: &out) }
        if let upgrade = forwarding.upgrade {
            out.append("Connection: Upgrade\r\n")
            out.field("Upgrade", upgrade)
        }
        if let edits { out.append(edits.lines) }
        var deadlineAt = 0
        if forwarding.hasDeadline {
            out.append("X-Request-Timeout: ")
            deadlineAt = out.count - base
            out.append("         \r\n")
        } else if forwarding.cached?.isFetch != true, let given = table.first(.xRequestTimeout) {
            out.field("X-Request-Timeout", given)
        }
        out.append("\r\n")
        return deadlineAt
    }

    /// The request as it came, for the answer to a TRACE, without what may be secret (RFC 9110, 9.3.8); nil when it is no TRACE.
    static func trace(_ table: HeadTable) -> [UInt8]? {
        guard table.methodText.isExactly("TRACE") else { return nil }
        var text = Array(table.methodText) + [32] + Array(table.targetText) + Array(" HTTP/1.\(table.minorVersion)\r\n".utf8)
        for field in table.fields where [.host, .via, .maxForwards, .connection].contains(field.known) {
            text += Array(table.text(field.name)) + [58, 32] + Array(table.text(field.value)) + [13, 10]
        }
        return text + [13, 10]
    }

    /// Writes `Max-Forwards`. For TRACE and OPTIONS, where the field counts, it is one less for the next recipient (RFC 9110, 7.6.2). A
    /// value that is no number is passed on as it came.
    private static func maxForwards(_ table: HeadTable, _ field: HeaderField, into out: inout ByteBuffer) {
        guard let left = table.forwardsLeft, left > 0 else { return out.field(table.text(field.name), table.text(field.value)) }
        out.append("Max-Forwards: ")
        out.append(decimal: left - 1)
        out.append("\r\n")
    }

    /// Whether a server that maps names to variables (CGI, WSGI, PHP: every character but letters and digits becomes `_`) would take this
    /// name for one that the gateway writes, goes by or edits: `X_Forwarded_For`, `X.Real.IP`, `Content_Length`. Such a spelling is trusted
    /// from nobody: a trusted proxy writes the real name, and passes on what its own clients made up.
    private static func readsAsGuarded(_ name: UnsafeRawBufferPointer, _ edits: HeaderEdits?, _ guarded: [[UInt8]]) -> Bool {
        guard name.contains(where: { !(($0 | 32) &- 97 < 26 || $0 &- 48 < 10 || $0 == 45) }), name.count <= 64 else { return false }
        return withUnsafeTemporaryAllocation(byteCount: name.count, alignment: 1) { folded in
            for i in 0..<name.count {
                let byte = name[i]
                folded[i] = (byte | 32) &- 97 < 26 ? byte | 32 : byte &- 48 < 10 ? byte : 45
            }
            let folded = UnsafeRawBufferPointer(folded)
            // `identify` knows every name that somebody on the way looks at, hop-by-hop fields and framing among them.
            if KnownHeader.identify(Span<UInt8>(_unsafeBytes: folded)) != .other || speaksForOthers(folded) { return true }
            return edits?.leavesOut(folded) == true || guarded.contains { $0.elementsEqual(folded) }
        }
    }

    /// Whether the field is `Forwarded`, `X-Forwarded-…`, or one about a client's certificate, which only a trusted proxy may send.
    private static func speaksForOthers(_ name: UnsafeRawBufferPointer) -> Bool {
        guard name.count >= 9, let first = name.first.map({ $0 | 32 }), first == 120 || first == 102 || first == 99 else { return false }
        if first == 99 { return name.equals("client-cert") || name.equals("client-cert-chain") }
        if name.count > 14, name.part(0, 14).equals("x-client-cert-") { return true }
        return name.equals("forwarded") || (name.count > 12 && name.part(0, 12).equals("x-forwarded-"))
    }

    private static func forwardingFields(_ table: HeadTable, _ forwarding: Forwarding, _ edits: HeaderEdits?, into out: inout ByteBuffer) {
        let leavesOut = { (name: StaticString) in edits?.leavesOut(name) == true }
        var proto: UnsafeRawBufferPointer?, host = table.first(.host)
        if forwarding.isTrusted {
            proto = table.first(.xForwardedProto)
            host = table.first(.xForwardedHost) ?? host
        }
        if !leavesOut("x-forwarded-for") {
            out.append("X-Forwarded-For: ")
            // Every line of it, in order: the address that a proxy before us added may stand in a line of its own.
            for field in table.fields where forwarding.isTrusted && field.known == .xForwardedFor && field.value.count > 0 {
                out.append(table.text(field.value))
                out.append(", ")
            }
            append(forwarding.peer ?? forwarding.client, into: &out)
            out.append("\r\n")
        }
        if !leavesOut("x-real-ip") {
            out.append("X-Real-IP: ")
            append(forwarding.client, into: &out)
            out.append("\r\n")
        }
        if !leavesOut("x-forwarded-proto") {
            let isSecure = proto?.equals("https") ?? forwarding.isSecure
            out.append(isSecure ? "X-Forwarded-Proto: https\r\n" : "X-Forwarded-Proto: http\r\n")
        }
        if let host, !leavesOut("x-forwarded-host") { out.field("X-Forwarded-Host", host) }
    }

    static func append(_ address: IPAddress?, into out: inout ByteBuffer) {
        guard let address else { return out.append("unix") }
        guard let value = address.ipv4 else { return out.append(text: address.description) }
        for shift in stride(from: UInt32(24), through: 0, by: -8) {
            out.append(decimal: Int(value >> shift & 255))
            if shift > 0 { out.append(46) }
        }
    }

    /// What the gateway adds to an answer.
    struct Additions {
        /// The request's id, for an answer that names none.
        var id: UnsafeRawBufferPointer
        /// Whole lines to be added to the head.
        var lines: UnsafeRawBufferPointer
        var edits: HeaderEdits?
        /// The coding that the body gets on its way: then its length is unknown, and a strong tag becomes weak.
        var coding: ContentCoding?
        /// Whether other clients would get the answer in another coding.
        var varies = false

        /// Writes the fields that a coding asks for.
        func codingFields<Sink: FieldSink & ~Copyable>(into out: inout Sink) {
            if let coding { out.field("Content-Encoding", text: coding.name.description) }
            if varies { out.lines("Vary: Accept-Encoding\r\n") }
        }
    }

    /// Writes a field of an answer that gets a coding. The bytes are others than those that a strong tag and ranges are about.
    private static func coded<Sink: FieldSink & ~Copyable>(
        _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, into out: inout Sink
    ) {
        if name.equals("accept-ranges") || name.equals("content-length") { return }
        if name.equals("etag"), value.first == 34 { return out.field("ETag", text: "W/" + value.string) }
        out.field(name, value)
    }

    /// Writes status and end-to-end fields of a replica's answer. What frames the answer on the client's connection is not among them: that
    /// is written by whoever knows the connection. `date`: `Date: …` as a whole line, for an answer that has none.
    static func response<Sink: FieldSink & ~Copyable>(_ table: HeadTable, into out: inout Sink, _ additions: Additions, date: [UInt8]) {
        out.status(table.status, reason: table.text(table.reason))
        var hasID = false, hasDate = false
        let edits = additions.edits.flatMap { $0.isEmpty ? nil : $0 }
        for field in table.fields {
            switch field.known {
            case .contentLength:
                // 204 has no length (RFC 9110, 8.6); 205 has an empty body, whatever came (15.3.6).
                if table.status != 204, table.status != 205, additions.coding == nil {
                    out.field(table.text(field.name), table.text(field.value))
                }
            case .connection, .transferEncoding, .keepAlive, .proxyConnection, .te, .trailer, .upgrade, .proxyAuthorization,
                .xMusterExplain:
                break
            default:
                if table.nominatesFields, table.isNominated(field.name) { continue }
                if field.known == .xRequestID { hasID = true }
                if field.known == .date { hasDate = true }
                if let edits, edits.leavesOut(table.text(field.name)) { continue }
                if additions.coding != nil {
                    coded(table.text(field.name), table.text(field.value), into: &out)
                    continue
                }
                out.field(table.text(field.name), table.text(field.value))
            }
        }
        additions.codingFields(into: &out)
        // Whoever passes an answer on and has a clock adds what its sender left out (RFC 9110, 6.6.1).
        if !hasDate, table.status != 101, edits?.leavesOut("date") != true { out.lines(date) }
        if !hasID, edits?.leavesOut("x-request-id") != true { out.field("X-Request-Id", additions.id) }
        out.lines(additions.lines)
        if let edits { out.lines(edits.lines) }
    }

    /// Writes the head of a stored answer, without what frames it on the client's connection beside its length.
    static func response<Sink: FieldSink & ~Copyable>(_ answer: StoredAnswer, into out: inout Sink, _ additions: Additions) {
        out.status(answer.status, reason: UnsafeRawBufferPointer(start: nil, count: 0))
        let edits = additions.edits.flatMap { $0.isEmpty ? nil : $0 }
        if edits == nil, additions.coding == nil {
            out.lines(answer.lines)
        } else {
            CacheLines.each(answer.lines, into: &out) { name, value, line, out in
                if let edits, edits.leavesOut(name) { return }
                if additions.coding == nil { out.lines(line) } else { coded(name, value, into: &out) }
            }
        }
        additions.codingFields(into: &out)
        if let length = answer.length { out.field("Content-Length", decimal: length) }
        if additions.edits?.leavesOut("x-request-id") != true { out.field("X-Request-Id", additions.id) }
        out.lines(additions.lines)
        if let edits = additions.edits { out.lines(edits.lines) }
    }

    /// Writes the head of an answer of the gateway's own, without what frames it on the client's connection.
    static func response<Sink: FieldSink & ~Copyable>(_ answer: OwnAnswer, into out: inout Sink, _ additions: Additions, date: [UInt8]) {
        out.status(answer.status, reason: UnsafeRawBufferPointer(start: nil, count: 0))
        let edits = additions.edits
        if let type = answer.type, edits?.leavesOut("content-type") != true { out.field("Content-Type", text: type) }
        if answer.status != 204, answer.status != 304 { out.field("Content-Length", decimal: answer.body.count) }
        out.lines(date)
        if edits?.leavesOut("x-request-id") != true { out.field("X-Request-Id", additions.id) }
        out.lines(additions.lines)
        if let edits { out.lines(edits.lines) }
    }

    /// Writes an interim response for the client: its own fields, without hop-by-hop ones and without framing, which it may not have.
    static func interim<Sink: FieldSink & ~Copyable>(_ table: HeadTable, into out: inout Sink, edits: HeaderEdits?) {
        out.status(table.status, reason: table.text(table.reason))
        for field in table.fields {
            switch field.known {
            case .contentLength, .connection, .transferEncoding, .keepAlive, .proxyConnection, .te, .trailer, .upgrade, .proxyAuthorization,
                .proxyAuthenticate, .xMusterExplain:
                break
            default:
                if table.nominatesFields, table.isNominated(field.name) { continue }
                if let edits, edits.leavesOut(table.text(field.name)) { continue }
                out.field(table.text(field.name), table.text(field.value))
            }
        }
    }

    /// Whether a request id from outside is kept: it must be short and plain.
    static func acceptable(_ id: UnsafeRawBufferPointer) -> Bool {
        guard !id.isEmpty, id.count <= 128 else { return false }
        for byte in id where !((byte | 32) &- 97 < 26 || byte &- 48 < 10 || byte == 45 || byte == 95 || byte == 46 || byte == 58) {
            return false
        }
        return true
    }

    /// Writes sixteen hexadecimal digits.
    static func hex(_ value: UInt64, into out: inout ByteBuffer) {
        for shift in stride(from: UInt64(60), through: 0, by: -4) {
            let digit = UInt8(value >> shift & 15)
            out.append(digit < 10 ? 48 + digit : 87 + digit)
        }
    }
}
