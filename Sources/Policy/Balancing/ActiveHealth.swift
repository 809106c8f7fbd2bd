import Basics

/// Turns single probe results into up and down: `fall` failures in a row take a replica down, `rise` successes bring it back
/// (HAProxy's words and defaults). A replica starts up, so that a gateway that has just begun serves at once; one that is known
/// to be new starts down.
public struct ActiveHealth: Sendable {
    public struct Settings: Sendable, Equatable {
        public var rise: Int
        public var fall: Int
        public init(rise: Int = 2, fall: Int = 3) {
            self.rise = rise
            self.fall = fall
        }
    }

    public let settings: Settings
    public private(set) var isUp: Bool
    private var streak = 0

    public init(_ settings: Settings, startsUp: Bool = true) {
        self.settings = settings
        isUp = startsUp
    }

    /// Takes the result of a probe. Returns a decision when this result changes the state; nil when it only counts.
    public mutating func probed(_ success: Bool, subject: String, detail: String) -> Decision<Bool>? {
        if success == isUp {
            streak = 0
            return nil
        }
        streak += 1
        let needed = isUp ? settings.fall : settings.rise
        guard streak >= needed else { return nil }
        streak = 0
        isUp = success
        let record = DecisionRecord(
            .eject, subject: subject,
            inputs: [.init("probes_in_a_row", needed), .init("last_probe", detail)],
            raw: success ? "up" : "down", outcome: success ? "up" : "down",
            sentence: success
                ? "\(subject) takes requests again: \(needed) probes in a row succeeded."
                : "\(subject) gets no requests: \(needed) probes in a row failed, the last with: \(detail).",
            flip: success ? "a failed probe among the last \(needed)" : "\(settings.rise) successful probes in a row")
        return Decision(success, because: record)
    }
}
