/// RFC 3339 dates, without Foundation: parsing is strict, rendering is UTC with milliseconds.
///
/// The day count follows the proleptic Gregorian calendar (days-from-civil, H. Hinnant's public algorithm).
public enum CalendarTime {
    /// Why a text is not a time.
    public enum Failure: Error, Equatable {
        case syntax
        case outOfRange
    }

    /// Reads `2026-11-21T03:30:00.123Z` or with an offset `+01:00`. Fractions beyond milliseconds are cut.
    /// A leap second (`:60`) is taken as the second before it, as PostgreSQL and Java do.
    public static func parse(_ text: UnsafeRawBufferPointer) throws(Failure) -> WallTime {
        guard text.count >= 20, text.count <= 40 else { throw .syntax }
        func number(_ at: Int, _ digits: Int) throws(Failure) -> Int64 {
            var value: Int64 = 0
            for i in at..<at + digits {
                let digit = text[i] &- 48
                guard digit < 10 else { throw .syntax }
                value = value * 10 + Int64(digit)
            }
            return value
        }
        let year = try number(0, 4), month = try number(5, 2), day = try number(8, 2)
        let hour = try number(11, 2), minute = try number(14, 2)
        var second = try number(17, 2)
        guard text[4] == 45, text[7] == 45, text[13] == 58, text[16] == 58,
            text[10] == 84 || text[10] == 116 || text[10] == 32
        else { throw .syntax }
        var at = 19
        var milliseconds: Int64 = 0
        if text[at] == 46 {
            at += 1
            var digits = 0
            while at < text.count, text[at] &- 48 < 10 {
                if digits < 3 { milliseconds = milliseconds * 10 + Int64(text[at] &- 48) }
                digits += 1
                at += 1
            }
            guard (1...12).contains(digits) else { throw .syntax }
            for _ in digits..<max(digits, 3) { milliseconds *= 10 }
        }
        guard at < text.count else { throw .syntax }
        var offset: Int64 = 0
        switch text[at] {
        case 90, 122:
            guard at + 1 == text.count else { throw .syntax }
        case 43, 45:
            guard at + 6 == text.count, text[at + 3] == 58 else { throw .syntax }
            let hours = try number(at + 1, 2), minutes = try number(at + 4, 2)
            guard hours < 24, minutes < 60 else { throw .outOfRange }
            offset = (hours * 60 + minutes) * (text[at] == 43 ? 1 : -1)
        default: throw .syntax
        }
        guard (1...12).contains(month), day >= 1, day <= daysIn(month: month, year: year),
            hour < 24, minute < 60, second <= 60
        else { throw .outOfRange }
        if second == 60 { second = 59 }
        let seconds = (days(year, month, day) * 24 + hour) * 3600 + (minute - offset) * 60 + second
        return WallTime(milliseconds: seconds * 1000 + milliseconds)
    }

    public static func parse(_ text: String) throws(Failure) -> WallTime {
        var copy = Array(text.utf8)
        let result: Result<WallTime, Failure> = copy.withUnsafeMutableBytes { bytes in
            do throws(Failure) { return .success(try parse(UnsafeRawBufferPointer(bytes))) } catch { return .failure(error) }
        }
        return try result.get()
    }

    /// `2026-11-21T03:30:00.123Z`: always 24 bytes for the years 0000 to 9999.
    public static func render(_ time: WallTime) -> String {
        String(unsafeUninitializedCapacity: 24) { out in
            render(time, into: UnsafeMutableRawBufferPointer(out))
            return 24
        }
    }

    /// Writes the 24 bytes of `render` to the start of `out`.
    public static func render(_ time: WallTime, into out: UnsafeMutableRawBufferPointer) {
        let milliseconds = min(max(time.milliseconds, -62_167_219_200_000), 253_402_300_799_999)
        var day = milliseconds / 86_400_000
        var rest = milliseconds % 86_400_000
        if rest < 0 {
            rest += 86_400_000
            day -= 1
        }
        let (year, month, dayOfMonth) = civil(day)
        func put(_ value: Int64, _ at: Int, _ digits: Int) {
            var value = value
            for i in (0..<digits).reversed() {
                out[at + i] = UInt8(48 + value % 10)
                value /= 10
            }
        }
        put(year, 0, 4)
        out[4] = 45
        put(month, 5, 2)
        out[7] = 45
        put(dayOfMonth, 8, 2)
        out[10] = 84
        put(rest / 3_600_000, 11, 2)
        out[13] = 58
        put(rest / 60_000 % 60, 14, 2)
        out[16] = 58
        put(rest / 1000 % 60, 17, 2)
        out[19] = 46
        put(rest % 1000, 20, 3)
        out[23] = 90
    }

    private static func daysIn(month: Int64, year: Int64) -> Int64 {
        switch month {
        case 2: (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 ? 29 : 28
        case 4, 6, 9, 11: 30
        default: 31
        }
    }

    private static func days(_ year: Int64, _ month: Int64, _ day: Int64) -> Int64 {
        let y = month <= 2 ? year - 1 : year
        let era = (y >= 0 ? y : y - 399) / 400
        let yearOfEra = y - era * 400
        let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
        let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
        return era * 146_097 + dayOfEra - 719_468
    }

    private static func civil(_ days: Int64) -> (year: Int64, month: Int64, day: Int64) {
        let z = days + 719_468
        let era = (z >= 0 ? z : z - 146_096) / 146_097
        let dayOfEra = z - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shifted = (5 * dayOfYear + 2) / 153
        let month = shifted < 10 ? shifted + 3 : shifted - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * shifted + 2) / 5 + 1)
    }
}
