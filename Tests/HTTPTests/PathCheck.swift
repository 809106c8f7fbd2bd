import Basics
import StackModel

@testable import Gateway
@testable import HTTP

/// What the fuzzer and the replay check of cookies, paths and trace contexts: nil when all is well, else what was wrong.
///
/// The first line of an input is a cookie's name and denied paths with blanks between them; the rest is `Cookie` fields, a line each, and a
/// target. All of it is a trace context. Each parser is held against a slow reading that decodes everything first.
func checkCookiesAndPaths(_ input: [UInt8]) -> String? {
    let lines = input.split(separator: 10, maxSplits: 1, omittingEmptySubsequences: false)
    let head = Array(lines[0]), rest = lines.count > 1 ? Array(lines[1]) : head
    if let wrong = checkCookies(name: head, rest) { return wrong }
    // What the head's parser lets through as a target.
    let target = rest.filter { $0 > 32 && $0 < 127 && $0 != 35 }
    if let wrong = checkPath(target, deny: head.split(separator: 32).map(Array.init)) { return wrong }
    return checkTrace(input) ?? checkTrace(rest)
}

// MARK: cookies

private func checkCookies(name: [UInt8], _ rest: [UInt8]) -> String? {
    let fields = rest.split(separator: 10).map(Array.init)
    for field in fields + [rest] {
        let found = field.withUnsafeBytes { cookieValue($0, name).map(Array.init) }
        if name.contains(where: { [61, 59, 32, 9].contains($0) }) { continue }
        if found != slowCookie(field, name) { return "two readings of a cookie" }
    }
    var request = Array("GET / HTTP/1.1\r\nHost: a\r\n".utf8)
    for field in fields.prefix(90) { request += Array("cOOkie: ".utf8) + field + [13, 10] }
    request += [13, 10]
    return request.withUnsafeBytes { bytes -> String? in
        let table = HeadTable()
        guard (try? HeadParser.parseRequest(bytes, into: table, limits: HTTPLimits())) != nil else { return nil }
        if name.contains(where: { [61, 59, 32, 9].contains($0) }) { return nil }
        let expected = fields.prefix(90).lazy.compactMap { slowCookie(blanksOff($0[...]), name) }.first
        return table.cookie(name).map(Array.init) == expected ? nil : "two readings of the cookies of a request"
    }
}

private func blanksOff(_ bytes: ArraySlice<UInt8>) -> [UInt8] {
    var part = bytes
    while part.first == 32 || part.first == 9 { part.removeFirst() }
    while part.last == 32 || part.last == 9 { part.removeLast() }
    return Array(part)
}

private func slowCookie(_ field: [UInt8], _ name: [UInt8]) -> [UInt8]? {
    for pair in field.split(separator: 59) {
        let parts = blanksOff(pair).split(separator: 61, maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, Array(parts[0]) == name else { continue }
        let value = blanksOff(parts[1])
        return value.count > 1 && value.first == 34 && value.last == 34 ? Array(value[1..<value.count - 1]) : value
    }
    return nil
}

// MARK: paths

private func checkPath(_ target: [UInt8], deny given: [[UInt8]]) -> String? {
    let text = String(decoding: target, as: UTF8.self)
    let path = Array(target.prefix { $0 != 63 })
    let decoded = slowDecoding(path)
    let isAmbiguous = target.withUnsafeBytes { PathForm.isAmbiguous($0) }
    var expected = true
    if let decoded {
        expected =
            decoded.contains(0) || decoded.contains(92) || parts(decoded).contains { $0 == [46] || $0 == [46, 46] } || isOverlong(decoded)
    }
    if isAmbiguous != expected { return "\(text) is\(isAmbiguous ? "" : " not") ambiguous, says the gateway" }
    guard let decoded, !expected, target.first == 47 else { return nil }
    for deny in given.filter(isPlain) + ["/metrics", "/admin/", "/a/b"].map({ Array($0.utf8) }) {
        let isDenied = target.withUnsafeBytes { PathRules.isDenied($0, [DeniedPath(deny)]) }
        let expected = slowDenial(decoded, deny)
        // What is no UTF-8 is denied, and so is what a decoded question mark cuts off.
        if isDenied, !expected, decoded.contains(63) || String(validating: decoded, as: UTF8.self) == nil { continue }
        if isDenied != expected {
            return "\(text) is\(isDenied ? "" : " not") denied by \(String(decoding: deny, as: UTF8.self)), says the gateway"
        }
    }
    return nil
}

/// UTF-8 that writes a character with more bytes than it needs (RFC 3629, 3).
private func isOverlong(_ decoded: [UInt8]) -> Bool {
    if decoded.contains(0xC0) || decoded.contains(0xC1) { return true }
    return zip(decoded, decoded.dropFirst()).contains {
        ($0 == 0xE0 && (0x80...0x9F).contains($1)) || ($0 == 0xF0 && (0x80...0x8F).contains($1))
    }
}

/// Nothing that itself would have to be decoded.
private func isPlain(_ deny: [UInt8]) -> Bool {
    let letters = Set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/".utf8)
    return deny.first == 47 && deny.allSatisfy(letters.contains) && !String(decoding: deny, as: UTF8.self).contains("//")
}

/// nil when an escape is none.
private func slowDecoding(_ path: [UInt8]) -> [UInt8]? {
    var out: [UInt8] = [], rest = path[...]
    while let byte = rest.popFirst() {
        guard byte == 37 else {
            out.append(byte)
            continue
        }
        let digits = Array(rest.prefix(2))
        let isHex = digits.count == 2 && digits.allSatisfy { Set("0123456789abcdefABCDEF".utf8).contains($0) }
        guard isHex, let value = UInt8(String(decoding: digits, as: UTF8.self), radix: 16) else { return nil }
        out.append(value)
        rest.removeFirst(2)
    }
    return out
}

/// The segments of a decoded path without their parameters, also empty ones.
private func parts(_ decoded: [UInt8]) -> [[UInt8]] {
    decoded.split(separator: 47, omittingEmptySubsequences: false).map { Array($0.prefix { $0 != 59 }) }
}

private func slowDenial(_ decoded: [UInt8], _ deny: [UInt8]) -> Bool {
    let all = parts(decoded)
    let segments = all.filter { !$0.isEmpty }, denied = parts(deny).filter { !$0.isEmpty }
    guard segments.starts(with: denied) else { return false }
    // With a slash at its end, only what stands below it.
    return deny.last != 47 || segments.count > denied.count || all.last == []
}

// MARK: trace contexts

private func checkTrace(_ text: [UInt8]) -> String? {
    let context = text.withUnsafeBytes { TraceContext($0) }
    if (context != nil) != isTrace(text) { return "two readings of a trace context" }
    var out = ByteBuffer()
    for context in [context, seeded(text)].compactMap({ $0 }) {
        out.clear()
        context.field(into: &out)
        let line = Array(out.bytes)
        guard line.starts(with: "traceparent: ".utf8), line.suffix(2) == [13, 10] else { return "a trace context's field is none" }
        if line.dropFirst(13).dropLast(2).withUnsafeBytes({ TraceContext($0) }) != context {
            return "a trace context changes when it is written and read"
        }
    }
    return nil
}

/// A context made of the input's first bytes; nil when it would be of zeros.
private func seeded(_ text: [UInt8]) -> TraceContext? {
    guard text.count >= 25 else { return nil }
    func number(_ at: Int) -> UInt64 { text[at..<at + 8].reduce(0) { $0 << 8 | UInt64($1) } }
    let context = TraceContext(traceHigh: number(0), traceLow: number(8), span: number(16), isSampled: text[24] & 1 == 1)
    return context.traceHigh | context.traceLow == 0 || context.span == 0 ? nil : context
}

private func isTrace(_ text: [UInt8]) -> Bool {
    let parts = text.split(separator: 45, omittingEmptySubsequences: false)
    guard parts.count >= 4, parts[..<4].map(\.count) == [2, 32, 16, 2], text.count <= 512 else { return false }
    guard parts[..<4].joined().allSatisfy({ Set("0123456789abcdef".utf8).contains($0) }) else { return false }
    guard !parts[0].elementsEqual("ff".utf8), parts.count == 4 || !parts[0].elementsEqual("00".utf8) else { return false }
    return parts[1].contains { $0 != 48 } && parts[2].contains { $0 != 48 }
}
