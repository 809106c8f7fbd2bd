/// A request of a scenario, and how often it is sent beside the others.
public struct LoadRequest: Sendable, Equatable {
    public let method: String
    /// The path and query; they may have placeholders.
    public let target: LoadText
    /// The request's weight. Its share of all requests is its weight over the sum of all weights.
    public let weight: Int
    public let headers: [(name: String, value: String)]
    public let body: LoadText?

    public init(_ method: String, _ target: LoadText, weight: Int = 1, headers: [(name: String, value: String)] = [], body: LoadText? = nil)
    {
        self.method = method
        self.target = target
        self.weight = weight
        self.headers = headers
        self.body = body
    }

    /// `GET /path`
    public var label: String { "\(method) \(target.source)" }

    /// Whether the request may be sent again on a fresh connection when a kept one was closed before a byte of the answer (RFC 9110,
    /// 9.2.2).
    public var isIdempotent: Bool { ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"].contains(method) }

    public static func == (a: LoadRequest, b: LoadRequest) -> Bool {
        a.method == b.method && a.target == b.target && a.weight == b.weight && a.body == b.body
            && a.headers.map(\.name) == b.headers.map(\.name) && a.headers.map(\.value) == b.headers.map(\.value)
    }
}

/// Bytes in which `{{n}}` (the number of the request, from 0), `{{uuid}}` (version 4; one for each request, wherever it stands in it, and
/// other ones in each run) and `{{now}}` (UTC, to the millisecond) are filled in. Any other word between double braces is a mistake and is
/// refused.
public struct LoadText: Sendable, Equatable {
    public enum Part: Sendable, Equatable {
        case bytes([UInt8])
        case number
        case uuid
        case now
    }

    /// What is wrong with a text, and at which byte.
    public struct Failure: Error, Equatable, Sendable {
        public let offset: Int
        public let message: String
    }

    public static let placeholders = ["n", "uuid", "now"]
    /// The most placeholders in one text: each costs time with each request.
    public static let mostPlaceholders = 1000
    /// The most bytes of a body.
    public static let mostBytes = 1 << 20

    public let parts: [Part]

    public init(_ bytes: [UInt8]) throws(Failure) {
        var parts: [Part] = []
        var clean = 0, at = 0, filled = 0
        while at + 1 < bytes.count {
            guard bytes[at] == 123, bytes[at + 1] == 123 else {
                at += 1
                continue
            }
            guard let word = LoadText.word(bytes, at + 2) else {
                // JSON may end an object within an object, or begin one: only a lone word in double braces is ours.
                at += 1
                continue
            }
            let part: Part
            switch word {
            case "n": part = .number
            case "uuid": part = .uuid
            case "now": part = .now
            default: throw Failure(offset: at, message: "there is no placeholder '{{\(word)}}': {{n}}, {{uuid}} and {{now}} are filled in")
            }
            filled += 1
            if filled > LoadText.mostPlaceholders {
                throw Failure(offset: at, message: "more than \(LoadText.mostPlaceholders) placeholders")
            }
            if clean < at { parts.append(.bytes(Array(bytes[clean..<at]))) }
            parts.append(part)
            at += word.utf8.count + 4
            clean = at
        }
        if clean < bytes.count { parts.append(.bytes(Array(bytes[clean...]))) }
        self.parts = parts
    }

    public init(_ text: String) throws(Failure) { try self.init(Array(text.utf8)) }

    /// The letters between `{{` and `}}`; nil when there is something else.
    private static func word(_ bytes: [UInt8], _ start: Int) -> String? {
        var end = start
        while end < bytes.count, end - start < 16, (bytes[end] | 32) &- 97 < 26 { end += 1 }
        guard end > start, end + 1 < bytes.count, bytes[end] == 125, bytes[end + 1] == 125 else { return nil }
        return String(decoding: bytes[start..<end], as: UTF8.self)
    }

    public var isFixed: Bool { parts.allSatisfy { if case .bytes = $0 { true } else { false } } }

    /// The text as it was written.
    public var source: String {
        var out: [UInt8] = []
        for part in parts {
            switch part {
            case .bytes(let bytes): out += bytes
            case .number: out += Array("{{n}}".utf8)
            case .uuid: out += Array("{{uuid}}".utf8)
            case .now: out += Array("{{now}}".utf8)
            }
        }
        return String(decoding: out, as: UTF8.self)
    }

    /// The number of bytes when the text is filled in for request `number`; `nowLength` is the length of a time as text.
    public func length(number: Int, nowLength: Int) -> Int {
        var length = 0
        for part in parts {
            switch part {
            case .bytes(let bytes): length += bytes.count
            case .number: length += decimalDigits(number)
            case .uuid: length += 36
            case .now: length += nowLength
            }
        }
        return length
    }
}

func decimalDigits(_ value: Int) -> Int {
    var digits = 1, probe = value
    while probe >= 10 {
        probe /= 10
        digits += 1
    }
    return digits
}
