import Basics
import Glibc

/// Finds where a head ends as its bytes arrive, looking at each byte once.
struct HeadScanner {
    /// Bytes already looked at.
    private var seen = 0
    /// Where the current line began.
    private var lineStart = 0
    private var firstLineEnd: Int?

    /// The length of the head with its empty last line, or nil while it is incomplete.
    mutating func scan(_ bytes: UnsafeRawBufferPointer, limits: HTTPLimits) throws(HTTPFailure) -> Int? {
        let span = Span<UInt8>(_unsafeBytes: bytes)
        while seen < span.count {
            guard let feed = lineFeed(in: bytes, from: seen) else {
                seen = span.count
                break
            }
            guard feed > lineStart, span[feed - 1] == 13 else { throw .bareLineFeed }
            if firstLineEnd == nil {
                // One empty line before the request line is forgiven (RFC 9112, 2.2); it is part of the head's length.
                if feed - lineStart > 1 { firstLineEnd = feed + 1 } else if lineStart > 0 { throw .badRequestLine }
                if let end = firstLineEnd, end > min(limits.requestLine, HTTPLimits.headCeiling) { throw .requestLineTooLong }
            } else if feed - lineStart == 1 {
                let end = feed + 1
                if end - firstLineEnd! > min(limits.head, HTTPLimits.headCeiling) { throw .headTooLarge }
                self = HeadScanner()
                return end
            }
            lineStart = feed + 1
            seen = feed + 1
        }
        if firstLineEnd == nil, span.count > min(limits.requestLine, HTTPLimits.headCeiling) { throw .requestLineTooLong }
        if let firstLineEnd, span.count - firstLineEnd > min(limits.head, HTTPLimits.headCeiling) { throw .headTooLarge }
        return nil
    }

    private func lineFeed(in bytes: UnsafeRawBufferPointer, from: Int) -> Int? {
        guard let base = bytes.baseAddress, let found = memchr(base + from, 10, bytes.count - from) else { return nil }
        return UnsafeRawPointer(found) - base
    }
}

/// Parses complete heads, strictly: what two implementations could read differently is refused, so that nothing
/// ambiguous is ever passed on.
enum HeadParser {
    // Bit sets over ASCII: RFC 9110's tchar.
    private static let tokenLow: UInt64 = 0x03FF_6CFA_0000_0000
    private static let tokenHigh: UInt64 = 0x57FF_FFFF_C7FF_FFFE

    @inline(__always)
    static func isToken(_ byte: UInt8) -> Bool {
        byte < 64 ? (tokenLow >> UInt64(byte)) & 1 == 1 : byte < 128 && (tokenHigh >> UInt64(byte & 63)) & 1 == 1
    }

    /// A letter, a digit or a dash.
    @inline(__always)
    private static func isPlain(_ byte: UInt8) -> Bool { (byte | 32) &- 97 < 26 || byte &- 48 < 10 || byte == 45 }

    static func parseRequest(_ bytes: UnsafeRawBufferPointer, into table: HeadTable, limits: HTTPLimits) throws(HTTPFailure) {
        let span = Span<UInt8>(_unsafeBytes: bytes)
        table.reset(bytes)
        var at = 0
        if span[0] == 13 {
            // The forgiven empty line; a CR alone is none.
            guard span.count > 1, span[1] == 10 else { throw .badRequestLine }
            at = 2
        }
        let methodStart = at
        while at < span.count, isToken(span[at]) { at += 1 }
        guard at > methodStart, at - methodStart <= 32, at < span.count, span[at] == 32 else { throw .badRequestLine }
        table.method = HeadRange(methodStart, at)
        at += 1
        let targetStart = at
        while at < span.count, span[at] > 32, span[at] < 127 { at += 1 }
        guard at > targetStart else { throw .badRequestLine }
        guard at < span.count, span[at] == 32 else { throw at < span.count && span[at] != 13 ? .badTarget : .badRequestLine }
        table.target = HeadRange(targetStart, at)
        at += 1
        try parseVersion(span, &at, table)
        guard at + 1 < span.count, span[at] == 13, span[at + 1] == 10 else { throw .badRequestLine }
        at += 2
        table.isHead = table.methodText.isExactly("HEAD")
        try parseFields(span, from: at, into: table, limits: limits)
        try settleRequest(span, table)
    }

    static func parseResponse(
        _ bytes: UnsafeRawBufferPointer, into table: HeadTable, toHead: Bool, limits: HTTPLimits
    ) throws(HTTPFailure) {
        let span = Span<UInt8>(_unsafeBytes: bytes)
        table.reset(bytes)
        var at = 0
        try parseVersion(span, &at, table)
        guard at + 5 < span.count, span[at] == 32 else { throw .badStatusLine }
        var status = 0
        for i in at + 1...at + 3 {
            let digit = span[i] &- 48
            guard digit < 10 else { throw .badStatusLine }
            status = status * 10 + Int(digit)
        }
        at += 4
        guard status >= 100, status < 600, span[at] == 32 || span[at] == 13 else { throw .badStatusLine }
        table.status = status
        if span[at] == 32 { at += 1 }
        let reasonStart = at
        while at < span.count, span[at] != 13 {
            guard span[at] >= 32 || span[at] == 9, span[at] != 127 else { throw .badStatusLine }
            at += 1
        }
        guard at + 1 < span.count, span[at + 1] == 10 else { throw .badStatusLine }
        table.reason = HeadRange(reasonStart, at)
        try parseFields(span, from: at + 2, into: table, limits: limits)
        try settleFraming(span, table, isRequest: false)
        table.saysBodyWhereNoneMayBe = status == 204 && table.framing != .untilClose && table.framing != .none
        if toHead || status < 200 || status == 204 || status == 304 { table.framing = .none }
    }

    /// Reads the fields after a chunked body; false when they are more than are taken.
    static func readTrailers(_ bytes: UnsafeRawBufferPointer, into table: HeadTable, limits: HTTPLimits) -> Bool {
        table.reset(bytes)
        table.method = HeadRange()
        table.target = HeadRange()
        do throws(HTTPFailure) { try parseFields(Span<UInt8>(_unsafeBytes: bytes), from: 0, into: table, limits: limits) } catch {
            return false
        }
        return true
    }

    private static func parseVersion(_ span: Span<UInt8>, _ at: inout Int, _ table: HeadTable) throws(HTTPFailure) {
        guard at + 8 <= span.count else { throw .badRequestLine }
        // "HTTP/", upper case only (RFC 9112, 2.3).
        guard span[at] == 72, span[at + 1] == 84, span[at + 2] == 84, span[at + 3] == 80, span[at + 4] == 47,
            span[at + 5] &- 48 < 10, span[at + 6] == 46, span[at + 7] &- 48 < 10
        else { throw .badRequestLine }
        guard span[at + 5] == 49, span[at + 7] <= 49 else { throw .badVersion }
        table.minorVersion = Int(span[at + 7] - 48)
        at += 8
    }

    private static func parseFields(
        _ span: Span<UInt8>, from start: Int, into table: HeadTable, limits: HTTPLimits
    ) throws(HTTPFailure) {
        var at = start
        while true {
            guard at + 1 < span.count else { throw .badHeaderName }
            if span[at] == 13 {
                guard span[at + 1] == 10, at + 2 == span.count else { throw .badHeaderName }
                return
            }
            if span[at] == 32 || span[at] == 9 { throw .foldedHeader }
            let nameStart = at
            while at < span.count, isToken(span[at]) {
                if !isPlain(span[at]) { table.hasOddNames = true }
                at += 1
            }
            guard at > nameStart, at < span.count, span[at] == 58 else { throw .badHeaderName }
            let nameEnd = at
            at += 1
            while at < span.count, span[at] == 32 || span[at] == 9 { at += 1 }
            let valueStart = at
            while at < span.count, span[at] >= 32 ? span[at] != 127 : span[at] == 9 { at += 1 }
            guard at + 1 < span.count, span[at] == 13, span[at + 1] == 10 else { throw .badHeaderValue }
            var valueEnd = at
            while valueEnd > valueStart, span[valueEnd - 1] == 32 || span[valueEnd - 1] == 9 { valueEnd -= 1 }
            at += 2
            if table.fields.count == limits.fields { throw .headTooLarge }
            let known = KnownHeader.identify(span.extracting(nameStart..<nameEnd))
            table.fields.append(
                HeaderField(name: HeadRange(nameStart, nameEnd), value: HeadRange(valueStart, valueEnd), known: known))
        }
    }

    private static func settleRequest(_ span: Span<UInt8>, _ table: HeadTable) throws(HTTPFailure) {
        var host: HeadRange?
        for field in table.fields {
            switch field.known {
            case .host:
                guard host == nil, isHost(table.text(field.value)) else { throw .badHost }
                host = field.value
            case .expect:
                guard table.text(field.value).equals("100-continue") else { throw .badExpectation }
                table.expectsContinue = table.minorVersion == 1
            default: break
            }
        }
        if host == nil, table.minorVersion == 1 { throw .badHost }
        try settleTarget(table, host: host)
        try settleFraming(span, table, isRequest: true)
    }

    /// Reduces the target to a path, or to `*` for OPTIONS. An absolute target must name the same authority as Host.
    private static func settleTarget(_ table: HeadTable, host: HeadRange?) throws(HTTPFailure) {
        let target = table.targetText
        // A fragment stays with the client; a tunnel to elsewhere is not what this is for.
        if target.contains(35) || table.methodText.isExactly("CONNECT") { throw .badTarget }
        if target[0] == 47 { return }
        if target.count == 1, target[0] == 42, table.methodText.isExactly("OPTIONS") { return }
        guard target.count > 7, target.part(0, 7).equals("http://") else { throw .badTarget }
        var end = 7
        while end < target.count, target[end] != 47, target[end] != 63 { end += 1 }
        let authority = target.part(7, end - 7)
        guard isHost(authority), let host, equalIgnoringCase(authority, table.text(host)) else { throw .badHost }
        // Without a path there is nothing in the bytes to point at; such a request is as good as unknown.
        guard end < target.count, target[end] == 47 else { throw .badTarget }
        table.target = HeadRange(Int(table.target.start) + end, Int(table.target.start + table.target.count))
    }

    /// Whether `bytes` are a name, an IPv4 address, or an IPv6 address in brackets; then a port or nothing (RFC 9112, 3.2; RFC 3986,
    /// 3.2.2). No user, no path, no spaces, no list, no sub-delimiters.
    static func isHost(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard !bytes.isEmpty, bytes.count <= 255 else { return false }
        var at = 0
        if bytes[0] == 91 {
            at = 1
            while at < bytes.count, hexDigit(bytes[at]) != nil || bytes[at] == 58 || bytes[at] == 46 { at += 1 }
            guard at > 2, at < bytes.count, bytes[at] == 93 else { return false }
            at += 1
        } else {
            while at < bytes.count {
                let byte = bytes[at]
                if byte == 37 {
                    guard at + 2 < bytes.count, hexDigit(bytes[at + 1]) != nil, hexDigit(bytes[at + 2]) != nil else { return false }
                    at += 3
                    continue
                }
                guard (byte | 32) &- 97 < 26 || byte &- 48 < 10 || byte == 45 || byte == 46 || byte == 95 || byte == 126 else { break }
                at += 1
            }
            guard at > 0 else { return false }
        }
        if at == bytes.count { return true }
        guard bytes[at] == 58, bytes.count - at <= 6 else { return false }
        for byte in bytes[(at + 1)...] where byte &- 48 >= 10 { return false }
        return true
    }

    private static func settleFraming(_ span: Span<UInt8>, _ table: HeadTable, isRequest: Bool) throws(HTTPFailure) {
        var length: Int?
        var chunked = false
        table.keepsAlive = table.minorVersion == 1
        for field in table.fields {
            let value = table.text(field.value)
            switch field.known {
            case .contentLength:
                guard length == nil, let parsed = decimal(value) else { throw .badContentLength }
                length = parsed
            case .transferEncoding:
                guard !chunked, table.minorVersion == 1 else { throw .badTransferEncoding }
                guard value.equals("chunked") else {
                    // A list that ends otherwise, or a coding we do not speak. Odd spellings of chunked are malformed.
                    let text = value.string.lowercased()
                    throw text.contains("chunked") || value.isEmpty ? .badTransferEncoding : .unknownTransferCoding
                }
                chunked = true
            case .connection: settleConnection(value, table)
            default: break
            }
        }
        if chunked, length != nil { throw .lengthAndChunked }
        if chunked {
            table.framing = .chunked
        } else if let length {
            table.framing = length == 0 ? .none : .length(length)
        } else {
            table.framing = isRequest ? .none : .untilClose
        }
    }

    /// `close` is not taken back by anything that stands beside it (RFC 9112, 9.3).
    private static func settleConnection(_ value: UnsafeRawBufferPointer, _ table: HeadTable) {
        if value.equals("keep-alive") {
            if !table.saysClose { table.keepsAlive = true }
            return
        }
        for token in value.split(separator: 44) {
            let name = trimmed(token)
            if name.equals("close") {
                table.saysClose = true
                table.keepsAlive = false
            } else if name.equals("keep-alive") {
                if !table.saysClose { table.keepsAlive = true }
            } else if name.equals("upgrade") {
                table.wantsUpgrade = true
            } else {
                table.nominatesFields = true
            }
        }
    }

    /// Digits only, below 2^62.
    static func decimal(_ bytes: UnsafeRawBufferPointer) -> Int? {
        guard !bytes.isEmpty, bytes.count <= 18 else { return nil }
        var value = 0
        for byte in bytes {
            let digit = byte &- 48
            guard digit < 10 else { return nil }
            value = value * 10 + Int(digit)
        }
        return value
    }
}
