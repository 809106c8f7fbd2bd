/// Two policies over one trace, in words: which is cheaper, which is safer, by how much, and what makes the difference.
public struct Comparison: Sendable, Equatable {
    public enum Side: String, Sendable { case first, second, neither }

    public let cheaper: Side
    public let safer: Side
    /// Replica-hours and overload-minutes of the first less those of the second.
    public let replicaHours: Double
    public let overloadMinutes: Double
    public let sentence: String
    /// What holds their sizes differently, or causes their overload.
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
        let minutes = "\(Figures.fixed(first.overloadMinutes)) overload-minutes against \(Figures.fixed(second.overloadMinutes))"
        let hours = Figures.fixed(abs(first.replicaHours - second.replicaHours))
        let base = max(first.replicaHours, second.replicaHours)
        let share = base > 0 ? " (\(Figures.percent(abs(first.replicaHours - second.replicaHours) / base)))" : ""
        func name(_ side: Side) -> String { side == .first ? first.policy : second.policy }
        switch (cheaper, safer) {
        case (.neither, .neither):
            return "\(first.policy) and \(second.policy) cost the same and are as safe as each other: \(Figures.fixed(first.replicaHours)) replica-hours, "
                + "\(Figures.fixed(first.overloadMinutes)) overload-minutes."
        case (.neither, _): return "\(name(safer)) is safer at the same cost: \(minutes)."
        case (_, .neither): return "\(name(cheaper)) is cheaper by \(hours) replica-hours\(share) and as safe: \(Figures.fixed(first.overloadMinutes)) overload-minutes in both."
        case _ where cheaper == safer: return "\(name(cheaper)) is cheaper by \(hours) replica-hours\(share) and safer: \(minutes)."
        default:
            let apart = abs(first.overloadMinutes - second.overloadMinutes)
            let price = abs(first.replicaHours - second.replicaHours) / apart
            return "\(name(cheaper)) is cheaper by \(hours) replica-hours\(share), \(name(safer)) is safer by \(Figures.fixed(apart)) overload-minutes: "
                + "each of these costs \(Figures.fixed(price, 2)) replica-hours."
        }
    }

    private static func difference(_ first: ReplayOutcome, _ second: ReplayOutcome) -> String {
        var parts: [String] = []
        func hours(_ one: ReplayOutcome, _ cause: HoldCause) -> Double { one.holdings.first { $0.cause == cause }?.kept ?? 0 }
        let widest = HoldCause.allCases.max { abs(hours(first, $0) - hours(second, $0)) < abs(hours(first, $1) - hours(second, $1)) }
        if let widest, abs(hours(first, widest) - hours(second, widest)) >= leastHours {
            let (more, less) = hours(first, widest) > hours(second, widest) ? (first, second) : (second, first)
            parts.append(
                "\(widest.rawValue) kept \(Figures.fixed(hours(more, widest))) replica-hours with \(more.policy), \(Figures.fixed(hours(less, widest))) with \(less.policy)")
        }
        let causes = Set(first.overloadCauses.map(\.cause)).union(second.overloadCauses.map(\.cause)).sorted { $0.name < $1.name }
        func minutes(_ one: ReplayOutcome, _ cause: OverloadCause) -> Double { one.overloadCauses.first { $0.cause == cause }?.minutes ?? 0 }
        let worst = causes.max { abs(minutes(first, $0) - minutes(second, $0)) < abs(minutes(first, $1) - minutes(second, $1)) }
        if let worst, abs(minutes(first, worst) - minutes(second, worst)) >= leastMinutes {
            let (more, less) = minutes(first, worst) > minutes(second, worst) ? (first, second) : (second, first)
            parts.append(
                "\(worst.name) caused \(Figures.fixed(minutes(more, worst))) overload-minutes with \(more.policy), \(Figures.fixed(minutes(less, worst))) with \(less.policy)")
        }
        if parts.isEmpty { return "Neither is held where the other is not: what differs is the size that their targets ask for." }
        return "What makes the difference: \(parts.joined(separator: "; "))."
    }
}

extension ReplayOutcome {
    /// What would change most for this policy alone: what kept it large, and what left it too small.
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
