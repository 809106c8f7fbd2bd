import Basics

/// One sample of a metrics page.
public struct ExpositionSample: Sendable, Equatable {
    /// A label, unescaped.
    public struct Label: Sendable, Equatable {
        /// The bytes of the label's name.
        public let name: [UInt8]
        /// The bytes of the label's value.
        public let value: [UInt8]
    }

    /// The sample's value as it was written; it may be NaN or infinite.
    public let value: Double
    /// The labels, in the order of the page.
    public let labels: [Label]
    /// The time of the measurement; nil when the page gives none.
    public var time: WallTime?

    /// A label's text; nil when the sample has none of this name. Bytes that are no UTF-8 become U+FFFD.
    public subscript(name: String) -> String? {
        labels.first { $0.name.elementsEqual(name.utf8) }.map { String(decoding: $0.value, as: UTF8.self) }
    }

    /// Compares two readings of a page. NaN is equal to NaN here.
    public static func == (a: Self, b: Self) -> Bool { a.labels == b.labels && (a.value == b.value || a.value.isNaN && b.value.isNaN) }
}

/// The grammar of one line of Prometheus' text format 0.0.4, with what OpenMetrics adds to it.
enum ExpositionText {
    /// The most labels of one sample; a sample with more is not well formed. Each label is compared with those before it, so that their
    /// number squared is work. Prometheus' own exporters write up to about twenty.
    static let labelLimit = 128

    /// `[a-zA-Z_][a-zA-Z0-9_]*`; a metric's name may have colons, too.
    static func isName(_ byte: UInt8, first: Bool, colons: Bool) -> Bool {
        switch byte {
        case 65...90, 97...122, 95: true
        case 48...57: !first
        case 58: colons
        default: false
        }
    }

    static func isBlank(_ byte: UInt8) -> Bool { byte == 32 || byte == 9 }

    /// What stands behind the name: labels, value, perhaps a time, perhaps an exemplar. nil when it is not well formed.
    static func sample(_ line: UnsafeRawBufferPointer, from: Int, _ format: ExpositionReader.Format) -> ExpositionSample? {
        var at = from
        skipBlanks(line, &at)
        var labels: [ExpositionSample.Label] = []
        if at < line.count, line[at] == 123 {
            guard let read = self.labels(line, &at) else { return nil }
            labels = read
        } else if at == from {
            return nil
        }
        skipBlanks(line, &at)
        guard let value = number(token(line, &at)) else { return nil }
        skipBlanks(line, &at)
        var time: WallTime?
        if at < line.count, line[at] != 35 {
            guard let moment = number(token(line, &at)), moment.isFinite else { return nil }
            // A time beyond 64 bits of milliseconds is as far away as can be said.
            time = WallTime(milliseconds: Int64(clamped: format == .openMetrics ? moment * 1000 : moment))
            skipBlanks(line, &at)
        }
        // An exemplar begins with a # and is not looked at.
        guard at == line.count || line[at] == 35 else { return nil }
        return ExpositionSample(value: value, labels: labels, time: time)
    }

    private static func skipBlanks(_ line: UnsafeRawBufferPointer, _ at: inout Int) { while at < line.count, isBlank(line[at]) { at += 1 } }

    private static func token(_ line: UnsafeRawBufferPointer, _ at: inout Int) -> UnsafeRawBufferPointer {
        let start = at
        while at < line.count, !isBlank(line[at]) { at += 1 }
        return line.part(start, at - start)
    }

    /// As Go's ParseFloat reads it, without its underscores. At most 64 bytes: the longest double has 24.
    static func number(_ token: UnsafeRawBufferPointer) -> Double? {
        guard !token.isEmpty, token.count <= 64 else { return nil }
        for byte in token {
            switch byte {
            case 48...57, 65...90, 97...122, 43, 45, 46: continue
            default: return nil
            }
        }
        return Double(token.string)
    }

    private static func labels(_ line: UnsafeRawBufferPointer, _ at: inout Int) -> [ExpositionSample.Label]? {
        at += 1
        var labels: [ExpositionSample.Label] = []
        skipBlanks(line, &at)
        while at < line.count, line[at] != 125 {
            guard labels.count < labelLimit else { return nil }
            let start = at
            while at < line.count, isName(line[at], first: at == start, colons: false) { at += 1 }
            let name = Array(line.part(start, at - start))
            skipBlanks(line, &at)
            guard !name.isEmpty, at < line.count, line[at] == 61 else { return nil }
            at += 1
            skipBlanks(line, &at)
            guard let value = quoted(line, &at), !labels.contains(where: { $0.name == name }) else { return nil }
            labels.append(ExpositionSample.Label(name: name, value: value))
            skipBlanks(line, &at)
            guard at < line.count, line[at] == 44 || line[at] == 125 else { return nil }
            if line[at] == 44 {
                at += 1
                skipBlanks(line, &at)
            }
        }
        guard at < line.count else { return nil }
        at += 1
        return labels
    }

    /// An escape that the format does not know stays as it is written.
    private static func quoted(_ line: UnsafeRawBufferPointer, _ at: inout Int) -> [UInt8]? {
        guard at < line.count, line[at] == 34 else { return nil }
        at += 1
        var value: [UInt8] = []
        while at < line.count {
            let byte = line[at]
            at += 1
            if byte == 34 { return value }
            guard byte == 92, at < line.count else {
                value.append(byte)
                continue
            }
            switch line[at] {
            case 110: value.append(10)
            case 34, 92: value.append(line[at])
            default: value += [92, line[at]]
            }
            at += 1
        }
        return nil
    }
}
