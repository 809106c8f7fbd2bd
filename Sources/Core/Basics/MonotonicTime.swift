import CLinux

/// A point on the machine's monotonic clock, in nanoseconds since boot. Policy takes it as a value and
/// never reads a clock; a test makes it up.
public struct MonotonicTime: Comparable, Hashable, Sendable {
    public var nanoseconds: Int64

    public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

    /// Reads the clock (a vDSO call, about 20 ns).
    public static var now: MonotonicTime { MonotonicTime(nanoseconds: muster_monotonic_ns()) }

    public static func < (a: Self, b: Self) -> Bool { a.nanoseconds < b.nanoseconds }
    /// The time that is `b` later than `a`; the end of the clock (292 years after boot) when the sum lies beyond it, never a time in the
    /// past.
    public static func + (a: Self, b: Duration) -> Self { Self(nanoseconds: a.nanoseconds.addingClamped(b.nanoseconds)) }
    /// The time from `b` to `a`, 292 years at most either way.
    public static func - (a: Self, b: Self) -> Duration { .nanoseconds(a.nanoseconds.subtractingClamped(b.nanoseconds)) }
}

/// Wall-clock time in milliseconds since 1970, UTC: for records and files, never for measuring.
public struct WallTime: Comparable, Hashable, Sendable {
    public var milliseconds: Int64

    public init(milliseconds: Int64) { self.milliseconds = milliseconds }
    public static var now: WallTime { WallTime(milliseconds: muster_realtime_ns() / 1_000_000) }
    public static func < (a: Self, b: Self) -> Bool { a.milliseconds < b.milliseconds }
    /// The time that is `b` later than `a`, to the millisecond; the nearest end of the calendar of 64 bits when the sum lies beyond it.
    public static func + (a: Self, b: Duration) -> Self { Self(milliseconds: a.milliseconds.addingClamped(b.milliseconds)) }
    /// The time from `b` to `a`, 292 years at most either way.
    public static func - (a: Self, b: Self) -> Duration {
        .nanoseconds(a.milliseconds.subtractingClamped(b.milliseconds).multipliedClamped(by: 1_000_000))
    }
}

extension Duration {
    /// The whole duration in nanoseconds, saturating after 292 years.
    public var nanoseconds: Int64 {
        let (seconds, attoseconds) = components
        return seconds.multipliedClamped(by: 1_000_000_000).addingClamped(attoseconds / 1_000_000_000)
    }

    public var secondsAsDouble: Double { Double(nanoseconds) / 1e9 }

    /// `1.5s`, `250ms`, `2m`, as people write it; the exact value down to a microsecond.
    public var brief: String {
        let ns = nanoseconds
        if ns == 0 { return "0s" }
        if ns % 3_600_000_000_000 == 0 { return "\(ns / 3_600_000_000_000)h" }
        if ns % 60_000_000_000 == 0 { return "\(ns / 60_000_000_000)m" }
        if ns % 1_000_000_000 == 0 { return "\(ns / 1_000_000_000)s" }
        if ns >= 1_000_000_000 { return "\(Double(ns / 1_000_000) / 1000)s" }
        if ns >= 1_000_000 { return ns % 1_000_000 == 0 ? "\(ns / 1_000_000)ms" : "\(Double(ns / 1000) / 1000)ms" }
        return "\(ns / 1000)us"
    }

    /// Reads `250ms`, `1.5s`, `2m`, `1h`, `3d`. A number without a unit is refused (nil), because nobody can
    /// tell what it means; so is anything negative or above ten years.
    public init?(text: String) {
        let utf8 = Array(text.utf8)
        guard let unitStart = utf8.firstIndex(where: { !(48...57).contains($0) && $0 != 46 }) else { return nil }
        guard unitStart > 0, utf8[0] != 46, utf8[unitStart - 1] != 46,
            let value = Double(String(decoding: utf8[..<unitStart], as: UTF8.self))
        else { return nil }
        let unit: Double
        switch String(decoding: utf8[unitStart...], as: UTF8.self) {
        case "us": unit = 1e3
        case "ms": unit = 1e6
        case "s": unit = 1e9
        case "m": unit = 60e9
        case "h": unit = 3600e9
        case "d": unit = 86400e9
        default: return nil
        }
        let total = (value * unit).rounded()
        // What is written as more than nothing does not become nothing.
        guard total.isFinite, total >= 0, total <= 10 * 365 * 86400e9, value == 0 || total > 0 else { return nil }
        self = .nanoseconds(Int64(clamped: total))
    }
}
