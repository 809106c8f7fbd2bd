import Basics

/// A part of a scenario: a certain load for a certain time.
///
/// In an open phase requests arrive at a rate, whether those before were answered or not. In a closed phase users wait for their answer,
/// think, and ask again, so that a slow server gets fewer requests.
public struct LoadPhase: Sendable, Equatable {
    public enum Unit: Sendable, Equatable {
        /// An open phase; its levels are arrivals a second.
        case arrivals
        /// A closed phase; its levels are numbers of users.
        case users
    }
    public enum Shape: Sendable, Equatable {
        case hold
        /// The level goes in a straight line from one value to the other.
        case ramp
        /// The level goes in so many equal stretches of time, with values evenly apart; both ends are among them.
        case step(Int)
        /// The level comes and goes at once. The arithmetic is that of `hold`; only the word is another one, for the reader.
        case spike
    }
    public let unit: Unit
    public let shape: Shape
    public let from: Double
    /// The level at the end. For `hold` and `spike` it is the level of the whole phase.
    public let to: Double
    public let duration: Duration
    /// How long a user waits between an answer and the next request; chosen uniformly. Unused in the open model.
    public let think: ClosedRange<Duration>

    public init(_ unit: Unit, _ shape: Shape, from: Double, to: Double, duration: Duration, think: ClosedRange<Duration> = .zero ... .zero)
    {
        self.unit = unit
        self.shape = shape
        self.from = from
        self.to = to
        self.duration = duration
        self.think = think
    }

    /// A phase with a rate (or a number of users) that stays the same.
    public static func hold(_ unit: Unit, _ level: Double, for duration: Duration, think: ClosedRange<Duration> = .zero ... .zero)
        -> LoadPhase
    {
        LoadPhase(unit, .hold, from: level, to: level, duration: duration, think: think)
    }

    /// `200/s for 30s`, `ramp 0..1000 users for 1m`.
    public var description: String {
        func level(_ value: Double) -> String { unit == .arrivals ? rateText(value) : "\(Int(clamped: value))" }
        let suffix = unit == .users ? " users" : ""
        let levels: String =
            switch shape {
            case .hold: level(to)
            case .spike: "spike \(level(to))"
            case .ramp: "ramp \(level(from))..\(level(to))"
            case .step(let count): "\(count) steps \(level(from))..\(level(to))"
            }
        return "\(levels)\(suffix) for \(duration.brief)"
    }
}

/// A stretch of time in which the level goes in a straight line. Phases are made of such pieces. Times are nanoseconds from the start of
/// the run.
public struct LoadPiece: Sendable, Equatable {
    /// The index of its phase in the scenario, from 0.
    public let phase: Int
    public let unit: LoadPhase.Unit
    public let start: Int64
    public let duration: Int64
    public let from: Double
    public let to: Double
    public let think: ClosedRange<Int64>

    public var end: Int64 { start + duration }

    /// The level at `time`, which is within this piece.
    public func level(at time: Int64) -> Double { from + (to - from) * Double(time - start) / Double(duration) }

    /// Arrivals of the whole piece, were it open: the area below the line.
    var area: Double { (from + to) / 2 * Double(duration) / 1e9 }

    /// When, in seconds from the piece's start, the area below the line has reached `area`.
    func time(ofArea area: Double) -> Double {
        if area <= 0 { return 0 }
        let length = Double(duration) / 1e9
        let square = from * from + 2 * area * (to - from) / length
        // The usual formula, turned over: it does not divide by the slope, which may be 0.
        return min(2 * area / (from + max(square, 0).squareRoot()), length)
    }
}

extension [LoadPhase] {
    /// The pieces of all phases, one after the other; a step becomes its stretches.
    public var pieces: [LoadPiece] {
        var out: [LoadPiece] = []
        var start: Int64 = 0
        for (index, phase) in enumerated() {
            var count = 1
            if case .step(let steps) = phase.shape { count = steps }
            let whole = phase.duration.nanoseconds
            for i in 0..<count {
                let begin = start + whole / Int64(count) * Int64(i)
                let end = i == count - 1 ? start + whole : start + whole / Int64(count) * Int64(i + 1)
                let level = count > 1 ? phase.from + (phase.to - phase.from) * Double(i) / Double(count - 1) : phase.to
                let think = phase.think.lowerBound.nanoseconds...phase.think.upperBound.nanoseconds
                out.append(
                    LoadPiece(
                        phase: index, unit: phase.unit, start: begin, duration: end - begin,
                        from: phase.shape == .ramp ? phase.from : level, to: level, think: think))
            }
            start += whole
        }
        return out
    }
}
