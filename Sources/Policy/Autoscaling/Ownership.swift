import Basics

/// Keeps track of whether anybody besides the autoscaler sets a service's size. There is one owner at a time: somebody who sets the size
/// holds the autoscaler until the size is freed. Repeated changes by others are reported, because two that correct each other never rest.
public struct Ownership: Sendable, Equatable {
    /// So many changes by others within `window` are a fight, not a correction. The values are ours.
    public static let fight = 3
    public static let window = Duration.seconds(600)

    /// The size that somebody has fixed; nil: the autoscaler is free.
    public private(set) var held: Int?
    private var changes: [MonotonicTime] = []

    public init() {}

    /// Notes that somebody set the size (nil: freed it). The record says what happened, and whether it is a fight.
    public mutating func set(_ service: String, _ count: Int?, from current: Int, now: MonotonicTime) -> DecisionRecord {
        changes.removeAll { now - $0 > Ownership.window }
        if count != nil { changes.append(now) }
        let before = held
        held = count
        let inputs = [
            DecisionRecord.Input("asked", count.map(String.init) ?? "auto"), .init("before", current),
            .init("set by others", "\(changes.count) times in \(Ownership.window.brief)"),
        ]
        guard let count else {
            return DecisionRecord(
                .scale, subject: service, inputs: inputs, raw: String(current), outcome: String(current),
                sentence: "\(service) belongs to the autoscaler\(before == nil ? "" : " again"): it begins from \(current).",
                flip: "muster scale \(service)=\(current)")
        }
        let told =
            changes.count >= Ownership.fight
            ? "\(service) was set from outside \(changes.count) times in \(Ownership.window.brief), now from \(current) to \(count): a "
                + "hand or another autoscaler works against this one; keep one of them"
            : "\(service) goes from \(current) to \(count): somebody asked for it, and the autoscaler is held until it is let go"
        return DecisionRecord(
            .scale, subject: service, inputs: inputs, raw: String(count), outcome: String(count), sentence: told + ".",
            flip: "muster scale \(service)=auto")
    }

    /// Notes a size other than the one that the autoscaler last set, when nobody has announced the change. nil when the size is as
    /// expected.
    public mutating func found(_ service: String, _ current: Int, expected: Int, now: MonotonicTime) -> DecisionRecord? {
        guard current != expected else { return nil }
        changes.removeAll { now - $0 > Ownership.window }
        changes.append(now)
        let fights = changes.count >= Ownership.fight
        return DecisionRecord(
            .scale, subject: service, inputs: [.init("expected", expected), .init("found", current)], raw: String(expected),
            outcome: String(current),
            sentence: fights
                ? "\(service) was changed by others \(changes.count) times in \(Ownership.window.brief), now from \(expected) to "
                    + "\(current): a hand or another autoscaler works against this one; keep one of them."
                : "\(service) has \(current) replicas where the autoscaler had set \(expected): somebody else has changed it, and it goes "
                    + "on from there.",
            flip: "one owner")
    }
}
