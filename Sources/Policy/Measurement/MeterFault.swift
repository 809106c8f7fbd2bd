/// Why a source gives no figure. The autoscaler treats the figure as missing, never as zero.
public struct MeterFault: Error, Equatable, Sendable, CustomStringConvertible {
    /// The kinds of faults, by the names that the metrics use.
    public enum Kind: String, Sendable, CaseIterable {
        case notANumber = "not_a_number"
        case infinite
        case negative
        /// The figure is more than there can be: see `MachineBounds` and `Plausibility.bound`.
        case implausible
        /// There is no rate yet: it needs two readings, some time apart.
        case tooEarly = "too_early"
        /// The clock stood still, or went back.
        case clock
        /// Nothing was read for so long that a rate over that time would say nothing.
        case gap
        /// The page, the key or the route has nothing of the name asked for.
        case absent
        /// The process has ended, or another one has its number.
        case gone
        case unreachable
        case timedOut = "timed_out"
        case tooLarge = "too_large"
        case malformed
        /// The source refused to answer: a status other than 200, an error of Redis.
        case refused
        /// The answer is no metrics page, or the key holds something else.
        case wrongType = "wrong_type"
        /// The last good figure is older than allowed.
        case stale
        /// The source has not been asked yet, or its first answer is not here.
        case pending

        /// Whether an answer came and was thrown away because it cannot be believed or cannot be read. The figure is then not known, which
        /// is another thing than that there is none: the autoscaler must not take replicas away on the figures that are left. The other
        /// kinds say that nothing came, or that a rate cannot be made yet.
        public var isThrownAway: Bool {
            switch self {
            case .notANumber, .infinite, .negative, .implausible, .tooLarge, .malformed, .wrongType, .stale: true
            case .tooEarly, .clock, .gap, .absent, .gone, .unreachable, .timedOut, .refused, .pending: false
            }
        }
    }

    /// The kind of the fault.
    public let kind: Kind
    /// About one sentence for a person: what was wrong, where, and how much.
    public let reason: String

    /// A fault with its reason, which says what was seen and what would have been right.
    public init(_ kind: Kind, _ reason: String) {
        self.kind = kind
        self.reason = reason
    }

    /// The fault of a number as such; nil for a finite number that is not negative. Minus zero is zero.
    public static func of(_ value: Double, called name: String) -> MeterFault? {
        if value.isNaN { return MeterFault(.notANumber, "\(name) is not a number (NaN)") }
        if value.isInfinite { return MeterFault(.infinite, "\(name) is \(value > 0 ? "+" : "-")infinite") }
        if value < 0 { return MeterFault(.negative, "\(name) is negative (\(value))") }
        return nil
    }

    /// The kind and the reason: `too_large: page larger than 8 MiB`
    public var description: String { "\(kind.rawValue): \(reason)" }
}
