import Basics

/// How grave a record is; the words of OpenTelemetry's severity ranges.
public enum Severity: String, Sendable, CaseIterable, Comparable {
    case trace = "TRACE", debug = "DEBUG", info = "INFO", warn = "WARN", error = "ERROR", fatal = "FATAL"

    public static func < (a: Self, b: Self) -> Bool { a.rank < b.rank }

    var rank: Int { Severity.allCases.firstIndex(of: self)! }

    /// Longest text that is looked at.
    static let textLimit = 32

    /// A logger's word or number, in any case: see `words`. Brackets, a colon and blanks around it are passed over, as is what some write
    /// before or after the word (`LogLevel.Trace`, `INFO2`, `INFO+2`, `DEBUG-4`). nil when it is none of them.
    init?(text: UnsafeRawBufferPointer) {
        guard text.count <= Severity.textLimit else { return nil }
        // Only letters and digits count; whoever writes `log level: error` writes something else.
        var word: [UInt8] = []
        var isOver = false
        for byte in text {
            let upper = byte &- 97 < 26 ? byte & 0xDF : byte
            let isPart = upper &- 65 < 26 || upper &- 48 < 10 || byte == 95 || byte == 45 || byte == 43
            if !isPart, word.isEmpty, [32, 9, 40, 60, 91].contains(byte) { continue }
            if !isPart, [32, 9, 41, 62, 93, 58].contains(byte) {
                isOver = true
                continue
            }
            if byte == 46, !isOver {
                word = []
                continue
            }
            guard isPart, !isOver else { return nil }
            word.append(upper)
        }
        let whole = String(decoding: word, as: UTF8.self)
        if let known = Severity.words[whole] {
            self = known
        } else if let number = UInt16(whole), let known = Severity.numbers[number] {
            self = known
        } else {
            // A number behind the word, with a sign or without, is a step within its range.
            while let last = word.last, last &- 48 < 10 { word.removeLast() }
            if word.last == 43 || word.last == 45 { word.removeLast() }
            let base = String(decoding: word, as: UTF8.self)
            guard word.count > 1, word.count < whole.utf8.count, let known = Severity.words[base] else { return nil }
            self = known
        }
    }

    /// OpenTelemetry's number: four a range from 1 to 24. Without one the text decides, and without that it is INFO.
    init(number: Int, text: UnsafeRawBufferPointer) {
        self = (1...24).contains(number) ? Severity.allCases[(number - 1) / 4] : Severity(text: text) ?? .info
    }

    /// The first number of the range.
    var number: Int { rank * 4 + 1 }

    /// Sources: the table of the OpenTelemetry logs data model (appendix B: syslog, Windows events, Log4j, Zap, java.util.logging, .NET) and
    /// its short names; and the lists of the loggers named beside each line. Where a word is an error to one and an end to another
    /// (`CRITICAL`, `ALERT`, `PANIC`), it is the graver of the two.
    private static let words: [String: Severity] = {
        let lists: [(Severity, String)] = [
            // Log4j, Zap, OpenTelemetry; java.util.logging; npm and winston; glog and Android; Serilog and .NET's console, short.
            (.trace, "TRACE FINEST ALL SILLY T VRB TRCE TRC"),
            // syslog; java.util.logging; Windows events, Serilog, npm, Android; short forms.
            (.debug, "DEBUG FINER FINE CONFIG VERBOSE D V DBG DBUG DEBUGGING STATEMENT DETAIL"),
            // syslog, Windows events, .NET; npm; PostgreSQL, MySQL; Windows audits; what says that nothing is said (Python, Google).
            (.info, "INFO INFORMATION INFORMATIONAL NOTICE NOTE HINT I N INF HTTP LOG SYSTEM MESSAGE SUCCESS AUDIT_SUCCESS"),
            (.info, "UNSPECIFIED UNSET NOTSET DEFAULT NONE UNKNOWN ANY"),
            (.warn, "WARN WARNING W WRN WARNINGS"),
            // syslog; java.util.logging; .NET's console; Windows audits; Zap.
            (.error, "ERROR ERR E SEVERE FAIL FAILURE AUDIT_FAILURE DPANIC ERRO EROR ERRORS"),
            // syslog; logrus, PostgreSQL; Python; Serilog and .NET short; Android.
            (.fatal, "FATAL CRITICAL CRIT EMERGENCY EMERG ALERT PANIC F C A FTL ASSERT WTF CATASTROPHE OFF"),
        ]
        var words: [String: Severity] = [:]
        for (severity, list) in lists { for word in list.split(separator: " ") { words[String(word)] = severity } }
        // OpenTelemetry's own, as its enumeration has them.
        for severity in Severity.allCases { words["SEVERITY_NUMBER_" + severity.rawValue] = severity }
        words["SEVERITY_NUMBER_UNSPECIFIED"] = .info
        return words
    }()

    /// Numbers written as text. Tens from 10 to 60 are bunyan's and pino's (which write numbers and no words), hundreds those of
    /// java.util.logging, thousands those of Log4j and Logback; any other from 1 to 24 is OpenTelemetry's own.
    private static let numbers: [UInt16: Severity] = {
        var numbers: [UInt16: Severity] = [0: .info]
        for number in 1...24 { numbers[UInt16(number)] = Severity.allCases[(number - 1) / 4] }
        for (i, severity) in Severity.allCases.enumerated() { numbers[UInt16(i + 1) * 10] = severity }
        for (number, severity) in [(300, trace), (400, debug), (500, debug), (700, debug), (800, info), (900, warn), (1000, error)] {
            numbers[UInt16(number)] = severity
        }
        for (i, severity) in Severity.allCases.enumerated() { numbers[UInt16(max(i * 10_000, 5000))] = severity }
        return numbers
    }()
}
