import Basics

/// The header fields that somebody on the way looks at. Everything else is passed on unseen.
public enum KnownHeader: UInt8, Sendable {
    case other, connection, contentLength, transferEncoding, host, expect, upgrade, keepAlive, proxyConnection
    case te, trailer, date, via, maxForwards, xForwardedFor, xForwardedProto, xForwardedHost, xRealIP, xRequestID, idempotencyKey
    case contentType, proxyAuthenticate, proxyAuthorization
    /// `X-Request-Timeout`: how long the sender goes on waiting.
    case xRequestTimeout
    /// `X-Muster-Explain`: the sender wants to know why.
    case xMusterExplain

    /// The field of this name, whatever its case. By length first, so that most names cost one comparison.
    public static func identify(_ name: Span<UInt8>) -> KnownHeader {
        switch name.count {
        case 2: name.equals("te") ? .te : .other
        case 3: name.equals("via") ? .via : .other
        case 4: name.equals("host") ? .host : name.equals("date") ? .date : .other
        case 6: name.equals("expect") ? .expect : .other
        case 7: name.equals("upgrade") ? .upgrade : name.equals("trailer") ? .trailer : .other
        case 9: name.equals("x-real-ip") ? .xRealIP : .other
        case 10: name.equals("connection") ? .connection : name.equals("keep-alive") ? .keepAlive : .other
        case 12:
            name.equals("content-type")
                ? .contentType : name.equals("x-request-id") ? .xRequestID : name.equals("max-forwards") ? .maxForwards : .other
        case 14: name.equals("content-length") ? .contentLength : .other
        case 15:
            name.equals("x-forwarded-for") ? .xForwardedFor : name.equals("idempotency-key") ? .idempotencyKey : .other
        case 16:
            name.equals("x-forwarded-host")
                ? .xForwardedHost
                : name.equals("proxy-connection") ? .proxyConnection : name.equals("x-muster-explain") ? .xMusterExplain : .other
        case 17:
            name.equals("transfer-encoding")
                ? .transferEncoding
                : name.equals("x-forwarded-proto") ? .xForwardedProto : name.equals("x-request-timeout") ? .xRequestTimeout : .other
        case 18: name.equals("proxy-authenticate") ? .proxyAuthenticate : .other
        case 19: name.equals("proxy-authorization") ? .proxyAuthorization : .other
        default: .other
        }
    }
}

extension Span<UInt8> {
    /// Equal to `lower`, which is ASCII in lower case, whatever the case of this.
    @inline(__always)
    func equals(_ lower: StaticString) -> Bool {
        guard count == lower.utf8CodeUnitCount else { return false }
        let other = lower.utf8Start
        for i in 0..<count {
            var byte = self[i]
            if byte &- 65 < 26 { byte |= 32 }
            if byte != other[i] { return false }
        }
        return true
    }
}

/// The place of a part of a head.
public struct HeadRange: Sendable {
    public var start: Int32 = 0
    public var count: Int32 = 0
    public init() {}
    public init(_ start: Int, _ end: Int) {
        self.start = Int32(truncatingIfNeeded: start)
        count = Int32(truncatingIfNeeded: end - start)
    }
}

public struct HeaderField: Sendable {
    public var name: HeadRange
    public var value: HeadRange
    public var known: KnownHeader

    public init(name: HeadRange, value: HeadRange, known: KnownHeader) {
        self.name = name
        self.value = value
        self.known = known
    }
}

/// How the end of a body is told.
public enum BodyFraming: Equatable, Sendable {
    case none
    case length(Int)
    case chunked
    /// Responses only: the body ends where the connection does.
    case untilClose
}

/// One parsed head: ranges into the bytes it was parsed from. Reused for head after head by everything on one
/// loop, so that parsing allocates nothing; valid until the callback it was handed to returns.
public final class HeadTable {
    public internal(set) var bytes = UnsafeRawBufferPointer(start: nil, count: 0)
    public internal(set) var fields: [HeaderField] = []
    public internal(set) var method = HeadRange()
    /// Origin form (`/path?query`) or `*`; an absolute target has lost its scheme and authority.
    public internal(set) var target = HeadRange()
    public internal(set) var status = 0
    /// A response's own reason phrase; empty when it has none.
    public internal(set) var reason = HeadRange()
    public internal(set) var minorVersion = 1
    /// 2 when the head came over HTTP/2; then `minorVersion` is 1, because all that HTTP/1.1 asks of a head holds for it.
    public internal(set) var majorVersion = 1
    public internal(set) var framing = BodyFraming.none
    /// Whether the connection stays open, as the sender said or by the version's default.
    public internal(set) var keepsAlive = true
    var saysClose = false
    public internal(set) var expectsContinue = false
    /// Whether `Connection` names fields beyond the usual ones: they are hop-by-hop as well.
    public internal(set) var nominatesFields = false
    public internal(set) var isHead = false
    /// Whether some field's name has a character that is no letter, digit or dash. Servers that map names to variables (CGI, WSGI, PHP) may
    /// take such a name for another one: `X_Forwarded_For` for `X-Forwarded-For`.
    public internal(set) var hasOddNames = false
    /// Whether a response whose status has no body (204) declares one: what follows could be taken for the next response.
    public internal(set) var saysBodyWhereNoneMayBe = false
    /// Whether `Connection` has the option `upgrade`. The field `Upgrade` says what to.
    public internal(set) var wantsUpgrade = false

    public init() { fields.reserveCapacity(128) }

    @inline(__always)
    public func text(_ range: HeadRange) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: bytes.baseAddress.map { $0 + Int(range.start) }, count: Int(range.count))
    }

    public func first(_ known: KnownHeader) -> UnsafeRawBufferPointer? {
        for field in fields where field.known == known { return text(field.value) }
        return nil
    }

    public func contains(_ known: KnownHeader) -> Bool {
        for field in fields where field.known == known { return true }
        return false
    }

    public var methodText: UnsafeRawBufferPointer { text(method) }
    public var targetText: UnsafeRawBufferPointer { text(target) }

    /// Whether the method is one of GET, HEAD, PUT, DELETE, OPTIONS, TRACE (RFC 9110, 9.2.2).
    public var methodIsIdempotent: Bool {
        // Methods are case-sensitive: `get` is an unknown method, whose answer may well have a body.
        let method = methodText
        return method.isExactly("GET") || method.isExactly("HEAD") || method.isExactly("PUT") || method.isExactly("DELETE")
            || method.isExactly("OPTIONS") || method.isExactly("TRACE")
    }

    /// The number in `Max-Forwards`, where it counts: for TRACE and OPTIONS (RFC 9110, 7.6.2). nil: the field does not count, is not there,
    /// not there once, or is no number.
    public var forwardsLeft: Int? {
        guard methodText.isExactly("TRACE") || methodText.isExactly("OPTIONS") else { return nil }
        var found: Int?
        for field in fields where field.known == .maxForwards {
            guard found == nil, let value = HeadParser.decimal(text(field.value)) else { return nil }
            found = value
        }
        return found
    }

    /// Whether `Connection` names this field, which makes it hop-by-hop.
    public func isNominated(_ name: HeadRange) -> Bool {
        let wanted = text(name)
        for field in fields where field.known == .connection {
            for token in text(field.value).split(separator: 44) {
                if equalIgnoringCase(trimmed(token), wanted) { return true }
            }
        }
        return false
    }

    func reset(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
        fields.removeAll(keepingCapacity: true)
        majorVersion = 1
        framing = .none
        keepsAlive = true
        saysClose = false
        expectsContinue = false
        nominatesFields = false
        isHead = false
        wantsUpgrade = false
        hasOddNames = false
        saysBodyWhereNoneMayBe = false
        reason = HeadRange()
    }

    /// The value of the first field of this name (ASCII in lower case); nil when there is none.
    public func value(_ name: [UInt8]) -> UnsafeRawBufferPointer? {
        for field in fields where Int(field.name.count) == name.count && name.withUnsafeBytes({ equalIgnoringCase($0, text(field.name)) }) {
            return text(field.value)
        }
        return nil
    }

    /// How many fields have this name (ASCII in lower case), and how many of these have a value that fits.
    public func count(_ name: [UInt8], where fits: (UnsafeRawBufferPointer) -> Bool) -> (all: Int, fitting: Int) {
        var all = 0, fitting = 0
        for field in fields where Int(field.name.count) == name.count && name.withUnsafeBytes({ equalIgnoringCase($0, text(field.name)) }) {
            all += 1
            if fits(text(field.value)) { fitting += 1 }
        }
        return (all, fitting)
    }

    /// The one protocol that `Upgrade` names. nil when no upgrade is asked for, or a choice of several.
    public var upgrade: UnsafeRawBufferPointer? {
        guard wantsUpgrade, framing == .none, minorVersion == 1, let name = first(.upgrade), !name.isEmpty, !name.contains(44) else {
            return nil
        }
        return name
    }
}

/// The bytes without the spaces and tabs at either end.
public func trimmed(_ bytes: Slice<UnsafeRawBufferPointer>) -> UnsafeRawBufferPointer {
    var part = bytes
    while let first = part.first, first == 32 || first == 9 { part = part.dropFirst() }
    while let last = part.last, last == 32 || last == 9 { part = part.dropLast() }
    return UnsafeRawBufferPointer(rebasing: part)
}

/// ASCII letters compared without their case.
public func equalIgnoringCase(_ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer) -> Bool {
    guard a.count == b.count else { return false }
    for i in 0..<a.count {
        let x = a[i], y = b[i]
        if x != y {
            guard x ^ y == 32, (x | 32) &- 97 < 26 else { return false }
        }
    }
    return true
}

extension UnsafeRawBufferPointer {
    /// Byte for byte.
    public func isExactly(_ word: StaticString) -> Bool {
        guard count == word.utf8CodeUnitCount else { return false }
        for i in 0..<count where self[i] != word.utf8Start[i] { return false }
        return true
    }

    /// Equal to lower-case ASCII `word`, whatever the case of this.
    public func equals(_ word: StaticString) -> Bool { Span<UInt8>(_unsafeBytes: self).equals(word) }
}
