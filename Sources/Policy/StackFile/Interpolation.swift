/// `$NAME`, `${NAME}`, `${NAME:-default}` and `$$` in values, with Compose's meaning. A default may have variables and defaults of its own,
/// and braces that come in pairs: `${A:-${B:-{"k": 1}}}`. A name that is not set and has no default is an error, not an empty string. What
/// else begins with `${` is an error. A `$` before anything but `$`, `{`, a letter and `_` stands for itself (decision 50).
enum Interpolation {
    struct Failure: Error, Equatable {
        let reason: String
    }

    indirect enum Part {
        case text(Substring)
        case variable(name: Substring, fallback: [Part]?)
    }

    /// Defaults within defaults.
    private static let depthLimit = 16
    /// The longest value that Linux gives a program in one variable or argument (MAX_ARG_STRLEN), so that a few lines do not unfold into
    /// gigabytes.
    static let valueLimit = 128 << 10
    static let tooLong = Failure(
        reason: "longer than \(valueLimit >> 10) KiB once its variables are filled in, which no program can be given")

    static func expand(_ text: String, _ lookUp: (String) -> String?) throws(Failure) -> String {
        // All of it is read first: a mistake in a default is told also where the default is not needed.
        try fill(try parse(text[...], depth: 0), lookUp)
    }

    private static func parse(_ text: Substring, depth: Int) throws(Failure) -> [Part] {
        guard depth <= depthLimit else { throw Failure(reason: "more than \(depthLimit) defaults within each other") }
        var parts: [Part] = []
        var rest = text
        while let dollar = rest.firstIndex(of: "$") {
            parts.append(.text(rest[..<dollar]))
            rest = rest[rest.index(after: dollar)...]
            parts.append(try next(&rest, depth))
        }
        return parts + [.text(rest)]
    }

    /// What a dollar sign begins, with `text` behind that sign; takes it off `text`.
    static func next(_ text: inout Substring, _ depth: Int = 0) throws(Failure) -> Part {
        if text.first == "$" {
            text = text.dropFirst()
            return .text("$")
        }
        if text.first == "{" {
            guard let end = closing(text) else { throw Failure(reason: "'${' without its '}'") }
            defer { text = text[text.index(after: end)...] }
            return try variable(text[text.index(after: text.startIndex)..<end], depth)
        }
        let name = text.utf8.prefix { isNameByte($0) }
        guard let first = name.first, first &- 48 >= 10 else { return .text("$") }
        text = text[name.endIndex...]
        return .variable(name: Substring(name), fallback: nil)
    }

    /// Whether a variable's name may have this byte.
    static func isNameByte(_ byte: UInt8) -> Bool { (byte | 32) &- 97 < 26 || byte &- 48 < 10 || byte == 95 }

    /// Letters, digits and underscores.
    static func isName(_ text: some StringProtocol) -> Bool { !text.isEmpty && text.utf8.allSatisfy(isNameByte) }

    /// The brace that closes the one with which `text` begins; those between come in pairs.
    private static func closing(_ text: Substring) -> Substring.Index? {
        var open = 0
        for place in text.indices {
            if text[place] == "{" { open += 1 }
            if text[place] == "}" { open -= 1 }
            if open == 0 { return place }
        }
        return nil
    }

    private static func variable(_ inside: Substring, _ depth: Int) throws(Failure) -> Part {
        var name = inside
        var fallback: [Part]?
        if let colon = inside.firstIndex(of: ":"), inside[colon...].hasPrefix(":-") {
            name = inside[..<colon]
            fallback = try parse(inside[inside.index(colon, offsetBy: 2)...], depth: depth + 1)
        }
        guard isName(name) else { throw Failure(reason: "'${\(inside)}' is neither ${NAME} nor ${NAME:-default}") }
        return .variable(name: name, fallback: fallback)
    }

    static func fill(_ parts: [Part], _ lookUp: (String) -> String?) throws(Failure) -> String {
        var out = ""
        for part in parts {
            switch part {
            case .text(let text): out += text
            case .variable(let name, let fallback):
                if let found = try value(of: name, hasDefault: fallback != nil, lookUp) {
                    out += found
                } else {
                    out += try fill(fallback ?? [], lookUp)
                }
            }
            guard out.utf8.count <= valueLimit else { throw tooLong }
        }
        return out
    }

    /// The value of a variable; nil: its default stands.
    static func value(of name: Substring, hasDefault: Bool, _ lookUp: (String) -> String?) throws(Failure) -> String? {
        let found = lookUp(String(name))
        guard let found, !found.isEmpty || !hasDefault else {
            if hasDefault { return nil }
            throw Failure(
                reason: "\(name) is not set in the environment and has no default (set it, there or in .env, or write ${\(name):-default}; "
                    + "$$ is a dollar sign)")
        }
        guard !found.unicodeScalars.contains("\u{FFFD}") else {
            throw Failure(reason: "the value of \(name) in the environment is no UTF-8, so it cannot be put into a text")
        }
        return found
    }
}
