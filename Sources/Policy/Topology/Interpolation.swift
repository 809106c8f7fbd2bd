/// `${NAME}`, `${NAME:-default}` and `$$` in values, with Compose's meaning. A name that is not set and has no default is an error, not
/// an empty string. A lone `$` stands for itself.
enum Interpolation {
    struct Failure: Error, Equatable {
        let reason: String
    }

    static func expand(_ text: String, _ lookUp: (String) -> String?) throws(Failure) -> String {
        var out = ""
        var rest = text[...]
        while let dollar = rest.firstIndex(of: "$") {
            out += rest[..<dollar]
            rest = rest[rest.index(after: dollar)...]
            if rest.first == "$" {
                out += "$"
                rest = rest.dropFirst()
            } else if rest.first == "{" {
                guard let end = rest.firstIndex(of: "}") else { throw Failure(reason: "'${' without its '}'") }
                out += try value(rest[rest.index(after: rest.startIndex)..<end], lookUp)
                rest = rest[rest.index(after: end)...]
            } else {
                out += "$"
            }
        }
        return out + rest
    }

    private static func value(_ inside: Substring, _ lookUp: (String) -> String?) throws(Failure) -> String {
        var name = inside
        var fallback: Substring?
        if let colon = inside.firstIndex(of: ":"), inside[colon...].hasPrefix(":-") {
            name = inside[..<colon]
            fallback = inside[inside.index(colon, offsetBy: 2)...]
        }
        guard !name.isEmpty, name.utf8.allSatisfy({ ($0 | 32) &- 97 < 26 || $0 &- 48 < 10 || $0 == 95 }) else {
            throw Failure(reason: "'${\(inside)}' is neither ${NAME} nor ${NAME:-default}")
        }
        let found = lookUp(String(name))
        if let found, !found.isEmpty || fallback == nil { return found }
        guard let fallback else {
            throw Failure(reason: "\(name) is not set in the environment and has no default (write ${\(name):-default})")
        }
        return String(fallback)
    }
}
