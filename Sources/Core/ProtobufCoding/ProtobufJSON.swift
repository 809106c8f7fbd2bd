import Basics
import JSONCoding

extension ProtobufSchema {
    /// Writes the protobuf form of a message from its JSON form. Members that the schema does not know are passed over, as the
    /// JSON mapping asks; a wrong value is told with its path.
    public func encode(_ json: JSONElement, as message: Int) throws(ProtobufFailure) -> [UInt8] {
        var work = WorkBudget()
        do throws(ProtobufFailure) { return try encode(json, as: message, &work) } catch {
            throw error.place.isEmpty ? error.inside("the body") : error
        }
    }

    /// The same, with a budget of work: each member and each element costs one part of it.
    public func encode(_ json: JSONElement, as message: Int, _ work: inout WorkBudget, depth: Int = 0) throws(ProtobufFailure) -> [UInt8] {
        guard depth <= ProtobufSchema.depthLimit else { throw ProtobufFailure("nests more than \(ProtobufSchema.depthLimit) deep") }
        guard json.kind == .object else { throw wrong("an object", json) }
        var out = ProtobufWriter()
        try work.spend(1 + json.count)
        for field in messages[message].fields {
            guard let value = json[field.name], !value.isNull else { continue }
            do throws(ProtobufFailure) {
                if field.repeated {
                    try putAll(value, field, &work, depth, &out)
                } else {
                    try put(value, field, &work, depth, &out)
                }
            } catch { throw error.inside("\(field.name)") }
        }
        return out.bytes
    }

    private func putAll(_ list: JSONElement, _ field: Field, _ work: inout WorkBudget, _ depth: Int, _ out: inout ProtobufWriter)
        throws(ProtobufFailure)
    {
        guard list.kind == .array else { throw wrong("an array", list) }
        try work.spend(list.count)
        var elements = list.entries
        var index = 0
        while let (_, element) = elements.next() {
            do throws(ProtobufFailure) { try put(element, field, &work, depth, &out) } catch { throw error.inside("[\(index)]") }
            index += 1
        }
    }

    private func wrong(_ wanted: String, _ value: JSONElement) -> ProtobufFailure {
        ProtobufFailure("must be \(wanted), not \(value.kind.article)")
    }

    private func put(_ value: JSONElement, _ field: Field, _ work: inout WorkBudget, _ depth: Int, _ out: inout ProtobufWriter)
        throws(ProtobufFailure)
    {
        switch field.kind {
        case .message(let index): out.bytes(field.number, try encode(value, as: index, &work, depth: depth + 1))
        case .string:
            guard let text = value.stringBytes else { throw wrong("a string", value) }
            out.bytes(field.number, text)
        case .hex:
            guard let text = value.stringBytes else { throw wrong("a string of hexadecimal digits", value) }
            // Ids that say that there is none are left out, as an id of zeros would be.
            if meansNone(text) || meansNoID(text) { return }
            guard let bytes = decodeHex(text) else { throw ProtobufFailure("must be a string of hexadecimal digits") }
            if !bytes.isEmpty { out.bytes(field.number, bytes) }
        case .bytes:
            guard let text = value.stringBytes, let bytes = decodeBase64(text) else { throw wrong("a string of base64", value) }
            out.bytes(field.number, bytes)
        case .bool:
            guard let flag = value.bool else { throw wrong("true or false", value) }
            out.varint(field.number, flag ? 1 : 0)
        case .int32, .int64, .enumeration:
            let number = try integer(value, field.kind == .int64 ? Int64.min...Int64.max : Int64(Int32.min)...Int64(Int32.max))
            out.varint(field.number, UInt64(bitPattern: number))
        case .uint32: out.varint(field.number, try unsigned(value, UInt64(UInt32.max)))
        case .fixed32: out.fixed32(field.number, UInt32(try unsigned(value, UInt64(UInt32.max))))
        case .fixed64: out.fixed64(field.number, try unsigned(value, .max))
        case .double: out.fixed64(field.number, try double(value).bitPattern)
        }
    }

    private func integer(_ value: JSONElement, _ range: ClosedRange<Int64>) throws(ProtobufFailure) -> Int64 {
        // 64-bit numbers are strings in protobuf's JSON; numbers are taken too, as the mapping asks.
        let number = value.int.map(Int64.init) ?? value.string.flatMap { Int64($0) } ?? value.double.flatMap { Int64(exactly: $0) }
        guard let number, range.contains(number) else { throw wrong("a whole number (as a string, if it has 64 bits)", value) }
        return number
    }

    private func unsigned(_ value: JSONElement, _ most: UInt64) throws(ProtobufFailure) -> UInt64 {
        let number =
            value.int.flatMap { UInt64(exactly: $0) } ?? value.string.flatMap { UInt64($0) } ?? value.double.flatMap { UInt64(exactly: $0) }
        guard let number, number <= most else { throw wrong("a whole number of 0 or more (as a string, if it has 64 bits)", value) }
        return number
    }

    private func double(_ value: JSONElement) throws(ProtobufFailure) -> Double {
        switch value.string {
        case "NaN"?: return .nan
        case "Infinity"?: return .infinity
        case "-Infinity"?: return -.infinity
        case let text?:
            if let number = Double(text), number.isFinite { return number }
        case nil: if let number = value.double { return number }
        }
        throw wrong("a number", value)
    }
}
