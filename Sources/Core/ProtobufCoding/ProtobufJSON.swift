import Basics
import JSONCoding

extension ProtobufSchema {
    /// Writes the protobuf form of a message from its JSON form. Members that the schema does not know are passed over, as the
    /// JSON mapping asks; a wrong value is told with its path.
    public func encode(_ json: JSONElement, as message: Int, path: String = "") throws(ProtobufFailure) -> [UInt8] {
        var out = ProtobufWriter()
        guard json.kind == .object else { throw wrong(path.isEmpty ? "the body" : path, "an object", json) }
        for field in messages[message].fields {
            guard let value = json[field.name], !value.isNull else { continue }
            let place = path.isEmpty ? "\(field.name)" : "\(path).\(field.name)"
            if field.repeated {
                guard let list = value.array else { throw wrong(place, "an array", value) }
                for (i, element) in list.enumerated() { try put(element, field, "\(place)[\(i)]", &out) }
            } else {
                try put(value, field, place, &out)
            }
        }
        return out.bytes
    }

    private func wrong(_ place: String, _ wanted: String, _ value: JSONElement) -> ProtobufFailure {
        ProtobufFailure("\(place) must be \(wanted), not \(value.kind.article)")
    }

    private func put(_ value: JSONElement, _ field: Field, _ place: String, _ out: inout ProtobufWriter) throws(ProtobufFailure) {
        switch field.kind {
        case .message(let index): out.bytes(field.number, try encode(value, as: index, path: place))
        case .string:
            guard let text = value.stringBytes else { throw wrong(place, "a string", value) }
            out.bytes(field.number, text)
        case .hex:
            guard let text = value.stringBytes, let bytes = decodeHex(text) else {
                throw wrong(place, "a string of hexadecimal digits", value)
            }
            if !bytes.isEmpty { out.bytes(field.number, bytes) }
        case .bytes:
            guard let text = value.stringBytes, let bytes = decodeBase64(text) else { throw wrong(place, "a string of base64", value) }
            out.bytes(field.number, bytes)
        case .bool:
            guard let flag = value.bool else { throw wrong(place, "true or false", value) }
            out.varint(field.number, flag ? 1 : 0)
        case .int32, .int64, .enumeration:
            let number = try integer(value, place, field.kind == .int64 ? Int64.min...Int64.max : Int64(Int32.min)...Int64(Int32.max))
            out.varint(field.number, UInt64(bitPattern: number))
        case .uint32: out.varint(field.number, try unsigned(value, place, UInt64(UInt32.max)))
        case .fixed32: out.fixed32(field.number, UInt32(try unsigned(value, place, UInt64(UInt32.max))))
        case .fixed64: out.fixed64(field.number, try unsigned(value, place, .max))
        case .double: out.fixed64(field.number, try double(value, place).bitPattern)
        }
    }

    private func integer(_ value: JSONElement, _ place: String, _ range: ClosedRange<Int64>) throws(ProtobufFailure) -> Int64 {
        // 64-bit numbers are strings in protobuf's JSON; numbers are taken too, as the mapping asks.
        let number = value.int.map(Int64.init) ?? value.string.flatMap { Int64($0) } ?? value.double.flatMap { Int64(exactly: $0) }
        guard let number, range.contains(number) else { throw wrong(place, "a whole number (as a string, if it has 64 bits)", value) }
        return number
    }

    private func unsigned(_ value: JSONElement, _ place: String, _ most: UInt64) throws(ProtobufFailure) -> UInt64 {
        let number =
            value.int.flatMap { UInt64(exactly: $0) } ?? value.string.flatMap { UInt64($0) } ?? value.double.flatMap { UInt64(exactly: $0) }
        guard let number, number <= most else { throw wrong(place, "a whole number of 0 or more (as a string, if it has 64 bits)", value) }
        return number
    }

    private func double(_ value: JSONElement, _ place: String) throws(ProtobufFailure) -> Double {
        switch value.string {
        case "NaN"?: return .nan
        case "Infinity"?: return .infinity
        case "-Infinity"?: return -.infinity
        case let text?:
            if let number = Double(text), number.isFinite { return number }
        case nil: if let number = value.double { return number }
        }
        throw wrong(place, "a number", value)
    }
}
