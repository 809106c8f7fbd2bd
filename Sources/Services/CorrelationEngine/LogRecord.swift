import Basics
import COpenSSL
import JSONCoding

/// How grave a record is; the words of OpenTelemetry's severity ranges.
public enum Severity: String, Sendable, CaseIterable, Comparable {
    case trace = "TRACE", debug = "DEBUG", info = "INFO", warn = "WARN", error = "ERROR", fatal = "FATAL"

    public static func < (a: Self, b: Self) -> Bool { allCases.firstIndex(of: a)! < allCases.firstIndex(of: b)! }

    /// The six words and the usual other names for them, in any case.
    init?(text: UnsafeRawBufferPointer) {
        guard text.count <= 13 else { return nil }
        switch text.string.uppercased() {
        case "TRACE": self = .trace
        case "DEBUG": self = .debug
        case "INFO", "INFORMATION", "NOTICE": self = .info
        case "WARN", "WARNING": self = .warn
        case "ERROR", "ERR": self = .error
        case "FATAL", "CRITICAL", "EMERGENCY", "ALERT": self = .fatal
        default: return nil
        }
    }
}

/// One accepted record.
public struct LogRecord: Sendable, Equatable {
    /// What makes it the same record when it is delivered again: its own id, or its content; 22 characters.
    public let fingerprint: String
    public let time: WallTime
    public let severity: Severity
    /// As it stands in the correlation's `logs`.
    public let json: [UInt8]
}

/// Records of one request that belong to one correlation.
public struct RecordGroup: Sendable, Equatable {
    public let key: CorrelationKey
    public let service: String
    public let host: String
    public internal(set) var records: [LogRecord]
}

/// What joins records: a trace, or else service, host and a window of time.
public enum CorrelationKey: Hashable, Sendable {
    case trace(String)
    /// `start` in milliseconds since 1970.
    case window(service: String, host: String, start: Int64)

    /// The correlation's id: `t-<trace id>`, or `w-<digest>`. The prefixes keep ids apart from `time_index` and `trace:…`,
    /// which share their key prefix.
    public var id: String {
        switch self {
        case .trace(let trace): "t-" + trace
        case .window(let service, let host, let start): "w-" + digest([service, host, String(start)])
        }
    }

    public var traceID: String? { if case .trace(let trace) = self { trace } else { nil } }
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
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".utf8)
    var out: [UInt8] = []
    out.reserveCapacity(22)
    var bits: UInt32 = 0, have = 0
    for byte in hash[..<16] {
        bits = bits << 8 | UInt32(byte)
        have += 8
        while have >= 6 {
            have -= 6
            out.append(alphabet[Int(bits >> UInt32(have) & 63)])
        }
    }
    out.append(alphabet[Int(bits << UInt32(6 - have) & 63)])
    return String(decoding: out, as: UTF8.self)
}
