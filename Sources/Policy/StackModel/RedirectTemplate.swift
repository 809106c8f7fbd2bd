/// The target of a redirect: a text in which `$scheme`, `$host` and `$uri` stand for those of the request. A dollar sign before anything
/// but a letter stands for itself.
public struct RedirectTemplate: Sendable, Equatable {
    private enum Part: Sendable, Equatable {
        case text(String)
        case variable(String)
    }
    private var parts: [Part] = []

    /// Why a client could not follow a redirect: the end of a sentence that begins with the target.
    public struct Failure: Error {
        public let reason: String
    }

    static let variables = ["scheme", "host", "uri"]
    /// More than this is no place that a client would be sent to, in bytes.
    private static let lengthLimit = 16_384

    /// The template of a route that the reader has taken.
    public init(_ spec: RedirectSpec) { parts = (try? RedirectTemplate.parse(spec.to)) ?? [.text(spec.to)] }

    /// Throws why a client could not follow it.
    public init(checking text: String) throws(Failure) {
        parts = try RedirectTemplate.parse(text)
        guard let place = place(scheme: "https", host: "example.org", target: "/path?query") else {
            throw Failure(reason: text.isEmpty ? "is empty" : "has a character that a URL cannot have; write it as an escape, such as %20")
        }
        if place.hasPrefix("//path") { throw Failure(reason: "would make a host of the path: $uri has its own slash") }
        if place.hasPrefix("/") { return }
        guard let colon = place.firstIndex(of: ":"),
            place[..<colon].allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || "+-.".contains($0)) }),
            let first = place.first, first.isLetter
        else { throw Failure(reason: "is no URL: it begins with https://, with $scheme:// or with /") }
        let rest = place[place.index(after: colon)...]
        if ["http", "https"].contains(place[..<colon].lowercased()) {
            let authority = rest.dropFirst(2).prefix { !"/?#".contains($0) }
            guard rest.hasPrefix("//"), WebOrigin.isAuthority(authority) else {
                throw Failure(reason: "names no host after \(place[..<colon]):")
            }
        } else if rest.isEmpty {
            throw Failure(reason: "has nothing after \(place[...colon])")
        }
    }

    private static func parse(_ text: String) throws(Failure) -> [Part] {
        var parts: [Part] = [], literal = ""
        var rest = text[...]
        while let dollar = rest.firstIndex(of: "$") {
            literal += rest[..<dollar]
            rest = rest[rest.index(after: dollar)...]
            guard let next = rest.first, next == "{" || next.isASCII && (next.isLetter || next.isNumber || next == "_") else {
                literal += "$"
                continue
            }
            let name = String(rest.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") })
            guard variables.contains(name) else {
                let found = name.isEmpty ? "${" : "$\(name)"
                throw Failure(reason: "has '\(found)', which is none of \(variables.map { "$\($0)" }.joined(separator: ", "))")
            }
            parts += [.text(literal), .variable(name)]
            literal = ""
            rest = rest.dropFirst(name.count)
        }
        return parts + [.text(literal + rest)]
    }

    public func names(_ variable: String) -> Bool { parts.contains(.variable(variable)) }

    /// The target for one request; nil when what the client sent cannot stand in a head.
    public func place(scheme: String, host: String, target: String) -> String? {
        var out = ""
        for part in parts {
            switch part {
            case .text(let text): out += text
            case .variable("scheme"): out += scheme
            case .variable("host"): out += host
            case .variable: out += target
            }
        }
        let isPlain = out.utf8.allSatisfy { $0 > 32 && $0 < 127 && !#""<>\^`{|}"#.utf8.contains($0) }
        return isPlain && !out.isEmpty && out.utf8.count <= RedirectTemplate.lengthLimit ? out : nil
    }
}

/// The origin of a page, as a browser sends it in `Origin`.
public enum WebOrigin {
    /// `https://app.example:8443` in the form that browsers send: small letters, no default port. nil for what no browser sends.
    public static func canonical(_ text: String) -> String? {
        let lower = text.lowercased()
        guard let scheme = ["https", "http"].first(where: { lower.hasPrefix($0 + "://") }) else { return nil }
        var authority = lower.dropFirst(scheme.count + 3)
        guard isAuthority(authority) else { return nil }
        let port = scheme == "https" ? ":443" : ":80"
        if authority.hasSuffix(port) { authority = authority.dropLast(port.count) }
        return "\(scheme)://\(authority)"
    }

    /// A name, an IPv4 address or an IPv6 address in brackets, with or without a port.
    public static func isAuthority(_ text: some StringProtocol) -> Bool {
        var rest = Array(text.utf8)[...]
        if rest.first == 91 {
            guard let end = rest.firstIndex(of: 93), end > 2, rest[1..<end].allSatisfy({ isHex($0) || $0 == 58 || $0 == 46 }) else {
                return false
            }
            rest = rest[(end + 1)...]
        } else {
            let name = rest.prefix { ($0 | 32) &- 97 < 26 || $0 &- 48 < 10 || $0 == 45 || $0 == 46 || $0 == 95 }
            guard !name.isEmpty, name.count <= 253, name.first != 46,
                !name.split(separator: 46, omittingEmptySubsequences: false).contains([])
            else { return false }
            rest = rest.dropFirst(name.count)
        }
        guard let colon = rest.first else { return true }
        let digits = rest.dropFirst()
        guard colon == 58, digits.count <= 5, digits.allSatisfy({ $0 &- 48 < 10 }) else { return false }
        return UInt16(String(decoding: digits, as: UTF8.self)).map { $0 > 0 } ?? false
    }

    private static func isHex(_ byte: UInt8) -> Bool { byte &- 48 < 10 || (byte | 32) &- 97 < 6 }
}
