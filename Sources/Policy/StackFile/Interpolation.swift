/// `${NAME}`, `${NAME:-default}` and `$$` in values, with Compose's meaning. A default may have variables and defaults of its own, and braces
/// that come in pairs: `${A:-${B:-{"k": 1}}}`. A name that is not set and has no default is an error, not an empty string. What else begins
/// with `${` is an error. A `$` before anything but `$` and `{` stands for itself, so `$NAME` is no variable (decision 22).
enum Interpolation {
    struct Failure: Error, Equatable {
        let reason: String
    }

    private indirect enum Part {
        case text(Substring)
        case variable(name: Substring, fallback: [Part]?)
    }

    /// Defaults within defaults.
    private static let depthLimit = 16

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
            if rest.first == "$" {
                parts.append(.text("$"))
                rest = rest.dropFirst()
            } else if rest.first == "{" {
                guard let end = closing(rest) else { throw Failure(reason: "'${' without its '}'") }
                parts.append(try variable(rest[rest.index(after: rest.startIndex)..<end], depth))
                rest = rest[rest.index(after: end)...]
            } else {
                parts.append(.text("$"))
            }
        }
        return parts + [.text(rest)]
    }

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
        guard !name.isEmpty, name.utf8.allSatisfy({ ($0 | 32) &- 97 < 26 || $0 &- 48 < 10 || $0 == 95 }) else {
            throw Failure(reason: "'${\(inside)}' is neither ${NAME} nor ${NAME:-default}")
        }
        return .variable(name: name, fallback: fallback)
    }

    private static func fill(_ parts: [Part], _ lookUp: (String) -> String?) throws(Failure) -> String {
        var out = ""
        for part in parts {
            switch part {
            case .text(let text): out += text
            case .variable(let name, let fallback):
                if let found = lookUp(String(name)), !found.isEmpty || fallback == nil {
                    guard !found.unicodeScalars.contains("\u{FFFD}") else {
                        throw Failure(reason: "the value of \(name) in the environment is no UTF-8, so it cannot be put into a text")
                    }
                    out += found
                } else if let fallback {
                    out += try fill(fallback, lookUp)
                } else {
                    throw Failure(reason: "\(name) is not set in the environment and has no default (write ${\(name):-default})")
                }
            }
        }
        return out
    }
}
