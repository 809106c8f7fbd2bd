import Basics
import COpenSSL
import ProtobufCoding

/// What joins records: a trace, or else service, host and a window of time.
public enum CorrelationKey: Hashable, Sendable {
    /// A trace id of W3C's form: 16 bytes, big-endian.
    case w3c(UInt64, UInt64)
    /// Any other trace id that was accepted.
    case named(String)
    /// The digest of service, host and window.
    case window(String)

    /// A trace id as text; 32 hex digits are W3C's form, in either case.
    public static func trace(_ text: String) -> CorrelationKey {
        var copy = text
        return copy.withUTF8 { digits -> CorrelationKey? in
            guard digits.count == 32, let bytes = decodeHex(UnsafeRawBufferPointer(digits)) else { return nil }
            return bytes.withUnsafeBytes { CorrelationKey(traceID: $0) }
        } ?? .named(text)
    }

    /// `bytes` has 16.
    init(traceID bytes: UnsafeRawBufferPointer) {
        self = .w3c(
            UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 0, as: UInt64.self)),
            UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
    }

    /// `start` in milliseconds since 1970.
    static func window(service: String, host: String, start: Int64) -> CorrelationKey { .window(digest([service, host, String(start)])) }

    /// The correlation's id: `t-<trace id>`, or `w-<digest>`. The prefixes keep ids apart from `time_index` and `trace:…`,
    /// which share their key prefix.
    public var id: String {
        switch self {
        case .w3c(let high, let low): "t-" + CorrelationKey.hex(high, low)
        case .named(let name): "t-" + name
        case .window(let digest): "w-" + digest
        }
    }

    /// The key of an id; nil when it is none.
    init?(id: String) {
        guard id.utf8.count <= 200 else { return nil }
        if id.hasPrefix("t-") {
            self = .trace(String(id.dropFirst(2)))
        } else if id.hasPrefix("w-") {
            self = .window(String(id.dropFirst(2)))
        } else {
            return nil
        }
    }

    public var traceID: String? { if case .window = self { nil } else { String(id.dropFirst(2)) } }

    private static func hex(_ high: UInt64, _ low: UInt64) -> String {
        withUnsafeBytes(of: (high.bigEndian, low.bigEndian)) { hexText($0) }
    }
}

/// SHA-256 over the parts with their lengths (so that no two lists of parts look alike), cut to 128 bits, as 22 characters
/// of base64url.
func digest(_ parts: [String]) -> String {
    var input: [UInt8] = []
    for part in parts {
        input.append(contentsOf: String(part.utf8.count).utf8)
        input.append(58)
        input.append(contentsOf: part.utf8)
    }
    var hash = [UInt8](repeating: 0, count: 32)
    _ = SHA256(input, input.count, &hash)
    let text = hash[..<16].withUnsafeBytes { encodeBase64($0) }
    return String(text.prefix(22)).replacing("+", with: "-").replacing("/", with: "_")
}
