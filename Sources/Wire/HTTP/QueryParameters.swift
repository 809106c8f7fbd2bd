/// The parameters of a query, read strictly: a parameter that cannot be decoded, is given twice or is unknown is an error that names it,
/// because a filter that is passed over lets everything through.
public struct QueryParameters: Sendable {
    private struct Value: Sendable {
        let text: String
        let hadPlus: Bool
    }

    private var values: [String: Value] = [:]

    /// `known`: the names that there are. A parameter without a value counts as not given.
    public init(_ query: String, known: [String]) throws(APIError) {
        for pair in query.split(separator: "&") {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard let name = percentDecoded(parts[0], plusIsSpace: true) else {
                throw APIError(
                    400, "invalid_parameter", "the name of this parameter has a malformed percent-escape, or is no UTF-8",
                    field: String(parts[0].prefix(60)))
            }
            guard known.contains(name) else {
                let list = known.isEmpty ? "there are none" : "there are " + known.joined(separator: ", ")
                throw APIError(400, "unknown_parameter", "is no parameter here; \(list)", field: String(name.prefix(60)))
            }
            let raw = parts.count == 2 ? parts[1] : ""
            guard let text = percentDecoded(raw, plusIsSpace: true) else {
                throw APIError(400, "invalid_parameter", "has a malformed percent-escape, or is no UTF-8", field: name)
            }
            guard values[name] == nil else { throw APIError(400, "invalid_parameter", "is given more than once", field: name) }
            values[name] = Value(text: text, hadPlus: raw.contains("+"))
        }
    }

    /// The value, decoded; nil when it is absent or empty.
    public subscript(_ name: String) -> String? { values[name].flatMap { $0.text.isEmpty ? nil : $0.text } }

    /// The error for a value of the wrong form. It says so when a `+` in the query has become a blank.
    public func wrong(_ name: String, _ wanted: String) -> APIError {
        let plus = values[name]?.hadPlus == true ? " (a + in a query is a blank; write it as %2B)" : ""
        return APIError(400, "invalid_parameter", wanted + plus, field: name)
    }
}

extension HTTPRequest {
    /// A header that may be given once; nil when it is absent. Given more than once it is an error, because nobody can tell which of them
    /// holds.
    public func single(_ name: String) throws(APIError) -> String? {
        let lower = name.lowercased()
        let all = headers.filter { $0.name == lower }
        guard all.count < 2 else { throw APIError(400, "invalid_header", "is given more than once", field: name) }
        return all.first?.value
    }
}
