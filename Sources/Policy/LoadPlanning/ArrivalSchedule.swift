import Basics

/// The times at which the requests of the open phases are to be sent, in nanoseconds from the start of the run, in their order.
///
/// The rates of all open pieces add up to one growing area; request n is due where it reaches n. So the count is exact over the whole run:
/// 200/s for 30 s are 6,000 requests, the first at 0. With `poisson` the distances on that area are exponentially distributed instead of 1,
/// as when many clients know nothing of each other; the same seed gives the same times.
///
/// O(1) a request; no memory grows with their number.
public struct ArrivalSchedule: Sequence, IteratorProtocol, Sendable {
    public enum Spacing: String, Sendable, CaseIterable {
        case even, poisson
    }

    private let pieces: [LoadPiece]
    private let spacing: Spacing
    private var random: SeededRandom
    private var piece = 0
    /// The area before `piece`.
    private var before = 0.0
    /// Where the next request is on the area.
    private var place = 0.0
    private var isFirst = true

    public init(_ pieces: [LoadPiece], spacing: Spacing = .even, seed: UInt64 = 1) {
        self.pieces = pieces.filter { $0.unit == .arrivals }
        self.spacing = spacing
        random = SeededRandom(seed: seed)
    }

    /// The number of requests of evenly spaced arrivals in all; for Poisson arrivals, the number to be expected.
    public var expectedCount: Int {
        let total = pieces.reduce(0.0) { $0 + $1.area }
        return Int(clamped: (total - ArrivalSchedule.slack).rounded(.up))
    }

    public mutating func next() -> Int64? {
        if !isFirst { place += spacing == .even ? 1 : exponential() } else if spacing == .poisson { place = exponential() }
        isFirst = false
        while piece < pieces.count {
            let here = pieces[piece]
            if place < before + here.area - ArrivalSchedule.slack {
                return here.start + Int64(clamped: here.time(ofArea: place - before) * 1e9)
            }
            before += here.area
            piece += 1
        }
        return nil
    }

    /// What sums of fractions may be off: a request that is due at the very end of a piece belongs to the next.
    private static let slack = 1e-6

    /// With mean 1.
    private mutating func exponential() -> Double { -naturalLog(1 - Double.random(in: 0..<1, using: &random)) }
}

/// The natural logarithm of a positive, finite number, to about 1e-15: Policy links no mathematics. ln m = 2 artanh((m-1)/(m+1)).
func naturalLog(_ value: Double) -> Double {
    let mantissa = value.significand
    let s = (mantissa - 1) / (mantissa + 1)
    var power = s, sum = 0.0
    // s is at most 1/3: 16 terms leave less than 1e-15.
    for k in 0..<16 {
        sum += power / Double(2 * k + 1)
        power *= s * s
    }
    return 2 * sum + Double(value.exponent) * 0.693_147_180_559_945_3
}
