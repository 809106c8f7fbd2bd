import JSONCoding
import StackModel

/// The stack file's description as JSON Schema (draft 2020-12), for editors: made from the keys that the reader itself uses.
public func stackJSONSchema() -> String {
    var json = JSONWriter(reserving: 16_384)
    json.beginObject()
    json.member("$schema", "https://json-schema.org/draft/2020-12/schema")
    json.member("title", "A Muster stack")
    write(StackSchema.stack, into: &json)
    json.endObject()
    return json.text
}

/// The members of an object's schema, without its braces.
private func write(_ spec: ObjectSpec, into json: inout JSONWriter) {
    json.member("type", "object")
    json.member("additionalProperties", false)
    if spec.takesExtensions {
        json.key("patternProperties")
        json.beginObject()
        json.key("^x-")
        json.beginObject()
        json.endObject()
        json.endObject()
    }
    let required = spec.keys.filter(\.isRequired).map(\.name)
    if !required.isEmpty { json.member("required", required) }
    json.key("properties")
    json.beginObject()
    for key in spec.keys {
        json.key(key.name)
        json.beginObject()
        json.member("description", key.about)
        write(key.type, into: &json)
        json.endObject()
    }
    json.endObject()
}

private func write(_ type: ValueType, into json: inout JSONWriter) {
    switch type {
    case .string:
        json.member("type", ["string", "number", "boolean"])
    case .name: pattern("^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$", into: &json)
    case .integer(let range):
        json.member("type", "integer")
        json.member("minimum", range.lowerBound)
        json.member("maximum", range.upperBound)
    case .boolean: json.member("type", "boolean")
    case .duration: pattern("^[0-9.]+(us|ms|s|m|h|d)$", into: &json)
    case .percent: pattern("^[0-9.]+%$", into: &json)
    case .size: loosePattern("^[0-9]+([KMG]iB?|k|M|G)?$", into: &json)
    case .cpu: loosePattern("^[0-9.]+m?$", into: &json)
    case .address: loosePattern("^([0-9a-fA-F.:\\[\\]]+:|localhost:)?[0-9]{1,5}$", into: &json)
    case .replicas: loosePattern("^[0-9]+(\\.\\.[0-9]+)?$", into: &json)
    case .path, .pathPattern: pattern("^/", into: &json)
    case .token: pattern("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$", into: &json)
    case .rate: pattern("^[0-9]+/(s|min|h)$", into: &json)
    case .usage(of: .cpu): loosePattern("^([0-9]+%|[0-9.]+m?)$", into: &json)
    case .usage(of: .size): loosePattern("^[0-9]+(%|[KMG]iB?|k|M|G)?$", into: &json)
    case .amount: loosePattern("^[0-9.]+$", into: &json)
    case .hours: pattern("^([A-Z][a-z]{2}([,-][A-Z][a-z]{2})* )?[0-9]{2}:[0-9]{2}-[0-9]{2}:[0-9]{2}$", into: &json)
    case .limitKey: pattern("^(client-ip|route|header:.+)$", into: &json)
    case .balance:
        pattern(
            "^(" + RouteSpec.balanceMethods.joined(separator: "|").replacing("(", with: "\\(").replacing(")", with: "\\)")
                + "|hash\\((header|cookie):.+\\))$",
            into: &json)
    case .range: pattern("^[0-9a-fA-F.:]+(/[0-9]{1,3})?$", into: &json)
    case .regex: json.member("type", "string")
    case .choice(let words): json.member("enum", words)
    case .command: write(.list(.string), into: &json)
    case .list(let element):
        json.key("anyOf")
        json.beginArray()
        json.beginObject()
        json.member("type", "array")
        json.key("items")
        json.beginObject()
        write(element, into: &json)
        json.endObject()
        json.endObject()
        json.beginObject()
        write(element, into: &json)
        json.endObject()
        json.endArray()
    case .map(let element):
        json.member("type", "object")
        json.key("additionalProperties")
        json.beginObject()
        write(element, into: &json)
        json.endObject()
    case .object(let spec): write(spec, into: &json)
    case .objectOr(let spec, let short):
        json.key("anyOf")
        json.beginArray()
        json.beginObject()
        write(spec.key(short)!.type, into: &json)
        json.endObject()
        json.beginObject()
        write(spec, into: &json)
        json.endObject()
        json.endArray()
    }
}

private func pattern(_ text: String, into json: inout JSONWriter) {
    json.member("type", "string")
    json.member("pattern", text)
}

/// YAML reads an unquoted number as a number, which a pattern does not look at.
private func loosePattern(_ text: String, into json: inout JSONWriter) {
    json.member("type", ["string", "number"])
    json.member("pattern", text)
}
