import Basics
import HTTP

/// What the gateway knows of gRPC over HTTP/2 (its PROTOCOL-HTTP2.md): a call's deadline, and the form of an answer without a replica's part
/// in it. A client of gRPC reads only `grpc-status`: a page of HTML, or JSON, with 503 would be "unknown" to it.
enum GRPC {
    /// The time in `grpc-timeout`: up to eight digits and a unit; nil: there is none, or it is malformed.
    static func timeout(_ table: HeadTable) -> Duration? {
        guard let value = table.value(Array("grpc-timeout".utf8)), value.count >= 2, value.count <= 9,
            let figure = FieldForm.decimal(value.part(0, value.count - 1)), let unit = value.last
        else { return nil }
        switch unit {
        case UInt8(ascii: "H"): return .seconds(figure.multipliedClamped(by: 3600))
        case UInt8(ascii: "M"): return .seconds(figure.multipliedClamped(by: 60))
        case UInt8(ascii: "S"): return .seconds(figure)
        case UInt8(ascii: "m"): return .milliseconds(figure)
        case UInt8(ascii: "u"): return .microseconds(figure)
        case UInt8(ascii: "n"): return .nanoseconds(figure)
        default: return nil
        }
    }

    /// The code of gRPC that says what a failure is to a caller (its doc/statuscodes.md). 14 may be tried again; 4 is the deadline; 8 a limit; 7
    /// and 16 access; 12 what nobody serves; 3 a request that is wrong in itself.
    static func code(_ failure: GatewayFailure) -> Int {
        switch failure {
        case .noRoute: 12
        case .denied, .addressRefused, .misdirected: 7
        case .unauthorized: 16
        case .rateLimited, .overloaded, .bodyTooLarge: 8
        case .deadline, .responseTimeout: 4
        case .badPath, .noHost, .repeatedField: 3
        case .breakerOpen, .noReplica, .wakingUp, .wakeTimeout, .holdEnded, .unreachable, .shortage, .connectTimeout, .noResponse,
            .brokenResponse, .tlsFailed, .onlyIfCached:
            14
        }
    }

    /// The message of a status, as the field has it: printable ASCII, the rest by percent-escapes.
    static func message(_ text: String) -> String {
        var out = ""
        for byte in text.utf8.prefix(1024) {
            if byte >= 32, byte < 127, byte != 37 {
                out.unicodeScalars.append(Unicode.Scalar(byte))
            } else {
                let digits = String(byte, radix: 16, uppercase: true)
                out += byte < 16 ? "%0\(digits)" : "%\(digits)"
            }
        }
        return out
    }
}
