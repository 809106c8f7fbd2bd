// The one way from numbers of outside (pages, files, answers, decoded messages) to integers and durations. Swift's own conversions and
// operators end the process when a value does not fit; a number from outside must not be able to do that.
//
// Two ways, and the caller chooses:
// - told: `Int(exactly: value.rounded())` of the standard library is nil for what is no number, infinite or out of range;
//   `Duration(seconds:)` and `Duration(nanosecondsAsDouble:)` below are nil for the same.
// - clamped: `Int(clamped: value)` and the sums and products below give the nearest value that can be represented.
//
// `Tests/Tidy` finds conversions in the sources that are neither.

extension FixedWidthInteger {
    /// The whole part of `value`, rounded toward zero; the nearest bound when it is out of range or infinite; `ifNaN` when it is no number.
    /// To round otherwise, round first: `Int(clamped: value.rounded(.up))`.
    @inlinable
    public init(clamped value: Double, ifNaN: Self = 0) {
        if let exact = Self(exactly: value.rounded(.towardZero)) {
            self = exact
        } else {
            self = value.isNaN ? ifNaN : value < 0 ? .min : .max
        }
    }

    /// The sum; the nearest bound of the type when it does not fit.
    @inlinable
    public func addingClamped(_ other: Self) -> Self {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? (other < 0 ? .min : .max) : sum
    }

    /// Adds `other`, and stays at the nearest bound of the type when the sum does not fit.
    @inlinable
    public mutating func addClamped(_ other: Self) { self = addingClamped(other) }

    /// The difference; the nearest bound of the type when it does not fit (0 for an unsigned type).
    @inlinable
    public func subtractingClamped(_ other: Self) -> Self {
        let (difference, overflow) = subtractingReportingOverflow(other)
        return overflow ? (other < 0 ? .max : .min) : difference
    }

    /// The product; the nearest bound of the type when it does not fit.
    @inlinable
    public func multipliedClamped(by other: Self) -> Self {
        let (product, overflow) = multipliedReportingOverflow(by: other)
        return overflow ? ((self < 0) != (other < 0) ? .min : .max) : product
    }
}

extension Sequence where Element: FixedWidthInteger {
    /// The sum of the elements from the first to the last, clamped at each step; 0 when there is none.
    @inlinable
    public func sumClamped() -> Element { reduce(0) { $0.addingClamped($1) } }
}

extension Duration {
    /// `seconds` to the nanosecond, rounded toward zero; nil when `seconds` is no number, or longer than 292 years (as `nanoseconds`
    /// counts).
    @inlinable
    public init?(seconds: Double) { self.init(nanosecondsAsDouble: seconds * 1e9) }

    /// Whole nanoseconds, rounded toward zero; nil when `nanoseconds` is no number, or longer than 292 years.
    @inlinable
    public init?(nanosecondsAsDouble nanoseconds: Double) {
        guard let whole = Int64(exactly: nanoseconds.rounded(.towardZero)) else { return nil }
        self = .nanoseconds(whole)
    }

    /// `seconds` to the nanosecond, rounded toward zero: 292 years at most either way, and zero when `seconds` is no number.
    @inlinable
    public init(clampedSeconds seconds: Double) { self = .nanoseconds(Int64(clamped: seconds * 1e9)) }

    /// The sum in whole nanoseconds, 292 years at most either way.
    @inlinable
    public func addingClamped(_ other: Duration) -> Duration { .nanoseconds(nanoseconds.addingClamped(other.nanoseconds)) }

    /// `factor` times as long, in whole nanoseconds, 292 years at most either way.
    @inlinable
    public func multipliedClamped(by factor: Int) -> Duration { .nanoseconds(nanoseconds.multipliedClamped(by: Int64(factor))) }

    /// `factor` times as long, in whole nanoseconds, 292 years at most either way; zero when `factor` is no number.
    @inlinable
    public func multipliedClamped(by factor: Double) -> Duration { .nanoseconds(Int64(clamped: Double(nanoseconds) * factor)) }

    /// Whole milliseconds, rounded toward zero.
    @inlinable
    public var milliseconds: Int64 { nanoseconds / 1_000_000 }
}
