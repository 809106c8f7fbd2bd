import JSONCoding
import ProtobufCoding

extension OTLP {
    /// The protobuf form of a request in OTLP's JSON form. Fails whole where anything in it is wrong; to read what is right in a request, use
    /// `visit(json:…)`.
    public static func protobuf(_ json: [UInt8], _ signal: Signal, _ document: JSONDocument) throws(ProtobufFailure) -> [UInt8] {
        do { return try document.parse(json) { try schema.encode($0, as: signal.request) } } catch let failure as ProtobufFailure {
            throw failure
        } catch {
            throw ProtobufFailure("the body is not valid JSON: \(error)")
        }
    }

    // MARK: answers

    /// `Export…ServiceResponse`: with a partial success when records were rejected (or a warning when none was).
    public static func response(rejected: Int, message: String, _ signal: Signal, json: Bool) -> [UInt8] {
        if json {
            var out = JSONWriter()
            out.beginObject()
            if rejected > 0 || !message.isEmpty {
                out.key("partialSuccess")
                out.beginObject()
                if rejected > 0 { out.member(signal == .traces ? "rejectedSpans" : "rejectedLogRecords", String(rejected)) }
                if !message.isEmpty { out.member("errorMessage", message) }
                out.endObject()
            }
            out.endObject()
            return out.bytes
        }
        var out = ProtobufWriter()
        if rejected > 0 || !message.isEmpty {
            out.message(1) { partial in
                if rejected > 0 { partial.varint(1, UInt64(rejected)) }
                if !message.isEmpty { partial.string(2, message) }
            }
        }
        return out.bytes
    }

    /// `google.rpc.Status`, which OTLP has as the body of every failure. `code` is gRPC's.
    public static func status(code: Int, message: String, json: Bool) -> [UInt8] {
        if json {
            var out = JSONWriter()
            out.beginObject()
            out.member("code", code)
            out.member("message", message)
            out.endObject()
            return out.bytes
        }
        var out = ProtobufWriter()
        out.varint(1, UInt64(code))
        out.string(2, message)
        return out.bytes
    }
}
