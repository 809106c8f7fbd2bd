import Basics

/// One case of `Smuggling/cases.txt`, whose first lines say how it is written.
struct SmugglingCase {
    /// What happens to the messages of the client's stream, in their order.
    enum Outcome: Equatable {
        case forward(Int)
        case answer(Int)
        case refuse(Int)
        case close
    }

    let name: String
    let category: String
    let outcomes: [Outcome]
    var bytes: [UInt8] = []
    /// The requests that the backend sees: the line, and fields of its log.
    var seen: [(line: [UInt8], fields: [(name: String, value: [UInt8])])] = []

    /// The final statuses that the client must get.
    var statuses: [Int] {
        var of = seen.makeIterator()
        return outcomes.flatMap { outcome -> [Int] in
            switch outcome {
            case .forward(let count):
                (0..<count).map { _ in
                    of.next()?.fields.first { $0.name == "status" }.flatMap { Int(String(decoding: $0.value, as: UTF8.self)) } ?? 200
                }
            case .answer(let status), .refuse(let status): [status]
            case .close: []
            }
        }
    }

    /// How many of them are the gateway's own.
    var own: Int {
        outcomes.count { outcome in
            switch outcome {
            case .answer, .refuse: true
            default: false
            }
        }
    }

    /// Whether the gateway has to end the connection by itself.
    var endsByItself: Bool {
        switch outcomes.last {
        case .refuse, .close: true
        default: false
        }
    }
}

/// What is wrong with the table itself.
struct TableError: Error, CustomStringConvertible {
    let description: String
}

enum SmugglingTable {
    static func read(_ path: String) throws -> [SmugglingCase] {
        var cases: [SmugglingCase] = []
        var category = ""
        for (index, line) in String(decoding: try Files.read(path), as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false)
            .enumerated()
        {
            func wrong(_ what: String) -> TableError { TableError(description: "\(path):\(index + 1): \(what)") }
            if line.isEmpty || line.hasPrefix("#") { continue }
            if line.hasPrefix("[") {
                category = String(line.dropFirst().dropLast())
            } else if line.hasPrefix("    ") {
                guard !cases.isEmpty, let bytes = bytes(of: line.dropFirst(4)) else { throw wrong("not the bytes of a case") }
                cases[cases.count - 1].bytes += bytes
            } else if line.hasPrefix("  -> ") {
                guard !cases.isEmpty, let seen = seen(line.dropFirst(5)) else { throw wrong("not what the backend sees") }
                cases[cases.count - 1].seen.append(seen)
            } else {
                guard let next = header(line, category) else { throw wrong("not 'name: verdict'") }
                cases.append(next)
            }
        }
        for one in cases where one.seen.count != one.outcomes.reduce(0, { if case .forward(let count) = $1 { $0 + count } else { $0 } }) {
            throw TableError(description: "\(one.name): another number of -> lines than is forwarded")
        }
        return cases
    }

    private static func header(_ line: Substring, _ category: String) -> SmugglingCase? {
        let words = line.split(separator: ":", maxSplits: 1)
        guard words.count == 2 else { return nil }
        var outcomes: [SmugglingCase.Outcome] = []
        for part in words[1].split(separator: ",") {
            let pair = part.split(separator: " ")
            let number = pair.count == 2 ? Int(pair[1]) : nil
            switch (pair.first, number) {
            case ("forward", let count?): outcomes.append(.forward(count))
            case ("answer", let status?): outcomes.append(.answer(status))
            case ("refuse", let status?): outcomes.append(.refuse(status))
            case ("close", nil): outcomes.append(.close)
            default: return nil
            }
        }
        return SmugglingCase(name: String(words[0]), category: category, outcomes: outcomes)
    }

    /// `GET /a HTTP/1.1 | body=abc | cookie=-`
    private static func seen(_ text: Substring) -> (line: [UInt8], fields: [(name: String, value: [UInt8])])? {
        let parts = text.split(separator: " | ")
        var fields: [(name: String, value: [UInt8])] = []
        for part in parts.dropFirst() {
            guard let equals = part.firstIndex(of: "="), let value = bytes(of: part[part.index(after: equals)...]) else { return nil }
            fields.append((String(part[..<equals]), value))
        }
        guard let first = parts.first, let line = bytes(of: first) else { return nil }
        return (line, fields)
    }

    /// Takes the escapes away; nil when one is none.
    static func bytes(of text: Substring) -> [UInt8]? {
        var out: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "\\") else {
                out.append(byte)
                continue
            }
            switch rest.popFirst() {
            case UInt8(ascii: "r"): out.append(13)
            case UInt8(ascii: "n"): out.append(10)
            case UInt8(ascii: "t"): out.append(9)
            case UInt8(ascii: "0"): out.append(0)
            case UInt8(ascii: "\\"): out.append(92)
            case UInt8(ascii: "x"):
                guard let value = UInt8(String(Substring(rest.prefix(2))), radix: 16) else { return nil }
                out.append(value)
                rest = rest.dropFirst(2)
            case UInt8(ascii: "{"):
                guard let star = rest.firstIndex(of: UInt8(ascii: "*")), let end = rest.firstIndex(of: UInt8(ascii: "}")), star < end,
                    let count = Int(Substring(rest[..<star])), let piece = bytes(of: Substring(rest[rest.index(after: star)..<end]))
                else { return nil }
                for _ in 0..<count { out += piece }
                rest = rest[rest.index(after: end)...]
            default: return nil
            }
        }
        return out
    }
}
