import Basics
import JSONCoding

/// The parameters of a query, read whole: one that is unknown, given twice or cannot be decoded is an error. So a parameter that is absent
/// here was not sent, and never means "could not be read".
public struct QueryFields: Sendable {
    private let values: [String: String]

    init(_ query: String, known: [String]) throws(APIError) {
        var values: [String: String] = [:]
        for pair in query.split(separator: "&") {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard let name = percentDecoded(parts[0], plusIsSpace: true) else {
                throw APIError(400, "bad_parameter", "'\(parts[0])' has a malformed percent-escape, or is no UTF-8")
            }
            guard known.contains(name) else {
                let hint = nearestWord(to: name, in: known).map { "; did you mean '\($0)'?" } ?? ""
                let list = known.isEmpty ? "this path has no parameters" : "this path has \(known.joined(separator: ", "))"
                throw APIError(400, "unknown_parameter", "there is no parameter '\(name)': \(list)\(hint)", field: name)
            }
            guard let value = percentDecoded(parts.count == 2 ? parts[1] : "", plusIsSpace: true) else {
                throw APIError(400, "bad_parameter", "'\(parts[1])' has a malformed percent-escape, or is no UTF-8", field: name)
            }
            guard values.updateValue(value, forKey: name) == nil else {
                throw APIError(400, "repeated_parameter", "is given twice", field: name)
            }
        }
        self.values = values
    }

    /// A parameter's value; nil when it was not sent. The value may be empty.
    public func value(_ name: String) -> String? { values[name] }

    /// A parameter's value; nil when it was not sent, or is empty.
    public func filled(_ name: String) -> String? { values[name].flatMap { $0.isEmpty ? nil : $0 } }

    public func required(_ name: String) throws(APIError) -> String {
        guard let value = filled(name) else { throw APIError(400, "missing_parameter", "is needed", field: name) }
        return value
    }

    /// A parameter's value as a number; nil when it was not sent, or is empty.
    public func integer(_ name: String, in range: ClosedRange<Int>) throws(APIError) -> Int? {
        guard let text = filled(name) else { return nil }
        guard text.utf8.allSatisfy({ $0 &- 48 < 10 }), let value = Int(text), range.contains(value) else {
            let bounds = range.upperBound == .max ? "from \(range.lowerBound)" : "from \(range.lowerBound) to \(range.upperBound)"
            throw APIError(400, "invalid_number", "'\(text)' is not a whole number \(bounds)", field: name)
        }
        return value
    }
}

/// The members of a JSON object, read whole: one that is unknown or given twice is an error, and so is a value of another type. So a member
/// that is absent here was not sent. Valid as long as the elements are.
public struct JSONFields {
    private let path: String
    private let values: [String: JSONElement]

    /// `path` says in errors where the object stands.
    public init(_ element: JSONElement, known: [String], at path: String = "") throws(APIError) {
        guard let members = element.members else {
            throw APIError(400, "wrong_type", "expected an object, found \(element.kind.article)", field: path.isEmpty ? nil : path)
        }
        self.path = path.isEmpty ? "" : path + "."
        var values: [String: JSONElement] = [:]
        for (name, value) in members {
            let field = self.path + name
            guard known.contains(name) else {
                let hint = nearestWord(to: name, in: known).map { "; did you mean '\($0)'?" } ?? ""
                throw APIError(
                    400, "unknown_field", "there is no key '\(name)': known are \(known.joined(separator: ", "))\(hint)", field: field)
            }
            guard values.updateValue(value, forKey: name) == nil else {
                throw APIError(400, "repeated_field", "is given twice", field: field)
            }
        }
        self.values = values
    }

    /// The value that was sent under this name, of whatever type.
    public func element(_ name: String) -> JSONElement? { values[name] }

    public func string(_ name: String) throws(APIError) -> String? {
        guard let value = values[name] else { return nil }
        guard let text = value.string else { throw wrong(name, "a string", value) }
        return text
    }

    public func integer(_ name: String, in range: ClosedRange<Int>) throws(APIError) -> Int? {
        guard let value = values[name] else { return nil }
        guard let number = value.int, range.contains(number) else {
            let bounds = range.upperBound == .max ? "from \(range.lowerBound)" : "from \(range.lowerBound) to \(range.upperBound)"
            throw wrong(name, "a whole number \(bounds)", value)
        }
        return number
    }

    public func array(_ name: String) throws(APIError) -> [JSONElement]? {
        guard let value = values[name] else { return nil }
        guard let list = value.array else { throw wrong(name, "an array", value) }
        return list
    }

    /// The members of an object with any names, each once.
    public func map<T>(_ name: String, _ expected: String, _ read: (JSONElement) -> T?) throws(APIError) -> [String: T] {
        guard let value = values[name] else { return [:] }
        guard let members = value.members else { throw wrong(name, "an object", value) }
        var out: [String: T] = [:]
        for (key, element) in members {
            guard let one = read(element) else { throw wrong("\(name).\(key)", expected, element) }
            guard out.updateValue(one, forKey: key) == nil else {
                throw APIError(400, "repeated_field", "is given twice", field: "\(path)\(name).\(key)")
            }
        }
        return out
    }

    public func missing(_ name: String) -> APIError { APIError(400, "missing_field", "is missing", field: path + name) }

    private func wrong(_ name: String, _ expected: String, _ found: JSONElement) -> APIError {
        let what = found.int.map { "\($0)" } ?? found.kind.article
        return APIError(400, "wrong_type", "expected \(expected), found \(what)", field: path + name)
    }
}

extension HTTPRequest {
    /// The query, which has no parameters but these.
    public func query(_ known: String...) throws(APIError) -> QueryFields { try QueryFields(query, known: known) }

    /// Refuses any body: nothing would be read of it, so none may have been sent.
    public func refuseBody() throws(APIError) {
        if !body.isEmpty { throw APIError(400, "unexpected_body", "this path takes no body; its parameters stand in the query") }
    }

    /// Hands the root of a JSON body to `read`. A body that says that it is something else is refused with 415; curl's default for `-d`
    /// (a form) is taken for JSON.
    public func json<T>(_ read: (JSONElement) throws(APIError) -> T) throws(APIError) -> T {
        if let coding = header("content-encoding"), coding.lowercased() != "identity" {
            throw APIError(415, "unsupported_encoding", "send the body as it is, without Content-Encoding")
        }
        if let type = header("content-type"), !HTTPRequest.isJSON(type) {
            throw APIError(415, "unsupported_type", "expected application/json in UTF-8, found '\(type)'")
        }
        do {
            return try JSONDocument().parse(body) { try read($0) }
        } catch let error as APIError { throw error } catch { throw APIError(400, "invalid_json", "\(error)") }
    }

    private static func isJSON(_ type: String) -> Bool {
        let parts = type.lowercased().split(separator: ";").map { $0.filter { $0 != " " && $0 != "\t" && $0 != "\"" } }
        guard let kind = parts.first else { return false }
        let isKnown = kind == "application/json" || kind.hasSuffix("+json") || kind == "application/x-www-form-urlencoded"
        return isKnown && parts.dropFirst().allSatisfy { !$0.hasPrefix("charset=") || $0 == "charset=utf-8" }
    }
}
