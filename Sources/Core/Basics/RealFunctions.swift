import Glibc

// The C library's functions of real numbers, for floors that may not import it. Pure: what is no number goes in and comes out as such.

/// The natural logarithm of `x`: −∞ for 0, NaN below 0.
public func naturalLogarithm(_ x: Double) -> Double { log(x) }

/// `base` to the power of `exponent`.
public func power(_ base: Double, _ exponent: Double) -> Double { pow(base, exponent) }

/// 2 to the power of `exponent`: 0 far below −1074, infinite from 1024 on.
public func powerOfTwo(_ exponent: Double) -> Double { exp2(exponent) }
