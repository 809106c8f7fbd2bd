import Basics

/// Reads `time,service,metric,value` with `replica` where it is known, columns in any order, from bytes that come in pieces.
///
/// A time is RFC 3339 or a unix time in seconds (fractions allowed) or, from 100,000,000,000 on, in milliseconds. A value is a decimal
/// number; an empty one, NaN and the infinities count as left out. Anything else is refused with its line.
public struct CSVRecording: Sendable {
    private enum Column: String, CaseIterable { case time, service, metric, value, replica }

    private var scanner = CSVScanner()
    private var recording = Recording()
    /// Where each column stands, in the order of `Column.allCases`; nil before the header.
    private var places: [Int?]?
    private var width = 0
    private var bytesRead = 0
    private var key: [UInt8] = []

    /// The most bytes of a recording; a larger one is refused.
    public static let byteLimit = 512 << 20
    /// From here on a unix time is one of milliseconds: as seconds it would be the year 5138.
    private static let millisecondsFrom = 1e11

    public init() {}

    public mutating func feed(_ bytes: UnsafeRawBufferPointer) throws(ReplayFailure) {
        bytesRead += bytes.count
        guard bytesRead <= CSVRecording.byteLimit else {
            throw ReplayFailure(
                .tooLarge, "the recording has more than \(CSVRecording.byteLimit >> 20) MiB: replay a shorter time, or record more seldom")
        }
        var scanner = scanner
        self.scanner = CSVScanner()
        try scanner.feed(bytes) { row throws(ReplayFailure) in try take(row) }
        self.scanner = scanner
    }

    /// The recording that was read. A recording without a single row is refused.
    public mutating func finish() throws(ReplayFailure) -> Recording {
        var scanner = scanner
        try scanner.finish { row throws(ReplayFailure) in try take(row) }
        guard places != nil else {
            throw ReplayFailure(.malformed, line: 1, "the recording is empty: its first line names the columns, time,service,metric,value")
        }
        guard !recording.series.isEmpty else { throw ReplayFailure(.nothingToReplay, line: 2, "no row follows the names of the columns") }
        return recording
    }

    private mutating func take(_ row: CSVScanner.Row) throws(ReplayFailure) {
        guard let places else { return try readHeader(row) }
        guard row.ends.count == width else {
            throw ReplayFailure(.malformed, line: row.line, "\(row.ends.count) fields, and the first line names \(width) columns")
        }
        let at = try time(row.field(places[0]!), row.line)
        let value = try value(row.field(places[3]!), row.line)
        let service = row.field(places[1]!), metric = row.field(places[2]!), replica = places[4].map { row.field($0) }
        guard !service.isEmpty, !metric.isEmpty else {
            throw ReplayFailure(.malformed, line: row.line, "the \(service.isEmpty ? "service" : "metric") is empty")
        }
        key.removeAll(keepingCapacity: true)
        key.append(contentsOf: service)
        key.append(0)
        key.append(contentsOf: metric)
        key.append(0)
        if let replica { key.append(contentsOf: replica) }
        let index = try recording.index(key) {
            Recording.series(
                String(decoding: service, as: UTF8.self), String(decoding: metric, as: UTF8.self), hasReplica: !(replica?.isEmpty ?? true))
        }
        try recording.add(to: index, at, value, row.line)
    }

    private mutating func readHeader(_ row: CSVScanner.Row) throws(ReplayFailure) {
        let known = Column.allCases.map(\.rawValue)
        var found = [Int?](repeating: nil, count: known.count)
        for index in row.ends.indices {
            let name = String(decoding: row.field(index), as: UTF8.self).lowercased()
            guard let column = known.firstIndex(of: name) else {
                let hint =
                    nearestWord(to: name, in: known).map { "; did you mean '\($0)'?" }
                    ?? "; the columns are \(known.joined(separator: ", "))"
                throw ReplayFailure(.malformed, line: row.line, "'\(name.prefix(60))' is no column of a recording\(hint)")
            }
            guard found[column] == nil else { throw ReplayFailure(.malformed, line: row.line, "the column '\(name)' is named twice") }
            found[column] = index
        }
        if let missing = known.indices.first(where: { found[$0] == nil && known[$0] != Column.replica.rawValue }) {
            throw ReplayFailure(
                .malformed, line: row.line, "the column '\(known[missing])' is missing: the first line names time,service,metric,value")
        }
        places = found
        width = row.ends.count
    }

    private mutating func time(_ text: UnsafeRawBufferPointer, _ line: Int) throws(ReplayFailure) -> Int64 {
        if text.count > 10, text[4] == 45 {
            do throws(CalendarTime.Failure) { return try CalendarTime.parse(text).milliseconds } catch {
                let why = error == .outOfRange ? "is no time of the calendar" : "is no time as RFC 3339 writes it (2026-11-21T08:00:00Z)"
                throw ReplayFailure(.malformed, line: line, "'\(shown(text))' \(why)")
            }
        }
        guard let seconds = parse(text), seconds >= 0 else {
            throw ReplayFailure(
                .malformed, line: line, "'\(shown(text))' is no time: write 2026-11-21T08:00:00Z, or seconds or milliseconds since 1970")
        }
        let exact = seconds >= CSVRecording.millisecondsFrom ? seconds : seconds * 1000
        guard let milliseconds = Int64(exactly: exact.rounded()), milliseconds <= Recording.latest else {
            throw ReplayFailure(
                .malformed, line: line,
                "the time '\(shown(text))' lies after the year 9999: seconds and milliseconds since 1970 are read, no microseconds or "
                    + "nanoseconds")
        }
        return milliseconds
    }

    private mutating func value(_ text: UnsafeRawBufferPointer, _ line: Int) throws(ReplayFailure) -> Double {
        if text.isEmpty { return .nan }
        guard let value = parse(text) else { throw ReplayFailure(.malformed, line: line, "'\(shown(text))' is no number") }
        return value
    }

    /// A decimal number. The short plain ones, which are nearly all, are read here; the others by the standard library.
    private mutating func parse(_ text: UnsafeRawBufferPointer) -> Double? {
        if let plain = CSVRecording.plain(text) { return plain }
        // Hexadecimal floats and names like 0x1p3 are no figures that anything records.
        guard text.count <= 64, !text.contains(120), !text.contains(88) else { return nil }
        return Double(String(decoding: text, as: UTF8.self))
    }

    /// A short number of digits alone, with a point among them or without; nil for any other text.
    private static func plain(_ text: UnsafeRawBufferPointer) -> Double? {
        // Of 16 digits and no more the sum below cannot grow beyond its type.
        guard (1...16).contains(text.count), text[0] != 46, text[text.count - 1] != 46 else { return nil }
        var digits: UInt64 = 0, isFraction = false
        var scale = 1.0
        for byte in text {
            if byte &- 48 < 10 {
                digits = digits &* 10 &+ UInt64(byte &- 48)
                if isFraction { scale *= 10 }
            } else if byte == 46, !isFraction {
                isFraction = true
            } else {
                return nil
            }
        }
        // Fewer than 16 digits over a power of ten below 1e16: both are exact, and so their quotient is rounded once.
        return digits < 1 << 53 ? Double(digits) / scale : nil
    }

    private func shown(_ text: UnsafeRawBufferPointer) -> String { String(String(decoding: text.prefix(40), as: UTF8.self)) }
}
