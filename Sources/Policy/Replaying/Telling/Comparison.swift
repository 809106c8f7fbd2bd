import Drawing

/// Two policies over one trace, compared in words: which one is cheaper, which one is safer, by how much, and what makes the difference.
public struct Comparison: Sendable, Equatable {
    public enum Side: String, Sendable { case first, second, neither }

    public let cheaper: Side
    public let safer: Side
    /// Replica-hours and overload-minutes of the first policy less those of the second.
    public let replicaHours: Double
    public let overloadMinutes: Double
    public let sentence: String
    /// What holds the sizes of the two policies differently, or causes their overload.
    public let difference: String

    /// Differences below these count as none: three minutes of one replica, three seconds of overload.
    static let leastHours = 0.05
    static let leastMinutes = 0.05

    public init(_ first: ReplayOutcome, _ second: ReplayOutcome) {
        replicaHours = first.replicaHours - second.replicaHours
        overloadMinutes = first.overloadMinutes - second.overloadMinutes
        cheaper = abs(replicaHours) < Comparison.leastHours ? .neither : replicaHours < 0 ? .first : .second
        safer = abs(overloadMinutes) < Comparison.leastMinutes ? .neither : overloadMinutes < 0 ? .first : .second
        sentence = Comparison.sentence(first, second, cheaper, safer)
        difference = Comparison.difference(first, second)
    }

    private static func sentence(_ first: ReplayOutcome, _ second: ReplayOutcome, _ cheaper: Side, _ safer: Side) -> String {
        let fewer = min(first.overloadMinutes, second.overloadMinutes), more = max(first.overloadMinutes, second.overloadMinutes)
        let minutes = "\(Figures.fixed(fewer)) overload-minutes against \(Figures.fixed(more))"
        let hours = Figures.fixed(abs(first.replicaHours - second.replicaHours))
        let base = max(first.replicaHours, second.replicaHours)
        let share = base > 0 ? " (\(Figures.percent(abs(first.replicaHours - second.replicaHours) / base)))" : ""
        func name(_ side: Side) -> String { side == .first ? first.policy : second.policy }
        switch (cheaper, safer) {
        case (.neither, .neither):
            return
                "\(first.policy) and \(second.policy) cost the same and are as safe as each other: \(Figures.fixed(first.replicaHours)) "
                + "replica-hours, "
                + "\(Figures.fixed(first.overloadMinutes)) overload-minutes."
        case (.neither, _): return "\(name(safer)) is safer at the same cost: \(minutes)."
        case (_, .neither):
            return
                "\(name(cheaper)) is cheaper by \(hours) replica-hours\(share) and as safe: \(Figures.fixed(first.overloadMinutes)) "
                + "overload-minutes in both."
        case _ where cheaper == safer: return "\(name(cheaper)) is cheaper by \(hours) replica-hours\(share) and safer: \(minutes)."
        default:
            let apart = abs(first.overloadMinutes - second.overloadMinutes)
            let price = abs(first.replicaHours - second.replicaHours) / apart
            return
                "\(name(cheaper)) is cheaper by \(hours) replica-hours\(share), \(name(safer)) is safer by \(Figures.fixed(apart)) "
                + "overload-minutes: "
                + "each of these costs \(Figures.fixed(price, 2)) replica-hours."
        }
    }

    /// The cause that keeps the dearer one larger by the most, and the one that overloads the other by the most.
    private static func difference(_ first: ReplayOutcome, _ second: ReplayOutcome) -> String {
        var parts: [String] = []
        func kept(_ one: ReplayOutcome, _ cause: HoldCause) -> Double { one.holdings.first { $0.cause == cause }?.kept ?? 0 }
        let (dear, cheap) = first.replicaHours >= second.replicaHours ? (first, second) : (second, first)
        let widest = HoldCause.allCases.max { kept(dear, $0) - kept(cheap, $0) < kept(dear, $1) - kept(cheap, $1) }
        if let widest, kept(dear, widest) - kept(cheap, widest) >= leastHours {
            parts.append(
                "\(widest.rawValue) kept \(Figures.fixed(kept(dear, widest))) replica-hours with \(dear.policy), "
                    + "\(Figures.fixed(kept(cheap, widest))) with \(cheap.policy)"
            )
        } else if dear.replicaHours - cheap.replicaHours >= leastHours {
            parts.append("nothing holds \(dear.policy) larger, its targets ask for more")
        }
        func minutes(_ one: ReplayOutcome, _ cause: OverloadCause) -> Double {
            one.overloadCauses.first { $0.cause == cause }?.minutes ?? 0
        }
        let (risky, safe) = first.overloadMinutes >= second.overloadMinutes ? (first, second) : (second, first)
        let worst = risky.overloadCauses.map(\.cause).max {
            minutes(risky, $0) - minutes(safe, $0) < minutes(risky, $1) - minutes(safe, $1)
        }
        if let worst, risky.overloadMinutes - safe.overloadMinutes >= leastMinutes {
            parts.append(
                "\(worst.name) caused \(Figures.fixed(minutes(risky, worst))) overload-minutes with \(risky.policy), "
                    + "\(Figures.fixed(minutes(safe, worst))) with \(safe.policy)"
            )
        }
        if parts.isEmpty { return "Neither is held where the other is not." }
        return "What makes the difference: \(parts.joined(separator: "; "))."
    }
}

extension ReplayOutcome {
    /// The change that would help this policy most, for this policy alone: what kept it large, and what left it too small.
    public var advice: String {
        var parts: [String] = []
        if let most = holdings.max(by: { $0.kept < $1.kept }), most.kept >= Comparison.leastHours {
            parts.append("\(most.cause.rawValue) kept \(Figures.fixed(most.kept)) replica-hours above what the metrics asked for")
        }
        if let most = overloadCauses.first {
            parts.append("\(most.cause.name) caused \(Figures.fixed(most.minutes)) of \(Figures.fixed(overloadMinutes)) overload-minutes")
        }
        return parts.isEmpty ? "nothing held its size, and it was never overloaded" : parts.joined(separator: "; ")
    }
}
