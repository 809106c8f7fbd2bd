import Basics
import JSONCoding
import Synchronization

/// A structured log: the message is a fixed word, everything else is a field.
///
/// Text form `INFO  | redis_connected | url=redis://127.0.0.1:6379`, or a JSON object a line. Lines are collected and handed to a `LogSink`
/// when `flush` is called (a loop does that at the end of its turn) or when 32 KiB have gathered. Nobody waits for the log: lines that its
/// reader does not take are dropped and counted, and the log tells of them once it is read again.
public final class Logger: Sendable {
    public enum Level: Int, Sendable, Comparable, CaseIterable {
        case debug, info, warning, error
        public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }

        /// Reads the name of a level: `debug`, `info`, `warn` or `warning`, `error`, in any case.
        public init?(name: String) {
            switch name.lowercased() {
            case "debug": self = .debug
            case "info": self = .info
            case "warn", "warning": self = .warning
            case "error": self = .error
            default: return nil
            }
        }

        var word: String {
            switch self {
            case .debug: "DEBUG"
            case .info: "INFO"
            case .warning: "WARN"
            case .error: "ERROR"
            }
        }
    }

    public enum Format: String, Sendable { case text, json }

    public struct Field {
        let name: StaticString
        let value: String
        public init(_ name: StaticString, _ value: some CustomStringConvertible) {
            self.name = name
            self.value = value.description
        }
    }

    public let level: Level
    private let format: Format
    private let sink: LogSink
    private let immediate: Bool
    private let pending = Mutex(Pending())

    private struct Pending {
        var bytes: [UInt8] = []
        var lines = 0
    }

    /// With `immediate` each line is handed on at once: for programs without a loop that flushes.
    public init(level: Level, format: Format, descriptor: Int32 = 1, immediate: Bool = false) {
        self.level = level
        self.format = format
        self.immediate = immediate
        sink = LogSink(descriptor: descriptor) { sink, trouble in
            // That it has begun could be told nowhere but here.
            guard case .ended(let lines) = trouble else { return }
            Logger.line(.warning, "log_lines_dropped", [.init("lines", lines)], format).withUnsafeBytes { sink.write($0, lines: 1) }
        }
    }

    public func debug(_ event: StaticString, _ fields: Field...) { if level <= .debug { write(.debug, event, fields) } }
    public func info(_ event: StaticString, _ fields: Field...) { if level <= .info { write(.info, event, fields) } }
    public func warning(_ event: StaticString, _ fields: Field...) { if level <= .warning { write(.warning, event, fields) } }
    public func error(_ event: StaticString, _ fields: Field...) { write(.error, event, fields) }

    /// The number of lines that could not be written, since the beginning.
    public var dropped: Int { sink.dropped }

    private func write(_ level: Level, _ event: StaticString, _ fields: [Field]) {
        let line = Logger.line(level, event, fields, format)
        let full = pending.withLock { pending in
            pending.bytes.append(contentsOf: line)
            pending.lines += 1
            return immediate || pending.bytes.count > 32768
        }
        if full { flush() }
    }

    private static func line(_ level: Level, _ event: StaticString, _ fields: [Field], _ format: Format) -> [UInt8] {
        var line: [UInt8] = []
        line.reserveCapacity(160)
        switch format {
        case .text:
            line.append(contentsOf: level.word.utf8)
            for _ in level.word.utf8.count..<5 { line.append(32) }
            line.append(contentsOf: " | ".utf8)
            event.withUTF8Buffer { line.append(contentsOf: $0) }
            for (i, field) in fields.enumerated() {
                line.append(contentsOf: (i == 0 ? " | " : " ").utf8)
                field.name.withUTF8Buffer { line.append(contentsOf: $0) }
                line.append(61)
                Logger.appendText(field.value, to: &line)
            }
        case .json:
            var json = JSONWriter()
            json.beginObject()
            json.member("time", CalendarTime.render(.now))
            json.member("level", level.word.lowercased())
            json.member("event", event.description)
            for field in fields { json.member(field.name.description, field.value) }
            json.endObject()
            line = json.bytes
        }
        line.append(10)
        return line
    }

    /// Control characters would let a value from outside forge a line; they are written as `\xNN`. A value
    /// with spaces is quoted.
    private static func appendText(_ value: String, to line: inout [UInt8]) {
        let quoted = value.utf8.contains { $0 <= 32 || $0 == 34 || $0 == 127 } || value.isEmpty
        if quoted { line.append(34) }
        for byte in value.utf8 {
            switch byte {
            case 0..<32, 127:
                let digits = Array("0123456789abcdef".utf8)
                line.append(contentsOf: [92, 120, digits[Int(byte >> 4)], digits[Int(byte & 15)]])
            case 34, 92: line.append(contentsOf: [92, byte])
            default: line.append(byte)
            }
        }
        if quoted { line.append(34) }
    }

    /// Hands on the lines that have gathered. Does not wait until they are written: `finish` does.
    public func flush() {
        // Under the lock, so that the lines of several threads keep their order.
        pending.withLock { pending in
            if pending.bytes.isEmpty { return }
            pending.bytes.withUnsafeBytes { sink.write($0, lines: pending.lines) }
            pending.bytes.removeAll(keepingCapacity: true)
            pending.lines = 0
        }
    }

    /// Hands on the lines that have gathered, and waits until they are written, but not for a reader that has stopped. The end of a process
    /// does the same.
    public func finish() {
        flush()
        sink.finish()
    }
}

/// A URL with its password replaced by `***`, for logs and tables. The password is found by the same rule by which it is read for logging
/// in (`URLCredentials`). A text that is no URL stays as it is.
public func redacted(url: String) -> String { URLCredentials(url)?.redacted ?? url }
