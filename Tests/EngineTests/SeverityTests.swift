import Testing

@testable import CorrelationEngine

@Suite struct SeverityTests {
    private func read(_ text: String) -> Severity? { Array(text.utf8).withUnsafeBytes { Severity(text: $0) } }

    /// The table of the specification's appendix B, and the loggers' own lists.
    static let words: [(Severity, [String])] = [
        (.trace, ["TRACE", "trace2", "TRACE4", "FINEST", "LogLevel.Trace", "silly", "trce", "VRB"]),
        (.debug, ["Debug", "Verbose", "FINER", "fine", "CONFIG", "DEBUG3", "dbug", "DBG", "debug5", "DEBUG-4", "[debug]"]),
        (
            .info,
            [
                "Informational", "Information", "INFO", "Notice", "INFO2", "info:", "INF", "INFO+2", "LOG", "http", "NOTSET", "DEFAULT",
                "SEVERITY_NUMBER_UNSPECIFIED",
            ]
        ),
        (.warn, ["Warning", "WARN", "warn3", "WRN", "W", "LogLevel.Warning", "SEVERITY_NUMBER_WARN2", " warn "]),
        (.error, ["Error", "err", "SEVERE", "ERROR4", "fail", "E", "java.util.logging.Level.SEVERE", "ERROR-1", "(error)", "DPanic"]),
        (.fatal, ["FATAL", "Critical", "crit", "Alert", "Emergency", "emerg", "Panic", "FTL", "F", "FATAL4", "LogLevel.Critical"]),
    ]

    @Test func loggersWordsAreRead() {
        for (severity, words) in Self.words {
            for word in words { #expect(read(word) == severity, "\(word)") }
        }
    }

    @Test func numbersOfLoggersThatWriteNumbers() {
        let numbers: [(String, Severity)] = [
            ("10", .trace), ("20", .debug), ("30", .info), ("40", .warn), ("50", .error), ("60", .fatal), ("1", .trace), ("5", .debug),
            ("9", .info), ("13", .warn), ("17", .error), ("21", .fatal), ("0", .info), ("1000", .error), ("900", .warn), ("800", .info),
            ("500", .debug), ("300", .trace), ("40000", .error), ("5000", .trace),
        ]
        for (text, severity) in numbers { #expect(read(text) == severity, "\(text)") }
    }

    @Test func whatIsNoSeverityIsNone() {
        for text in ["", "LOUD", "an error", "99", "99999999999999999999", "-", "error error", "ERR0R!", String(repeating: "E", count: 40)]
        {
            #expect(read(text) == nil, "\(text)")
        }
        // OTLP: the number counts where there is one; else the text; else it is INFO.
        Array("SEVERE".utf8).withUnsafeBytes {
            #expect(Severity(number: 0, text: $0) == .error && Severity(number: 5, text: $0) == .debug)
            #expect(Severity(number: -1, text: $0) == .error && Severity(number: .max, text: $0) == .error)
        }
    }
}
