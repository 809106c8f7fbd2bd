import Basics

/// A moment, in microseconds since 1970 in UTC, as timestamptz has it; of a timestamp without a zone, as if it were in UTC.
public struct PostgresTimestamp: Hashable, Sendable, Comparable, PostgresDecodable, PostgresEncodable {
    public static var wanted: String { "a moment of the years 1 to 9999" }

    public let microseconds: Int64

    public init(microseconds: Int64) { self.microseconds = microseconds }

    public static func < (a: Self, b: Self) -> Bool { a.microseconds < b.microseconds }

    /// The latest and the earliest moment: PostgreSQL's `infinity` and `-infinity`.
    public static let infinity = PostgresTimestamp(microseconds: .max)
    public static let minusInfinity = PostgresTimestamp(microseconds: .min)

    /// PostgreSQL counts from 2000.
    private static let epoch: Int64 = 946_684_800_000_000

    public init?(cell: PostgresCell) {
        guard !cell.isBinary else {
            guard cell.type == PostgresType.timestamptz || cell.type == PostgresType.timestamp, cell.bytes.count == 8,
                let value = cell.integer
            else { return nil }
            if value == .max || value == .min {
                microseconds = value
            } else {
                let (sum, overflow) = value.addingReportingOverflow(PostgresTimestamp.epoch)
                guard !overflow else { return nil }
                microseconds = sum
            }
            return
        }
        guard let text = cell.text, let value = PostgresTimestamp(text) else { return nil }
        self = value
    }

    /// DateStyle ISO, the default: `2026-12-01 11:30:00.123456+05:30`.
    public init?(_ text: String) {
        if text == "infinity" || text == "-infinity" {
            microseconds = text == "infinity" ? .max : .min
            return
        }
        let bytes = Array(text.utf8)
        guard (19...40).contains(bytes.count) else { return nil }
        var at = 19, fraction: Int64 = 0, digits = 0
        if at < bytes.count, bytes[at] == 46 {
            at += 1
            while at < bytes.count, bytes[at] &- 48 < 10, digits < 6 {
                fraction = fraction &* 10 &+ Int64(bytes[at] &- 48)
                digits += 1
                at += 1
            }
            guard digits > 0 else { return nil }
            for _ in digits..<6 { fraction = fraction &* 10 }
        }
        guard let zone = PostgresTimestamp.zone(bytes[at...]),
            let whole = try? CalendarTime.parse(String(decoding: bytes[..<19], as: UTF8.self) + "Z")
        else { return nil }
        microseconds = (whole.milliseconds - zone * 1000) * 1000 + fraction
    }

    /// Seconds east of Greenwich; nil for what is no zone. None at all is UTC.
    private static func zone(_ bytes: ArraySlice<UInt8>) -> Int64? {
        guard let sign = bytes.first else { return 0 }
        guard sign == 43 || sign == 45 else { return nil }
        var seconds: Int64 = 0, unit: Int64 = 3600
        for part in bytes.dropFirst().split(separator: 58, omittingEmptySubsequences: false) {
            guard unit > 0, part.count == 2, let number = Int64(String(decoding: part, as: UTF8.self)), (0..<60).contains(number) else {
                return nil
            }
            seconds.addClamped(number.multipliedClamped(by: unit))
            unit = unit == 1 ? 0 : unit / 60
        }
        return sign == 43 ? seconds : -seconds
    }

    public var postgresValue: PostgresValue {
        if microseconds == .max || microseconds == .min { return .text(microseconds == .max ? "infinity" : "-infinity") }
        // Binary with its type: a text would have to be written in the session's style.
        let value = microseconds.subtractingClamped(PostgresTimestamp.epoch).bigEndian
        return PostgresValue(bytes: withUnsafeBytes(of: value) { Array($0) }, format: 1, type: PostgresType.timestamptz)
    }
}

/// numeric in its binary form.
enum PostgresNumeric {
    /// Most bytes of the text: numeric has at most 131,072 digits before the point and 16,383 behind it.
    private static let limit = 150_000

    /// Every digit that the server has, with as many behind the point as the value's scale says; nil for bytes that are none.
    static func text(_ bytes: UnsafeRawBufferPointer) -> String? {
        func short(_ at: Int) -> Int { Int(Int16(bigEndian: bytes.loadUnaligned(fromByteOffset: at, as: Int16.self))) }
        guard bytes.count >= 8 else { return nil }
        let count = short(0), weight = short(2), sign = UInt16(truncatingIfNeeded: short(4)), scale = short(6)
        switch sign {
        case 0xC000: return "NaN"
        case 0xD000: return "Infinity"
        case 0xF000: return "-Infinity"
        case 0, 0x4000: break
        default: return nil
        }
        guard count >= 0, scale >= 0, scale <= 16_383, bytes.count == 8 + count * 2, (abs(weight) + 2) * 4 + scale < limit else {
            return nil
        }
        var groups: [Int] = []
        for i in 0..<count {
            let group = short(8 + i * 2)
            guard (0...9999).contains(group) else { return nil }
            groups.append(group)
        }
        func group(_ place: Int) -> Int { place >= 0 && place < count ? groups[place] : 0 }
        func four(_ value: Int) -> String { String(String(10_000 + value).dropFirst()) }
        var whole = ""
        if weight >= 0 { for i in 0...weight { whole += i == 0 ? String(group(0)) : four(group(i)) } }
        var out = (sign == 0x4000 ? "-" : "") + (whole.isEmpty ? "0" : whole)
        if scale > 0 {
            var behind = ""
            var place = weight + 1
            // Groups of four zeros stand between the point and the first group of a small number.
            if weight < -1 { behind = String(repeating: "0000", count: -1 - weight) }
            if weight < 0 { place = 0 }
            while behind.utf8.count < scale {
                behind += four(group(place))
                place += 1
            }
            out += "." + behind.prefix(scale)
        }
        return out
    }
}
