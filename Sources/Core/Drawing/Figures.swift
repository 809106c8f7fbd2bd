import Basics

/// Figures as people read them, without Foundation.
public enum Figures {
    /// With so many digits after the point, halves away from zero; `-` for what is no number, and `∞`.
    public static func fixed(_ value: Double, _ digits: Int = 1) -> String {
        if value.isNaN { return "-" }
        if value.isInfinite || abs(value) >= 1e15 { return value < 0 ? "-∞" : "∞" }
        var scale = 1.0
        for _ in 0..<digits { scale *= 10 }
        let whole = Int(clamped: (abs(value) * scale).rounded())
        let sign = value < 0 && whole > 0 ? "-" : ""
        guard digits > 0 else { return sign + String(whole) }
        let rest = String(whole % Int(clamped: scale))
        return "\(sign)\(whole / Int(clamped: scale)).\(String(repeating: "0", count: digits - rest.count))\(rest)"
    }

    /// Three figures that count, with a unit's prefix where there are many: `3.25`, `412`, `1.2k`, `6.4G`.
    public static func short(_ value: Double) -> String {
        if !value.isFinite { return fixed(value) }
        var value = value, prefix = ""
        for name in ["k", "M", "G", "T", "P"] where abs(value) >= 10_000 || (!prefix.isEmpty && abs(value) >= 1000) {
            value /= 1000
            prefix = name
        }
        let digits = abs(value) >= 100 ? 0 : abs(value) >= 10 ? 1 : 2
        var text = fixed(value, digits)
        if text.contains(".") {
            while text.hasSuffix("0") { text.removeLast() }
            if text.hasSuffix(".") { text.removeLast() }
        }
        return text + prefix
    }

    /// `37 %`.
    public static func percent(_ share: Double) -> String { "\(fixed(share * 100, 0)) %" }

    static let dayNames = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]

    /// `Wed 12:05`, UTC.
    public static func moment(_ time: WallTime) -> String { "\(day(time)) \(clock(time))" }

    /// `Wed`, UTC.
    public static func day(_ time: WallTime) -> String {
        // The first of January 1970 was a Thursday.
        let days = time.milliseconds >= 0 ? time.milliseconds / 86_400_000 : (time.milliseconds - 86_399_999) / 86_400_000
        return dayNames[Int(((days + 3) % 7 + 7) % 7)]
    }

    /// `12:05`, UTC.
    public static func clock(_ time: WallTime) -> String { String(CalendarTime.render(time).dropFirst(11).prefix(5)) }

    /// `2026-11-18 12:05`, UTC.
    public static func date(_ time: WallTime) -> String {
        let text = CalendarTime.render(time)
        return "\(text.prefix(10)) \(clock(time))"
    }
}
