import StackModel

/// The reference page of the stack file, in Markdown: every key with its type, its bounds, its default and its sentence, made from the keys
/// that the reader itself uses. `muster schema --markdown` prints it, and `docs/reference/stack-file.md` is what it prints.
public func stackReference() -> String {
    var page = ReferencePage()
    page.gather(StackSchema.stack, at: "")
    return page.text
}

extension KeySpec {
    /// What stands behind the last "default" of the description; nil: there is none.
    fileprivate var fallback: String? { parts.fallback }
    /// The description without its default.
    fileprivate var sentence: String { parts.sentence }

    /// A description is a sentence, and at its end `; default VALUE`, or `; default: WORDS`.
    private var parts: (sentence: String, fallback: String?) {
        for mark in ["; default: ", "; default "] {
            guard let place = about.ranges(of: mark).last else { continue }
            return (String(about[..<place.lowerBound]), String(about[place.upperBound...]))
        }
        return about.hasPrefix("default") ? ("", about) : (about, nil)
    }
}

private struct ReferencePage {
    /// An object of keys, and where it may stand.
    struct Section {
        let spec: ObjectSpec
        var places: [String]
    }

    private var sections: [Section] = []

    /// Depth first, so that what belongs to a key follows it. An object that may stand at two places has one section.
    mutating func gather(_ spec: ObjectSpec, at place: String) {
        if let known = sections.firstIndex(where: { $0.spec.title == spec.title && $0.spec.keys.map(\.name) == spec.keys.map(\.name) }) {
            if !sections[known].places.contains(place) { sections[known].places.append(place) }
            return
        }
        sections.append(Section(spec: spec, places: [place]))
        for key in spec.keys { gather(key.type, at: place.isEmpty ? key.name : "\(place).\(key.name)") }
    }

    private mutating func gather(_ type: ValueType, at place: String) {
        switch type {
        case .object(let spec), .objectOr(let spec, _): gather(spec, at: place)
        case .list(let element): gather(element, at: place)
        case .map(let element): gather(element, at: place + ".NAME")
        default: break
        }
    }

    // MARK: the page

    private static let head = """
        # The stack file

        Every key. This page is made from the schema that the reader itself works from (`muster schema --markdown`), and a test fails when it
        is not what the schema says. For an editor there is the same as a JSON Schema: `muster schema > muster.schema.json`.

        A stack file is YAML. An unknown key, a key given twice and a value of the wrong form are errors, each told with its line and column,
        and all of them at once. `NAME` stands for a name that you choose. Where a list is expected, one value stands for a list of one.


        """

    private static let values = """
        ## Values

        | value | how it is written |
        |---|---|
        | text | anything; numbers and `true` too; put it in quotes where YAML would read something else |
        | name | letters, digits and dashes, at most 63, first and last no dash |
        | time | a number and its unit: `250us`, `250ms`, `5s`, `2m`, `1h`, `7d` |
        | size | bytes, or with a unit: `512Mi`, `2Gi`, `64k` (`Ki` `Mi` `Gi`, also written `KiB` `MiB` `GiB`, are 1024, `k` `M` `G` are 1000 of the one before) |
        | cores | `500m` (thousandths) or `2` |
        | percentage | `20%` |
        | number | above 0, at most three digits behind the point: `800`, `0.5` |
        | rate | `100/s`, `5/min`, `1000/h` |
        | address | `8080`, `127.0.0.1:8080`, `[::1]:8080` |
        | path | begins with `/` |

        """

    var text: String {
        var out = ReferencePage.head
        for section in sections {
            out += "\(indent(section))- [\(code(ReferencePage.name(section)))](#\(anchor(section))): \(section.spec.title)\n"
        }
        out += "\n" + ReferencePage.values
        for section in sections { out += "\n" + table(section) }
        return out
    }

    private func indent(_ section: Section) -> String {
        let place = section.places[0]
        return place.isEmpty ? "" : String(repeating: "  ", count: place.split(separator: ".").filter { $0 != "NAME" }.count)
    }

    private static func name(_ section: Section) -> String { section.places[0].isEmpty ? "the file" : section.places[0] }

    /// As web pages of Markdown make it of a heading.
    private func anchor(_ section: Section) -> String {
        String(ReferencePage.name(section).lowercased().compactMap { $0 == " " ? "-" : $0.isLetter || $0.isNumber || $0 == "-" ? $0 : nil })
    }

    private func table(_ section: Section) -> String {
        var out = "## \(ReferencePage.name(section))\n\n"
        out += section.spec.title.prefix(1).uppercased() + section.spec.title.dropFirst() + ".\n"
        if section.places.count > 1 {
            out += "The same keys stand at " + section.places.dropFirst().map(code).joined(separator: " and ") + ".\n"
        }
        out += "\n| key | value | default | what it says |\n|---|---|---|---|\n"
        for key in section.spec.keys {
            let fallback = key.isRequired ? "**required**" : key.fallback.map(escaped) ?? ""
            out += "| `\(key.name)` | \(value(key.type)) | \(fallback) | \(escaped(key.sentence)) |\n"
        }
        return out
    }

    /// What a key takes, in words.
    private func value(_ type: ValueType) -> String {
        switch type {
        case .string: "text"
        case .name: "name"
        case .boolean: "`true` or `false`"
        case .integer(let range): "whole number, \(range.lowerBound) to \(range.upperBound)"
        case .duration(let range, let orZero): time(range, orZero)
        case .percent: "percentage"
        case .size(let range):
            range.upperBound == ValueType.largestSize
                ? "size" : "size, \(SchemaChecker.sizeText(range.lowerBound)) to \(SchemaChecker.sizeText(range.upperBound))"
        case .cpu: "cores"
        case .address: "address"
        case .path, .pathPattern: "path"
        case .rate: "rate"
        case .amount: "number"
        case .choice(let words): words.map(code).joined(separator: ", ")
        case .balance: (RouteSpec.balanceMethods + ["hash(header:NAME)", "hash(cookie:NAME)"]).map(code).joined(separator: ", ")
        case .list(let element): "list: \(value(element))"
        case .map(let element): "names, each with \(value(element))"
        case .object(let spec): link(spec)
        case .objectOr(let spec, let short): "\(spec.key(short).map { value($0.type) } ?? "text"), or \(link(spec))"
        default: escaped(SchemaChecker.expected(type))
        }
    }

    private func time(_ range: ClosedRange<Duration>, _ orZero: Bool) -> String {
        var words: [String] = []
        if range.lowerBound > .zero { words.append("at least \(range.lowerBound.brief)") }
        if range.upperBound < ValueType.longestTime { words.append("at most \(range.upperBound.brief)") }
        return "time" + (words.isEmpty ? "" : ", " + words.joined(separator: " and ")) + (orZero ? ", or `0s`" : "")
    }

    private func link(_ spec: ObjectSpec) -> String {
        guard let section = sections.first(where: { $0.spec.title == spec.title && $0.spec.keys.map(\.name) == spec.keys.map(\.name) })
        else {
            return spec.title
        }
        return "[keys](#\(anchor(section)))"
    }

    private func code(_ text: String) -> String { "`\(text)`" }

    /// Characters that mean something in a table of Markdown.
    private func escaped(_ text: String) -> String {
        var out = ""
        for character in text {
            if "|*_<>[]".contains(character) { out.append("\\") }
            out.append(character)
        }
        return out
    }
}
