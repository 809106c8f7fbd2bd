import Basics

/// How grave a record is; the words of OpenTelemetry's severity ranges.
public enum Severity: String, Sendable, CaseIterable, Comparable {
    case trace = "TRACE", debug = "DEBUG", info = "INFO", warn = "WARN", error = "ERROR", fatal = "FATAL"

    public static func < (a: Self, b: Self) -> Bool { a.rank < b.rank }

    var rank: Int { Severity.allCases.firstIndex(of: self)! }

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

    /// OpenTelemetry's number: four a range from 1 to 24. Without one the text decides, and without that it is INFO.
    init(number: Int, text: UnsafeRawBufferPointer) {
        self = (1...24).contains(number) ? Severity.allCases[(number - 1) / 4] : Severity(text: text) ?? .info
    }

    /// The first number of the range.
    var number: Int { rank * 4 + 1 }
}
